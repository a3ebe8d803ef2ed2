//! Transfers: bytes, suspension, resumption, termination.

use http_body_util::BodyExt as _;
use kontor_tests::participant::{PATIENCE, eventually};
use kontor_tests::terms::{self, open};
use kontor_tests::{DataSpace, FakePeer, Options, Participant, Recorded, Reply};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
/// Big enough that it still flows when a test acts, and takes no room at the source.
pub(crate) const STREAM_BYTES: u64 = 64 * 1024 * MIB;
/// For streams that are suspended on their way and must arrive in the end.
pub(crate) const RESUMED_BYTES: u64 = 64 * MIB;
/// What may still arrive after a cut: buffers of sockets, TLS and the test itself.
pub(crate) const IN_FLIGHT_MAX: u64 = 32 * MIB;

/// A transfer that was started for a consumer that the test plays.
pub(crate) struct Granted {
    pub(crate) consumer_pid: String,
    pub(crate) provider_pid: String,
    pub(crate) endpoint: String,
    pub(crate) token: String,
}

/// Use, at a pace at which [`RESUMED_BYTES`] take some seconds, however fast the machine is.
pub(crate) fn in_its_time() -> Value {
    let mut policy = terms::under("idsc:RECURRENCE_RATE", "lteq", "16");
    policy["permission"][0]["constraint"][0]["unit"] = json!("MBy/s");
    policy
}

/// Plays a consumer until a contract is in force; returns the agreement's id.
pub(crate) async fn agreed(provider: &Participant, consumer: &FakePeer, dataset: &str) -> String {
    let found = consumer.get(provider, &format!("/catalog/datasets/{dataset}")).await.ok();
    let policy = found["hasPolicy"][0].clone();
    let offer = terms::offer(&policy, policy["@id"].as_str().unwrap(), dataset, &provider.id);
    let pid = terms::urn();
    let request = terms::contract_request(&pid, &consumer.address, &offer);
    let ack = consumer.post(provider, "/negotiations/request", &request).await.ok();
    let there = ack["providerPid"].as_str().unwrap().to_owned();
    let seen = consumer.wait_for_to("ContractAgreementMessage", &pid).await;
    let agreement = seen.body["agreement"]["@id"].as_str().unwrap().to_owned();
    let verification =
        terms::message("ContractAgreementVerificationMessage", json!({ "consumerPid": pid, "providerPid": there }));
    consumer.post(provider, &format!("/negotiations/{there}/agreement/verification"), &verification).await.ok();
    provider.wait_negotiation(&there, "FINALIZED").await;
    agreement
}

/// Plays a consumer that requests a transfer, and takes the data address.
pub(crate) async fn granted(provider: &Participant, consumer: &FakePeer, agreement: &str) -> Granted {
    let pid = terms::urn();
    let request = terms::transfer_request(&pid, &consumer.address, agreement);
    let ack = consumer.post(provider, "/transfers/request", &request).await.ok();
    let seen = consumer.wait_for_to("TransferStartMessage", &pid).await;
    let (endpoint, token) = data_address(&seen);
    Granted { consumer_pid: pid, provider_pid: ack["providerPid"].as_str().unwrap().to_owned(), endpoint, token }
}

/// The endpoint and the token of a start message.
pub(crate) fn data_address(start: &Recorded) -> (String, String) {
    let address = &start.body["dataAddress"];
    let properties = address["endpointProperties"].as_array().unwrap();
    let token = properties.iter().find(|property| property["name"] == "authorization").unwrap();
    (address["endpoint"].as_str().unwrap().to_owned(), token["value"].as_str().unwrap().to_owned())
}

/// Reads a body until it has so many bytes, ends, or breaks.
pub(crate) async fn read_until(body: &mut kontor_wire::client::PeerBody, bytes: u64) -> Result<u64, hyper::Error> {
    let mut read = 0;
    while read < bytes {
        match tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() {
            None => break,
            Some(frame) => read += frame?.into_data().map_or(0, |data| data.len() as u64),
        }
    }
    Ok(read)
}

