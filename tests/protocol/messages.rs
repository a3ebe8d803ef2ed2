//! Everything that we send, in both roles, to a peer over mutual TLS, checked document by document; and everything that
//! the specification shows, read by the parsers that read peers.

use std::collections::BTreeSet;

use bytes::Bytes;
use kontor::control::wire_format;
use kontor_core::policy::{self, Capabilities};
use kontor_tests::participant::id_of;
use kontor_tests::terms::{self, message, urn};
use kontor_tests::{Answer, DataSpace, FakePeer, Options, Participant, Reply};
use kontor_vocab::context::compact;
use kontor_vocab::dcat::{Catalog, Dataset};
use kontor_vocab::dsp::{CatalogRequest, ErrorBody, Versions};
use serde_json::{Value, json};

use crate::{schemas, shape};

/// Every kind of document that we send.
const KINDS: [&str; 20] = [
    "Catalog",
    "CatalogError",
    "CatalogRequestMessage",
    "ContractAgreementMessage",
    "ContractAgreementVerificationMessage",
    "ContractNegotiation",
    "ContractNegotiationError",
    "ContractNegotiationEventMessage",
    "ContractNegotiationTerminationMessage",
    "ContractOfferMessage",
    "ContractRequestMessage",
    "Dataset",
    "TransferCompletionMessage",
    "TransferError",
    "TransferProcess",
    "TransferRequestMessage",
    "TransferStartMessage",
    "TransferSuspensionMessage",
    "TransferTerminationMessage",
    "initial ContractOfferMessage",
];

/// What was checked so far.
#[derive(Default)]
struct Checked(BTreeSet<String>);

impl Checked {
    fn check(&mut self, document: &Value) {
        let kind = document["@type"].as_str().unwrap_or_else(|| panic!("no `@type` in {document}"));
        shape::check(document, kind).unwrap();
        if kind == "ContractOfferMessage" && document.get("callbackAddress").is_some() {
            self.0.insert(format!("initial {kind}"));
        }
        self.0.insert(kind.to_owned());
    }

    /// The body of a success.
    fn ok(&mut self, answer: Answer) -> Value {
        let body = answer.ok();
        self.check(&body);
        body
    }

    /// The body of a refusal.
    fn error(&mut self, answer: &Answer, status: u16, kind: &str) {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.body["@type"], kind, "{answer:?}");
        assert!(answer.body["reason"][0].is_string() && answer.body["code"].is_string(), "no reason: {answer:?}");
        self.check(&answer.body);
    }
}

/// Conditions of every shape that is enforced, with a number as people write it.
fn conditions() -> Value {
    let until = json!({ "leftOperand": "dateTime", "operator": "lt", "rightOperand": "2199-01-01T00:00:00Z" });
    let uses = json!({ "leftOperand": "count", "operator": "lteq", "rightOperand": 9 });
    json!({ "permission": [{ "action": "use", "constraint": [uses, { "or": [until.clone(), { "and": [until] }] }] }] })
}

fn pids(consumer: &str, provider: &str) -> Value {
    json!({ "consumerPid": consumer, "providerPid": provider })
}

/// Says one message to a process of ours.
async fn say(peer: &FakePeer, to: &Participant, path: &str, kind: &str, mut members: Value, more: Value) -> Answer {
    for (name, value) in more.as_object().into_iter().flatten() {
        members[name] = value.clone();
    }
    peer.post(to, path, &message(kind, members)).await
}

/// A peer that knows each process of ours by a name of its own, and has a catalogue.
async fn peer(space: &DataSpace) -> FakePeer {
    let answer = |seen: &kontor_tests::Recorded| match seen.path.as_str() {
        "/catalog/request" => {
            Reply::Json(200, message("Catalog", json!({ "@id": "urn:c", "participantId": seen.from })))
        }
        _ => {
            let own = |name: &str| seen.body[name].as_str().map(|pid| format!("{pid}:there"));
            Reply::ack(seen, &own("consumerPid").or(own("providerPid")).unwrap_or_default())
        }
    };
    space.fake("peer", answer).await
}

