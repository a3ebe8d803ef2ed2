//! What peers may do and do: other spellings of the same message, messages again, with and without an identifier,
//! compressed bodies, catalogues in pages, answers that say "later".

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use kontor_tests::participant::{eventually, id_of};
use kontor_tests::terms::{self, message, open, urn};
use kontor_tests::{Answer, DataSpace, FakePeer, Options, Participant, Recorded, Reply};
use serde_json::{Map, Value, json};

use crate::Subject;
use crate::seed::KIT;
use crate::shape;

const DSPACE: &str = "https://w3id.org/dspace/2025/1/";
const ODRL: &str = "http://www.w3.org/ns/odrl/2/";

/// A way to spell a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// As the schemas have it.
    Compact,
    /// `dspace:consumerPid`, `{"@id": …}`.
    Prefixed,
    /// `o:permission`, where the message's own context says what `o` is.
    OwnPrefixes,
    /// Whole IRIs, everything in arrays, no context.
    Expanded,
    /// A single rule, constraint or property without its array.
    Single,
    /// Members that nobody knows, and a context as one string.
    Extended,
}

const SPELLINGS: [Spelling; 6] = [
    Spelling::Compact,
    Spelling::Prefixed,
    Spelling::OwnPrefixes,
    Spelling::Expanded,
    Spelling::Single,
    Spelling::Extended,
];

impl Spelling {
    fn of(self, compact: &Value) -> Value {
        let mut message = self.node(compact);
        match self {
            Self::Compact | Self::Prefixed | Self::Single => {}
            Self::OwnPrefixes => message["@context"] = json!([compact["@context"][0], { "d": DSPACE, "o": ODRL }]),
            Self::Expanded => {
                message.as_object_mut().unwrap().remove("@context");
                message = json!([message]);
            }
            Self::Extended => {
                message["@context"] = compact["@context"][0].clone();
                message["ex:mood"] = json!({ "@id": "ex:good" });
                message["serial"] = json!(7);
                if let Some(address) = message.get_mut("dataAddress") {
                    address["ex:hint"] = json!(["north", 1]);
                }
            }
        }
        message
    }

    fn node(self, value: &Value) -> Value {
        let Value::Object(map) = value else { return value.clone() };
        let mut spelled = Map::new();
        for (name, member) in map {
            spelled.insert(self.name(name), self.member(name, member));
        }
        Value::Object(spelled)
    }

    fn name(self, name: &str) -> String {
        let (namespace, prefix, own) = match name {
            "permission" | "prohibition" | "action" | "constraint" | "leftOperand" | "operator" | "rightOperand"
            | "target" | "assigner" | "assignee" | "or" | "and" | "use" | "count" | "dateTime" | "lt" | "lteq"
            | "Offer" | "Agreement" => (ODRL, "odrl", "o"),
            "format" => ("http://purl.org/dc/terms/", "dct", "dct"),
            name if name.starts_with('@') => return name.to_owned(),
            _ => (DSPACE, "dspace", "d"),
        };
        match self {
            Self::Prefixed => format!("{prefix}:{name}"),
            Self::OwnPrefixes => format!("{own}:{name}"),
            Self::Expanded => format!("{namespace}{name}"),
            Self::Compact | Self::Single | Self::Extended => name.to_owned(),
        }
    }

    fn member(self, name: &str, member: &Value) -> Value {
        let spelled = match (name, member) {
            ("@id" | "@context" | "@value", _) => return member.clone(),
            ("@type", Value::String(kind)) => {
                let kind = json!(self.name(kind));
                return if self == Self::Expanded { json!([kind]) } else { kind };
            }
            ("rightOperand", Value::String(_)) => return member.clone(),
            (_, Value::Array(items)) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.node(item)).collect();
                return if self == Self::Single && items.len() == 1 { items.remove(0) } else { Value::Array(items) };
            }
            ("action" | "leftOperand" | "operator" | "eventType" | "state", Value::String(term)) => {
                json!({ "@id": self.name(term) })
            }
            ("consumerPid" | "providerPid" | "target" | "assigner" | "assignee" | "agreementId" | "format", id) => {
                json!({ "@id": id })
            }
            (_, Value::String(_)) => json!({ "@value": member }),
            (_, other) => self.node(other),
        };
        match self {
            Self::Prefixed | Self::OwnPrefixes => spelled,
            Self::Expanded => json!([spelled]),
            Self::Compact | Self::Single | Self::Extended => self.node(member),
        }
    }
}

