//! SIGKILL after every step: both sides come to the same end, nothing is lost, nothing doubled.

use std::time::Duration;

use kontor_tests::participant::PATIENCE;
use kontor_tests::terms::open;
use kontor_tests::{DataSpace, Options, Participant, Reply};
use serde_json::{Value, json};

use crate::{STRAIGHT, begun, counter_offer, drive, step_into};

/// Which side is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Killed {
    /// The side that took the step, right after its answer.
    Actor,
    /// The side that the message is for, before the step.
    Receiver,
    /// Both: the message waits on disk alone.
    Both,
}

impl Killed {
    const ALL: [Self; 3] = [Self::Actor, Self::Receiver, Self::Both];

    /// Takes a step while who is killed is killed.
    async fn around(self, actor: &mut Participant, receiver: &mut Participant, path: &str, body: Value) {
        if self != Self::Actor {
            receiver.kill9();
        }
        actor.post(path, body).await.ok();
        if self != Self::Receiver {
            actor.restart();
        }
        if self != Self::Actor {
            receiver.start_again();
        }
    }
}

/// Which states a process entered, one after the other, by its audit log, which tells the latest first.
async fn entered(who: &Participant, id: &str) -> Vec<String> {
    let lines = who.audit(id).await;
    let words = lines.iter().rev().filter_map(|line| line["event"].as_str().unwrap().split_once('.'));
    let states = words.map(|(_, word)| word.to_uppercase());
    states.filter(|word| STRAIGHT.contains(&word.as_str()) || OTHERS.contains(&word.as_str())).collect()
}

/// The states that are on no straight way of a negotiation.
const OTHERS: [&str; 4] = ["STARTED", "SUSPENDED", "COMPLETED", "TERMINATED"];

/// Both sides have one process, went through the same states, each as often as it happened, said each thing once, and
/// have nothing left to say.
async fn nothing_doubled(
    kind: &str,
    provider: &Participant,
    consumer: &Participant,
    ids: (&str, &str),
    states: &[&str],
    said: (usize, usize),
) {
    let (here, there) = ids;
    for (who, id, peer, said) in [(consumer, here, there, said.0), (provider, there, here, said.1)] {
        let all = who.list(kind).await;
        let mine: Vec<_> = all.iter().filter(|one| one["id"] == id || one["peer_pid"] == peer).collect();
        assert_eq!(mine.len(), 1, "{}: {mine:#?}", who.id);
        assert_eq!(entered(who, id).await, states, "{}: {:#?}", who.id, who.audit(id).await);
        let lines = who.audit(id).await;
        let intended = lines.iter().filter(|line| line["event"].as_str().unwrap().ends_with(".intended")).count();
        assert_eq!(intended, said, "{}: {lines:#?}", who.id);
        assert!(who.outbox().await.is_empty(), "{}: {:#?}", who.id, who.outbox().await);
    }
}

/// As [`nothing_doubled`], of a negotiation that ended in an agreement that is in force.
async fn one_of_each(provider: &Participant, consumer: &Participant, here: &str, there: &str, states: &[&str]) {
    for (who, id) in [(consumer, here), (provider, there)] {
        let agreements = who.list("agreements").await;
        let of_it: Vec<_> = agreements.iter().filter(|one| one["negotiation"] == id).collect();
        assert_eq!(of_it.len(), 1, "{}: {agreements:#?}", who.id);
        assert_eq!(of_it[0]["state"]["name"], "in-force");
    }
    let by_provider = states.iter().filter(|state| ["OFFERED", "AGREED", "FINALIZED"].contains(state)).count();
    let said = (states.len() - by_provider, by_provider);
    nothing_doubled("negotiations", provider, consumer, (here, there), states, said).await;
}

/// The way of a negotiation whose sides decide by themselves.
const BY_THEMSELVES: [&str; 4] = ["REQUESTED", "AGREED", "VERIFIED", "FINALIZED"];

