//! The one function that moves a transfer.

use jiff::Timestamp;

use super::message::{DataAddress, Message};
use super::state::{Ended, Pending, Role, State, Transfer};
use super::table::{Crossing, MessageName};
use crate::effect::{Effect, Outgoing, Record, StopReason};
use crate::id::{AgreementId, DatasetId, MessageId, ParticipantId, ProcessId};
use crate::refusal::{Fault, Refusal};

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
    /// Digest of the message without its own identifier.
    pub content: String,
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

impl Command {
    /// The message that the command sends.
    #[must_use]
    pub fn message(&self) -> MessageName {
        match self {
            Self::Request { .. } => MessageName::Request,
            Self::Start { .. } => MessageName::Start,
            Self::Complete => MessageName::Completion,
            Self::Suspend { .. } => MessageName::Suspension,
            Self::Terminate { .. } => MessageName::Termination,
        }
    }
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
    pub role: Role,
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
    /// What the data is for, as the consumer declares it.
    pub purpose: Vec<String>,
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
            purpose: begin.purpose,
            state: State::Initial,
            pending: None,
            seen: Vec::new(),
            latest: None,
            problem: None,
        }
    }

    /// Moves the transfer by one input.
    ///
    /// # Errors
    /// [`Refusal`] with the reason; the transfer is then unchanged.
    pub fn step(self, input: Input, facts: &Facts) -> Result<Outcome, Refusal> {
        let walk = Walk { next: self, effects: Vec::new(), denied: None, facts };
        match input {
            Input::Received(received) => walk.receive(received),
            Input::Decided(command) => walk.decide(command),
            Input::Delivered { id, peer_pid } => walk.delivered(&id, peer_pid),
            Input::Undelivered { id, failure } => Ok(walk.undelivered(&id, &failure)),
            Input::Due => Ok(walk.due()),
        }
    }
}

/// One step on its way. A refusal drops it whole, so that nothing is half done.
struct Walk<'f> {
    next: Transfer,
    effects: Vec<Effect<Message>>,
    /// The permission was missing when the transfer started: end it at the end of the step.
    denied: Option<Refusal>,
    facts: &'f Facts,
}

