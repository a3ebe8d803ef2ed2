//! The broker through its real router, in process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use kontor_core::id::ParticipantId;
use kontor_core::peer::{Binding, VerifiedPeer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Broker, browse_router, router, router_within};
use crate::ingest::IngestLimits;
use crate::query::{Queries, QueryLimits};
use crate::registry::{LeaseLimits, Registry, now_ms};
use crate::store::Store;

const ONE: &str = "urn:example:one";
const TWO: &str = "urn:example:two";
const COUNT: &str = "SELECT (COUNT(*) AS ?n) { ?s ?p ?o }";

struct House {
    broker: Broker,
    _folder: Option<TempDir>,
}

struct Reply {
    status: StatusCode,
    kind: String,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn house_at(folder: &std::path::Path, query: QueryLimits) -> House {
    let store = Arc::new(Store::open(folder, now_ms()).unwrap());
    let lease = LeaseLimits { min: Duration::from_secs(1), ..LeaseLimits::default() };
    let ingest = IngestLimits { bytes_max: 64 * 1024, triples_max: 2000, ..IngestLimits::default() };
    let broker = Broker {
        participant: "urn:example:broker".into(),
        registry_url: "https://broker.example".into(),
        registry: Arc::new(Registry::new(Arc::clone(&store), ingest, lease)),
        queries: Arc::new(Queries::new(Arc::clone(&store), query)),
        store,
    };
    House { broker, _folder: None }
}

fn house_with(query: QueryLimits) -> House {
    let folder = tempfile::tempdir().unwrap();
    let house = house_at(folder.path(), query);
    House { _folder: Some(folder), ..house }
}

fn house() -> House {
    house_with(QueryLimits::default())
}

async fn send(router: Router, request: Request<Body>) -> Reply {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let kind = response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Reply { status, kind, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

impl House {
    async fn act(&self, who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        if !who.is_empty() {
            let participant = ParticipantId::parse(who).unwrap();
            request.extensions_mut().insert(VerifiedPeer::assert_verified(participant, Binding::Certificate([0; 32])));
        }
        send(router(self.broker.clone()), request).await
    }

    async fn put(&self, who: &str, document: &Value) -> Reply {
        let headers = [("content-type", "application/ld+json")];
        self.act(who, "PUT", "/v1/self-description", &headers, document.to_string()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.act("", "GET", path, &[], Body::empty()).await
    }

    async fn ask(&self, query: &str, accept: &str) -> Reply {
        let headers = [("content-type", "application/sparql-query"), ("accept", accept)];
        self.act("", "POST", "/sparql", &headers, query.to_owned()).await
    }

    async fn number(&self, query: &str) -> i64 {
        let reply = self.ask(query, "text/csv").await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        reply.text.lines().nth(1).unwrap().parse().unwrap()
    }
}

fn description(who: &str, titles: &[&str]) -> Value {
    let datasets = titles.iter().enumerate().map(|(index, title)| {
        json!({
            "@id": format!("{who}:dataset:{index}"), "@type": ["dcat:Dataset", "ids:Resource"],
            "dct:title": title, "dct:description": format!("all about {title}"), "dcat:keyword": ["trade", "fairs"],
            "odrl:hasPolicy": [{
                "@id": format!("{who}:offer:{index}"), "@type": ["odrl:Offer", "ids:ContractOffer"],
                "odrl:assigner": {"@id": who},
                "odrl:permission": [{"odrl:action": {"@id": "odrl:use"}, "odrl:constraint": [
                    {"odrl:leftOperand": {"@id": "odrl:dateTime"}, "odrl:operator": {"@id": "odrl:lt"},
                     "odrl:rightOperand": {"@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime"}},
                    {"odrl:or": {"@list": [
                        {"odrl:leftOperand": {"@id": "odrl:count"}, "odrl:operator": {"@id": "odrl:lteq"},
                         "odrl:rightOperand": {"@value": "5", "@type": "xsd:integer"}}]}}
                ]}]
            }],
            "dcat:distribution": [{"@type": "dcat:Distribution", "dct:format": "HttpData-PULL",
                                   "dcat:accessService": {"@id": format!("{who}#dsp")}}]
        })
    });
    json!({
        "@context": {
            "dcat": "http://www.w3.org/ns/dcat#", "dct": "http://purl.org/dc/terms/", "dspace": "https://w3id.org/dspace/2025/1/",
            "ids": "https://w3id.org/idsa/core/", "odrl": "http://www.w3.org/ns/odrl/2/", "xsd": "http://www.w3.org/2001/XMLSchema#"
        },
        "@id": format!("{who}#connector"), "@type": "ids:BaseConnector", "dct:title": format!("Kontor {who}"),
        "dspace:participantId": {"@id": who},
        "ids:hasDefaultEndpoint": {"@id": format!("{who}#endpoint"), "@type": "ids:ConnectorEndpoint",
                                   "ids:accessURL": {"@id": "https://one.example:8443/dsp"}},
        "ids:resourceCatalog": {
            "@id": format!("{who}#catalog"), "@type": ["ids:ResourceCatalog", "dcat:Catalog"], "dspace:participantId": {"@id": who},
            "dcat:service": {"@id": format!("{who}#dsp"), "@type": "dcat:DataService",
                             "dcat:endpointURL": {"@id": "https://one.example:8443/dsp"}},
            "dcat:dataset": datasets.collect::<Vec<_>>()
        }
    })
}

#[tokio::test]
async fn a_registered_description_is_found_on_every_read_path() {
    let house = house();
    let reply = house.put(ONE, &description(ONE, &["Käse fairs", "Salt"])).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    let receipt = reply.json();
    assert_eq!((&receipt["graph"], &receipt["version"], &receipt["state"]), (&json!(ONE), &json!(1), &json!("active")));
    let datasets = house.get("/v1/datasets").await.json();
    assert_eq!(datasets["total"], 2);
    assert_eq!(datasets["datasets"][0]["endpoint"], "https://one.example:8443/dsp");
    assert_eq!(datasets["datasets"][0]["participant"], ONE);
    assert_eq!(datasets["datasets"][0]["offers"], json!([format!("{ONE}:offer:0")]));
    assert_eq!(house.get("/v1/participants").await.json()["participants"][0]["datasets"], 2);
    // Without its diacritic, and as a prefix.
    assert_eq!(house.get("/v1/search?q=kas").await.json()["results"][0]["dataset"], format!("{ONE}:dataset:0"));
    let query = "PREFIX dcat: <http://www.w3.org/ns/dcat#> PREFIX dct: <http://purl.org/dc/terms/> PREFIX dspace: <https://w3id.org/dspace/2025/1/>
        SELECT (COUNT(*) AS ?n) { ?c dcat:dataset ?d ; dspace:participantId ?p ; dcat:service/dcat:endpointURL ?e . ?d dct:title ?t }";
    assert_eq!(house.number(query).await, 2);
    let own = house.act(ONE, "GET", "/v1/self-description", &[], Body::empty()).await;
    assert_eq!(own.text, description(ONE, &["Käse fairs", "Salt"]).to_string());
    let page = house.get("/v1/datasets?limit=1").await.json();
    assert_eq!(page["next"], "/v1/datasets?limit=1&offset=1");
    let again = house.put(ONE, &description(ONE, &["Salt"])).await;
    assert_eq!((again.status, &again.json()["version"]), (StatusCode::OK, &json!(2)));
    assert_eq!(house.number(query).await, 1);
    assert_eq!(house.get("/v1/search?q=kase").await.json()["total"], 0);
}

#[tokio::test]
async fn only_the_owner_changes_a_description() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    let stranger = house.act("", "PUT", "/v1/self-description", &[], "x").await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    assert!(stranger.json()["cure"].as_str().unwrap().contains("https://broker.example"));
    for method in ["PUT", "DELETE"] {
        let path = "/v1/participants/urn%3Aexample%3Aone/self-description";
        let other = house.act(TWO, method, path, &[("content-type", "text/turtle")], "").await;
        assert_eq!(
            (other.status, other.json()["type"].as_str()),
            (StatusCode::FORBIDDEN, Some("urn:kontor:problem:not-the-owner"))
        );
    }
    let claims = house.put(TWO, &description(ONE, &["Salt"])).await;
    assert_eq!(claims.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(claims.json()["violations"][0]["rule"], "SD-2");
    // Its own description, with a word about somebody else's service slipped in.
    let mut poison = description(TWO, &["Salt"]);
    poison["ids:resourceCatalog"]["dcat:service"] = json!([
        poison["ids:resourceCatalog"]["dcat:service"],
        {"@id": format!("{ONE}#dsp"), "dcat:endpointURL": {"@id": "https://evil.example/"}}
    ]);
    let reply = house.put(TWO, &poison).await;
    assert_eq!((reply.status, &reply.json()["field"]), (StatusCode::CONFLICT, &json!(format!("{ONE}#dsp"))));
    assert_eq!(house.get("/v1/participants").await.json()["total"], 1);
}

/// Words about a participant that comes later do not stay beside its own, whether or not they were linked to anything.
#[tokio::test]
async fn words_about_a_later_participant_go_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let house = house_at(folder.path(), QueryLimits::default());
    let mut early = description(TWO, &["Salt", "Salt of one"]);
    early["@included"] = json!([
        {"@id": format!("{ONE}#endpoint"), "ids:accessURL": {"@id": "https://evil.example/"}},
        {"@id": "https://shared.example/data", "dct:title": "evil"}
    ]);
    // A dataset under the other's name, which would be a claim of it.
    early["ids:resourceCatalog"]["dcat:dataset"][1]["@id"] = json!(format!("{ONE}#connector"));
    assert_eq!(house.put(TWO, &early).await.status, StatusCode::CREATED);
    assert_eq!(house.get("/v1/datasets").await.json()["total"], 2);
    let evil = "SELECT (COUNT(*) AS ?n) { ?s ?p ?o FILTER(CONTAINS(STR(?o), 'evil')) }";
    assert_eq!(house.number(evil).await, 2);

    // What extends nobody's name was spoken of by the other first, and stays as it is.
    let mut own = description(ONE, &["Salt"]);
    own["ids:resourceCatalog"]["dcat:dataset"][0]["@id"] = json!("https://shared.example/data");
    assert_eq!(house.put(ONE, &own).await.status, StatusCode::CONFLICT);
    assert_eq!(house.number(evil).await, 2);
    let reply = house.put(ONE, &description(ONE, &["Salt"])).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    let urls = format!("SELECT (COUNT(*) AS ?n) {{ <{ONE}#endpoint> <https://w3id.org/idsa/core/accessURL> ?u }}");
    let squat = format!("SELECT (COUNT(*) AS ?n) {{ <{ONE}#connector> a <http://www.w3.org/ns/dcat#Dataset> }}");
    let seen = async |house: &House| {
        assert_eq!((house.number(evil).await, house.number(&urls).await, house.number(&squat).await), (1, 1, 0));
        assert_eq!(house.get("/v1/datasets").await.json()["total"], 2, "one of each");
        assert_eq!(house.get("/v1/search?q=one").await.json()["results"][0]["participant"], ONE);
    };
    seen(&house).await;
    let again = house.put(TWO, &early).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    assert!(again.json()["detail"].as_str().unwrap().contains(ONE), "{}", again.text);
    drop(house);
    let mut house = Store::open(folder.path(), now_ms());
    while house.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        house = Store::open(folder.path(), now_ms());
    }
    drop(house);
    let house = house_at(folder.path(), QueryLimits::default());
    seen(&house).await;
    let renewed = house.act(TWO, "POST", "/v1/self-description/renewal", &[], Body::empty()).await;
    assert_eq!(renewed.status, StatusCode::OK);
    seen(&house).await;
}

#[tokio::test]
async fn nobody_claims_what_extends_the_name_of_another() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    for squat in [format!("{ONE}#new"), format!("{ONE}/new"), format!("{ONE}:new"), ONE.to_owned()] {
        for pointer in ["@id", "odrl:hasPolicy/0/@id"] {
            let mut document = description(TWO, &["Salt"]);
            *document.pointer_mut(&format!("/ids:resourceCatalog/dcat:dataset/0/{pointer}")).unwrap() = json!(squat);
            let reply = house.put(TWO, &document).await;
            assert_eq!((reply.status, &reply.json()["field"]), (StatusCode::CONFLICT, &json!(squat)), "{}", reply.text);
        }
    }
    // A longer name is another name, and a participant's own, where it is one.
    for who in ["urn:example:one2", "urn:example:one:branch", "urn:example"] {
        let reply = house.put(who, &description(who, &["Salt"])).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{who}: {}", reply.text);
    }
    assert_eq!(house.put(ONE, &description(ONE, &["Salt"])).await.status, StatusCode::OK);
    // An endpoint that is only pointed at is a claim as well.
    let mut pointing = description(TWO, &["Salt"]);
    pointing["ids:hasDefaultEndpoint"] = json!({"@id": format!("{ONE}#endpoint")});
    assert_eq!(house.put(TWO, &pointing).await.status, StatusCode::CONFLICT);
}

/// A claim hides what others say about a node: rules, constraints and whatever else a description is made of.
#[tokio::test]
async fn nobody_claims_what_is_part_of_another_description() {
    let house = house();
    let rule = "https://data.one.example/rules/1";
    let mut first = description(ONE, &["Salt"]);
    first["ids:resourceCatalog"]["dcat:dataset"][0]["odrl:hasPolicy"][0]["odrl:permission"][0]["@id"] = json!(rule);
    first["@included"] = json!([{"@id": "odrl:use", "dct:title": "use"}]);
    assert_eq!(house.put(ONE, &first).await.status, StatusCode::CREATED);
    let words = format!("SELECT (COUNT(*) AS ?n) {{ <{rule}> ?p ?o }}");
    let all = house.number(&words).await;
    assert!(all > 2, "{all}");
    for pointer in ["@id", "odrl:hasPolicy/0/@id", "dcat:distribution/0/@id"] {
        let squatting = |iri: &str| {
            let mut document = description(TWO, &["Salt"]);
            let (node, member) = format!("/ids:resourceCatalog/dcat:dataset/0/{pointer}")
                .rsplit_once('/')
                .map(|(node, member)| (node.to_owned(), member.to_owned()))
                .unwrap();
            document.pointer_mut(&node).unwrap()[member] = json!(iri);
            document
        };
        let reply = house.put(TWO, &squatting(rule)).await;
        assert_eq!((reply.status, &reply.json()["field"]), (StatusCode::CONFLICT, &json!(rule)), "{}", reply.text);
        for term in ["http://www.w3.org/ns/odrl/2/use", "http://purl.org/dc/terms/title", "http://www.w3.org/ns/dcat"] {
            let reply = house.put(TWO, &squatting(term)).await;
            assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.text);
            assert_eq!(reply.json()["title"], "vocabulary term");
        }
    }
    assert_eq!(house.number(&words).await, all);
    assert_eq!(house.put(ONE, &first).await.status, StatusCode::OK);
    // Speaking of what everybody may speak of is no claim of it.
    let mut second = description(TWO, &["Salt"]);
    second["@included"] = first["@included"].clone();
    assert_eq!(house.put(TWO, &second).await.status, StatusCode::CREATED);
    // What was claimed stays claimed when it is registered again.
    let mut third = description("urn:example:three", &["Salt"]);
    third["ids:resourceCatalog"]["dcat:dataset"][0]["@id"] = json!("https://three.example/data");
    for status in [StatusCode::CREATED, StatusCode::OK] {
        assert_eq!(house.put("urn:example:three", &third).await.status, status);
    }
}

