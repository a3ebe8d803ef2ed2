//! The state of a negotiation, with the data that each state owns.

use serde::{Deserialize, Serialize};

use super::message::{Agreement, Message, Offer, OfferKind};
use super::table::MessageName;
use crate::id::{MessageId, ParticipantId, ProcessId};
use crate::policy::Compared;

/// Which side we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// We offer.
    Provider,
    /// We ask.
    Consumer,
}

impl Role {
    /// The word, lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Consumer => "consumer",
        }
    }

    /// The counterparty's role.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Provider => Self::Consumer,
            Self::Consumer => Self::Provider,
        }
    }
}

/// One negotiation, as our side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiation {
    /// Our own identifier: `providerPid` as provider, `consumerPid` as consumer.
    pub id: ProcessId,
    /// Our side.
    pub role: Role,
    /// We, as the participant that takes part.
    pub participant: ParticipantId,
    /// The other participant; every message must come from there.
    pub counterparty: ParticipantId,
    /// The other side's identifier, once known.
    pub peer_pid: Option<ProcessId>,
    /// Where the counterparty listens: the base that message paths are appended to, without a
    /// trailing slash.
    pub peer_address: String,
    /// The state.
    pub state: State,
    /// Our own move that is intended but not yet known to be delivered.
    pub pending: Option<Pending>,
    /// Digests of the messages that we accepted, so that a repeated one changes nothing.
    pub seen: Vec<String>,
    /// Digest of the message that we accepted last, without its identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    /// How many offers and requests were exchanged; bounded by [`ROUNDS_MAX`].
    pub rounds: u32,
    /// The last thing that went wrong with one of our messages, in words.
    pub problem: Option<String>,
    /// How the terms that the peer sent last compare with what is published to it (provider) or
    /// with what we asked for (consumer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// How many offers and counter-offers one negotiation may see before it is refused further ones.
pub const ROUNDS_MAX: u32 = 64;

/// The states of DSP 2025-1, each with the data that belongs to it, and `Initial` for a
/// negotiation whose first message has not arrived yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "name")]
pub enum State {
    /// Ours alone: the first message is still on its way.
    Initial,
    /// The consumer asked.
    Requested {
        /// For what.
        offer: Offer,
        /// Whether it is what the provider published (provider side; `Counter` on the consumer's
        /// after a counter-request).
        kind: OfferKind,
    },
    /// The provider made an offer.
    Offered {
        /// Which.
        offer: Offer,
        /// `Published` where it means the same as the offer that we requested (consumer side) or
        /// published (provider side).
        kind: OfferKind,
    },
    /// The consumer accepted the provider's offer.
    Accepted {
        /// Which.
        offer: Offer,
    },
    /// The provider agreed.
    Agreed {
        /// To what.
        agreement: Agreement,
    },
    /// The consumer verified the agreement.
    Verified {
        /// Which.
        agreement: Agreement,
    },
    /// The agreement is in force.
    Finalized {
        /// Which.
        agreement: Agreement,
    },
    /// It ended without an agreement in force.
    Terminated {
        /// By whom and why.
        ended: Ended,
    },
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which side ended it.
    pub by: Role,
    /// The code, if one was given.
    pub code: Option<String>,
    /// Reasons in words.
    pub reason: Vec<String>,
}

/// The bare name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StateName {
    /// See [`State::Initial`].
    Initial,
    /// See [`State::Requested`].
    Requested,
    /// See [`State::Offered`].
    Offered,
    /// See [`State::Accepted`].
    Accepted,
    /// See [`State::Agreed`].
    Agreed,
    /// See [`State::Verified`].
    Verified,
    /// See [`State::Finalized`].
    Finalized,
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
            Self::Offered => "OFFERED",
            Self::Accepted => "ACCEPTED",
            Self::Agreed => "AGREED",
            Self::Verified => "VERIFIED",
            Self::Finalized => "FINALIZED",
            Self::Terminated => "TERMINATED",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finalized | Self::Terminated)
    }
}

impl State {
    /// The bare name.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Initial => StateName::Initial,
            Self::Requested { .. } => StateName::Requested,
            Self::Offered { .. } => StateName::Offered,
            Self::Accepted { .. } => StateName::Accepted,
            Self::Agreed { .. } => StateName::Agreed,
            Self::Verified { .. } => StateName::Verified,
            Self::Finalized { .. } => StateName::Finalized,
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
    /// For an offer or counter-request of ours: how it relates to the published one.
    pub kind: OfferKind,
}

impl Negotiation {
    /// The agreement, once there is one.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match &self.state {
            State::Agreed { agreement } | State::Verified { agreement } | State::Finalized { agreement } => {
                Some(agreement)
            }
            State::Initial
            | State::Requested { .. }
            | State::Offered { .. }
            | State::Accepted { .. }
            | State::Terminated { .. } => None,
        }
    }

    /// The offer on the table, if the state owns one.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        match &self.state {
            State::Requested { offer, .. } | State::Offered { offer, .. } | State::Accepted { offer } => Some(offer),
            State::Initial
            | State::Agreed { .. }
            | State::Verified { .. }
            | State::Finalized { .. }
            | State::Terminated { .. } => None,
        }
    }

    /// Where the terms on the table, which the peer sent, go beyond what is published to it or what
    /// we asked for; in words, as a reason to end it.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        let (from_peer, ours) = match (self.role, &self.state) {
            (Role::Provider, State::Requested { .. }) => (true, "what is offered"),
            (Role::Consumer, State::Offered { .. }) => (true, "what was asked for"),
            (Role::Provider | Role::Consumer, _) => (false, ""),
        };
        let compared = self.compared.as_ref().filter(|compared| from_peer && compared.relation.goes_beyond())?;
        let difference = compared.difference.as_ref()?;
        Some(format!("the terms go beyond {ours}: {difference}"))
    }

    /// Whether a message that is not possible now is the one that we accepted last, under another identifier: its sender
    /// did not learn that it arrived. Terms that are sent a second time are not: they ask for another answer.
    pub(super) fn again(&self, name: MessageName, content: &str) -> bool {
        let brings_terms = matches!(name, MessageName::Request | MessageName::Offer);
        !brings_terms && self.latest.as_deref() == Some(content) && !self.allowed_messages().contains(&name)
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