/// A peer that spells in its own way and says everything twice.
struct Speaker {
    spelling: Spelling,
    peer: FakePeer,
}

impl Speaker {
    async fn start(space: &DataSpace, spelling: Spelling) -> Self {
        let answer = move |seen: &Recorded| {
            let own = |name: &str| seen.body[name].as_str().map(|pid| format!("{pid}:there"));
            match Reply::ack(seen, &own("consumerPid").or(own("providerPid")).unwrap_or_default()) {
                Reply::Json(status, body) => Reply::Json(status, spelling.of(&body)),
                other => other,
            }
        };
        Self { spelling, peer: space.fake(&format!("{spelling:?}").to_lowercase(), answer).await }
    }

    async fn say(&self, to: &Participant, path: &str, message: &Value) -> Value {
        let mut message = message.clone();
        message["@id"] = json!(urn());
        let spelled = self.spelling.of(&message);
        let first = self.peer.post(to, path, &spelled).await;
        assert!(first.status < 300, "{:?}: {spelled} was answered {first:?}", self.spelling);
        let again = self.peer.post(to, path, &spelled).await;
        assert!(again.status < 300, "{:?}: again, {spelled} was answered {again:?}", self.spelling);
        first.body
    }
}

fn pids(consumer: &str, provider: &str) -> Value {
    json!({ "consumerPid": consumer, "providerPid": provider })
}

fn with(mut members: Value, name: &str, value: Value) -> Value {
    members[name] = value;
    members
}

/// Use under two conditions, one of which has alternatives.
fn conditions() -> Value {
    let until = json!({ "leftOperand": "dateTime", "operator": "lt", "rightOperand": "2199-01-01T00:00:00Z" });
    let uses = json!({ "leftOperand": "count", "operator": "lteq", "rightOperand": "9" });
    json!({ "permission": [{ "action": "use", "constraint": [uses, { "or": [until.clone(), until] }] }] })
}

#[tokio::test]
async fn every_message_is_understood_in_every_spelling_and_twice() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let dataset = kontor.publish("fairs", &conditions()).await;
    for spelling in SPELLINGS {
        let speaker = Speaker::start(&space, spelling).await;
        provided(&kontor, &speaker, &dataset).await;
        consumed(&kontor, &speaker).await;
    }
}

async fn provided(kontor: &Participant, speaker: &Speaker, dataset: &str) {
    let peer = &speaker.peer;
    let offer = terms::offer(&conditions(), "urn:story:offer:fairs", dataset, &kontor.id);
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, &offer);
    let there = speaker.say(kontor, "/negotiations/request", &request).await["providerPid"].clone();
    let there = there.as_str().unwrap();
    kontor.wait_negotiation(there, "AGREED").await;
    let verification = message("ContractAgreementVerificationMessage", pids(&here, there));
    speaker.say(kontor, &format!("/negotiations/{there}/agreement/verification"), &verification).await;
    let done = kontor.wait_negotiation(there, "FINALIZED").await;
    let agreement = done["agreement"]["id"].as_str().unwrap();

    let here = urn();
    let request = terms::transfer_request(&here, &peer.address, agreement);
    let there = speaker.say(kontor, "/transfers/request", &request).await["providerPid"].clone();
    let there = there.as_str().unwrap();
    let path = |suffix: &str| format!("/transfers/{there}/{suffix}");
    let reason = json!({ "consumerPid": here, "providerPid": there, "code": "7", "reason": ["a moment"] });
    kontor.wait_transfer(there, "STARTED").await;
    speaker.say(kontor, &path("suspension"), &message("TransferSuspensionMessage", reason)).await;
    kontor.wait_transfer(there, "SUSPENDED").await;
    speaker.say(kontor, &path("start"), &message("TransferStartMessage", pids(&here, there))).await;
    kontor.wait_transfer(there, "STARTED").await;
    speaker.say(kontor, &path("completion"), &message("TransferCompletionMessage", pids(&here, there))).await;
    kontor.wait_transfer(there, "COMPLETED").await;

    // Another one is asked for under other terms, offered, and ended.
    let wish = terms::offer(&terms::times(100), "urn:story:offer:fairs", dataset, &kontor.id);
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, &wish);
    let there = speaker.say(kontor, "/negotiations/request", &request).await["providerPid"].clone();
    let there = there.as_str().unwrap();
    let path = |suffix: &str| format!("/negotiations/{there}/{suffix}");
    kontor.act(there, "offer", json!({ "offer": offer })).await.ok();
    kontor.wait_negotiation(there, "OFFERED").await;
    let counter = message("ContractRequestMessage", with(pids(&here, there), "offer", wish));
    speaker.say(kontor, &path("request"), &counter).await;
    kontor.act(there, "offer", json!({ "offer": offer })).await.ok();
    kontor.wait_negotiation(there, "OFFERED").await;
    let accepted = message("ContractNegotiationEventMessage", with(pids(&here, there), "eventType", json!("ACCEPTED")));
    speaker.say(kontor, &path("events"), &accepted).await;
    kontor.wait_negotiation(there, "AGREED").await;
    let reason = json!({ "consumerPid": here, "providerPid": there, "code": "7", "reason": ["too late"] });
    speaker.say(kontor, &path("termination"), &message("ContractNegotiationTerminationMessage", reason)).await;
    let ended = kontor.wait_negotiation(there, "TERMINATED").await;
    assert_eq!(ended["ended"]["reason"], json!(["too late"]), "{ended:#}");
    assert_eq!(ended["ended"]["code"], "7", "{ended:#}");
}

