//! The one function that moves a negotiation.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;

use super::message::{Agreement, Message, Offer, OfferKind, Related};
use super::state::{Ended, Negotiation, Pending, ROUNDS_MAX, Role, State};
use super::table::{MessageName, next_state};
use crate::effect::{Effect, Outgoing, Record};
use crate::id::{AgreementId, MessageId, ParticipantId, ProcessId};
use crate::policy::{self, Compared, RelationKind, Vocabulary};
use crate::refusal::{Fault, Refusal};

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
    /// Digest of the message without its own identifier.
    pub content: String,
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

impl Command {
    /// The message that the command sends.
    #[must_use]
    pub fn message(&self) -> MessageName {
        match self {
            Self::Request { .. } => MessageName::Request,
            Self::Offer { .. } => MessageName::Offer,
            Self::Accept => MessageName::Accepted,
            Self::Agree { .. } => MessageName::Agreement,
            Self::Verify => MessageName::Verification,
            Self::Finalize => MessageName::Finalized,
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
    /// For a received request or offer, and for our own: whether the terms can be taken up at
    /// all (visible to the peer, enforceable here) and how they relate to what is published; a
    /// refusal refuses the message.
    pub terms: Result<Related, Refusal>,
    /// The operator's own terms, which an agreement may have as its offer has them.
    pub vocabulary: Vocabulary,
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
        role: Role,
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
            state: State::Initial,
            pending: None,
            seen: Vec::new(),
            latest: None,
            rounds: 0,
            problem: None,
            compared: None,
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
        let walk = Walk { next: self, effects: Vec::new(), facts };
        match input {
            Input::Received(received) => walk.receive(received),
            Input::Decided(command) => walk.decide(command),
            Input::Delivered { id, peer_pid } => walk.delivered(&id, peer_pid),
            Input::Undelivered { id, failure } => Ok(walk.undelivered(&id, &failure)),
        }
    }
}

/// The agreement that answers an offer: the offer's policy with type, id, parties, target and
/// time set, and nothing else changed, so that a peer that compares finds it equal. Terms in the
/// place of what is set are kept, in the rules.
#[must_use]
pub fn agreement_from(
    offer: &Offer,
    id: AgreementId,
    assigner: &ParticipantId,
    assignee: &ParticipantId,
    now: Timestamp,
) -> Agreement {
    let policy: PolicyDocument = [
        ("target", offer.target.as_str()),
        ("assigner", assigner.as_str()),
        ("assignee", assignee.as_str()),
        ("timestamp", &now.to_string()),
    ]
    .into_iter()
    .fold(offer.policy.clone().with("@type", "Agreement").with("@id", id.as_str()), |policy, (member, text)| {
        policy::said_of_all(policy, member, text)
    });
    Agreement {
        id,
        target: offer.target.clone(),
        assigner: assigner.clone(),
        assignee: assignee.clone(),
        agreed_at: now,
        policy,
    }
}

/// One step on its way: the negotiation as it becomes, and the effects so far. A refusal drops
/// it whole, so that nothing is half done.
struct Walk<'f> {
    next: Negotiation,
    effects: Vec<Effect<Message>>,
    facts: &'f Facts,
}

