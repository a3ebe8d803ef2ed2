//! The plane by its public face: in-process where frames are counted, over mutual TLS where the wire matters.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::peer::{Binding, VerifiedPeer};
use kontor_core::policy::StreamTerms;
use kontor_core::refusal::{Fault, Refusal};
use kontor_wire::client::{ClientLimits, PeerClient};
use kontor_wire::egress::EgressFilter;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::serve::{ServeLimits, serve_mutual_tls};
use kontor_wire::tls::TlsIdentity;
use kontor_wire::token::token_digest;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use url::Url;

use super::quota::Amount;
use super::*;
use crate::model::{FlowOutcome, FlowReport, SinkSpec, SourceSpec, TokenBinding};

mod limits;
mod memory;
mod terms;

const PROVIDER: &str = "did:web:provider.example";
const CONSUMER: &str = "did:web:consumer.example";
const TOKEN: &str = "the-token";
const SEGMENT: usize = 4096;

fn id(text: &str) -> ParticipantId {
    ParticipantId::parse(text).unwrap()
}

fn transfer() -> ProcessId {
    ProcessId::parse("urn:uuid:7d1b1c9e").unwrap()
}

fn peer(participant: &str, certificate: u8) -> VerifiedPeer {
    VerifiedPeer::assert_verified(id(participant), Binding::Certificate([certificate; 32]))
}

fn limits() -> DataLimits {
    DataLimits {
        segment_bytes: SEGMENT,
        resume_backoff: Duration::from_millis(5),
        receipt_wait: Duration::from_secs(5),
        refusal_wait: Duration::from_millis(50),
        flows_per_transfer_max: 2,
        quota_chunk_bytes: 2 * SEGMENT as u64,
        quota_chunk_records: 3,
        ..DataLimits::default()
    }
}

/// Bytes without a period that a segment could hide.
fn noise(bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut all);
    all
}

/// A provider's plane with a control that keeps what it is told.
struct World {
    dir: TempDir,
    grants: Arc<Grants>,
    plane: Arc<ProviderPlane>,
    ended: Arc<Mutex<Vec<FlowReport>>>,
    openings: Arc<AtomicU64>,
    refusal: Arc<Mutex<Option<Refusal>>>,
    /// What flows took of limited quantities.
    taken: Arc<Mutex<HashMap<String, Amount>>>,
    binding: TokenBinding,
}

