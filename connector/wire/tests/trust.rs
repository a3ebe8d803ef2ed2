//! Every refusal of trust, over real sockets, with the message that an operator reads.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ::http::Request;
use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use kontor_core::id::ParticipantId;
use kontor_core::peer::VerifiedPeer;
use kontor_wire::client::{ClientLimits, PeerBody, PeerClient, PeerError};
use kontor_wire::egress::EgressFilter;
use kontor_wire::identity::TrustError;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::serve::{ConnectionInfo, ServeLimits, serve_mutual_tls};
use kontor_wire::tls::{TlsFiles, TlsIdentity};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn id(text: &str) -> ParticipantId {
    ParticipantId::parse(text).unwrap()
}

const PROVIDER: &str = "did:web:provider.example";
const CONSUMER: &str = "did:web:consumer.example";

fn request(participant: &str) -> CertificateRequest {
    CertificateRequest::new(id(participant), vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
}

fn save(dir: &Path, ca: &Authority, name: &str, request: &CertificateRequest) -> TlsFiles {
    ca.issue(request).unwrap().save(dir, name, ca).unwrap()
}

async fn serve(identity: TlsIdentity) -> (SocketAddr, CancellationToken) {
    let router = Router::new().route(
        "/who",
        get(|Extension(peer): Extension<VerifiedPeer>, Extension(info): Extension<ConnectionInfo>| async move {
            assert!(info.remote.ip().is_loopback());
            peer.participant().to_string()
        }),
    );
    let endless = || async { Body::from_stream(futures_util::stream::repeat(Ok::<_, Infallible>(ENDLESS))) };
    let router = router.route("/endless", get(endless));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve_mutual_tls(listener, identity, router, ServeLimits::default(), shutdown.clone()));
    (address, shutdown)
}

fn client(identity: TlsIdentity) -> PeerClient {
    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    PeerClient::mutual_tls(identity, egress, ClientLimits::default())
}

/// What an endless stream repeats.
const ENDLESS: Bytes = Bytes::from_static(&[7; 16 * 1024]);

/// A stream that does not end by itself, of which something came.
async fn endless(client: &PeerClient, address: SocketAddr) -> PeerBody {
    let request = Request::get(format!("https://{address}/endless")).body(Bytes::new()).unwrap();
    let mut body = client.open(&id(PROVIDER), request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    body
}

/// Reads so many bytes, unless the stream breaks.
async fn read(body: &mut PeerBody, bytes: usize) -> Result<(), String> {
    let mut left = bytes;
    while left > 0 {
        let frame = body.frame().await.unwrap().map_err(|error| format!("{error:?}"))?;
        left = left.saturating_sub(frame.into_data().map_or(0, |data| data.len()));
    }
    Ok(())
}

/// More than any buffer on the way holds.
const MUCH: usize = 64 * 1024 * 1024;

async fn ask(client: &PeerClient, peer: &str, url: &str) -> Result<String, PeerError> {
    let request = Request::get(url).body(Bytes::new()).unwrap();
    let response = client.send(&id(peer), request).await?;
    assert_eq!(response.status(), 200);
    Ok(String::from_utf8(response.into_body().to_vec()).unwrap())
}

struct Two {
    dir: TempDir,
    ca: Authority,
}

impl Two {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), ca: Authority::generate("Test CA").unwrap() }
    }

    fn identity(&self, name: &str, request: &CertificateRequest) -> TlsIdentity {
        TlsIdentity::load(&save(self.dir.path(), &self.ca, name, request)).unwrap()
    }

    /// What the client sees when the server has this certificate.
    async fn server_with(&self, server: &CertificateRequest) -> Result<String, PeerError> {
        let (address, _) = serve(self.identity("provider", server)).await;
        let client = client(self.identity("consumer", &request(CONSUMER)));
        ask(&client, PROVIDER, &format!("https://{address}/who")).await
    }

    async fn client_with(&self, own: &CertificateRequest) -> Result<String, PeerError> {
        let (address, _) = serve(self.identity("provider", &request(PROVIDER))).await;
        ask(&client(self.identity("consumer", own)), PROVIDER, &format!("https://{address}/who")).await
    }
}

fn message(result: Result<String, PeerError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, PeerError::Trust(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn each_side_learns_who_the_other_is() {
    assert_eq!(Two::new().client_with(&request(CONSUMER)).await.unwrap(), CONSUMER);
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let two = Two::new();
    let (address, _) = serve(two.identity("provider", &request(PROVIDER))).await;
    let client = client(two.identity("consumer", &request(CONSUMER)));
    let url = format!("https://{address}/who");
    let all = (0..200).map(|_| ask(&client, PROVIDER, &url));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.unwrap(), CONSUMER);
    }
}

