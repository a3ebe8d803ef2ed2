//! Policies in words through the management API: the same as the command line says.

use kontor_tests::terms::{times, under};
use kontor_tests::{DataSpace, Reply, terms};
use serde_json::json;

#[tokio::test]
async fn a_policy_is_checked_and_explained_without_being_kept() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let good = provider.post("/policies/check", times(2)).await.ok();
    assert_eq!((good["enforceable"].as_bool(), good["problems"].as_array().map(Vec::len)), (Some(true), Some(0)));
    assert!(good["text"].as_str().unwrap().contains("at most 2 uses"), "{good:#}");

    let bad = provider.post("/policies/check", under("mood", "eq", "good")).await.ok();
    assert_eq!(bad["enforceable"], false, "a refused policy is an answer, not an error");
    let problem = &bad["problems"][0];
    assert_eq!(problem["path"], "permission[0].constraint[0].leftOperand", "{bad:#}");
    assert!(problem["line"].is_u64() && problem["cure"].is_string(), "{bad:#}");

    let request = "/policies/explain?assignee=urn:story:reader&at=2030-01-01T00:00:00Z&uses=3";
    let told = provider.post(request, times(2)).await.ok();
    assert_eq!(told["decision"]["allowed"], false, "{told:#}");
    assert!(told["text"].as_str().unwrap().contains("at most 2 uses is asked for"), "{told:#}");
    assert!(provider.list("policies").await.is_empty());
}

#[tokio::test]
async fn a_template_becomes_an_offer() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let listed = provider.get("/policies/templates").await.ok();
    for template in listed["items"].as_array().unwrap() {
        let name = template["name"].as_str().unwrap();
        let policy = provider.get(&format!("/policies/templates/{name}")).await.ok()["policy"].clone();
        let found = provider.post("/policies/check", policy).await.ok();
        assert_eq!(found["enforceable"], template["enforced"], "{name}: {found:#}");
    }
    let policy = provider.get("/policies/templates/uses?count=1").await.ok()["policy"].clone();
    let dataset = provider.publish("fairs", &policy).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let first = consumer.transfer(&agreement, Some("one.csv")).await;
    consumer.wait_transfer(&first, "COMPLETED").await;
    let second = consumer.transfer(&agreement, Some("two.csv")).await;
    consumer.wait_transfer(&second, "TERMINATED").await;
}

#[tokio::test]
async fn an_offer_inherits_the_rules_of_policies_that_are_kept_and_stands_alone() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let house = json!({ "id": "urn:story:policy:house", "policy": {
        "prohibition": [{ "action": "use", "constraint": [
            { "leftOperand": "count", "operator": "gt", "rightOperand": 1 } ] }],
    } });
    provider.post("/policies", house).await.ok();
    let child = |parent: &str| json!({ "inheritFrom": parent, "permission": [{ "action": "use" }] });
    let file = provider.write("fairs", b"fair");
    let dataset = provider.add_dataset("fairs", &file).await;
    let offer = |parent: &str| json!({ "id": "urn:story:offer:fairs", "dataset": dataset, "policy": child(parent) });
    provider
        .post("/offers", offer("urn:story:policy:none"))
        .await
        .refused(422, &["urn:story:policy:none", "inheritFrom"]);
    let kept = provider.post("/offers", offer("urn:story:policy:house")).await.ok();
    assert!(kept["policy"].get("inheritFrom").is_none() && kept["policy"]["prohibition"][0].is_object(), "{kept:#}");
    // What the parent says later does not reach what was offered.
    provider.delete("/policies/urn:story:policy:house").await.ok();
    let agreement = consumer.agree(&provider, &dataset).await;
    let first = consumer.transfer(&agreement, Some("one.csv")).await;
    consumer.wait_transfer(&first, "COMPLETED").await;
    let second = consumer.transfer(&agreement, Some("two.csv")).await;
    consumer.wait_transfer(&second, "TERMINATED").await;
}

