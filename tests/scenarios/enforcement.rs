//! The policy holds in the stream: what it ends is cut, and both sides know why.

use kontor_tests::participant::{eventually, id_of};
use kontor_tests::terms::{self, for_seconds, open, times, under};
use kontor_tests::{DataSpace, Options, Participant, Reply};
use serde_json::{Value, json};

use crate::transfer::{
    IN_FLIGHT_MAX, Running, STREAM_BYTES, agreed, drain, granted, nothing_whole, read_until, running,
};

/// Both sides end the transfer with a reason that has these words, and no file is taken for whole.
pub(crate) async fn both_ended(
    provider: &Participant,
    consumer: &Participant,
    stream: &Running,
    words: &str,
) -> [Value; 2] {
    let there = provider.wait_transfer(&stream.there, "TERMINATED").await;
    let here = consumer.wait_transfer(&stream.here, "TERMINATED").await;
    for ended in [&here, &there] {
        assert!(ended["why"]["reason"].to_string().contains(words), "`{words}` is no reason in {ended:#}");
    }
    nothing_whole(consumer);
    let flows = provider.wait_flows(&stream.there, 1).await;
    assert_eq!(flows[0]["outcome"]["name"], "cut", "{flows:#?}");
    assert!(flows[0]["bytes"].as_u64() < Some(STREAM_BYTES));
    let received = consumer.wait_flows(&stream.here, 1).await;
    assert_ne!(received[0]["outcome"]["name"], "whole", "{received:#?}");
    [here, there]
}

#[tokio::test]
async fn the_end_of_the_permitted_time_cuts_a_running_stream() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &for_seconds(10), STREAM_BYTES).await;
    both_ended(&provider, &consumer, &stream, "the time is").await;
    let refused = consumer.try_transfer(&stream.agreement, Some("again.bin")).await;
    refused.refused(403, &["the time is"]);
}

#[tokio::test]
async fn a_reader_past_the_permitted_time_gets_a_visibly_broken_body() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &for_seconds(10)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    read_until(&mut body, 1024 * 1024).await.unwrap();
    // The reader is slow: the time ends while the stream waits for it.
    provider.wait_transfer(&granted.provider_pid, "TERMINATED").await;
    let (rest, broken) = drain(&mut body).await;
    assert!(broken && rest < IN_FLIGHT_MAX, "{rest} bytes came, broken: {broken}");
    let told = consumer.wait_for("TransferTerminationMessage").await;
    assert!(told.body["reason"].to_string().contains("the time is"), "{told:?}");
    let (status, _) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
    assert!(status == 401 || status == 403, "{status}");
}

#[tokio::test]
async fn a_count_of_one_lets_one_transfer_through_and_refuses_the_second_with_its_reason() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &times(1)).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let first = consumer.transfer(&agreement, Some("one.csv")).await;
    consumer.wait_transfer(&first, "COMPLETED").await;
    let second = consumer.try_transfer(&agreement, Some("two.csv")).await;
    let text = if second.status < 300 {
        let id = id_of(&second.body);
        let ended = consumer.wait_transfer(&id, "TERMINATED").await;
        ended["why"]["reason"].to_string()
    } else {
        second.body.to_string()
    };
    assert!(text.contains("this is use 2"), "{text}");
    assert!(!consumer.received().join("two.csv").exists());
    assert_eq!(provider.get(&format!("/agreements/{agreement}")).await.ok()["uses"], 1);
}

#[tokio::test]
async fn a_count_of_one_is_taken_once_by_many_requests_at_once() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish("fairs", &times(1)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let mut transfers = Vec::new();
    for _ in 0..4 {
        transfers.push(granted(&provider, &consumer, &agreement).await);
    }
    let fetched = transfers.iter().map(|granted| consumer.fetch(&provider, &granted.endpoint, &granted.token));
    let mut served = 0;
    for (status, body) in futures_util::future::join_all(fetched).await {
        match status {
            200 => served += 1,
            status => assert!(status == 403 || status == 401, "{status}: {body:?}"),
        }
    }
    assert_eq!(served, 1);
    assert_eq!(provider.get(&format!("/agreements/{agreement}")).await.ok()["uses"], 1);
}

#[tokio::test]
async fn a_revoked_agreement_cuts_what_runs_and_refuses_what_comes() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &open(), STREAM_BYTES).await;
    let body = json!({ "reason": "the fee was not paid" });
    let revoke = format!("/agreements/{}/revoke", stream.agreement);
    provider.post(&revoke, json!({ "reason": " " })).await.refused(400, &["reason"]);
    consumer.post(&revoke, body.clone()).await.refused(409, &["only its provider"]);
    let revoked = provider.post(&revoke, body).await.ok();
    let again = provider.post(&revoke, json!({ "reason": "another one" })).await.ok();
    assert_eq!(again, revoked, "what it was taken back for stays what it was");
    both_ended(&provider, &consumer, &stream, "the fee was not paid").await;
    let again = consumer.transfer(&stream.agreement, Some("again.bin")).await;
    let ended = consumer.wait_transfer(&again, "TERMINATED").await;
    assert!(ended.to_string().contains("the fee was not paid"), "{ended:#}");
}

