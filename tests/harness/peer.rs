//! A peer that the test plays: it listens over mutual TLS, notes what it is told, answers as the
//! test wants, and says what no connector would say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use kontor_core::id::ParticipantId;
use kontor_core::peer::VerifiedPeer;
use kontor_vocab::dsp::context;
use kontor_wire::client::{ClientLimits, PeerClient, PeerError};
use kontor_wire::egress::EgressFilter;
use kontor_wire::serve::{ServeLimits, serve_mutual_tls};
use kontor_wire::tls::{TlsFiles, TlsIdentity};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::participant::{Answer, Participant, eventually, links};

/// A request that came to us.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Who sent it.
    pub from: String,
    /// Method.
    pub method: String,
    /// Path below our base.
    pub path: String,
    /// The header `Authorization`, where there was one.
    pub authorization: Option<String>,
    /// Body as JSON; null where it is none.
    pub body: Value,
}

/// What we answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A JSON body.
    Json(u16, Value),
    /// No body and no content type.
    Empty(u16),
    /// Something that is no JSON.
    Text(u16, String),
    /// Nothing, ever.
    Never,
    /// Any headers and bytes.
    Raw(u16, Vec<(&'static str, String)>, Bytes),
    /// Late.
    After(Duration, Box<Reply>),
}

impl Reply {
    /// The acknowledgement that the protocol wants, with `peer_pid` as our identifier.
    #[must_use]
    pub fn ack(request: &Recorded, peer_pid: &str) -> Self {
        let transfer = request.path.starts_with("/transfers");
        let first = request.path.ends_with("/transfers/request")
            || request.path.ends_with("/negotiations/request")
            || request.path.ends_with("/negotiations/offers");
        let own = |name: &str| request.body.get(name).and_then(Value::as_str).unwrap_or(peer_pid).to_owned();
        let state = match request.body["@type"].as_str().unwrap_or_default() {
            "ContractOfferMessage" => "OFFERED",
            "ContractAgreementMessage" => "AGREED",
            "ContractAgreementVerificationMessage" => "VERIFIED",
            "ContractNegotiationEventMessage" => request.body["eventType"].as_str().unwrap_or("FINALIZED"),
            "ContractNegotiationTerminationMessage" | "TransferTerminationMessage" => "TERMINATED",
            "TransferStartMessage" => "STARTED",
            "TransferSuspensionMessage" => "SUSPENDED",
            "TransferCompletionMessage" => "COMPLETED",
            _ => "REQUESTED",
        };
        let body = json!({
            "@context": context(),
            "@type": if transfer { "TransferProcess" } else { "ContractNegotiation" },
            "consumerPid": own("consumerPid"), "providerPid": own("providerPid"), "state": state,
        });
        Self::Json(if first { 201 } else { 200 }, body)
    }
}

type Answerer = dyn Fn(&Recorded) -> Reply + Send + Sync;

struct Desk {
    seen: Mutex<Vec<Recorded>>,
    answer: Box<Answerer>,
}

/// A peer that the test plays.
pub struct FakePeer {
    /// Its URI.
    pub id: String,
    /// The base of its protocol.
    pub address: String,
    client: PeerClient,
    desk: Arc<Desk>,
    shutdown: CancellationToken,
}

impl FakePeer {
    /// Listens with the given certificate.
    pub async fn start(
        id: &str,
        files: &TlsFiles,
        answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let identity = TlsIdentity::load(files).unwrap();
        let desk = Arc::new(Desk { seen: Mutex::default(), answer: Box::new(answer) });
        let router = Router::new().fallback(take).with_state(desk.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let limits = ServeLimits { drain_timeout: Duration::ZERO, ..ServeLimits::default() };
        tokio::spawn(serve_mutual_tls(listener, identity.clone(), router, limits, shutdown.clone()));
        Self { id: id.to_owned(), address, client: client(identity), desk, shutdown }
    }

    /// Sends anything to a connector, at a path below its protocol's base.
    pub async fn try_send(&self, to: &Participant, method: &str, path: &str, body: Bytes) -> Result<Answer, PeerError> {
        self.say(&to.id, method, &format!("{}{path}", to.address()), "application/json", body).await
    }

    /// Sends anything to anybody.
    pub async fn say(
        &self,
        to: &str,
        method: &str,
        url: &str,
        media_type: &str,
        body: Bytes,
    ) -> Result<Answer, PeerError> {
        let request = http::Request::builder().method(method).uri(url).header("content-type", media_type);
        self.request(to, request.body(body).unwrap()).await
    }

    /// Sends a request with whatever headers it has.
    pub async fn request(&self, to: &str, request: http::Request<Bytes>) -> Result<Answer, PeerError> {
        let response = self.client.send(&ParticipantId::parse(to).unwrap(), request).await?;
        let status = response.status().as_u16();
        let links = links(response.headers());
        let text = String::from_utf8_lossy(response.body()).into_owned();
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)), links })
    }

    /// Posts a message to a connector.
    pub async fn post(&self, to: &Participant, path: &str, message: &Value) -> Answer {
        self.try_send(to, "POST", path, Bytes::from(message.to_string())).await.unwrap()
    }

    /// Asks a connector.
    pub async fn get(&self, from: &Participant, path: &str) -> Answer {
        self.try_send(from, "GET", path, Bytes::new()).await.unwrap()
    }

    /// Opens a data address with a token; the body is left to the caller.
    pub async fn open(
        &self,
        from: &Participant,
        endpoint: &str,
        token: &str,
    ) -> http::Response<kontor_wire::client::PeerBody> {
        self.open_from(from, endpoint, token, 0).await
    }

    /// Opens a data address from a byte on.
    pub async fn open_from(
        &self,
        from: &Participant,
        endpoint: &str,
        token: &str,
        first: u64,
    ) -> http::Response<kontor_wire::client::PeerBody> {
        let request = http::Request::get(endpoint).header("authorization", format!("Bearer {token}"));
        let request = if first > 0 { request.header("range", format!("bytes={first}-")) } else { request };
        let request = request.body(Bytes::new()).unwrap();
        self.client.open(&ParticipantId::parse(from.id.as_str()).unwrap(), request).await.unwrap()
    }

    /// Opens a data address and reads what is answered.
    pub async fn fetch(&self, from: &Participant, endpoint: &str, token: &str) -> (u16, Bytes) {
        let response = self.open(from, endpoint, token).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default())
    }

    /// What came so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Recorded> {
        self.desk.seen.lock().unwrap().clone()
    }

    /// Waits for a message of a type.
    ///
    /// # Panics
    /// When none comes.
    pub async fn wait_for(&self, kind: &str) -> Recorded {
        self.wait_until(kind, |_| true).await
    }

    /// Waits for a message of a type to the process that we have as a consumer.
    ///
    /// # Panics
    /// When none comes.
    pub async fn wait_for_to(&self, kind: &str, consumer_pid: &str) -> Recorded {
        self.wait_until(kind, |seen| seen.body["consumerPid"] == consumer_pid).await
    }

    async fn wait_until(&self, kind: &str, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let is = |seen: &Recorded| seen.body["@type"] == kind && wanted(seen);
        let found = eventually(|| async { self.seen().into_iter().rev().find(is) }).await;
        found.unwrap_or_else(|| panic!("no {kind} came to {}: {:#?}", self.id, self.seen()))
    }
}

impl Drop for FakePeer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A client that may call loopback.
#[must_use]
pub fn client(identity: TlsIdentity) -> PeerClient {
    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    PeerClient::mutual_tls(identity, egress, ClientLimits::default())
}

async fn take(State(desk): State<Arc<Desk>>, Extension(peer): Extension<VerifiedPeer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let recorded = Recorded {
        from: peer.participant().to_string(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        authorization: head.headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    desk.seen.lock().unwrap().push(recorded.clone());
    let mut reply = (desk.answer)(&recorded);
    loop {
        reply = match reply {
            Reply::After(wait, then) => {
                tokio::time::sleep(wait).await;
                *then
            }
            Reply::Never => return std::future::pending().await,
            Reply::Json(status, body) => {
                let header = [("content-type", "application/json")];
                return (status_of(status), header, body.to_string()).into_response();
            }
            Reply::Text(status, text) => return (status_of(status), text).into_response(),
            Reply::Raw(status, headers, body) => {
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = status_of(status);
                for (name, value) in headers {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
                return response;
            }
            Reply::Empty(status) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status_of(status);
                return response;
            }
        };
    }
}

fn status_of(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap()
}
