//! The client that reaches peers: identity checked before the first byte of a request leaves.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::io::Read as _;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, Uri, header};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use kontor_core::id::ParticipantId;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_openssl::SslStream;
use url::Url;

use crate::egress::{EgressError, EgressFilter};
use crate::identity::{TrustError, take};
use crate::serve::reason_of;
use crate::stream::{Activity, Gather, Wire, alert_in};
use crate::tls::{Shown, TlsIdentity};
use crate::trace::{TRACEPARENT, TraceContext};

/// Limits of the peer client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Resolving, dialling and the TLS handshake.
    pub connect_timeout: Duration,
    /// From the request to the head of its response.
    pub header_timeout: Duration,
    /// All of [`PeerClient::send`], the response's body included.
    pub request_timeout: Duration,
    /// Bytes of a response's body in [`PeerClient::send`], compressed and not.
    pub response_bytes_max: usize,
    /// Bytes of a response's head. At least 8192.
    pub header_bytes_max: usize,
    /// Idle connections kept per peer and address.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept; shorter than the server's own.
    pub idle_timeout: Duration,
    /// Whether a request is sent once more when a kept connection turns out to be closed before a byte of the response
    /// came. Right for messages that carry an id, and for reading; a request that never left is always sent again.
    pub repeat_on_stale: bool,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            response_bytes_max: 4 * 1024 * 1024,
            header_bytes_max: 32 * 1024,
            idle_connections_max: 16,
            idle_timeout: Duration::from_secs(30),
            repeat_on_stale: true,
        }
    }
}

/// Why a peer was not reached, or did not answer properly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The address is not one that we dial.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// No connection.
    #[error("no connection to `{authority}`: {reason}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said.
        reason: String,
    },
    /// The peer is not who it should be, or does not trust us.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The peer was too slow.
    #[error("`{authority}` did not {what} within {after:?}")]
    Timeout {
        /// Host and port.
        authority: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The peer does not speak HTTP as it should.
    #[error("`{authority}` broke HTTP: {reason}")]
    Protocol {
        /// Host and port.
        authority: String,
        /// What was wrong.
        reason: String,
    },
    /// The response is longer than we take.
    #[error("the response of `{authority}` is longer than {limit} bytes")]
    TooLarge {
        /// Host and port.
        authority: String,
        /// The limit.
        limit: usize,
    },
}

impl PeerError {
    /// Whether the same request may succeed later without anyone changing a setting here.
    ///
    /// Trust may: certificates are renewed at the other end, and a refusal must not end a negotiation for good before
    /// an operator could mend it. An address that is refused, or a response that is too long, stays so.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Protocol { .. } | Self::Trust(_) => true,
            Self::Egress(EgressError::Resolve { .. }) => true,
            Self::Egress(EgressError::Url { .. } | EgressError::Address { .. }) | Self::TooLarge { .. } => false,
        }
    }
}

/// Bytes that hyper reads at once; what a body arrives in.
const BUFFER_BYTES: usize = 256 * 1024;
/// Header fields of a response.
const HEADERS_MAX: usize = 64;

/// Reaches peers, keeps connections. Clones share them. Redirects are never followed, and no compressed body is asked
/// for unless the caller's request does; [`PeerClient::send`] reads one all the same, as the protocol lets a catalogue
/// be compressed unasked.
#[derive(Clone)]
pub struct PeerClient {
    inner: Arc<Inner>,
}

struct Inner {
    how: How,
    egress: EgressFilter,
    limits: ClientLimits,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: HashMap<Key, Vec<Idle>>,
    /// Whether somebody closes what grows too old.
    tended: bool,
}

enum How {
    MutualTls(TlsIdentity),
    Insecure(HeaderValue),
}

/// Connections are kept apart by peer: another participant at the same address would have another identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    peer: ParticipantId,
    host: String,
    port: u16,
}

impl Key {
    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

type Driver = http1::Connection<TokioIo<Wire>, Full<Bytes>>;

/// A connection is moved by whoever uses it, not by a task of its own: a request and every frame of its response would
/// otherwise be handed from one thread to another. While it is idle nobody moves it; what came in meanwhile, such as
/// its end, is found when it is taken again.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it ended.
    driver: Option<Pin<Box<Driver>>>,
    activity: Activity,
    generation: u64,
    /// `None` without TLS.
    trust: Option<Trust>,
}

/// What a connection over mutual TLS rests on.
struct Trust {
    identity: TlsIdentity,
    /// The reload that the connection was last held against.
    checked: u64,
    shown: Option<Shown>,
}

