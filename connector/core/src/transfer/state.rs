//! The state of a transfer, with the data that each state owns.

use serde::{Deserialize, Serialize};

use super::message::{DataAddress, Message};
use super::table::MessageName;
use crate::id::{AgreementId, DatasetId, MessageId, ParticipantId, ProcessId};
pub use crate::negotiation::{Ended, Role};

/// One transfer, as our side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Our own identifier: `providerPid` as provider, `consumerPid` as consumer.
    pub id: ProcessId,
    /// Our side.
    pub role: Role,
    /// The other participant.
    pub counterparty: ParticipantId,
    /// The other side's identifier, once known.
    pub peer_pid: Option<ProcessId>,
    /// Where the counterparty listens.
    pub peer_address: String,
    /// The agreement that the transfer is under.
    pub agreement: AgreementId,
    /// The dataset that the agreement is about.
    pub dataset: DatasetId,
    /// The format asked for.
    pub format: String,
    /// What the data is for, as the consumer declared it in its request; empty: it did not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purpose: Vec<String>,
    /// The state.
    pub state: State,
    /// Our own move that is intended but not yet known to be delivered.
    pub pending: Option<Pending>,
    /// Digests of the messages that we accepted.
    pub seen: Vec<String>,
    /// Digest of the message that we accepted last, without its identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    /// The last thing that went wrong with one of our messages, in words.
    pub problem: Option<String>,
}

/// The states of DSP 2025-1, each with the data that belongs to it, and `Initial` for a transfer
/// whose request has not arrived yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "name")]
pub enum State {
    /// Consumer only: the request is still on its way.
    Initial,
    /// The consumer asked.
    Requested,
    /// Data may flow.
    Started {
        /// Where from (pull formats).
        data_address: Option<DataAddress>,
    },
    /// Paused.
    Suspended {
        /// By whom and why; only that side may resume.
        by: Ended,
        /// Where the data was; still the address when the consumer resumes.
        data_address: Option<DataAddress>,
    },
    /// All data was moved.
    Completed {
        /// Which side said so.
        by: Role,
    },
    /// It ended early.
    Terminated {
        /// By whom and why.
        ended: Ended,
    },
}

/// The bare name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StateName {
    /// See [`State::Initial`].
    Initial,
    /// See [`State::Requested`].
    Requested,
    /// See [`State::Started`].
    Started,
    /// See [`State::Suspended`].
    Suspended,
    /// See [`State::Completed`].
    Completed,
    /// See [`State::Terminated`].
    Terminated,
}

impl StateName {
    /// The name as the specification spells it; `INITIAL` is ours.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "INITIAL",
            Self::Requested => "REQUESTED",
            Self::Started => "STARTED",
            Self::Suspended => "SUSPENDED",
            Self::Completed => "COMPLETED",
            Self::Terminated => "TERMINATED",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Terminated)
    }
}

impl State {
    /// The bare name.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Initial => StateName::Initial,
            Self::Requested => StateName::Requested,
            Self::Started { .. } => StateName::Started,
            Self::Suspended { .. } => StateName::Suspended,
            Self::Completed { .. } => StateName::Completed,
            Self::Terminated { .. } => StateName::Terminated,
        }
    }
}

/// An intended move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The message that carries it.
    pub id: MessageId,
    /// What it says; applied when it was delivered.
    pub message: Message,
}

impl Transfer {
    /// Where the data is, once the provider said so; kept over a suspension.
    #[must_use]
    pub fn data_address(&self) -> Option<&DataAddress> {
        match &self.state {
            State::Started { data_address } | State::Suspended { data_address, .. } => data_address.as_ref(),
            State::Initial | State::Requested | State::Completed { .. } | State::Terminated { .. } => None,
        }
    }

    /// Whether a message that is not possible now is the one that we accepted last, under another identifier: its sender
    /// did not learn that it arrived.
    pub(super) fn again(&self, name: MessageName, content: &str) -> bool {
        self.latest.as_deref() == Some(content) && !self.allowed_messages().contains(&name)
    }

    /// `consumerPid`, as far as it is known.
    #[must_use]
    pub fn consumer_pid(&self) -> Option<&ProcessId> {
        match self.role {
            Role::Consumer => Some(&self.id),
            Role::Provider => self.peer_pid.as_ref(),
        }
    }

    /// `providerPid`, as far as it is known.
    #[must_use]
    pub fn provider_pid(&self) -> Option<&ProcessId> {
        match self.role {
            Role::Provider => Some(&self.id),
            Role::Consumer => self.peer_pid.as_ref(),
        }
    }
}