#[tokio::test]
async fn a_withdrawn_description_is_gone_and_its_names_stay_taken() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    for _ in 0..2 {
        let reply = house.act(ONE, "DELETE", "/v1/self-description", &[], Body::empty()).await;
        assert_eq!((reply.status, &reply.json()["state"]), (StatusCode::OK, &json!("withdrawn")));
    }
    assert_eq!(house.number(COUNT).await, 0);
    assert_eq!(house.get("/v1/search?q=salt").await.json()["total"], 0);
    assert_eq!(house.act(ONE, "GET", "/v1/self-description", &[], Body::empty()).await.status, StatusCode::GONE);
    let renewed = house.act(ONE, "POST", "/v1/self-description/renewal", &[], Body::empty()).await;
    assert_eq!(renewed.status, StatusCode::CONFLICT);
    let never = house.act(TWO, "POST", "/v1/self-description/renewal", &[], Body::empty()).await;
    assert_eq!(never.status, StatusCode::NOT_FOUND);
    let mut squatter = description(TWO, &["Salt"]);
    squatter["ids:resourceCatalog"]["dcat:dataset"][0]["@id"] = json!(format!("{ONE}:dataset:0"));
    assert_eq!(house.put(TWO, &squatter).await.status, StatusCode::CONFLICT);
    assert_eq!(house.put(ONE, &description(ONE, &["Salt"])).await.json()["version"], 2);
}

