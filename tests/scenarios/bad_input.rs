//! What is malformed, too large or out of turn is refused in words, and changes nothing.

use bytes::Bytes;
use kontor_tests::terms::{self, open, urn};
use kontor_tests::{DataSpace, FakePeer, Options, Participant, Reply};
use kontor_wire::client::PeerError;
use reqwest::Method;
use serde_json::{Value, json};

/// What the management API answers: the content type, and the body.
async fn managed(who: &Participant, method: Method, path: &str, body: String) -> (String, Value) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", who.management()));
    let answer = request.bearer_auth(who.token()).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
    assert_eq!(body["status"], status, "{path}: the body is no problem with its status: {body}");
    (kind, body)
}

#[tokio::test]
async fn bodies_that_are_no_messages_are_refused_with_the_member_at_fault() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let good = terms::contract_request("urn:uuid:1", &peer.address, &offer);
    let with = |name: &str, value: Value| {
        let mut message = good.clone();
        message[name] = value;
        message.to_string()
    };
    let without = |name: &str| {
        let mut message = good.clone();
        message.as_object_mut().unwrap().remove(name);
        message.to_string()
    };
    let mut untargeted = offer.clone();
    untargeted.as_object_mut().unwrap().remove("target");
    let mut anonymous = offer.clone();
    anonymous.as_object_mut().unwrap().remove("@id");
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_offer = format!("{}1{}", "{\"and\":[".repeat(10_000), "]}".repeat(10_000));
    for (body, word) in [
        (String::new(), "empty"),
        ("{".to_owned(), "not JSON"),
        ("\u{0}\u{1}\u{2}".to_owned(), "not JSON"),
        ("null".to_owned(), "not a JSON object"),
        ("[1,2]".to_owned(), "not a JSON object"),
        ("\"text\"".to_owned(), "not a JSON object"),
        (deep, "recursion limit"),
        (deep_offer, "recursion limit"),
        (with("@type", json!("ContractOfferMessage")), "ContractRequestMessage"),
        (with("@type", json!(5)), "ContractRequestMessage"),
        (without("@type"), "@type"),
        (with("consumerPid", json!({})), "consumerPid"),
        (without("consumerPid"), "consumerPid"),
        (with("consumerPid", json!("")), "consumerPid"),
        (with("offer", json!(5)), "offer"),
        (with("offer", untargeted), "target"),
        (with("offer", anonymous), "@id"),
        (without("offer"), "offer"),
        (without("callbackAddress"), "callbackAddress"),
        (with("callbackAddress", json!("nowhere")), "callbackAddress"),
        (with("providerPid", json!("urn:uuid:2")), "providerPid"),
    ] {
        let shown: String = body.chars().take(200).collect();
        let answer = peer.try_send(&provider, "POST", "/negotiations/request", Bytes::from(body)).await.unwrap();
        assert_eq!(answer.status, 400, "{shown} was answered {answer:?}");
        assert_eq!(answer.body["@type"], "ContractNegotiationError", "{shown}: {answer:?}");
        assert!(answer.body["reason"].to_string().contains(word), "{shown}: `{word}` is not in {answer:?}");
    }
    assert!(provider.list("negotiations").await.is_empty());
    // The good one still passes.
    peer.post(&provider, "/negotiations/request", &good).await.ok();
}

/// Where a peer and where an operator may send a body.
const PEERS: [&str; 3] = ["/negotiations/request", "/transfers/request", "/catalog/request"];
const OPERATORS: [&str; 6] =
    ["/datasets", "/offers", "/negotiations", "/transfers", "/catalog/request", "/policies/check"];

/// A connector that is told too much, by a peer and by its operator.
struct Told {
    space: DataSpace,
    provider: Participant,
    peer: FakePeer,
    http: reqwest::Client,
}

impl Told {
    async fn new() -> Self {
        let space = DataSpace::new();
        let provider = space.participant("provider");
        let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
        Self { space, provider, peer, http: reqwest::Client::new() }
    }

    /// What a peer is answered; `None` where the connection was closed instead.
    async fn as_peer(&self, path: &str, header: &str, body: &Bytes) -> Option<(u16, String)> {
        let request = http::Request::post(format!("{}{path}", self.provider.address()))
            .header("content-type", "application/json")
            .header("x-long", header);
        match self.peer.request(&self.provider.id, request.body(body.clone()).unwrap()).await {
            Ok(answer) => Some((answer.status, answer.body.to_string())),
            Err(PeerError::Connect { .. } | PeerError::Protocol { .. }) => None,
            Err(other) => panic!("{path}: neither an answer nor a closed connection: {other:?}"),
        }
    }