/// Reads what is left after a cut: the bytes that came, and whether the body broke visibly.
pub(crate) async fn drain(body: &mut kontor_wire::client::PeerBody) -> (u64, bool) {
    let mut read = 0;
    loop {
        assert!(read < STREAM_BYTES / 4, "a body that was to be cut goes on and on");
        match tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() {
            None => return (read, false),
            Some(Err(_)) => return (read, true),
            Some(Ok(frame)) => read += frame.into_data().map_or(0, |data| data.len() as u64),
        }
    }
}

/// A running stream between two connectors.
pub(crate) struct Running {
    pub(crate) agreement: String,
    pub(crate) here: String,
    pub(crate) there: String,
}

pub(crate) async fn running(provider: &Participant, consumer: &Participant, policy: &Value, bytes: u64) -> Running {
    let dataset = provider.publish_sparse("stream", bytes, policy).await;
    let agreement = consumer.agree(provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let there = provider.counterpart("transfers", &here).await;
    provider.wait_running(&there).await;
    arrived(consumer, MIB).await;
    Running { agreement, here, there }
}

/// Waits until so many bytes have arrived beside the final name.
pub(crate) async fn arrived(consumer: &Participant, bytes: u64) {
    let found = eventually(|| async {
        let parts = std::fs::read_dir(consumer.received()).unwrap().flatten();
        let mut parts = parts.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
        parts.any(|entry| entry.metadata().is_ok_and(|about| about.len() >= bytes)).then_some(())
    })
    .await;
    assert!(found.is_some(), "nothing arrives at {}", consumer.id);
}

/// No file under its final name, whatever lies beside.
pub(crate) fn nothing_whole(consumer: &Participant) {
    assert!(!consumer.received().join("stream.bin").exists(), "a cut stream is taken for a whole one");
}

#[tokio::test]
async fn a_folder_arrives_file_by_file() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    for (name, text) in [("fairs/one.csv", "1"), ("fairs/two.csv", "22"), ("fairs/deep/three.csv", "333")] {
        provider.write(name, text.as_bytes());
    }
    let dataset = json!({
        "id": "urn:story:dataset:fairs", "title": "Fairs",
        "source": { "type": "directory", "path": provider.source().join("fairs") },
    });
    provider.post("/datasets", dataset).await.ok();
    provider.add_offer("fairs", "urn:story:dataset:fairs", &terms::times(1)).await;
    let agreement = consumer.agree(&provider, "urn:story:dataset:fairs").await;
    let body = json!({ "agreement": agreement, "sink": { "type": "directory", "path": "fairs" } });
    let transfer = kontor_tests::participant::id_of(&consumer.post("/transfers", body).await.ok());
    consumer.wait_transfer(&transfer, "COMPLETED").await;
    let received = consumer.received().join("fairs");
    for (name, text) in [("one.csv", "1"), ("two.csv", "22"), ("deep/three.csv", "333")] {
        assert_eq!(std::fs::read_to_string(received.join(name)).unwrap(), text);
    }
    let there = provider.counterpart("transfers", &transfer).await;
    assert_eq!(consumer.wait_flows(&transfer, 3).await.len(), provider.wait_flows(&there, 3).await.len());
}

#[tokio::test]
async fn a_running_stream_is_suspended_and_goes_on_where_it_was() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let bytes = RESUMED_BYTES;
    let stream = running(&provider, &consumer, &in_its_time(), bytes).await;
    arrived(&consumer, 8 * MIB).await;
    provider.act_transfer(&stream.there, "suspend", json!({ "reason": "stocktaking" })).await.ok();
    provider.wait_transfer(&stream.there, "SUSPENDED").await;
    let suspended = consumer.wait_transfer(&stream.here, "SUSPENDED").await;
    assert!(suspended.to_string().contains("stocktaking"), "{suspended:#}");
    nothing_whole(&consumer);
    let cut = provider.wait_flows(&stream.there, 1).await;
    assert_eq!(cut[0]["outcome"]["name"], "cut", "{cut:#?}");
    assert!(cut[0]["outcome"]["reason"].to_string().contains("stocktaking"), "{cut:#?}");
    consumer.wait_flows(&stream.here, 1).await;

    // Only who suspended may start again.
    let refused = consumer.act_transfer(&stream.here, "resume", json!({})).await;
    assert!(refused.status >= 400 && refused.body.to_string().contains("SUSPENDED"), "{refused:?}");
    provider.act_transfer(&stream.there, "resume", json!({})).await.ok();
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    provider.wait_transfer(&stream.there, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), bytes);

    let (mine, theirs) = (consumer.wait_flows(&stream.here, 2).await, provider.wait_flows(&stream.there, 2).await);
    let whole = |flows: &[Value]| flows.iter().find(|flow| flow["outcome"]["name"] == "whole").cloned().unwrap();
    let (last, sent) = (whole(&mine), whole(&theirs));
    assert!(last["offset"].as_u64() > Some(0), "it began again from the start: {mine:#?}");
    for member in ["offset", "bytes", "digest_blake3"] {
        assert_eq!(last[member], sent[member], "{member}");
    }
    assert_eq!(last["offset"].as_u64().unwrap() + last["bytes"].as_u64().unwrap(), bytes);
    let agreement = provider.get(&format!("/agreements/{}", stream.agreement)).await.ok();
    assert_eq!(agreement["uses"], 1, "a resumption is no second use");
}

