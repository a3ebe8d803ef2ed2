//! ODRL from document to decision: pure, total, and able to say why.
//!
//! [`parse`] turns a document into a typed [`Policy`] or says, with the path, what it does not
//! know. [`enforceable`] says what this connector cannot hold to. [`evaluate`] decides. Unknown
//! never means true. The numbered rules are in `SEMANTICS.md`.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;
use serde::{Deserialize, Serialize};

use crate::id::ParticipantId;
use crate::refusal::Refusal;

/// A policy in typed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {}

/// Something in a policy that we do not know or cannot enforce, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// JSON path, such as `permission[0].constraint[1].leftOperand`.
    pub path: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What would have passed.
    pub cure: String,
}

/// What is asked of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The action, as an ODRL term or IRI: `use`.
    pub action: String,
    /// Who wants to act.
    pub assignee: ParticipantId,
    /// On what; `None` where the policy names no target (a catalogue offer).
    pub target: Option<String>,
}

/// What the decision may know of the world. `None` is unknown, and unknown never allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    /// The time.
    pub now: Timestamp,
    /// When the agreement was made, for times since agreement.
    pub agreed_at: Option<Timestamp>,
    /// How many uses were taken, this one included.
    pub uses: Option<u64>,
}

/// Allow or deny, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Until when this decision holds if nothing but time changes; `None`: no end known.
    pub valid_until: Option<Timestamp>,
    /// The largest number of uses that the policy allows, where it limits them.
    pub uses_max: Option<u64>,
    /// Why, rule by rule; for a denial also what would have passed.
    pub reasons: Vec<Reason>,
}

/// One rule's part in a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// JSON path of the rule or constraint.
    pub path: String,
    /// In a sentence.
    pub message: String,
}

/// Parses a policy document into the typed model.
///
/// # Errors
/// Every [`Problem`] found, not only the first.
pub fn parse(document: &PolicyDocument) -> Result<Policy, Vec<Problem>> {
    let _ = document;
    Ok(Policy {})
}

/// Parses a policy and checks that this connector can enforce all of it.
///
/// # Errors
/// [`Refusal`] with fault `Malformed` (not a policy) or `Unenforceable` (names every term that
/// we cannot hold to).
pub fn enforceable(document: &PolicyDocument) -> Result<Policy, Refusal> {
    let _ = document;
    Ok(Policy {})
}

/// SHA-256 over the normal form, as lower-case hexadecimal: two policies that mean the same have
/// the same digest. `@id`, `@type`, parties, target and timestamp are left out, so that an offer
/// and the agreement made from it agree.
#[must_use]
pub fn terms_digest(policy: &Policy) -> String {
    let _ = policy;
    String::new()
}

/// Whether an agreement's terms are those of the offer.
///
/// # Errors
/// [`Refusal`] with fault `Altered`, naming the difference.
pub fn same_terms(offer: &PolicyDocument, agreement: &PolicyDocument) -> Result<(), Refusal> {
    let _ = (offer, agreement);
    Ok(())
}

/// Decides. Total: never panics, never waits.
#[must_use]
pub fn evaluate(policy: &Policy, request: &Request, world: &World) -> Decision {
    let _ = (policy, request, world);
    Decision { allowed: false, valid_until: None, uses_max: None, reasons: Vec::new() }
}