async fn consumed(kontor: &Participant, speaker: &Speaker) {
    let peer = &speaker.peer;
    let dataset = "urn:story:dataset:theirs";
    let offer = terms::offer(&conditions(), "urn:story:offer:theirs", dataset, &peer.id);
    let asked = json!({ "counterparty": peer.id, "address": peer.address, "offer": offer });
    let here = id_of(&kontor.post("/negotiations", asked).await.ok());
    kontor.wait_negotiation(&here, "REQUESTED").await;
    let there = format!("{here}:there");
    let path = |suffix: &str| format!("/negotiations/{here}/{suffix}");
    let offered = message("ContractOfferMessage", with(pids(&here, &there), "offer", offer));
    speaker.say(kontor, &path("offers"), &offered).await;
    kontor.wait_negotiation(&here, "ACCEPTED").await;
    let agreement = urn();
    let document = terms::agreement(&conditions(), &agreement, dataset, &peer.id, &kontor.id);
    let agreed = message("ContractAgreementMessage", with(pids(&here, &there), "agreement", document));
    speaker.say(kontor, &path("agreement"), &agreed).await;
    kontor.wait_negotiation(&here, "VERIFIED").await;
    let event = message("ContractNegotiationEventMessage", with(pids(&here, &there), "eventType", json!("FINALIZED")));
    speaker.say(kontor, &path("events"), &event).await;
    kontor.wait_negotiation(&here, "FINALIZED").await;

    let here = kontor.transfer(&agreement, None).await;
    kontor.wait_transfer(&here, "REQUESTED").await;
    let there = format!("{here}:there");
    let path = |suffix: &str| format!("/transfers/{here}/{suffix}");
    let address = json!({
        "@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP", "endpoint": peer.address,
        "endpointProperties": [{ "@type": "EndpointProperty", "name": "authorization", "value": "t" }],
    });
    let start = message("TransferStartMessage", with(pids(&here, &there), "dataAddress", address));
    speaker.say(kontor, &path("start"), &start).await;
    kontor.wait_transfer(&here, "STARTED").await;
    speaker.say(kontor, &path("suspension"), &message("TransferSuspensionMessage", pids(&here, &there))).await;
    kontor.wait_transfer(&here, "SUSPENDED").await;
    let end = json!({ "consumerPid": here, "providerPid": there, "reason": ["enough"] });
    speaker.say(kontor, &path("termination"), &message("TransferTerminationMessage", end)).await;
    let ended = kontor.wait_transfer(&here, "TERMINATED").await;
    assert!(ended.to_string().contains("enough"), "{ended:#}");
}

