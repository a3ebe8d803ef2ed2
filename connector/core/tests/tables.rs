//! The machines by tables: every message in every state in both roles, and the single cases that
//! a table cannot say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{Machine, denial, message_id, negotiation, now, offer, participant, permitted, pid, terms, transfer};
use kontor_core::effect::{Effect, StopReason};
use kontor_core::id::{AgreementId, DatasetId, ProcessId};
use kontor_core::negotiation::{self as n, Negotiation, OfferKind, ROUNDS_MAX, Role};
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::{self as t, SEEN_MAX, Transfer};
use serde_json::json;

// ── helpers: one word per input ──

fn hear(machine: Negotiation, message: n::Message) -> Result<n::Outcome, Refusal> {
    hear_as(machine, message, &terms("urn:message:heard"))
}

fn hear_as(machine: Negotiation, message: n::Message, facts: &n::Facts) -> Result<n::Outcome, Refusal> {
    let digest = format!("{} after {} in {}", message.name(), machine.seen.len(), machine.rounds);
    let role = machine.role.other();
    let content = digest.clone();
    let received = n::Received { from: participant(role), peer_pid: pid(role), digest, content, message };
    machine.step(n::Input::Received(received), facts)
}

fn decide(machine: Negotiation, command: n::Command) -> Result<n::Outcome, Refusal> {
    machine.step(n::Input::Decided(command), &terms("urn:message:decided"))
}

fn deliver(machine: Negotiation) -> n::Outcome {
    let id = machine.pending.clone().expect("something is pending").id;
    let peer_pid = Some(pid(machine.role.other()));
    machine.step(n::Input::Delivered { id, peer_pid }, &terms("urn:message:after")).unwrap()
}

fn say(machine: Negotiation, command: n::Command) -> Negotiation {
    deliver(decide(machine, command).unwrap().next).next
}

fn agree() -> n::Command {
    n::Command::Agree { id: AgreementId::parse("urn:agreement:1").unwrap() }
}

fn end() -> n::Command {
    n::Command::Terminate { code: Some("why".to_owned()), reason: vec!["enough".to_owned()] }
}

fn ended() -> n::Message {
    n::Message::Termination { code: None, reason: Vec::new() }
}

fn ask(id: &str) -> n::Message {
    n::Message::Request { offer: offer(id) }
}

fn propose(id: &str) -> n::Message {
    n::Message::Offer { offer: offer(id) }
}

fn agreed() -> n::Message {
    n::Message::Agreement { agreement: common::agreement("urn:agreement:1") }
}

/// A negotiation in the state, reached by legal moves alone.
fn negotiation_in(role: Role, state: n::StateName) -> Negotiation {
    use n::StateName as S;
    let start = negotiation(role);
    let asked = "urn:offer:asked";
    match role {
        Role::Provider => match state {
            S::Initial => start,
            S::Requested => hear(start, ask(asked)).unwrap().next,
            S::Offered => say(negotiation_in(role, S::Requested), n::Command::Offer { offer: offer(asked) }),
            S::Accepted => hear(negotiation_in(role, S::Offered), n::Message::Accepted).unwrap().next,
            S::Agreed => say(negotiation_in(role, S::Requested), agree()),
            S::Verified => hear(negotiation_in(role, S::Agreed), n::Message::Verification).unwrap().next,
            S::Finalized => say(negotiation_in(role, S::Verified), n::Command::Finalize),
            S::Terminated => hear(negotiation_in(role, S::Requested), ended()).unwrap().next,
        },
        Role::Consumer => match state {
            S::Initial => start,
            S::Requested => say(start, n::Command::Request { offer: offer(asked) }),
            S::Offered => hear(negotiation_in(role, S::Requested), propose(asked)).unwrap().next,
            S::Accepted => say(negotiation_in(role, S::Offered), n::Command::Accept),
            S::Agreed => hear(negotiation_in(role, S::Requested), agreed()).unwrap().next,
            S::Verified => say(negotiation_in(role, S::Agreed), n::Command::Verify),
            S::Finalized => hear(negotiation_in(role, S::Verified), n::Message::Finalized).unwrap().next,
            S::Terminated => hear(negotiation_in(role, S::Requested), ended()).unwrap().next,
        },
    }
}

const NEGOTIATION_STATES: [n::StateName; 8] = [
    n::StateName::Initial,
    n::StateName::Requested,
    n::StateName::Offered,
    n::StateName::Accepted,
    n::StateName::Agreed,
    n::StateName::Verified,
    n::StateName::Finalized,
    n::StateName::Terminated,
];