#[tokio::test]
async fn another_participant_at_the_address_is_refused() {
    let told = message(Two::new().server_with(&request("did:web:mallory.example")).await);
    assert!(told.contains("is `did:web:mallory.example`, not `did:web:provider.example`"), "{told}");
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_name_is_refused() {
    let elsewhere = CertificateRequest::new(id(PROVIDER), vec!["provider.example".to_owned()]);
    let told = message(Two::new().server_with(&elsewhere).await);
    assert!(told.contains("not for the host `127.0.0.1` but for `provider.example`"), "{told}");
}

#[tokio::test]
async fn a_server_needs_server_auth_and_a_client_client_auth() {
    let told = message(Two::new().server_with(&CertificateRequest { server_auth: false, ..request(PROVIDER) }).await);
    assert!(told.contains("may not authenticate a server") && told.contains("serverAuth"), "{told}");
    let told = message(Two::new().client_with(&CertificateRequest { client_auth: false, ..request(CONSUMER) }).await);
    assert!(told.contains("the peer refused our certificate"), "{told}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused_by_both_sides() {
    let (here, there) = (Two::new(), Two::new());
    let (address, _) = serve(here.identity("provider", &request(PROVIDER))).await;
    let url = format!("https://{address}/who");
    // The client does not trust the server.
    let told = message(ask(&client(there.identity("consumer", &request(CONSUMER))), PROVIDER, &url).await);
    assert!(told.contains("not in our trust bundle"), "{told}");
    // The client trusts the server, the server not the client.
    let mut files = save(there.dir.path(), &there.ca, "other", &request(CONSUMER));
    files.trust = here.dir.path().join("ca.pem");
    let told = message(ask(&client(TlsIdentity::load(&files).unwrap()), PROVIDER, &url).await);
    assert!(told.contains("the peer refused our certificate") && told.contains("unknown ca"), "{told}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let two = Two::new();
    let (address, _) = serve(two.identity("provider", &request(PROVIDER))).await;
    let tls = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(two.ca.certificate_pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    assert!(tls.get(format!("https://{address}/who")).send().await.is_err());
}

#[test]
fn what_is_wrong_with_our_own_files_is_told() {
    let (two, other) = (Two::new(), Two::new());
    let dir = two.dir.path();
    let load =
        |name: &str, request: &CertificateRequest| TlsIdentity::load(&save(dir, &two.ca, name, request)).unwrap_err();
    assert!(matches!(load("old", &CertificateRequest { days: -1, ..request(PROVIDER) }), TrustError::Expired { .. }));
    let future = CertificateRequest { not_before_days: 2, ..request(PROVIDER) };
    assert!(matches!(load("future", &future), TrustError::NotYetValid { .. }));
    let nobody = CertificateRequest { participant: None, ..request(PROVIDER) };
    assert!(matches!(load("nobody", &nobody), TrustError::NoUri { .. }));
    let double = CertificateRequest { more_uris: vec!["urn:second".to_owned()], ..request(PROVIDER) };
    assert!(matches!(load("double", &double), TrustError::SeveralUris { count: 2, .. }));

    let good = save(dir, &two.ca, "good", &request(PROVIDER));
    let foreign = save(other.dir.path(), &other.ca, "good", &request(PROVIDER));
    let mixed = TlsFiles { key: foreign.key, ..good.clone() };
    assert!(matches!(TlsIdentity::load(&mixed).unwrap_err(), TrustError::KeyMismatch { .. }));
    let missing = TlsFiles { trust: dir.join("nowhere.pem"), ..good };
    let told = TlsIdentity::load(&missing).unwrap_err().to_string();
    assert!(told.contains("nowhere.pem"), "{told}");
}

#[test]
fn keys_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let two = Two::new();
    two.ca.save(two.dir.path()).unwrap();
    assert!(two.ca.save(two.dir.path()).is_err());
    let again = Authority::load(two.dir.path()).unwrap();
    let files = save(two.dir.path(), &again, "one", &request(PROVIDER));
    assert!(again.issue(&request(PROVIDER)).unwrap().save(two.dir.path(), "one", &again).is_err());
    for key in [files.key, two.dir.path().join("ca.key")] {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// The certificate may begin in a minute, or the file be half written.
#[tokio::test]
async fn a_certificate_that_could_not_be_loaded_is_tried_again_although_no_file_changes() {
    let two = Two::new();
    let files = save(two.dir.path(), &two.ca, "provider", &request(PROVIDER));
    let identity = TlsIdentity::load(&files).unwrap();
    let before = identity.not_after();
    let stop = CancellationToken::new();
    let watching = {
        let (identity, stop) = (identity.clone(), stop.clone());
        tokio::spawn(async move { identity.watch(Duration::from_millis(5), stop).await })
    };
    let at = std::time::SystemTime::now() + Duration::from_secs(5);
    let write = |file: &Path, bytes: &[u8]| {
        std::fs::write(file, bytes).unwrap();
        std::fs::File::options().write(true).open(file).unwrap().set_modified(at).unwrap();
    };
    write(&files.certificate, b"no certificate");
    write(&files.key, b"no key");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let longer = CertificateRequest { days: 900, ..request(PROVIDER) };
    let beside = tempfile::tempdir().unwrap();
    let new = save(beside.path(), &two.ca, "provider", &longer);
    write(&files.certificate, &std::fs::read(&new.certificate).unwrap());
    write(&files.key, &std::fs::read(&new.key).unwrap());
    let loaded = tokio::time::timeout(Duration::from_secs(60), async {
        while identity.not_after() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(loaded.await.is_ok(), "the old certificate is still used");
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn certificates_are_replaced_under_a_running_server() {
    let two = Two::new();
    let files = save(two.dir.path(), &two.ca, "provider", &request(PROVIDER));
    let identity = TlsIdentity::load(&files).unwrap();
    let (address, _) = serve(identity.clone()).await;
    let client = client(two.identity("consumer", &request(CONSUMER)));
    let url = format!("https://{address}/who");
    ask(&client, PROVIDER, &url).await.unwrap();

    // A damaged file changes nothing.
    std::fs::write(&files.certificate, "no certificate").unwrap();
    assert!(identity.reload().is_err());
    ask(&client, PROVIDER, &url).await.unwrap();

    // Another participant in the file is refused as well.
    let replace = |request: &CertificateRequest| {
        for file in [&files.certificate, &files.key] {
            std::fs::remove_file(file).unwrap();
        }
        save(two.dir.path(), &two.ca, "provider", request);
    };
    replace(&request("did:web:mallory.example"));
    assert!(matches!(identity.reload().unwrap_err(), TrustError::ParticipantChanged { .. }));

    // A certificate for another host counts from the next connection on: the kept one is not used any more.
    replace(&CertificateRequest::new(id(PROVIDER), vec!["elsewhere.example".to_owned()]));
    identity.reload().unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Err(error) = ask(&client, PROVIDER, &url).await {
                return error.to_string();
            }
        }
    })
    .await
    .unwrap();
    assert!(told.contains("elsewhere.example"), "{told}");
}

#[tokio::test]
async fn who_is_of_an_authority_that_is_trusted_no_more_is_cut_at_once_and_others_are_not() {
    let (one, two) = (Two::new(), Two::new());
    let both = format!("{}{}", one.ca.certificate_pem(), two.ca.certificate_pem());
    let trust =
        |folder: &Two, authorities: &str| std::fs::write(folder.dir.path().join("ca.pem"), authorities).unwrap();
    let provider_files = save(one.dir.path(), &one.ca, "provider", &request(PROVIDER));
    let ours = save(one.dir.path(), &one.ca, "ours", &request("did:web:ours.example"));
    let theirs = save(two.dir.path(), &two.ca, "theirs", &request(CONSUMER));
    trust(&one, &both);
    trust(&two, &both);
    let provider = TlsIdentity::load(&provider_files).unwrap();
    let (ours, consumer) = (TlsIdentity::load(&ours).unwrap(), TlsIdentity::load(&theirs).unwrap());
    let (address, _) = serve(provider.clone()).await;
    let (ours, theirs) = (client(ours), client(consumer.clone()));
    let url = format!("https://{address}/who");

    // A reload that withdraws nothing cuts nothing, and the next one is looked at as well.
    let mut our_stream = endless(&ours, address).await;
    let mut their_stream = endless(&theirs, address).await;
    provider.reload().unwrap();
    consumer.reload().unwrap();
    read(&mut our_stream, MUCH).await.unwrap();
    read(&mut their_stream, MUCH).await.unwrap();

    // A kept connection, too.
    assert_eq!(ask(&theirs, PROVIDER, &url).await.unwrap(), CONSUMER);
    trust(&one, &one.ca.certificate_pem());
    provider.reload().unwrap();
    let broken = read(&mut their_stream, MUCH).await.unwrap_err();
    assert!(!broken.is_empty());
    let told = message(ask(&theirs, PROVIDER, &url).await);
    assert!(told.contains("the peer refused our certificate") && told.contains("unknown ca"), "{told}");
    read(&mut our_stream, MUCH).await.unwrap();

    // The other way round: the client takes no more from a server whose authority it trusts no more.
    trust(&one, &both);
    provider.reload().unwrap();
    let mut their_stream = endless(&theirs, address).await;
    read(&mut their_stream, MUCH).await.unwrap();
    trust(&two, &two.ca.certificate_pem());
    consumer.reload().unwrap();
    let broken = read(&mut their_stream, MUCH).await.unwrap_err();
    assert!(broken.contains("no authority that is trusted now"), "{broken}");
    let told = message(ask(&theirs, PROVIDER, &url).await);
    assert!(told.contains("not in our trust bundle"), "{told}");
}
