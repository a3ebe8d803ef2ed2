//! Stories over real processes, sockets, certificates and storage. A test's name is a claim.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod broker;
mod burden;
mod catalog;
mod crash;
mod duties;
mod edc;
mod enforcement;
mod facts;
mod limits;
mod misbehaving_peer;
mod negotiation;
mod policy;
mod store;
mod transfer;
mod trust;

use kontor_tests::Participant;
use kontor_tests::terms;
use serde_json::{Value, json};

/// The states of a negotiation, in the order of the straight way.
const STRAIGHT: [&str; 6] = ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED"];

/// Our first and their last terms in stories where every step is taken by hand.
fn counter_offer(provider: &Participant, dataset: &str) -> Value {
    terms::offer(&terms::times(7), &terms::urn(), dataset, &provider.id)
}

/// A negotiation that was begun by the consumer; returns its identifiers at consumer and provider.
async fn begun(provider: &Participant, consumer: &Participant, dataset: &str) -> (String, String) {
    let here = consumer.negotiate(provider, dataset).await;
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let there = provider.counterpart("negotiations", &here).await;
    (here, there)
}

/// Who takes the step into a state, and how.
fn step_into(state: &str) -> (bool, &'static str) {
    match state {
        "OFFERED" => (true, "offer"),
        "ACCEPTED" => (false, "accept"),
        "AGREED" => (true, "agree"),
        "VERIFIED" => (false, "verify"),
        "FINALIZED" => (true, "finalize"),
        other => panic!("no step leads into {other}"),
    }
}

/// Takes a negotiation by hand from REQUESTED to a state; both sides are there.
async fn drive(provider: &Participant, consumer: &Participant, ids: (&str, &str), dataset: &str, until: &str) {
    for state in STRAIGHT {
        if state != "REQUESTED" {
            let (by_provider, action) = step_into(state);
            let body = if action == "offer" { json!({ "offer": counter_offer(provider, dataset) }) } else { json!({}) };
            let (who, id) = if by_provider { (provider, ids.1) } else { (consumer, ids.0) };
            who.act(id, action, body).await.ok();
        }
        consumer.wait_negotiation(ids.0, state).await;
        provider.wait_negotiation(ids.1, state).await;
        if state == until {
            return;
        }
    }
}