#[tokio::test]
async fn a_lease_that_ends_leaves_every_read_path() {
    let house = house();
    let registry = Arc::clone(&house.broker.registry);
    let shutdown = CancellationToken::new();
    let timer = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { registry.expire_forever(shutdown).await }
    });
    let headers = [("content-type", "application/ld+json"), ("lease-seconds", "3")];
    let start = Instant::now();
    house.act(ONE, "PUT", "/v1/self-description", &headers, description(ONE, &["Salt"]).to_string()).await;
    assert!(house.number(COUNT).await > 0);
    while house.number(COUNT).await > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(2900));
    assert_eq!(house.get("/v1/datasets").await.json()["total"], 0);
    // A renewal brings it back without sending it again.
    let renewal = [("lease-seconds", "60")];
    let reply = house.act(ONE, "POST", "/v1/self-description/renewal", &renewal, Body::empty()).await;
    assert_eq!((reply.status, &reply.json()["state"]), (StatusCode::OK, &json!("active")));
    assert!(house.number(COUNT).await > 0);
    assert_eq!(house.get("/v1/datasets").await.json()["total"], 1);
    shutdown.cancel();
    timer.await.unwrap();
}

#[tokio::test]
async fn the_view_is_rebuilt_from_the_documents() {
    let folder = tempfile::tempdir().unwrap();
    let first = house_at(folder.path(), QueryLimits::default());
    first.put(ONE, &description(ONE, &["Salt", "Herring"])).await;
    first.put(TWO, &description(TWO, &["Wax"])).await;
    let (count, list) = (first.number(COUNT).await, first.get("/v1/datasets").await.text);
    drop(first);
    // The thread of the last query lets go of the store a moment after its answer.
    while Store::open(folder.path(), now_ms()).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = house_at(folder.path(), QueryLimits::default());
    assert_eq!((second.number(COUNT).await, second.get("/v1/datasets").await.text), (count, list));
}

#[tokio::test]
async fn a_second_broker_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = house_at(folder.path(), QueryLimits::default());
    let error = Store::open(folder.path(), now_ms()).err().unwrap().to_string();
    assert!(error.contains("in use by another kontor-broker"), "{error}");
}

#[tokio::test]
async fn a_query_sees_the_old_description_or_the_new_one() {
    let house = Arc::new(house());
    house.put(ONE, &description(ONE, &["even", "even", "even"])).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (house, done) = (Arc::clone(&house), Arc::clone(&done));
        async move {
            let query = "SELECT (COUNT(?d) AS ?all) (COUNT(DISTINCT ?t) AS ?kinds) { ?c <http://www.w3.org/ns/dcat#dataset> ?d . ?d <http://purl.org/dc/terms/title> ?t }";
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) || seen < 20 {
                let reply = house.ask(query, "text/csv").await;
                assert_eq!(reply.text.lines().nth(1), Some("3,1"), "{}", reply.text);
                seen += 1;
            }
        }
    });
    for round in 0..40 {
        let title = if round % 2 == 0 { "odd" } else { "even" };
        assert_eq!(house.put(ONE, &description(ONE, &[title; 3])).await.status, StatusCode::OK);
    }
    done.store(true, Ordering::Relaxed);
    reader.await.unwrap();
}

