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
    // It waits for room: what came stays, and no use is lost.
    consumer.wait_transfer(&here, "SUSPENDED").await;
    let there = provider.counterpart("transfers", &here).await;
    let told = provider.wait_transfer(&there, "SUSPENDED").await;
    assert!(told.to_string().contains("disk is full"), "{told:#}");
    let path = consumer.received().display().to_string();
    assert!(!told.to_string().contains(&path), "the provider learns our paths: {told:#}");
    arrived(&consumer, MIB).await;
    let audit = consumer.audit(&here).await;
    assert!(
        audit.iter().any(|line| line["event"] == "pull.unwritable" && line.to_string().contains(&path)),
        "{audit:#?}"
    );
}

#[tokio::test]
async fn nobody_completes_a_transfer_whose_data_is_not_there() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    let words = ["transfer.not-complete", "has moved all its data", "`suspend` or `terminate`"];
    provider.act_transfer(&stream.there, "complete", json!({})).await.refused(409, &words);
    consumer.act_transfer(&stream.here, "complete", json!({})).await.refused(409, &words);
    consumer.wait_transfer(&stream.here, "COMPLETED").await;
    assert_eq!(std::fs::metadata(consumer.received().join("stream.bin")).unwrap().len(), RESUMED_BYTES);
}

#[tokio::test]
async fn a_provider_that_completes_too_early_is_told_of_at_the_consumer() {
    let space = DataSpace::new();
    let consumer = space.participant("consumer");
    let answer = |seen: &Recorded| match seen.path.ends_with("/nothing") {
        true => Reply::Never,
        false => Reply::ack(seen, "urn:uuid:there"),
    };
    let provider = space.fake("hasty", answer).await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", "urn:story:dataset:fairs", &provider.id);
    let body = json!({ "counterparty": provider.id, "address": provider.address, "offer": offer });
    let here = kontor_tests::participant::id_of(&consumer.post("/negotiations", body).await.ok());
    consumer.wait_negotiation(&here, "REQUESTED").await;
    let agreement =
        terms::agreement(&open(), "urn:uuid:agreement", "urn:story:dataset:fairs", &provider.id, &consumer.id);
    let pids = json!({ "consumerPid": here, "providerPid": "urn:uuid:there" });
    let say = async |path: String, kind: &str, more: Value| {
        let mut message = terms::message(kind, pids.clone());
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        provider.post(&consumer, &path, &message).await.ok();
    };
    say(format!("/negotiations/{here}/agreement"), "ContractAgreementMessage", json!({ "agreement": agreement })).await;
    consumer.wait_negotiation(&here, "VERIFIED").await;
    let finalized = json!({ "eventType": "FINALIZED" });
    say(format!("/negotiations/{here}/events"), "ContractNegotiationEventMessage", finalized).await;
    let transfer = consumer.transfer("urn:uuid:agreement", Some("stream.bin")).await;
    consumer.wait_transfer(&transfer, "REQUESTED").await;
    let address = json!({ "@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
        "endpoint": format!("{}/nothing", provider.address), "endpointProperties": [] });
    let pids = json!({ "consumerPid": transfer, "providerPid": "urn:uuid:there" });
    let mut start = terms::message("TransferStartMessage", pids.clone());
    start["dataAddress"] = address;
    provider.post(&consumer, &format!("/transfers/{transfer}/start"), &start).await.ok();
    let completion = terms::message("TransferCompletionMessage", pids);
    provider.post(&consumer, &format!("/transfers/{transfer}/completion"), &completion).await.ok();
    let ended = consumer.wait_transfer(&transfer, "COMPLETED").await;
    let told = eventually(|| async { consumer.transfer_state(&transfer).await["problem"].as_str().map(str::to_owned) });
    let told = told.await.unwrap_or_else(|| panic!("{ended:#}"));
    assert!(told.contains("before its data was here"), "{told}");
}

#[tokio::test]
async fn a_sink_is_looked_at_when_it_is_named() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    let stream = running(&provider, &consumer, &in_its_time(), RESUMED_BYTES).await;
    std::fs::write(consumer.received().join("there.csv"), "mine").unwrap();
    for (path, status, words) in [
        ("../evil", 400, ["sink.path", "below the sink root"]),
        ("/tmp/evil", 400, ["sink.path", "below the sink root"]),
        ("", 400, ["sink.path", "below the sink root"]),
        ("there.csv", 409, ["sink.path", "exists already"]),
        ("stream.bin", 409, ["sink.path", "is writing"]),
    ] {
        consumer.try_transfer(&stream.agreement, Some(path)).await.refused(status, &words);
    }
    assert_eq!(consumer.list("transfers").await.len(), 1, "a refused one was begun");
}

#[tokio::test]
async fn a_folder_is_offered_with_all_its_files_or_not_at_all() {
    let space = DataSpace::new();
    let (provider, consumer) = space.pair();
    provider.write("fairs/one.csv", b"1");
    let source = json!({ "type": "directory", "path": provider.source().join("fairs") });
    let dataset = json!({ "id": "urn:story:dataset:fairs", "title": "Fairs", "source": source });
    provider.write("fairs/two\nlines.csv", b"2");
    let refused = provider.post("/datasets", dataset.clone()).await;
    refused.refused(400, &["source.path", "cannot be told to others", "with all its files"]);
    std::fs::remove_file(provider.source().join("fairs/two\nlines.csv")).unwrap();
    provider.post("/datasets", dataset).await.ok();
    provider.add_offer("fairs", "urn:story:dataset:fairs", &open()).await;
    let agreement = consumer.agree(&provider, "urn:story:dataset:fairs").await;
    // One that comes later is no reason to bring the others as if they were all.
    provider.write("fairs/three\nlines.csv", b"3");
    let body = json!({ "agreement": agreement, "sink": { "type": "directory", "path": "fairs" } });
    let here = kontor_tests::participant::id_of(&consumer.post("/transfers", body).await.ok());
    let ended = consumer.wait_transfer(&here, "TERMINATED").await;
    assert!(ended.to_string().contains("cannot be told"), "{ended:#}");
    provider.wait_log("cannot be listed whole").await;
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
