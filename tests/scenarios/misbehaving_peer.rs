//! Peers that fail, stall, lie, or want us to call where nobody should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kontor_tests::participant::{eventually, id_of};
use kontor_tests::terms::{self, open, times, urn};
use kontor_tests::{DataSpace, FakePeer, Options, Participant, Reply};
use serde_json::{Value, json};

const DATASET: &str = "urn:story:dataset:fairs";
const OFFER: &str = "urn:story:offer:fairs";

/// Asks a played provider for a contract over whole terms, so that no catalogue is needed.
async fn ask(consumer: &Participant, provider: &FakePeer, policy: &Value) -> String {
    let offer = terms::offer(policy, OFFER, DATASET, &provider.id);
    let body = json!({ "counterparty": provider.id, "address": provider.address, "offer": offer });
    id_of(&consumer.post("/negotiations", body).await.ok())
}

#[tokio::test]
async fn a_peer_that_answers_500_is_told_again_until_it_listens() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let provider = space
        .fake("moody", move |seen| match counter.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Reply::Json(500, json!({ "reason": ["out of paper"] })),
            2 => Reply::Text(503, "<html>busy</html>".to_owned()),
            _ => Reply::ack(seen, "urn:uuid:there"),
        })
        .await;
    let here = ask(&consumer, &provider, &open()).await;
    let asked = consumer.wait_negotiation(&here, "REQUESTED").await;
    assert_eq!(asked["peer_pid"], "urn:uuid:there");
    let seen = provider.seen();
    assert_eq!(seen.len(), 4, "{seen:#?}");
    assert!(seen.iter().all(|request| request.body == seen[0].body), "a repeated message is not the same");
    assert!(consumer.outbox().await.is_empty());
}

#[tokio::test]
async fn what_a_broken_peer_says_is_shown_while_its_message_waits() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let provider = space.fake("broken", |_| Reply::Json(500, json!({ "reason": ["out of paper"] }))).await;
    ask(&consumer, &provider, &open()).await;
    let waiting = eventually(|| async {
        let outbox = consumer.outbox().await;
        outbox.into_iter().find(|entry| entry["last_error"].to_string().contains("out of paper"))
    })
    .await;
    assert!(waiting.is_some(), "{:?}", consumer.outbox().await);
}

#[tokio::test]
async fn a_peer_that_never_answers_holds_up_nobody_else() {
    let space = DataSpace::new();
    let patient = Options { timeout_ms: Some(600_000), delivery: "in_flight_max = 8".to_owned(), ..Options::default() };
    let (provider, consumer) = (space.participant("provider"), space.participant_with("consumer", &patient));
    let dataset = provider.publish("fairs", &open()).await;
    let stuck = space.fake("stuck", |_| Reply::Never).await;
    for _ in 0..20 {
        ask(&consumer, &stuck, &open()).await;
    }
    assert!(eventually(|| async { (stuck.seen().len() >= 2).then_some(()) }).await.is_some());
    consumer.agree(&provider, &dataset).await;
    assert_eq!(stuck.seen().len(), 2, "one participant has a quarter of what may be on its way");
}

#[tokio::test]
async fn what_follows_by_rule_and_never_arrives_ends_the_process() {
    let space = DataSpace::new();
    let hasty = Options { timeout_ms: Some(200), delivery: "give_up_seconds = 1".to_owned(), ..Options::default() };
    let provider = space.participant_with("provider", &hasty);
    let dataset = provider.publish("fairs", &open()).await;
    let consumer = space.fake("deaf", |_| Reply::Never).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let request = terms::contract_request(&urn(), &consumer.address, &offer);
    let ack = consumer.post(&provider, "/negotiations/request", &request).await.ok();
    let there = ack["providerPid"].as_str().unwrap();
    let ended = provider.wait_negotiation(there, "TERMINATED").await;
    assert!(ended.to_string().contains("did not arrive: given up"), "{ended:#}");
}

#[tokio::test]
async fn a_message_that_is_not_answered_in_time_is_said_again() {
    let space = DataSpace::new();
    let hasty = Options { timeout_ms: Some(500), ..Options::default() };
    let consumer = space.participant_with("consumer", &hasty);
    let stuck = space.fake("stuck", |_| Reply::Never).await;
    ask(&consumer, &stuck, &open()).await;
    assert!(eventually(|| async { (stuck.seen().len() > 1).then_some(()) }).await.is_some());
}