impl Trust {
    /// Looks again only where our certificate or trust was reloaded.
    fn holds(&mut self) -> bool {
        let now = self.identity.generation_now();
        if now == self.checked {
            return true;
        }
        self.checked = now;
        self.shown.as_ref().is_some_and(|shown| self.identity.still_trusts(shown))
    }
}

impl Connection {
    /// Lets nothing more in from a peer whom we would not connect to any more.
    fn sever_if_withdrawn(&mut self) {
        if self.trust.as_mut().is_some_and(|trust| !trust.holds()) {
            tracing::warn!("connection to a peer cut: its certificate is of no authority that is trusted now");
            self.activity.lock().severed = true;
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(cx)
        {
            self.driver = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to a peer ended early");
            }
        }
    }

    /// Whether it takes another request. Looks at what came in since it was used.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Moves the connection until there is an answer.
    async fn answer<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// The body of a response, which moves its connection when it is read. A body that is dropped before its end closes the
/// connection; one that is read to its end gives it back.
pub struct PeerBody {
    body: Incoming,
    /// `None` once it was given back.
    connection: Option<(Connection, Key)>,
    client: Weak<Inner>,
}

impl std::fmt::Debug for PeerBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PeerBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl PeerBody {
    /// Gives the connection back, if the client is still there to take it.
    fn give_back(&mut self) {
        if let (Some((connection, key)), Some(client)) = (self.connection.take(), self.client.upgrade()) {
            client.keep(key, Idle { connection, since: Instant::now() });
        }
    }
}

impl Body for PeerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some((connection, _)) = &mut this.connection {
            connection.sever_if_withdrawn();
        }
        let mut frame = Pin::new(&mut this.body).poll_frame(cx);
        if frame.is_pending()
            && let Some((connection, _)) = &mut this.connection
        {
            connection.drive(cx);
            frame = Pin::new(&mut this.body).poll_frame(cx);
        }
        let frame = ready!(frame);
        if frame.is_none() || this.body.is_end_stream() {
            this.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for PeerClient {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PeerClient").field("limits", &self.inner.limits).finish_non_exhaustive()
    }
}

impl PeerClient {
    /// A client over mutual TLS.
    #[must_use]
    pub fn mutual_tls(identity: TlsIdentity, egress: EgressFilter, limits: ClientLimits) -> Self {
        Self::new(How::MutualTls(identity), egress, limits)
    }

    /// A client over plain HTTP that says who it is in a header, for the profile whose name says `insecure`. It dials
    /// loopback only, whatever the filter allowed.
    #[must_use]
    pub fn insecure(own: ParticipantId, egress: EgressFilter, limits: ClientLimits) -> Self {
        // The mock identity of Eclipse EDC, which this is a form of, has a region too, and fails where there is none.
        let claim = serde_json::json!({ "region": "eu", "clientId": own.as_str() }).to_string();
        // A participant has no control characters, so its JSON is a header value; should it ever not be, the peer
        // answers 401.
        let claim = HeaderValue::from_str(&claim).unwrap_or_else(|_| HeaderValue::from_static("{}"));
        Self::new(How::Insecure(claim), egress.into_insecure(), limits)
    }

    fn new(how: How, egress: EgressFilter, limits: ClientLimits) -> Self {
        Self { inner: Arc::new(Inner { how, egress, limits, pool: Mutex::default() }) }
    }

    /// Sends a request to a full URL and reads the whole response.
    ///
    /// # Errors
    /// [`PeerError`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection; the peer may or may not have taken the request.
    pub async fn send(&self, peer: &ParticipantId, request: Request<Bytes>) -> Result<Response<Bytes>, PeerError> {
        let limits = &self.inner.limits;
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let limit = limits.response_bytes_max;
        let whole = async {
            let (head, body) = self.open(peer, request).await?.into_parts();
            match Limited::new(body, limit).collect().await {
                Ok(body) => decoded(Response::from_parts(head, body.to_bytes()), &authority, limit),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(PeerError::TooLarge { authority: authority.clone(), limit })
                }
                Err(error) => Err(PeerError::Protocol {
                    authority: authority.clone(),
                    reason: format!("the body of its response does not end: {error}"),
                }),
            }
        };
        timeout(limits.request_timeout, whole).await.unwrap_or_else(|_| {
            Err(PeerError::Timeout { authority: authority.clone(), what: "answer", after: limits.request_timeout })
        })
    }