#[tokio::test]
async fn a_withdrawn_dataset_cuts_what_runs_and_refuses_what_comes() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &open(), STREAM_BYTES).await;
    let dataset = id_of(&provider.list("datasets").await[0]);
    provider.delete(&format!("/datasets/{dataset}")).await.ok();
    both_ended(&provider, &consumer, &stream, "was withdrawn").await;
    let again = consumer.transfer(&stream.agreement, Some("again.bin")).await;
    let ended = consumer.wait_transfer(&again, "TERMINATED").await;
    assert!(ended.to_string().contains("was withdrawn"), "{ended:#}");
}

#[tokio::test]
async fn a_provider_that_is_stopped_keeps_how_far_its_flows_came() {
    let space = DataSpace::new();
    let short = Options { extra: "[limits]\ndrain_seconds_max = 1\n".to_owned(), ..Options::default() };
    let mut provider = space.participant_with("provider", &short);
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &open()).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    read_until(&mut body, 1024 * 1024).await.unwrap();
    // The reader reads no further, so that the flow outlasts the time that the end gives it.
    provider.stop();
    let (_, broken) = drain(&mut body).await;
    assert!(broken, "a cut stream ended as if it were whole");
    provider.start_again();
    let flows = provider.wait_flows(&granted.provider_pid, 1).await;
    assert_eq!(flows.len(), 1, "{flows:#?}");
    assert_ne!(flows[0]["outcome"]["name"], "whole", "{flows:#?}");
    assert!(flows[0]["bytes"].as_u64() >= Some(1024 * 1024), "{flows:#?}");
}

#[tokio::test]
async fn transfers_that_turn_at_the_same_instant_all_end_at_the_next() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let now = jiff::Timestamp::now();
    let [turn, end] = [15, 18].map(|seconds| now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap());
    let before = |until: jiff::Timestamp| json!({ "leftOperand": "dateTime", "operator": "lt", "rightOperand": until.to_string() });
    let fields = json!({ "leftOperand": "idsc:PATH", "operator": "isAnyOf", "rightOperand": ["$.id"] });
    let policy = json!({ "permission": [
        { "action": "use", "constraint": [before(turn)] },
        { "action": "use", "constraint": [fields, before(end)] },
    ] });
    let file = provider.write("ships.csv", b"id,name\n7,Adler\n");
    let dataset = provider.add_dataset("ships", &file).await;
    provider.add_offer("ships", &dataset, &policy).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let mut transfers = Vec::new();
    for _ in 0..3 {
        transfers.push(granted(&provider, &consumer, &agreement).await);
    }
    assert!(jiff::Timestamp::now() < turn, "the machine is too slow for this story");
    for granted in transfers {
        provider.wait_transfer(&granted.provider_pid, "TERMINATED").await;
    }
}

#[tokio::test]
async fn uses_that_are_reported_cut_a_running_stream_once_they_exceed_the_count() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &times(3), STREAM_BYTES).await;
    let uses = format!("/agreements/{}/uses", stream.agreement);
    assert_eq!(provider.post(&uses, json!({ "uses": 2 })).await.ok()["uses"], 3);
    assert_eq!(provider.transfer_state(&stream.there).await["state"], "STARTED", "three uses are permitted");
    provider.post(&uses, json!({ "uses": 1 })).await.ok();
    both_ended(&provider, &consumer, &stream, "this is use 4").await;
    provider.post(&uses, json!({ "uses": 0 })).await.refused(400, &["uses"]);
}

#[tokio::test]
async fn who_comes_back_before_the_loss_is_noticed_is_told_to_come_again_and_loses_no_use() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &times(1)).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    let granted = granted(&provider, &consumer, &agreement).await;
    let mut lost = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
    read_until(&mut lost, 1024 * 1024).await.unwrap();
    // The first connection is still there: as far as anybody can see, its reader only pauses.
    let back = async || consumer.open_from(&provider, &granted.endpoint, &granted.token, 1024 * 1024).await.status();
    assert_eq!(back().await, 503);
    drop(lost);
    let there = eventually(|| async { (back().await == 206).then_some(()) }).await;
    assert!(there.is_some(), "the reading could not go on");
    assert_eq!(provider.get(&format!("/agreements/{agreement}")).await.ok()["uses"], 1);
}

#[tokio::test]
async fn data_is_refused_before_its_time() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &under("dateTime", "gteq", "2100-01-01T00:00:00Z")).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    consumer.try_transfer(&agreement, Some("early.csv")).await.refused(403, &["the time is", "2100-01-01"]);
}

#[tokio::test]
async fn an_agreement_is_of_no_use_to_anybody_else() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let mallory = space.fake("mallory", |seen| Reply::ack(seen, &terms::urn())).await;
    let request = terms::transfer_request(&terms::urn(), &mallory.address, &agreement);
    let foreign = mallory.post(&provider, "/transfers/request", &request).await;
    foreign.refused(404, &["TransferError", "agreementId"]);
    let unknown = terms::urn();
    let request = terms::transfer_request(request["consumerPid"].as_str().unwrap(), &mallory.address, &unknown);
    let nothing = mallory.post(&provider, "/transfers/request", &request).await;
    assert_eq!(foreign.body.to_string().replace(&agreement, "…"), nothing.body.to_string().replace(&unknown, "…"));
    assert!(provider.list("transfers").await.is_empty());
}