async fn by_hand(killed: Killed) {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    for state in &STRAIGHT[1..] {
        let (by_provider, action) = step_into(state);
        let body = if action == "offer" { json!({ "offer": counter_offer(&provider, &dataset) }) } else { json!({}) };
        let (actor, receiver, id) =
            if by_provider { (&mut provider, &mut consumer, &there) } else { (&mut consumer, &mut provider, &here) };
        killed.around(actor, receiver, &format!("/negotiations/{id}/{action}"), body).await;
        consumer.wait_negotiation(&here, state).await;
        provider.wait_negotiation(&there, state).await;
    }
    one_of_each(&provider, &consumer, &here, &there, &STRAIGHT).await;
}

#[tokio::test]
async fn a_negotiation_survives_the_death_of_who_acts_after_every_step() {
    by_hand(Killed::Actor).await;
}

#[tokio::test]
async fn a_negotiation_survives_the_death_of_who_is_told_before_every_step() {
    by_hand(Killed::Receiver).await;
}

#[tokio::test]
async fn a_negotiation_survives_the_death_of_both_after_every_step() {
    by_hand(Killed::Both).await;
}

#[tokio::test]
async fn a_first_request_survives_the_death_of_both() {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let offer = kontor_tests::terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let body = json!({ "counterparty": provider.id, "address": provider.address(), "offer": offer });
    provider.kill9();
    let here = kontor_tests::participant::id_of(&consumer.post("/negotiations", body).await.ok());
    consumer.restart();
    provider.start_again();
    consumer.wait_negotiation(&here, "FINALIZED").await;
    let there = provider.counterpart("negotiations", &here).await;
    provider.wait_negotiation(&there, "FINALIZED").await;
    one_of_each(&provider, &consumer, &here, &there, &BY_THEMSELVES).await;
}

#[tokio::test]
async fn negotiations_by_themselves_survive_a_death_at_any_moment() {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    for round in 0..8_u64 {
        let here = consumer.negotiate(&provider, &dataset).await;
        tokio::time::sleep(Duration::from_micros(round * 1500)).await;
        if round % 2 == 0 {
            provider.restart()
        } else {
            consumer.restart()
        }
        consumer.wait_negotiation(&here, "FINALIZED").await;
        let there = provider.counterpart("negotiations", &here).await;
        provider.wait_negotiation(&there, "FINALIZED").await;
        one_of_each(&provider, &consumer, &here, &there, &BY_THEMSELVES).await;
    }
}

#[tokio::test]
async fn the_end_of_a_negotiation_survives_the_death_of_either_side_and_of_both() {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    for killed in Killed::ALL {
        for (until, by_provider) in [(0, true), (1, false), (3, false)] {
            let (here, there) = begun(&provider, &consumer, &dataset).await;
            let way = &STRAIGHT[..=until];
            drive(&provider, &consumer, (&here, &there), &dataset, way[until]).await;
            let (actor, receiver, id) = if by_provider {
                (&mut provider, &mut consumer, &there)
            } else {
                (&mut consumer, &mut provider, &here)
            };
            let reason = json!({ "reason": "enough" });
            killed.around(actor, receiver, &format!("/negotiations/{id}/terminate"), reason).await;
            consumer.wait_negotiation(&here, "TERMINATED").await;
            provider.wait_negotiation(&there, "TERMINATED").await;
            let steps = way.iter().skip(1).filter(|state| step_into(state).0).count();
            let said = (way.len() - steps + usize::from(!by_provider), steps + usize::from(by_provider));
            let states = [way, &["TERMINATED"]].concat();
            nothing_doubled("negotiations", &provider, &consumer, (&here, &there), &states, said).await;
        }
    }
}

/// Ways of transfers after their request: whether the provider acts, what it does, and the state that this leads to.
const WAYS: [&[(bool, &str, &str)]; 5] = [
    &[
        (true, "start", "STARTED"),
        (true, "suspend", "SUSPENDED"),
        (true, "resume", "STARTED"),
        (false, "suspend", "SUSPENDED"),
        (false, "resume", "STARTED"),
        (false, "complete", "COMPLETED"),
    ],
    &[(true, "start", "STARTED"), (true, "complete", "COMPLETED")],
    &[(true, "start", "STARTED"), (false, "suspend", "SUSPENDED"), (true, "terminate", "TERMINATED")],
    &[(true, "start", "STARTED"), (false, "terminate", "TERMINATED")],
    &[(false, "terminate", "TERMINATED")],
];