/// The specification's state machine once more, written by hand: who may say what, when.
const NEGOTIATION_MOVES: &str = "
    consumer INITIAL   request
    provider INITIAL   offer
    provider REQUESTED offer agree terminate
    consumer REQUESTED terminate
    provider OFFERED   terminate
    consumer OFFERED   request accept terminate
    provider ACCEPTED  agree terminate
    consumer ACCEPTED  terminate
    provider AGREED    terminate
    consumer AGREED    verify terminate
    provider VERIFIED  finalize terminate
    consumer VERIFIED  terminate
";

fn listed(moves: &str, speaker: Role, state: &str) -> Vec<String> {
    moves
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&speaker.as_str()) && words.get(1) == Some(&state))
        .map(|words| words[2..].iter().map(|word| (*word).to_owned()).collect())
        .unwrap_or_default()
}

#[test]
fn every_message_in_every_state_is_taken_or_refused_as_the_specification_says() {
    let mut tried = 0;
    for role in [Role::Provider, Role::Consumer] {
        for state in NEGOTIATION_STATES {
            let machine = negotiation_in(role, state);
            assert_eq!(machine.state.name(), state);
            let allowed = listed(NEGOTIATION_MOVES, role.other(), state.as_str());
            let named: Vec<_> = machine.allowed_messages().iter().map(|name| name.command().to_owned()).collect();
            assert_eq!(named, allowed, "{} in {}", role.as_str(), state.as_str());
            for pick in 0..7 {
                let message = Negotiation::message(pick);
                let name = message.kind();
                let outcome = hear(machine.clone(), message);
                if allowed.contains(&name.command().to_owned()) {
                    let next = outcome.unwrap().next.state.name();
                    assert_eq!(Some(next), n::next_state(role.other(), state, name));
                } else {
                    let refusal = outcome.unwrap_err();
                    assert_eq!(refusal.fault, Fault::IllegalMove, "{} in {}", name.as_str(), state.as_str());
                    assert_eq!(refusal.code, "negotiation.illegal-move");
                    for word in [name.as_str(), state.as_str(), role.other().as_str()] {
                        assert!(refusal.message.contains(word), "{refusal} does not name {word}");
                    }
                    assert!(refusal.cure.is_some() && refusal.rule.is_some());
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 2 * 8 * 7);
}

#[test]
fn every_command_in_every_state_is_taken_or_refused_as_the_specification_says() {
    for role in [Role::Provider, Role::Consumer] {
        for state in NEGOTIATION_STATES {
            let machine = negotiation_in(role, state);
            let allowed = listed(NEGOTIATION_MOVES, role, state.as_str());
            for pick in 0..7 {
                let command = Negotiation::command(pick);
                let name = command.message();
                match decide(machine.clone(), command) {
                    Ok(outcome) => {
                        assert!(
                            allowed.contains(&name.command().to_owned()),
                            "{} in {}",
                            name.command(),
                            state.as_str()
                        );
                        assert_eq!(outcome.next.state, machine.state, "a decision is intended, not made");
                        assert!(outcome.effects.iter().any(|effect| matches!(effect, Effect::Send(_))));
                        let made = deliver(outcome.next).next;
                        assert_eq!(Some(made.state.name()), n::next_state(role, state, name));
                        assert!(made.pending.is_none());
                    }
                    Err(refusal) => {
                        assert!(!allowed.contains(&name.command().to_owned()), "{refusal}");
                        assert_eq!(refusal.fault, Fault::IllegalMove);
                    }
                }
            }
        }
    }
}

#[test]
fn somebody_else_finds_no_negotiation() {
    let machine = negotiation_in(Role::Provider, n::StateName::Requested);
    let stranger = |from: Role, peer_pid: ProcessId| {
        let digest = "d".to_owned();
        let content = digest.clone();
        let received = n::Received { from: participant(from), peer_pid, digest, content, message: ended() };
        machine.clone().step(n::Input::Received(received), &terms("urn:m")).unwrap_err()
    };
    let other_participant = stranger(Role::Provider, pid(Role::Consumer));
    let other_process = stranger(Role::Consumer, ProcessId::parse("urn:other").unwrap());
    assert_eq!(other_participant.fault, Fault::NotFound);
    assert_eq!(other_participant, other_process, "both read the same");
}

#[test]
fn a_repeated_message_changes_nothing_even_after_the_end() {
    let received = n::Received {
        from: participant(Role::Consumer),
        peer_pid: pid(Role::Consumer),
        digest: "same".to_owned(),
        content: "ended".to_owned(),
        message: ended(),
    };
    let machine = negotiation_in(Role::Provider, n::StateName::Offered);
    let once = machine.step(n::Input::Received(received.clone()), &terms("urn:m")).unwrap();
    assert!(once.changed);
    let twice = once.next.clone().step(n::Input::Received(received), &terms("urn:m")).unwrap();
    assert!(!twice.changed && twice.effects.is_empty());
    assert_eq!(twice.next, once.next);
}

#[test]
fn what_presupposes_our_message_proves_its_delivery() {
    use n::StateName as S;
    let provider = decide(negotiation_in(Role::Provider, S::Requested), agree()).unwrap().next;
    let outcome = hear(provider, n::Message::Verification).unwrap();
    assert_eq!(outcome.next.state.name(), S::Verified);
    assert!(outcome.next.pending.is_none());
    assert!(outcome.effects.iter().any(|effect| matches!(effect, Effect::StoreAgreement(_))));

    for (message, reached) in
        [(propose("urn:offer:asked"), S::Offered), (agreed(), S::Agreed), (ended(), S::Terminated)]
    {
        let command = n::Command::Request { offer: offer("urn:offer:asked") };
        let consumer = decide(negotiation(Role::Consumer), command).unwrap().next;
        let outcome = hear(consumer, message).unwrap();
        assert_eq!(outcome.next.state.name(), reached);
        assert_eq!(outcome.next.peer_pid, Some(pid(Role::Provider)));
        let events: Vec<_> = events(&outcome.effects);
        assert_eq!(events[0], "negotiation.requested", "the proven move comes first");
    }
}

fn events<M>(effects: &[Effect<M>]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Record(record) => Some(record.event.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn an_agreement_that_differs_from_its_offer_is_refused() {
    let machine = negotiation_in(Role::Consumer, n::StateName::Requested);
    let alter = |change: fn(&mut n::Agreement)| {
        let mut agreement = common::agreement("urn:agreement:1");
        change(&mut agreement);
        hear(machine.clone(), n::Message::Agreement { agreement }).unwrap_err()
    };
    let fields = [
        alter(|agreement| agreement.assigner = participant(Role::Consumer)),
        alter(|agreement| agreement.assignee = participant(Role::Provider)),
        alter(|agreement| agreement.target = DatasetId::parse("urn:data:other").unwrap()),
        alter(|agreement| {
            agreement.policy.0.insert("prohibition".to_owned(), json!([{ "action": "distribute" }]));
        }),
    ];
    for refusal in &fields {
        assert_eq!(refusal.fault, Fault::Altered, "{refusal}");
    }
    assert_eq!(fields[0].field.as_deref(), Some("agreement.assigner"));
}

#[test]
fn an_offer_about_another_dataset_is_refused() {
    let mut other = offer("urn:offer:other");
    other.target = DatasetId::parse("urn:data:other").unwrap();
    let consumer = negotiation_in(Role::Consumer, n::StateName::Requested);
    let refusal = hear(consumer, n::Message::Offer { offer: other.clone() }).unwrap_err();
    assert_eq!(refusal.fault, Fault::Altered);
    let provider = negotiation_in(Role::Provider, n::StateName::Requested);
    assert_eq!(decide(provider, n::Command::Offer { offer: other }).unwrap_err().fault, Fault::Altered);
}

#[test]
fn terms_that_cannot_be_taken_up_refuse_both_directions() {
    let mut facts = terms("urn:m");
    facts.terms = Err(Refusal::new(Fault::Unenforceable, "policy.unenforceable", "`watermark` is not known"));
    let heard = hear_as(negotiation(Role::Provider), ask("urn:offer:asked"), &facts).unwrap_err();
    assert_eq!(heard.fault, Fault::Unenforceable);
    let command = n::Command::Request { offer: offer("urn:offer:asked") };
    let decided = negotiation(Role::Consumer).step(n::Input::Decided(command), &facts).unwrap_err();
    assert_eq!(decided.fault, Fault::Unenforceable);
}

#[test]
fn the_kind_of_the_terms_is_kept() {
    let mut facts = terms("urn:m");
    facts.terms = Ok(OfferKind::Published.into());
    let next = hear_as(negotiation(Role::Provider), ask("urn:offer:asked"), &facts).unwrap().next;
    assert!(matches!(next.state, n::State::Requested { kind: OfferKind::Published, .. }));
}

#[test]
fn rounds_are_bounded() {
    let mut provider = hear(negotiation(Role::Provider), ask("urn:offer:asked")).unwrap().next;
    while provider.rounds < ROUNDS_MAX {
        provider = say(provider, n::Command::Offer { offer: offer("urn:offer:made") });
        match hear(provider.clone(), ask("urn:offer:asked")) {
            Ok(outcome) => provider = outcome.next,
            Err(refusal) => {
                assert_eq!(refusal.fault, Fault::Limit);
                assert_eq!(provider.rounds, ROUNDS_MAX);
                // Agreement and end stay possible.
                assert!(hear(provider, n::Message::Accepted).is_ok());
                return;
            }
        }
    }
    panic!("the limit refused nothing");
}

#[test]
fn one_move_at_a_time_and_an_end_supersedes() {
    let provider = negotiation_in(Role::Provider, n::StateName::Requested);
    let pending = decide(provider, n::Command::Offer { offer: offer("urn:offer:made") }).unwrap().next;
    let refusal = decide(pending.clone(), agree()).unwrap_err();
    assert_eq!(refusal.fault, Fault::IllegalMove);
    assert!(refusal.message.contains("ContractOfferMessage"), "{refusal}");

    let outcome = pending.step(n::Input::Decided(end()), &terms("urn:message:end")).unwrap();
    assert!(matches!(&outcome.effects[0], Effect::Cancel(id) if *id == message_id("urn:message:decided")));
    assert_eq!(outcome.next.pending.as_ref().unwrap().id, message_id("urn:message:end"));
    // The superseded message's late answer means nothing any more.
    let late = n::Input::Delivered { id: message_id("urn:message:decided"), peer_pid: None };
    let after = outcome.next.clone().step(late, &terms("urn:m")).unwrap();
    assert!(!after.changed);
    assert_eq!(deliver(after.next).next.state.name(), n::StateName::Terminated);
}

#[test]
fn what_presupposes_our_message_tells_that_it_arrived() {
    let command = n::Command::Request { offer: offer("urn:offer:asked") };
    let asking = decide(negotiation(Role::Consumer), command).unwrap().next;
    let id = asking.pending.clone().unwrap().id;
    assert!(asking.awaits_answer());
    assert_eq!(asking.pending_state(), Some(n::StateName::Requested));
    let offered = hear(asking, n::Message::Offer { offer: offer("urn:offer:asked") }).unwrap();
    assert_eq!(offered.effects.first(), Some(&Effect::Arrived(id)));
    assert_eq!(offered.next.pending_state(), None);

    // A message that would have been legal anyway shows nothing.
    let verifying = decide(negotiation_in(Role::Consumer, n::StateName::Agreed), n::Command::Verify).unwrap().next;
    assert!(verifying.awaits_answer());
    let ended = hear(verifying, n::Message::Termination { code: None, reason: Vec::new() }).unwrap();
    assert!(!ended.effects.iter().any(|effect| matches!(effect, Effect::Arrived(_))), "{:?}", ended.effects);

    // After the last word nobody answers.
    let finalizing = decide(negotiation_in(Role::Provider, n::StateName::Verified), n::Command::Finalize).unwrap().next;
    assert!(!finalizing.awaits_answer());
    assert_eq!(finalizing.pending_state(), Some(n::StateName::Finalized));
}

#[test]
fn a_finalization_on_its_way_cannot_be_taken_back() {
    let verified = negotiation_in(Role::Provider, n::StateName::Verified);
    let pending = decide(verified, n::Command::Finalize).unwrap().next;
    let refusal = decide(pending, end()).unwrap_err();
    assert!(refusal.message.contains("in force"), "{refusal}");
}

#[test]
fn a_finalization_that_crosses_our_end_has_to_wait() {
    let verified = negotiation_in(Role::Consumer, n::StateName::Verified);
    let ending = decide(verified, end()).unwrap().next;
    assert_eq!(hear(ending.clone(), n::Message::Finalized).unwrap_err().fault, Fault::Unavailable);
    assert_eq!(deliver(ending).next.state.name(), n::StateName::Terminated);
}

#[test]
fn a_request_on_its_way_is_ended_when_it_arrived() {
    let command = n::Command::Request { offer: offer("urn:offer:asked") };
    let pending = decide(negotiation(Role::Consumer), command).unwrap().next;
    let ending = decide(pending, end()).unwrap();
    assert!(!ending.effects.iter().any(|effect| matches!(effect, Effect::Send(_) | Effect::Cancel(_))));
    // The request's answer names the provider's process: now the end can be told.
    let told = deliver(ending.next.clone());
    assert!(
        matches!(&told.effects[..], [Effect::Record(_), Effect::Send(out)] if out.message.kind() == n::MessageName::Termination)
    );
    assert_eq!(deliver(told.next).next.state.name(), n::StateName::Terminated);
    // Or the request never arrives.
    let id = ending.next.pending.clone().unwrap().id;
    let failure = n::Failure { refused: false, detail: "no route".to_owned() };
    let lost = ending.next.step(n::Input::Undelivered { id, failure }, &terms("urn:m")).unwrap().next;
    assert_eq!(lost.state.name(), n::StateName::Terminated);
}

#[test]
fn what_was_not_delivered_is_a_problem_and_an_end_is_an_end() {
    let fail = |machine: Negotiation| {
        let id = machine.pending.clone().unwrap().id;
        let failure = n::Failure { refused: true, detail: "the peer said 500".to_owned() };
        machine.step(n::Input::Undelivered { id, failure }, &terms("urn:m")).unwrap().next
    };
    let requested = negotiation_in(Role::Provider, n::StateName::Requested);
    let failed = fail(decide(requested.clone(), agree()).unwrap().next);
    assert_eq!(failed.state, requested.state);
    assert_eq!(failed.problem.as_deref(), Some("the peer said 500"));
    assert!(failed.pending.is_none());
    let failed = fail(decide(requested, end()).unwrap().next);
    assert!(matches!(failed.state, n::State::Terminated { .. }));
    let first =
        decide(negotiation(Role::Consumer), n::Command::Request { offer: offer("urn:offer:asked") }).unwrap().next;
    let n::State::Terminated { ended } = fail(first).state else { panic!("a first request that failed ends it") };
    assert_eq!((ended.by, ended.reason), (Role::Consumer, vec!["the peer said 500".to_owned()]));
}

#[test]
fn a_peer_that_answers_as_another_process_is_noted_and_not_believed() {
    let machine = negotiation_in(Role::Provider, n::StateName::Requested);
    let pending = decide(machine, agree()).unwrap().next;
    let input = n::Input::Delivered { id: message_id("urn:message:decided"), peer_pid: ProcessId::parse("urn:x").ok() };
    let next = pending.step(input, &terms("urn:m")).unwrap().next;
    assert_eq!(next.peer_pid, Some(pid(Role::Consumer)));
    assert!(next.problem.is_some());
    assert_eq!(next.state.name(), n::StateName::Agreed);
}

#[test]
fn a_move_under_another_identifier_is_a_repetition_until_something_follows_it() {
    let said = |machine: &Negotiation, digest: &str, message: n::Message| {
        let role = machine.role.other();
        let content = format!("{message:?}");
        let received =
            n::Received { from: participant(role), peer_pid: pid(role), digest: digest.to_owned(), content, message };
        machine.clone().step(n::Input::Received(received), &terms("urn:m"))
    };
    let agreed = negotiation_in(Role::Provider, n::StateName::Agreed);
    let verified = said(&agreed, "1", n::Message::Verification).unwrap().next;
    let again = said(&verified, "2", n::Message::Verification).unwrap();
    assert!(!again.changed && again.effects.is_empty());
    assert_eq!(again.next, verified);
    // Our own move in between changes nothing for who did not learn that its message arrived.
    let finalized = say(verified, n::Command::Finalize);
    assert!(!said(&finalized, "3", n::Message::Verification).unwrap().changed);

    // What was never accepted is refused, and so are terms: they ask for another answer.
    let offered = negotiation_in(Role::Provider, n::StateName::Offered);
    assert_eq!(said(&offered, "1", n::Message::Verification).unwrap_err().fault, Fault::IllegalMove);
    let countered = said(&offered, "1", n::Message::Request { offer: offer("urn:offer:1") }).unwrap().next;
    let asked_twice = said(&countered, "2", n::Message::Request { offer: offer("urn:offer:1") });
    assert_eq!(asked_twice.unwrap_err().fault, Fault::IllegalMove);
}

// ── transfer ──

fn t_hear(machine: Transfer, message: t::Message) -> Result<t::Outcome, Refusal> {
    t_hear_as(machine, message, &permitted("urn:message:heard"))
}

fn t_hear_as(machine: Transfer, message: t::Message, facts: &t::Facts) -> Result<t::Outcome, Refusal> {
    let digest = format!("{} after {} in {}", message.name(), machine.seen.len(), machine.state.name().as_str());
    let role = machine.role.other();
    let content = digest.clone();
    let received = t::Received { from: participant(role), peer_pid: pid(role), digest, content, message };
    machine.step(t::Input::Received(received), facts)
}

fn t_decide(machine: Transfer, command: t::Command) -> Result<t::Outcome, Refusal> {
    machine.step(t::Input::Decided(command), &permitted("urn:message:decided"))
}

fn t_deliver(machine: Transfer) -> t::Outcome {
    let id = machine.pending.clone().expect("something is pending").id;
    let peer_pid = Some(pid(machine.role.other()));
    machine.step(t::Input::Delivered { id, peer_pid }, &permitted("urn:message:after")).unwrap()
}

fn t_say(machine: Transfer, command: t::Command) -> Transfer {
    t_deliver(t_decide(machine, command).unwrap().next).next
}

fn address(endpoint: &str) -> Option<t::DataAddress> {
    Some(t::DataAddress {
        endpoint_type: "https".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        token: Some("secret".to_owned()),
        properties: Vec::new(),
    })
}

fn pause() -> t::Command {
    t::Command::Suspend { code: None, reason: Vec::new() }
}

fn paused() -> t::Message {
    t::Message::Suspension { code: None, reason: Vec::new() }
}

fn start(endpoint: &str) -> t::Command {
    t::Command::Start { data_address: address(endpoint) }
}

fn t_end() -> t::Command {
    t::Command::Terminate { code: None, reason: Vec::new() }
}

/// A transfer in the state, reached by legal moves alone; `SUSPENDED:provider` names who paused.
fn transfer_in(role: Role, state: &str) -> Transfer {
    let terminated = t::Message::Termination { code: None, reason: Vec::new() };
    match (role, state) {
        (_, "INITIAL") => transfer(role),
        (Role::Provider, "REQUESTED") => t_hear(transfer(role), Transfer::message(0)).unwrap().next,
        (Role::Consumer, "REQUESTED") => t_say(transfer(role), t::Command::Request { data_address: None }),
        (Role::Provider, "STARTED") => t_say(transfer_in(role, "REQUESTED"), start("https://p/1")),
        (Role::Consumer, "STARTED") => {
            let message = t::Message::Start { data_address: address("https://p/1") };
            t_hear(transfer_in(role, "REQUESTED"), message).unwrap().next
        }
        (_, "COMPLETED") => t_say(transfer_in(role, "STARTED"), t::Command::Complete),
        (_, "TERMINATED") => t_hear(transfer_in(role, "STARTED"), terminated).unwrap().next,
        (_, suspended) if suspended.ends_with(role.as_str()) => t_say(transfer_in(role, "STARTED"), pause()),
        _ => t_hear(transfer_in(role, "STARTED"), paused()).unwrap().next,
    }
}

/// The specification's state machine once more, written by hand.
const TRANSFER_MOVES: &str = "
    consumer INITIAL            request
    provider REQUESTED          start terminate
    consumer REQUESTED          terminate
    provider STARTED            complete suspend terminate
    consumer STARTED            complete suspend terminate
    provider SUSPENDED:provider start terminate
    consumer SUSPENDED:provider terminate
    provider SUSPENDED:consumer terminate
    consumer SUSPENDED:consumer start terminate
";

const TRANSFER_STATES: [&str; 7] =
    ["INITIAL", "REQUESTED", "STARTED", "SUSPENDED:provider", "SUSPENDED:consumer", "COMPLETED", "TERMINATED"];

#[test]
fn every_transfer_message_and_command_in_every_state_is_as_the_specification_says() {
    for role in [Role::Provider, Role::Consumer] {
        for state in TRANSFER_STATES {
            let machine = transfer_in(role, state);
            assert_eq!(machine.state.name().as_str(), state.split(':').next().unwrap());
            let theirs = listed(TRANSFER_MOVES, role.other(), state);
            let ours = listed(TRANSFER_MOVES, role, state);
            for pick in 0..5 {
                let message = Transfer::message(pick);
                let name = message.kind();
                match t_hear(machine.clone(), message) {
                    Ok(_) => assert!(theirs.contains(&name.command().to_owned()), "{} in {state}", name.as_str()),
                    Err(refusal) => {
                        assert!(!theirs.contains(&name.command().to_owned()), "{refusal}");
                        assert_eq!(
                            (refusal.fault, refusal.code.as_str()),
                            (Fault::IllegalMove, "transfer.illegal-move")
                        );
                    }
                }
                let command = Transfer::command(pick);
                let name = command.message();
                match t_decide(machine.clone(), command) {
                    Ok(outcome) => {
                        assert!(ours.contains(&name.command().to_owned()), "{} in {state}", name.as_str());
                        assert_eq!(outcome.next.state, machine.state, "a decision is intended, not made");
                    }
                    Err(refusal) => {
                        assert!(!ours.contains(&name.command().to_owned()), "{refusal}");
                        assert_eq!(refusal.fault, Fault::IllegalMove);
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_that_was_handed_over_is_kept_by_who_uses_it() {
    let token = |transfer: &Transfer| transfer.data_address().and_then(|address| address.token.clone());
    let pending = t_decide(transfer_in(Role::Provider, "REQUESTED"), start("https://p/1")).unwrap().next;
    let there = t_deliver(pending).next;
    assert_eq!(there.data_address().and_then(|address| address.endpoint.as_deref()), Some("https://p/1"));
    assert_eq!(token(&there), None);
    assert_eq!(token(&t_say(there, pause())), None);
    let data_address = address("https://p/1");
    let here = t_hear(transfer_in(Role::Consumer, "REQUESTED"), t::Message::Start { data_address }).unwrap().next;
    assert_eq!(token(&here).as_deref(), Some("secret"));
}

#[test]
fn bytes_flow_from_delivery_to_the_first_decision_that_stops_them() {
    let until = now() + jiff::SignedDuration::from_secs(60);
    let pending = t_decide(transfer_in(Role::Provider, "REQUESTED"), start("https://p/1")).unwrap();
    assert!(!pending.effects.contains(&Effect::StartFlow), "nothing flows before the start arrived");
    let facts = t::Facts { permission: Ok(Some(until)), ..permitted("urn:m") };
    let id = pending.next.pending.clone().unwrap().id;
    let started = pending.next.step(t::Input::Delivered { id, peer_pid: None }, &facts).unwrap();
    assert!(started.effects.contains(&Effect::StartFlow));
    assert!(started.effects.contains(&Effect::WakeAt(until)));
    assert!(started.next.may_flow());
    for (command, reason) in [
        (pause(), StopReason::Suspended),
        (t::Command::Complete, StopReason::Completed),
        (t_end(), StopReason::Terminated),
    ] {
        let decided = t_decide(started.next.clone(), command).unwrap();
        assert_eq!(decided.effects[0], Effect::StopFlow(reason), "stopped before the peer was told");
        assert!(!decided.next.may_flow());
        assert_eq!(decided.next.state.name(), t::StateName::Started);
    }
}

#[test]
fn no_permission_no_start() {
    let denied = t::Facts { permission: Err(denial()), ..permitted("urn:message:denied") };
    let request = t_hear_as(transfer(Role::Provider), Transfer::message(0), &denied).unwrap_err();
    assert_eq!(request.fault, Fault::Denied);
    let requested = transfer_in(Role::Provider, "REQUESTED");
    let decided = requested.clone().step(t::Input::Decided(start("https://p/1")), &denied).unwrap_err();
    assert_eq!(decided.fault, Fault::Denied);
    let resumed =
        t_hear_as(transfer_in(Role::Provider, "SUSPENDED:consumer"), Transfer::message(1), &denied).unwrap_err();
    assert_eq!(resumed.fault, Fault::Denied);
    // The window closed while the start was on its way: the peer learns the start and its end.
    let pending = t_decide(requested, start("https://p/1")).unwrap().next;
    let id = pending.pending.clone().unwrap().id;
    let outcome = pending.step(t::Input::Delivered { id, peer_pid: None }, &denied).unwrap();
    assert!(!outcome.effects.contains(&Effect::StartFlow));
    assert_eq!(outcome.next.pending.unwrap().message.kind(), t::MessageName::Termination);
}

#[test]
fn a_window_that_closes_ends_the_flow_with_its_reason() {
    let denied = t::Facts { permission: Err(denial()), ..permitted("urn:message:due") };
    for role in [Role::Provider, Role::Consumer] {
        let outcome = transfer_in(role, "STARTED").step(t::Input::Due, &denied).unwrap();
        assert!(outcome.effects.contains(&Effect::StopFlow(StopReason::Terminated)));
        let t::Message::Termination { code, reason } = outcome.next.pending.clone().unwrap().message else {
            panic!("the end is told");
        };
        assert_eq!((code.as_deref(), reason), (Some("policy.denied"), denial().sentences()));
        // Once is enough.
        assert!(!outcome.next.step(t::Input::Due, &denied).unwrap().changed);
        assert!(!transfer_in(role, "SUSPENDED:provider").step(t::Input::Due, &denied).unwrap().changed);
    }
    let until = now() + jiff::SignedDuration::from_secs(60);
    let still = t::Facts { permission: Ok(Some(until)), ..permitted("urn:m") };
    let outcome = transfer_in(Role::Provider, "STARTED").step(t::Input::Due, &still).unwrap();
    assert_eq!(outcome.effects, [Effect::WakeAt(until)]);
}

#[test]
fn resumption_keeps_the_address_unless_a_new_one_is_given() {
    let endpoint = |transfer: &Transfer| transfer.data_address().and_then(|address| address.endpoint.clone());
    let resumed = t_say(transfer_in(Role::Consumer, "SUSPENDED:consumer"), t::Command::Start { data_address: None });
    assert_eq!(endpoint(&resumed).as_deref(), Some("https://p/1"));
    let message = t::Message::Start { data_address: address("https://p/2") };
    let moved = t_hear(transfer_in(Role::Consumer, "SUSPENDED:provider"), message).unwrap().next;
    assert_eq!(endpoint(&moved).as_deref(), Some("https://p/2"));
}

#[test]
fn what_stops_stays_stopped_though_nobody_could_be_told() {
    let fail = |command: t::Command| {
        let machine = t_decide(transfer_in(Role::Provider, "STARTED"), command).unwrap().next;
        let id = machine.pending.clone().unwrap().id;
        let failure = n::Failure { refused: false, detail: "no route".to_owned() };
        let next = machine.step(t::Input::Undelivered { id, failure }, &permitted("urn:m")).unwrap().next;
        assert_eq!(next.problem.as_deref(), Some("no route"));
        next.state.name()
    };
    assert_eq!(fail(pause()), t::StateName::Suspended);
    assert_eq!(fail(t::Command::Complete), t::StateName::Completed);
    assert_eq!(fail(t_end()), t::StateName::Terminated);
}

#[test]
fn suspensions_that_cross_end_with_the_providers() {
    let provider = t_decide(transfer_in(Role::Provider, "STARTED"), pause()).unwrap().next;
    assert_eq!(t_hear(provider, paused()).unwrap_err().fault, Fault::Unavailable);
    let consumer = t_decide(transfer_in(Role::Consumer, "STARTED"), pause()).unwrap().next;
    let outcome = t_hear(consumer, paused()).unwrap();
    assert!(outcome.effects.iter().any(|effect| matches!(effect, Effect::Cancel(_))));
    assert!(matches!(outcome.next.state, t::State::Suspended { by, .. } if by.by == Role::Provider));
}

#[test]
fn a_completion_on_its_way_cannot_be_taken_back() {
    let pending = t_decide(transfer_in(Role::Consumer, "STARTED"), t::Command::Complete).unwrap().next;
    assert_eq!(t_decide(pending, t_end()).unwrap_err().fault, Fault::IllegalMove);
}

#[test]
fn a_request_for_something_else_is_refused() {
    let message = |agreement: &str, format: &str, purpose: &[&str]| t::Message::Request {
        agreement: AgreementId::parse(agreement).unwrap(),
        format: format.to_owned(),
        data_address: None,
        purpose: purpose.iter().map(|&purpose| purpose.to_owned()).collect(),
    };
    for message in [
        message("urn:agreement:2", "HttpData-PULL", &[]),
        message("urn:agreement:1", "HttpData-PUSH", &[]),
        message("urn:agreement:1", "HttpData-PULL", &["urn:purpose:resale"]),
    ] {
        assert_eq!(t_hear(transfer(Role::Provider), message).unwrap_err().fault, Fault::Altered);
    }
}

#[test]
fn a_transfers_move_under_another_identifier_is_a_repetition_until_something_follows_it() {
    let said = |machine: &Transfer, digest: &str, message: t::Message| {
        let role = machine.role.other();
        let content = format!("{message:?}");
        let received =
            t::Received { from: participant(role), peer_pid: pid(role), digest: digest.to_owned(), content, message };
        machine.clone().step(t::Input::Received(received), &permitted("urn:m"))
    };
    let started = t::Message::Start { data_address: None };
    let running = said(&transfer_in(Role::Consumer, "REQUESTED"), "1", started.clone()).unwrap().next;
    assert!(!said(&running, "2", started.clone()).unwrap().changed);
    let paused = said(&running, "3", paused()).unwrap().next;
    assert!(said(&paused, "4", started.clone()).unwrap().changed, "a resumption is a move of its own");
    let ended = said(&running, "5", t::Message::Termination { code: None, reason: Vec::new() }).unwrap().next;
    assert_eq!(said(&ended, "6", started).unwrap_err().fault, Fault::IllegalMove);
}

#[test]
fn a_transfer_remembers_a_bounded_number_of_messages() {
    let mut provider = transfer_in(Role::Provider, "STARTED");
    for number in 0..3 * SEEN_MAX {
        let message = if number % 2 == 0 { paused() } else { t::Message::Start { data_address: None } };
        let received = t::Received {
            from: participant(Role::Consumer),
            peer_pid: pid(Role::Consumer),
            digest: format!("{number}"),
            content: format!("{number}"),
            message,
        };
        provider = provider.step(t::Input::Received(received), &permitted("urn:m")).unwrap().next;
    }
    assert_eq!(provider.seen.len(), SEEN_MAX);
    assert_eq!(provider.seen.last().unwrap(), &format!("{}", 3 * SEEN_MAX - 1));
}

#[test]
fn processes_survive_storage() {
    for state in NEGOTIATION_STATES {
        let machine = negotiation_in(Role::Provider, state);
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Negotiation>(&text).unwrap(), machine);
    }
    for state in TRANSFER_STATES {
        let machine = transfer_in(Role::Consumer, state);
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(serde_json::from_str::<Transfer>(&text).unwrap(), machine);
    }
}
