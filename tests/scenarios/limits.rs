//! Limits that an operator sets, set low and met: the refusal names the limit.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kontor_tests::participant::eventually;
use kontor_tests::terms::{self, open, urn};
use kontor_tests::{DataSpace, Options, Participant, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transfer::{agreed, granted};

fn set(extra: &str) -> Options {
    Options { extra: extra.to_owned(), ..Options::default() }
}

#[tokio::test]
async fn one_peer_cannot_open_more_processes_than_the_limit_and_another_still_can() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &set("[limits]\nopen_processes_max = 1\n"));
    let dataset = provider.publish("fairs", &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, &urn())).await;
    // A negotiation that is over is not open.
    let agreement = agreed(&provider, &peer, &dataset).await;
    granted(&provider, &peer, &agreement).await;
    let transfer = terms::transfer_request(&urn(), &peer.address, &agreement);
    let answer = peer.post(&provider, "/transfers/request", &transfer).await;
    answer.refused(429, &["TransferError", "limits.open_processes_max", "would have passed"]);

    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    // Without a verification it stays open.
    let ask = || terms::contract_request(&urn(), &peer.address, &offer);
    peer.post(&provider, "/negotiations/request", &ask()).await.ok();
    let answer = peer.post(&provider, "/negotiations/request", &ask()).await;
    answer.refused(429, &["ContractNegotiationError", "limits.open_processes_max", "would have passed"]);
    assert_eq!((provider.list("negotiations").await.len(), provider.list("transfers").await.len()), (2, 1));

    let other = space.fake("other", |seen| Reply::ack(seen, &urn())).await;
    let request = terms::contract_request(&urn(), &other.address, &offer);
    other.post(&provider, "/negotiations/request", &request).await.ok();
}

#[tokio::test]
async fn flows_beyond_the_limit_are_asked_to_come_back() {
    let space = DataSpace::new();
    let provider = space.participant_with("provider", &set("[data]\nflows_max = 1\n"));
    let dataset = provider.publish_sparse("stream", crate::transfer::STREAM_BYTES, &open()).await;
    let peer = space.fake("peer", |seen| Reply::ack(seen, &urn())).await;
    let agreement = agreed(&provider, &peer, &dataset).await;
    let granted = granted(&provider, &peer, &agreement).await;
    let running = peer.open(&provider, &granted.endpoint, &granted.token).await;
    assert_eq!(running.status(), 200);
    let (status, body) = peer.fetch(&provider, &granted.endpoint, &granted.token).await;
    let told = String::from_utf8_lossy(&body);
    assert!(status == 503 && told.contains("too-many-flows"), "{status}: {told}");
    drop(running);
    let again = eventually(|| async {
        let response = peer.open(&provider, &granted.endpoint, &granted.token).await;
        (response.status() == 200).then_some(())
    });
    assert!(again.await.is_some(), "the place of a flow that ended stays taken");
}

#[tokio::test]
async fn no_more_messages_are_on_their_way_at_once_than_the_limit() {
    const SLOW: Duration = Duration::from_millis(100);
    let space = DataSpace::new();
    let options = Options { delivery: "in_flight_max = 1".to_owned(), ..Options::default() };
    let provider = space.participant_with("provider", &options);
    let dataset = provider.publish("fairs", &open()).await;
    let came = Arc::<Mutex<Vec<Instant>>>::default();
    let come = came.clone();
    let peer = space.fake("slow", move |seen| {
        come.lock().unwrap().push(Instant::now());
        Reply::After(SLOW, Box::new(Reply::ack(seen, &urn())))
    });
    let peer = peer.await;
    let offer = terms::offer(&open(), "urn:story:offer:fairs", &dataset, &provider.id);
    for _ in 0..4 {
        let request = terms::contract_request(&urn(), &peer.address, &offer);
        peer.post(&provider, "/negotiations/request", &request).await.ok();
    }
    let all = eventually(|| async { (came.lock().unwrap().len() >= 4).then_some(()) }).await;
    assert!(all.is_some(), "a message never came");
    // Each waits for the answer to the one before it, however slow the machine is.
    for two in came.lock().unwrap().windows(2) {
        assert!(two[1].duration_since(two[0]) >= SLOW, "two messages were on their way at once");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended_with_the_limit_that_it_met() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let settings = "profile = \"insecure\"\nparticipant_id = \"provider\"\ndata_dir = \"state\"\n\
                    [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
                    [limits]\nrequest_seconds_max = 1\n";
    std::fs::write(folder.path().join("settings.toml"), settings).unwrap();
    let provider = Participant::insecure("provider", folder.path());
    let address = provider.origin();
    let mut socket = tokio::net::TcpStream::connect(address.trim_start_matches("https://")).await.unwrap();
    // The headers are whole; the body never comes.
    let head = "POST /dsp/2025-1/catalog/request HTTP/1.1\r\nHost: provider\r\nAuthorization: {\"clientId\":\"peer\"}\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    // The connection may live on, waiting for the body; the answer does not.
    let mut answer = Vec::new();
    let said = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
    while !said(&answer).contains("would have passed") {
        assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "it hung up: {}", said(&answer));
    }
    let answer = said(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("CatalogError") && answer.contains("limits.request_seconds_max"), "{answer}");
}
