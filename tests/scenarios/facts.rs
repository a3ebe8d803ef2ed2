//! What policies ask about is kept by the operator, and a stream that rested on what changed is cut.

use kontor_tests::terms::under;
use kontor_tests::{DataSpace, Participant};
use serde_json::{Value, json};

use crate::enforcement::both_ended;
use crate::transfer::{STREAM_BYTES, running};

/// One segment of a path.
fn segment(text: &str) -> String {
    text.replace(':', "%3A").replace('/', "%2F")
}

#[tokio::test]
async fn facts_survive_a_crash_and_are_written_down() {
    let space = DataSpace::new();
    let mut provider = space.participant("provider");
    let claims = "/participants/urn:story:consumer/claims";
    let level =
        json!({ "value": "idsc:TRUST_SECURITY_PROFILE", "valid_until": "2100-01-01T00:00:00Z", "note": "audited" });
    provider.call(reqwest::Method::PUT, &format!("{claims}/idsc:SECURITY_LEVEL"), Some(&level)).await.ok();
    let place = json!({ "value": "urn:place:de" });
    let odrl = segment("http://www.w3.org/ns/odrl/2/spatial");
    provider.call(reqwest::Method::PUT, &format!("{claims}/{odrl}"), Some(&place)).await.ok();
    let event = segment("https://events.example/fair");
    provider.call(reqwest::Method::PUT, &format!("/events/{event}"), None).await.ok();
    provider.restart();
    let held = provider.get(claims).await.ok();
    assert_eq!(held["items"][0]["name"], "idsc:SECURITY_LEVEL", "{held:#}");
    assert_eq!(held["items"][0]["valid_until"], "2100-01-01T00:00:00Z");
    assert_eq!(held["items"][1]["name"], "spatial", "every spelling of a name is the same name");
    assert_eq!(provider.get("/events").await.ok()["items"][0]["name"], "https://events.example/fair");

    // The whole register in the shape that it was read in.
    let replaced = json!({ "items": [held["items"][1].clone()] });
    provider.call(reqwest::Method::PUT, claims, Some(&replaced)).await.ok();
    assert_eq!(provider.get(claims).await.ok()["items"].as_array().unwrap().len(), 1);
    provider.delete(&format!("/events/{event}")).await.ok();
    provider.delete(&format!("/events/{event}")).await.refused(404, &["events.example"]);
    assert!(provider.get("/events").await.ok()["items"].as_array().unwrap().is_empty());
    let audit = provider.get("/audit?event=fact.set").await.ok().to_string();
    assert!(audit.contains("audited") && audit.contains("urn:place:de"), "{audit}");
    let cleared = provider.get("/audit?event=fact.cleared").await.ok();
    assert_eq!(cleared["items"].as_array().unwrap().len(), 2, "{cleared:#}");
}

#[tokio::test]
async fn a_fact_that_no_policy_could_ask_for_is_refused_with_its_cure() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let put = async |path: &str, body| provider.call(reqwest::Method::PUT, path, Some(&body)).await;
    let claims = "/participants/urn:story:consumer/claims";
    put(&format!("{claims}/colour"), json!({ "value": "red" })).await.refused(400, &["no policy asks", "spatial"]);
    put(&format!("{claims}/purpose"), json!({ "value": "urn:p" }))
        .await
        .refused(400, &["known from", "transfer request"]);
    put(&format!("{claims}/spatial"), json!({ "value": 3 })).await.refused(400, &["`spatial`", "array of texts"]);
    put(&format!("{claims}/spatial"), json!({ "colour": 3 })).await.refused(400, &["colour"]);
    put("/agreements/urn:none/facts/consent", json!({})).await.refused(404, &["urn:none"]);
    let dataset = json!({
        "title": "Fairs", "labels": { "spatial": "urn:place:de" },
        "source": { "type": "file", "path": provider.write("fairs", b"1") },
    });
    provider.post("/datasets", dataset).await.refused(400, &["labels.spatial", "skos:concept"]);
}