impl Walk<'_> {
    // ── the counterparty said something ──

    fn receive(mut self, received: Received) -> Result<Outcome, Refusal> {
        let Received { from, peer_pid, digest, content, message } = received;
        // Unknown and not yours read the same, so that nobody can probe for other participants'
        // transfers.
        if from != self.next.counterparty || self.next.peer_pid.as_ref().is_some_and(|known| *known != peer_pid) {
            return Err(not_found());
        }
        if self.next.seen.contains(&digest) || self.next.again(message.kind(), &content) {
            return Ok(self.unchanged());
        }
        self.admit(&message)?;
        self.next.peer_pid = Some(peer_pid);
        self.make(self.next.role.other(), message)?;
        self.drop_impossible_pending();
        if self.next.seen.len() >= SEEN_MAX {
            self.next.seen.remove(0);
        }
        self.next.seen.push(digest);
        self.next.latest = Some(content);
        Ok(self.changed())
    }

    /// Whether the message may change the state: legal now, or legal after the pending move that
    /// it proves; and its content acceptable. Applies the proven move.
    fn admit(&mut self, message: &Message) -> Result<(), Refusal> {
        let name = message.kind();
        if self.next.crossing(name) == Crossing::Insist {
            let ours = self.next.pending_kind().map_or("message", MessageName::as_str);
            return Err(Refusal::new(
                Fault::Unavailable,
                "transfer.crossing",
                format!("`{}` crossed our `{ours}`, which is on its way", name.as_str()),
            )
            .by(SPEC)
            .cure("nothing until ours arrived: the state that it leads to decides"));
        }
        if !self.next.allowed_messages().contains(&name) {
            return Err(self.illegal(self.next.role.other(), name));
        }
        // Proof of delivery: what presupposes our pending move shows that it arrived, whether or
        // not the answer to it was lost.
        let legal_now = self.next.legal(self.next.role.other(), name).is_some();
        let opened = self.next.state == State::Initial && self.next.pending_kind() != Some(MessageName::Termination);
        if opened || !legal_now {
            self.effects.extend(self.next.pending.as_ref().map(|pending| Effect::Arrived(pending.id.clone())));
            self.make_pending()?;
        }
        match message {
            Message::Request { agreement, format, purpose, .. } => {
                if *agreement != self.next.agreement {
                    return Err(altered("agreementId", agreement.as_str(), self.next.agreement.as_str()));
                }
                if *format != self.next.format {
                    return Err(altered("format", format, &self.next.format));
                }
                if *purpose != self.next.purpose {
                    return Err(altered("purpose", &purpose.join(", "), &self.next.purpose.join(", ")));
                }
                self.facts.permission.clone().map(|_| ())
            }
            Message::Start { .. } => match self.next.role {
                // Nothing flows on a consumer's word alone.
                Role::Provider => self.facts.permission.clone().map(|_| ()),
                // The consumer takes the start and ends the transfer at once: see `start_flow`.
                Role::Consumer => Ok(()),
            },
            Message::Completion | Message::Suspension { .. } | Message::Termination { .. } => Ok(()),
        }
    }

    // ── we decided something ──

    fn decide(mut self, command: Command) -> Result<Outcome, Refusal> {
        let name = command.message();
        if !self.next.allowed_commands().contains(&name) {
            return Err(self.illegal_command(name));
        }
        let message = match command {
            Command::Request { data_address } => {
                self.facts.permission.clone()?;
                Message::Request {
                    agreement: self.next.agreement.clone(),
                    format: self.next.format.clone(),
                    data_address,
                    purpose: self.next.purpose.clone(),
                }
            }
            Command::Start { data_address } => {
                self.facts.permission.clone()?;
                Message::Start { data_address }
            }
            Command::Complete => Message::Completion,
            Command::Suspend { code, reason } => Message::Suspension { code, reason },
            Command::Terminate { code, reason } => Message::Termination { code, reason },
        };
        self.intend(message);
        Ok(self.changed())
    }

    /// Intends a move that was found legal.
    fn intend(&mut self, message: Message) {
        // Fail closed: what stops the flow stops it now, not when the peer was told.
        match &message {
            Message::Completion => self.effects.push(Effect::StopFlow(StopReason::Completed)),
            Message::Suspension { .. } => self.effects.push(Effect::StopFlow(StopReason::Suspended)),
            Message::Termination { .. } => self.effects.push(Effect::StopFlow(StopReason::Terminated)),
            Message::Request { .. } | Message::Start { .. } => {}
        }
        if self.next.state == State::Initial
            && message.kind() == MessageName::Termination
            && let Some(opening) = &mut self.next.pending
        {
            // The provider has not named its identifier yet, so nothing can be addressed to it,
            // and the request may already be there. Its delivery sends the termination.
            opening.message = message;
            self.record("transfer.ending", "the transfer will be terminated as soon as its request arrived");
            return;
        }
        if let Some(superseded) = self.next.pending.take() {
            self.effects.push(Effect::Cancel(superseded.id));
        }
        self.send(message);
    }

    // ── a time has come ──

    fn due(mut self) -> Outcome {
        let starting = self.next.pending_kind() == Some(MessageName::Start);
        if !self.next.may_flow() && !starting {
            return self.unchanged();
        }
        match self.facts.permission.clone() {
            Ok(Some(until)) => {
                self.effects.push(Effect::WakeAt(until));
                self.changed()
            }
            Ok(None) => self.unchanged(),
            Err(refusal) => {
                self.deny(&refusal);
                self.changed()
            }
        }
    }

    /// The policy no longer allows the flow.
    fn deny(&mut self, refusal: &Refusal) {
        self.record("transfer.denied", refusal.message.clone());
        self.intend(Message::Termination { code: Some(refusal.code.clone()), reason: refusal.sentences() });
    }

    // ── the shell tells what became of our message ──

    fn delivered(mut self, id: &MessageId, peer_pid: Option<ProcessId>) -> Result<Outcome, Refusal> {
        let Some(pending) = self.next.pending.as_ref().filter(|pending| pending.id == *id) else {
            // Superseded, or proven before by what the peer sent.
            return Ok(self.unchanged());
        };
        let ending = pending.message.kind() == MessageName::Termination;
        let opening = self.next.state == State::Initial && self.next.peer_pid.is_none();
        self.learn(peer_pid);
        if opening && ending && self.next.peer_pid.is_some() {
            // What arrived is the request; we decided to end the transfer meanwhile.
            if let Some(pending) = self.next.pending.take() {
                self.send(pending.message);
            }
            return Ok(self.changed());
        }
        if opening && self.next.peer_pid.is_none() {
            self.next.problem = Some("the peer took our request without naming its identifier".to_owned());
        }
        self.make_pending()?;
        Ok(self.changed())
    }

    fn undelivered(mut self, id: &MessageId, failure: &Failure) -> Outcome {
        let Some(pending) = self.next.pending.take_if(|pending| pending.id == *id) else {
            return self.unchanged();
        };
        let by = self.next.role;
        self.next.problem = Some(failure.detail.clone());
        let what = if failure.refused { "was refused by the peer" } else { "could not be delivered" };
        self.record("transfer.undelivered", format!("`{}` {what}: {}", pending.message.name(), failure.detail));
        match pending.message {
            Message::Request { .. } => {
                self.terminate(Ended { by, code: None, reason: vec![failure.detail.clone()] });
            }
            // Data never began to flow, or goes on not flowing.
            Message::Start { .. } => {}
            // We gave up telling, not stopping: the flow was stopped when we decided, and a state
            // that says otherwise would open it again after a restart.
            Message::Completion => self.complete(by),
            Message::Suspension { code, reason } => self.suspend(Ended { by, code, reason }),
            Message::Termination { code, reason } => self.terminate(Ended { by, code, reason }),
        }
        self.changed()
    }

    // ── the moves ──

    /// Applies our pending move: it was delivered, or what the peer sent presupposes it.
    fn make_pending(&mut self) -> Result<(), Refusal> {
        match self.next.pending.take() {
            Some(pending) => self.make(self.next.role, pending.message),
            None => Ok(()),
        }
    }

    /// Applies a message, whoever said it.
    fn make(&mut self, speaker: Role, message: Message) -> Result<(), Refusal> {
        let name = message.kind();
        if self.next.legal(speaker, name).is_none() {
            return Err(self.illegal(speaker, name));
        }
        // Our own stops stopped the flow when they were decided.
        let theirs = speaker != self.next.role;
        match message {
            Message::Request { .. } => {
                let detail = format!("the consumer asks for `{}` under `{}`", self.next.dataset, self.next.agreement);
                self.record("transfer.requested", detail);
                self.next.state = State::Requested;
            }
            Message::Start { data_address } => {
                let mut data_address = data_address.or_else(|| self.next.data_address().cloned());
                if let (Role::Provider, Some(address)) = (self.next.role, &mut data_address) {
                    // It arrived: whoever gave the token needs no more than its digest.
                    address.token = None;
                }
                self.record("transfer.started", format!("the {} starts the transfer", speaker.as_str()));
                self.next.state = State::Started { data_address };
                self.start_flow();
            }
            Message::Completion => {
                if theirs {
                    self.effects.push(Effect::StopFlow(StopReason::Completed));
                }
                self.complete(speaker);
            }
            Message::Suspension { code, reason } => {
                if theirs {
                    self.effects.push(Effect::StopFlow(StopReason::Suspended));
                }
                self.suspend(Ended { by: speaker, code, reason });
            }
            Message::Termination { code, reason } => {
                if theirs {
                    self.effects.push(Effect::StopFlow(StopReason::Terminated));
                }
                self.terminate(Ended { by: speaker, code, reason });
            }
        }
        Ok(())
    }

    /// Lets bytes flow, if the policy allows it at this moment. It was asked when the start was
    /// decided; time may have passed since.
    fn start_flow(&mut self) {
        match self.facts.permission.clone() {
            Ok(until) => {
                self.effects.push(Effect::StartFlow);
                self.effects.extend(until.map(Effect::WakeAt));
            }
            Err(refusal) => self.denied = Some(refusal),
        }
    }

    fn complete(&mut self, by: Role) {
        self.record("transfer.completed", format!("the {} says that all data was moved", by.as_str()));
        self.next.state = State::Completed { by };
    }

    fn suspend(&mut self, by: Ended) {
        let data_address = self.next.data_address().cloned();
        self.record("transfer.suspended", format!("paused by the {}{}", by.by.as_str(), why(&by)));
        self.next.state = State::Suspended { by, data_address };
    }

    fn terminate(&mut self, ended: Ended) {
        self.record("transfer.terminated", format!("ended by the {}{}", ended.by.as_str(), why(&ended)));
        self.next.state = State::Terminated { ended };
    }

    /// Puts the message into the outbox, the state unchanged.
    fn send(&mut self, message: Message) {
        let id = self.facts.message_id.clone();
        self.record("transfer.intended", format!("we send `{}`", message.name()));
        self.effects.push(Effect::Send(Outgoing { id: id.clone(), message: message.clone() }));
        self.next.pending = Some(Pending { id, message });
    }

    /// What the peer said may have made our own pending move impossible.
    fn drop_impossible_pending(&mut self) {
        if self.next.pending_kind().is_some_and(|pending| self.next.legal(self.next.role, pending).is_none())
            && let Some(pending) = self.next.pending.take()
        {
            self.effects.push(Effect::Cancel(pending.id));
        }
    }

    fn learn(&mut self, peer_pid: Option<ProcessId>) {
        match (&self.next.peer_pid, peer_pid) {
            (None, told) => self.next.peer_pid = told,
            (Some(known), Some(told)) if *known != told => {
                let problem = format!("the peer answered as process `{told}`, but it is known as `{known}`");
                self.record("transfer.peer-differs", problem.clone());
                self.next.problem = Some(problem);
            }
            (Some(_), Some(_) | None) => {}
        }
    }

    fn record(&mut self, event: &str, detail: impl Into<String>) {
        self.effects.push(Effect::Record(Record::new(event, detail)));
    }

    fn unchanged(self) -> Outcome {
        Outcome { next: self.next, effects: self.effects, changed: false }
    }

    fn changed(mut self) -> Outcome {
        if let Some(refusal) = self.denied.take()
            && self.next.may_flow()
        {
            self.deny(&refusal);
        }
        Outcome { next: self.next, effects: self.effects, changed: true }
    }

    // ── refusals ──

    fn illegal(&self, speaker: Role, name: MessageName) -> Refusal {
        let allowed =
            if speaker == self.next.role { self.next.allowed_commands() } else { self.next.allowed_messages() };
        let state = self.next.state.name();
        let cure = if state.is_terminal() {
            format!("nothing: {} is final", state.as_str())
        } else if allowed.is_empty() {
            format!("nothing: in {} it is not the {}'s turn", state.as_str(), speaker.as_str())
        } else {
            allowed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        Refusal::new(
            Fault::IllegalMove,
            "transfer.illegal-move",
            format!("the {} must not send `{}` in state {}", speaker.as_str(), name.as_str(), state.as_str()),
        )
        .by(SPEC)
        .cure(cure)
    }

    fn illegal_command(&self, name: MessageName) -> Refusal {
        let Some(pending) = self.next.pending_kind() else {
            return self.illegal(self.next.role, name);
        };
        let (why, cure) = match pending {
            MessageName::Completion => {
                ("the peer may already have completed", "nothing: the flow has stopped; wait until it is delivered")
            }
            MessageName::Termination => ("the transfer is ending", "nothing: wait until it is delivered"),
            MessageName::Request | MessageName::Start | MessageName::Suspension => {
                ("one move at a time", "`terminate`, or wait until it is delivered or given up")
            }
        };
        Refusal::new(
            Fault::IllegalMove,
            "transfer.illegal-move",
            format!(
                "cannot {} in state {} while `{}` is on its way: {why}",
                name.command(),
                self.next.state.name().as_str(),
                pending.as_str()
            ),
        )
        .by(SPEC)
        .cure(cure)
    }
}

const SPEC: &str = "DSP 2025-1, Transfer Process Protocol, State Machine";

/// How many digests of accepted messages a transfer remembers. A transfer may be suspended and
/// resumed without end, so the oldest are forgotten; a repetition older than this is judged by
/// the state alone.
pub const SEEN_MAX: usize = 64;

fn why(ended: &Ended) -> String {
    if ended.reason.is_empty() { String::new() } else { format!(": {}", ended.reason.join("; ")) }
}

fn not_found() -> Refusal {
    Refusal::new(Fault::NotFound, "transfer.not-found", "there is no such transfer for this participant")
        .cure("the identifiers of a transfer that this participant takes part in")
}

fn altered(field: &str, found: &str, expected: &str) -> Refusal {
    Refusal::new(Fault::Altered, "transfer.altered", format!("`{found}` is not what the transfer was begun with"))
        .at(field)
        .by("DSP 2025-1, Transfer Process Protocol, Message Types")
        .cure(format!("`{expected}`"))
}
