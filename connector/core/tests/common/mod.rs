//! What the suites of the core share: one face for both machines, and a network that loses,
//! repeats and reorders.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its own part")]

use std::fmt::Debug;

use jiff::Timestamp;
use kontor_core::effect::Effect;
use kontor_core::id::{AgreementId, DatasetId, MessageId, OfferId, ParticipantId, ProcessId};
use kontor_core::negotiation::{self, Negotiation, Offer, OfferKind, Role};
use kontor_core::policy::Vocabulary;
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::{self, Transfer};
use kontor_vocab::odrl::PolicyDocument;
use serde_json::json;

pub const PROVIDER: &str = "did:web:provider.example";
pub const CONSUMER: &str = "did:web:consumer.example";

pub fn participant(role: Role) -> ParticipantId {
    ParticipantId::parse(match role {
        Role::Provider => PROVIDER,
        Role::Consumer => CONSUMER,
    })
    .unwrap()
}

pub fn pid(role: Role) -> ProcessId {
    ProcessId::parse(format!("urn:{}:1", role.as_str())).unwrap()
}

pub fn message_id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub fn policy(value: serde_json::Value) -> PolicyDocument {
    PolicyDocument::from_value(value).unwrap()
}

pub fn offer(id: &str) -> Offer {
    Offer {
        id: OfferId::parse(id).unwrap(),
        target: DatasetId::parse("urn:data:1").unwrap(),
        policy: policy(json!({
            "@id": id, "@type": "Offer", "target": "urn:data:1", "permission": [{ "action": "use" }]
        })),
    }
}

pub fn negotiation(role: Role) -> Negotiation {
    Negotiation::begin(
        pid(role),
        role,
        participant(role),
        participant(role.other()),
        "https://peer.example/dsp".to_owned(),
    )
}

pub fn transfer(role: Role) -> Transfer {
    Transfer::begin(transfer::Begin {
        id: pid(role),
        role,
        counterparty: participant(role.other()),
        peer_address: "https://peer.example/dsp".to_owned(),
        agreement: AgreementId::parse("urn:agreement:1").unwrap(),
        dataset: DatasetId::parse("urn:data:1").unwrap(),
        format: "HttpData-PULL".to_owned(),
        purpose: Vec::new(),
    })
}

pub fn terms(fresh: &str) -> negotiation::Facts {
    negotiation::Facts {
        now: now(),
        message_id: message_id(fresh),
        terms: Ok(OfferKind::Counter.into()),
        vocabulary: Vocabulary::default(),
    }
}

pub fn permitted(fresh: &str) -> transfer::Facts {
    transfer::Facts { now: now(), message_id: message_id(fresh), permission: Ok(None) }
}

pub fn denial() -> Refusal {
    Refusal::new(Fault::Denied, "policy.denied", "the window has ended")
}

/// What both machines share.
#[derive(Debug, Clone)]
pub enum Event<M, C> {
    Received { from: ParticipantId, peer_pid: ProcessId, digest: String, message: M },
    Decided(C),
    Delivered { id: MessageId, peer_pid: Option<ProcessId> },
    Undelivered { id: MessageId, refused: bool },
    Due,
}

/// What a step left behind.
pub struct Stepped<T, M> {
    pub next: T,
    pub effects: Vec<Effect<M>>,
    pub changed: bool,
}

/// What a machine is stepped with, beside the event.
#[derive(Debug, Clone)]
pub struct World {
    pub fresh: MessageId,
    pub allowed: bool,
}

/// One face for both machines.
pub trait Machine: Clone + PartialEq + Debug {
    type Message: Clone + Debug + PartialEq;
    type Command: Clone + Debug;
    /// Whether a cancelled message may still arrive, however late.
    const CANCELLED_ARRIVES: bool;
    fn begin(role: Role) -> Self;
    fn step_on(
        self,
        event: Event<Self::Message, Self::Command>,
        world: &World,
    ) -> Result<Stepped<Self, Self::Message>, Refusal>;
    fn role(&self) -> Role;
    fn name(&self) -> &'static str;
    fn is_terminal(&self) -> bool;
    fn pending(&self) -> Option<&MessageId>;
    /// The `pick`th command of all that anybody may try.
    fn command(pick: usize) -> Self::Command;
    /// The `pick`th message of all that anybody may send.
    fn message(pick: usize) -> Self::Message;
}