#[tokio::test]
async fn an_offer_keeps_what_narrows_its_target() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let house = json!({ "id": "urn:story:policy:house", "policy": { "prohibition": [{ "action": "use", "constraint": [
        { "leftOperand": "count", "operator": "gt", "rightOperand": 1 } ] }] } });
    provider.post("/policies", house).await.ok();
    let file = provider.write("fairs", b"fair");
    let dataset = provider.add_dataset("fairs", &file).await;
    let target = json!({ "@type": "AssetCollection", "source": dataset, "refinement": [
        { "leftOperand": "skos:concept", "operator": "isNoneOf", "rightOperand": ["confidential"] } ] });
    for (parent, rules) in
        [(json!(null), &["permission"][..]), (json!("urn:story:policy:house"), &["permission", "prohibition"])]
    {
        let policy = json!({ "inheritFrom": parent, "target": target, "permission": [{ "action": "use" }] });
        let kept = provider.post("/offers", json!({ "dataset": dataset, "policy": policy })).await.ok();
        assert!(kept["policy"].get("target").is_none(), "{kept:#}");
        for rule in rules {
            let kept = &kept["policy"][rule][0]["target"];
            assert_eq!(
                (&kept["source"], kept["refinement"][0]["operator"].as_str()),
                (&target["source"], Some("isNoneOf")),
                "{kept:#}"
            );
        }
    }
    // The dataset itself, in whatever spelling, says nothing more.
    let policy = json!({ "target": { "@id": dataset, "@type": "Asset" }, "permission": [{ "action": "use" }] });
    let kept = provider.post("/offers", json!({ "dataset": dataset, "policy": policy })).await.ok();
    assert!(
        kept["policy"].get("target").is_none() && kept["policy"]["permission"][0].get("target").is_none(),
        "{kept:#}"
    );
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_problem_with_its_cure() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    provider.post("/policies/check", json!([1, 2])).await.refused(400, &["an array", "cure"]);
    provider.post("/policies/explain", under("count", "about", "2")).await.refused(422, &["operator", "cure"]);
    provider.post("/policies/explain?uses=1", times(2)).await.refused(400, &["assignee"]);
    provider.post("/policies/explain?assigne=urn:a", times(2)).await.refused(400, &["assigne"]);
    provider.post("/policies/explain?assignee=urn:a&at=soon", times(2)).await.refused(400, &["query"]);
    provider.get("/policies/templates/usez").await.refused(404, &["did you mean `uses`?"]);
    provider.get("/policies/templates/uses?cuont=1").await.refused(400, &["did you mean `count`?"]);
    provider.get("/policies/templates/uses?count=many").await.refused(400, &["`many`", "a whole number"]);
    // A kept policy of such a name could not be asked for.
    let kept = json!({ "id": "templates", "policy": terms::open() });
    provider.post("/policies", kept).await.refused(400, &["`templates`", "another name"]);
}

#[tokio::test]
async fn peers_read_what_a_connector_enforces_and_it_refuses_the_rest_before_an_agreement() {
    let space = DataSpace::with_broker();
    let (provider, consumer) = space.pair();
    let own = provider.get("/capabilities").await.ok();
    assert_eq!(own["participant"], provider.id.as_str());
    // A peer reads the same over mutual TLS, at the address that the self-description names.
    let friend = space.fake("friend", |seen| Reply::ack(seen, "urn:uuid:0")).await;
    assert_eq!(friend.get(&provider, "/capabilities").await.ok(), own);
    let described = provider.get("/self-description").await.ok().to_string();
    assert!(described.contains(&format!("{}/capabilities", provider.address())), "{described}");

    // What is not in it is neither put up nor asked for: each side refuses before an agreement.
    let terms = |list: &str| -> Vec<String> {
        own[list].as_array().unwrap().iter().map(|entry| entry["term"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        terms("operands").contains(&"dateTime".to_owned()) && !terms("operands").contains(&"unitOfCount".to_owned())
    );
    let dataset = provider.publish("fairs", &terms::open()).await;
    let unheld = under("unitOfCount", "eq", "urn:story:fortnight");
    let offer = json!({ "dataset": dataset, "policy": unheld });
    provider.post("/offers", offer).await.refused(422, &["unitOfCount", "cure"]);
    let wish = terms::offer(&unheld, "urn:story:offer:fairs", &dataset, &provider.id);
    let asked = json!({ "counterparty": provider.id, "address": provider.address(), "offer": wish });
    consumer.post("/negotiations", asked).await.refused(422, &["unitOfCount"]);
    let request = terms::contract_request(&terms::urn(), &friend.address, &wish);
    friend.post(&provider, "/negotiations/request", &request).await.refused(400, &["unitOfCount"]);
    assert!(provider.list("negotiations").await.is_empty());
}
