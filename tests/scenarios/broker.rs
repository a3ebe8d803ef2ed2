//! What a broker knows of a participant, and for how long.

use std::time::Duration;

use kontor_tests::DataSpace;
use kontor_tests::participant::{Participant, eventually};
use kontor_tests::space::Options;
use kontor_tests::terms::open;
use serde_json::{Value, json};

async fn read(url: String) -> Value {
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// The participant in the broker's list.
async fn listed(browse: &str, id: &str) -> Option<Value> {
    let list = read(format!("{browse}/v1/participants")).await;
    list["participants"].as_array().unwrap().iter().find(|row| row["participant"] == id).cloned()
}

/// Whether the broker says anything about the participant by SPARQL.
async fn told(browse: &str, id: &str) -> bool {
    ask(browse, format!("ASK {{ GRAPH <{id}> {{ ?s ?p ?o }} }}")).await
}

async fn ask(browse: &str, query: String) -> bool {
    let request = reqwest::Client::new().post(format!("{browse}/sparql")).body(query);
    let answer = request.header("content-type", "application/sparql-query").send().await.unwrap();
    answer.json::<Value>().await.unwrap()["boolean"] == true
}

async fn wait_listed(space: &DataSpace, id: &str) -> Value {
    let browse = space.browse();
    let found = eventually(|| async { listed(&browse, id).await.filter(|row| row["datasets"] == 1) }).await;
    found.unwrap_or_else(|| panic!("never listed: {}", space.broker_log()))
}

async fn wait_gone(space: &DataSpace, provider: &Participant) {
    let (browse, id) = (space.browse(), &provider.id);
    let gone = eventually(|| async { listed(&browse, id).await.is_none().then_some(()) }).await;
    assert!(gone.is_some(), "still listed: {}", provider.log());
    assert!(!told(&browse, id).await, "gone from the list and not from the graph");
}

/// What a policy says is what the broker knows of it, in words that mean the same to everybody.
#[tokio::test]
async fn an_offer_is_read_back_from_the_broker_with_all_that_it_says() {
    let space = DataSpace::with_broker();
    let provider = space.participant("provider");
    let policy = json!({ "conflict": "prohibit", "permission": [{
        "action": ["use"],
        "constraint": [{
            "leftOperand": "idsc:SECURITY_LEVEL", "operator": "gteq",
            "rightOperand": "idsc:TRUST_SECURITY_PROFILE",
        }],
    }] });
    provider.publish("fairs", &policy).await;
    wait_listed(&space, &provider.id).await;
    let query = "PREFIX odrl: <http://www.w3.org/ns/odrl/2/> PREFIX idsc: <https://w3id.org/idsa/code/>
        ASK { <urn:story:offer:fairs> odrl:conflict odrl:prohibit ; odrl:permission ?rule .
              ?rule odrl:action odrl:use ; odrl:constraint ?c .
              ?c odrl:leftOperand idsc:SECURITY_LEVEL ; odrl:operator odrl:gteq ; odrl:rightOperand ?level }";
    assert!(ask(&space.browse(), query.to_owned()).await, "{}", provider.get("/self-description").await.ok());
}

#[tokio::test]
async fn a_publication_is_renewed_made_again_where_it_was_forgotten_and_withdrawn() {
    let mut space = DataSpace::with_broker();
    let options = Options { lease_seconds: Some(2), ..Options::default() };
    let mut provider = space.participant_with("provider", &options);
    provider.publish("fairs", &open()).await;
    let first = wait_listed(&space, &provider.id).await;

    // Longer than the lease: it is still the same version, kept by renewals.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let later = wait_listed(&space, &provider.id).await;
    assert_eq!(later["version"], first["version"], "renewed, not registered again");
    assert!(later["lease_until"].as_str() > first["lease_until"].as_str(), "{first} {later}");

    // A broker that lost everything is told everything.
    space.forget_at_broker();
    wait_listed(&space, &provider.id).await;

    // Taken back by hand: at once, and for longer than it would take to come back by itself.
    let withdrawn = provider.delete("/brokers/urn:story:broker").await.ok();
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["published"]), (&json!(true), &json!(false)), "{withdrawn}");
    assert!(listed(&space.browse(), &provider.id).await.is_none(), "listed after the answer");
    assert!(!told(&space.browse(), &provider.id).await, "in the graph after the answer");
    provider.add_dataset("more", &provider.write("more", b"a change of the catalogue")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(listed(&space.browse(), &provider.id).await.is_none(), "it came back by itself");
    provider.delete("/brokers/urn:story:nobody").await.refused(404, &["broker"]);

    let begun = provider.post("/brokers/urn:story:broker/publish", json!({})).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    wait_listed(&space, &provider.id).await;

    // Until the next start.
    provider.delete("/brokers/urn:story:broker").await.ok();
    provider.restart();
    wait_listed(&space, &provider.id).await;

    // A broker that is no longer in the settings is told to forget.
    provider.kill9();
    provider.drop_brokers();
    provider.start_again();
    wait_gone(&space, &provider).await;
    let none = eventually(|| async {
        let brokers = provider.get("/brokers").await.ok();
        (brokers["items"] == json!([])).then_some(())
    });
    assert!(none.await.is_some(), "a broker that has forgotten us is not asked again");
}