fn failure(refused: bool) -> negotiation::Failure {
    negotiation::Failure { refused, detail: "the network is gone".to_owned() }
}

impl Machine for Negotiation {
    type Message = negotiation::Message;
    type Command = negotiation::Command;
    const CANCELLED_ARRIVES: bool = true;

    fn begin(role: Role) -> Self {
        negotiation(role)
    }

    fn step_on(
        self,
        event: Event<Self::Message, Self::Command>,
        world: &World,
    ) -> Result<Stepped<Self, Self::Message>, Refusal> {
        let input = match event {
            Event::Received { from, peer_pid, digest, message } => {
                let content = format!("{message:?}");
                negotiation::Input::Received(negotiation::Received { from, peer_pid, digest, content, message })
            }
            Event::Decided(command) => negotiation::Input::Decided(command),
            Event::Delivered { id, peer_pid } => negotiation::Input::Delivered { id, peer_pid },
            Event::Undelivered { id, refused } => negotiation::Input::Undelivered { id, failure: failure(refused) },
            Event::Due => return Ok(Stepped { next: self, effects: Vec::new(), changed: false }),
        };
        let facts = negotiation::Facts {
            now: now(),
            message_id: world.fresh.clone(),
            terms: Ok(OfferKind::Counter.into()),
            vocabulary: Vocabulary::default(),
        };
        let outcome = self.step(input, &facts)?;
        Ok(Stepped { next: outcome.next, effects: outcome.effects, changed: outcome.changed })
    }

    fn role(&self) -> Role {
        self.role
    }

    fn name(&self) -> &'static str {
        self.state.name().as_str()
    }

    fn is_terminal(&self) -> bool {
        self.state.name().is_terminal()
    }

    fn pending(&self) -> Option<&MessageId> {
        self.pending.as_ref().map(|pending| &pending.id)
    }

    fn command(pick: usize) -> Self::Command {
        use negotiation::Command;
        // Ending is one choice of eleven, or no negotiation would get anywhere.
        match pick % 11 {
            0 | 7 => Command::Request { offer: offer("urn:offer:asked") },
            1 | 8 => Command::Offer { offer: offer("urn:offer:made") },
            2 => Command::Accept,
            3 | 9 => Command::Agree { id: AgreementId::parse(format!("urn:agreement:{pick}")).unwrap() },
            4 => Command::Verify,
            5 | 10 => Command::Finalize,
            _ => Command::Terminate { code: None, reason: vec!["enough".to_owned()] },
        }
    }

    fn message(pick: usize) -> Self::Message {
        use negotiation::Message;
        match pick % 7 {
            0 => Message::Request { offer: offer("urn:offer:asked") },
            1 => Message::Offer { offer: offer("urn:offer:made") },
            2 => Message::Accepted,
            3 => Message::Agreement { agreement: agreement("urn:agreement:foreign") },
            4 => Message::Verification,
            5 => Message::Finalized,
            _ => Message::Termination { code: None, reason: Vec::new() },
        }
    }
}

/// The agreement that a provider makes of [`offer`].
pub fn agreement(id: &str) -> negotiation::Agreement {
    negotiation::agreement_from(
        &offer("urn:offer:asked"),
        AgreementId::parse(id).unwrap(),
        &participant(Role::Provider),
        &participant(Role::Consumer),
        now(),
    )
}

impl Machine for Transfer {
    type Message = transfer::Message;
    type Command = transfer::Command;
    // DSP numbers no messages. Two suspensions that crossed, the provider's resumption, and then
    // a copy of the consumer's cancelled suspension read like a new suspension; only the courier
    // can rule that out, by closing the connection that carries what it cancels.
    const CANCELLED_ARRIVES: bool = false;

    fn begin(role: Role) -> Self {
        transfer(role)
    }

