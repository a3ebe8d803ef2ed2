//! The one function that moves a negotiation.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;

use super::message::{Agreement, Message, Offer, OfferKind};
use super::state::Negotiation;
use crate::effect::Effect;
use crate::id::{AgreementId, MessageId, ParticipantId, ProcessId};
use crate::refusal::Refusal;

/// What can happen to a negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The counterparty said something.
    Received(Received),
    /// We decided: an operator, or an automation rule.
    Decided(Command),
    /// Our message arrived: the peer answered 2xx, or sent something that presupposes it.
    Delivered {
        /// Which.
        id: MessageId,
        /// The peer's identifier, where its answer named one.
        peer_pid: Option<ProcessId>,
    },
    /// Our message will not arrive: refused for good, or given up after the last retry.
    Undelivered {
        /// Which.
        id: MessageId,
        /// Why.
        failure: Failure,
    },
}

/// A message as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who sent it, proven.
    pub from: ParticipantId,
    /// The counterparty's identifier, as the message names it.
    pub peer_pid: ProcessId,
    /// Digest of the whole message: the same digest is the same message.
    pub digest: String,
    /// What it says.
    pub message: Message,
}

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The peer answered and refused (4xx), rather than never answering.
    pub refused: bool,
    /// In words.
    pub detail: String,
}

/// What we may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Consumer: the first request, or a counter-request to an offer.
    Request {
        /// For what.
        offer: Offer,
    },
    /// Provider: make or counter an offer.
    Offer {
        /// Which.
        offer: Offer,
    },
    /// Consumer: accept the provider's offer.
    Accept,
    /// Provider: agree to what is on the table, under a fresh agreement id.
    Agree {
        /// The agreement's identifier.
        id: AgreementId,
    },
    /// Consumer: verify the agreement.
    Verify,
    /// Provider: put the verified agreement in force.
    Finalize,
    /// Either: end it.
    Terminate {
        /// Code for the peer.
        code: Option<String>,
        /// Reasons for the peer.
        reason: Vec<String>,
    },
}

/// What a step may know. Values only.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// A fresh identifier for a message that the step may send.
    pub message_id: MessageId,
    /// For a received request or offer, and for our own: whether the terms can be taken up at
    /// all (visible to the peer, enforceable here) and how they relate to what is published; a
    /// refusal refuses the message.
    pub terms: Result<OfferKind, Refusal>,
}

/// The next state with its effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The negotiation after the step.
    pub next: Negotiation,
    /// What the shell must do, in order.
    pub effects: Vec<Effect<Message>>,
    /// Whether anything changed; a repeated message changes nothing.
    pub changed: bool,
}

impl Negotiation {
    /// A new negotiation that we begin: `Initial`, with nothing sent. Follow with
    /// `Input::Decided(Command::Request)` as consumer or `Command::Offer` as provider.
    #[must_use]
    pub fn begin(
        id: ProcessId,
        role: super::Role,
        participant: ParticipantId,
        counterparty: ParticipantId,
        peer_address: String,
    ) -> Self {
        Self {
            id,
            role,
            participant,
            counterparty,
            peer_pid: None,
            peer_address,
            state: super::State::Initial,
            pending: None,
            seen: Vec::new(),
            rounds: 0,
            problem: None,
        }
    }

    /// Moves the negotiation by one input.
    ///
    /// A message that the peer begins a negotiation with (a first request at the provider, a
    /// first offer at the consumer) is stepped on `Negotiation::begin(..)` too.
    ///
    /// # Errors
    /// [`Refusal`] with the reason; the negotiation is then unchanged.
    pub fn step(self, input: Input, facts: &Facts) -> Result<Outcome, Refusal> {
        let _ = (input, facts);
        Ok(Outcome { next: self, effects: Vec::new(), changed: false })
    }
}

/// The agreement that answers an offer: the offer's policy with type, id, parties, target and
/// time set, and nothing else changed, so that a peer that compares finds it equal.
#[must_use]
pub fn agreement_from(
    offer: &Offer,
    id: AgreementId,
    assigner: &ParticipantId,
    assignee: &ParticipantId,
    now: Timestamp,
) -> Agreement {
    let policy: PolicyDocument = offer
        .policy
        .clone()
        .with("@type", "Agreement")
        .with("@id", id.as_str())
        .with("target", offer.target.as_str())
        .with("assigner", assigner.as_str())
        .with("assignee", assignee.as_str())
        .with("timestamp", &now.to_string());
    Agreement {
        id,
        target: offer.target.clone(),
        assigner: assigner.clone(),
        assignee: assignee.clone(),
        agreed_at: now,
        policy,
    }
}