async fn transfers(killed: Killed) {
    let space = DataSpace::new();
    let mut provider = space.participant_with("provider", &Options::manual());
    let mut consumer = space.participant("consumer");
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    provider.act(&there, "agree", json!({})).await.ok();
    provider.wait_negotiation(&there, "VERIFIED").await;
    provider.act(&there, "finalize", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    let agreement = done["agreement"]["id"].clone();

    for way in WAYS {
        let before: Vec<Value> = consumer.list("transfers").await.iter().map(|one| one["id"].clone()).collect();
        let request = json!({ "agreement": agreement });
        killed.around(&mut consumer, &mut provider, "/transfers", request).await;
        let new = consumer.list("transfers").await.into_iter().find(|one| !before.contains(&one["id"])).unwrap();
        let here = kontor_tests::participant::id_of(&new);
        consumer.wait_transfer(&here, "REQUESTED").await;
        let there = provider.counterpart("transfers", &here).await;
        for (by_provider, action, state) in way {
            let (actor, receiver, id) = if *by_provider {
                (&mut provider, &mut consumer, &there)
            } else {
                (&mut consumer, &mut provider, &here)
            };
            killed.around(actor, receiver, &format!("/transfers/{id}/{action}"), json!({})).await;
            consumer.wait_transfer(&here, state).await;
            provider.wait_transfer(&there, state).await;
        }
        let states: Vec<&str> = ["REQUESTED"].into_iter().chain(way.iter().map(|(_, _, state)| *state)).collect();
        let by_provider = way.iter().filter(|(by_provider, ..)| *by_provider).count();
        let said = (states.len() - by_provider, by_provider);
        nothing_doubled("transfers", &provider, &consumer, (&here, &there), &states, said).await;
    }
    for who in [&provider, &consumer] {
        assert_eq!(who.list("transfers").await.len(), WAYS.len(), "{}", who.id);
    }
}

#[tokio::test]
async fn a_transfer_survives_the_death_of_who_acts_after_every_step() {
    transfers(Killed::Actor).await;
}

#[tokio::test]
async fn a_transfer_survives_the_death_of_who_is_told_before_every_step() {
    transfers(Killed::Receiver).await;
}

#[tokio::test]
async fn a_transfer_survives_the_death_of_both_after_every_step() {
    transfers(Killed::Both).await;
}

#[tokio::test]
async fn a_stream_goes_on_after_the_death_of_either_side() {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair();
    let bytes = crate::transfer::RESUMED_BYTES;
    let mut once = crate::transfer::in_its_time();
    let count = &kontor_tests::terms::times(1)["permission"][0]["constraint"][0];
    once["permission"][0]["constraint"].as_array_mut().unwrap().push(count.clone());
    let stream = crate::transfer::running(&provider, &consumer, &once, bytes).await;
    crate::transfer::arrived(&consumer, 8 * 1024 * 1024).await;
    provider.restart();
    provider.wait_running(&stream.there).await;
    consumer.restart();
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    provider.wait_transfer(&stream.there, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), bytes);
    let uses = provider.get(&format!("/agreements/{}", stream.agreement)).await.ok()["uses"].clone();
    assert_eq!(uses, 1, "a crash doubled the use");
}

