//! The accept loop: limits on connections, headers and time, mutual TLS, graceful shutdown.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kontor_core::id::ParticipantId;
use kontor_core::peer::{Binding, VerifiedPeer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::identity::{TrustError, take, verified_peer};
use crate::problem::Problem;
use crate::stream::{Activity, Gather, Wire, alert_in};
use crate::tls::{Shown, TlsIdentity};

/// Limits of a listener. Every one has a default that a small machine can bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections open at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Bytes of a request's head; more is answered with 431. At least 8192.
    pub header_bytes_max: usize,
    /// Header fields of a request; more is answered with 431.
    pub headers_max: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Between two requests of one connection.
    pub idle_timeout: Duration,
    /// Longest pause of a peer inside a body, in either direction.
    pub stall_timeout: Duration,
    /// From shutdown until connections that are still busy are cut.
    pub drain_timeout: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            header_bytes_max: 32 * 1024,
            headers_max: 64,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The connection that a request came in on, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The address at the other end.
    pub remote: SocketAddr,
}

/// Serves a router over mutual TLS until shutdown. Every request carries `Extension<VerifiedPeer>` and
/// `Extension<ConnectionInfo>`.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_mutual_tls(
    listener: TcpListener,
    identity: TlsIdentity,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    accept_all(listener, Mode::MutualTls(identity), router, limits, shutdown).await
}

/// Serves a router without TLS, for management and browsers. The caller guarantees loopback.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_plain(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    accept_all(listener, Mode::Plain, router, limits, shutdown).await
}

/// Serves a router without TLS and believes the header `Authorization: {"clientId":"X"}`. For the profile whose name
/// says `insecure`: refuses a listener beyond loopback.
///
/// The header has one place for two things, who asks and with which token. A request with a token, or with none of both,
/// reaches the router without a [`VerifiedPeer`]; see [`require_peer`].
///
/// # Errors
/// When the listener is not bound to loopback, or fails for good.
pub async fn serve_insecure_headers(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let message =
            format!("an insecure profile listens on loopback only, not on `{address}`; `127.0.0.1` would have passed");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    accept_all(listener, Mode::InsecureHeader, router, limits, shutdown).await
}

/// Smallest buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8192;
/// Bytes that hyper reads and buffers at once; heads have their own, smaller limit.
const BUFFER_BYTES: usize = 128 * 1024;
/// Where a peer still sends when we are done with it: how long we read on, so that our last words reach it. Closing at
/// once would answer it with a reset, and the reset overtakes them.
const LINGER: Duration = Duration::from_secs(2);
/// How much of a request is read on after a refused handshake.
const LINGER_BYTES: usize = 64 * 1024;
/// How much of a body is read on that nobody wanted to the end.
const LINGER_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Pause after an accept that failed, since most failures are a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
enum Mode {
    MutualTls(TlsIdentity),
    InsecureHeader,
    Plain,
}

/// What all connections of a listener share.
struct Shared {
    mode: Mode,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
    kill: CancellationToken,
}

async fn accept_all(
    listener: TcpListener,
    mode: Mode,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let drain_timeout = limits.drain_timeout;
    let slots = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let kill = CancellationToken::new();
    let shared = Arc::new(Shared { mode, router, limits, shutdown: shutdown.clone(), kill: kill.clone() });
    let tracker = TaskTracker::new();
    // A task that drops this future must not leave connections behind.
    let _guard = kill.clone().drop_guard();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (tcp, remote) = listener.accept().await?;
            Ok::<_, io::Error>((slot, tcp, remote))
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => match next {
                Ok((slot, tcp, remote)) => {
                    tracker.spawn(connection(Arc::clone(&shared), slot, tcp, remote));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    tracker.close();
    if timeout(drain_timeout, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), after = ?drain_timeout, "connections cut that were busy at shutdown");
        kill.cancel();
        tracker.wait().await;
    }
    Ok(())
}

async fn connection(shared: Arc<Shared>, slot: OwnedSemaphorePermit, tcp: TcpStream, remote: SocketAddr) {
    let _slot = slot;
    let _ = tcp.set_nodelay(true);
    let activity = Activity::default();
    let gather = Gather::new(tcp, activity.clone());
    let (wire, peer, trust) = match &shared.mode {
        Mode::Plain | Mode::InsecureHeader => (Wire::plain(gather, activity.clone()), None, None),
        Mode::MutualTls(identity) => {
            let generation = identity.generation();
            let handshake = timeout(shared.limits.handshake_timeout, handshake(identity, gather));
            let done = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                done = handshake => done,
            };
            match done {
                Ok(Some((stream, peer))) => {
                    let shown = Shown::by_peer(stream.ssl());
                    let trust = Trust { identity: identity.clone(), generation, shown };
                    (Wire::tls(stream, activity.clone()), Some(peer), Some(trust))
                }
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(remote = %remote, after = ?shared.limits.handshake_timeout, "TLS handshake too slow");
                    return;
                }
            }
        }
    };
    exchange(&shared, wire, peer, trust, remote, activity).await;
}

