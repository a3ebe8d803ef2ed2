//! What is offered, to whom, and how it is found.

use bytes::Bytes;
use kontor_tests::participant::eventually;
use kontor_tests::terms::{self, open, times, under};
use kontor_tests::{DataSpace, Reply};
use serde_json::{Value, json};

#[tokio::test]
async fn a_consumer_finds_data_at_the_broker_negotiates_and_receives_it() {
    let space = DataSpace::with_broker();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &times(3)).await;
    let sparql = "PREFIX dcat: <http://www.w3.org/ns/dcat#> PREFIX dspace: <https://w3id.org/dspace/2025/1/> \
        SELECT ?dataset ?participant ?endpoint WHERE { ?catalog dcat:dataset ?dataset ; dspace:participantId ?participant ; \
        dcat:service/dcat:endpointURL ?endpoint . ?dataset dcat:keyword \"story\" }";
    let found = eventually(|| async {
        let answer = consumer.post("/brokers/query", json!({ "sparql": sparql })).await;
        let rows = answer.body["results"]["bindings"].as_array().cloned().unwrap_or_default();
        rows.into_iter().next()
    })
    .await;
    let row = found.unwrap_or_else(|| panic!("not at the broker: {}", space.broker_log()));
    assert_eq!(row["dataset"]["value"], dataset);
    assert_eq!(row["participant"]["value"], provider.id);
    let endpoint = row["endpoint"]["value"].as_str().unwrap();

    let asked = json!({ "counterparty": provider.id, "address": endpoint, "dataset": dataset });
    let begun = consumer.post("/negotiations", asked).await.ok();
    let here = consumer.wait_negotiation(begun["id"].as_str().unwrap(), "FINALIZED").await;
    let agreement = here["agreement"]["id"].as_str().unwrap();
    let transfer = consumer.transfer(agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&transfer, "COMPLETED").await;
    let there = provider.counterpart("transfers", &transfer).await;
    provider.wait_transfer(&there, "COMPLETED").await;

    let sent = std::fs::read(provider.source().join("fairs")).unwrap();
    let received = std::fs::read(consumer.received().join("fairs.csv")).unwrap();
    assert!(sent == received, "the file is not the same");
    let (mine, theirs) = (consumer.wait_flows(&transfer, 1).await, provider.wait_flows(&there, 1).await);
    assert_eq!((mine.len(), theirs.len()), (1, 1), "{mine:#?} {theirs:#?}");
    for report in [&mine[0], &theirs[0]] {
        assert_eq!(report["bytes"], sent.len());
        assert_eq!(report["digest_blake3"], blake3::hash(&sent).to_hex().as_str());
        assert_eq!(report["outcome"]["name"], "whole");
        assert_eq!(report["agreement"], agreement);
    }
    assert_eq!(mine[0]["peer_digest"], theirs[0]["digest_blake3"], "the consumer holds the provider's word");
}

#[tokio::test]
async fn what_is_withdrawn_leaves_the_broker_and_comes_back_with_a_new_offer() {
    let space = DataSpace::with_broker();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let url = format!("{}/v1/datasets", space.browse());
    let at_broker = || async {
        let answer: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        answer["datasets"].as_array().unwrap().iter().any(|found| found["dataset"] == dataset)
    };
    assert!(eventually(|| async { at_broker().await.then_some(()) }).await.is_some(), "never published");
    provider.delete("/offers/urn:story:offer:fairs").await.ok();
    assert!(eventually(|| async { (!at_broker().await).then_some(()) }).await.is_some(), "still there");
    provider.add_offer("again", &dataset, &open()).await;
    assert!(eventually(|| async { at_broker().await.then_some(()) }).await.is_some(), "not published again");
}