impl World {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: DataLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "sink"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let grants = Arc::new(Grants::new(limits.clone()));
        let (events, mut told) = mpsc::channel(8);
        let plane = ProviderPlane::new(Arc::clone(&grants), vec![dir.path().join("source")], limits, events);
        let (ended, openings) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicU64>::default());
        let refusal = Arc::<Mutex<Option<Refusal>>>::default();
        let taken = Arc::<Mutex<HashMap<String, Amount>>>::default();
        let takes = Arc::clone(&taken);
        let (reports, count, refuse) = (Arc::clone(&ended), Arc::clone(&openings), Arc::clone(&refusal));
        tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                match event {
                    FlowEvent::Opening { reply, .. } => {
                        count.fetch_add(1, Ordering::SeqCst);
                        let refusal = Mutex::lock(&refuse).unwrap().clone();
                        let _ = reply.send(refusal.map_or(Ok(()), Err));
                    }
                    FlowEvent::Reserve(question) => {
                        let mut taken = Mutex::lock(&takes).unwrap();
                        let all = taken.values().fold(Amount::default(), |all, one| Amount {
                            bytes: all.bytes + one.bytes,
                            records: all.records + one.records,
                        });
                        let left = |max: Option<u64>, all: u64, more: u64| max.map_or(0, |max| (max - all).min(more));
                        let given = Amount {
                            bytes: left(question.bytes_max, all.bytes, question.more.bytes),
                            records: left(question.records_max, all.records, question.more.records),
                        };
                        let held = taken.entry(question.flow).or_default();
                        assert_eq!(*held, question.held);
                        *held = Amount { bytes: held.bytes + given.bytes, records: held.records + given.records };
                        let _ = question.reply.send(Ok(given));
                    }
                    FlowEvent::Settled { flow, bytes, records, .. } => {
                        let settled = Amount { bytes: bytes.unwrap_or(0), records: records.unwrap_or(0) };
                        Mutex::lock(&takes).unwrap().insert(flow, settled);
                    }
                    FlowEvent::NeverWas { .. } => {}
                    FlowEvent::Ended(report) => Mutex::lock(&reports).unwrap().push(report),
                }
            }
        });
        let binding = TokenBinding::from(peer(CONSUMER, 1).binding());
        Self { dir, grants, plane, ended, openings, refusal, taken, binding }
    }

    fn source(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("source").join(name)
    }

    fn spec(&self, source: SourceSpec) -> GrantSpec {
        GrantSpec {
            transfer: transfer(),
            agreement: AgreementId::parse("urn:uuid:agreement").unwrap(),
            token_digest: token_digest(TOKEN),
            participant: id(CONSUMER),
            binding: self.binding.clone(),
            source,
            media_type: "text/csv".to_owned(),
            goes_on: false,
            valid_until: None,
            terms: StreamTerms::default(),
            pseudonyms: None,
        }
    }

    /// A grant of one file with so many bytes.
    fn file(&self, bytes: usize) -> (GrantSpec, Vec<u8>) {
        let content = noise(bytes);
        fs::write(self.source("file"), &content).unwrap();
        let spec = self.spec(SourceSpec::File { path: self.source("file").display().to_string() });
        self.grants.open(spec.clone());
        (spec, content)
    }

    async fn get_as(&self, who: VerifiedPeer, path: &str, headers: &[(&str, &str)]) -> Response {
        let method = if headers.iter().any(|(name, _)| *name == "head") { "HEAD" } else { "GET" };
        let mut request = Request::builder().method(method).uri(path).extension(who);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {TOKEN}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router(Arc::clone(&self.plane)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get(&self, headers: &[(&str, &str)]) -> Response {
        self.get_as(peer(CONSUMER, 1), &data_path(), headers).await
    }

    /// The reports, once there are so many; waits a little more, so that one too many shows.
    async fn reports(&self, count: usize) -> Vec<FlowReport> {
        for _ in 0..4000 {
            if Mutex::lock(&self.ended).unwrap().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let reports = Mutex::lock(&self.ended).unwrap().clone();
        assert_eq!(reports.len(), count, "{reports:?}");
        reports
    }
}

fn data_path() -> String {
    format!("/data/{}", transfer())
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap().to_str().unwrap()
}

async fn problem(response: Response) -> (StatusCode, serde_json::Value) {
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let status = response.status();
    (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

async fn body(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[tokio::test]
async fn without_a_proven_peer_only_a_token_of_the_insecure_profile_opens() {
    let ask = async |world: &World, authorization: &str| {
        let request = Request::builder().uri(data_path()).header("authorization", authorization);
        router(Arc::clone(&world.plane)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let mut world = World::new();
    world.file(SEGMENT);
    let (status, refused) = problem(ask(&world, &format!("Bearer {TOKEN}")).await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["detail"].as_str().unwrap().contains("proves no participant"), "{refused}");

    world.binding = TokenBinding::InsecureHeader;
    let (_, content) = world.file(SEGMENT);
    // The scheme, and EDC's way of presenting what a data address calls `authorization`.
    for authorization in [format!("Bearer {TOKEN}"), TOKEN.to_owned()] {
        let response = ask(&world, &authorization).await;
        let flow = format!("/flows/{}", header(&response, FLOW_HEADER));
        assert_eq!(body(response).await, content, "{authorization}");
        let request = Request::builder().uri(flow).header("authorization", &authorization);
        let receipt = router(Arc::clone(&world.plane)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(receipt.status(), StatusCode::OK);
    }
    for nothing in ["Bearer another", "another", "Basic dXNlcg==", "{\"clientId\":\"urn:a:b\"}"] {
        assert_eq!(problem(ask(&world, nothing).await).await.0, StatusCode::UNAUTHORIZED, "{nothing}");
    }
    assert_eq!(world.reports(2).await.len(), 2);
}

#[tokio::test]
async fn after_a_stop_not_one_more_segment_leaves() {
    for kind in [StopKind::Suspended, StopKind::Terminated, StopKind::Revoked] {
        let world = World::new();
        let (spec, content) = world.file(SEGMENT * 100);
        let mut stream = world.get(&[]).await.into_body();
        for _ in 0..2 {
            assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap().len(), SEGMENT);
        }
        assert_eq!(world.grants.running(&transfer()), 1);
        world.grants.open(spec.clone());
        assert!(stream.frame().await.unwrap().is_ok(), "the same grant again changes nothing");
        assert!(world.grants.stop(&transfer(), kind, "because"));
        let error = stream.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("because"), "{error}");
        drop(stream);
        let report = world.reports(1).await.remove(0);
        assert_eq!(report.bytes, 3 * SEGMENT as u64);
        assert_eq!(report.digest_blake3, hex(&content[..3 * SEGMENT]));
        assert!(matches!(&report.outcome, FlowOutcome::Cut { reason } if reason.contains("because")), "{report:?}");
        assert_eq!(world.grants.running(&transfer()), 0);

        let refused = world.get(&[]).await;
        assert_eq!(header(&refused, STOP_HEADER), kind.as_str());
        let (status, problem) = problem(refused).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(problem["detail"].as_str().unwrap().contains("because"));
        assert!(world.grants.forget(&transfer()));
        assert_eq!(world.get(&[]).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn only_the_latest_transfers_that_ended_are_remembered() {
    let world = World::new();
    let grants = Grants::new(DataLimits { ended_grants_max: 2, ..limits() });
    let (spec, _) = world.file(SEGMENT);
    let named = |name: &str| ProcessId::parse(format!("urn:transfer:{name}")).unwrap();
    for name in ["paused", "one", "again", "two", "three"] {
        grants.open(GrantSpec { transfer: named(name), ..spec.clone() });
    }
    assert!(grants.stop(&named("paused"), StopKind::Suspended, ""));
    for name in ["again", "one", "two"] {
        assert!(grants.stop(&named(name), StopKind::Completed, ""));
        assert!(grants.stop(&named(name), StopKind::Completed, "twice is once"));
        // Opened again: it is not over when its turn to be forgotten comes.
        grants.open(GrantSpec { transfer: named("again"), ..spec.clone() });
    }
    assert!(grants.stop(&named("three"), StopKind::Terminated, ""));
    assert_eq!(grants.verdict(&named("one")), None, "the oldest is forgotten");
    for kept in ["two", "three", "paused"] {
        assert!(matches!(grants.verdict(&named(kept)), Some(Verdict::Stopped(_))), "{kept}");
    }
    assert_eq!(grants.verdict(&named("again")), Some(Verdict::Open));
}

#[tokio::test]
async fn the_end_of_the_agreement_cuts_a_flow_that_nobody_touches() {
    let world = World::new();
    let (spec, _) = world.file(SEGMENT * 100);
    let until = Timestamp::now() + SignedDuration::from_millis(1500);
    world.grants.open(GrantSpec { valid_until: Some(until), ..spec });
    let mut stream = world.get(&[]).await.into_body();
    assert!(stream.frame().await.unwrap().is_ok());
    let report = world.reports(1).await.remove(0);
    assert!(matches!(report.outcome, FlowOutcome::Cut { .. }), "before the peer asked for more: {report:?}");
    assert!(report.ended >= until && report.bytes == SEGMENT as u64);
    assert!(stream.frame().await.unwrap().is_err());
    assert_eq!(header(&world.get(&[]).await, STOP_HEADER), "expired");
}

#[tokio::test]
async fn ranges_and_conditions_select_what_the_standard_says() {
    let world = World::new();
    let (_, content) = world.file(10_000);
    let whole = world.get(&[]).await;
    assert_eq!((whole.status(), header(&whole, "content-length")), (StatusCode::OK, "10000"));
    assert_eq!((header(&whole, "content-type"), header(&whole, "accept-ranges")), ("text/csv", "bytes"));
    let etag = header(&whole, "etag").to_owned();
    assert_eq!(body(whole).await, content);
    let all = 0..10_000;
    for (range, if_range, expected) in [
        ("bytes=0-0", None, Some(0..1)),
        ("bytes=9000-", Some(etag.as_str()), Some(9000..10_000)),
        ("bytes=9000-", Some("\"other\""), None),
        ("bytes=9000-", Some("W/\"weak\""), None),
        ("bytes=5-20000", None, Some(5..10_000)),
        ("bytes=-10", None, Some(9990..10_000)),
        ("bytes=-20000", None, Some(0..10_000)),
        ("bytes=1-2,5-6", None, None),
        ("bytes=5-2", None, None),
        ("lines=1-2", None, None),
        ("bytes=+1-2", None, None),
    ] {
        let mut headers = vec![("range", range)];
        headers.extend(if_range.map(|tag| ("if-range", tag)));
        let response = world.get(&headers).await;
        let partial = expected.is_some();
        let expected = expected.unwrap_or_else(|| all.clone());
        if partial {
            assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
            let range = format!("bytes {}-{}/10000", expected.start, expected.end - 1);
            assert_eq!(header(&response, "content-range"), range);
        } else {
            assert_eq!(response.status(), StatusCode::OK, "{range}");
        }
        assert_eq!(header(&response, "content-length"), expected.len().to_string());
        assert_eq!(body(response).await, content[expected], "{range}");
    }
    let flows = world.openings.load(Ordering::SeqCst);
    for range in ["bytes=10000-", "bytes=-0"] {
        let beyond = world.get(&[("range", range)]).await;
        assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(header(&beyond, "content-range"), "bytes */10000");
    }
    assert_eq!(world.get(&[("if-match", "\"other\"")]).await.status(), StatusCode::PRECONDITION_FAILED);
    let head = world.get(&[("head", "")]).await;
    assert_eq!((header(&head, "content-length"), header(&head, "etag")), ("10000", etag.as_str()));
    assert!(body(head).await.is_empty());
    assert_eq!(world.openings.load(Ordering::SeqCst), flows, "none of these took a use");
    assert_eq!(world.get(&[("if-match", &etag)]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stolen_token_opens_nothing() {
    let world = World::new();
    world.file(10);
    let (status, other) = problem(world.get_as(peer("did:web:thief.example", 1), &data_path(), &[]).await).await;
    assert_eq!((status, other["type"].as_str()), (StatusCode::FORBIDDEN, Some("urn:kontor:problem:other-participant")));
    let (status, other) = problem(world.get_as(peer(CONSUMER, 2), &data_path(), &[]).await).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let detail = other["detail"].as_str().unwrap();
    assert!(detail.contains(&"01".repeat(32)) && detail.contains(&"02".repeat(32)), "{detail}");
    assert!(other["cure"].as_str().unwrap().contains("certificate in use"));
    for authorization in ["Bearer guess", "Basic dGhl", "Bearer"] {
        assert_eq!(world.get(&[("authorization", authorization)]).await.status(), StatusCode::UNAUTHORIZED);
    }
    let elsewhere = world.get_as(peer(CONSUMER, 1), "/data/urn:uuid:other", &[]).await;
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED, "an unknown transfer reads like an unknown token");
    assert_eq!(world.openings.load(Ordering::SeqCst), 0);

    let flow = header(&world.get(&[]).await, FLOW_HEADER).to_owned();
    world.reports(1).await;
    let receipt = format!("/flows/{flow}");
    assert_eq!(world.get_as(peer(CONSUMER, 1), &receipt, &[]).await.status(), StatusCode::OK);
    assert_eq!(world.get_as(peer(CONSUMER, 2), &receipt, &[]).await.status(), StatusCode::FORBIDDEN);
    let guess = world.get_as(peer(CONSUMER, 1), &receipt, &[("authorization", "Bearer guess")]).await;
    assert_eq!(guess.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.get_as(peer(CONSUMER, 1), "/flows/none", &[]).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_source_that_changes_under_a_flow_ends_it_visibly() {
    let shrink = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
    let vanish = |path: &Path| fs::remove_file(path).unwrap();
    // In place: cut to nothing first, as a new file is, it would have shrunk for a moment.
    let change = |path: &Path| {
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, &vec![7; SEGMENT * 100]).unwrap();
    };
    for (word, spoil) in [("shrank", &shrink as &dyn Fn(&Path)), ("removed", &vanish), ("changed", &change)] {
        let world = World::new();
        world.file(SEGMENT * 100);
        let mut stream = world.get(&[]).await.into_body();
        assert!(stream.frame().await.unwrap().is_ok());
        spoil(&world.source("file"));
        let mut frames = 1;
        let error = loop {
            match stream.frame().await.unwrap() {
                Ok(_) => frames += 1,
                Err(error) => break error,
            }
        };
        assert!(frames < 8, "only what was read ahead");
        assert!(error.to_string().contains(word), "{error}");
        let report = world.reports(1).await.remove(0);
        assert!(matches!(report.outcome, FlowOutcome::Failed { .. }), "{report:?}");
        assert_eq!(report.bytes, frames * SEGMENT as u64);
    }
}

#[tokio::test]
async fn nothing_outside_the_source_is_served() {
    let world = World::new();
    fs::write(world.dir.path().join("secret"), "secret").unwrap();
    fs::create_dir_all(world.source("tree/deep")).unwrap();
    fs::write(world.source("tree/a"), "a").unwrap();
    fs::write(world.source("tree/deep/b"), "bb").unwrap();
    fs::write(world.source("beside"), "beside").unwrap();
    std::os::unix::fs::symlink(world.dir.path().join("secret"), world.source("tree/link")).unwrap();
    std::os::unix::fs::symlink(world.dir.path().join("secret"), world.source("link")).unwrap();
    world.grants.open(world.spec(SourceSpec::Directory { path: world.source("tree").display().to_string() }));
    let index: serde_json::Value = serde_json::from_slice(&body(world.get(&[]).await).await).unwrap();
    let paths: Vec<_> = index["entries"].as_array().unwrap().iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["a", "deep/b"]);
    let member = async |path: &str| {
        let path = format!("{}/{path}", data_path());
        world.get_as(peer(CONSUMER, 1), &path, &[]).await
    };
    assert_eq!(body(member("deep/b").await).await, "bb");
    for path in
        ["../beside", "%2e%2e/beside", "..%2fbeside", "link", "deep", "none", "%2fetc%2fpasswd", "deep%2f..%2fa"]
    {
        let status = member(path).await.status();
        assert!(matches!(status.as_u16(), 400 | 404), "{path}: {status}");
    }
    for path in [world.source("link"), world.dir.path().join("secret"), world.source("../secret")] {
        world.grants.open(world.spec(SourceSpec::File { path: path.display().to_string() }));
        let (status, problem) = problem(world.get(&[]).await).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(!problem.to_string().contains("secret"), "the provider's paths stay its own");
    }
    assert_eq!(world.reports(1).await.len(), 1);
}

#[tokio::test]
async fn every_flow_has_one_report_and_a_refused_one_none() {
    let world = World::new();
    world.file(SEGMENT * 50);
    body(world.get(&[]).await).await;
    assert_eq!(world.reports(1).await[0].outcome, FlowOutcome::Whole);
    drop(world.get(&[]).await);
    let mut stream = world.get(&[]).await.into_body();
    assert!(stream.frame().await.unwrap().is_ok());
    drop(stream);
    let reports = world.reports(3).await;
    assert!(reports[1..].iter().all(|report| matches!(report.outcome, FlowOutcome::Failed { .. })), "{reports:?}");

    let (one, two) = (world.get(&[]).await, world.get(&[]).await);
    let third = world.get(&[]).await;
    assert_eq!((third.status(), header(&third, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    drop((one, two));
    world.reports(5).await;

    *Mutex::lock(&world.refusal).unwrap() = Some(Refusal::new(Fault::Limit, "policy.count", "all uses are taken"));
    let (status, refused) = problem(world.get(&[]).await).await;
    assert_eq!((status, refused["detail"].as_str()), (StatusCode::FORBIDDEN, Some("all uses are taken")));
    world.reports(5).await;

    *Mutex::lock(&world.refusal).unwrap() = None;
    world.file(0);
    assert!(body(world.get(&[]).await).await.is_empty());
    assert_eq!(world.reports(6).await[5].outcome, FlowOutcome::Whole);
}

/// What a test does to a response on its way out.
type Hook = Arc<dyn Fn(u64) + Send + Sync>;

/// A provider and a consumer with mutual TLS between them.
struct Wired {
    world: World,
    client: PeerClient,
    endpoint: Url,
    shutdown: CancellationToken,
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Serves routes as the provider; gives a client of the consumer, the base, and what ends it.
async fn served(folder: &Path, routes: axum::Router) -> (PeerClient, Url, CancellationToken) {
    let ca = Authority::generate("test").unwrap();
    let identity = |name: &str, participant: &str| {
        let request = CertificateRequest::new(id(participant), vec!["127.0.0.1".to_owned()]);
        TlsIdentity::load(&ca.issue(&request).unwrap().save(folder, name, &ca).unwrap()).unwrap()
    };
    let (provider, consumer) = (identity("provider", PROVIDER), identity("consumer", CONSUMER));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve_mutual_tls(listener, provider, routes, ServeLimits::default(), shutdown.clone()));
    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let client = PeerClient::mutual_tls(consumer, egress, ClientLimits::default());
    (client, Url::parse(&format!("https://{address}/")).unwrap(), shutdown)
}

impl Wired {
    /// The hook hears of every segment of data, counted over all flows, right before it is handed to HTTP.
    async fn new(hook: impl FnOnce(&Arc<Grants>) -> Hook, lie: bool) -> Self {
        let mut world = World::new();
        // The binding is learnt as control learns it: from a request of the consumer.
        let (seen, mut sees) = watch::channel(None);
        let hook = hook(&world.grants);
        let count = Arc::new(AtomicU64::new(0));
        let routes = router(Arc::clone(&world.plane)).layer(axum::middleware::from_fn(
            move |request: Request, next: axum::middleware::Next| {
                let (seen, hook, count) = (seen.clone(), Arc::clone(&hook), Arc::clone(&count));
                async move {
                    seen.send_replace(request.extensions().get::<VerifiedPeer>().cloned());
                    let receipt = request.uri().path().starts_with("/flows/");
                    let response = next.run(request).await;
                    if receipt && lie && response.status() == StatusCode::OK {
                        let mut said: Receipt = serde_json::from_slice(&body(response).await).unwrap();
                        said.bytes += 1;
                        return Response::new(Body::from(serde_json::to_vec(&said).unwrap()));
                    }
                    let flows = response.headers().contains_key(FLOW_HEADER);
                    response.map(|body| {
                        Body::new(body.map_frame(move |frame| {
                            if flows {
                                hook(count.fetch_add(1, Ordering::SeqCst) + 1);
                            }
                            frame
                        }))
                    })
                }
            },
        ));
        let (client, base, shutdown) = served(world.dir.path(), routes).await;
        let hello = http::Request::get(base.join("flows/none").unwrap().as_str()).body(Bytes::new()).unwrap();
        client.send(&id(PROVIDER), hello).await.unwrap();
        world.binding = TokenBinding::from(sees.borrow_and_update().clone().unwrap().binding());
        Self { world, client, endpoint: endpoint_url(&base, &transfer()), shutdown }
    }

    /// A provider that is none of ours: it knows no flow, gives no receipt, and answers as the test says.
    async fn foreign(answer: impl Fn(&http::HeaderMap) -> Response + Clone + Send + Sync + 'static) -> Self {
        let world = World::new();
        let routes = axum::Router::new().fallback(async move |headers: http::HeaderMap| answer(&headers));
        let (client, base, shutdown) = served(world.dir.path(), routes).await;
        Self { world, client, endpoint: endpoint_url(&base, &transfer()), shutdown }
    }

    async fn plain() -> Self {
        Self::new(|_| Arc::new(|_| ()), false).await
    }

    fn sink(&self) -> std::path::PathBuf {
        self.world.dir.path().join("sink")
    }

    fn job(&self, sink: SinkSpec) -> PullJob {
        PullJob {
            transfer: ProcessId::parse("urn:uuid:ours").unwrap(),
            agreement: AgreementId::parse("urn:uuid:agreement").unwrap(),
            provider: id(PROVIDER),
            endpoint: self.endpoint.clone(),
            token: TOKEN.into(),
            sink,
            sink_root: self.sink(),
            limits: limits(),
        }
    }

    /// A pull whose end is committed.
    async fn pull(&self, sink: SinkSpec, stop: watch::Receiver<Option<String>>) -> PullOutcome {
        let outcome = self.pull_and_die(sink.clone(), stop).await;
        if matches!(outcome.result, PullResult::Done { .. }) {
            forget_received(&self.sink(), &sink, &self.job(sink.clone()).transfer);
        }
        outcome
    }

    /// A pull of which nobody learns how it ended.
    async fn pull_and_die(&self, sink: SinkSpec, stop: watch::Receiver<Option<String>>) -> PullOutcome {
        // Spawned, since control does so too: it must be `Send`.
        tokio::spawn(pull(self.job(sink), self.client.clone(), stop)).await.unwrap()
    }

    /// Waits until nothing lies in the sink.
    async fn emptied(&self) {
        for _ in 0..4000 {
            if self.left().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("left: {:?}", self.left());
    }

    /// What lies in the sink, hidden files included.
    fn left(&self) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(self.sink()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }
}

fn to_file() -> SinkSpec {
    SinkSpec::File { path: "got".to_owned() }
}

fn unstopped() -> watch::Receiver<Option<String>> {
    watch::channel(None).1
}

fn done(content: &[u8]) -> PullResult {
    PullResult::Done { bytes: content.len() as u64, digest_blake3: hex(content) }
}

#[tokio::test]
async fn both_sides_count_the_same_and_the_file_appears_only_whole() {
    let wired = Wired::plain().await;
    let (_, content) = wired.world.file(SEGMENT * 300 + 17);
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert_eq!(outcome.result, done(&content), "{outcome:?}");
    assert_eq!(fs::read(wired.sink().join("got")).unwrap(), content);
    assert_eq!(wired.left(), ["got"]);
    let theirs = wired.world.reports(1).await.remove(0);
    let [ours] = outcome.reports.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((&ours.id, ours.bytes, &ours.digest_blake3), (&theirs.id, theirs.bytes, &theirs.digest_blake3));
    assert_eq!((ours.peer_bytes, &ours.peer_digest), (Some(theirs.bytes), &Some(theirs.digest_blake3)));

    let again = wired.pull(to_file(), unstopped()).await;
    assert!(
        matches!(&again.result, PullResult::Unwritable { full: false, retryable: false, reason } if reason.contains("exists"))
    );
    let astray = wired.pull(SinkSpec::File { path: "../got".to_owned() }, unstopped()).await;
    assert!(matches!(astray.result, PullResult::Unwritable { full: false, retryable: false, .. }), "{astray:?}");
    let wrong = wired.pull(SinkSpec::Directory { path: "d".to_owned() }, unstopped()).await;
    assert!(matches!(&wrong.result, PullResult::Failed { retryable: false, reason } if reason.contains("file")));
    assert_eq!(wired.world.openings.load(Ordering::SeqCst), 1, "none of these took a use");
}

#[tokio::test]
async fn a_pull_that_died_before_it_could_say_that_all_is_there_is_not_done_again() {
    let wired = Wired::plain().await;
    let (_, content) = wired.world.file(SEGMENT * 20);
    let first = wired.pull_and_die(to_file(), unstopped()).await;
    assert_eq!(first.result, done(&content));
    assert_eq!(wired.pull(to_file(), unstopped()).await, first, "the same end, by the same flows");
    assert_eq!(wired.world.openings.load(Ordering::SeqCst), 1, "no second use was taken");
    assert_eq!(wired.left(), ["got"]);

    fs::create_dir_all(wired.world.source("tree")).unwrap();
    fs::write(wired.world.source("tree/a"), &content).unwrap();
    let tree = SourceSpec::Directory { path: wired.world.source("tree").display().to_string() };
    wired.world.grants.open(wired.world.spec(tree));
    let sink = SinkSpec::Directory { path: "tree".to_owned() };
    let first = wired.pull_and_die(sink.clone(), unstopped()).await;
    assert!(matches!(first.result, PullResult::Done { .. }), "{first:?}");
    assert_eq!(wired.pull(sink, unstopped()).await, first);
    assert_eq!(wired.left(), ["got", "tree"]);
}

#[tokio::test]
async fn a_cut_flow_is_an_error_at_the_other_end_of_the_wire() {
    let wired = Wired::new(
        |grants| {
            let grants = Arc::clone(grants);
            Arc::new(move |segment| {
                if segment == 20 {
                    grants.stop(&transfer(), StopKind::Suspended, "maintenance");
                }
            })
        },
        false,
    )
    .await;
    let (spec, content) = wired.world.file(SEGMENT * 5000);
    let request = http::Request::get(wired.endpoint.as_str()).header("authorization", format!("Bearer {TOKEN}"));
    let response = wired.client.open(&id(PROVIDER), request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-length"], content.len().to_string());
    assert!(response.into_body().collect().await.is_err());
    let report = wired.world.reports(1).await.remove(0);
    assert_eq!(report.bytes, 20 * SEGMENT as u64, "not one segment after the stop");

    // The consumer is told why, keeps its part, and goes on from it under a fresh token.
    let stopped = wired.pull(to_file(), unstopped()).await;
    assert!(matches!(&stopped.result, PullResult::Stopped { reason } if reason.contains("maintenance")), "{stopped:?}");
    wired.world.grants.open(spec);
    assert_eq!(wired.pull(to_file(), unstopped()).await.result, done(&content));
}

#[tokio::test]
async fn a_pull_resumes_after_a_cut_and_a_stop_keeps_the_part() {
    let stop = watch::Sender::new(None);
    let (stopper, respec) = (stop.clone(), Arc::new(Mutex::new(None::<GrantSpec>)));
    let spec_of_hook = Arc::clone(&respec);
    let wired = Wired::new(
        |grants| {
            let grants = Arc::clone(grants);
            Arc::new(move |segment| {
                if segment == 1000 {
                    // Another grant with the same token: the flow is cut, the next attempt passes.
                    grants.open(Mutex::lock(&spec_of_hook).unwrap().clone().unwrap());
                }
                if segment == 3000 {
                    stopper.send_replace(Some("enough".to_owned()));
                }
            })
        },
        false,
    )
    .await;
    let (spec, content) = wired.world.file(SEGMENT * 12_000);
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    *Mutex::lock(&respec).unwrap() = Some(GrantSpec { valid_until: Some(later), ..spec });
    let outcome = wired.pull(to_file(), stop.subscribe()).await;
    assert_eq!(outcome.result, PullResult::Stopped { reason: "enough".to_owned() });
    let [cut, stopped] = outcome.reports.as_slice() else { panic!("{:?}", outcome.reports) };
    assert!(matches!(&cut.outcome, FlowOutcome::Cut { reason } if reason.contains("newer")), "{cut:?}");
    assert_eq!(cut.peer_bytes, Some(1000 * SEGMENT as u64));
    assert!(cut.bytes > 0 && stopped.offset == cut.bytes, "{outcome:?}");
    assert_eq!(stopped.outcome, FlowOutcome::Cut { reason: "enough".to_owned() });
    assert!(wired.left().iter().any(|name| name.ends_with(".part")) && !wired.left().contains(&"got".to_owned()));

    let outcome = wired.pull(to_file(), unstopped()).await;
    assert_eq!(outcome.result, done(&content), "{outcome:?}");
    assert_eq!(outcome.reports[0].offset, stopped.offset + stopped.bytes, "it goes on where it stopped");
    assert_eq!(wired.left(), ["got"]);
    assert_eq!(fs::read(wired.sink().join("got")).unwrap(), content);
    wired.world.reports(3).await;
}

/// What a foreign provider answers: so much of some content, as one version of it, or a part of it.
fn foreign(status: StatusCode, etag: Option<&str>, range: Option<String>, told: usize, sent: &[u8]) -> Response {
    let mut response = Response::builder().status(status).header("content-length", told);
    for (name, value) in [("etag", etag), ("content-range", range.as_deref())] {
        response = value.into_iter().fold(response, |response, value| response.header(name, value));
    }
    // The body breaks where less is sent than told, after what was sent has left.
    let (cut, sent) = (sent.len() < told, Bytes::copy_from_slice(sent));
    let frames = futures_util::stream::iter([Ok(sent)]).chain(futures_util::stream::once(async move {
        tokio::task::yield_now().await;
        if cut { Err(std::io::Error::other("cut")) } else { Ok(Bytes::new()) }
    }));
    response.body(Body::from_stream(frames)).unwrap()
}

/// Where a request asks to go on.
fn asked_from(headers: &http::HeaderMap) -> Option<usize> {
    headers.get("range")?.to_str().unwrap().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

#[tokio::test]
async fn a_part_of_what_was_asked_for_is_not_taken_for_the_rest() {
    let content = noise(SEGMENT * 10);
    let data = content.clone();
    let wired = Wired::foreign(move |headers| {
        let all = data.len();
        let Some(from) = asked_from(headers) else {
            return foreign(StatusCode::OK, Some("\"v1\""), None, all, &data[..SEGMENT * 2]);
        };
        let to = (from + SEGMENT * 3).min(all);
        let range = format!("bytes {from}-{}/{all}", to - 1);
        foreign(StatusCode::PARTIAL_CONTENT, Some("\"v1\""), Some(range), to - from, &data[from..to])
    })
    .await;
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert_eq!(outcome.result, done(&content), "{outcome:?}");
    assert_eq!(fs::read(wired.sink().join("got")).unwrap(), content);
    let offsets: Vec<u64> = outcome.reports.iter().map(|report| report.offset / SEGMENT as u64).collect();
    assert_eq!(offsets, [0, 2, 5, 8], "each part goes on where the one before ended");
}

#[tokio::test]
async fn parts_too_small_to_ever_arrive_are_given_up() {
    let content = noise(SEGMENT * 10);
    let wired = Wired::foreign(move |headers| {
        let all = content.len();
        let Some(from) = asked_from(headers) else {
            return foreign(StatusCode::OK, Some("\"v1\""), None, all, &content[..SEGMENT * 2]);
        };
        let range = format!("bytes {from}-{from}/{all}");
        foreign(StatusCode::PARTIAL_CONTENT, Some("\"v1\""), Some(range), 1, &content[from..=from])
    })
    .await;
    let outcome = wired.pull(to_file(), unstopped()).await;
    let PullResult::Failed { retryable: true, reason } = &outcome.result else { panic!("{outcome:?}") };
    assert!(reason.contains("less than was asked for"), "{reason}");
    assert!(!wired.sink().join("got").exists());
}

#[tokio::test]
async fn parts_that_cannot_be_told_to_belong_together_are_not_mixed() {
    let (old, new) = (noise(SEGMENT * 6), noise(SEGMENT * 7)[SEGMENT..].to_vec());
    // A server that takes no notice of `If-Range`: with the new version's tag, without any, and without a total.
    for (etag, of) in [(Some("\"v2\""), "24576"), (None, "24576"), (Some("\"v1\""), "*")] {
        let (before, now) = (old.clone(), new.clone());
        let first = Arc::new(AtomicU64::new(0));
        let wired = Wired::foreign(move |headers| {
            if let Some(from) = asked_from(headers) {
                let range = format!("bytes {from}-{}/{of}", now.len() - 1);
                return foreign(StatusCode::PARTIAL_CONTENT, etag, Some(range), now.len() - from, &now[from..]);
            }
            match first.fetch_add(1, Ordering::SeqCst) {
                0 => foreign(StatusCode::OK, Some("\"v1\""), None, before.len(), &before[..SEGMENT * 2]),
                _ => foreign(StatusCode::OK, Some("\"v2\""), None, now.len(), &now),
            }
        })
        .await;
        let outcome = wired.pull(to_file(), unstopped()).await;
        assert_eq!(outcome.result, done(&new), "{etag:?} of {of}: {outcome:?}");
        assert_eq!(fs::read(wired.sink().join("got")).unwrap(), new, "{etag:?} of {of}");
    }
}

#[tokio::test]
async fn a_range_that_nobody_asked_for_is_refused() {
    let content = noise(SEGMENT * 4);
    for (asked, range) in [
        (false, "bytes 0-8191/16384"),
        (true, "bytes 0-16383/16384"),
        (true, "bytes 8192-20000/16384"),
        (true, "bytes 8192-8191/16384"),
        (true, "bytes 8192-"),
        (true, "lines 8192-16383/16384"),
    ] {
        let data = content.clone();
        let wired = Wired::foreign(move |headers| {
            if asked && asked_from(headers).is_none() {
                return foreign(StatusCode::OK, Some("\"v1\""), None, data.len(), &data[..SEGMENT * 2]);
            }
            let part = &data[SEGMENT * 2..];
            foreign(StatusCode::PARTIAL_CONTENT, Some("\"v1\""), Some(range.to_owned()), part.len(), part)
        })
        .await;
        let outcome = wired.pull(to_file(), unstopped()).await;
        let PullResult::Failed { retryable: false, reason } = &outcome.result else { panic!("{range}: {outcome:?}") };
        assert!(reason.contains("another range"), "{range}: {reason}");
        assert!(!wired.sink().join("got").exists(), "{range}");
    }
}

#[tokio::test]
async fn a_receipt_that_differs_leaves_no_file() {
    let wired = Wired::new(|_| Arc::new(|_| ()), true).await;
    wired.world.file(SEGMENT * 3);
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert!(matches!(&outcome.result, PullResult::Failed { reason, .. } if reason.contains("receipt")), "{outcome:?}");
    assert_eq!(outcome.reports.len(), 1);
    assert_eq!(wired.left(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_comes_whole_or_not_at_all() {
    let wired = Wired::new(
        |grants| {
            let grants = Arc::clone(grants);
            Arc::new(move |segment| {
                if segment == 5 {
                    grants.stop(&transfer(), StopKind::Suspended, "pause");
                }
            })
        },
        false,
    )
    .await;
    fs::create_dir_all(wired.world.source("tree/x/y")).unwrap();
    let content = noise(SEGMENT * 2000);
    let files = [("a.csv", &content[..SEGMENT]), ("b", &content[..]), ("x/y/empty", &[]), ("x/ü %2f?#", &content[..9])];
    for (path, content) in files {
        fs::write(wired.world.source("tree").join(path), content).unwrap();
    }
    let spec = wired.world.spec(SourceSpec::Directory { path: wired.world.source("tree").display().to_string() });
    wired.world.grants.open(spec.clone());
    let sink = SinkSpec::Directory { path: "got".to_owned() };
    let outcome = wired.pull(sink.clone(), unstopped()).await;
    assert!(matches!(outcome.result, PullResult::Stopped { .. }), "{outcome:?}");
    assert!(!wired.sink().join("got").exists());
    wired.world.grants.open(spec);
    let rest = wired.pull(sink.clone(), unstopped()).await;
    let total: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    assert!(matches!(rest.result, PullResult::Done { bytes, .. } if bytes == total), "{rest:?}");
    assert!(rest.reports.iter().all(|report| report.path.as_deref() != Some("a.csv")), "what was whole is kept");
    for (path, content) in files {
        assert_eq!(fs::read(wired.sink().join("got").join(path)).unwrap(), content, "{path}");
    }
    assert_eq!(wired.left(), ["got"]);
    assert_eq!(fs::read_dir(wired.sink().join("got")).unwrap().count(), 3, "nothing is left beside the members");

    let wrong = wired.pull(to_file(), unstopped()).await;
    assert!(matches!(wrong.result, PullResult::Unwritable { full: false, retryable: false, .. }), "{wrong:?}");
}

#[tokio::test]
async fn what_will_not_go_on_is_discarded() {
    let stop = watch::Sender::new(None);
    let stopper = stop.clone();
    let hook: Hook = Arc::new(move |segment| {
        if segment == 100 {
            stopper.send_replace(Some("terminated".to_owned()));
        }
    });
    let wired = Wired::new(|_| hook, false).await;
    wired.world.file(SEGMENT * 5000);
    let ours = ProcessId::parse("urn:uuid:ours").unwrap();
    let (sink, whose, mut told) = (wired.sink(), ours.clone(), stop.subscribe());
    let at_once = tokio::spawn(async move {
        told.wait_for(Option::is_some).await.unwrap();
        discard_parts(&sink, &to_file(), &whose);
    });
    wired.pull(to_file(), stop.subscribe()).await;
    at_once.await.unwrap();
    wired.emptied().await;

    stop.send_replace(None);
    let (stopper, until) = (stop.clone(), wired.sink());
    tokio::spawn(async move {
        while fs::read_dir(&until).unwrap().next().is_none() {
            tokio::task::yield_now().await;
        }
        stopper.send_replace(Some("again".to_owned()));
    });
    let outcome = wired.pull(to_file(), stop.subscribe()).await;
    assert!(matches!(outcome.result, PullResult::Stopped { .. }), "{outcome:?}");
    assert_ne!(wired.left(), Vec::<String>::new());
    discard_parts(&wired.sink(), &to_file(), &ours);
    wired.emptied().await;
}
