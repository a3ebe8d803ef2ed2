//! Burdens of a permission, borne in the stream: fields, quantity, delay.

use kontor_tests::participant::eventually;
use kontor_tests::{DataSpace, Options, Reply, terms};
use serde_json::{Value, json};

use crate::transfer::{agreed, drain, granted, read_until};

fn used(constraint: Value, duty: &Value) -> Value {
    let mut permission = json!({ "action": "use", "constraint": [constraint] });
    if !duty.is_null() {
        permission["duty"] = duty.clone();
    }
    json!({ "permission": [permission] })
}

#[tokio::test]
async fn a_table_arrives_with_the_fields_that_the_policy_lets_through_and_both_digests_agree() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let rows: String = (0..5_000).map(|n| format!("{n},secret{n},ship {n},secret,14,1,3,secret\n")).collect();
    let header = "id,owner,name,note,length,depth,width,captain";
    let file = provider.write("ships.csv", format!("{header}\n{rows}").as_bytes());
    let kept = ["$.id", "$.name", "$.note", "$.length", "$.depth", "$.width", "$.captain"];
    let fields = json!({ "leftOperand": "idsc:PATH", "operator": "isAnyOf", "rightOperand": kept });
    let eq = |left: &str, right: &str| json!({ "leftOperand": left, "operator": "eq", "rightOperand": right });
    let change = |action: &str, field: &str, more: Option<Value>| {
        let refinement: Vec<Value> = [eq("idsc:JSON_PATH", field)].into_iter().chain(more).collect();
        json!({ "action": { "rdf:value": { "@id": action }, "refinement": refinement } })
    };
    let changes = json!([
        change("idsc:HASH", "$.name", None),
        change("idsc:REPLACE", "$.note", Some(eq("idsc:REPLACE_WITH", "x"))),
        change("idsc:ROUND", "$.length", Some(eq("idsc:OPERAND", "10"))),
        change("idsc:ADD", "$.depth", Some(eq("idsc:OPERAND", "0.5"))),
        change("idsc:MULTIPLY", "$.width", Some(eq("idsc:OPERAND", "2"))),
        change("idsc:DROP", "$.captain", None),
    ]);
    let dataset = provider.add_dataset("ships", &file).await;
    provider.add_offer("ships", &dataset, &used(fields, &changes)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("ships.csv")).await;
    consumer.wait_transfer(&here, "COMPLETED").await;
    let came = std::fs::read_to_string(consumer.received().join("ships.csv")).unwrap();
    assert_eq!(came.lines().next(), Some("id,name,note,length,depth,width"));
    assert!(came.lines().skip(1).all(|row| row.ends_with(",x,10,1.5,6")), "{came:.200}");
    assert_eq!(came.lines().count(), 5_001);
    assert!(!came.contains("secret") && !came.contains("ship "), "neither what was dropped nor what was hashed");
    let there = provider.counterpart("transfers", &here).await;
    let (sent, received) = (provider.wait_flows(&there, 1).await, consumer.wait_flows(&here, 1).await);
    assert_eq!(sent[0]["bytes"], came.len());
    assert_eq!(sent[0]["digest_blake3"], received[0]["digest_blake3"], "{sent:#?} {received:#?}");
}

#[tokio::test]
async fn a_quantity_holds_over_parallel_readers_and_a_crash_gives_nothing_back() {
    const MOST: u64 = 20_000_000;
    let space = DataSpace::new();
    let mut provider = space.participant("provider");
    let quantity = json!({ "leftOperand": "idsc:QUANTITY", "operator": "lteq", "rightOperand": "20", "unit": "MBy" });
    let dataset = provider.publish_sparse("stream", 2 * MOST, &used(quantity, &Value::Null)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let (one, two) = (granted(&provider, &consumer, &agreement).await, granted(&provider, &consumer, &agreement).await);
    let mut killed = consumer.open(&provider, &one.endpoint, &one.token).await.into_body();
    read_until(&mut killed, 1024 * 1024).await.unwrap();
    provider.kill9();
    drop(killed);
    provider.start_again();

    let mut first = consumer.open(&provider, &one.endpoint, &one.token).await.into_body();
    let mut second = consumer.open(&provider, &two.endpoint, &two.token).await.into_body();
    let ((first, first_broken), (second, second_broken)) = tokio::join!(drain(&mut first), drain(&mut second));
    assert!(first_broken && second_broken, "a cut body never looks whole");
    // Taken by parts; how many of them the reader's buffers drew is the machine's affair.
    let lost = MOST - (first + second);
    assert!(lost > 0 && lost.is_multiple_of(8 * 1024 * 1024), "what was taken before the crash stays taken: {lost}");
    let (status, body) = consumer.fetch(&provider, &one.endpoint, &one.token).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 403 && said.contains("quantity"), "{status}: {said}");
}