#[tokio::test]
async fn every_document_that_we_send_is_as_the_specification_has_it() {
    let space = DataSpace::new();
    let kontor = space.participant_with("kontor", &Options::manual());
    let dataset = kontor.publish("fairs", &conditions()).await;
    let peer = peer(&space).await;
    let mut checked = Checked::default();

    let agreement = provided(&kontor, &peer, &dataset, &mut checked).await;
    transfers_provided(&kontor, &peer, &agreement, &mut checked).await;
    let agreement = consumed(&kontor, &peer, &dataset, &mut checked).await;
    transfers_consumed(&kontor, &peer, &agreement, &mut checked).await;

    let unasked = json!({
        "role": "provider", "counterparty": peer.id, "address": peer.address, "offer": "urn:story:offer:fairs",
    });
    let unasked = id_of(&kontor.post("/negotiations", unasked).await.ok());
    kontor.wait_negotiation(&unasked, "OFFERED").await;

    checked.ok(peer.post(&kontor, "/catalog/request", &message("CatalogRequestMessage", json!({}))).await);
    checked.ok(peer.get(&kontor, &format!("/catalog/datasets/{dataset}")).await);
    for filter in [json!(null), json!([]), json!({ "keyword": "fairs" })] {
        let asked = json!({ "counterparty": peer.id, "address": peer.address, "filter": filter });
        kontor.post("/catalog/request", asked).await.ok();
    }
    let url = format!("{}/.well-known/dspace-version", kontor.origin());
    let versions = peer.say(&kontor.id, "GET", &url, "application/json", Bytes::new()).await.unwrap().ok();
    schemas::valid_as("protocol-version-schema", &versions).unwrap();

    for seen in peer.seen() {
        checked.check(&seen.body);
    }
    errors(&kontor, &peer, &dataset, &mut checked).await;
    let expected: BTreeSet<String> = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(checked.0, expected);
}

/// A negotiation with offers, counter-requests and all events, in which we provide.
async fn provided(kontor: &Participant, peer: &FakePeer, dataset: &str, checked: &mut Checked) -> String {
    let here = urn();
    let offer = terms::offer(&conditions(), "urn:story:offer:fairs", dataset, &kontor.id);
    let request = terms::contract_request(&here, &peer.address, &offer);
    let there = checked.ok(peer.post(kontor, "/negotiations/request", &request).await);
    let there = there["providerPid"].as_str().unwrap().to_owned();
    let pids = pids(&here, &there);
    let path = |suffix: &str| format!("/negotiations/{there}/{suffix}");
    kontor.act(&there, "offer", json!({ "offer": offer })).await.ok();
    kontor.wait_negotiation(&there, "OFFERED").await;
    let counter = json!({ "offer": offer });
    let answer = say(peer, kontor, &path("request"), "ContractRequestMessage", pids.clone(), counter).await;
    checked.ok(answer);
    kontor.act(&there, "offer", json!({ "offer": offer })).await.ok();
    kontor.wait_negotiation(&there, "OFFERED").await;
    let accepted = json!({ "eventType": "ACCEPTED" });
    let answer = say(peer, kontor, &path("events"), "ContractNegotiationEventMessage", pids.clone(), accepted).await;
    checked.ok(answer);
    kontor.act(&there, "agree", json!({})).await.ok();
    let agreed = kontor.wait_negotiation(&there, "AGREED").await;
    let kind = "ContractAgreementVerificationMessage";
    checked.ok(say(peer, kontor, &path("agreement/verification"), kind, pids, json!({})).await);
    kontor.act(&there, "finalize", json!({})).await.ok();
    kontor.wait_negotiation(&there, "FINALIZED").await;
    checked.ok(peer.get(kontor, &format!("/negotiations/{there}")).await);

    // One that we end, with the reason.
    let request = terms::contract_request(&urn(), &peer.address, &offer);
    let there = checked.ok(peer.post(kontor, "/negotiations/request", &request).await);
    let there = there["providerPid"].as_str().unwrap().to_owned();
    kontor.act(&there, "terminate", json!({ "code": "closed", "reason": "the fair is over" })).await.ok();
    kontor.wait_negotiation(&there, "TERMINATED").await;
    agreed["agreement"]["id"].as_str().unwrap().to_owned()
}

async fn transfers_provided(kontor: &Participant, peer: &FakePeer, agreement: &str, checked: &mut Checked) {
    for end in ["complete", "terminate"] {
        let request = terms::transfer_request(&urn(), &peer.address, agreement);
        let there = checked.ok(peer.post(kontor, "/transfers/request", &request).await);
        let there = there["providerPid"].as_str().unwrap();
        kontor.act_transfer(there, "start", json!({})).await.ok();
        kontor.wait_transfer(there, "STARTED").await;
        let reason = json!({ "code": "pause", "reason": "a moment please" });
        kontor.act_transfer(there, "suspend", reason.clone()).await.ok();
        kontor.wait_transfer(there, "SUSPENDED").await;
        kontor.act_transfer(there, "resume", json!({})).await.ok();
        kontor.wait_transfer(there, "STARTED").await;
        kontor.act_transfer(there, end, if end == "complete" { json!({}) } else { reason }).await.ok();
        kontor.wait_transfer(there, if end == "complete" { "COMPLETED" } else { "TERMINATED" }).await;
        checked.ok(peer.get(kontor, &format!("/transfers/{there}")).await);
    }
    let started = peer.seen().into_iter().find(|seen| seen.body["@type"] == "TransferStartMessage").unwrap();
    assert!(started.body["dataAddress"]["endpointProperties"][0]["value"].is_string(), "{started:?}");
}

