//! The accept loop: limits on connections, headers and time, mutual TLS, graceful shutdown.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::tls::TlsIdentity;

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
    let _ = (listener, identity, router, limits, shutdown);
    todo!()
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
    let _ = (listener, router, limits, shutdown);
    todo!()
}

/// Serves a router without TLS and believes the header `Authorization: {"clientId":"X"}`. For the profile whose name
/// says `insecure`: refuses a listener beyond loopback.
///
/// # Errors
/// When the listener is not bound to loopback, or fails for good.
pub async fn serve_insecure_headers(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let _ = (listener, router, limits, shutdown);
    todo!()
}