    /// Sends a request to a full URL and returns as soon as the response's head is there. The body is the caller's: a
    /// body that is dropped closes its connection, one that is read to its end gives the connection back. A body that
    /// was cut ends with an error, never as if it were whole.
    ///
    /// # Errors
    /// [`PeerError`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection; the peer may or may not have taken the request.
    pub async fn open(&self, peer: &ParticipantId, request: Request<Bytes>) -> Result<Response<PeerBody>, PeerError> {
        let (key, request) = self.inner.prepare(peer, request)?;
        if let Some(kept) = self.inner.checkout(&key) {
            match self.exchange(kept, &key, request.clone()).await {
                Err(Failure { stale: true, .. }) => {
                    tracing::debug!(peer = %peer, "kept connection was closed, dialling anew");
                }
                Err(failure) => return Err(failure.error),
                Ok(response) => return Ok(response),
            }
        }
        let limits = &self.inner.limits;
        let fresh = timeout(limits.connect_timeout, self.inner.connect(&key)).await.unwrap_or_else(|_| {
            Err(PeerError::Timeout { authority: key.authority(), what: "connect", after: limits.connect_timeout })
        })?;
        self.exchange(fresh, &key, request).await.map_err(|failure| failure.error)
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        key: &Key,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<PeerBody>, Failure> {
        let limits = &self.inner.limits;
        let answer = connection.sender.try_send_request(request);
        let sent = timeout(limits.header_timeout, connection.answer(answer)).await;
        match sent {
            Ok(Ok(response)) => Ok(response.map(|body| {
                let ended = body.is_end_stream();
                let client = Arc::downgrade(&self.inner);
                let mut body = PeerBody { body, connection: Some((connection, key.clone())), client };
                if ended {
                    body.give_back();
                }
                body
            })),
            Ok(Err(mut failed)) => {
                let unsent = failed.take_message().is_some();
                let error = failed.into_error();
                let closed = error.is_closed() || error.is_canceled() || error.is_incomplete_message() || is_io(&error);
                let alert = connection.activity.lock().alert.take();
                let stale = alert.is_none() && (unsent || (closed && limits.repeat_on_stale));
                let error = match alert {
                    Some(alert) => PeerError::Trust(TrustError::RefusedByPeer { alert }),
                    None if closed => PeerError::Connect { authority: key.authority(), reason: in_full(&error) },
                    None => PeerError::Protocol { authority: key.authority(), reason: in_full(&error) },
                };
                Err(Failure { error, stale })
            }
            Err(_) => {
                let error =
                    PeerError::Timeout { authority: key.authority(), what: "answer", after: limits.header_timeout };
                Err(Failure { error, stale: false })
            }
        }
    }
}

/// A failed exchange, and whether a kept connection was merely closed meanwhile.
struct Failure {
    error: PeerError,
    stale: bool,
}

impl Inner {
    /// Checks the address and makes the request one for this connection: origin form, `Host`, trace, identity.
    fn prepare(&self, peer: &ParticipantId, request: Request<Bytes>) -> Result<(Key, Request<Full<Bytes>>), PeerError> {
        let malformed = |reason: String| EgressError::Url { url: request.uri().to_string(), reason };
        let url = Url::parse(&request.uri().to_string()).map_err(|error| malformed(error.to_string()))?;
        self.egress.check_url(&url)?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(malformed("it names no host and port".to_owned()).into());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned();
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let host_header = HeaderValue::from_str(&authority).map_err(|error| malformed(error.to_string()))?;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse::<Uri>().map_err(|error| malformed(error.to_string()))?;
        let (mut head, body) = request.into_parts();
        head.uri = target;
        head.headers.insert(header::HOST, host_header);
        if let How::Insecure(claim) = &self.how {
            // A token that the request carries is worth more than a claim.
            head.headers.entry(header::AUTHORIZATION).or_insert_with(|| claim.clone());
        }
        if let Some(trace) = TraceContext::current().filter(|_| !head.headers.contains_key(TRACEPARENT))
            && let Ok(value) = HeaderValue::from_str(&trace.child().to_header())
        {
            head.headers.insert(TRACEPARENT, value);
        }
        Ok((Key { peer: peer.clone(), host, port }, Request::from_parts(head, Full::new(body))))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> u64 {
        match &self.how {
            How::MutualTls(identity) => identity.generation_now(),
            How::Insecure(_) => 0,
        }
    }

    /// A connection made with an older identity is not used again.
    fn is_usable(&self, idle: &mut Idle) -> bool {
        idle.since.elapsed() < self.limits.idle_timeout
            && idle.connection.generation == self.generation()
            && idle.connection.is_ready()
    }

    fn checkout(&self, key: &Key) -> Option<Connection> {
        let mut pool = self.pool();
        let kept = pool.idle.get_mut(key)?;
        // The youngest first: the old ones then grow too old and are closed.
        while let Some(mut candidate) = kept.pop() {
            if self.is_usable(&mut candidate) {
                return Some(candidate.connection);
            }
        }
        pool.idle.remove(key);
        None
    }

    fn keep(self: &Arc<Self>, key: Key, mut connection: Idle) {
        if !self.is_usable(&mut connection) {
            return;
        }
        let mut pool = self.pool();
        let kept = pool.idle.entry(key).or_default();
        if kept.len() < self.limits.idle_connections_max {
            kept.push(connection);
        }
        if !std::mem::replace(&mut pool.tended, true) {
            tokio::spawn(tend(Arc::downgrade(self), self.limits.idle_timeout));
        }
    }

    /// Closes what is too old. Whether anything is left to tend.
    fn prune(&self) -> bool {
        let mut pool = self.pool();
        pool.idle.retain(|_, kept| {
            kept.retain_mut(|connection| self.is_usable(connection));
            !kept.is_empty()
        });
        pool.tended = !pool.idle.is_empty();
        pool.tended
    }

    async fn connect(&self, key: &Key) -> Result<Connection, PeerError> {
        let addresses = self.egress.resolve(&key.host, key.port).await?;
        let failed = |reason: String| PeerError::Connect { authority: key.authority(), reason };
        let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(|error| failed(error.to_string()))?;
        let _ = tcp.set_nodelay(true);
        let activity = Activity::default();
        let gather = Gather::new(tcp, activity.clone());
        let generation = self.generation();
        let (wire, trust) = match &self.how {
            How::Insecure(_) => (Wire::plain(gather, activity.clone()), None),
            How::MutualTls(identity) => {
                let stream = handshake(identity, key, gather).await?;
                let shown = Shown::by_peer(stream.ssl());
                let trust = Trust { identity: identity.clone(), checked: generation, shown };
                (Wire::tls(stream, activity.clone()), Some(trust))
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(self.limits.header_bytes_max)
            .max_buf_size(self.limits.header_bytes_max.max(BUFFER_BYTES))
            .writev(true)
            .handshake::<_, Full<Bytes>>(TokioIo::new(wire))
            .await
            .map_err(|error| failed(in_full(&error)))?;
        Ok(Connection { sender, driver: Some(Box::pin(connection)), activity, generation, trust })
    }
}

/// Closes idle connections that nobody asked for again; ends when none are left.
async fn tend(client: Weak<Inner>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        // Not held while it sleeps: a client that is dropped closes its connections.
        if !client.upgrade().is_some_and(|client| client.prune()) {
            return;
        }
    }
}

/// The client's side of a handshake: chain, validity, usage, host name and participant are checked in OpenSSL's verify
/// callback, so no byte of a request leaves before they hold.
async fn handshake(identity: &TlsIdentity, key: &Key, gather: Gather) -> Result<Box<SslStream<Gather>>, PeerError> {
    let (ssl, verdict) = identity.connect(&key.peer, &key.host)?;
    let stream = SslStream::new(ssl, gather).map_err(|error| TrustError::OpenSsl(error.to_string()))?;
    let mut stream = Box::new(stream);
    match Pin::new(stream.as_mut()).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(match (take(&verdict), alert_in(&error), reason_of(&error)) {
            (Some(reason), _, _) => reason.into(),
            (None, Some(alert), _) => TrustError::RefusedByPeer { alert }.into(),
            (None, None, Some(reason)) => TrustError::Handshake(reason).into(),
            (None, None, None) => {
                let reason = match error.into_io_error() {
                    Ok(error) => format!("it closed during the TLS handshake: {error}"),
                    Err(error) => format!("it closed during the TLS handshake: {error}"),
                };
                PeerError::Connect { authority: key.authority(), reason }
            }
        }),
    }
}

/// A response without its content coding. A few bytes can unpack to any number: no more than the limit are made.
fn decoded(response: Response<Bytes>, authority: &str, limit: usize) -> Result<Response<Bytes>, PeerError> {
    let broken = |reason: String| PeerError::Protocol { authority: authority.to_owned(), reason };
    let Some(coding) = response.headers().get(header::CONTENT_ENCODING) else { return Ok(response) };
    let coding = coding.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    match coding.as_str() {
        "" | "identity" => return Ok(response),
        "gzip" | "x-gzip" => {}
        _ => return Err(broken(format!("its response has the content coding `{coding}`; `gzip` would have passed"))),
    }
    let (mut head, body) = response.into_parts();
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body.as_ref())
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|error| broken(format!("its response is no gzip: {error}")))?;
    if plain.len() > limit {
        return Err(PeerError::TooLarge { authority: authority.to_owned(), limit });
    }
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(head, plain.into()))
}

fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// An error with its causes: hyper's own words alone say little.
fn in_full(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