/// What a connection over mutual TLS rests on.
struct Trust {
    identity: TlsIdentity,
    /// Counts reloads; what it was before the handshake counts as seen.
    generation: watch::Receiver<u64>,
    shown: Option<Shown>,
}

impl Trust {
    /// Waits for the next reload of our certificate and trust.
    async fn reloaded(&mut self) {
        if self.generation.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn holds(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| self.identity.still_trusts(shown))
    }
}

/// The server's side of a handshake. A refusal is logged here, once, with its reason.
async fn handshake(identity: &TlsIdentity, gather: Gather) -> Option<(Box<SslStream<Gather>>, VerifiedPeer)> {
    let remote = gather.get_ref().peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let started = identity.accept().and_then(|(ssl, verdict)| {
        let stream = SslStream::new(ssl, gather).map_err(|error| TrustError::OpenSsl(error.to_string()))?;
        Ok((Box::new(stream), verdict))
    });
    let (mut stream, verdict) = match started {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(%remote, %error, "TLS handshake impossible");
            return None;
        }
    };
    let refusal = match Pin::new(stream.as_mut()).accept().await {
        Ok(()) => match verified_peer(stream.ssl()) {
            Ok(peer) => return Some((stream, peer)),
            Err(error) => error,
        },
        Err(error) => take(&verdict).unwrap_or_else(|| match reason_of(&error) {
            Some(reason) if reason.contains("peer did not return a certificate") => TrustError::NoPeerCertificate,
            reason => TrustError::Handshake(
                alert_in(&error)
                    .map(|alert| format!("the peer ended it ({alert})"))
                    .or(reason)
                    .unwrap_or_else(|| error.to_string()),
            ),
        }),
    };
    tracing::warn!(%remote, error = %refusal, "TLS handshake refused");
    let _ = timeout(LINGER, linger(stream.get_mut(), LINGER_BYTES)).await;
    None
}

async fn linger(gather: &mut Gather, bytes_max: usize) {
    if gather.shutdown().await.is_err() {
        return;
    }
    let mut waste = [0; 4096];
    let mut left = bytes_max;
    while let Ok(count) = gather.read(&mut waste).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            return;
        }
    }
}

pub(crate) fn reason_of(error: &openssl::ssl::Error) -> Option<String> {
    let entry = error.ssl_error()?.errors().first()?;
    Some(entry.reason().unwrap_or("unknown reason").to_owned())
}

/// Why a connection ends although hyper did not end it.
enum End {
    Hyper(Result<(), hyper::Error>),
    Slow(&'static str),
    Withdrawn,
    Killed,
}

async fn exchange(
    shared: &Shared,
    wire: Wire,
    peer: Option<VerifiedPeer>,
    mut trust: Option<Trust>,
    remote: SocketAddr,
    activity: Activity,
) {
    let limits = &shared.limits;
    activity.lock().idle_since = Some(Instant::now());
    let service = {
        let activity = activity.clone();
        service_fn(move |request: Request<Incoming>| {
            Box::pin(answer(shared, request, peer.clone(), ConnectionInfo { remote }, &activity))
        })
    };
    let mut connection = Some(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(limits.headers_max)
            .max_header_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN))
            .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES))
            .half_close(false)
            .writev(true)
            .pipeline_flush(false)
            .serve_connection(TokioIo::new(wire), service),
    );
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut shutdown = pin!(shared.shutdown.cancelled());
    let mut kill = pin!(shared.kill.cancelled());
    let mut ending = false;
    let reloads = trust.as_ref().map(|trust| trust.generation.clone());
    let mut withdrawn = pin!(async {
        match &mut trust {
            None => std::future::pending().await,
            Some(trust) => loop {
                trust.reloaded().await;
                if !trust.holds() {
                    return;
                }
            },
        }
    });
    let end = poll_fn(|cx| {
        let Some(mut running) = connection.as_mut().map(Pin::new) else { return Poll::Ready(End::Killed) };
        if kill.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Killed);
        }
        if withdrawn.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Withdrawn);
        }
        // Whoever waits for the trust to be withdrawn is woken by every reload.
        let reloaded = reloads.as_ref().is_some_and(|reloads| reloads.has_changed().unwrap_or(false));
        if !ending && (reloaded || shutdown.as_mut().poll(cx).is_ready()) {
            ending = true;
            running.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(done) = running.as_mut().poll(cx) {
            return Poll::Ready(End::Hyper(done));
        }
        // What the peer owes us may have changed with every poll; the timer follows.
        loop {
            let Some((deadline, what)) = deadline(&activity, limits) else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(End::Slow(what));
            }
        }
    })
    .await;
    match end {
        End::Hyper(Ok(())) if !activity.lock().unread => return,
        End::Slow("idle") => return,
        End::Hyper(done) if done.as_ref().err().is_none_or(hyper::Error::is_parse) => {
            // The last answer is whole, and the peer is still sending.
            if let Err(error) = done {
                tracing::debug!(%remote, %error, "connection ended: no request");
            }
            if let Some(running) = connection.take() {
                let mut wire = running.into_parts().io.into_inner();
                let end = async {
                    if wire.shutdown().await.is_ok() {
                        linger(wire.gather(), LINGER_BODY_BYTES).await;
                    }
                };
                let _ = timeout(LINGER, end).await;
            }
            return;
        }
        End::Hyper(done) => {
            if let Err(error) = done {
                tracing::debug!(%remote, %error, "connection ended early");
            }
        }
        End::Slow(what) => tracing::info!(%remote, what, "connection closed: the peer is too slow"),
        End::Withdrawn => {
            tracing::warn!(%remote, "connection cut: the peer's certificate is of no authority that is trusted now");
        }
        End::Killed => {}
    }
    // What was gathered still leaves, but nothing that would make a cut body look whole.
    if let Some(running) = connection.take() {
        let wire = running.into_parts().io.into_inner();
        let _ = timeout(LINGER, wire.abort()).await;
    }
}

