//! Negotiations between two connectors.

use kontor_tests::terms::{open, times, urn};
use kontor_tests::{DataSpace, Options, Participant, terms};
use serde_json::{Value, json};

use crate::{begun, counter_offer, drive};

#[tokio::test]
async fn published_terms_are_agreed_to_and_both_sides_hold_the_same_agreement() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &times(5)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.get(&format!("/agreements/{agreement}")).await.ok();
    let there = provider.get(&format!("/agreements/{agreement}")).await.ok();
    assert_eq!(here["agreement"], there["agreement"]);
    assert_eq!(here["agreement"]["assigner"], provider.id);
    assert_eq!(here["agreement"]["assignee"], consumer.id);
    assert_eq!(here["state"]["name"], "in-force");
    assert_eq!(there["state"]["name"], "in-force");
    assert!(here["agreement"]["policy"].to_string().contains("count"), "{here:#}");
    assert!(consumer.outbox().await.is_empty() && provider.outbox().await.is_empty());
}

#[tokio::test]
async fn altered_terms_rest_until_the_provider_offers_and_the_consumer_accepts() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &times(1)).await;
    let wish = terms::offer(&times(9), "urn:story:offer:fairs", &dataset, &provider.id);
    let asked = json!({ "counterparty": provider.id, "address": provider.address(), "offer": wish });
    let here = kontor_tests::participant::id_of(&consumer.post("/negotiations", asked).await.ok());
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let there = provider.counterpart("negotiations", &here).await;
    // Nothing is decided without a person: time passes and the request rests.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(provider.negotiation(&there).await["state"], "REQUESTED");

    let offer = counter_offer(&provider, &dataset);
    provider.act(&there, "offer", json!({ "offer": offer })).await.ok();
    consumer.wait_negotiation(&here, "OFFERED").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(consumer.negotiation(&here).await["state"], "OFFERED", "nobody accepts other terms by themselves");
    consumer.act(&here, "accept", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    let constraint = &done["agreement"]["policy"]["permission"][0]["constraint"][0];
    assert_eq!(constraint["rightOperand"], "7", "{done:#}");
    provider.wait_negotiation(&there, "FINALIZED").await;
}

#[tokio::test]
async fn a_counter_request_of_the_consumer_is_answered_by_a_new_offer() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    drive(&provider, &consumer, (&here, &there), &dataset, "OFFERED").await;
    let wish = terms::offer(&times(8), "urn:story:offer:fairs", &dataset, &provider.id);
    consumer.act(&here, "request", json!({ "offer": wish })).await.ok();
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let asked = provider.wait_negotiation(&there, "REQUESTED").await;
    assert!(asked["offer"].to_string().contains("\"8\""), "{asked:#}");
    provider.act(&there, "agree", json!({})).await.ok();
    consumer.wait_negotiation(&here, "AGREED").await;
    consumer.act(&here, "verify", json!({})).await.ok();
    provider.wait_negotiation(&there, "VERIFIED").await;
    provider.act(&there, "finalize", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    assert!(done["agreement"]["policy"].to_string().contains("\"8\""), "{done:#}");
}

#[tokio::test]
async fn a_provider_can_offer_unasked() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let body = json!({
        "role": "provider", "counterparty": consumer.id, "address": consumer.address(),
        "dataset": dataset, "offer": "urn:story:offer:fairs",
    });
    let there = kontor_tests::participant::id_of(&provider.post("/negotiations", body).await.ok());
    provider.wait_negotiation(&there, "OFFERED").await;
    let here = consumer.counterpart("negotiations", &there).await;
    consumer.wait_negotiation(&here, "OFFERED").await;
    consumer.act(&here, "accept", json!({})).await.ok();
    consumer.wait_negotiation(&here, "FINALIZED").await;
    provider.wait_negotiation(&there, "FINALIZED").await;
}

#[tokio::test]
async fn a_rejection_reaches_the_consumer_with_its_reason() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    let body = json!({ "code": "no-thanks", "reason": "the fair is over" });
    provider.act(&there, "terminate", body).await.ok();
    let ended = consumer.wait_negotiation(&here, "TERMINATED").await;
    assert_eq!(ended["ended"]["by"], "provider");
    assert_eq!(ended["ended"]["code"], "no-thanks");
    assert_eq!(ended["ended"]["reason"], json!(["the fair is over"]));
    let refused = consumer.act(&here, "accept", json!({})).await;
    assert!(refused.status >= 400 && refused.body.to_string().contains("TERMINATED"), "{refused:?}");
    assert!(consumer.list("agreements").await.is_empty() && provider.list("agreements").await.is_empty());
}