#[tokio::test]
async fn a_triple_of_two_participants_counts_once() {
    let house = house();
    for who in [ONE, TWO] {
        let mut document = description(who, &["Salt"]);
        document["dct:publisher"] = json!({"@id": "https://hanse.example/", "dct:title": "The Hanse"});
        assert_eq!(house.put(who, &document).await.status, StatusCode::CREATED);
    }
    let all = "SELECT (COUNT(*) AS ?n) { <https://hanse.example/> ?p ?o }";
    assert_eq!(house.number(all).await, 1);
    let graphs = "SELECT (COUNT(*) AS ?n) { GRAPH ?g { <https://hanse.example/> ?p ?o } }";
    assert_eq!(house.number(graphs).await, 2);
    // It goes with the last of them, not with the first.
    house.act(ONE, "DELETE", "/v1/self-description", &[], Body::empty()).await;
    assert_eq!(house.number(all).await, 1);
    house.act(TWO, "DELETE", "/v1/self-description", &[], Body::empty()).await;
    assert_eq!(house.number(COUNT).await, 0);
}

#[tokio::test]
async fn bad_descriptions_are_reported_and_leave_nothing() {
    let house = house();
    let turtle = [("content-type", "text/turtle")];
    let reply = house.act(ONE, "PUT", "/v1/self-description", &turtle, "<urn:a> <urn:b> .\n").await;
    assert_eq!((reply.status, &reply.json()["line"]), (StatusCode::BAD_REQUEST, &json!(1)), "{}", reply.text);
    assert_eq!(reply.kind, "application/problem+json");
    let no_iri = "@prefix p: <urn:p#> . p:a\u{e0001} <urn:b> <urn:c> .";
    let reply = house.act(ONE, "PUT", "/v1/self-description", &turtle, no_iri).await;
    assert_eq!((reply.status, &reply.json()["title"]), (StatusCode::BAD_REQUEST, &json!("not rdf")), "{}", reply.text);
    let json = [("content-type", "application/ld+json")];
    let reply = house.act(ONE, "PUT", "/v1/self-description", &json, "{\n \"a\" 1}").await;
    assert_eq!((reply.status, &reply.json()["line"]), (StatusCode::BAD_REQUEST, &json!(2)));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let reply = house.act(ONE, "PUT", "/v1/self-description", &json, deep).await;
    assert_eq!((reply.status, &reply.json()["rule"]), (StatusCode::BAD_REQUEST, &json!("limits.nesting")));
    let reply = house.act(ONE, "PUT", "/v1/self-description", &json, " ".repeat(70_000)).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    let many: String = (0..2001).map(|n| format!("<urn:a> <urn:b> {n} .\n")).collect();
    let reply = house.act(ONE, "PUT", "/v1/self-description", &turtle, many).await;
    assert_eq!(
        (reply.status, &reply.json()["rule"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("limits.description_triples"))
    );
    let long = format!("@prefix x: <urn:{}> .\n{}", "x".repeat(20_000), "x:a x:b x:c , x:d, x:e, x:f .\n".repeat(500));
    let reply = house.act(ONE, "PUT", "/v1/self-description", &turtle, long).await;
    assert_eq!(
        (reply.status, &reply.json()["rule"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("limits.expanded_bytes")),
        "{}",
        reply.text
    );
    let mut remote = description(ONE, &[]);
    remote["@context"] = json!("https://w3id.org/dspace/2025/1/context.jsonld");
    let reply = house.put(ONE, &remote).await;
    assert_eq!((reply.status, &reply.json()["field"]), (StatusCode::BAD_REQUEST, &json!("$.@context")));
    let reply = house.act(ONE, "PUT", "/v1/self-description", &[("content-type", "text/html")], "").await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let lease = [("content-type", "application/ld+json"), ("lease-seconds", "999999999")];
    let reply = house.act(ONE, "PUT", "/v1/self-description", &lease, description(ONE, &[]).to_string()).await;
    assert_eq!((reply.status, &reply.json()["field"]), (StatusCode::BAD_REQUEST, &json!("Lease-Seconds")));
    assert_eq!(house.number(COUNT).await, 0);
    assert_eq!(house.act(ONE, "GET", "/v1/self-description", &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
}

/// A page has an end, whatever its entries are; the next one begins there.
#[tokio::test]
async fn a_page_of_long_entries_is_short_and_goes_on() {
    let mut house = house();
    let ingest = IngestLimits { bytes_max: 8 << 20, ..IngestLimits::default() };
    house.broker.registry = Arc::new(Registry::new(Arc::clone(&house.broker.store), ingest, LeaseLimits::default()));
    let mut long = description(ONE, &["Salt"; 7]);
    let datasets = long["ids:resourceCatalog"]["dcat:dataset"].as_array_mut().unwrap();
    datasets.iter_mut().for_each(|dataset| dataset["dct:description"] = json!("salt ".repeat(200_000)));
    let reply = house.put(ONE, &long).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    for (path, name) in [("/v1/datasets?limit=1000", "datasets"), ("/v1/search?q=salt&limit=1000", "results")] {
        let (mut path, mut seen) = (path.to_owned(), Vec::new());
        loop {
            let reply = house.get(&path).await;
            assert!(reply.text.len() < 5 << 20, "{} bytes", reply.text.len());
            let page = reply.json();
            seen.extend(page[name].as_array().unwrap().iter().map(|item| item["dataset"].clone()));
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        let whole = seen.len();
        seen.sort_by_key(Value::to_string);
        seen.dedup();
        assert_eq!((whole, seen.len()), (7, 7), "{name}");
    }
}

#[tokio::test]
async fn every_rule_of_the_shape_refuses_with_its_path() {
    let house = house();
    let dataset = "/ids:resourceCatalog/dcat:dataset/0";
    for (rule, pointer, value) in [
        ("SD-1", "/@type", json!("ids:ConnectorEndpoint")),
        ("SD-2", "/dspace:participantId/@id", json!(TWO)),
        ("SD-3", "/ids:hasDefaultEndpoint/ids:accessURL/@id", json!("http://one.example/")),
        ("SD-4", "/ids:resourceCatalog/@type", json!("ids:Nothing")),
        ("SD-5", &format!("{dataset}/@type"), json!("ids:Nothing")),
        ("SD-6", &format!("{dataset}/dct:title"), json!(" ")),
        ("SD-7", &format!("{dataset}/odrl:hasPolicy"), json!([])),
        ("SD-8", &format!("{dataset}/odrl:hasPolicy/0/odrl:permission/0/odrl:action"), json!([])),
        ("SD-8", &format!("{dataset}/odrl:hasPolicy/0/odrl:permission/0/odrl:constraint/0/odrl:operator"), json!([])),
        (
            "SD-8",
            &format!("{dataset}/odrl:hasPolicy/0/odrl:permission/0/odrl:constraint/1/odrl:or/@list/0/odrl:leftOperand"),
            json!([]),
        ),
        ("SD-9", &format!("{dataset}/dcat:distribution"), json!([])),
        ("SD-9", &format!("{dataset}/dcat:distribution/0/dct:format"), json!([])),
    ] {
        let mut document = description(ONE, &["Salt"]);
        *document.pointer_mut(pointer).unwrap() = value;
        let reply = house.put(ONE, &document).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{rule} {pointer}: {}", reply.text);
        let violations = reply.json()["violations"].clone();
        assert!(violations.as_array().unwrap().iter().any(|one| one["rule"] == rule), "{rule} {pointer}: {violations}");
    }
    assert_eq!(house.number(COUNT).await, 0);
    assert_eq!(house.put(ONE, &description(ONE, &[])).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn sparql_answers_in_the_standard_formats() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    let select = "SELECT ?t { ?d <http://purl.org/dc/terms/title> ?t } LIMIT 1";
    for (accept, kind) in [
        ("*/*", "application/sparql-results+json"),
        ("application/sparql-results+xml", "application/sparql-results+xml"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/tab-separated-values;q=0.9, text/csv;q=0.1", "text/tab-separated-values; charset=utf-8"),
    ] {
        let reply = house.ask(select, accept).await;
        assert_eq!((reply.status, reply.kind.as_str()), (StatusCode::OK, kind), "{}", reply.text);
        assert_eq!(house.ask("ASK { ?s ?p ?o }", accept).await.status, StatusCode::OK);
    }
    for (accept, kind) in [
        ("*/*", "text/turtle; charset=utf-8"),
        ("application/n-triples", "application/n-triples"),
        ("application/ld+json", "application/ld+json"),
    ] {
        for query in ["CONSTRUCT { ?s ?p ?o } WHERE { ?s ?p ?o }".to_owned(), format!("DESCRIBE <{ONE}:dataset:0>")] {
            let reply = house.ask(&query, accept).await;
            assert_eq!((reply.status, reply.kind.as_str()), (StatusCode::OK, kind), "{}", reply.text);
            assert!(reply.text.contains("Salt"));
        }
    }
    assert_eq!(house.ask(select, "image/png").await.status, StatusCode::NOT_ACCEPTABLE);
    let got = house.get("/sparql?query=ASK%20%7B%20%3Fs%20%3Fp%20%3Fo%20%7D").await;
    assert_eq!(got.json()["boolean"], true);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = "query=ASK%20%7B%20%3Fs%20%3Fp%20%3Fo%20%7D&default-graph-uri=urn:example:nobody";
    assert_eq!(house.act("", "POST", "/sparql", &form, body).await.json()["boolean"], false);
}

#[tokio::test]
async fn sparql_refuses_what_it_does_not_do() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    for (query, status, kind) in [
        ("INSERT DATA { <urn:a> <urn:b> <urn:c> }", StatusCode::FORBIDDEN, "read-only"),
        ("LOAD <http://evil.example/>", StatusCode::FORBIDDEN, "read-only"),
        ("SELECT * { SERVICE SILENT <http://evil.example/> { ?s ?p ?o } }", StatusCode::FORBIDDEN, "no-federation"),
        ("SELECT * {", StatusCode::BAD_REQUEST, "not-sparql"),
    ] {
        let reply = house.ask(query, "*/*").await;
        assert_eq!(
            (reply.status, reply.json()["type"].as_str().unwrap()),
            (status, format!("urn:kontor:problem:{kind}").as_str())
        );
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(house.act("", "POST", "/sparql", &form, "update=CLEAR%20ALL").await.status, StatusCode::FORBIDDEN);
    let update = [("content-type", "application/sparql-update")];
    assert_eq!(house.act("", "POST", "/sparql", &update, "CLEAR ALL").await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.get("/sparql").await.status, StatusCode::BAD_REQUEST);
    assert!(house.number(COUNT).await > 0);
}

#[tokio::test]
async fn sparql_limits_refuse_and_never_cut() {
    let ample = Duration::from_secs(600);
    for (query, rule, time_max) in [
        ("SELECT ?p { ?s ?p ?o }", "limits.query_rows", ample),
        ("SELECT * { ?s ?p ?o } LIMIT 5", "limits.query_bytes", ample),
        (
            "SELECT (COUNT(*) AS ?n) { ?a ?b ?c . FILTER EXISTS { ?d ?e ?f . ?g ?h ?i . FILTER(?f = <urn:x>) } }",
            "limits.query_ms",
            Duration::from_millis(200),
        ),
    ] {
        let house = house_with(QueryLimits {
            rows_max: 5,
            answer_bytes_max: 600,
            time_max,
            concurrent_max: 1,
            held_values_max: usize::MAX,
            ..QueryLimits::default()
        });
        house.put(ONE, &description(ONE, &["Salt"; 20])).await;
        let reply = house.ask(query, "*/*").await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", reply.text);
        assert_eq!(reply.json()["rule"], rule);
    }
}

#[tokio::test]
async fn a_query_beyond_the_places_is_told_to_come_back() {
    let limits = QueryLimits {
        time_max: Duration::from_millis(300),
        concurrent_max: 1,
        held_values_max: usize::MAX,
        ..QueryLimits::default()
    };
    let house = Arc::new(house_with(limits));
    house.put(ONE, &description(ONE, &["Salt"; 20])).await;
    let slow = "SELECT (COUNT(*) AS ?n) { ?a ?b ?c . FILTER EXISTS { ?d ?e ?f . ?g ?h ?i . FILTER(?f = <urn:x>) } }";
    let (first, second) = tokio::join!(house.ask(slow, "*/*"), house.ask("ASK {}", "*/*"));
    assert_eq!((first.status, second.status), (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::SERVICE_UNAVAILABLE));
}

/// Queries that read no triple must see as well that they should end: their places are wanted.
#[tokio::test]
async fn queries_that_only_combine_end_and_give_their_places_back() {
    let ones = |variable: &str| format!("VALUES ?{variable} {{ {} }} ", "1 ".repeat(200));
    let many = ones("x").repeat(10);
    let pairs = format!("VALUES (?x ?y) {{ {} }} ", "(1 UNDEF) (UNDEF 2) ".repeat(40)).repeat(10);
    let nested = format!("{{ SELECT ?x {{ {} }} }} ", ones("x"));
    for (holds, query) in [
        (false, format!("SELECT (COUNT(*) AS ?n) {{ {many} }}")),
        (false, format!("SELECT (COUNT(*) AS ?n) {{ {many} FILTER(COALESCE(?none, ?x) = 2) }}")),
        (true, format!("SELECT (COUNT(*) AS ?n) {{ {pairs} }}")),
        (true, format!("SELECT (COUNT(*) AS ?n) {{ {} }}", nested.repeat(5))),
        (
            false,
            format!(
                "SELECT (COUNT(*) AS ?n) {{ {many} OPTIONAL {{ VALUES ?x {{ 2 3 }} }} MINUS {{ VALUES ?x {{ 3 }} }} }}"
            ),
        ),
        (false, format!("ASK {{ {} FILTER NOT EXISTS {{ {many} FILTER(COALESCE(?none, ?x) = 2) }} }}", ones("x"))),
    ] {
        let time_max = Duration::from_millis(100);
        let house = house_with(QueryLimits { time_max, ..QueryLimits::default() });
        house.put(ONE, &description(ONE, &["Salt"])).await;
        let replies = tokio::join!(
            house.ask(&query, "*/*"),
            house.ask(&query, "*/*"),
            house.ask(&query, "*/*"),
            house.ask(&query, "*/*")
        );
        let name: String = query.chars().take(60).collect();
        for reply in [replies.0, replies.1, replies.2, replies.3] {
            assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {}", reply.text);
            let rule = reply.json()["rule"].as_str().unwrap().to_owned();
            assert!(rule == "limits.query_ms" || (holds && rule == "limits.query_held_values"), "{name}: {rule}");
        }
        let start = Instant::now();
        let places = house.broker.queries.limits().concurrent_max;
        loop {
            let free = tokio::join!(
                house.ask("ASK {}", "*/*"),
                house.ask("ASK {}", "*/*"),
                house.ask("ASK {}", "*/*"),
                house.ask("ASK {}", "*/*")
            );
            let free = [free.0, free.1, free.2, free.3].iter().filter(|reply| reply.status == StatusCode::OK).count();
            if free == places {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{name}: {free} of {places} places are free");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Whatever fits the text and nesting limits must not end the query's stack.
#[tokio::test]
async fn long_and_deep_queries_do_not_end_the_stack() {
    let house = house_with(QueryLimits { time_max: Duration::from_secs(1), ..QueryLimits::default() });
    let many = |part: &str| part.repeat(15_000 / part.len());
    for query in [
        format!("ASK {{ FILTER(true{}) }}", many("||true")),
        format!("ASK {{ FILTER({}true) }}", many("!")),
        format!("ASK {{ FILTER(1{} = 1) }}", many("+1")),
        format!("ASK {{ {{}}{} }}", many("UNION{}")),
        format!("ASK {{ {} }}", many("OPTIONAL{}")),
        format!("ASK {{ {} }}", many("MINUS{}")),
        format!("ASK {{ ?a <urn:p>{} ?b }}", "/<urn:p>".repeat(120)),
        format!("ASK {{ {} }}", "OPTIONAL{}".repeat(120)),
        format!("ASK {{ {{}}{} }}", "UNION{}".repeat(120)),
        format!("ASK {{ {} }}", "?a ?b ?c. ".repeat(120)),
        format!("ASK {{ FILTER({}true{}) }}", "(".repeat(20), ")".repeat(20)),
        format!("ASK {{ {}{} }}", "{".repeat(22), "}".repeat(22)),
    ] {
        let reply = house.ask(&query, "*/*").await;
        let name: String = query.chars().take(40).collect();
        assert!(matches!(reply.status.as_u16(), 200 | 400 | 422), "{name}: {}", reply.text);
    }
}

/// The highest memory that this process ever used, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or_default() * 1024
}

#[tokio::test]
async fn what_a_query_makes_and_holds_is_bounded() {
    let limits = QueryLimits { made_bytes_max: 1 << 20, held_values_max: 20_000, ..QueryLimits::default() };
    let house = house_with(limits);
    house.put(ONE, &description(ONE, &["Salt"; 20])).await;
    let before = peak_memory();
    let doubled = |step: &str| {
        let steps: String =
            (0..28).map(|n| format!("BIND({} AS ?v{}) ", step.replace('?', &format!("?v{n}")), n + 1)).collect();
        format!("SELECT (STRLEN(?v28) AS ?n) {{ BIND('0123456789' AS ?v0) {steps} }}")
    };
    let product = "?a ?b ?c . ?d ?e ?f . ?g ?h ?i";
    for (query, rule) in [
        (doubled("CONCAT(?, ?)"), "limits.query_made_bytes"),
        (doubled("CONCAT(?, '', ?, ?, 'x')"), "limits.query_made_bytes"),
        (doubled("REPLACE(?, '.', '$0$0')"), "`REPLACE`"),
        (doubled("ENCODE_FOR_URI(CONCAT(?, ?))"), "limits.query_made_bytes"),
        (
            format!("SELECT (GROUP_CONCAT(?c; separator='{}') AS ?n) {{ ?a ?b ?c }}", "-".repeat(5000)),
            "limits.query_made_bytes",
        ),
        (format!("SELECT (GROUP_CONCAT(?c) AS ?n) {{ {product} }} GROUP BY ?a"), "limits.query_"),
        // The type of a text is text as well.
        (
            format!(
                "SELECT (COUNT(?w) AS ?n) {{ ?a ?b ?c BIND(STRDT('x', IRI(CONCAT('urn:{}', STR(?c)))) AS ?w) }}",
                "-".repeat(15_000)
            ),
            "limits.query_made_bytes",
        ),
        (
            "SELECT (COUNT(*) AS ?n) { { SELECT REDUCED ?a ?b ?c ?d { ?a a ?t . ?b a ?t . ?c a ?t . ?d a ?t } } }"
                .into(),
            "limits.query_held_values",
        ),
        (format!("SELECT * {{ {product} }} ORDER BY ?a LIMIT 1"), "limits.query_held_values"),
        (format!("SELECT DISTINCT ?c ?f ?i {{ {product} }}"), "limits.query_held_values"),
        (format!("SELECT (COUNT(*) AS ?n) {{ {product} }}"), "limits.query_held_values"),
        (format!("SELECT (COUNT(*) AS ?n) {{ ?x ?y ?z MINUS {{ {product} }} }}"), "limits.query_held_values"),
        (format!("ASK {{ ?x ?y ?z OPTIONAL {{ {product} }} FILTER(?i = 1) }}"), "limits.query_held_values"),
        (format!("SELECT (COUNT(DISTINCT *) AS ?n) {{ {product} }}"), "limits.query_held_values"),
        (
            format!("SELECT (COUNT(*) AS ?n) {{ {{ SELECT DISTINCT ?a ?d ?g {{ {product} }} }} }}"),
            "limits.query_held_values",
        ),
        (format!("SELECT * {{ {} }} ORDER BY RAND()", "{{} UNION {}} ".repeat(20)), "limits.query_held_values"),
        (
            "ASK { FILTER EXISTS { { SELECT * { ?a ?b ?c . ?d ?e ?f OPTIONAL { ?g ?h ?i } } ORDER BY ?i } } }".into(),
            "limits.query_held_values",
        ),
    ] {
        let reply = house.ask(&query, "text/csv").await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", reply.text);
        assert!(reply.json()["rule"].as_str().unwrap().starts_with(rule), "{query}: {}", reply.text);
    }
    // Linux says how much it was; elsewhere the refusals have to do.
    assert!(peak_memory().saturating_sub(before) < 512 << 20, "{} bytes more", peak_memory() - before);
}

#[tokio::test]
async fn bounded_functions_mean_what_they_meant() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt", "Amber"])).await;
    for (expression, answer) in [
        ("CONCAT()", "\"\""),
        ("CONCAT('a')", "\"a\""),
        ("CONCAT('a', 'b', 'c', 'd', 'e')", "\"abcde\""),
        ("CONCAT('a'@en, 'b'@en, 'c'@en)", "\"abc\"@en"),
        ("CONCAT('a'@en, 'b'@en, 'c'@de)", "\"abc\""),
        ("CONCAT('a'@en, 'b')", "\"ab\""),
        ("CONCAT('a', 1)", ""),
        ("REPLACE('abcb'@en, 'B', '[$0]', 'i')", "\"a[b]c[b]\"@en"),
        ("UCASE('straße'@de)", "\"STRASSE\"@de"),
        ("ENCODE_FOR_URI('ä b')", "\"%C3%A4%20b\""),
        ("1 + 1.5", "2.5"),
        ("IF(true, 'x', 1/0)", "\"x\""),
    ] {
        let reply = house.ask(&format!("SELECT ({expression} AS ?v) {{}}"), "text/tab-separated-values").await;
        assert_eq!(reply.text.lines().nth(1), Some(answer), "{expression}: {}", reply.text);
    }
    let titles = "SELECT (GROUP_CONCAT(?t; separator='+') AS ?all) {
        { SELECT DISTINCT ?t { ?d <http://www.w3.org/ns/dcat#distribution> ?x ; <http://purl.org/dc/terms/title> ?t } ORDER BY LCASE(?t) } }";
    assert_eq!(house.ask(titles, "text/csv").await.text.lines().nth(1), Some("Amber+Salt"));
    for (pattern, rows) in [
        // Connected through a blank node, a path, a later pattern, a graph, a value; not connected; ground.
        ("?c dcat:dataset ?d . [] dcat:dataset ?d ; dcat:service/dcat:endpointURL ?e . ?d dct:title ?t", 2),
        ("?d dct:title ?t . ?c dcat:service ?s . ?c dcat:dataset ?d", 2),
        ("GRAPH ?g { ?d dct:title ?t } ?c dcat:dataset ?d VALUES ?t { 'Salt' 'Pepper' }", 1),
        ("{ SELECT ?d { ?c dcat:dataset ?d } } { ?d dct:title 'Salt' } UNION { ?d dct:title 'Amber' }", 2),
        ("?c dcat:dataset ?d . ?e dcat:dataset ?f", 4),
        ("?c dcat:dataset ?d . ?c a dcat:Catalog . <urn:example:one#dsp> a dcat:DataService . ?x dct:title 'Salt'", 2),
        ("?c dcat:dataset ?d . <urn:example:one#dsp> a dcat:Catalog", 0),
        ("?c dcat:dataset ?d MINUS { ?d dct:title 'Salt' }", 1),
        ("?c dcat:dataset ?d OPTIONAL { ?d dct:title ?t . ?e dct:title ?u FILTER(?t = 'Salt' && ?u = 'Amber') }", 2),
    ] {
        let prefixes = "PREFIX dcat: <http://www.w3.org/ns/dcat#> PREFIX dct: <http://purl.org/dc/terms/>";
        assert_eq!(
            house.number(&format!("{prefixes} SELECT (COUNT(*) AS ?n) {{ {pattern} }}")).await,
            rows,
            "{pattern}"
        );
    }
    let optional = "SELECT ?d ?none { ?d <http://www.w3.org/ns/dcat#distribution> ?x OPTIONAL { ?d <urn:none> ?none } } ORDER BY ?none";
    assert_eq!(house.ask(optional, "text/csv").await.text.lines().count(), 3);
}

/// A path of any length joins all pairs of nodes, where nothing says from where to follow it.
#[tokio::test]
async fn paths_of_any_length_start_somewhere() {
    let house = house();
    let chain: Vec<Value> = (0..6)
        .map(|n| json!({"@id": format!("{ONE}:n{n}"), "urn:next": {"@id": format!("{ONE}:n{}", n + 1)}}))
        .collect();
    let mut document = description(ONE, &["Salt"]);
    document["@included"] = json!(chain);
    assert_eq!(house.put(ONE, &document).await.status, StatusCode::CREATED);
    let count = |pattern: &str| format!("SELECT (COUNT(*) AS ?n) {{ {pattern} }}");
    for pattern in [
        "?a <urn:next>* ?b",
        "?a (<urn:next>|!<urn:none>)+ ?b",
        "?a ^(<urn:next>+) ?b",
        "[] <urn:next>+ ?b",
        "?a <urn:next>+ ?a",
        "?a <urn:next>? ?x . ?b <urn:next>+ ?c",
        "?a (<urn:next>/^<urn:next>)? ?b",
        "?a (<urn:next>|<urn:next>/<urn:next>) ?b",
        "GRAPH ?g { ?a <urn:next>+ ?b }",
        "?a <urn:next> ?b OPTIONAL { ?c <urn:next>+ ?d }",
        "?a <urn:next> ?b FILTER EXISTS { ?c <urn:next>+ ?d }",
        "?a <urn:next>+ ?b VALUES (?a ?b) { (<urn:example:one:n0> UNDEF) (UNDEF <urn:example:one:n3>) }",
        "{ ?a <urn:next>+ ?b } UNION { ?a <urn:next> ?b }",
    ] {
        let reply = house.ask(&count(pattern), "text/csv").await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{pattern}: {}", reply.text);
        let problem = reply.json();
        assert_eq!(problem["type"], "urn:kontor:problem:query-path-open", "{pattern}");
        assert!(problem["detail"].as_str().unwrap().contains("<urn:next>"), "{pattern}: {problem}");
    }
    for (pattern, rows) in [
        ("<urn:example:one:n0> <urn:next>* ?b", 7),
        ("?a <urn:next>+ <urn:example:one:n3>", 3),
        ("?a <urn:next>+ ?b VALUES ?a { <urn:example:one:n0> <urn:example:one:n4> }", 8),
        ("?a <urn:next>+ ?b . ?a <urn:next> <urn:example:one:n2>", 5),
        ("?a <urn:next> ?b . ?b <urn:next>* ?c", 21),
        ("?a <urn:next>/<urn:next>+ ?c", 15),
        ("?a <urn:next> <urn:example:one:n1> . ?a <urn:next>+ ?b . ?b <urn:next>+ ?c", 15),
        ("?x <http://purl.org/dc/terms/title> 'Salt' . <urn:example:one:n0> <urn:next>+ ?b", 6),
        ("GRAPH ?g { ?a <urn:next> ?b . ?b <urn:next>+ ?c }", 15),
        ("{ SELECT ?a { ?a <urn:next> <urn:example:one:n2> } } ?a <urn:next>+ ?b", 5),
        ("?a <urn:next> ?b OPTIONAL { ?b <urn:next> ?c . ?c <urn:next>+ ?d }", 12),
        ("?a (<urn:next>|<urn:none>) ?b", 6),
        ("?a <urn:next>/<urn:next>/<urn:next> ?b", 4),
    ] {
        assert_eq!(house.number(&count(pattern)).await, rows, "{pattern}");
    }
}

#[tokio::test]
async fn search_cannot_be_injected() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    for text in ["%22", "%22%20OR%20%22", "salt%22%20OR%20title:*", "NEAR(", "*", "-salt", "a%00b"] {
        let reply = house.get(&format!("/v1/search?q={text}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{text}: {}", reply.text);
    }
    assert_eq!(house.get("/v1/search?q=nothing%20OR%20salt").await.json()["total"], 0);
    assert_eq!(house.get("/v1/search?q=salt%22").await.json()["total"], 1);
    assert_eq!(house.get("/v1/search").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(house.get("/v1/datasets?limit=0").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(house.get("/v1/datasets?offfset=1").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_means_nothing_in_a_path_is_refused() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt"])).await;
    for path in [
        "/v1/datasets?q=salt",
        "/v1/participants?q=salt",
        "/v1/participants?participant=urn:example:one",
        "/v1/search?q=salt&participant=urn:example:one",
        "/v1/search?q=salt&order=title",
        "/?participant=urn:example:one",
        "/query?q=salt",
        "/sparql?query=ASK%20%7B%7D&format=csv",
        "/v1/self-description?lease=60",
        "/v1/participants/urn%3Aexample%3Aone/self-description?version=1",
        "/v1/participants/%FF/self-description",
    ] {
        let reply = house.get(path).await;
        assert_eq!(
            (reply.status, reply.kind.as_str()),
            (StatusCode::BAD_REQUEST, "application/problem+json"),
            "{path}: {}",
            reply.text
        );
        assert!(reply.json()["cure"].is_string(), "{path}: {}", reply.text);
    }
    let published = house.get("/v1/participants/urn%3Aexample%3Aone/self-description").await;
    assert_eq!((published.status, published.kind.as_str()), (StatusCode::OK, "application/ld+json"));
}

#[tokio::test]
async fn pages_for_people_go_on_as_far_as_there_is_something() {
    let house = house();
    house.put(ONE, &description(ONE, &["Salt", "Salt", "Amber"])).await;
    for path in ["/", "/v1/participants", "/v1/datasets", "/v1/search"] {
        let text = if path.ends_with("search") { "q=salt&" } else { "" };
        let reply = house.get(&format!("{path}?{text}limit=1000&offset={}", i64::MAX)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
    }
    let more = |text: &str| {
        let (_, rest) = text.split_once("<p><a href=\"/?")?;
        rest.split_once("\">more").map(|(query, _)| query.replace("&amp;", "&"))
    };
    let mut query = "limit=1&q=salt".to_owned();
    let (mut pages, mut found) = (0, 0);
    loop {
        let page = house.get(&format!("/?{query}")).await;
        pages += 1;
        found += page.text.matches("<li><strong>Salt").count();
        match more(&page.text) {
            Some(next) => query = next,
            None => break,
        }
    }
    assert_eq!((pages, found), (3, 2), "three datasets, and two that were found");
    // A search that finds more than there are datasets or participants: both kinds.
    let page = house.get("/?limit=3&q=one").await;
    assert_eq!(more(&page.text).as_deref(), Some("q=one&limit=3&offset=3"), "{}", page.text);
}

#[tokio::test]
async fn pages_escape_what_participants_write() {
    let house = house();
    house.put(ONE, &description(ONE, &["<script>alert('x')</script>"])).await;
    for path in
        ["/", "/?q=script", "/?q=%22%3E%3Cscript%3E", "/query?query=SELECT%20*%20%7B%3Fs%20%3Fp%20%3Fo%7D", "/query"]
    {
        let reply = house.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert!(!reply.text.contains("<script"), "{path}");
        assert!(reply.kind.starts_with("text/html"));
    }
    let response = router(house.broker.clone()).oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let limits = QueryLimits { time_max: Duration::from_millis(300), ..QueryLimits::default() };
    let house = house_with(limits);
    let within = |time_max| router_within(house.broker.clone(), time_max);
    // A body whose end never comes.
    let (_sender, receiver) = tokio::io::duplex(64);
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(receiver));
    let mut request = Request::put("/v1/self-description").header("content-type", "text/turtle").body(body).unwrap();
    let one = ParticipantId::parse(ONE).unwrap();
    request.extensions_mut().insert(VerifiedPeer::assert_verified(one, Binding::Certificate([0; 32])));
    let reply = send(within(Duration::from_millis(100)), request).await;
    assert_eq!((reply.status, reply.kind.as_str()), (StatusCode::REQUEST_TIMEOUT, "application/problem+json"));
    assert_eq!(reply.json()["type"], "urn:kontor:problem:too-slow");
    // A query has its own time.
    let ones = format!("VALUES ?x {{ {} }} ", "1 ".repeat(200)).repeat(10);
    let query = format!("SELECT (COUNT(*) AS ?n) {{ {ones} }}");
    let request =
        Request::post("/sparql").header("content-type", "application/sparql-query").body(query.into()).unwrap();
    let reply = send(within(Duration::from_millis(100)), request).await;
    assert_eq!((reply.status, &reply.json()["rule"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("limits.query_ms")));
}

#[tokio::test]
async fn the_browse_port_answers_only_to_loopback_names() {
    let house = house();
    for (host, status) in [
        ("localhost:8080", StatusCode::OK),
        ("127.0.0.1", StatusCode::OK),
        ("[::1]:8080", StatusCode::OK),
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("localhost.evil.example", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = Request::get("/v1/participants").header("host", host).body(Body::empty()).unwrap();
        assert_eq!(send(browse_router(house.broker.clone()), request).await.status, status, "{host}");
    }
    assert_eq!(house.get("/health/ready").await.text, "ready\n");
    assert_eq!(house.get("/nowhere").await.json()["status"], 404);
}