    fn step_on(
        self,
        event: Event<Self::Message, Self::Command>,
        world: &World,
    ) -> Result<Stepped<Self, Self::Message>, Refusal> {
        let input = match event {
            Event::Received { from, peer_pid, digest, message } => {
                let content = format!("{message:?}");
                transfer::Input::Received(transfer::Received { from, peer_pid, digest, content, message })
            }
            Event::Decided(command) => transfer::Input::Decided(command),
            Event::Delivered { id, peer_pid } => transfer::Input::Delivered { id, peer_pid },
            Event::Undelivered { id, refused } => transfer::Input::Undelivered { id, failure: failure(refused) },
            Event::Due => transfer::Input::Due,
        };
        let permission = if world.allowed { Ok(None) } else { Err(denial()) };
        let facts = transfer::Facts { now: now(), message_id: world.fresh.clone(), permission };
        let outcome = self.step(input, &facts)?;
        Ok(Stepped { next: outcome.next, effects: outcome.effects, changed: outcome.changed })
    }

    fn role(&self) -> Role {
        self.role
    }

    fn name(&self) -> &'static str {
        self.state.name().as_str()
    }

    fn is_terminal(&self) -> bool {
        self.state.name().is_terminal()
    }

    fn pending(&self) -> Option<&MessageId> {
        self.pending.as_ref().map(|pending| &pending.id)
    }

    fn command(pick: usize) -> Self::Command {
        use transfer::Command;
        match pick % 9 {
            0 | 5 => Command::Request { data_address: None },
            1 | 6 | 8 => Command::Start { data_address: None },
            2 => Command::Complete,
            3 | 7 => Command::Suspend { code: None, reason: Vec::new() },
            _ => Command::Terminate { code: None, reason: vec!["enough".to_owned()] },
        }
    }

    fn message(pick: usize) -> Self::Message {
        use transfer::Message;
        match pick % 5 {
            0 => Message::Request {
                agreement: AgreementId::parse("urn:agreement:1").unwrap(),
                format: "HttpData-PULL".to_owned(),
                data_address: None,
                purpose: Vec::new(),
            },
            1 => Message::Start { data_address: None },
            2 => Message::Completion,
            3 => Message::Suspension { code: None, reason: Vec::new() },
            _ => Message::Termination { code: None, reason: Vec::new() },
        }
    }
}

// ── the network ──

fn first_word(value: &impl Debug) -> String {
    format!("{value:?}").split_whitespace().next().unwrap_or_default().to_owned()
}

/// One side, with its outbox: what was sent stays until it was delivered, refused or cancelled.
pub struct Side<T: Machine> {
    pub machine: T,
    pub outbox: Vec<(MessageId, T::Message)>,
    pub effects: Vec<Effect<T::Message>>,
}

enum Flight<M> {
    Message { to: usize, id: MessageId, message: M },
    Answer { to: usize, id: MessageId, refused: bool },
}

/// Two machines and what is between them.
pub struct Network<T: Machine> {
    pub sides: [Side<T>; 2],
    flights: Vec<Flight<T::Message>>,
    fresh: u64,
    /// Who begins. Two openings are two processes, so the other side waits to be asked.
    opener: Option<usize>,
    pub allowed: bool,
    /// Every input, for the message of a failing law.
    pub log: Vec<String>,
}

impl<T: Machine> Network<T> {
    pub fn new() -> Self {
        let side = |role| Side { machine: T::begin(role), outbox: Vec::new(), effects: Vec::new() };
        Self {
            sides: [side(Role::Provider), side(Role::Consumer)],
            flights: Vec::new(),
            fresh: 0,
            opener: None,
            allowed: true,
            log: Vec::new(),
        }
    }

