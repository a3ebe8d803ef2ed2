//! A peer with the habits of Eclipse EDC, played here so that a break is seen without Java; `cargo conformance edc` runs
//! the same against the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use kontor_tests::participant::{Participant, eventually, id_of};
use kontor_tests::terms::{self, open, times, urn};
use kontor_tests::{DataSpace, FakePeer, Recorded, Reply};
use serde_json::{Value, json};

const DATASET: &str = "urn:story:dataset:fairs";
const OFFER: &str = "Y2Q=:YXNzZXQ=:dXVpZA==";
const TOKEN: &str = "eyJraWQiOiJwdWJsaWMta2V5In0.e30.c2lnbmVk";
const DATA: &str = "fair,place\nspring,Leipzig\n";
const CONTEXTS: [&str; 2] = ["https://w3id.org/dspace/2025/1/context.jsonld", "https://w3id.org/edc/dspace/v0.0.1"];

/// A message as EDC writes it: its own context second.
fn message(kind: &str, members: Value) -> Value {
    let mut message = terms::message(kind, members);
    message["@context"] = json!(CONTEXTS);
    message["@id"] = json!(urn());
    message
}

fn query(filter: Value) -> Bytes {
    Bytes::from(message("CatalogRequestMessage", json!({ "filter": filter })).to_string())
}

#[tokio::test]
async fn edc_reads_a_catalogue_in_parts_by_its_own_filter() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    for name in ["one", "two", "three"] {
        provider.publish(name, &open()).await;
    }
    let edc = space.fake("edc", |seen| Reply::ack(seen, "unused")).await;
    let ask = async |filter: Value| {
        let answer = edc.try_send(&provider, "POST", "/catalog/request", query(filter)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let found = answer.body["dataset"].as_array().cloned().unwrap_or_default();
        found.iter().map(|dataset| dataset["@id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let part = |offset: u32, limit: u32, expression: Value| {
        json!([{ "@type": "QuerySpec", "limit": limit, "offset": offset, "sortOrder": "ASC",
            "filterExpression": expression }])
    };
    let all = ask(part(0, 50, json!([]))).await;
    assert_eq!(all.len(), 3);
    let mut parts = ask(part(0, 2, json!([]))).await;
    assert_eq!(parts, all[..2]);
    parts.extend(ask(part(2, 2, json!([]))).await);
    assert_eq!(parts, all);
    assert!(ask(part(3, 2, json!([]))).await.is_empty());
    let by_id = |id: &str| {
        json!([{ "@type": "Criterion", "operandLeft": "https://w3id.org/edc/v0.0.1/ns/id", "operator": "=",
            "operandRight": id }])
    };
    assert_eq!(ask(part(0, 50, by_id(&all[1]))).await, all[1..2]);
    assert!(ask(part(0, 50, by_id("urn:not:there"))).await.is_empty());

    let other = json!([{ "@type": "QuerySpec", "filterExpression": [
        { "@type": "Criterion", "operandLeft": "name", "operator": "like", "operandRight": "o%" },
    ] }]);
    let answer = edc.try_send(&provider, "POST", "/catalog/request", query(other)).await.unwrap();
    let said = answer.refused(400, &["filterExpression", "like"]);
    assert!(said.contains("QuerySpec"), "the cure names what is supported: {said}");
}

/// Asks as EDC's consumer for an offer of ours, under its own identifier.
async fn request(edc: &FakePeer, provider: &Participant, pid: &str, policy: &Value, dataset: &str) {
    let offer = terms::offer(policy, "urn:story:offer:fairs", dataset, &provider.id);
    let members = json!({ "consumerPid": pid, "callbackAddress": edc.address, "offer": offer });
    edc.post(provider, "/negotiations/request", &message("ContractRequestMessage", members)).await.ok();
}

#[tokio::test]
async fn edc_that_holds_its_lease_is_told_again_until_it_listens() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let count = Arc::new(AtomicUsize::new(0));
    let edc = {
        let count = count.clone();
        let busy = move |seen: &Recorded| match seen.body["@type"].as_str() {
            Some("ContractAgreementMessage") if count.fetch_add(1, Ordering::SeqCst) < 3 => Reply::Empty(409),
            // As EDC acknowledges: without a body.
            _ => Reply::Empty(200),
        };
        space.fake("edc", busy).await
    };
    request(&edc, &provider, "d4ce9422", &open(), &dataset).await;
    let there = provider.counterpart("negotiations", "d4ce9422").await;
    provider.wait_negotiation(&there, "AGREED").await;
    let members = json!({ "consumerPid": "d4ce9422", "providerPid": there });
    let verified = message("ContractAgreementVerificationMessage", members);
    edc.post(&provider, &format!("/negotiations/{there}/agreement/verification"), &verified).await.ok();
    provider.wait_negotiation(&there, "FINALIZED").await;
    let agreements: Vec<Value> =
        edc.seen().into_iter().map(|seen| seen.body).filter(|body| body["agreement"].is_object()).collect();
    assert_eq!(agreements.len(), 4);
    assert!(agreements.iter().all(|body| *body == agreements[0]), "a repeated message is not the same");
    // EDC compares with its offer: all but type, identifier, assignee and time must be the same.
    let agreed = &agreements[0]["agreement"];
    assert_eq!(agreed["permission"], open()["permission"]);
    assert_eq!((&agreed["assigner"], &agreed["target"]), (&json!(provider.id), &json!(dataset)));
}

#[tokio::test]
async fn what_a_rule_decides_and_the_peer_refuses_ends_the_negotiation_and_is_not_said_for_ever() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let edc = space
        .fake("edc", |seen| match seen.body["@type"].as_str() {
            Some("ContractAgreementMessage") => Reply::Text(400, "{\"message\":\"Bad Request\"}".to_owned()),
            _ => Reply::Empty(200),
        })
        .await;
    request(&edc, &provider, "d4ce9422", &open(), &dataset).await;
    let there = provider.counterpart("negotiations", "d4ce9422").await;
    let ended = provider.wait_negotiation(&there, "TERMINATED").await;
    assert!(ended.to_string().contains("400"), "{ended:#}");
    let told = edc.wait_for("ContractNegotiationTerminationMessage").await;
    assert!(told.body["reason"].to_string().contains("refused"), "{told:?}");
    let agreements = edc.seen().iter().filter(|seen| seen.body["@type"] == "ContractAgreementMessage").count();
    assert_eq!(agreements, 1);
}

