//! SIGKILL after every step: both sides come to the same end, nothing is lost, nothing doubled.

use std::time::Duration;

use kontor_tests::terms::open;
use kontor_tests::{DataSpace, Options, Participant};
use serde_json::{Value, json};

use crate::{STRAIGHT, begun, counter_offer, step_into};

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

async fn one_of_each(provider: &Participant, consumer: &Participant, here: &str, there: &str) {
    for (who, id, peer) in [(consumer, here, there), (provider, there, here)] {
        let all = who.list("negotiations").await;
        let mine: Vec<_> = all.iter().filter(|one| one["id"] == id || one["peer_pid"] == peer).collect();
        assert_eq!(mine.len(), 1, "{}: {mine:#?}", who.id);
        let agreements = who.list("agreements").await;
        let of_it: Vec<_> = agreements.iter().filter(|one| one["negotiation"] == id).collect();
        assert_eq!(of_it.len(), 1, "{}: {agreements:#?}", who.id);
        assert_eq!(of_it[0]["state"]["name"], "in-force");
        let mut events: Vec<String> = Vec::new();
        for line in who.audit(id).await {
            events.push(line["event"].as_str().unwrap().to_owned());
        }
        assert!(!events.is_empty(), "{} has no audit of {id}", who.id);
    }
}

async fn by_hand(killed: Killed) {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    for state in &STRAIGHT[1..] {
        let (by_provider, action) = step_into(state);
        let body = if action == "offer" { json!({ "offer": counter_offer(&provider, &dataset) }) } else { json!({}) };
        {
            let (actor, receiver, id) = if by_provider {
                (&mut provider, &mut consumer, &there)
            } else {
                (&mut consumer, &mut provider, &here)
            };
            if killed != Killed::Actor {
                receiver.kill9();
            }
            actor.act(id, action, body).await.ok();
            if killed != Killed::Receiver {
                actor.kill9();
                actor.start_again();
            }
            if killed != Killed::Actor {
                receiver.start_again();
            }
        }
        consumer.wait_negotiation(&here, state).await;
        provider.wait_negotiation(&there, state).await;
    }
    one_of_each(&provider, &consumer, &here, &there).await;
    assert!(consumer.outbox().await.is_empty() && provider.outbox().await.is_empty());
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
    one_of_each(&provider, &consumer, &here, &there).await;
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
        one_of_each(&provider, &consumer, &here, &there).await;
    }
}

#[tokio::test]
async fn a_transfer_survives_a_death_after_every_step() {
    let space = DataSpace::new();
    let mut provider = space.participant_with("provider", &Options::manual());
    let mut consumer = space.participant("consumer");
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    provider.act(&there, "agree", json!({})).await.ok();
    provider.wait_negotiation(&there, "VERIFIED").await;
    provider.act(&there, "finalize", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    let agreement = done["agreement"]["id"].as_str().unwrap().to_owned();

    let here = consumer.transfer(&agreement, None).await;
    consumer.restart();
    consumer.wait_transfer(&here, "REQUESTED").await;
    let there = provider.counterpart("transfers", &here).await;
    for (action, state) in
        [("start", "STARTED"), ("suspend", "SUSPENDED"), ("start", "STARTED"), ("complete", "COMPLETED")]
    {
        consumer.kill9();
        provider.act_transfer(&there, action, json!({})).await.ok();
        provider.restart();
        consumer.start_again();
        consumer.wait_transfer(&here, state).await;
        provider.wait_transfer(&there, state).await;
    }
    assert_eq!(consumer.list("transfers").await.len(), 1);
    assert_eq!(provider.list("transfers").await.len(), 1);
}

#[tokio::test]
async fn a_stream_goes_on_after_the_death_of_either_side() {
    let space = DataSpace::new();
    let (mut provider, mut consumer) = space.pair();
    let bytes = crate::transfer::RESUMED_BYTES;
    let stream = crate::transfer::running(&provider, &consumer, &kontor_tests::terms::times(1), bytes).await;
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
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        consumer.restart();
        consumer.wait_transfer(&here, "COMPLETED").await;
        let there = provider.counterpart("transfers", &here).await;
        provider.wait_transfer(&there, "COMPLETED").await;
        let flows = |all: Vec<Value>| -> Vec<_> {
            all.iter().map(|flow| (flow["id"].clone(), flow["bytes"].clone(), flow["digest_blake3"].clone())).collect()
        };
        let (ours, theirs) = (flows(consumer.flows(&here).await), flows(provider.flows(&there).await));
        assert_eq!(ours, theirs, "both sides hold the same flows");
        assert_eq!(ours.len(), 1, "nothing was fetched twice");
    }
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
    let dataset = provider.publish("fairs", &kontor_tests::terms::for_seconds(3)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, None).await;
    consumer.wait_transfer(&here, "STARTED").await;
    let there = provider.counterpart("transfers", &here).await;
    provider.kill9();
    tokio::time::sleep(Duration::from_secs(3)).await;
    provider.start_again();
    for ended in [provider.wait_transfer(&there, "TERMINATED").await, consumer.wait_transfer(&here, "TERMINATED").await]
    {
        assert!(ended["why"]["reason"].to_string().contains("the time is"), "{ended:#}");
    }
}