#[tokio::test]
async fn a_consumer_can_suspend_and_resume_too() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    arrived(&consumer, 8 * MIB).await;
    consumer.act_transfer(&stream.here, "suspend", json!({ "reason": "no room" })).await.ok();
    consumer.wait_transfer(&stream.here, "SUSPENDED").await;
    let suspended = provider.wait_transfer(&stream.there, "SUSPENDED").await;
    assert!(suspended.to_string().contains("no room"), "{suspended:#}");
    nothing_whole(&consumer);
    let refused = provider.act_transfer(&stream.there, "resume", json!({})).await;
    assert!(refused.status >= 400, "{refused:?}");
    consumer.act_transfer(&stream.here, "resume", json!({})).await.ok();
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    provider.wait_transfer(&stream.there, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), RESUMED_BYTES);
}

#[tokio::test]
async fn a_suspended_transfer_refuses_bytes_and_a_cut_is_visible() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let dataset = provider.publish_sparse("stream", STREAM_BYTES, &open()).await;
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    let agreement = agreed(&provider, &consumer, &dataset).await;
    for action in ["suspend", "terminate"] {
        let granted = granted(&provider, &consumer, &agreement).await;
        let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
        read_until(&mut body, MIB).await.unwrap();
        provider.act_transfer(&granted.provider_pid, action, json!({ "reason": "stop here" })).await.ok();
        let (rest, broken) = drain(&mut body).await;
        assert!(broken, "{action}: the cut body ended as if it were whole");
        assert!(rest < IN_FLIGHT_MAX, "{action}: {rest} bytes came after the cut");
        let (status, body) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
        assert!((400..500).contains(&status), "{action}: {status}");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 401 || text.contains("stop here"), "{action}: {text}");
    }
}

#[tokio::test]
async fn either_side_can_terminate_a_transfer_in_every_state() {
    let space = DataSpace::new();
    let (provider, consumer) = (space.participant_with("provider", &Options::manual()), space.participant("consumer"));
    let dataset = provider.publish("fairs", &open()).await;
    let (here, there) = crate::begun(&provider, &consumer, &dataset).await;
    provider.act(&there, "agree", json!({})).await.ok();
    provider.wait_negotiation(&there, "VERIFIED").await;
    provider.act(&there, "finalize", json!({})).await.ok();
    let done = consumer.wait_negotiation(&here, "FINALIZED").await;
    let agreement = done["agreement"]["id"].as_str().unwrap();
    for state in ["REQUESTED", "STARTED", "SUSPENDED"] {
        for by_provider in [true, false] {
            let here = consumer.transfer(agreement, None).await;
            consumer.wait_transfer(&here, "REQUESTED").await;
            let there = provider.counterpart("transfers", &here).await;
            let (who, id) = if by_provider { (&provider, &there) } else { (&consumer, &here) };
            if state != "REQUESTED" {
                provider.act_transfer(&there, "start", json!({})).await.ok();
                consumer.wait_transfer(&here, "STARTED").await;
                provider.wait_transfer(&there, "STARTED").await;
            }
            if state == "SUSPENDED" {
                who.act_transfer(id, "suspend", json!({})).await.ok();
                consumer.wait_transfer(&here, state).await;
                provider.wait_transfer(&there, state).await;
            }
            let reason = format!("over in {state}");
            who.act_transfer(id, "terminate", json!({ "reason": reason })).await.ok();
            for ended in
                [consumer.wait_transfer(&here, "TERMINATED").await, provider.wait_transfer(&there, "TERMINATED").await]
            {
                assert_eq!(ended["why"]["by"], if by_provider { "provider" } else { "consumer" }, "{ended:#}");
                assert_eq!(ended["why"]["reason"], json!([reason]));
            }
        }
    }
}