fn deadline(activity: &Activity, limits: &ServeLimits) -> Option<(Instant, &'static str)> {
    let seen = activity.lock();
    if let Some(since) = seen.blocked_since {
        return Some((since + limits.stall_timeout, "it takes no bytes"));
    }
    if seen.busy > 0 {
        return None;
    }
    match (seen.head_since, seen.idle_since) {
        (Some(since), _) => Some((since + limits.header_timeout, "the head of its request does not end")),
        (None, Some(since)) => Some((since + limits.idle_timeout, "idle")),
        (None, None) => None,
    }
}

/// Counts a request from its head to the end of its response.
struct Busy(Activity);

impl Busy {
    fn start(activity: &Activity) -> Self {
        let mut seen = activity.lock();
        seen.busy += 1;
        seen.unread = false;
        seen.head_since = None;
        seen.idle_since = None;
        drop(seen);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut seen = self.0.lock();
        seen.busy = seen.busy.saturating_sub(1);
        if seen.busy == 0 {
            seen.idle_since = Some(Instant::now());
        }
    }
}

fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    peer: Option<VerifiedPeer>,
    info: ConnectionInfo,
    activity: &Activity,
) -> impl Future<Output = Result<Response<Outgoing>, Infallible>> + use<> {
    let busy = Busy::start(activity);
    let router = shared.router.clone();
    let stall = shared.limits.stall_timeout;
    let insecure = matches!(shared.mode, Mode::InsecureHeader);
    let activity = activity.clone();
    async move {
        let mut request = request.map(|body| Body::new(Unstalled { body, stall, timer: None, activity }));
        request.extensions_mut().insert(info);
        let peer = if insecure { claimed_peer(&request) } else { Ok(peer) };
        let response = match peer {
            Ok(peer) => {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                router.oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Err(problem) => problem.into_response(),
        };
        Ok(response.map(|body| Outgoing { body, failed: None, _busy: busy }))
    }
}

/// The identity that a header claims, in the profile whose name says `insecure`; none where the header holds a bearer
/// token, or is missing.
fn claimed_peer(request: &Request<Body>) -> Result<Option<VerifiedPeer>, Problem> {
    #[derive(serde::Deserialize)]
    struct Claim {
        #[serde(rename = "clientId")]
        client_id: String,
    }
    let Some(header) = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return Ok(None) };
    // A token, with its scheme or bare, is not JSON.
    if !header.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let name = match serde_json::from_slice::<Claim>(header) {
        Ok(claim) => ParticipantId::parse_insecure(claim.client_id).map_err(|error| error.to_string()),
        Err(error) => Err(format!("the header is not the JSON that was expected: {error}")),
    };
    name.map(|name| Some(VerifiedPeer::assert_verified(name, Binding::InsecureHeader)))
        .map_err(|detail| no_claim(&detail))
}

fn no_claim(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
        .at("header Authorization")
        .cure("`Authorization: {\"clientId\":\"<participant>\"}`, in this insecure profile only")
}

/// Puts a router behind [`VerifiedPeer`]: a request that proves none is answered with 401. Over mutual TLS every request
/// proves one; in the insecure profile those do whose header claims one.
pub fn require_peer(router: Router) -> Router {
    router.layer(from_fn(|request: Request<Body>, next: Next| async move {
        match request.extensions().get::<VerifiedPeer>() {
            Some(_) => next.run(request).await,
            None => no_claim("the request says not who it comes from").into_response(),
        }
    }))
}

/// A request's body whose sender may not pause for longer than the limit.
struct Unstalled {
    body: Incoming,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    activity: Activity,
}

impl Drop for Unstalled {
    fn drop(&mut self) {
        if !http_body::Body::is_end_stream(&self.body) {
            self.activity.lock().unread = true;
        }
    }
}

impl http_body::Body for Unstalled {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let stall = this.stall;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(format!("the body of the request paused for {stall:?}").into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body on its way out. When it fails, what it gave before is flushed first, so that the peer gets every
/// byte that was permitted; then hyper ends the connection without ending the body.
struct Outgoing {
    body: Body,
    failed: Option<axum::Error>,
    _busy: Busy,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                // hyper flushes when a body has nothing to give; it will ask again at once.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame @ (Poll::Ready(Some(Ok(_)) | None) | Poll::Pending) => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
