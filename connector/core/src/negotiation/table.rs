//! Which message may come next: the one table behind protocol side, API side and tests.

use super::message::Message;
use super::state::{Negotiation, Role, State, StateName};

/// The bare name of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageName {
    /// See [`Message::Request`].
    Request,
    /// See [`Message::Offer`].
    Offer,
    /// See [`Message::Accepted`].
    Accepted,
    /// See [`Message::Agreement`].
    Agreement,
    /// See [`Message::Verification`].
    Verification,
    /// See [`Message::Finalized`].
    Finalized,
    /// See [`Message::Termination`].
    Termination,
}

impl MessageName {
    /// Every message, in the order of a negotiation.
    pub const ALL: [Self; 7] = [
        Self::Request,
        Self::Offer,
        Self::Accepted,
        Self::Agreement,
        Self::Verification,
        Self::Finalized,
        Self::Termination,
    ];

    /// The name as the specification spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "ContractRequestMessage",
            Self::Offer => "ContractOfferMessage",
            Self::Accepted => "ContractNegotiationEventMessage:ACCEPTED",
            Self::Agreement => "ContractAgreementMessage",
            Self::Verification => "ContractAgreementVerificationMessage",
            Self::Finalized => "ContractNegotiationEventMessage:FINALIZED",
            Self::Termination => "ContractNegotiationTerminationMessage",
        }
    }

    /// The command that sends this message: `request`, `offer`, `accept`, `agree`, `verify`,
    /// `finalize` or `terminate`.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Offer => "offer",
            Self::Accepted => "accept",
            Self::Agreement => "agree",
            Self::Verification => "verify",
            Self::Finalized => "finalize",
            Self::Termination => "terminate",
        }
    }
}

impl Message {
    /// The bare name.
    #[must_use]
    pub fn kind(&self) -> MessageName {
        match self {
            Self::Request { .. } => MessageName::Request,
            Self::Offer { .. } => MessageName::Offer,
            Self::Accepted => MessageName::Accepted,
            Self::Agreement { .. } => MessageName::Agreement,
            Self::Verification => MessageName::Verification,
            Self::Finalized => MessageName::Finalized,
            Self::Termination { .. } => MessageName::Termination,
        }
    }
}

/// The state that `message` leads to when the side in the role `speaker` says it in `state`;
/// `None` where it must not. Both sides share the states, so the same table judges what a peer
/// sends and what we decide.
///
/// No arm catches the rest: a new message stops the build until every state has said what it
/// thinks of it.
///
/// Spec: DSP 2025-1, Contract Negotiation Protocol, State Machine.
#[must_use]
pub fn next_state(speaker: Role, state: StateName, message: MessageName) -> Option<StateName> {
    use MessageName as M;
    use StateName as S;
    match speaker {
        Role::Consumer => match state {
            S::Initial => match message {
                M::Request => Some(S::Requested),
                // Only of a negotiation whose opening message is on its way: see `step`.
                M::Termination => Some(S::Terminated),
                M::Offer | M::Accepted | M::Agreement | M::Verification | M::Finalized => None,
            },
            S::Requested | S::Accepted | S::Verified => match message {
                M::Termination => Some(S::Terminated),
                M::Request | M::Offer | M::Accepted | M::Agreement | M::Verification | M::Finalized => None,
            },
            S::Offered => match message {
                M::Request => Some(S::Requested),
                M::Accepted => Some(S::Accepted),
                M::Termination => Some(S::Terminated),
                M::Offer | M::Agreement | M::Verification | M::Finalized => None,
            },
            S::Agreed => match message {
                M::Verification => Some(S::Verified),
                M::Termination => Some(S::Terminated),
                M::Request | M::Offer | M::Accepted | M::Agreement | M::Finalized => None,
            },
            S::Finalized | S::Terminated => None,
        },
        Role::Provider => match state {
            S::Initial => match message {
                M::Offer => Some(S::Offered),
                M::Termination => Some(S::Terminated),
                M::Request | M::Accepted | M::Agreement | M::Verification | M::Finalized => None,
            },
            S::Requested => match message {
                M::Offer => Some(S::Offered),
                M::Agreement => Some(S::Agreed),
                M::Termination => Some(S::Terminated),
                M::Request | M::Accepted | M::Verification | M::Finalized => None,
            },
            S::Offered | S::Agreed => match message {
                M::Termination => Some(S::Terminated),
                M::Request | M::Offer | M::Accepted | M::Agreement | M::Verification | M::Finalized => None,
            },
            S::Accepted => match message {
                M::Agreement => Some(S::Agreed),
                M::Termination => Some(S::Terminated),
                M::Request | M::Offer | M::Accepted | M::Verification | M::Finalized => None,
            },
            S::Verified => match message {
                M::Finalized => Some(S::Finalized),
                M::Termination => Some(S::Terminated),
                M::Request | M::Offer | M::Accepted | M::Agreement | M::Verification => None,
            },
            S::Finalized | S::Terminated => None,
        },
    }
}

impl Negotiation {
    /// The messages that the counterparty may send now: those legal in the state, and those that
    /// prove that our pending message arrived.
    #[must_use]
    pub fn allowed_messages(&self) -> Vec<MessageName> {
        let speaker = self.role.other();
        MessageName::ALL.into_iter().filter(|message| self.may_receive(speaker, *message)).collect()
    }

    /// What our pending message is, if there is one.
    pub(super) fn pending_kind(&self) -> Option<MessageName> {
        self.pending.as_ref().map(|pending| pending.message.kind())
    }

    /// The state that our pending message leads to; `None` where nothing of ours is on its way.
    #[must_use]
    pub fn pending_state(&self) -> Option<StateName> {
        next_state(self.role, self.state.name(), self.pending_kind()?)
    }

    /// Whether it is the counterparty's turn once our pending message arrived: it has more to say than an end.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        let speaker = self.role.other();
        self.pending_state().is_some_and(|after| {
            let mut other = MessageName::ALL.into_iter().filter(|message| *message != MessageName::Termination);
            other.any(|message| next_state(speaker, after, message).is_some())
        })
    }

    fn may_receive(&self, speaker: Role, message: MessageName) -> bool {
        let now = next_state(speaker, self.state.name(), message).is_some();
        let Some(pending) = &self.pending else {
            // A negotiation that nobody opened can only be opened.
            return now && (self.state != State::Initial || message != MessageName::Termination);
        };
        if pending.message.kind() == MessageName::Termination {
            return message == MessageName::Termination;
        }
        let proven = self.pending_state().is_some_and(|after| next_state(speaker, after, message).is_some());
        if self.state == State::Initial { proven } else { now || proven }
    }

    /// What we may decide now, as the messages that the decisions send
    /// ([`MessageName::command`] names the commands).
    #[must_use]
    pub fn allowed_commands(&self) -> Vec<MessageName> {
        let pending = self.pending_kind();
        MessageName::ALL
            .into_iter()
            .filter(|message| {
                let legal = next_state(self.role, self.state.name(), *message).is_some();
                let ends = *message == MessageName::Termination;
                match pending {
                    None => legal && (self.state != State::Initial || !ends),
                    // The counterparty may already hold the agreement in force.
                    Some(MessageName::Finalized | MessageName::Termination) => false,
                    Some(
                        MessageName::Request
                        | MessageName::Offer
                        | MessageName::Accepted
                        | MessageName::Agreement
                        | MessageName::Verification,
                    ) => legal && ends,
                }
            })
            .collect()
    }
}