#[tokio::test]
async fn either_side_can_terminate_in_every_state_before_the_end() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    for state in ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED"] {
        for by_provider in [true, false] {
            let (here, there) = begun(&provider, &consumer, &dataset).await;
            drive(&provider, &consumer, (&here, &there), &dataset, state).await;
            let reason = format!("over in {state}");
            let (who, id) = if by_provider { (&provider, &there) } else { (&consumer, &here) };
            who.act(id, "terminate", json!({ "reason": reason })).await.ok();
            for ended in [
                consumer.wait_negotiation(&here, "TERMINATED").await,
                provider.wait_negotiation(&there, "TERMINATED").await,
            ] {
                assert_eq!(ended["ended"]["by"], if by_provider { "provider" } else { "consumer" });
                assert_eq!(ended["ended"]["reason"], json!([reason]));
                assert!(ended["actions"].as_array().is_none_or(Vec::is_empty), "{ended:#}");
            }
        }
    }
    for agreement in consumer.list("agreements").await.into_iter().chain(provider.list("agreements").await) {
        assert_ne!(agreement["state"]["name"], "in-force", "{agreement:#}");
    }
}

#[tokio::test]
async fn what_is_finalized_cannot_be_terminated() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let here = consumer.negotiate(&provider, &dataset).await;
    consumer.wait_negotiation(&here, "FINALIZED").await;
    let there = provider.counterpart("negotiations", &here).await;
    provider.wait_negotiation(&there, "FINALIZED").await;
    for (who, id) in [(&consumer, &here), (&provider, &there)] {
        let refused = who.act(id, "terminate", json!({ "reason": "regret" })).await;
        assert!(refused.status == 409 || refused.status == 400, "{refused:?}");
        assert!(refused.body.to_string().contains("FINALIZED"), "{refused:?}");
        assert_eq!(who.negotiation(id).await["state"], "FINALIZED");
    }
}

#[tokio::test]
async fn every_action_out_of_turn_is_refused_with_the_state() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    let offer = json!({ "offer": counter_offer(&provider, &dataset) });
    for action in ["request", "offer", "accept", "agree", "verify", "finalize"] {
        let body = if matches!(action, "request" | "offer") { offer.clone() } else { json!({}) };
        let refused = consumer.act(&here, action, body).await;
        assert!(refused.status >= 400, "{action} in REQUESTED: {refused:?}");
        assert!(refused.body.to_string().contains("REQUESTED"), "{action}: {refused:?}");
    }
    for action in ["accept", "verify", "finalize"] {
        let refused = provider.act(&there, action, json!({})).await;
        assert!(refused.status >= 400 && refused.body.to_string().contains("REQUESTED"), "{action}: {refused:?}");
    }
    consumer.act(&here, "dance", json!({})).await.refused(404, &["dance", "terminate"]);
    assert_eq!(consumer.negotiation(&here).await["state"], "REQUESTED");
}

#[tokio::test]
async fn two_consumers_of_one_offer_have_an_agreement_each_and_see_only_their_own() {
    let space = DataSpace::new();
    let (provider, alpha) = space.pair();
    let beta = space.participant("beta");
    let dataset = provider.publish("fairs", &open()).await;
    let (first, second) = tokio::join!(alpha.agree(&provider, &dataset), beta.agree(&provider, &dataset));
    assert_ne!(first, second);
    assert_eq!(provider.list("agreements").await.len(), 2);
    alpha.get(&format!("/agreements/{second}")).await.refused(404, &["agreement"]);
    beta.get(&format!("/agreements/{first}")).await.refused(404, &["agreement"]);
}

#[tokio::test]
async fn a_peer_cannot_tell_an_unknown_negotiation_from_somebody_elses() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&Options::manual());
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = begun(&provider, &consumer, &dataset).await;
    let mallory = space.fake("mallory", |seen| kontor_tests::Reply::ack(seen, "urn:uuid:0")).await;
    let unknown = urn();
    let foreign = mallory.get(&provider, &format!("/negotiations/{there}")).await;
    let nothing = mallory.get(&provider, &format!("/negotiations/{unknown}")).await;
    assert_eq!((foreign.status, nothing.status), (404, 404));
    assert_eq!(
        foreign.body.to_string().replace(&there, "…"),
        nothing.body.to_string().replace(&unknown, "…"),
        "the answers tell which exists"
    );
    let end = terms::message(
        "ContractNegotiationTerminationMessage",
        json!({ "consumerPid": here, "providerPid": there, "reason": ["mine now"] }),
    );
    mallory
        .post(&provider, &format!("/negotiations/{there}/termination"), &end)
        .await
        .refused(404, &["NegotiationError"]);
    assert_eq!(provider.negotiation(&there).await["state"], "REQUESTED");
}