    /// What an operator is answered; `None` where the connection was closed instead.
    async fn as_operator(&self, path: &str, header: &str, body: &Bytes) -> Option<(u16, String)> {
        let request = self.http.post(format!("{}{path}", self.provider.management())).header("x-long", header);
        let request = request.bearer_auth(self.provider.token()).header("content-type", "application/json");
        match request.body(body.clone()).send().await {
            Ok(answer) => Some((answer.status().as_u16(), answer.text().await.unwrap_or_default())),
            Err(error) if error.is_request() => None,
            Err(other) => panic!("{path}: neither an answer nor a closed connection: {other:?}"),
        }
    }

    /// The connector serves whoever has a proper request, on both ports and on new connections too.
    async fn is_healthy(&self) {
        let catalog = terms::message("CatalogRequestMessage", json!({}));
        self.peer.post(&self.provider, "/catalog/request", &catalog).await.ok();
        self.provider.get("/status").await.ok();
        let other = self.space.fake("other", |seen| Reply::ack(seen, "urn:uuid:0")).await;
        other.post(&self.provider, "/catalog/request", &catalog).await.ok();
    }
}

#[tokio::test]
async fn bodies_and_headers_over_the_limit_are_refused() {
    let told = Told::new().await;
    let (nothing, just_over) = (Bytes::from("{}"), Bytes::from(format!("\"{}\"", "x".repeat(1024 * 1024))));
    let large = Bytes::from(format!("{{\"@type\":\"{}\"}}", "x".repeat(8 * 1024 * 1024)));
    let long = "x".repeat(100_000);
    // Nobody hangs up on who is still talking before the answer is there.
    for (header, body, status) in [("", &just_over, 413), ("", &large, 413), (long.as_str(), &nothing, 431)] {
        for (is_peer, path) in PEERS.map(|path| (true, path)).into_iter().chain(OPERATORS.map(|path| (false, path))) {
            let answered = match is_peer {
                true => told.as_peer(path, header, body).await,
                false => told.as_operator(path, header, body).await,
            };
            told.is_healthy().await;
            assert!(
                answered.as_ref().is_some_and(|(answer, _)| *answer == status),
                "{path}: {answered:?} and not {status}"
            );
        }
    }
}

#[tokio::test]
async fn nesting_without_end_is_refused_everywhere() {
    let told = Told::new().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"@graph\":[", "]}")] {
        let deep = Bytes::from(format!("{}1{}", open.repeat(10_000), close.repeat(10_000)));
        let inside = Bytes::from(format!("{{\"policy\":{}}}", String::from_utf8_lossy(&deep)));
        for body in [deep, inside] {
            for path in PEERS {
                let (status, text) = told.as_peer(path, "", &body).await.unwrap();
                assert!(status == 400 && text.contains("recursion limit"), "{path} {open}: {status} {text}");
            }
            for path in OPERATORS {
                // Most know no such member, and look no deeper.
                let (status, text) = told.as_operator(path, "", &body).await.unwrap();
                assert!(status == 400 && text.contains("urn:kontor:problem:"), "{path} {open}: {status} {text}");
            }
        }
    }
    told.is_healthy().await;
}

#[tokio::test]
async fn unknown_paths_ids_and_methods_are_refused_on_both_ports() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    for path in ["/negotiations/urn:uuid:1", "/transfers/urn:uuid:1", "/catalog/datasets/urn:x", "/dance"] {
        assert_eq!(peer.get(&provider, path).await.status, 404, "{path}");
    }
    let end = |kind: &str| terms::message(kind, json!({ "consumerPid": "urn:uuid:2", "providerPid": "urn:uuid:1" }));
    for (path, kind) in [
        ("/negotiations/urn:uuid:1/termination", "ContractNegotiationTerminationMessage"),
        ("/negotiations/urn:uuid:1/agreement/verification", "ContractAgreementVerificationMessage"),
        ("/transfers/urn:uuid:1/completion", "TransferCompletionMessage"),
        ("/transfers/urn:uuid:1/start", "TransferStartMessage"),
    ] {
        let answer = peer.post(&provider, path, &end(kind)).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    assert_eq!(peer.try_send(&provider, "DELETE", "/negotiations/request", Bytes::new()).await.unwrap().status, 405);
    for path in ["/negotiations/urn:uuid:1", "/agreements/urn:uuid:1", "/transfers/urn:uuid:1", "/datasets/urn:x"] {
        provider.get(path).await.refused(404, &["urn:"]);
    }
    provider.post("/agreements/urn:uuid:1/revoke", json!({ "reason": "x" })).await.refused(404, &["urn:uuid:1"]);
    provider.post("/transfers", json!({ "agreement": "urn:uuid:1" })).await.refused(404, &["urn:uuid:1"]);
}