async fn put(who: &Participant, path: &str, body: Value) {
    who.call(reqwest::Method::PUT, path, Some(&body)).await.ok();
}

#[tokio::test]
async fn a_claim_that_is_taken_back_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let claim = "/participants/urn:story:consumer/claims/spatial";
    put(&provider, claim, json!({ "value": "urn:place:de" })).await;
    let stream = running(&provider, &consumer, &under("spatial", "eq", "urn:place:de"), STREAM_BYTES).await;
    provider.delete(claim).await.ok();
    both_ended(&provider, &consumer, &stream, "spatial").await;
    // Missing, it refuses the next transfer too, and says what is missing.
    let again = consumer.transfer(&stream.agreement, Some("again.bin")).await;
    let ended = consumer.wait_transfer(&again, "TERMINATED").await;
    assert!(ended.to_string().contains("spatial"), "{ended:#}");
}

#[tokio::test]
async fn a_claim_that_lapses_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let claim = "/participants/urn:story:consumer/claims/spatial";
    put(&provider, claim, json!({ "value": "urn:place:de" })).await;
    let stream = running(&provider, &consumer, &under("spatial", "eq", "urn:place:de"), STREAM_BYTES).await;
    let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(2)).unwrap();
    put(&provider, claim, json!({ "value": "urn:place:de", "valid_until": until })).await;
    both_ended(&provider, &consumer, &stream, "spatial").await;
}

#[tokio::test]
async fn an_event_that_is_raised_and_a_state_that_is_cleared_cut_running_streams() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &under("event", "neq", "urn:event:flood"), STREAM_BYTES).await;
    put(&provider, "/events/urn:event:flood", json!({})).await;
    both_ended(&provider, &consumer, &stream, "event").await;

    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    put(&provider, "/states/urn:state:emergency", json!({})).await;
    let policy = under("https://w3id.org/idsa/code/STATE", "eq", "urn:state:emergency");
    let stream = running(&provider, &consumer, &policy, STREAM_BYTES).await;
    provider.delete("/states/urn:state:emergency").await.ok();
    both_ended(&provider, &consumer, &stream, "a state of the surroundings").await;
}

#[tokio::test]
async fn data_for_a_purpose_needs_the_declaration_of_that_purpose() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &under("purpose", "eq", "urn:purpose:research")).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    consumer.try_transfer(&agreement, Some("silent.csv")).await.refused(403, &["purpose", "declares its purpose"]);
    let asked = |purpose: &str| json!({ "agreement": agreement, "purpose": purpose, "sink": { "type": "file", "path": "fairs.csv" } });
    consumer.post("/transfers", asked("urn:purpose:resale")).await.refused(403, &["purpose"]);
    let here = consumer.post("/transfers", asked("urn:purpose:research")).await.ok()["id"].as_str().unwrap().to_owned();
    consumer.wait_transfer(&here, "COMPLETED").await;
    let there = provider.counterpart("transfers", &here).await;
    assert_eq!(provider.transfer_state(&there).await["purpose"], json!(["urn:purpose:research"]));
}

#[tokio::test]
async fn consent_that_is_withdrawn_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let policy = json!({ "permission": [{ "action": "use", "duty": [{ "action": "obtainConsent" }] }] });
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &policy).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let early = consumer.transfer(&agreement, Some("early.bin")).await;
    let refused = consumer.wait_transfer(&early, "TERMINATED").await;
    assert!(refused.to_string().contains("obtainConsent"), "{refused:#}");
    let consent = format!("/agreements/{agreement}/facts/consent");
    put(&provider, &consent, json!({})).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let there = provider.counterpart("transfers", &here).await;
    provider.wait_running(&there).await;
    crate::transfer::arrived(&consumer, 1024 * 1024).await;
    provider.delete(&consent).await.ok();
    both_ended(&provider, &consumer, &crate::transfer::Running { agreement, here, there }, "obtainConsent").await;
}