/// Asks for a dataset's offer under other terms; returns the negotiation's identifiers at consumer and provider.
async fn asked_for(provider: &Participant, consumer: &Participant, dataset: &str, wish: &Value) -> (String, String) {
    let wish = terms::offer(wish, "urn:story:offer:fairs", dataset, &provider.id);
    let asked = json!({ "counterparty": provider.id, "address": provider.address(), "offer": wish });
    let here = kontor_tests::participant::id_of(&consumer.post("/negotiations", asked).await.ok());
    let there = provider.counterpart("negotiations", &here).await;
    (here, there)
}

#[tokio::test]
async fn a_request_shows_how_it_compares_with_the_offer() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &times(5)).await;
    let (here, there) = asked_for(&provider, &consumer, &dataset, &times(9)).await;
    let asked = provider.wait_negotiation(&there, "REQUESTED").await;
    assert_eq!(asked["relation"], "wider", "{asked:#}");
    assert_eq!(asked["difference"]["path"], "permission[0].constraint[0]", "{asked:#}");
    let message = asked["difference"]["message"].as_str().unwrap();
    assert!(message.contains("at most 9 uses") && message.contains("at most 5 uses"), "{message}");
    let line = provider.audit(&there).await;
    assert!(line.iter().any(|line| line["event"] == "negotiation.compared"), "{line:#?}");
    // Whoever is refused without another reason learns where it went too far.
    provider.act(&there, "terminate", json!({})).await.ok();
    let ended = consumer.wait_negotiation(&here, "TERMINATED").await;
    let reason = ended["ended"]["reason"][0].as_str().unwrap();
    assert!(reason.contains("go beyond what is offered") && reason.contains("at most 5 uses"), "{ended:#}");

    let (_, there) = asked_for(&provider, &consumer, &dataset, &times(2)).await;
    let asked = provider.wait_negotiation(&there, "REQUESTED").await;
    assert_eq!(asked["relation"], "narrower", "{asked:#}");
}

#[tokio::test]
async fn a_narrower_request_is_agreed_to_where_the_operator_says_so() {
    let space = DataSpace::new();
    let options = Options { automation: "narrower = \"automatic\"".to_owned(), ..Options::default() };
    let (provider, consumer) = (space.participant_with("provider", &options), space.participant("consumer"));
    let dataset = provider.publish("fairs", &times(5)).await;
    let (here, _) = asked_for(&provider, &consumer, &dataset, &times(2)).await;
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    assert!(done["agreement"]["policy"].to_string().contains("\"2\""), "{done:#}");
    let (_, there) = asked_for(&provider, &consumer, &dataset, &times(6)).await;
    let asked = provider.wait_negotiation(&there, "REQUESTED").await;
    assert_eq!((asked["relation"].as_str(), asked["pending"].is_null()), (Some("wider"), true), "{asked:#}");
}

#[tokio::test]
async fn rules_answer_what_goes_too_far_with_the_published_offer_or_with_the_difference() {
    let space = DataSpace::new();
    let rule = |relation: &str, action: &str| {
        format!(
            "[[rule]]\nmachine = \"negotiation\"\nrole = \"provider\"\nstate = \"REQUESTED\"\n\
             relation = [\"{relation}\"]\naction = \"{action}\"\n"
        )
    };
    let options = Options { rules: rule("wider", "counter") + &rule("conflict", "terminate"), ..Options::default() };
    let (provider, consumer) = (space.participant_with("provider", &options), space.participant("consumer"));
    let dataset = provider.publish("fairs", &times(5)).await;

    let (here, there) = asked_for(&provider, &consumer, &dataset, &times(9)).await;
    let offered = consumer.wait_negotiation(&here, "OFFERED").await;
    assert!(offered["offer"].to_string().contains("\"5\""), "the offer is not the published one: {offered:#}");
    // To the consumer it is narrower than its wish, which a person accepts.
    assert_eq!(offered["relation"], "narrower", "{offered:#}");
    consumer.act(&here, "accept", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    assert!(done["agreement"]["policy"].to_string().contains("\"5\""), "{done:#}");
    provider.wait_negotiation(&there, "FINALIZED").await;

    let elsewhere = terms::under("elapsedTime", "lteq", "P1D");
    let (here, _) = asked_for(&provider, &consumer, &dataset, &elsewhere).await;
    let ended = consumer.wait_negotiation(&here, "TERMINATED").await;
    let reason = ended["ended"]["reason"].to_string();
    assert!(reason.contains("by a rule") && reason.contains("at most 5 uses"), "{ended:#}");

    // What means the same is agreed to as ever: no rule is about it.
    consumer.agree(&provider, &dataset).await;
}