/// The same with us as consumer.
async fn consumed(kontor: &Participant, peer: &FakePeer, dataset: &str, checked: &mut Checked) -> String {
    let offer = terms::offer(&conditions(), "urn:story:offer:theirs", dataset, &peer.id);
    let asked = json!({ "counterparty": peer.id, "address": peer.address, "offer": offer });
    let here = id_of(&kontor.post("/negotiations", asked).await.ok());
    kontor.wait_negotiation(&here, "REQUESTED").await;
    let pids = pids(&here, &format!("{here}:there"));
    let path = |suffix: &str| format!("/negotiations/{here}/{suffix}");
    for _ in 0..2 {
        let members = json!({ "@id": urn(), "offer": offer });
        checked.ok(say(peer, kontor, &path("offers"), "ContractOfferMessage", pids.clone(), members).await);
        if !peer.seen().iter().any(|seen| seen.path == format!("/negotiations/{here}:there/request")) {
            kontor.act(&here, "request", json!({ "offer": offer })).await.ok();
            kontor.wait_negotiation(&here, "REQUESTED").await;
        }
    }
    kontor.act(&here, "accept", json!({})).await.ok();
    kontor.wait_negotiation(&here, "ACCEPTED").await;
    let id = urn();
    let agreement = terms::agreement(&conditions(), &id, dataset, &peer.id, &kontor.id);
    let members = json!({ "agreement": agreement });
    checked.ok(say(peer, kontor, &path("agreement"), "ContractAgreementMessage", pids.clone(), members).await);
    kontor.act(&here, "verify", json!({})).await.ok();
    kontor.wait_negotiation(&here, "VERIFIED").await;
    let members = json!({ "eventType": "FINALIZED" });
    checked.ok(say(peer, kontor, &path("events"), "ContractNegotiationEventMessage", pids, members).await);
    checked.ok(peer.get(kontor, &format!("/negotiations/{here}")).await);
    id
}

async fn transfers_consumed(kontor: &Participant, peer: &FakePeer, agreement: &str, checked: &mut Checked) {
    for end in ["complete", "terminate"] {
        let here = kontor.transfer(agreement, None).await;
        kontor.wait_transfer(&here, "REQUESTED").await;
        let there = format!("{here}:there");
        let address = json!({
            "@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP", "endpoint": peer.address,
        });
        let members = json!({ "dataAddress": address });
        let path = format!("/transfers/{here}/start");
        checked.ok(say(peer, kontor, &path, "TransferStartMessage", pids(&here, &there), members).await);
        kontor.act_transfer(&here, "suspend", json!({ "reason": "no room" })).await.ok();
        kontor.wait_transfer(&here, "SUSPENDED").await;
        kontor.act_transfer(&here, "resume", json!({})).await.ok();
        kontor.wait_transfer(&here, "STARTED").await;
        kontor.act_transfer(&here, end, json!({})).await.ok();
        kontor.wait_transfer(&here, if end == "complete" { "COMPLETED" } else { "TERMINATED" }).await;
        checked.ok(peer.get(kontor, &format!("/transfers/{here}")).await);
    }
}

