//! What policies ask about is kept by the operator, and a stream that rested on what changed is cut.

use kontor_tests::DataSpace;
use serde_json::json;

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
