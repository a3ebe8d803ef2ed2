//! The client that reaches peers: identity checked before the first byte of a request leaves.

use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use kontor_core::id::ParticipantId;

use crate::egress::{EgressError, EgressFilter};
use crate::identity::TrustError;
use crate::tls::TlsIdentity;

/// Limits of the peer client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Resolving, dialling and the TLS handshake.
    pub connect_timeout: Duration,
    /// From the request to the head of its response.
    pub header_timeout: Duration,
    /// All of [`PeerClient::send`], the response's body included.
    pub request_timeout: Duration,
    /// Bytes of a response's body in [`PeerClient::send`].
    pub response_bytes_max: usize,
    /// Bytes of a response's head. At least 8192.
    pub header_bytes_max: usize,
    /// Idle connections kept per peer and address.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept; shorter than the server's own.
    pub idle_timeout: Duration,
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
    /// Whether the same request may succeed later without anyone changing a setting.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        todo!()
    }
}

/// Reaches peers, keeps connections.
#[derive(Clone)]
pub struct PeerClient {}

impl PeerClient {
    /// A client over mutual TLS.
    #[must_use]
    pub fn mutual_tls(identity: TlsIdentity, egress: EgressFilter, limits: ClientLimits) -> Self {
        let _ = (identity, egress, limits);
        todo!()
    }

    /// A client over plain HTTP that says who it is in a header, for the profile whose name says `insecure`. It dials
    /// loopback only.
    #[must_use]
    pub fn insecure(own: ParticipantId, egress: EgressFilter, limits: ClientLimits) -> Self {
        let _ = (own, egress, limits);
        todo!()
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn send(&self, peer: &ParticipantId, request: Request<Bytes>) -> Result<Response<Bytes>, PeerError> {
        let _ = (peer, request);
        todo!()
    }

    /// Sends a request and returns as soon as the response's head is there. The body is the caller's: a body that is
    /// dropped closes its connection, one that is read to its end gives the connection back.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn open(&self, peer: &ParticipantId, request: Request<Bytes>) -> Result<Response<Incoming>, PeerError> {
        let _ = (peer, request);
        todo!()
    }
}