#[tokio::test]
async fn a_source_that_shrinks_or_vanishes_breaks_the_stream_visibly() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let consumer = space.fake("reader", |seen| Reply::ack(seen, &terms::urn())).await;
    for (name, vanish) in [("shrinks", false), ("vanishes", true)] {
        let dataset = provider.publish_sparse(name, STREAM_BYTES, &open()).await;
        let agreement = agreed(&provider, &consumer, &dataset).await;
        let granted = granted(&provider, &consumer, &agreement).await;
        let file = provider.source().join(name);
        let mut body = consumer.open(&provider, &granted.endpoint, &granted.token).await.into_body();
        read_until(&mut body, MIB).await.unwrap();
        if vanish {
            std::fs::remove_file(&file).unwrap();
        } else {
            std::fs::File::options().write(true).open(&file).unwrap().set_len(2 * MIB).unwrap();
        }
        let (rest, broken) = drain(&mut body).await;
        assert!(broken && rest < IN_FLIGHT_MAX, "{name}: {rest} bytes came, broken: {broken}");
        let flows = provider.wait_flows(&granted.provider_pid, 1).await;
        assert_eq!(flows[0]["outcome"]["name"], "failed", "{name}: {flows:#?}");
        assert!(!granted.consumer_pid.is_empty());
        if vanish {
            let (status, body) = consumer.fetch(&provider, &granted.endpoint, &granted.token).await;
            assert_eq!(status, 404, "{body:?}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_at_the_sink_leaves_no_file_and_says_so() {
    let space = DataSpace::new();
    let provider = space.participant("provider");
    let consumer = space.participant_with("consumer", &Options { file_kib_max: Some(8 * 1024), ..Options::default() });
    let dataset = provider.publish_sparse("stream", 64 * MIB, &open()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    let here = consumer.transfer(&agreement, Some("stream.bin")).await;
    let told = eventually(|| async {
        let now = consumer.transfer_state(&here).await.to_string();
        let flows = json!(consumer.flows(&here).await).to_string();
        (now.contains("disk is full") || flows.contains("disk is full")).then_some(())
    })
    .await;
    assert!(told.is_some(), "nobody says that the disk is full: {:#}", consumer.transfer_state(&here).await);
    nothing_whole(&consumer);
    let there = provider.counterpart("transfers", &here).await;
    assert_ne!(provider.transfer_state(&there).await["state"], "COMPLETED");
}

#[tokio::test]
async fn commands_of_both_sides_at_once_end_in_one_state() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let dataset = provider.publish("fairs", &open()).await;
    let agreement = consumer.agree(&provider, &dataset).await;
    for (mine, theirs) in
        [("terminate", "terminate"), ("suspend", "terminate"), ("suspend", "suspend"), ("complete", "suspend")]
    {
        let here = consumer.transfer(&agreement, None).await;
        consumer.wait_transfer(&here, "STARTED").await;
        let there = provider.counterpart("transfers", &here).await;
        provider.wait_transfer(&there, "STARTED").await;
        // Either may be refused, once the other side's message is in.
        let reason = json!({ "reason": "at once" });
        let (_, _) = tokio::join!(
            consumer.act_transfer(&here, mine, if mine == "complete" { json!({}) } else { reason.clone() }),
            provider.act_transfer(&there, theirs, reason.clone()),
        );
        let settled = eventually(|| async {
            let (one, other) = (consumer.transfer_state(&here).await, provider.transfer_state(&there).await);
            let idle = one.get("pending").is_none() && other.get("pending").is_none();
            let waiting = consumer.outbox().await.len() + provider.outbox().await.len();
            (idle && waiting == 0 && one["state"] == other["state"] && one["state"] != "STARTED").then_some(())
        })
        .await;
        assert!(
            settled.is_some(),
            "{mine} and {theirs}: {:#} {:#}",
            consumer.transfer_state(&here).await,
            provider.transfer_state(&there).await
        );
    }
}