#[tokio::test]
async fn the_management_api_names_field_and_cure() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let source = json!({ "type": "file", "path": "fairs" });
    for (path, body, word) in [
        ("/datasets", json!({ "title": "t" }), "source"),
        ("/datasets", json!({ "titel": "t", "source": source }), "titel"),
        ("/datasets", json!({ "title": 5, "source": source }), "title"),
        ("/datasets", json!({ "title": " ", "source": source }), "title"),
        ("/datasets", json!({ "id": "no iri", "title": "t", "source": source }), "id"),
        ("/datasets", json!({ "title": "t", "source": { "type": "ftp", "path": "x" } }), "source"),
        ("/datasets", json!([]), "body"),
        ("/offers", json!({ "dataset": dataset }), "policy"),
        ("/offers", json!({ "dataset": dataset, "policy": 5 }), "policy"),
        ("/negotiations", json!({ "counterparty": "urn:x:y", "address": "https://127.0.0.1:1" }), "offer"),
        ("/negotiations", json!({ "counterparty": 5, "address": "https://127.0.0.1:1" }), "counterparty"),
        ("/transfers", json!({ "sink": {} }), "sink"),
    ] {
        let (kind, answer) = managed(&provider, Method::POST, path, body.to_string()).await;
        let shown = format!("{path} {body}: {answer}");
        assert_eq!((kind.as_str(), &answer["status"]), ("application/problem+json", &json!(400)), "{shown}");
        assert!(answer["field"].as_str().is_some_and(|field| field.contains(word)), "{shown}");
        assert!(answer["title"].is_string() && answer["detail"].is_string(), "{shown}");
        assert!(answer["cure"].as_str().is_some_and(|cure| !cure.is_empty()), "{shown}");
    }
    let missing = json!({ "dataset": "urn:story:dataset:none", "policy": open() });
    provider.post("/offers", missing).await.refused(404, &["urn:story:dataset:none"]);
    let private = json!({ "counterparty": "urn:x:y", "address": "https://10.0.0.1", "dataset": "urn:d" });
    let refused = provider.post("/negotiations", private).await;
    assert!((400..500).contains(&refused.status) && refused.body.to_string().contains("10.0.0.1"), "{refused:?}");
}

