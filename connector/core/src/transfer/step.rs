//! The one function that moves a transfer.

use jiff::Timestamp;

use super::message::{DataAddress, Message};
use super::state::Transfer;
use crate::effect::Effect;
use crate::id::{AgreementId, DatasetId, MessageId, ParticipantId, ProcessId};
use crate::refusal::Refusal;

/// What can happen to a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The counterparty said something.
    Received(Received),
    /// We decided: an operator, an automation rule, or the end of a flow.
    Decided(Command),
    /// Our message arrived: the peer answered 2xx, or did something that presupposes it (the
    /// consumer used the token of a start message).
    Delivered {
        /// Which.
        id: MessageId,
        /// The peer's identifier, where its answer named one.
        peer_pid: Option<ProcessId>,
    },
    /// Our message will not arrive.
    Undelivered {
        /// Which.
        id: MessageId,
        /// Why.
        failure: Failure,
    },
    /// A time that the machine asked for with `WakeAt` has come.
    Due,
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

pub use crate::negotiation::Failure;

/// What we may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Consumer: send the request that this transfer was begun with.
    Request {
        /// Where to push to, for push formats.
        data_address: Option<DataAddress>,
    },
    /// Provider: make the data available; either: go on after its own suspension. As provider
    /// the facts' permission decides.
    Start {
        /// Where to pull from; `None` where the consumer resumes.
        data_address: Option<DataAddress>,
    },
    /// Either: all data was moved.
    Complete,
    /// Either: pause.
    Suspend {
        /// Code for the peer.
        code: Option<String>,
        /// Reasons for the peer.
        reason: Vec<String>,
    },
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
    /// The policy decision for this transfer now: until when it holds (`None`: no end known), or
    /// the refusal. Consulted where data would begin or go on to flow.
    pub permission: Result<Option<Timestamp>, Refusal>,
}

/// The next state with its effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The transfer after the step.
    pub next: Transfer,
    /// What the shell must do, in order.
    pub effects: Vec<Effect<Message>>,
    /// Whether anything changed.
    pub changed: bool,
}

/// What a new transfer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Our identifier.
    pub id: ProcessId,
    /// Our side.
    pub role: super::state::Role,
    /// The other participant.
    pub counterparty: ParticipantId,
    /// Where it listens.
    pub peer_address: String,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// About which dataset.
    pub dataset: DatasetId,
    /// In which format.
    pub format: String,
}

impl Transfer {
    /// A new transfer: `Initial`, with nothing sent. As consumer follow with
    /// `Command::Request`; as provider with the received request.
    #[must_use]
    pub fn begin(begin: Begin) -> Self {
        Self {
            id: begin.id,
            role: begin.role,
            counterparty: begin.counterparty,
            peer_pid: None,
            peer_address: begin.peer_address,
            agreement: begin.agreement,
            dataset: begin.dataset,
            format: begin.format,
            state: super::State::Initial,
            pending: None,
            seen: Vec::new(),
            problem: None,
        }
    }

    /// Moves the transfer by one input.
    ///
    /// # Errors
    /// [`Refusal`] with the reason; the transfer is then unchanged.
    pub fn step(self, input: Input, facts: &Facts) -> Result<Outcome, Refusal> {
        let _ = (input, facts);
        Ok(Outcome { next: self, effects: Vec::new(), changed: false })
    }
}