#[tokio::test]
async fn a_quantity_that_does_not_suffice_ends_the_transfer_at_both_sides() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let quantity = json!({ "leftOperand": "idsc:QUANTITY", "operator": "lteq", "rightOperand": "20", "unit": "MBy" });
    let dataset = provider.publish_sparse("stream", 40_000_000, &used(quantity, &Value::Null)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let ended = consumer.wait_transfer(&here, "TERMINATED").await;
    assert!(ended["why"]["reason"].to_string().contains("quantity"), "{ended:#}");
    let there = provider.counterpart("transfers", &here).await;
    let told = provider.wait_transfer(&there, "TERMINATED").await;
    assert!(told["why"]["reason"].to_string().contains("quantity"), "{told:#}");
    assert!(!consumer.received().join("stream.bin").exists(), "a cut stream was taken for whole");
}

#[tokio::test]
async fn before_the_delay_is_over_the_answer_is_not_yet() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let delay = json!({ "leftOperand": "delayPeriod", "operator": "eq",
        "rightOperand": { "@value": "PT1H", "@type": "xsd:duration" } });
    let dataset = provider.publish("fairs", &used(delay, &Value::Null)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let (status, body) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 503 && said.contains("lets nothing through before"), "{status}: {said}");
    assert_eq!(provider.get(&format!("/agreements/{agreement}")).await.ok()["uses"], 0);
}

#[tokio::test]
async fn as_many_records_arrive_as_the_policy_allows_and_the_cut_is_visible() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let records =
        json!({ "leftOperand": "idsc:QUANTITY", "operator": "lteq", "rightOperand": "3", "unit": "{record}" });
    let file = provider.write("ships.csv", format!("id\n{}", "7\n".repeat(10)).as_bytes());
    let dataset = provider.add_dataset("ships", &file).await;
    provider.add_offer("ships", &dataset, &used(records, &Value::Null)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    assert_eq!(drain(&mut body).await, (9, true), "a header row of three bytes, three records of two");
    let (status, _) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn no_more_bytes_come_at_once_than_the_rate_lets() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let rate =
        json!({ "leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": "500", "unit": "By/d" });
    let dataset = provider.publish_sparse("stream", 1_000_000, &used(rate, &Value::Null)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    let came = read_until(&mut body, 500).await.unwrap();
    provider.act_transfer(&granted.provider_pid, "terminate", json!({})).await.ok();
    let (rest, broken) = drain(&mut body).await;
    let flows = provider.wait_flows(&granted.provider_pid, 1).await;
    let seconds = |name: &str| flows[0][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    // However long it took: the burst, and what a day's rate brings in that time.
    let most = 500 + 500 * u64::try_from(seconds("ended") - seconds("started") + 1).unwrap() / 86_400 + 1;
    assert!(broken && came + rest <= most, "{came} and {rest} of {most}");
}

#[tokio::test]
async fn when_the_permission_without_burdens_ends_the_burdens_of_the_other_hold_for_the_same_token() {
    let space = DataSpace::new();
    let log = Options { extra: "[policy]\nlog = \"usage.log\"\n".to_owned(), ..Options::default() };
    let provider = space.participant_with("provider", &log);
    let turn = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(15)).unwrap();
    let until = json!({ "leftOperand": "dateTime", "operator": "lt", "rightOperand": turn.to_string() });
    let fields = json!({ "leftOperand": "idsc:PATH", "operator": "isAnyOf", "rightOperand": ["$.id"] });
    let policy = json!({ "permission": [
        { "action": "use", "constraint": [until] },
        { "action": "use", "constraint": [fields], "duty": [{ "action": "idsc:LOG" }] },
    ] });
    let file = provider.write("ships.csv", b"id,name\n7,Adler\n");
    let dataset = provider.add_dataset("ships", &file).await;
    provider.add_offer("ships", &dataset, &policy).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let fetch = async || {
        let (status, body) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(fetch().await, (200, "id,name\n7,Adler\n".to_owned()));
    assert!(jiff::Timestamp::now() < turn, "the machine is too slow for this story");
    assert!(!space.path().join("provider/usage.log").exists(), "nothing was to be logged so far");
    let later = eventually(|| async {
        let (asked, (status, body)) = (jiff::Timestamp::now(), fetch().await);
        assert!(asked < turn || status != 200 || !body.contains("Adler"), "{body}");
        (asked >= turn && status == 200).then_some(body)
    })
    .await;
    assert_eq!(later.as_deref(), Some("id\n7\n"));
    let logged = std::fs::read_to_string(space.path().join("provider/usage.log")).unwrap();
    assert!(logged.contains("use.begins"), "{logged}");
}
