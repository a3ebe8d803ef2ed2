//! A store that takes nothing for a while, as on a full disk or beside a program that holds it: what is asked is refused
//! with the reason, nothing is half-done, data never outruns a decision, and all goes on after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kontor::store::DATABASE_FILE;
use kontor_tests::terms::{self, open};
use kontor_tests::{DataSpace, Options, Participant, Recorded, Reply};
use rusqlite::Connection;
use serde_json::json;

use crate::transfer::{RESUMED_BYTES, arrived, in_its_time, running};

const MIB: u64 = 1024 * 1024;

/// Keeps a connector from writing to its store, until it is dropped: by a write of our own that does not end.
fn occupied(who: &Participant) -> Connection {
    let connection = Connection::open(who.state().join(DATABASE_FILE)).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn while_the_store_takes_nothing_all_is_refused_and_nothing_is_half_done() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let held = occupied(&provider);
    let (refused, here) = tokio::join!(
        async { provider.post("/policies", json!({ "id": terms::urn(), "policy": open() })).await },
        consumer.negotiate(&provider, &dataset)
    );
    refused.refused(503, &["store.unavailable", "the same request later"]);
    provider.wait_log("the store failed").await;
    assert!(provider.list("negotiations").await.is_empty(), "half of a negotiation is there");
    assert!(provider.list("policies").await.is_empty(), "half of a policy is there");
    assert_eq!(provider.list("datasets").await.len(), 1, "what is there can be read");
    assert_eq!(consumer.negotiation(&here).await["state"], "INITIAL");
    drop(held);
    consumer.wait_negotiation(&here, "FINALIZED").await;
    assert_eq!((provider.list("negotiations").await.len(), provider.list("agreements").await.len()), (1, 1));
}

#[tokio::test]
async fn a_receipt_that_the_store_does_not_take_is_taken_up_later() {
    let space = DataSpace::new();
    let consumer = Arc::new(space.participant("consumer"));
    let held = Arc::new(Mutex::new(None));
    let provider = {
        let (consumer, held) = (consumer.clone(), held.clone());
        space
            .fake("provider", move |seen| {
                held.lock().unwrap().get_or_insert_with(|| occupied(&consumer));
                Reply::ack(seen, "urn:uuid:there")
            })
            .await
    };
    let offer = terms::offer(&open(), "urn:story:offer:fairs", "urn:story:dataset:fairs", &provider.id);
    let body = json!({ "counterparty": provider.id, "address": provider.address, "offer": offer });
    let here = kontor_tests::participant::id_of(&consumer.post("/negotiations", body).await.ok());
    consumer.wait_log("could not be taken up yet").await;
    drop(held.lock().unwrap().take());
    let asked = consumer.wait_negotiation(&here, "REQUESTED").await;
    assert_eq!(asked["peer_pid"], "urn:uuid:there");
    assert!(consumer.outbox().await.is_empty());
    assert_eq!(provider.seen().len(), 1, "what had arrived was said again: {:#?}", provider.seen());
}

#[tokio::test]
async fn a_message_is_said_until_the_store_takes_what_supersedes_it() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let deaf = Arc::new(AtomicBool::new(false));
    let consumer = {
        let deaf = deaf.clone();
        let answer = move |seen: &Recorded| match deaf.load(Ordering::SeqCst) {
            true => Reply::Json(503, json!({ "reason": ["asleep"] })),
            false => Reply::ack(seen, &terms::urn()),
        };
        space.fake("consumer", answer).await
    };
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let request = terms::contract_request(&terms::urn(), &consumer.address, &offer);
    let there = consumer.post(&provider, "/negotiations/request", &request).await.ok();
    let there = there["providerPid"].as_str().unwrap();
    deaf.store(true, Ordering::SeqCst);
    provider.act(there, "offer", json!({ "offer": offer })).await.ok();
    let held = occupied(&provider);
    provider.act(there, "terminate", json!({})).await.refused(503, &["store.unavailable"]);
    drop(held);
    deaf.store(false, Ordering::SeqCst);
    provider.wait_negotiation(there, "OFFERED").await;
}

#[tokio::test]
async fn the_end_of_a_pull_is_written_down_when_the_store_takes_it_again() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    let held = occupied(&consumer);
    provider.wait_flows(&stream.there, 1).await;
    consumer.wait_log("could not be taken up yet").await;
    drop(held);
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    provider.wait_transfer(&stream.there, "COMPLETED").await;
    assert_eq!(consumer.wait_flows(&stream.here, 1).await.len(), 1);
}

#[tokio::test]
async fn a_connector_stops_although_the_store_takes_nothing() {
    let space = DataSpace::new();
    let (mut provider, consumer) = space.pair();
    running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    let _held = occupied(&provider);
    // The flow that this cuts cannot be written down.
    provider.stop();
}

#[tokio::test]
async fn a_stream_is_stopped_although_the_store_does_not_take_the_stop() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    arrived(&consumer, 8 * MIB).await;
    let held = occupied(&provider);
    let refused = provider.act_transfer(&stream.there, "suspend", json!({ "reason": "stocktaking" })).await;
    refused.refused(503, &["store.unavailable"]);
    // Nothing flows, and it goes on being so, although nobody could write down why.
    let flows = || async { provider.get(&format!("/transfers/{}/flows", stream.there)).await.ok()["running"].clone() };
    assert_eq!(flows().await, 0);
    assert!(!consumer.received().join("stream.bin").exists(), "a cut stream was taken for whole");
    drop(held);
    provider.act_transfer(&stream.there, "suspend", json!({ "reason": "stocktaking" })).await.ok();
    provider.wait_transfer(&stream.there, "SUSPENDED").await;
    let suspended = consumer.wait_transfer(&stream.here, "SUSPENDED").await;
    assert!(suspended.to_string().contains("stocktaking"), "{suspended:#}");
    provider.act_transfer(&stream.there, "resume", json!({})).await.ok();
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), RESUMED_BYTES);
}