#[tokio::test]
async fn a_slow_peer_is_waited_for() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let slow = space
        .fake("slow", |seen| Reply::After(Duration::from_millis(600), Box::new(Reply::ack(seen, "urn:uuid:there"))))
        .await;
    let here = ask(&consumer, &slow, &open()).await;
    consumer.wait_negotiation(&here, "REQUESTED").await;
    assert_eq!(slow.seen().len(), 1);
}

#[tokio::test]
async fn an_empty_or_senseless_answer_is_no_acknowledgement_of_a_first_message() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let answers = [
        Reply::Empty(200),
        Reply::Text(200, "ok".to_owned()),
        Reply::Json(201, json!({ "@type": "ContractNegotiation" })),
        Reply::Json(201, json!([])),
    ];
    for (index, reply) in answers.into_iter().enumerate() {
        let provider = space.fake(&format!("empty{index}"), move |_| reply.clone()).await;
        let here = ask(&consumer, &provider, &open()).await;
        let told = eventually(|| async {
            let now = consumer.negotiation(&here).await;
            now.to_string().contains("providerPid").then_some(now)
        })
        .await;
        let told = told.unwrap_or_else(|| panic!("case {index}: nothing is told"));
        assert_ne!(told["state"], "REQUESTED", "case {index}: {told:#}");
    }
}

#[tokio::test]
async fn a_peer_that_gives_one_identifier_to_two_negotiations_loses_the_second_with_a_reason() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let provider = space.fake("forgetful", |seen| Reply::ack(seen, "urn:uuid:there")).await;
    let first = ask(&consumer, &provider, &open()).await;
    consumer.wait_negotiation(&first, "REQUESTED").await;
    let second = ask(&consumer, &provider, &open()).await;
    let ended = consumer.wait_negotiation(&second, "TERMINATED").await;
    assert!(ended.to_string().contains("identifier"), "{ended:#}");
    assert_eq!(consumer.negotiation(&first).await["state"], "REQUESTED");
}

#[tokio::test]
async fn an_empty_answer_acknowledges_any_later_message() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let provider = space
        .fake("terse", |seen| {
            if seen.path.ends_with("/request") { Reply::ack(seen, "urn:uuid:there") } else { Reply::Empty(200) }
        })
        .await;
    let here = ask(&consumer, &provider, &open()).await;
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let agreement = terms::agreement(&open(), &urn(), DATASET, &provider.id, &consumer.id);
    let pids = json!({ "consumerPid": here, "providerPid": "urn:uuid:there", "agreement": agreement });
    let message = terms::message("ContractAgreementMessage", pids);
    provider.post(&consumer, &format!("/negotiations/{here}/agreement"), &message).await.ok();
    consumer.wait_negotiation(&here, "VERIFIED").await;
}

#[tokio::test]
async fn an_agreement_that_differs_from_its_offer_is_refused_and_never_verified() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let provider = space.fake("liar", |seen| Reply::ack(seen, "urn:uuid:there")).await;
    let here = ask(&consumer, &provider, &times(5)).await;
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let (me, you) = (provider.id.as_str(), consumer.id.as_str());
    let path = format!("/negotiations/{here}/agreement");
    let send = |agreement: Value| {
        terms::message(
            "ContractAgreementMessage",
            json!({ "consumerPid": here, "providerPid": "urn:uuid:there", "agreement": agreement }),
        )
    };
    for (what, agreement) in [
        ("other terms", terms::agreement(&times(4), &urn(), DATASET, me, you)),
        ("no terms", terms::agreement(&open(), &urn(), DATASET, me, you)),
        ("another dataset", terms::agreement(&times(5), &urn(), "urn:story:dataset:other", me, you)),
        ("another consumer", terms::agreement(&times(5), &urn(), DATASET, me, "urn:story:other")),
        ("another provider", terms::agreement(&times(5), &urn(), DATASET, "urn:story:other", you)),
        (
            "no policy",
            json!({ "@type": "Agreement", "@id": urn(), "target": DATASET, "assigner": me, "assignee": you }),
        ),
        ("no agreement", json!({})),
    ] {
        let answer = provider.post(&consumer, &path, &send(agreement)).await;
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert!(!answer.body["reason"].to_string().is_empty(), "{what}: {answer:?}");
        assert_ne!(consumer.negotiation(&here).await["state"], "AGREED", "{what}");
    }
    assert!(consumer.list("agreements").await.iter().all(|agreement| agreement["state"]["name"] != "in-force"));
    let verified = provider.seen().iter().any(|seen| seen.path.ends_with("/verification"));
    assert!(!verified, "an altered agreement was verified");
}

