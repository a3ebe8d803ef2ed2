//! What an agreement obliges to: logs before the use, notices, deletion, the policy of what is handed on. Each is kept
//! with what causes it, and survives the death of who owes it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use kontor_tests::participant::eventually;
use kontor_tests::terms::{self, open};
use kontor_tests::{DataSpace, Options, Participant, Reply};
use serde_json::{Value, json};

use crate::enforcement::both_ended;
use crate::transfer::{STREAM_BYTES, agreed, granted};

/// A service that takes JSON objects, and refuses them while it is told to.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    down: bool,
    refused: usize,
    taken: Vec<Value>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/notices", listener.local_addr().unwrap());
        let router = Router::new().route("/notices", post(Self::take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    async fn take(State(collector): State<Self>, Json(body): Json<Value>) -> StatusCode {
        let mut collected = collector.0.lock().unwrap();
        if collected.down {
            collected.refused += 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        collected.taken.push(body);
        StatusCode::NO_CONTENT
    }

    fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    fn refused(&self) -> usize {
        self.0.lock().unwrap().refused
    }

    fn taken(&self) -> Vec<Value> {
        self.0.lock().unwrap().taken.clone()
    }
}

fn with_policy(settings: &str) -> Options {
    Options { extra: format!("[policy]\n{settings}\n"), ..Options::default() }
}

fn with_duty(duty: &Value) -> Value {
    json!({ "permission": [{ "action": "use", "duty": [duty] }] })
}

fn log() -> Value {
    with_duty(&json!({ "action": "idsc:LOG" }))
}

fn delete_within(span: &str) -> Value {
    let period = json!({ "leftOperand": "delayPeriod", "operator": "lteq",
        "rightOperand": { "@value": span, "@type": "xsd:duration" } });
    with_duty(&json!({ "action": { "rdf:value": { "@id": "odrl:delete" }, "refinement": [period] } }))
}

fn events(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect()
}

fn entries(log: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn both_sides_write_a_use_down_before_it_begins_and_after_it_ended() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair_with(&with_policy("log = \"usage.log\""));
    let dataset = provider.publish("fairs", &log()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    let there = provider.counterpart("transfers", &here).await;
    for (who, transfer, expected) in [
        ("provider", &there, ["use.begins", "use.ended"].as_slice()),
        ("consumer", &here, &["use.begins", "data.received"]),
    ] {
        let file = space.path().join(who).join("usage.log");
        let found = eventually(|| async {
            let found = entries(&file);
            (found.len() >= expected.len()).then_some(found)
        })
        .await;
        let found = found.unwrap_or_else(|| panic!("{who} wrote {:#?}", entries(&file)));
        assert_eq!(events(&found)[0], "use.begins", "before anything else");
        let (mut is, mut should): (Vec<&str>, Vec<&str>) = (events(&found), expected.to_vec());
        is.sort_unstable();
        should.sort_unstable();
        assert_eq!(is, should, "{who}");
        for entry in &found {
            assert_eq!((&entry["agreement"], &entry["transfer"]), (&json!(agreement), &json!(transfer)));
            assert_eq!(entry["dataset"], dataset);
        }
    }
}

#[tokio::test]
async fn while_the_required_log_is_down_no_byte_leaves_and_the_pull_waits_for_it() {
    let space = DataSpace::new();
    let (log_service, url) = Collector::start().await;
    let provider = space.participant_with("provider", &with_policy(&format!("log = \"{url}\"")));
    let consumer = space.participant_with("consumer", &with_policy("log = \"usage.log\""));
    let dataset = provider.publish("fairs", &log()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    log_service.set_down(true);
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    let asked = eventually(|| async { (log_service.refused() >= 2).then_some(()) }).await;
    assert!(asked.is_some(), "the pull did not come back");
    let there = provider.counterpart("transfers", &here).await;
    assert!(provider.flows(&there).await.is_empty(), "a byte left without a log");
    assert_eq!(provider.get(&format!("/agreements/{agreement}")).await.ok()["uses"], 0, "and it counts as no use");
    assert!(!consumer.received().join("fairs.csv").exists());
    log_service.set_down(false);
    consumer.wait_transfer(&here, "COMPLETED").await;
    assert_eq!(log_service.taken()[0]["event"], "use.begins");
}

#[tokio::test]
async fn a_consumer_whose_own_log_is_down_asks_for_no_byte_until_it_is_up() {
    let space = DataSpace::new();
    let (log_service, url) = Collector::start().await;
    let provider = space.participant_with("provider", &with_policy("log = \"usage.log\""));
    let consumer = space.participant_with("consumer", &with_policy(&format!("log = \"{url}\"")));
    let dataset = provider.publish("fairs", &log()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    log_service.set_down(true);
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    assert!(eventually(|| async { (log_service.refused() >= 2).then_some(()) }).await.is_some());
    assert!(entries(&space.path().join("provider/usage.log")).is_empty(), "it asked without having logged");
    log_service.set_down(false);
    consumer.wait_transfer(&here, "COMPLETED").await;
}

#[tokio::test]
async fn a_log_that_is_owed_from_some_instant_on_is_written_before_a_running_pull_goes_on() {
    let space = DataSpace::new();
    let (log_service, url) = Collector::start().await;
    let provider = space.participant_with("provider", &with_policy("log = \"usage.log\""));
    let consumer = space.participant_with("consumer", &with_policy(&format!("log = \"{url}\"")));
    let turn = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(10)).unwrap();
    let at =
        |operator: &str| json!({ "leftOperand": "dateTime", "operator": operator, "rightOperand": turn.to_string() });
    let slow =
        json!({ "leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": "4", "unit": "MBy/s" });
    let policy = json!({ "permission": [
        { "action": "use", "constraint": [slow, at("lt")] },
        { "action": "use", "constraint": [slow, at("gteq")], "duty": [{ "action": "idsc:LOG" }] },
    ] });
    log_service.set_down(true);
    let stream = crate::transfer::running(&provider, &consumer, &policy, 80_000_000).await;
    assert_eq!(log_service.refused(), 0, "nothing was to be logged so far");
    assert!(eventually(|| async { (log_service.refused() >= 2).then_some(()) }).await.is_some(), "it is not logged");
    assert!(!consumer.received().join("stream.bin").exists(), "it went on without a log");
    log_service.set_down(false);
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    let logged = eventually(|| async { (log_service.taken().len() >= 2).then(|| log_service.taken()) }).await;
    let logged = logged.unwrap_or_else(|| panic!("{:#?}", log_service.taken()));
    assert_eq!(events(&logged), ["use.begins", "data.received"]);
}

#[tokio::test]
async fn terms_that_ask_for_a_log_are_not_agreed_to_without_one() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &with_policy("log = \"usage.log\""));
    let consumer = space.participant("consumer");
    let dataset = provider.publish("fairs", &log()).await;
    consumer.try_negotiate(&provider, &dataset).await.refused(422, &["idsc:LOG", "uses are not recorded"]);
    let file = consumer.write("fairs", b"fair");
    let own = consumer.add_dataset("fairs", &file).await;
    let offer = json!({ "id": "urn:o", "dataset": own, "policy": log() });
    consumer.post("/offers", offer).await.refused(422, &["permission[0].duty[0]", "uses are not recorded"]);
}

#[tokio::test]
async fn a_deletion_is_not_left_to_a_connector_that_does_not_say_that_it_deletes() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &delete_within("P30D")).await;
    let silent = space.fake("silent", |seen| Reply::ack(seen, &terms::urn())).await;
    let offer = terms::offer(&delete_within("P30D"), "urn:story:offer:fairs", &dataset, &provider.id);
    let request = terms::contract_request(&terms::urn(), &silent.address, &offer);
    silent.post(&provider, "/negotiations/request", &request).await.ok();
    let told = silent.wait_for("ContractNegotiationTerminationMessage").await;
    assert!(told.body["reason"].to_string().contains("not known whether"), "{told:?}");
}

