//! The limits of the accept loop and the shape of bodies, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use ::http::Request;
use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use kontor_core::id::ParticipantId;
use kontor_wire::client::{ClientLimits, PeerClient, PeerError};
use kontor_wire::egress::EgressFilter;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::serve::{ServeLimits, require_peer, serve_insecure_headers, serve_mutual_tls, serve_plain};
use kontor_wire::tls::TlsIdentity;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const PIECE: usize = 128 * 1024;
const PIECES: usize = 512; // 64 MiB
const SHORT: Duration = Duration::from_millis(100);

fn piece(number: usize) -> Bytes {
    Bytes::from(vec![u8::try_from(number % 251).unwrap(); PIECE])
}

fn digest_of_all() -> Vec<u8> {
    let mut digest = Sha256::new();
    (0..PIECES).for_each(|number| digest.update(piece(number)));
    digest.finalize().to_vec()
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/empty", get(|| async {}))
        .route("/large", get(|| async { vec![b'x'; 100_000] }))
        .route("/never", get(|| async { std::future::pending::<()>().await }))
        .route(
            "/stream",
            get(|| async {
                Body::from_stream(stream::iter((0..PIECES).map(|number| Ok::<_, std::io::Error>(piece(number)))))
            }),
        )
        .route(
            "/cut",
            get(|| async {
                let pieces = (0..8).map(|number| if number < 4 { Ok(piece(number)) } else { Err("revoked") });
                Body::from_stream(stream::iter(pieces))
            }),
        )
        .route(
            "/digest",
            post(|body: Body| async move {
                let mut digest = Sha256::new();
                let mut body = body;
                while let Some(frame) = body.frame().await {
                    digest.update(frame.unwrap().into_data().unwrap());
                }
                digest.finalize().to_vec()
            }),
        )
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn plain(limits: ServeLimits) -> (SocketAddr, CancellationToken) {
    let (listener, address) = listen().await;
    let shutdown = CancellationToken::new();
    tokio::spawn(serve_plain(listener, router(), limits, shutdown.clone()));
    (address, shutdown)
}

fn id() -> ParticipantId {
    ParticipantId::parse("did:web:one.example").unwrap()
}

struct Secure {
    _dir: TempDir,
    address: SocketAddr,
    client: PeerClient,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn secure(limits: ServeLimits, client: ClientLimits) -> Secure {
    let dir = TempDir::new().unwrap();
    let ca = Authority::generate("Test CA").unwrap();
    let request = CertificateRequest::new(id(), vec!["127.0.0.1".to_owned()]);
    let identity = TlsIdentity::load(&ca.issue(&request).unwrap().save(dir.path(), "one", &ca).unwrap()).unwrap();
    let (listener, address) = listen().await;
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve_mutual_tls(listener, identity.clone(), router(), limits, shutdown.clone()));
    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    Secure { _dir: dir, address, client: PeerClient::mutual_tls(identity, egress, client), shutdown, served }
}

impl Secure {
    fn get(&self, path: &str) -> Request<Bytes> {
        Request::get(format!("https://{}{path}", self.address)).body(Bytes::new()).unwrap()
    }
}

/// Sends raw bytes and reads until the server closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server did not close");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn sixty_four_mebibytes_come_down_whole() {
    let two = secure(ServeLimits::default(), ClientLimits::default()).await;
    let mut body = two.client.open(&id(), two.get("/stream")).await.unwrap().into_body();
    let mut digest = Sha256::new();
    while let Some(frame) = body.frame().await {
        digest.update(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(digest.finalize().to_vec(), digest_of_all());
}

#[tokio::test]
async fn sixty_four_mebibytes_go_up_whole() {
    let two = secure(ServeLimits::default(), ClientLimits::default()).await;
    let all: Vec<u8> = (0..PIECES).flat_map(piece).collect();
    let url = format!("https://{}/digest", two.address);
    let answer = two.client.send(&id(), Request::post(url).body(all.into()).unwrap()).await.unwrap();
    assert_eq!(answer.into_body(), digest_of_all());
}

#[tokio::test]
async fn a_cut_body_never_looks_whole_and_keeps_what_was_permitted() {
    let two = secure(ServeLimits::default(), ClientLimits::default()).await;
    let mut body = two.client.open(&id(), two.get("/cut")).await.unwrap().into_body();
    let mut received = 0;
    let ended = loop {
        match body.frame().await {
            Some(Ok(frame)) => received += frame.into_data().unwrap().len(),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(ended.is_some(), "the cut body ended as if it were whole");
    assert_eq!(received, 4 * PIECE);
}

#[tokio::test]
async fn a_cut_body_over_plain_http_ends_in_an_error() {
    let (address, _shutdown) = plain(ServeLimits::default()).await;
    let response = reqwest::get(format!("http://{address}/cut")).await.unwrap();
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn an_empty_answer_without_a_content_type_is_an_answer() {
    let two = secure(ServeLimits::default(), ClientLimits::default()).await;
    let answer = two.client.send(&id(), two.get("/empty")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 0));
}

#[tokio::test]
async fn a_long_answer_and_a_missing_one_are_refused() {
    let limits = ClientLimits { response_bytes_max: 1000, ..ClientLimits::default() };
    let two = secure(ServeLimits::default(), limits).await;
    let error = two.client.send(&id(), two.get("/large")).await.unwrap_err();
    assert!(matches!(error, PeerError::TooLarge { limit: 1000, .. }) && !error.is_retryable(), "{error:?}");
    let limits = ClientLimits { header_timeout: SHORT, ..ClientLimits::default() };
    let two = secure(ServeLimits::default(), limits).await;
    let error = two.client.send(&id(), two.get("/never")).await.unwrap_err();
    assert!(matches!(error, PeerError::Timeout { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let limits = ServeLimits { idle_timeout: Duration::from_millis(20), ..ServeLimits::default() };
    let two = secure(limits, ClientLimits::default()).await;
    for _ in 0..20 {
        let answer = two.client.send(&id(), two.get("/")).await.unwrap();
        assert_eq!(answer.into_body(), "here");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn large_heads_and_many_fields_are_answered_with_431() {
    let limits = ServeLimits { header_bytes_max: 8192, headers_max: 8, ..ServeLimits::default() };
    let (address, _shutdown) = plain(limits).await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(9000));
    assert!(raw(address, large.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(9));
    assert!(raw(address, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // A head that never ends is not buffered for ever.
    let endless = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {}", "x".repeat(1 << 20));
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let _ = tcp.write_all(endless.as_bytes()).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), tcp.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "an endless head was buffered on");
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let slow = ServeLimits { header_timeout: SHORT, idle_timeout: Duration::from_secs(3600), ..ServeLimits::default() };
    let (address, _shutdown) = plain(slow).await;
    assert_eq!(raw(address, b"GET / HT").await, "");
    let idle = ServeLimits { idle_timeout: SHORT, header_timeout: Duration::from_secs(3600), ..ServeLimits::default() };
    let (address, _shutdown) = plain(idle).await;
    assert_eq!(raw(address, b"").await, "");
    assert!(raw(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ends_with("here"));
}

#[tokio::test]
async fn a_handshake_that_does_not_begin_is_closed() {
    let limits = ServeLimits { handshake_timeout: SHORT, ..ServeLimits::default() };
    let two = secure(limits, ClientLimits::default()).await;
    assert_eq!(raw(two.address, b"").await, "");
    // Plain HTTP at the TLS port gets no answer in plain HTTP.
    assert!(!raw(two.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_peer_that_takes_no_bytes_loses_its_connection() {
    let limits = ServeLimits { stall_timeout: SHORT, ..ServeLimits::default() };
    let (address, shutdown) = plain(limits).await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(SHORT * 20).await;
    let mut bytes = Vec::new();
    let _ = tcp.read_to_end(&mut bytes).await;
    assert!(bytes.len() < PIECE * PIECES, "the whole body came although nobody took it");
    shutdown.cancel();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let limits = ServeLimits { connections_max: 1, ..ServeLimits::default() };
    let (address, _shutdown) = plain(limits).await;
    let first = TcpStream::connect(address).await.unwrap();
    let second =
        tokio::spawn(async move { raw(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await });
    tokio::time::sleep(SHORT).await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().ends_with("here"));
}

#[tokio::test]
async fn shutdown_waits_for_the_busy_and_then_cuts_them() {
    let limits = ServeLimits { drain_timeout: SHORT, ..ServeLimits::default() };
    let two = secure(limits, ClientLimits::default()).await;
    two.client.send(&id(), two.get("/")).await.unwrap();
    let peer = id();
    let (busy, ()) = tokio::join!(two.client.send(&peer, two.get("/never")), async {
        tokio::time::sleep(SHORT).await;
        two.shutdown.cancel();
    });
    assert!(busy.is_err());
    let served = tokio::time::timeout(Duration::from_secs(5), two.served).await;
    assert!(served.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn insecure_identities_stay_on_loopback_and_need_their_header() {
    let anywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused =
        serve_insecure_headers(anywhere, router(), ServeLimits::default(), CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("loopback only"));

    let (listener, address) = listen().await;
    let guarded = require_peer(router()).merge(Router::new().route("/open", get(|| async { "open" })));
    tokio::spawn(serve_insecure_headers(listener, guarded, ServeLimits::default(), CancellationToken::new()));
    // What is not a claim is a token; whoever takes tokens looks at them. What looks like a claim must be one.
    for (authorization, open) in
        [("", "200"), ("authorization: Bearer token\r\n", "200"), ("authorization: {}\r\n", "401")]
    {
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{authorization}connection: close\r\n\r\n");
        let bare = raw(address, ask("/").as_bytes()).await;
        assert!(bare.starts_with("HTTP/1.1 401") && bare.contains("clientId"), "{bare}");
        let answer = raw(address, ask("/open").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {open}")), "{authorization}: {answer}");
    }
    let own = ParticipantId::parse_insecure("CONSUMER").unwrap();
    let client = PeerClient::insecure(own, EgressFilter::insecure(), ClientLimits::default());
    let request = |host: &str| Request::get(format!("http://{host}/")).body(Bytes::new()).unwrap();
    assert_eq!(client.send(&id(), request(&address.to_string())).await.unwrap().status(), 200);
    assert!(matches!(client.send(&id(), request("9.9.9.9")).await.unwrap_err(), PeerError::Egress(_)));
}