#[tokio::test]
async fn a_death_right_after_the_file_got_its_name_costs_nothing() {
    let space = DataSpace::new();
    let (provider, mut consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    for round in 0..4 {
        let name = format!("{round}.csv");
        let here = consumer.transfer(&agreement, Some(&name)).await;
        let file = consumer.received().join(&name);
        let named = tokio::time::timeout(PATIENCE, async {
            while !file.exists() {
                tokio::task::yield_now().await;
            }
        });
        assert!(named.await.is_ok(), "nothing arrives");
        consumer.restart();
        consumer.wait_transfer(&here, "COMPLETED").await;
        let there = provider.counterpart("transfers", &here).await;
        provider.wait_transfer(&there, "COMPLETED").await;
        let flows = |all: Vec<Value>| -> Vec<_> {
            all.iter().map(|flow| (flow["id"].clone(), flow["bytes"].clone(), flow["digest_blake3"].clone())).collect()
        };
        let (ours, theirs) = (flows(consumer.wait_flows(&here, 1).await), flows(provider.wait_flows(&there, 1).await));
        assert_eq!(ours, theirs, "both sides hold the same flows");
        assert_eq!(ours.len(), 1, "nothing was fetched twice");
    }
}

#[tokio::test]
async fn what_was_taken_back_while_nobody_could_decide_ends_the_transfer_after_the_start() {
    let space = DataSpace::new();
    let (mut provider, consumer) = space.pair();
    let stream =
        crate::transfer::running(&provider, &consumer, &crate::transfer::in_its_time(), 512 * 1024 * 1024).await;
    provider.kill9();
    // As if it had died between writing the revocation down and deciding again.
    let store = rusqlite::Connection::open(provider.state().join(kontor::store::DATABASE_FILE)).unwrap();
    let revoked = json!({ "name": "revoked", "reason": "the figures were wrong", "at": jiff::Timestamp::now() });
    let changed =
        store.execute("UPDATE agreement SET body = json_set(body, '$.state', json(?1))", [revoked.to_string()]);
    assert_eq!(changed.unwrap(), 1);
    drop(store);
    provider.start_again();
    for (who, id) in [(&provider, &stream.there), (&consumer, &stream.here)] {
        let ended = who.wait_transfer(id, "TERMINATED").await;
        assert!(ended["why"]["reason"].to_string().contains("the figures were wrong"), "{ended:#}");
    }
}

#[tokio::test]
async fn a_message_is_not_given_up_for_the_time_in_which_nobody_tried() {
    let space = DataSpace::new();
    let options = Options { delivery: "give_up_seconds = 2".to_owned(), ..Options::default() };
    let mut provider = space.participant_with("provider", &options);
    let dataset = provider.publish("fairs", &open()).await;
    let deaf = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let heard = deaf.clone();
    let answer = move |seen: &kontor_tests::Recorded| match heard.load(std::sync::atomic::Ordering::SeqCst) {
        true => Reply::Json(503, json!({ "reason": ["asleep"] })),
        false => Reply::ack(seen, "urn:uuid:0"),
    };
    let consumer = space.fake("consumer", answer).await;
    let offer = kontor_tests::terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let request = kontor_tests::terms::contract_request("urn:uuid:0", &consumer.address, &offer);
    let there = consumer.post(&provider, "/negotiations/request", &request).await.ok();
    provider.kill9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    provider.start_again();
    consumer.wait_for("ContractAgreementMessage").await;
    deaf.store(false, std::sync::atomic::Ordering::SeqCst);
    provider.wait_negotiation(there["providerPid"].as_str().unwrap(), "AGREED").await;
}

#[tokio::test]
async fn a_taken_use_is_not_forgotten_in_a_crash() {
    let space = DataSpace::new();
    let (mut provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &kontor_tests::terms::times(1)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let first = consumer.transfer(&agreement, Some("one.csv")).await;
    consumer.wait_transfer(&first, "COMPLETED").await;
    provider.restart();
    let second = consumer.transfer(&agreement, Some("two.csv")).await;
    let ended = consumer.wait_transfer(&second, "TERMINATED").await;
    assert!(ended["why"]["reason"].to_string().contains("this is use 2"), "{ended:#}");
}

#[tokio::test]
async fn time_that_ends_while_the_provider_is_down_ends_the_transfer_after_its_start() {
    let space = DataSpace::new();
    let (mut provider, consumer) = space.pair();
    let ends = std::time::Instant::now() + Duration::from_secs(10);
    let dataset = provider.publish("fairs", &kontor_tests::terms::for_seconds(10)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, None).await;
    consumer.wait_transfer(&here, "STARTED").await;
    let there = provider.counterpart("transfers", &here).await;
    provider.kill9();
    tokio::time::sleep_until(ends.into()).await;
    provider.start_again();
    for ended in [provider.wait_transfer(&there, "TERMINATED").await, consumer.wait_transfer(&here, "TERMINATED").await]
    {
        assert!(ended["why"]["reason"].to_string().contains("the time is"), "{ended:#}");
    }
}