#[tokio::test]
async fn unknown_withdrawn_and_other_peoples_data_read_the_same() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let withdrawn = provider.publish("withdrawn", &open()).await;
    provider.delete(&format!("/datasets/{withdrawn}")).await.ok();
    let file = provider.write("secret", b"not for everyone");
    let secret = provider.add_dataset("secret", &file).await;
    let offer = json!({
        "id": "urn:story:offer:secret", "dataset": secret, "policy": open(), "audience": ["urn:story:friend"],
    });
    provider.post("/offers", offer).await.ok();
    let unknown = "urn:story:dataset:unknown".to_owned();

    let mut answers = Vec::new();
    for dataset in [&unknown, &withdrawn, &secret] {
        let refused = consumer.try_negotiate(&provider, dataset).await;
        assert_eq!(refused.status, 404, "{refused:?}");
        answers.push(refused.body.to_string().replace(dataset.as_str(), "…"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "they differ: {answers:#?}");
    let asked = json!({ "counterparty": provider.id, "address": provider.address() });
    let catalog = consumer.post("/catalog/request", asked.clone()).await.ok().to_string();
    assert!(!catalog.contains("secret") && !catalog.contains("withdrawn"), "{catalog}");

    // Who names a real offer out of turn learns no more.
    let peer = space.fake("mallory", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let mut answers = Vec::new();
    for (dataset, offer) in [
        (&unknown, "urn:story:offer:unknown"),
        (&withdrawn, "urn:story:offer:withdrawn"),
        (&secret, "urn:story:offer:secret"),
    ] {
        let wish = terms::offer(&open(), offer, dataset, &provider.id);
        let pid = terms::urn();
        let request = terms::contract_request(&pid, &peer.address, &wish);
        let refused = peer.post(&provider, "/negotiations/request", &request).await;
        assert_eq!(refused.status, 404, "{refused:?}");
        answers.push(refused.body.to_string().replace(offer, "…").replace(&pid, "…"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "they differ: {answers:#?}");

    // Whom it is for sees it.
    let friend = space.participant("friend");
    let catalog = friend.post("/catalog/request", asked).await.ok().to_string();
    assert!(catalog.contains("urn:story:offer:secret"), "{catalog}");
    friend.agree(&provider, &secret).await;
}

#[tokio::test]
async fn data_outside_of_the_source_folders_cannot_be_offered() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    std::os::unix::fs::symlink("/etc/passwd", provider.source().join("link")).unwrap();
    for path in ["/etc/passwd", "../management.token", "link", "not-there"] {
        let dataset = json!({ "title": "t", "source": { "type": "file", "path": path } });
        provider.post("/datasets", dataset).await.refused(400, &["source.path", "state/source"]);
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_enforced_is_refused_by_name() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let duty = json!({ "permission": [{ "action": "use", "duty": [{ "action": "anonymize" }] }] });
    for (policy, word) in [
        (under("product", "eq", "bread"), "product"),
        (under("resolution", "lteq", "300"), "resolution"),
        (under("dateTime", "near", "2030-01-01T00:00:00Z"), "near"),
        (under("dateTime", "lt", "tomorrow"), "tomorrow"),
        (under("count", "lteq", "many"), "many"),
        (json!({ "permission": [{ "action": "dance" }] }), "dance"),
        (duty, "duty"),
        (json!({}), "permission"),
    ] {
        let refused = provider.post("/offers", json!({ "dataset": dataset, "policy": policy })).await;
        assert!((400..500).contains(&refused.status), "{word}: {refused:?}");
        assert!(refused.body.to_string().contains(word), "{word} is not named: {refused:?}");
    }
    assert_eq!(provider.list("offers").await.len(), 1);
}

#[tokio::test]
async fn the_broker_keeps_what_it_took_through_a_crash() {
    let mut space = DataSpace::with_broker();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &open()).await;
    let listed = |url: String| {
        let dataset = dataset.clone();
        async move {
            let answer: Value = reqwest::get(format!("{url}/v1/datasets")).await.unwrap().json().await.unwrap();
            answer["datasets"].as_array().unwrap().iter().any(|found| found["dataset"] == dataset)
        }
    };
    assert!(eventually(|| async { listed(space.browse()).await.then_some(()) }).await.is_some(), "never published");
    space.restart_broker();
    assert!(listed(space.browse()).await, "forgotten in a crash");
}

#[tokio::test]
async fn a_description_that_is_malformed_or_somebody_elses_is_refused_and_nothing_is_kept() {
    let space = DataSpace::with_broker();
    let peer = space.fake("peer", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    let url = format!("{}/v1/self-description", space.registry());
    let put = |media_type: &'static str, body: String| {
        let (peer, url) = (&peer, &url);
        async move { peer.say("urn:story:broker", "PUT", url, media_type, Bytes::from(body)).await.unwrap() }
    };
    let provider = space.participant("provider");
    provider.publish("fairs", &open()).await;
    let foreign = provider.get("/self-description").await.ok().to_string();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (media_type, body, status, word) in [
        ("text/turtle", "<a> <b> .".to_owned(), 400, "line"),
        ("text/turtle", "this is no turtle".to_owned(), 400, "line"),
        ("application/ld+json", "{".to_owned(), 400, "line"),
        ("application/ld+json", deep, 400, ""),
        ("application/ld+json", "{}".to_owned(), 422, "SD-1"),
        ("application/ld+json", foreign, 422, "SD-2"),
        ("text/plain", "hello".to_owned(), 415, "turtle"),
    ] {
        let shown: String = body.chars().take(60).collect();
        let answer = put(media_type, body).await;
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert!(answer.body.to_string().contains(word), "{shown}: `{word}` is not in {answer:?}");
    }
    let answer = peer.say("urn:story:broker", "GET", &url, "text/plain", Bytes::new()).await.unwrap();
    assert_eq!(answer.status, 404, "something was kept: {answer:?}");
}