#[tokio::test]
async fn a_message_without_an_identifier_can_be_meant_again() {
    let subject = Subject::start();
    let peer = crate::peer::Peer::start().await;
    let base = subject.kontor.address();
    let here = urn();
    let request = terms::transfer_request(&here, &peer.base, "ATP0303");
    let arrived = peer.expect(format!("/transfers/{here}/start"));
    let told = peer.post(&format!("{base}/transfers/request"), &request).await.unwrap();
    let there = told.body["providerPid"].as_str().unwrap().to_owned();
    arrived.body().await.unwrap();
    let suspend = message("TransferSuspensionMessage", pids(&here, &there));
    let start = message("TransferStartMessage", pids(&here, &there));
    for _ in 0..3 {
        for (path, body, state) in [("suspension", &suspend, "SUSPENDED"), ("start", &start, "STARTED")] {
            let url = format!("{base}/transfers/{there}/{path}");
            // The peer's own repetition, because our answer was lost, changes nothing.
            for _ in 0..2 {
                let told = peer.post(&url, body).await.unwrap();
                assert_eq!((told.status, &told.body["state"]), (200, &json!(state)), "{}", told.body);
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_told_of_a_process_too_early_for_its_lease_is_told_again() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let dataset = kontor.publish("fairs", &conditions()).await;
    let busy = AtomicUsize::new(0);
    let peer = space
        .fake("leasing", move |seen| {
            let leased = seen.path.ends_with("/agreement") && busy.fetch_add(1, Ordering::SeqCst) < 3;
            if leased {
                Reply::Text(409, "Entity is currently leased".to_owned())
            } else {
                Reply::ack(seen, "urn:uuid:0")
            }
        })
        .await;
    let offer = terms::offer(&conditions(), "urn:story:offer:fairs", &dataset, &kontor.id);
    let request = terms::contract_request(&urn(), &peer.address, &offer);
    let there = peer.post(&kontor, "/negotiations/request", &request).await.ok();
    let there = there["providerPid"].as_str().unwrap();
    kontor.wait_negotiation(there, "AGREED").await;
    let agreements: Vec<Recorded> = peer.seen().into_iter().filter(|seen| seen.method == "POST").collect();
    assert_eq!(agreements.len(), 4, "{agreements:#?}");
    assert!(agreements.iter().all(|seen| seen.body == agreements[0].body), "a repeated message is not the same");
}

#[tokio::test]
async fn a_peer_that_stays_busy_is_asked_where_its_side_stands() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let dataset = kontor.publish("fairs", &conditions()).await;
    let offer = terms::offer(&conditions(), "urn:story:offer:fairs", &dataset, &kontor.id);
    for (state, ends) in [("AGREED", "AGREED"), ("TERMINATED", "TERMINATED")] {
        let peer = space
            .fake(&format!("busy-{}", state.to_lowercase()), move |seen| match seen.method.as_str() {
                "GET" => Reply::Json(200, message("ContractNegotiation", json!({ "state": state }))),
                _ if seen.path.ends_with("/agreement") => Reply::Text(409, "Entity is currently leased".to_owned()),
                _ => Reply::ack(seen, "urn:uuid:0"),
            })
            .await;
        let request = terms::contract_request(&urn(), &peer.address, &offer);
        let there = peer.post(&kontor, "/negotiations/request", &request).await.ok();
        let there = there["providerPid"].as_str().unwrap();
        kontor.wait_negotiation(there, ends).await;
    }
}

#[tokio::test]
async fn what_a_peer_answers_is_the_receipt_of_what_it_failed_to_acknowledge() {
    let space = DataSpace::new();
    let kontor = space.participant_with("kontor", &Options::manual());
    let dataset = kontor.publish("fairs", &conditions()).await;
    let peer = space
        .fake("failing", |seen| match seen.path.ends_with("/agreement") {
            true => Reply::Text(503, "taken, but I cannot say so".to_owned()),
            false => Reply::ack(seen, "urn:uuid:0"),
        })
        .await;
    let offer = terms::offer(&conditions(), "urn:story:offer:fairs", &dataset, &kontor.id);
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, &offer);
    let there = peer.post(&kontor, "/negotiations/request", &request).await.ok();
    let there = there["providerPid"].as_str().unwrap();
    kontor.act(there, "agree", json!({})).await.ok();
    peer.wait_for("ContractAgreementMessage").await;
    assert_eq!(kontor.outbox().await.len(), 1, "the agreement is tried again");
    let verification = message("ContractAgreementVerificationMessage", pids(&here, there));
    let told = peer.post(&kontor, &format!("/negotiations/{there}/agreement/verification"), &verification).await.ok();
    assert_eq!(told["state"], "VERIFIED");
    assert_eq!(kontor.outbox().await, Vec::<Value>::new(), "nothing is left to say");
}

#[tokio::test]
async fn the_agreement_is_the_offer_but_for_its_type_and_parties() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let dataset = kontor.publish("fairs", &conditions()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let shown = peer.get(&kontor, &format!("/catalog/datasets/{dataset}")).await.ok();
    let mut offer = shown["hasPolicy"][0].clone();
    offer["target"] = json!(dataset);
    let request = terms::contract_request(&urn(), &peer.address, &offer);
    peer.post(&kontor, "/negotiations/request", &request).await.ok();
    let mut agreement = peer.wait_for("ContractAgreementMessage").await.body["agreement"].clone();
    assert_eq!((&agreement["assigner"], &agreement["assignee"]), (&json!(kontor.id), &json!(peer.id)));
    for (document, members) in [
        (&mut agreement, ["@id", "@type", "assignee", "target", "timestamp"]),
        (&mut offer, ["@id", "@type", "target", "", ""]),
    ] {
        for member in members {
            document.as_object_mut().unwrap().remove(member);
        }
    }
    assert_eq!(agreement, offer);
}

#[tokio::test]
async fn who_somebody_is_comes_from_the_certificate_whatever_a_header_says() {
    let space = DataSpace::new();
    let kontor = space.participant_with("kontor", &Options::manual());
    let dataset = kontor.publish("fairs", &open()).await;
    let victim = space.fake("victim", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let other = space.fake("other", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &kontor.id);
    let request = terms::contract_request(&urn(), &victim.address, &offer);
    let there = victim.post(&kontor, "/negotiations/request", &request).await.ok();
    let url = format!("{}/negotiations/{}", kontor.address(), there["providerPid"].as_str().unwrap());
    for (peer, status) in [(&victim, 200), (&other, 404)] {
        for claim in [json!({ "clientId": victim.id }).to_string(), "Bearer x".to_owned(), "nonsense".to_owned()] {
            let request = http::Request::get(&url).header("authorization", claim).body(Bytes::new()).unwrap();
            assert_eq!(peer.request(&kontor.id, request).await.unwrap().status, status, "{}", peer.id);
        }
    }
}

#[tokio::test]
async fn a_state_that_is_asked_for_waits_for_the_receipt_of_what_the_peer_already_has() {
    let space = DataSpace::new();
    let kontor = space.participant_with("kontor", &Options::manual());
    let dataset = kontor.publish("fairs", &open()).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &kontor.id);
    // The message has arrived, the receipt is on its way; or it never comes.
    for (name, late, negotiation, transfer) in
        [("slow", Some(Duration::from_millis(100)), "OFFERED", "STARTED"), ("silent", None, "REQUESTED", "REQUESTED")]
    {
        let peer = space
            .fake(name, move |seen| match (seen.path.ends_with("/offers") || seen.path.ends_with("/start"), late) {
                (true, Some(late)) => Reply::After(late, Box::new(Reply::ack(seen, "urn:uuid:0"))),
                (true, None) => Reply::Never,
                (false, _) => Reply::ack(seen, "urn:uuid:0"),
            })
            .await;
        let request = terms::contract_request(&urn(), &peer.address, &offer);
        let there = peer.post(&kontor, "/negotiations/request", &request).await.ok();
        let there = there["providerPid"].as_str().unwrap();
        kontor.act(there, "offer", json!({ "offer": offer })).await.ok();
        peer.wait_for("ContractOfferMessage").await;
        let told = peer.get(&kontor, &format!("/negotiations/{there}")).await.ok();
        assert_eq!(told["state"], negotiation, "{name}");

        let agreement = agreed(&kontor, &peer, &offer).await;
        let request = terms::transfer_request(&urn(), &peer.address, &agreement);
        let there = peer.post(&kontor, "/transfers/request", &request).await.ok();
        let there = there["providerPid"].as_str().unwrap();
        kontor.act_transfer(there, "start", json!({})).await.ok();
        peer.wait_for("TransferStartMessage").await;
        let told = peer.get(&kontor, &format!("/transfers/{there}")).await.ok();
        assert_eq!(told["state"], transfer, "{name}");
    }
}

/// An agreement in force with a peer.
async fn agreed(kontor: &Participant, peer: &FakePeer, offer: &Value) -> String {
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, offer);
    let there = peer.post(kontor, "/negotiations/request", &request).await.ok();
    let there = there["providerPid"].as_str().unwrap();
    kontor.act(there, "agree", json!({})).await.ok();
    let agreed = kontor.wait_negotiation(there, "AGREED").await;
    let verification = message("ContractAgreementVerificationMessage", pids(&here, there));
    peer.post(kontor, &format!("/negotiations/{there}/agreement/verification"), &verification).await.ok();
    kontor.act(there, "finalize", json!({})).await.ok();
    kontor.wait_negotiation(there, "FINALIZED").await;
    agreed["agreement"]["id"].as_str().unwrap().to_owned()
}

