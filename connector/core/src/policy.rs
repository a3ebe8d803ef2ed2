//! ODRL from document to decision: pure, total, and able to say why.
//!
//! [`parse`] turns a document into a typed [`Policy`] or says, with the path, what it does not
//! know. [`enforceable`] says what this connector cannot hold to. [`evaluate`] decides. Unknown
//! never means true. The numbered rules are in `SEMANTICS.md`.

pub mod capability;
pub mod class;
mod compare;
mod conflict;
mod describe;
pub mod duty;
mod enforce;
mod evaluate;
pub mod fact;
#[expect(clippy::wildcard_enum_match_arm, reason = "JSON has the six kinds of value that it has")]
mod ids;
#[expect(clippy::wildcard_enum_match_arm, reason = "JSON has the six kinds of value that it has")]
mod inherit;
mod literal;
mod meaning;
pub mod model;
mod normalise;
pub mod operand;
#[expect(clippy::wildcard_enum_match_arm, reason = "JSON has the six kinds of value that it has")]
mod parse;
pub mod permit;
mod plan;
mod premise;
mod prepared;
pub mod report;
mod times;
#[expect(clippy::wildcard_enum_match_arm, reason = "JSON has the six kinds of value that it has")]
mod whole;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::ParticipantId;

pub use capability::{Capabilities, StageKind};
pub use compare::{Compared, Difference, Relation, RelationKind, compare, compared};
pub use describe::{CAPABILITIES_VERSION, Capability, CapabilityDocument, Need, NeedList, describe, needs};
pub use duty::{Deadline, DueDuty, DutyKey, DutyKind, DutyState, DutyStates, Frequency, Standing, When, duties};
pub use enforce::{
    ACTIONS_ENFORCED, OPERANDS_ENFORCED, PROFILES_KNOWN, enforceable, refusal, transfer_action, unenforceable,
};
pub use evaluate::{REASONS_MAX, could_allow, evaluate, first_allowed};
pub use fact::{ASSIGNEE_COLLECTIONS, Fact, FactSource, FactValue, Facts, TARGET_COLLECTIONS};
pub use inherit::{INHERITANCE_MAX, PARENTS_MAX, inherit};
pub use literal::{DURATION_YEARS_MAX, Duration};
pub use model::{Policy, Rule, RuleKind};
pub use normalise::{same_terms, same_terms_with, terms_digest};
pub use operand::{
    DefinedKind, OPERANDS, OperandDefinition, OperandKind, OperandSpec, Taxonomy, Vocabulary, VocabularyProblem,
};
pub use parse::{
    CONSTRAINTS_MAX, NESTING_MAX, OPERANDS_MAX, PARTIES_MAX, PROBLEMS_MAX, RULES_MAX, TEXT_BYTES_MAX, parse, parse_with,
};
pub use permit::{FieldPath, Rate, StreamTerms, Transform};
pub use plan::{Enforcement, Phase, Plan, Step, explain, plan};
pub use prepared::{Prepared, Verdict};
pub use report::{Report, report};
pub use whole::{is_more_than_one_plain, left_to_rules, one_plain, said_of_all};

/// Something in a policy that we do not know or cannot enforce, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What sort of problem.
    #[serde(default)]
    pub kind: ProblemKind,
    /// JSON path, such as `permission[0].constraint[1].leftOperand`.
    pub path: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What would have passed.
    pub cure: String,
}

impl Problem {
    /// The problem with its place, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.path.is_empty() { self.message.clone() } else { format!("{}: {}", self.path, self.message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (would have passed: {})", self.sentence(), self.cure)
    }
}

/// What sort of problem, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Not a policy, or not a value of its type.
    #[default]
    Malformed,
    /// Larger than one of our limits.
    Limit,
    /// A term that is not known here.
    Unknown,
    /// A term that is known, and that this connector cannot hold to.
    Unenforced,
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
    /// How many bytes were moved under the agreement, all transfers together.
    pub bytes: Option<u64>,
    /// How many records were moved under the agreement, all transfers together.
    pub records: Option<u64>,
    /// What else is known, by operand.
    pub facts: Facts,
    /// How far the duties of the policy are.
    pub duties: DutyStates,
}

/// Allow or deny, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Until when this decision holds if nothing but time changes: it is the same at every instant
    /// from now up to but not including this one, at which it turns. Under `dateTime lteq T` that
    /// is the nanosecond after `T`. `None`: it never turns.
    ///
    /// What is the same is the decision as a whole: `allowed`, under which `terms` where it is
    /// allowed, and which `duties` come with it in which state. So what was allowed may be allowed
    /// still from this instant on, under other terms or with other duties; whoever holds to terms
    /// asks again at it, and goes on under the new ones. Only a policy of more conditions and
    /// burdens than are compared for this in good time (`SEMANTICS.md`, S10) may name an instant
    /// at which nothing turns; never one that is too late.
    pub valid_until: Option<Timestamp>,
    /// The largest count of uses up to which every further use is allowed, from the present one
    /// (or from the first, where the present one is denied) on; 0 where not even the first is.
    /// `None` where the policy does not limit them.
    pub uses_max: Option<u64>,
    /// Under which burdens bytes may flow, where the request is allowed.
    pub terms: StreamTerms,
    /// The duties that come with it: those to do as an allowed use begins, during and after it, and
    /// those to do before one that is denied for want of them. A log that is to be made before the
    /// use comes with one that is allowed: whoever lets it begin makes the log first, or does not.
    pub duties: Vec<DueDuty>,
    /// The operands whose values it depends on, by their canonical names.
    pub depends_on: BTreeSet<String>,
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

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod class_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod fact_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod inherit_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