impl Walk<'_> {
    // ── the counterparty said something ──

    fn receive(mut self, received: Received) -> Result<Outcome, Refusal> {
        let Received { from, peer_pid, digest, content, message } = received;
        // Unknown and not yours read the same, so that nobody can probe for other participants'
        // negotiations.
        if from != self.next.counterparty || self.next.peer_pid.as_ref().is_some_and(|known| *known != peer_pid) {
            return Err(not_found());
        }
        if self.next.seen.contains(&digest) || self.next.again(message.kind(), &content) {
            return Ok(self.unchanged());
        }
        let Related { kind, compared } = self.admit(&message)?;
        self.next.peer_pid = Some(peer_pid);
        let brings_terms = matches!(message.kind(), MessageName::Request | MessageName::Offer);
        self.make(self.next.role.other(), message, kind)?;
        if brings_terms {
            self.compare(compared);
        }
        self.drop_impossible_pending();
        self.next.seen.push(digest);
        self.next.latest = Some(content);
        Ok(self.changed())
    }

    /// Whether the message may change the state: legal now, or legal after the pending move that
    /// it proves; and its content acceptable. Applies the proven move.
    fn admit(&mut self, message: &Message) -> Result<Related, Refusal> {
        let name = message.kind();
        let speaker = self.next.role.other();
        if self.next.pending_kind() == Some(MessageName::Termination) && name != MessageName::Termination {
            // Two messages crossed. Ours ends the negotiation and will be accepted in every state
            // that is not terminal, so the other one only has to wait for it: taking it now could
            // leave one side FINALIZED and the other TERMINATED.
            return Err(Refusal::new(
                Fault::Unavailable,
                "negotiation.crossing",
                format!("`{}` crossed our termination, which is on its way", name.as_str()),
            )
            .by(SPEC)
            .cure("nothing: the negotiation is ending"));
        }
        if !self.next.allowed_messages().contains(&name) {
            return Err(self.illegal_message(name));
        }
        // Proof of delivery: what presupposes our pending move shows that it arrived, whether or
        // not the answer to it was lost.
        let legal_now = next_state(speaker, self.next.state.name(), name).is_some();
        let opened = self.next.state == State::Initial && self.next.pending_kind() != Some(MessageName::Termination);
        if opened || !legal_now {
            self.effects.extend(self.next.pending.as_ref().map(|pending| Effect::Arrived(pending.id.clone())));
            self.make_pending()?;
        }
        match message {
            Message::Request { .. } => {
                self.another_round()?;
                self.facts.terms.clone()
            }
            Message::Offer { offer } => {
                self.another_round()?;
                // The provider answers what was asked: an offer about another dataset would be
                // agreed to by a consumer that only reads the terms.
                if let State::Requested { offer: asked, .. } = &self.next.state
                    && asked.target != offer.target
                {
                    return Err(altered("offer.target", offer.target.as_str(), asked.target.as_str()));
                }
                self.facts.terms.clone()
            }
            Message::Agreement { agreement } => {
                self.check_agreement(agreement)?;
                Ok(OfferKind::Published.into())
            }
            Message::Accepted | Message::Verification | Message::Finalized | Message::Termination { .. } => {
                Ok(OfferKind::Published.into())
            }
        }
    }

    /// Notes how terms that the peer sent compare with ours.
    fn compare(&mut self, compared: Option<Compared>) {
        if let Some(Compared { relation, difference: Some(difference) }) = &compared {
            let than = match self.next.role {
                Role::Provider => "what is offered",
                Role::Consumer => "what we asked for",
            };
            let relation = match relation {
                RelationKind::Equal => "the same as",
                RelationKind::Narrower => "narrower than",
                RelationKind::Wider => "wider than",
                RelationKind::Conflict => "in conflict with",
                RelationKind::Unknown => "not comparable with",
            };
            self.record("negotiation.compared", format!("the terms are {relation} {than}: {difference}"));
        }
        self.next.compared = compared;
    }

    /// The agreement must be the offer on the table, between the two of us.
    fn check_agreement(&self, agreement: &Agreement) -> Result<(), Refusal> {
        let Some(offer) = self.next.offer() else {
            return Err(self.illegal_message(MessageName::Agreement));
        };
        if agreement.assigner != self.next.counterparty {
            let expected = self.next.counterparty.as_str();
            return Err(altered("agreement.assigner", agreement.assigner.as_str(), expected));
        }
        if agreement.assignee != self.next.participant {
            let expected = self.next.participant.as_str();
            return Err(altered("agreement.assignee", agreement.assignee.as_str(), expected));
        }
        if agreement.target != offer.target {
            return Err(altered("agreement.target", agreement.target.as_str(), offer.target.as_str()));
        }
        policy::same_terms_with(&offer.policy, &agreement.policy, &self.facts.vocabulary)
    }

    // ── we decided something ──

    fn decide(mut self, command: Command) -> Result<Outcome, Refusal> {
        let name = command.message();
        if !self.next.allowed_commands().contains(&name) {
            return Err(self.illegal_command(name));
        }
        let (message, kind) = self.compose(command)?;
        if self.next.state == State::Initial
            && name == MessageName::Termination
            && let Some(opening) = &mut self.next.pending
        {
            // The peer has not named its identifier yet, so nothing can be addressed to it, and
            // the opening message may already be there. Its delivery sends the termination.
            opening.message = message;
            self.record(
                "negotiation.ending",
                "the negotiation will be terminated as soon as its first message arrived",
            );
            return Ok(self.changed());
        }
        if let Some(superseded) = self.next.pending.take() {
            self.effects.push(Effect::Cancel(superseded.id));
        }
        self.send(message, kind);
        Ok(self.changed())
    }

    /// The message that a command sends.
    fn compose(&self, command: Command) -> Result<(Message, OfferKind), Refusal> {
        match command {
            Command::Request { offer } => {
                self.another_round()?;
                self.same_dataset(&offer)?;
                Ok((Message::Request { offer }, self.facts.terms.clone()?.kind))
            }
            Command::Offer { offer } => {
                self.another_round()?;
                self.same_dataset(&offer)?;
                Ok((Message::Offer { offer }, self.facts.terms.clone()?.kind))
            }
            Command::Accept => Ok((Message::Accepted, OfferKind::Published)),
            Command::Agree { id } => {
                let Some(offer) = self.next.offer() else {
                    return Err(self.illegal_command(MessageName::Agreement));
                };
                let (assigner, assignee) = (&self.next.participant, &self.next.counterparty);
                let agreement = agreement_from(offer, id, assigner, assignee, self.facts.now);
                Ok((Message::Agreement { agreement }, OfferKind::Published))
            }
            Command::Verify => Ok((Message::Verification, OfferKind::Published)),
            Command::Finalize => Ok((Message::Finalized, OfferKind::Published)),
            Command::Terminate { code, reason } => Ok((Message::Termination { code, reason }, OfferKind::Published)),
        }
    }

    /// One negotiation is about one dataset: what we counter with must be about it too.
    fn same_dataset(&self, ours: &Offer) -> Result<(), Refusal> {
        match self.next.offer() {
            Some(table) if table.target != ours.target => {
                Err(altered("offer.target", ours.target.as_str(), table.target.as_str()))
            }
            Some(_) | None => Ok(()),
        }
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
            // What arrived is the opening message; we decided to end the negotiation meanwhile.
            if let Some(pending) = self.next.pending.take() {
                self.send(pending.message, pending.kind);
            }
            return Ok(self.changed());
        }
        if opening && self.next.peer_pid.is_none() {
            self.next.problem = Some("the peer took our first message without naming its identifier".to_owned());
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
        self.record("negotiation.undelivered", format!("`{}` {what}: {}", pending.message.name(), failure.detail));
        let ended = match pending.message {
            // We gave up telling, not ending.
            Message::Termination { code, reason } => Some(Ended { by, code, reason }),
            Message::Request { .. }
            | Message::Offer { .. }
            | Message::Accepted
            | Message::Agreement { .. }
            | Message::Verification
            | Message::Finalized => (self.next.state == State::Initial).then(|| Ended {
                by,
                code: None,
                reason: vec![failure.detail.clone()],
            }),
        };
        if let Some(ended) = ended {
            self.terminate(ended);
        }
        self.changed()
    }

    // ── the moves ──

    /// Applies our pending move: it was delivered, or what the peer sent presupposes it.
    fn make_pending(&mut self) -> Result<(), Refusal> {
        match self.next.pending.take() {
            Some(pending) => self.make(self.next.role, pending.message, pending.kind),
            None => Ok(()),
        }
    }

    /// Applies a message, whoever said it. The table was asked before; the arms that refuse here
    /// hold even if a caller forgets to.
    fn make(&mut self, speaker: Role, message: Message, kind: OfferKind) -> Result<(), Refusal> {
        let name = message.kind();
        if next_state(speaker, self.next.state.name(), name).is_none() {
            return Err(self.illegal(speaker, name));
        }
        let state = std::mem::replace(&mut self.next.state, State::Initial);
        self.next.state = match message {
            Message::Request { offer } => {
                self.next.rounds += 1;
                self.record("negotiation.requested", format!("the consumer asks for `{}`", offer.target));
                State::Requested { offer, kind }
            }
            Message::Offer { offer } => {
                self.next.rounds += 1;
                self.record("negotiation.offered", format!("the provider offers `{}`", offer.id));
                State::Offered { offer, kind }
            }
            Message::Accepted => match state {
                State::Offered { offer, .. } => {
                    self.record("negotiation.accepted", format!("the consumer accepts the offer `{}`", offer.id));
                    State::Accepted { offer }
                }
                State::Initial
                | State::Requested { .. }
                | State::Accepted { .. }
                | State::Agreed { .. }
                | State::Verified { .. }
                | State::Finalized { .. }
                | State::Terminated { .. } => return Err(self.illegal(speaker, name)),
            },
            Message::Agreement { agreement } => {
                self.effects.push(Effect::StoreAgreement(Box::new(agreement.clone())));
                self.record("negotiation.agreed", format!("the provider agrees: agreement `{}`", agreement.id));
                State::Agreed { agreement }
            }
            Message::Verification => match state {
                State::Agreed { agreement } => {
                    self.record("negotiation.verified", format!("the consumer verified agreement `{}`", agreement.id));
                    State::Verified { agreement }
                }
                State::Initial
                | State::Requested { .. }
                | State::Offered { .. }
                | State::Accepted { .. }
                | State::Verified { .. }
                | State::Finalized { .. }
                | State::Terminated { .. } => return Err(self.illegal(speaker, name)),
            },
            Message::Finalized => match state {
                State::Verified { agreement } => {
                    self.record("negotiation.finalized", format!("agreement `{}` is in force", agreement.id));
                    State::Finalized { agreement }
                }
                State::Initial
                | State::Requested { .. }
                | State::Offered { .. }
                | State::Accepted { .. }
                | State::Agreed { .. }
                | State::Finalized { .. }
                | State::Terminated { .. } => return Err(self.illegal(speaker, name)),
            },
            Message::Termination { code, reason } => {
                self.terminate(Ended { by: speaker, code, reason });
                return Ok(());
            }
        };
        Ok(())
    }

    fn terminate(&mut self, ended: Ended) {
        let why = if ended.reason.is_empty() { String::new() } else { format!(": {}", ended.reason.join("; ")) };
        self.record("negotiation.terminated", format!("ended by the {}{why}", ended.by.as_str()));
        self.next.state = State::Terminated { ended };
    }

    /// Intends a move: into the outbox, the state unchanged.
    fn send(&mut self, message: Message, kind: OfferKind) {
        let id = self.facts.message_id.clone();
        self.record("negotiation.intended", format!("we send `{}`", message.name()));
        self.effects.push(Effect::Send(Outgoing { id: id.clone(), message: message.clone() }));
        self.next.pending = Some(Pending { id, message, kind });
    }

    /// What the peer said may have made our own pending move impossible.
    fn drop_impossible_pending(&mut self) {
        let (role, state) = (self.next.role, self.next.state.name());
        if let Some(pending) =
            self.next.pending.take_if(|pending| next_state(role, state, pending.message.kind()).is_none())
        {
            self.effects.push(Effect::Cancel(pending.id));
        }
    }

    fn learn(&mut self, peer_pid: Option<ProcessId>) {
        match (&self.next.peer_pid, peer_pid) {
            (None, told) => self.next.peer_pid = told,
            (Some(known), Some(told)) if *known != told => {
                let problem = format!("the peer answered as process `{told}`, but it is known as `{known}`");
                self.record("negotiation.peer-differs", problem.clone());
                self.next.problem = Some(problem);
            }
            (Some(_), Some(_) | None) => {}
        }
    }

    fn another_round(&self) -> Result<(), Refusal> {
        if self.next.rounds < ROUNDS_MAX {
            return Ok(());
        }
        Err(Refusal::new(
            Fault::Limit,
            "negotiation.rounds",
            format!("the negotiation has seen {} offers and requests, and {ROUNDS_MAX} is the limit", self.next.rounds),
        )
        .cure("agree to what is on the table, terminate, or begin a new negotiation"))
    }

    fn record(&mut self, event: &str, detail: impl Into<String>) {
        self.effects.push(Effect::Record(Record::new(event, detail)));
    }

    fn unchanged(self) -> Outcome {
        Outcome { next: self.next, effects: self.effects, changed: false }
    }

    fn changed(self) -> Outcome {
        Outcome { next: self.next, effects: self.effects, changed: true }
    }

    // ── refusals ──

    /// "… the transition MUST be refused": the peer said something that the state does not know.
    fn illegal_message(&self, name: MessageName) -> Refusal {
        self.illegal(self.next.role.other(), name)
    }

    fn illegal(&self, speaker: Role, name: MessageName) -> Refusal {
        let allowed =
            if speaker == self.next.role { self.next.allowed_commands() } else { self.next.allowed_messages() };
        let state = self.next.state.name();
        let cure = if allowed.is_empty() {
            format!("nothing: in {} it is not the {}'s turn", state.as_str(), speaker.as_str())
        } else {
            allowed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let cure = if state.is_terminal() { format!("nothing: {} is final", state.as_str()) } else { cure };
        Refusal::new(
            Fault::IllegalMove,
            "negotiation.illegal-move",
            format!("the {} must not send `{}` in state {}", speaker.as_str(), name.as_str(), state.as_str()),
        )
        .by(SPEC)
        .cure(cure)
    }

    fn illegal_command(&self, name: MessageName) -> Refusal {
        let Some(pending) = &self.next.pending else {
            return self.illegal(self.next.role, name);
        };
        let sent = pending.message.kind();
        let (why, cure) = match sent {
            MessageName::Finalized => (
                "the peer may already hold the agreement in force",
                "wait until it is delivered or given up; a transfer can be terminated at any time",
            ),
            MessageName::Termination => ("the negotiation is ending", "nothing: wait until it is delivered"),
            MessageName::Request
            | MessageName::Offer
            | MessageName::Accepted
            | MessageName::Agreement
            | MessageName::Verification => {
                ("one move at a time", "`terminate`, or wait until it is delivered or given up")
            }
        };
        Refusal::new(
            Fault::IllegalMove,
            "negotiation.illegal-move",
            format!(
                "cannot {} in state {} while `{}` is on its way: {why}",
                name.command(),
                self.next.state.name().as_str(),
                sent.as_str()
            ),
        )
        .by(SPEC)
        .cure(cure)
    }
}

const SPEC: &str = "DSP 2025-1, Contract Negotiation Protocol, State Machine";

fn not_found() -> Refusal {
    Refusal::new(Fault::NotFound, "negotiation.not-found", "there is no such negotiation for this participant")
        .cure("the identifiers of a negotiation that this participant takes part in")
}

fn altered(field: &str, found: &str, expected: &str) -> Refusal {
    Refusal::new(Fault::Altered, "negotiation.altered", format!("`{found}` is not what was negotiated"))
        .at(field)
        .by("DSP 2025-1, Contract Negotiation Protocol, Message Types")
        .cure(format!("`{expected}`"))
}