#[tokio::test]
async fn a_notice_survives_the_death_of_who_owes_it() {
    let space = DataSpace::new();
    let (trustee, url) = Collector::start().await;
    let settings = format!("[[policy.inform]]\nparty = \"urn:story:trustee\"\nurl = \"{url}\"");
    let mut provider = space.participant_with("provider", &with_policy(&settings));
    let consumer = space.participant("consumer");
    let policy = with_duty(&json!({ "action": "inform", "informedParty": "urn:story:trustee" }));
    let dataset = provider.publish("fairs", &policy).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    trustee.set_down(true);
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    assert!(eventually(|| async { (trustee.refused() >= 1).then_some(()) }).await.is_some());
    let pending = provider.get("/duties?state=pending").await.ok();
    assert_eq!(pending["items"][0]["task"]["party"], "urn:story:trustee", "{pending:#}");
    provider.kill9();
    trustee.set_down(false);
    provider.start_again();
    let told = eventually(|| async { trustee.taken().first().cloned() }).await.unwrap();
    assert_eq!((&told["event"], &told["agreement"]), (&json!("use.begins"), &json!(agreement)), "{told:#}");
    let done = eventually(|| async {
        let done = provider.get("/duties?state=fulfilled").await.ok();
        (!done["items"].as_array().unwrap().is_empty()).then_some(done)
    })
    .await;
    assert_eq!(done.unwrap()["items"][0]["path"], "permission[0].duty[0]");
    // A crash between the notice and its record repeats it under the same name.
    let ids: BTreeSet<String> = trustee.taken().iter().map(|notice| notice["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn a_notice_that_is_never_taken_forbids_further_uses_until_it_was_given_by_other_means() {
    let space = DataSpace::new();
    let (trustee, url) = Collector::start().await;
    let settings = format!("[[policy.inform]]\nparty = \"urn:story:trustee\"\nurl = \"{url}\"");
    let options = Options { delivery: "give_up_seconds = 1".to_owned(), ..with_policy(&settings) };
    let provider = space.participant_with("provider", &options);
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let policy = with_duty(&json!({ "action": "inform", "informedParty": "urn:story:trustee" }));
    let dataset = provider.publish("fairs", &policy).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    trustee.set_down(true);
    assert_eq!(consumer.fetch(&provider, &granted.endpoint, &granted.token).await.0, 200);
    let given_up = eventually(|| async {
        let violated = provider.get("/duties?state=violated").await.ok();
        violated["items"].as_array().unwrap().first().cloned()
    })
    .await
    .unwrap();
    let (status, body) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 403 && said.contains("inform"), "{status}: {said}");
    // The operator told the trustee on the telephone.
    let key = given_up["key"].as_str().unwrap();
    let done = json!({ "value": true, "note": "by telephone" });
    provider.call(reqwest::Method::PUT, &format!("/agreements/{agreement}/facts/{key}"), Some(&done)).await.ok();
    // Tried once more it is given up once more: what was done before that is no excuse.
    let (status, _) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
    assert_eq!(status, 200);
    let twice = eventually(|| async {
        let violated = provider.get("/duties?state=violated").await.ok();
        (violated["items"].as_array().unwrap().len() == 2).then_some(())
    });
    assert!(twice.await.is_some());
    assert_eq!(consumer.fetch(&provider, &granted.endpoint, &granted.token).await.0, 403);
    provider.call(reqwest::Method::PUT, &format!("/agreements/{agreement}/facts/{key}"), Some(&done)).await.ok();
    trustee.set_down(false);
    assert_eq!(consumer.fetch(&provider, &granted.endpoint, &granted.token).await.0, 200);
}

async fn deleted(consumer: &Participant, transfer: &str) -> Value {
    let found = eventually(|| async {
        let received = consumer.get(&format!("/received/{transfer}")).await.body;
        (received["state"]["name"] == "deleted").then_some(received)
    })
    .await;
    found.unwrap_or_else(|| panic!("{} keeps what it must delete", consumer.id))
}

#[tokio::test]
async fn received_data_is_deleted_in_time_although_its_keeper_died() {
    let space = DataSpace::new();
    let (provider, mut consumer) = space.pair();
    let dataset = provider.publish("fairs", &delete_within("PT12S")).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    let file = consumer.received().join("fairs.csv");
    assert!(file.exists());
    let kept = consumer.get(&format!("/received/{here}")).await.ok();
    assert_eq!(kept["state"]["name"], "kept", "{kept:#}");
    consumer.kill9();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(file.exists(), "nobody deletes while nobody runs");
    consumer.start_again();
    let gone = deleted(&consumer, &here).await;
    assert!(!file.exists());
    let text = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (at, received) = (text(&gone["state"]["at"]), text(&gone["state"]["received"]));
    assert!(at.duration_since(received) >= jiff::SignedDuration::from_secs(12), "{gone:#}");
    let audit = consumer.get("/audit?event=duty.fulfilled").await.ok();
    assert!(audit.to_string().contains("fairs.csv"), "{audit:#}");
}

#[tokio::test]
async fn what_was_received_is_handed_on_only_under_the_policy_that_came_with_it() {
    handed_on("use").await;
}

#[tokio::test]
async fn data_that_is_for_handing_on_alone_is_handed_on_under_its_next_policy() {
    handed_on("distribute").await;
}

async fn handed_on(action: &str) {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let own = Options { extra: "[data]\nsource_roots = [\"state/received\"]\n".to_owned(), ..Options::default() };
    let consumer = space.participant_with("consumer", &own);
    let mut policy = with_duty(&json!({ "action": "nextPolicy", "hasPolicy": "urn:story:policy:next" }));
    policy["permission"][0]["action"] = json!(action);
    let dataset = provider.publish("fairs", &policy).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    let file = consumer.received().join("fairs.csv");
    let onward = consumer.add_dataset("onward", &file).await;
    let offer = |policy: Value| json!({ "id": "urn:story:offer:onward", "dataset": onward, "policy": policy });
    consumer.post("/offers", offer(open())).await.refused(403, &["urn:story:policy:next", "is not known here"]);
    let next = json!({ "id": "urn:story:policy:next", "policy": terms::times(3) });
    consumer.post("/policies", next).await.ok();
    consumer.post("/offers", offer(open())).await.refused(403, &["urn:story:policy:next", "not within it"]);
    consumer.post("/offers", offer(terms::times(4))).await.refused(403, &["urn:story:policy:next"]);
    consumer.post("/offers", offer(terms::times(2))).await.ok();
}

#[tokio::test]
async fn a_rent_that_is_not_paid_again_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let eq = |left: &str, right: Value| json!({ "leftOperand": left, "operator": "eq", "rightOperand": right });
    let rent = with_duty(&json!({ "action": { "rdf:value": { "@id": "odrl:compensate" }, "refinement": [
        eq("payAmount", json!({ "@value": "12.50", "@type": "xsd:decimal" })), eq("timeInterval", json!("P1M")),
    ] } }));
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &rent).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let early = consumer.transfer(&agreement, Some("early.bin")).await;
    let refused = consumer.wait_transfer(&early, "TERMINATED").await;
    assert!(refused.to_string().contains("compensate"), "{refused:#}");
    let payment = format!("/agreements/{agreement}/facts/payment");
    let paid = async |amount: Value, seconds: i64| {
        let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        let fact = json!({ "value": amount, "valid_until": until });
        provider.call(reqwest::Method::PUT, &payment, Some(&fact)).await.ok();
    };
    paid(json!(12.49), 60).await;
    let short = consumer.transfer(&agreement, Some("short.bin")).await;
    consumer.wait_transfer(&short, "TERMINATED").await;
    paid(json!(12.50), 600).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let there = provider.counterpart("transfers", &here).await;
    provider.wait_running(&there).await;
    crate::transfer::arrived(&consumer, 1024 * 1024).await;
    paid(json!(12.50), 2).await;
    both_ended(
        &provider,
        &consumer,
        &crate::transfer::Running { agreement: agreement.clone(), here, there },
        "compensate",
    )
    .await;
}

