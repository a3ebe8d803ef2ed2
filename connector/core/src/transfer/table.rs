//! Which message may come next: the one table behind protocol side, API side and tests.

use super::message::Message;
use super::state::{Role, State, StateName, Transfer};

/// The bare name of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageName {
    /// See [`Message::Request`].
    Request,
    /// See [`Message::Start`].
    Start,
    /// See [`Message::Completion`].
    Completion,
    /// See [`Message::Suspension`].
    Suspension,
    /// See [`Message::Termination`].
    Termination,
}

impl MessageName {
    /// Every message, in the order of a transfer.
    pub const ALL: [Self; 5] = [Self::Request, Self::Start, Self::Completion, Self::Suspension, Self::Termination];

    /// The name as the specification spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "TransferRequestMessage",
            Self::Start => "TransferStartMessage",
            Self::Completion => "TransferCompletionMessage",
            Self::Suspension => "TransferSuspensionMessage",
            Self::Termination => "TransferTerminationMessage",
        }
    }

    /// The command that sends this message: `request`, `start`, `complete`, `suspend` or
    /// `terminate`.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Start => "start",
            Self::Completion => "complete",
            Self::Suspension => "suspend",
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
            Self::Start { .. } => MessageName::Start,
            Self::Completion => MessageName::Completion,
            Self::Suspension { .. } => MessageName::Suspension,
            Self::Termination { .. } => MessageName::Termination,
        }
    }
}

/// The state that `message` leads to when the side in the role `speaker` says it in `state`;
/// `None` where it must not. `suspended_by` is read in SUSPENDED alone: only the side that
/// suspended may start again. No arm catches the rest.
///
/// Spec: DSP 2025-1, Transfer Process Protocol, State Machine.
#[must_use]
pub fn next_state(
    speaker: Role,
    state: StateName,
    suspended_by: Option<Role>,
    message: MessageName,
) -> Option<StateName> {
    use MessageName as M;
    use StateName as S;
    match speaker {
        Role::Consumer => match state {
            S::Initial => match message {
                M::Request => Some(S::Requested),
                // Only of a transfer whose request is on its way: see `step`.
                M::Termination => Some(S::Terminated),
                M::Start | M::Completion | M::Suspension => None,
            },
            S::Requested => match message {
                M::Termination => Some(S::Terminated),
                M::Request | M::Start | M::Completion | M::Suspension => None,
            },
            S::Started => started(message),
            S::Suspended => suspended(suspended_by == Some(Role::Consumer), message),
            S::Completed | S::Terminated => None,
        },
        Role::Provider => match state {
            S::Initial => None,
            S::Requested => match message {
                M::Start => Some(S::Started),
                M::Termination => Some(S::Terminated),
                M::Request | M::Completion | M::Suspension => None,
            },
            S::Started => started(message),
            S::Suspended => suspended(suspended_by == Some(Role::Provider), message),
            S::Completed | S::Terminated => None,
        },
    }
}

/// Both sides may do the same while data flows.
fn started(message: MessageName) -> Option<StateName> {
    match message {
        MessageName::Completion => Some(StateName::Completed),
        MessageName::Suspension => Some(StateName::Suspended),
        MessageName::Termination => Some(StateName::Terminated),
        MessageName::Request | MessageName::Start => None,
    }
}

fn suspended(by_speaker: bool, message: MessageName) -> Option<StateName> {
    match message {
        MessageName::Start => by_speaker.then_some(StateName::Started),
        MessageName::Termination => Some(StateName::Terminated),
        MessageName::Request | MessageName::Completion | MessageName::Suspension => None,
    }
}

/// How two messages stand that crossed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    /// Theirs wins, or they do not compete: take it.
    Yield,
    /// Ours wins: theirs has to wait until ours arrived.
    Insist,
}

impl Transfer {
    /// The messages that the counterparty may send now: those legal in the state, and those that
    /// prove that our pending message arrived.
    #[must_use]
    pub fn allowed_messages(&self) -> Vec<MessageName> {
        MessageName::ALL.into_iter().filter(|message| self.may_receive(*message)).collect()
    }