#[tokio::test]
async fn every_refusal_of_the_management_port_is_a_problem_with_field_rule_and_cure() {
    let space = DataSpace::new();
    let limits = Options { extra: "[limits]\nbody_bytes_max = 10000\n".to_owned(), ..Options::default() };
    let provider = space.participant_with("provider", &limits);
    let none = String::new;
    let dataset = |id: &str, title: &str, keyword: &str| {
        let source = json!({ "type": "file", "path": "fairs" });
        json!({ "id": id, "title": title, "keywords": [keyword], "source": source }).to_string()
    };
    for (method, path, body, status, field, cure) in [
        (Method::PATCH, "/datasets", none(), 405, "method", "Allow"),
        (Method::PUT, "/status", none(), 405, "method", "Allow"),
        (Method::GET, "/dance", none(), 404, "path", "/management/v1"),
        (Method::GET, "/negotiations/%FF", none(), 400, "path", "urn:uuid"),
        (Method::GET, "/datasets?limit=x", none(), 400, "limit", "a whole number"),
        (Method::GET, "/datasets?limt=5", none(), 400, "limt", "`limit`"),
        (Method::GET, "/offers?page=2", none(), 400, "page", "`after`"),
        (Method::GET, "/policies?x=", none(), 400, "x", "`after`"),
        (Method::GET, "/negotiations?state=DANCED", none(), 400, "state", "`FINALIZED`"),
        (Method::GET, "/negotiations?stat=AGREED", none(), 400, "stat", "`state`"),
        (Method::GET, "/negotiations?role=judge", none(), 400, "role", "`provider`"),
        (Method::GET, "/negotiations/urn:uuid:1?timeout_ms=soon", none(), 400, "timeout_ms", "a whole number"),
        (Method::GET, "/transfers?state=DANCED", none(), 400, "state", "`STARTED`"),
        (Method::GET, "/transfers/urn:uuid:1?until=STARTED", none(), 400, "until", "`wait`"),
        (Method::GET, "/transfers/urn:uuid:1?wait=COMPLETE", none(), 400, "wait", "`COMPLETED`"),
        (Method::GET, "/negotiations/urn:uuid:1?wait=agreed", none(), 400, "wait", "`AGREED`"),
        (Method::POST, "/datasets", dataset("urn:x:sp ace", "Fairs", ""), 400, "id", "`urn:…`"),
        (Method::POST, "/datasets", dataset("urn:x:<i>", "Fairs", ""), 400, "id", "`urn:…`"),
        (Method::POST, "/datasets", dataset("urn:x:1", &"x".repeat(1025), ""), 400, "title", "at most 1024"),
        (Method::POST, "/datasets", dataset("urn:x:1", "Fairs", &"x".repeat(257)), 400, "keywords[0]", "at most 256"),
        (Method::GET, "/agreements?limit=-1", none(), 400, "limit", "a whole number"),
        (Method::GET, "/audit?agrement=urn:uuid:1", none(), 400, "agrement", "`agreement`"),
        (Method::GET, "/duties?states=pending", none(), 400, "states", "`state`"),
        (Method::GET, "/received?x=1", none(), 400, "x", "`limit`"),
        (Method::GET, "/catalog?pear=urn:a:b", none(), 400, "pear", "`peer`"),
        (Method::POST, "/policies/explain?uses=many", none(), 400, "uses", "a whole number"),
        (Method::POST, "/datasets", "{".to_owned(), 400, "body", "a JSON object"),
        (Method::POST, "/datasets", "{}".to_owned(), 400, "title", "`title`"),
        (Method::POST, "/datasets", " ".repeat(10_001), 413, "body", "limits.body_bytes_max"),
        (Method::POST, "/policies/check", " ".repeat(10_001), 413, "body", "limits.body_bytes_max"),
    ] {
        let (kind, answer) = managed(&provider, method.clone(), path, body).await;
        let shown = format!("{method} {path}: {answer}");
        assert_eq!((kind.as_str(), &answer["status"]), ("application/problem+json", &json!(status)), "{shown}");
        assert_eq!(answer["field"], field, "{shown}");
        assert!(answer["rule"].is_string(), "{shown}");
        assert!(answer["cure"].as_str().is_some_and(|said| said.contains(cure)), "{shown}");
    }
}

#[tokio::test]
async fn illegal_moves_of_a_peer_are_refused_with_the_state_and_change_nothing() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, &offer);
    let there = peer.post(&provider, "/negotiations/request", &request).await.ok()["providerPid"].clone();
    let there = there.as_str().unwrap();
    let agreement = terms::agreement(&open(), &urn(), &dataset, &provider.id, &peer.id);
    for (path, kind, member, value) in [
        ("request", "ContractRequestMessage", "offer", offer.clone()),
        ("offers", "ContractOfferMessage", "offer", offer.clone()),
        ("events", "ContractNegotiationEventMessage", "eventType", json!("ACCEPTED")),
        ("events", "ContractNegotiationEventMessage", "eventType", json!("FINALIZED")),
        ("agreement", "ContractAgreementMessage", "agreement", agreement),
        ("agreement/verification", "ContractAgreementVerificationMessage", "extra", json!(1)),
    ] {
        let mut message = terms::message(kind, json!({ "consumerPid": here, "providerPid": there }));
        message[member] = value;
        let answer = peer.post(&provider, &format!("/negotiations/{there}/{path}"), &message).await;
        let text = answer.refused(400, &["ContractNegotiationError"]);
        assert!(text.contains("REQUESTED") || text.contains("provider"), "{path}: {text}");
        assert_eq!(answer.body["providerPid"], there);
    }
    let nonsense = terms::message(
        "ContractNegotiationEventMessage",
        json!({ "consumerPid": here, "providerPid": there, "eventType": "DANCED" }),
    );
    peer.post(&provider, &format!("/negotiations/{there}/events"), &nonsense)
        .await
        .refused(400, &["DANCED", "ACCEPTED"]);
    // The path and the body must speak of the same process, and of the peer's own.
    for (consumer, named) in [(here.as_str(), "urn:uuid:other"), ("urn:uuid:other", there)] {
        let end = terms::message(
            "ContractNegotiationTerminationMessage",
            json!({ "consumerPid": consumer, "providerPid": named }),
        );
        let answer = peer.post(&provider, &format!("/negotiations/{there}/termination"), &end).await;
        assert!(answer.status == 400 || answer.status == 404, "{answer:?}");
    }
    assert_eq!(provider.negotiation(there).await["state"], "REQUESTED");
}