#[tokio::test]
async fn data_goes_to_the_connector_that_the_policy_names_and_to_no_other() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let connector = |name: &str| terms::under("idsc:CONNECTOR", "eq", name);
    let dataset = provider.publish("fairs", &connector("urn:story:consumer")).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    let other = format!("urn:sha256:{}", "0".repeat(64));
    let dataset = provider.publish("secrets", &connector(&other)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("secrets.csv")).await;
    let ended = consumer.wait_transfer(&here, "TERMINATED").await;
    assert!(ended["why"]["reason"].to_string().contains("the connector that the data goes to"), "{ended:#}");
    assert!(!consumer.received().join("secrets.csv").exists());
}

/// Gives a dataset of the provider's these labels.
async fn label(provider: &Participant, name: &str, labels: Value) {
    let dataset = json!({
        "id": format!("urn:story:dataset:{name}"), "title": name, "media_type": "text/csv", "labels": labels,
        "source": { "type": "file", "path": provider.source().join(name) },
    });
    provider.post("/datasets", dataset).await.ok();
}

#[tokio::test]
async fn a_label_that_the_policy_excludes_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    provider.write_sparse("stream", STREAM_BYTES);
    label(&provider, "stream", json!({ "skos:concept": ["trade"] })).await;
    let harmless = json!({ "permission": [{ "action": "use", "target": {
        "@type": "AssetCollection", "source": "urn:story:dataset:stream",
        "refinement": [{ "leftOperand": "skos:concept", "operator": "isNoneOf", "rightOperand": ["health", "confidential"] }],
    } }] });
    provider.add_offer("stream", "urn:story:dataset:stream", &harmless).await;
    let agreement = consumer.agree(&provider, "urn:story:dataset:stream").await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let there = provider.counterpart("transfers", &here).await;
    provider.wait_running(&there).await;
    crate::transfer::arrived(&consumer, 1024 * 1024).await;
    label(&provider, "stream", json!({ "skos:concept": ["trade", "confidential"] })).await;
    both_ended(
        &provider,
        &consumer,
        &crate::transfer::Running { agreement, here, there },
        "the classification of the dataset",
    )
    .await;
}