    /// What we may decide now, as the messages that the decisions send
    /// ([`MessageName::command`] names the commands).
    #[must_use]
    pub fn allowed_commands(&self) -> Vec<MessageName> {
        MessageName::ALL
            .into_iter()
            .filter(|message| {
                let legal = self.legal(self.role, *message).is_some();
                let ends = *message == MessageName::Termination;
                match self.pending_kind() {
                    None => legal && (self.state != State::Initial || !ends),
                    // The counterparty may already have completed.
                    Some(MessageName::Completion | MessageName::Termination) => false,
                    Some(MessageName::Request | MessageName::Start | MessageName::Suspension) => legal && ends,
                }
            })
            .collect()
    }

    /// Whether bytes may flow: STARTED, and nothing decided that stops them. After a restart
    /// this says which flows to open again.
    #[must_use]
    pub fn may_flow(&self) -> bool {
        let stopping = match self.pending_kind() {
            Some(MessageName::Completion | MessageName::Suspension | MessageName::Termination) => true,
            Some(MessageName::Request | MessageName::Start) | None => false,
        };
        self.state.name() == StateName::Started && !stopping
    }

    /// What our pending message is, if there is one.
    pub(super) fn pending_kind(&self) -> Option<MessageName> {
        self.pending.as_ref().map(|pending| pending.message.kind())
    }

    /// The state that our pending message leads to; `None` where nothing of ours is on its way.
    #[must_use]
    pub fn pending_state(&self) -> Option<StateName> {
        self.legal(self.role, self.pending_kind()?)
    }

    /// Whether it is the counterparty's turn once our pending message arrived: all of the others may be the last word for
    /// as long as data flows.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.pending_state() == Some(StateName::Requested)
    }

    pub(super) fn legal(&self, speaker: Role, message: MessageName) -> Option<StateName> {
        next_state(speaker, self.state.name(), self.suspended_by(), message)
    }

    /// Whether the speaker may say the message once our pending one was applied.
    pub(super) fn legal_after_pending(&self, message: MessageName) -> bool {
        let suspended_by = (self.pending_kind() == Some(MessageName::Suspension)).then_some(self.role);
        self.pending_state().is_some_and(|after| next_state(self.role.other(), after, suspended_by, message).is_some())
    }

    /// Both sides may move in STARTED and SUSPENDED, so messages cross there. Both sides follow
    /// the same order, hence end in the same state: termination before completion before the
    /// provider's suspension before the consumer's, before a start.
    pub(super) fn crossing(&self, message: MessageName) -> Crossing {
        use MessageName as M;
        let ours_wins = match self.pending_kind() {
            None | Some(M::Request | M::Start) => false,
            Some(M::Termination) => message != M::Termination,
            Some(M::Completion) => message == M::Suspension,
            Some(M::Suspension) => message == M::Suspension && self.role == Role::Provider,
        };
        if ours_wins { Crossing::Insist } else { Crossing::Yield }
    }

    fn suspended_by(&self) -> Option<Role> {
        match &self.state {
            State::Suspended { by, .. } => Some(by.by),
            State::Initial
            | State::Requested
            | State::Started { .. }
            | State::Completed { .. }
            | State::Terminated { .. } => None,
        }
    }

    fn may_receive(&self, message: MessageName) -> bool {
        if self.crossing(message) == Crossing::Insist {
            return false;
        }
        let now = self.legal(self.role.other(), message).is_some();
        if self.state != State::Initial {
            return now || self.legal_after_pending(message);
        }
        match self.pending_kind() {
            // A transfer that nobody opened can only be opened.
            None => now && message != MessageName::Termination,
            Some(MessageName::Termination) => message == MessageName::Termination,
            Some(MessageName::Request | MessageName::Start | MessageName::Completion | MessageName::Suspension) => {
                self.legal_after_pending(message)
            }
        }
    }
}