    /// Steps one side; a refusal leaves it as it was.
    pub fn step(&mut self, at: usize, event: Event<T::Message, T::Command>) -> Result<(), Refusal> {
        self.fresh += 1;
        let world = World { fresh: message_id(&format!("urn:message:{}", self.fresh)), allowed: self.allowed };
        let side = &mut self.sides[at];
        let before = side.machine.name();
        let said = match &event {
            Event::Received { message, .. } => format!("received {}", first_word(message)),
            Event::Decided(command) => format!("decided {}", first_word(command)),
            Event::Delivered { .. } | Event::Undelivered { .. } | Event::Due => format!("{event:?}"),
        };
        let stepped = side.machine.clone().step_on(event, &world);
        let after = match &stepped {
            Ok(stepped) => format!("{} pending {:?}", stepped.next.name(), stepped.next.pending()),
            Err(refusal) => format!("refused: {refusal}"),
        };
        self.log.push(format!("{}: {before} + {said} -> {after}", side.machine.role().as_str()));
        let stepped = stepped?;
        side.machine = stepped.next;
        for effect in &stepped.effects {
            match effect {
                Effect::Send(outgoing) => side.outbox.push((outgoing.id.clone(), outgoing.message.clone())),
                Effect::Cancel(id) => {
                    side.outbox.retain(|(waiting, _)| waiting != id);
                    if !T::CANCELLED_ARRIVES {
                        self.flights.retain(|flight| match flight {
                            Flight::Message { id: carried, .. } => carried != id,
                            Flight::Answer { .. } => true,
                        });
                    }
                }
                // Its copies and its answer may still be on the wire.
                Effect::Arrived(id) => side.outbox.retain(|(waiting, _)| waiting != id),
                Effect::StoreAgreement(_)
                | Effect::StartFlow
                | Effect::StopFlow(_)
                | Effect::WakeAt(_)
                | Effect::Record(_) => {}
            }
        }
        side.effects.extend(stepped.effects);
        Ok(())
    }

    /// A decision of one side; the answering side decides nothing before it was asked.
    pub fn decide(&mut self, at: usize, command: T::Command) -> Result<(), Refusal> {
        if self.sides[at].machine.name() == "INITIAL" && self.opener.is_some_and(|opener| opener != at) {
            return Ok(());
        }
        self.step(at, Event::Decided(command))?;
        self.opener = self.opener.or(Some(at));
        Ok(())
    }

    /// Puts a copy of a waiting message on the wire.
    pub fn transmit(&mut self, from: usize, pick: usize) {
        let outbox = &self.sides[from].outbox;
        if let Some((id, message)) = outbox.get(pick % outbox.len().max(1)) {
            self.flights.push(Flight::Message { to: 1 - from, id: id.clone(), message: message.clone() });
        }
    }

    /// Loses something that is on the wire.
    pub fn lose(&mut self, pick: usize) {
        if !self.flights.is_empty() {
            self.flights.remove(pick % self.flights.len());
        }
    }

    /// Lets something that is on the wire arrive, in no particular order.
    pub fn arrive(&mut self, pick: usize) {
        if self.flights.is_empty() {
            return;
        }
        match self.flights.remove(pick % self.flights.len()) {
            Flight::Message { to, id, message } => {
                let from = participant(self.sides[1 - to].machine.role());
                let peer_pid = pid(self.sides[1 - to].machine.role());
                let digest = id.to_string();
                match self.step(to, Event::Received { from, peer_pid, digest, message }) {
                    Ok(()) => self.flights.push(Flight::Answer { to: 1 - to, id, refused: false }),
                    // The courier tries again later.
                    Err(refusal) if refusal.fault == Fault::Unavailable => {}
                    Err(_) => self.flights.push(Flight::Answer { to: 1 - to, id, refused: true }),
                }
            }
            Flight::Answer { to, id, refused } => {
                self.sides[to].outbox.retain(|(waiting, _)| *waiting != id);
                let event = if refused {
                    Event::Undelivered { id, refused }
                } else {
                    Event::Delivered { id, peer_pid: Some(pid(self.sides[1 - to].machine.role())) }
                };
                self.step(to, event).unwrap_or_else(|refusal| panic!("an answer was refused: {refusal}"));
            }
        }
    }

    /// Everything that is on its way arrives, and every retry is made, until nothing is left.
    pub fn drain(&mut self) {
        for _ in 0..200 {
            if self.flights.is_empty() {
                for from in 0..2 {
                    for pick in 0..self.sides[from].outbox.len() {
                        self.transmit(from, pick);
                    }
                }
                if self.flights.is_empty() {
                    return;
                }
            }
            self.arrive(0);
        }
        panic!("the network does not come to rest:\n{}", self.log[self.log.len() - 12..].join("\n"));
    }
}