#[tokio::test]
async fn data_that_must_be_encrypted_at_its_source_leaves_while_it_is_said_to_be() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    provider.write_sparse("stream", STREAM_BYTES);
    label(&provider, "stream", json!({})).await;
    let encrypted = terms::under("idsc:ARTIFACT_STATE", "isAnyOf", "idsc:ENCRYPTED");
    provider.add_offer("stream", "urn:story:dataset:stream", &encrypted).await;
    let agreement = consumer.agree(&provider, "urn:story:dataset:stream").await;
    let early = consumer.transfer(&agreement, Some("early.bin")).await;
    let refused = consumer.wait_transfer(&early, "TERMINATED").await;
    assert!(refused["why"]["reason"].to_string().contains("ARTIFACT_STATE"), "{refused:#}");
    label(&provider, "stream", json!({ "idsc:ARTIFACT_STATE": "idsc:ENCRYPTED" })).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let there = provider.counterpart("transfers", &here).await;
    provider.wait_running(&there).await;
    crate::transfer::arrived(&consumer, 1024 * 1024).await;
    label(&provider, "stream", json!({})).await;
    both_ended(&provider, &consumer, &crate::transfer::Running { agreement, here, there }, "ARTIFACT_STATE").await;
}

#[tokio::test]
async fn an_obligation_of_the_policy_is_borne_by_every_use() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let obliged = json!({ "permission": [{ "action": "use" }], "obligation": [{ "action": "obtainConsent" }] });
    let dataset = provider.publish("fairs", &obliged).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let early = consumer.transfer(&agreement, Some("early.csv")).await;
    let refused = consumer.wait_transfer(&early, "TERMINATED").await;
    assert!(refused["why"]["reason"].to_string().contains("obtainConsent"), "{refused:#}");
    provider.call(reqwest::Method::PUT, &format!("/agreements/{agreement}/facts/consent"), Some(&json!({}))).await.ok();
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;

    let mut deleting = delete_within("PT0S");
    deleting["obligation"] = deleting["permission"][0].as_object_mut().unwrap().remove("duty").unwrap();
    let dataset = provider.publish("passing", &deleting).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("passing.csv")).await;
    deleted(&consumer, &here).await;
    assert!(!consumer.received().join("passing.csv").exists());
}

#[tokio::test]
async fn what_only_the_provider_knows_does_not_keep_a_consumer_from_its_duties() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let mut policy = delete_within("PT0S");
    policy["permission"][0]["constraint"] =
        json!([{ "leftOperand": "idsc:CONNECTOR", "operator": "eq", "rightOperand": "urn:story:consumer" }]);
    let dataset = provider.publish("fairs", &policy).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("fairs.csv")).await;
    deleted(&consumer, &here).await;
}