fn packed(bytes: &[u8]) -> Bytes {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap().into()
}

#[tokio::test]
async fn compressed_messages_are_read_within_the_limit() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let dataset = kontor.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &kontor.id);
    let request = terms::contract_request(&urn(), &peer.address, &offer);
    let send = async |coding: &str, body: Bytes| -> Answer {
        let request = http::Request::post(format!("{}/negotiations/request", kontor.address()))
            .header("content-type", "application/json")
            .header("content-encoding", coding);
        peer.request(&kontor.id, request.body(body).unwrap()).await.unwrap()
    };
    assert_eq!(send("gzip", packed(request.to_string().as_bytes())).await.ok()["state"], "REQUESTED");
    // 64 MiB in 64 KiB.
    let bomb = send("gzip", packed(&vec![b' '; 64 * 1024 * 1024])).await;
    assert_eq!(bomb.status, 413, "{bomb:?}");
    shape::check(&bomb.body, "ContractNegotiationError").unwrap();
    let broken = send("gzip", Bytes::from_static(b"\x1f\x8bnonsense")).await;
    assert_eq!(broken.status, 400, "{broken:?}");
    let strange = send("br", Bytes::from_static(b"nonsense")).await;
    assert_eq!(strange.status, 415, "{strange:?}");
    assert!(strange.body.to_string().contains("gzip"), "{strange:?}");
    shape::check(&strange.body, "ContractNegotiationError").unwrap();
}