/// Every endpoint, told what is no message, too much, about nothing, and out of turn.
async fn errors(kontor: &Participant, peer: &FakePeer, dataset: &str, checked: &mut Checked) {
    let (negotiation, transfer) = ("ContractNegotiationError", "TransferError");
    let mut endpoints = vec![("/catalog/request".to_owned(), "CatalogError", 400)];
    for path in ["/negotiations/request", "/negotiations/offers", "/transfers/request"] {
        endpoints.push((path.to_owned(), if path.starts_with("/n") { negotiation } else { transfer }, 400));
    }
    for path in ["request", "offers", "events", "agreement", "agreement/verification", "termination"] {
        endpoints.push((format!("/negotiations/urn:uuid:unknown/{path}"), negotiation, 404));
    }
    for path in ["start", "completion", "suspension", "termination"] {
        endpoints.push((format!("/transfers/urn:uuid:unknown/{path}"), transfer, 404));
    }
    let large = format!("{{\"@type\":\"{}\"}}", "x".repeat(1100 * 1024));
    for (path, kind, status) in endpoints {
        for body in ["", "{}", "{\"consumerPid\":5}"] {
            let answer = peer.try_send(kontor, "POST", &path, Bytes::from(body)).await.unwrap();
            checked.error(&answer, status, kind);
        }
        // A server may hang up on who does not stop talking.
        if let Ok(answer) = peer.try_send(kontor, "POST", &path, Bytes::from(large.clone())).await {
            checked.error(&answer, 413, kind);
        }
    }
    for (path, kind) in [
        ("/catalog/datasets/urn:uuid:unknown", "CatalogError"),
        ("/negotiations/urn:uuid:unknown", negotiation),
        ("/transfers/urn:uuid:unknown", transfer),
    ] {
        checked.error(&peer.get(kontor, path).await, 404, kind);
    }
    // No such path, no such method.
    for (path, kind, status) in [
        ("/catalog", "CatalogError", 404),
        ("/catalog/request", "CatalogError", 405),
        ("/negotiations/urn:uuid:unknown/nothing", negotiation, 404),
        ("/negotiations/urn:uuid:unknown/events", negotiation, 405),
        ("/transfers/urn:uuid:unknown/nothing", transfer, 404),
        ("/transfers/urn:uuid:unknown/start", transfer, 405),
    ] {
        checked.error(&peer.get(kontor, path).await, status, kind);
    }
    let filtered = message("CatalogRequestMessage", json!({ "filter": ["a filter"] }));
    checked.error(&peer.post(kontor, "/catalog/request", &filtered).await, 400, "CatalogError");
    // Terms that nobody could enforce, and an agreement that is not theirs.
    let product = terms::under("product", "eq", "http://example.org/bread");
    let offer = terms::offer(&product, "urn:story:offer:fairs", dataset, &kontor.id);
    let request = terms::contract_request(&urn(), &peer.address, &offer);
    checked.error(&peer.post(kontor, "/negotiations/request", &request).await, 400, negotiation);
    let request = terms::transfer_request(&urn(), &peer.address, "urn:uuid:not-yours");
    checked.error(&peer.post(kontor, "/transfers/request", &request).await, 404, transfer);
}

#[test]
fn every_example_of_the_specification_is_read() {
    let Some(folder) = schemas::folder() else {
        eprintln!("skipped: the specification's examples are not at ../shared/dsp");
        return;
    };
    let mut count = 0;
    for chapter in ["catalog", "negotiation", "transfer", "common"] {
        for entry in std::fs::read_dir(folder.join(chapter).join("example")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let body = std::fs::read(&path).unwrap();
            let document: Value = serde_json::from_slice(&body).unwrap();
            read(&name, &body, &document);
            count += 1;
        }
    }
    assert!(count >= 27, "only {count} examples");
}

/// By the parser that reads it from a peer.
fn read(name: &str, body: &[u8], document: &Value) {
    let kind = document["@type"].as_str().unwrap_or_default();
    let value = compact(document.clone());
    match kind {
        "Catalog" => {
            let catalog: Catalog = serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!catalog.dataset.is_empty() || !catalog.catalog.is_empty(), "{name} reads as empty");
        }
        "Dataset" => {
            let dataset: Dataset = serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"));
            for offer in dataset.has_policy {
                // Read, and then refused by name: where data is used is nothing that a stream can tell.
                policy::parse(&offer).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
                let target = offer.with("target", &dataset.id);
                wire_format::offer(target).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            }
        }
        "CatalogRequestMessage" => {
            serde_json::from_value::<CatalogRequest>(value).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        "CatalogError" | "ContractNegotiationError" | "TransferError" => {
            let error: ErrorBody = serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!wire_format::reasons(&error.reason).is_empty(), "{name} has no reason");
        }
        "DatasetRequestMessage" => assert!(value["dataset"].is_string(), "{name}: {value}"),
        "" if name == "protocol-version" => {
            let versions: Versions = serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(versions.protocol_versions.len(), 3, "{name}");
        }
        // Services of a DID document, which nobody reads here: participants are certificates.
        "" => assert!(name.ends_with("-did-service"), "{name} is nothing that is known"),
        kind => {
            let parsed = wire_format::parse(body, kind).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            let read = parsed.document;
            if let Some(offer) = read.offer {
                let offer = wire_format::offer(offer).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
                policy::enforceable(&offer.policy, &Capabilities::default())
                    .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            }
            if let Some(agreement) = read.agreement {
                let now = jiff::Timestamp::UNIX_EPOCH;
                let agreement =
                    wire_format::agreement(agreement, now).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
                let enforceable = policy::enforceable(&agreement.policy, &Capabilities::default());
                if name == "contract-agreement-message-full" {
                    // Its operands are made up: refused, each by name.
                    let refusal = enforceable.unwrap_err().to_string();
                    assert!(refusal.contains("`partner` is not known"), "{name}: {refusal}");
                } else {
                    enforceable.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
                }
            }
            if document.get("dataAddress").is_some() {
                let address = wire_format::data_address(read.data_address.unwrap());
                assert!(address.token.is_some(), "{name} has no token");
            }
        }
    }
}