/// EDC as provider: agrees, starts, and serves the data at an address that is a property of the data address.
async fn provider(space: &DataSpace) -> FakePeer {
    space
        .fake("edc", |seen| match (seen.path.as_str(), seen.body["consumerPid"].as_str()) {
            ("/public", _) => Reply::Text(200, DATA.to_owned()),
            (_, Some(pid)) => Reply::ack(seen, &format!("{pid}:there")),
            (_, None) => Reply::Empty(404),
        })
        .await
}

/// An agreement in force between them.
async fn agree(consumer: &Participant, edc: &FakePeer, policy: &Value) -> String {
    // Offers in EDC's catalogue have neither assigner nor target.
    let mut offer = terms::offer(policy, OFFER, DATASET, &edc.id);
    offer.as_object_mut().unwrap().remove("assigner");
    let asked = json!({ "counterparty": edc.id, "address": edc.address, "offer": offer });
    let here = id_of(&consumer.post("/negotiations", asked).await.ok());
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let agreement = urn();
    let pids = json!({ "consumerPid": here, "providerPid": format!("{here}:there") });
    let mut agreed = message("ContractAgreementMessage", pids.clone());
    agreed["agreement"] = terms::agreement(policy, &agreement, DATASET, &edc.id, &consumer.id);
    edc.post(consumer, &format!("/negotiations/{here}/agreement"), &agreed).await.ok();
    consumer.wait_negotiation(&here, "VERIFIED").await;
    let mut event = message("ContractNegotiationEventMessage", pids);
    event["eventType"] = json!("FINALIZED");
    edc.post(consumer, &format!("/negotiations/{here}/events"), &event).await.ok();
    consumer.wait_negotiation(&here, "FINALIZED").await;
    agreement
}

#[tokio::test]
async fn data_is_pulled_from_an_address_that_edc_wrote() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let edc = provider(&space).await;
    let agreement = agree(&consumer, &edc, &times(2)).await;
    let transfer = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&transfer, "REQUESTED").await;
    let property = |name: &str, value: Value| json!({ "@type": "EndpointProperty", "name": format!("https://w3id.org/edc/v0.0.1/ns/{name}"), "value": value });
    let members = json!({
        "consumerPid": transfer, "providerPid": format!("{transfer}:there"),
        "dataAddress": {
            "@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
            "endpointProperties": [
                property("endpoint", json!(format!("{}/public", edc.address))),
                property("authType", json!("bearer")),
                property("endpointType", json!("https://w3id.org/idsa/v4.1/HTTP")),
                property("authorization", json!(TOKEN)),
                // Anything may stand here.
                property("responseChannel", json!({ "@type": "DataAddress" })),
            ],
        },
    });
    edc.post(&consumer, &format!("/transfers/{transfer}/start"), &message("TransferStartMessage", members)).await.ok();
    consumer.wait_transfer(&transfer, "COMPLETED").await;
    assert_eq!(std::fs::read_to_string(consumer.received().join("fairs.csv")).unwrap(), DATA);
    let asked = edc.seen().into_iter().find(|seen| seen.path == "/public").unwrap();
    assert_eq!(asked.authorization.as_deref(), Some(format!("Bearer {TOKEN}").as_str()));
}

#[tokio::test]
async fn an_offer_without_any_rule_is_refused_with_its_cure() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let edc = space
        .fake("edc", |seen| match seen.path.as_str() {
            "/catalog/datasets/urn:story:dataset:fairs" => Reply::Json(
                200,
                json!({ "@context": CONTEXTS, "@type": "Dataset", "@id": DATASET, "distribution": [],
                    "hasPolicy": [{ "@id": OFFER, "@type": "Offer" }] }),
            ),
            _ => Reply::ack(seen, "unused"),
        })
        .await;
    let asked = json!({ "counterparty": edc.id, "address": edc.address, "dataset": DATASET });
    let said = consumer.post("/negotiations", asked).await.refused(400, &["permission"]);
    assert!(said.contains("rule"), "{said}");
    assert!(consumer.list("negotiations").await.is_empty());
    assert!(eventually(|| async { edc.seen().iter().all(|seen| seen.method == "GET").then_some(()) }).await.is_some());
}