#[tokio::test]
async fn a_callback_to_an_address_that_nobody_should_call_is_refused_before_anything_is_called() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &Options { no_egress: true, ..Options::default() });
    let dataset = provider.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    for address in [
        peer.address.as_str(),
        "https://10.0.0.1/dsp",
        "https://192.168.1.1:8443",
        "https://169.254.169.254/latest",
        "https://[::1]/dsp",
        "https://[::ffff:127.0.0.1]/dsp",
        "https://0.0.0.0/",
        "https://100.64.0.1",
        "http://example.org/dsp",
        "file:///etc/passwd",
        "https://example.org/dsp?next=",
        "https://user:secret@example.org/dsp",
        "not an address",
    ] {
        let request = terms::contract_request(&urn(), address, &offer);
        let answer = peer.post(&provider, "/negotiations/request", &request).await;
        answer.refused(400, &["callbackAddress"]);
    }
    assert!(provider.list("negotiations").await.is_empty());
    assert!(peer.seen().is_empty(), "the address was called");
}

#[tokio::test]
async fn a_data_address_that_nobody_should_call_ends_the_transfer_with_its_reason() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    // A pid of its own for each process, which the message itself carries back.
    let provider = space
        .fake("lure", |seen| match seen.body["@type"].as_str() {
            Some("TransferRequestMessage") => {
                Reply::ack(seen, &format!("{}:there", seen.body["consumerPid"].as_str().unwrap_or_default()))
            }
            _ => Reply::ack(seen, "urn:uuid:there"),
        })
        .await;
    let here = ask(&consumer, &provider, &open()).await;
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let agreement = urn();
    let document = terms::agreement(&open(), &agreement, DATASET, &provider.id, &consumer.id);
    let pids = json!({ "consumerPid": here, "providerPid": "urn:uuid:there" });
    let mut message = terms::message("ContractAgreementMessage", pids.clone());
    message["agreement"] = document;
    provider.post(&consumer, &format!("/negotiations/{here}/agreement"), &message).await.ok();
    consumer.wait_negotiation(&here, "VERIFIED").await;
    let mut event = terms::message("ContractNegotiationEventMessage", pids);
    event["eventType"] = json!("FINALIZED");
    provider.post(&consumer, &format!("/negotiations/{here}/events"), &event).await.ok();
    consumer.wait_negotiation(&here, "FINALIZED").await;

    let endpoints =
        [("https://10.0.0.1/data", "10.0.0.1"), ("http://127.0.0.1/data", "https"), ("nonsense", "nonsense")];
    for (index, (endpoint, word)) in endpoints.into_iter().enumerate() {
        let transfer = consumer.transfer(&agreement, Some(&format!("{index}.csv"))).await;
        consumer.wait_transfer(&transfer, "REQUESTED").await;
        let start = terms::message(
            "TransferStartMessage",
            json!({
                "consumerPid": transfer, "providerPid": format!("{transfer}:there"),
                "dataAddress": {
                    "@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP", "endpoint": endpoint,
                    "endpointProperties": [{ "@type": "EndpointProperty", "name": "authorization", "value": "t" }],
                },
            }),
        );
        let answer = provider.post(&consumer, &format!("/transfers/{transfer}/start"), &start).await;
        if answer.status < 300 {
            let ended = consumer.wait_transfer(&transfer, "TERMINATED").await;
            assert!(ended["why"]["reason"].to_string().contains(word), "{ended:#}");
            let told = provider.wait_for("TransferTerminationMessage").await;
            assert!(told.body["reason"].to_string().contains("address"), "{told:?}");
        } else {
            assert_eq!(answer.status, 400, "{answer:?}");
        }
    }
}