#[tokio::test]
async fn a_catalogue_is_compressed_for_who_asks_for_it() {
    let subject = Subject::start();
    let http = reqwest::Client::new();
    for accepts in [None, Some("gzip")] {
        let mut request = http
            .post(format!("{}/catalog/request", subject.kontor.address()))
            .header("authorization", json!({ "clientId": KIT }).to_string())
            .body(message("CatalogRequestMessage", json!({})).to_string());
        if let Some(accepts) = accepts {
            request = request.header("accept-encoding", accepts);
        }
        let answer = request.send().await.unwrap();
        let coding = answer.headers().get("content-encoding").map(|coding| coding.to_str().unwrap().to_owned());
        assert_eq!(coding.as_deref(), accepts);
        let body = answer.bytes().await.unwrap();
        let mut text = String::new();
        match accepts {
            None => text.push_str(std::str::from_utf8(&body).unwrap()),
            Some(_) => {
                std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(body.as_ref()), &mut text).unwrap();
            }
        }
        shape::check(&serde_json::from_str(&text).unwrap(), "Catalog").unwrap();
    }
}

#[tokio::test]
async fn a_peers_catalogue_is_read_page_by_page_compressed_or_not_and_within_limits() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    let page = |from: &Recorded, ids: &[&str]| {
        let dataset = |id: &&str| json!({ "@id": id, "@type": "Dataset", "hasPolicy": [], "distribution": [] });
        let datasets: Vec<Value> = ids.iter().map(dataset).collect();
        let members = json!({ "@id": "urn:c", "participantId": from.from, "dataset": datasets });
        message("Catalog", members).to_string()
    };
    let link = |to: &str, relation: &str| ("link", format!("<{to}>; rel=\"{relation}\""));
    let provider = space
        .fake("provider", move |seen| match seen.path.as_str() {
            "/catalog/request" => {
                Reply::Raw(200, vec![link("/more?page=2", "next")], page(seen, &["urn:d:1", "urn:d:2"]).into())
            }
            "/more" => {
                let links = vec![link("/catalog/request", "previous"), link("last#end", "next")];
                Reply::Raw(200, links, page(seen, &["urn:d:3"]).into())
            }
            "/last" => {
                let headers = vec![("content-encoding", "gzip".to_owned()), link("/more?page=2", "previous")];
                Reply::Raw(200, headers, packed(page(seen, &["urn:d:4"]).as_bytes()))
            }
            "/endless/catalog/request" => Reply::Raw(200, vec![link("", "next")], page(seen, &["urn:d:1"]).into()),
            "/astray/catalog/request" => {
                Reply::Raw(200, vec![link("https://10.0.0.1/catalog", "next")], page(seen, &["urn:d:1"]).into())
            }
            "/bomb/catalog/request" => {
                let headers = vec![("content-encoding", "gzip".to_owned())];
                Reply::Raw(200, headers, packed(&vec![b' '; 64 * 1024 * 1024]))
            }
            _ => Reply::Raw(200, vec![("content-encoding", "br".to_owned())], Bytes::from_static(b"nonsense")),
        })
        .await;
    let ask = async |path: &str| {
        let asked = json!({ "counterparty": provider.id, "address": format!("{}{path}", provider.address) });
        kontor.post("/catalog/request", asked).await
    };
    let catalog = ask("").await.ok();
    let ids: Vec<&str> =
        catalog["dataset"].as_array().unwrap().iter().map(|dataset| dataset["@id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["urn:d:1", "urn:d:2", "urn:d:3", "urn:d:4"]);
    for (path, words) in
        [("/endless", "64 pages"), ("/astray", "10.0.0.1"), ("/bomb", "longer than"), ("/strange", "coding `br`")]
    {
        let refused = ask(path).await;
        assert!(refused.status >= 400 && refused.body.to_string().contains(words), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn a_large_catalogue_comes_in_pages_and_arrives_whole() {
    const DATASETS: usize = 510;
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let file = provider.write("fairs", b"fair,place\n");
    let (provider_ref, file) = (&provider, &file);
    for first in (0..DATASETS).step_by(30) {
        join_all((first..first + 30).map(|number| async move {
            let name = format!("fairs-{number}");
            let dataset = provider_ref.add_dataset(&name, file).await;
            provider_ref.add_offer(&name, &dataset, &open()).await;
        }))
        .await;
    }
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let request = message("CatalogRequestMessage", json!({}));
    let first = peer.post(&provider, "/catalog/request", &request).await.ok();
    shape::check(&first, "Catalog").unwrap();
    assert!(first["dataset"].as_array().unwrap().len() < DATASETS);
    // Page after page, and back again.
    let follow = async |address: &str| {
        let body = Bytes::from(request.to_string());
        let answer = peer.say(&provider.id, "POST", address, "application/json", body).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let opened = peer.post(&provider, "/catalog/request", &request).await;
    assert_eq!(opened.links.keys().collect::<Vec<_>>(), ["next"]);
    let second = follow(&opened.links["next"]).await;
    assert_eq!(second.links.keys().collect::<Vec<_>>(), ["previous"]);
    assert_eq!(follow(&second.links["previous"]).await.body["dataset"], first["dataset"]);
    let asked = json!({ "counterparty": provider.id, "address": provider.address() });
    let whole = consumer.post("/catalog/request", asked).await.ok();
    let mut ids: Vec<&str> =
        whole["dataset"].as_array().unwrap().iter().map(|dataset| dataset["@id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), DATASETS);
}

#[tokio::test]
async fn a_peers_error_is_shown_in_every_spelling() {
    let space = DataSpace::new();
    let kontor = space.participant("kontor");
    for spelling in SPELLINGS {
        let error = json!({ "consumerPid": "urn:c", "providerPid": "urn:p", "code": "9", "reason": ["no such fair"] });
        let error = spelling.of(&message("ContractNegotiationError", error));
        let name = format!("refusing-{spelling:?}").to_lowercase();
        let peer = space.fake(&name, move |_| Reply::Json(400, error.clone())).await;
        let offer = terms::offer(&open(), "urn:o", "urn:d", &peer.id);
        let asked = json!({ "counterparty": peer.id, "address": peer.address, "offer": offer });
        let here = id_of(&kontor.post("/negotiations", asked).await.ok());
        let shown = eventually(|| async {
            let now = kontor.negotiation(&here).await;
            now.to_string().contains("no such fair").then_some(())
        })
        .await;
        assert!(shown.is_some(), "{spelling:?}: {:#}", kontor.negotiation(&here).await);
    }
}