#[tokio::test]
async fn a_message_that_comes_again_changes_nothing_and_is_answered_as_before() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    let here = urn();
    let request = terms::contract_request(&here, &peer.address, &offer);
    let twins = (0..8).map(|_| peer.post(&provider, "/negotiations/request", &request));
    let answers = futures_util::future::join_all(twins).await;
    let there = answers[0].clone().ok()["providerPid"].as_str().unwrap().to_owned();
    for answer in answers {
        assert_eq!(answer.ok()["providerPid"], there, "one request became two negotiations");
    }
    peer.wait_for("ContractAgreementMessage").await;
    let pids = json!({ "consumerPid": here, "providerPid": there });
    let verification = terms::message("ContractAgreementVerificationMessage", pids.clone());
    let path = format!("/negotiations/{there}/agreement/verification");
    for _ in 0..3 {
        peer.post(&provider, &path, &verification).await.ok();
    }
    let done = provider.wait_negotiation(&there, "FINALIZED").await;
    for _ in 0..2 {
        peer.post(&provider, "/negotiations/request", &request).await.ok();
        peer.post(&provider, &path, &verification).await.ok();
    }
    assert_eq!(provider.negotiation(&there).await, done);
    assert_eq!(provider.list("negotiations").await.len(), 1);
    assert_eq!(provider.list("agreements").await.len(), 1);
    let agreements = peer.seen().iter().filter(|seen| seen.body["@type"] == "ContractAgreementMessage").count();
    assert_eq!(agreements, 1, "a repeated request set off a second agreement");
    // Other words under the same identifier are no repetition.
    let other = terms::offer(&terms::times(2), "urn:story:offer:fairs", &dataset, &provider.id);
    let answer =
        peer.post(&provider, "/negotiations/request", &terms::contract_request(&here, &peer.address, &other)).await;
    assert_eq!(answer.status, 400, "{answer:?}");

    // The same of transfers.
    let agreement = done["agreement"]["id"].as_str().unwrap();
    let request = terms::transfer_request(&urn(), &peer.address, agreement);
    let twins = (0..8).map(|_| peer.post(&provider, "/transfers/request", &request));
    for answer in futures_util::future::join_all(twins).await {
        answer.ok();
    }
    assert_eq!(provider.list("transfers").await.len(), 1);
}

#[tokio::test]
async fn an_altered_target_or_altered_terms_are_never_agreed_to() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &terms::times(1)).await;
    let other = provider.publish("secrets", &terms::times(1)).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let ask = |offer: Value| terms::contract_request(&urn(), &peer.address, &offer);
    // The offer of one dataset, aimed at another.
    let aimed = terms::offer(&terms::times(1), "urn:story:offer:fairs", &other, &provider.id);
    let answer = peer.post(&provider, "/negotiations/request", &ask(aimed)).await;
    assert!(answer.status == 400 || answer.status == 404, "{answer:?}");
    // Terms that nobody offered rest until a person decides.
    let mut permissive = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    permissive["permission"][0]["target"] = json!(other);
    for altered in [
        terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id),
        terms::offer(&terms::times(2), "urn:story:offer:fairs", &dataset, &provider.id),
        permissive,
    ] {
        let answer = peer.post(&provider, "/negotiations/request", &ask(altered)).await;
        if answer.status < 300 {
            let there = answer.body["providerPid"].as_str().unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            assert_eq!(provider.negotiation(there).await["state"], "REQUESTED");
        }
    }
    assert!(provider.list("agreements").await.is_empty());
}
