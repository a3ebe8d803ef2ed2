//! Who is at the other end, read from a certificate that OpenSSL verified.

use kontor_core::peer::VerifiedPeer;
use openssl::ssl::SslRef;

/// Why a certificate, ours or a peer's, is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate; it must be started with a certificate and key of its own")]
    NoPeerCertificate,
}

/// The peer of a finished handshake.
///
/// # Errors
/// [`TrustError`] when the certificate does not name exactly one participant.
pub fn verified_peer(ssl: &SslRef) -> Result<VerifiedPeer, TrustError> {
    let _ = ssl;
    todo!()
}
