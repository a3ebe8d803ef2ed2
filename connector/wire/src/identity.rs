//! Who is at the other end, read from a certificate that OpenSSL verified.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kontor_core::id::ParticipantId;
use kontor_core::peer::{Binding, VerifiedPeer};
use openssl::hash::MessageDigest;
use openssl::ssl::SslRef;
use openssl::x509::{X509NameRef, X509Ref, X509StoreContextRef, X509VerifyResult};

/// Why a certificate, ours or a peer's, is not trusted. The messages are for the operator who can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file of ours cannot be read or parsed.
    #[error("cannot read `{path}`: {reason}")]
    File {
        /// The file.
        path: String,
        /// What was wrong with it.
        reason: String,
    },
    /// Our private key belongs to another certificate.
    #[error(
        "the key `{key}` does not belong to the certificate `{certificate}`; use the pair that was issued together"
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// After a reload the certificate names somebody else.
    #[error(
        "the new certificate names `{new}`, but this program runs as `{old}`; restart it to become another participant"
    )]
    ParticipantChanged {
        /// Who we are.
        old: String,
        /// Who the file says we are.
        new: String,
    },
    /// OpenSSL could not be set up.
    #[error("OpenSSL cannot be set up: {0}")]
    OpenSsl(String),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate; it must be started with a certificate and key of its own")]
    NoPeerCertificate,
    /// Issued by nobody whom we trust.
    #[error(
        "the certificate `{subject}` was issued by `{issuer}`, which is not in our trust bundle; \
         add that authority to the trust file, or have the certificate issued by one of ours"
    )]
    UnknownAuthority {
        /// Whose certificate.
        subject: String,
        /// Who issued it.
        issuer: String,
    },
    /// Its time is over.
    #[error("the certificate `{subject}` expired on {not_after}; issue a new one and reload")]
    Expired {
        /// Whose certificate.
        subject: String,
        /// When.
        not_after: String,
    },
    /// Its time has not come.
    #[error("the certificate `{subject}` is valid only from {not_before}; check the clocks, or wait")]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// When.
        not_before: String,
    },
    /// Not for this side of a connection.
    #[error(
        "the certificate `{subject}` may not authenticate a {side}; issue it with the extended key usage `{usage}`"
    )]
    WrongUsage {
        /// Whose certificate.
        subject: String,
        /// `client` or `server`.
        side: &'static str,
        /// `clientAuth` or `serverAuth`.
        usage: &'static str,
    },
    /// It names no participant.
    #[error(
        "the certificate `{subject}` has no URI among its subject alternative names; \
         exactly one, the participant (`URI:did:web:…`), would have passed"
    )]
    NoUri {
        /// Whose certificate.
        subject: String,
    },
    /// It names several.
    #[error(
        "the certificate `{subject}` has {count} URIs among its subject alternative names; \
         exactly one, the participant, would have passed"
    )]
    SeveralUris {
        /// Whose certificate.
        subject: String,
        /// How many.
        count: usize,
    },
    /// Its URI is no participant.
    #[error("the certificate `{subject}` names no participant: {reason}")]
    BadUri {
        /// Whose certificate.
        subject: String,
        /// What is wrong with the URI.
        reason: String,
    },
    /// A valid certificate, for another host.
    #[error(
        "the certificate `{subject}` is not for the host `{host}` but for {names}; \
         use one of these names in the address, or issue the certificate for that host"
    )]
    HostMismatch {
        /// Whose certificate.
        subject: String,
        /// The host that was dialled.
        host: String,
        /// The hosts that it names.
        names: String,
    },
    /// A valid certificate, of another participant.
    #[error("the peer is `{actual}`, not `{expected}`; check the address that `{expected}` publishes")]
    AnotherParticipant {
        /// Whom we wanted.
        expected: String,
        /// Who answered.
        actual: String,
    },
    /// Anything else that OpenSSL found in the chain.
    #[error("the certificate chain of `{subject}` is not valid: {reason}")]
    Chain {
        /// Whose certificate.
        subject: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// The peer refused us.
    #[error(
        "the peer refused our certificate ({alert}): check that its trust bundle holds our authority, \
         and that our certificate has not expired and may authenticate a client"
    )]
    RefusedByPeer {
        /// The TLS alert.
        alert: String,
    },
    /// No common protocol, or no TLS at all.
    #[error("the TLS handshake failed: {0}; both sides must speak TLS 1.3")]
    Handshake(String),
}

/// The peer of a finished handshake.
///
/// # Errors
/// [`TrustError`] when the certificate does not name exactly one participant, or the chain was not verified.
pub fn verified_peer(ssl: &SslRef) -> Result<VerifiedPeer, TrustError> {
    let certificate = ssl.peer_certificate().ok_or(TrustError::NoPeerCertificate)?;
    if ssl.verify_result() != X509VerifyResult::OK {
        let reason = ssl.verify_result().error_string().to_owned();
        return Err(TrustError::Chain { subject: name_text(certificate.subject_name()), reason });
    }
    let participant = participant_of(&certificate)?;
    Ok(VerifiedPeer::assert_verified(participant, Binding::Certificate(fingerprint(&certificate)?)))
}

/// The one URI among a certificate's subject alternative names.
pub(crate) fn participant_of(certificate: &X509Ref) -> Result<ParticipantId, TrustError> {
    let subject = name_text(certificate.subject_name());
    let names = certificate.subject_alt_names();
    let uris: Vec<&str> = names.iter().flatten().filter_map(|name| name.uri()).collect();
    match uris.as_slice() {
        [] => Err(TrustError::NoUri { subject }),
        [uri] => ParticipantId::parse(*uri).map_err(|error| TrustError::BadUri { subject, reason: error.to_string() }),
        several => Err(TrustError::SeveralUris { subject, count: several.len() }),
    }
}

fn fingerprint(certificate: &X509Ref) -> Result<[u8; 32], TrustError> {
    let digest = certificate.digest(MessageDigest::sha256()).map_err(|error| TrustError::OpenSsl(error.to_string()))?;
    <[u8; 32]>::try_from(&*digest).map_err(|_| TrustError::OpenSsl("SHA-256 has not 32 bytes".to_owned()))
}

/// Which side the verified certificate must be able to play, and for the client whom it expects.
#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// We are the server: any participant with a client certificate.
    AnyClient,
    /// We are the client: this participant, at this host.
    Server { participant: ParticipantId, host: String },
}

/// Why the verify callback refused; read after the handshake failed, since an alert carries little.
pub(crate) type Verdict = Arc<Mutex<Option<TrustError>>>;

pub(crate) fn take(verdict: &Verdict) -> Option<TrustError> {
    verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The verify callback: keeps OpenSSL's own verdict, adds the checks of identity, and remembers the reason.
pub(crate) fn verify(expect: &Expect, verdict: &Verdict, ok: bool, context: &mut X509StoreContextRef) -> bool {
    let found = if ok { check_leaf(expect, context) } else { Err(explain(expect, context)) };
    match found {
        Ok(()) => true,
        Err(error) => {
            if ok {
                context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
            }
            verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            false
        }
    }
}

fn check_leaf(expect: &Expect, context: &X509StoreContextRef) -> Result<(), TrustError> {
    if context.error_depth() != 0 {
        return Ok(());
    }
    let certificate = context.current_cert().ok_or(TrustError::NoPeerCertificate)?;
    let actual = participant_of(certificate)?;
    match expect {
        Expect::Server { participant, .. } if *participant != actual => {
            Err(TrustError::AnotherParticipant { expected: participant.to_string(), actual: actual.to_string() })
        }
        Expect::Server { .. } | Expect::AnyClient => Ok(()),
    }
}

// The numbers of OpenSSL's x509_vfy.h; the crate names only a few of them.
const UNABLE_TO_GET_ISSUER: i32 = 2;
const NOT_YET_VALID: i32 = 9;
const HAS_EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const UNABLE_TO_GET_ISSUER_LOCALLY: i32 = 20;
const UNABLE_TO_VERIFY_LEAF: i32 = 21;
const INVALID_PURPOSE: i32 = 26;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;

fn explain(expect: &Expect, context: &X509StoreContextRef) -> TrustError {
    let result = context.error();
    let Some(certificate) = context.current_cert() else { return TrustError::NoPeerCertificate };
    let subject = name_text(certificate.subject_name());
    match result.as_raw() {
        UNABLE_TO_GET_ISSUER
        | SELF_SIGNED
        | SELF_SIGNED_IN_CHAIN
        | UNABLE_TO_GET_ISSUER_LOCALLY
        | UNABLE_TO_VERIFY_LEAF => {
            TrustError::UnknownAuthority { subject, issuer: name_text(certificate.issuer_name()) }
        }
        HAS_EXPIRED => TrustError::Expired { subject, not_after: certificate.not_after().to_string() },
        NOT_YET_VALID => TrustError::NotYetValid { subject, not_before: certificate.not_before().to_string() },
        INVALID_PURPOSE => match expect {
            Expect::AnyClient => TrustError::WrongUsage { subject, side: "client", usage: "clientAuth" },
            Expect::Server { .. } => TrustError::WrongUsage { subject, side: "server", usage: "serverAuth" },
        },
        HOSTNAME_MISMATCH | IP_ADDRESS_MISMATCH => match expect {
            Expect::Server { host, .. } => {
                TrustError::HostMismatch { subject, host: host.clone(), names: hosts_of(certificate) }
            }
            Expect::AnyClient => TrustError::Chain { subject, reason: result.error_string().to_owned() },
        },
        _ => TrustError::Chain { subject, reason: result.error_string().to_owned() },
    }
}

fn hosts_of(certificate: &X509Ref) -> String {
    let names = certificate.subject_alt_names();
    let hosts: Vec<String> = names
        .iter()
        .flatten()
        .filter_map(|name| match (name.dnsname(), name.ipaddress()) {
            (Some(dns), _) => Some(format!("`{}`", dns.escape_debug())),
            (None, Some(bytes)) => ip_of(bytes).map(|ip| format!("`{ip}`")),
            (None, None) => None,
        })
        .collect();
    if hosts.is_empty() { "no host at all".to_owned() } else { hosts.join(", ") }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A distinguished name on one line. A peer wrote it, so control characters are escaped.
pub(crate) fn name_text(name: &X509NameRef) -> String {
    let mut text = String::new();
    for entry in name.entries() {
        let separator = if text.is_empty() { "" } else { ", " };
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = String::from_utf8_lossy(entry.data().as_slice()).escape_debug().to_string();
        let _ = write!(text, "{separator}{key}={value}");
    }
    if text.is_empty() { "(no subject)".to_owned() } else { text }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::pki::{Authority, CertificateRequest};
    use crate::tls::TlsIdentity;
    use openssl::pkey::PKey;
    use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
    use openssl::x509::X509;
    use secrecy::ExposeSecret as _;
    use std::pin::Pin;
    use tokio_openssl::SslStream;

    const PEER: &str = "did:web:peer.example";

    fn request(participant: &str) -> CertificateRequest {
        CertificateRequest::new(ParticipantId::parse(participant).unwrap(), vec!["peer.example".to_owned()])
    }

    fn ours(ca: &Authority) -> TlsIdentity {
        let dir = tempfile::TempDir::new().unwrap();
        let issued = ca.issue(&request("did:web:own.example")).unwrap();
        TlsIdentity::load(&issued.save(dir.path(), "own", ca).unwrap()).unwrap()
    }

    /// A peer that shows a certificate which our own loading would refuse.
    fn theirs(method: SslMethod, ca: &Authority, own: Option<&CertificateRequest>) -> SslContextBuilder {
        let mut context = SslContext::builder(method).unwrap();
        context.set_verify(SslVerifyMode::NONE);
        if let Some(own) = own {
            let issued = ca.issue(own).unwrap();
            context.set_certificate(&X509::from_pem(issued.certificate_pem.as_bytes()).unwrap()).unwrap();
            let key = PKey::private_key_from_pem(issued.key_pem.expose_secret().as_bytes()).unwrap();
            context.set_private_key(&key).unwrap();
        }
        context
    }

    async fn shake(server: Ssl, client: Ssl) -> (Result<(), openssl::ssl::Error>, Result<(), openssl::ssl::Error>) {
        let (one, other) = tokio::io::duplex(1 << 16);
        let mut server = Box::new(SslStream::new(server, one).unwrap());
        let mut client = Box::new(SslStream::new(client, other).unwrap());
        tokio::join!(Pin::new(server.as_mut()).accept(), Pin::new(client.as_mut()).connect())
    }

    async fn as_server(ca: &Authority, peer_ca: &Authority, peer: Option<&CertificateRequest>) -> Option<TrustError> {
        let (server, verdict) = ours(ca).accept().unwrap();
        let client = Ssl::new(&theirs(SslMethod::tls_client(), peer_ca, peer).build()).unwrap();
        let (accepted, _) = shake(server, client).await;
        let refused = take(&verdict);
        // Whatever was refused must have ended the handshake.
        assert!(accepted.is_err() || refused.is_none(), "accepted in spite of {refused:?}");
        if peer.is_none() {
            assert_eq!(
                crate::serve::reason_of(&accepted.unwrap_err()).as_deref(),
                Some("peer did not return a certificate")
            );
        }
        refused
    }

    async fn as_client(ca: &Authority, peer: &CertificateRequest) -> Option<TrustError> {
        let expected = ParticipantId::parse(PEER).unwrap();
        let (client, verdict) = ours(ca).connect(&expected, "peer.example").unwrap();
        let server = Ssl::new(&theirs(SslMethod::tls_server(), ca, Some(peer)).build()).unwrap();
        let (_, connected) = shake(server, client).await;
        let refused = take(&verdict);
        assert_eq!(connected.is_err(), refused.is_some());
        refused
    }

    #[tokio::test]
    async fn bad_certificates_of_peers_are_refused_in_both_directions() {
        let ca = Authority::generate("CA").unwrap();
        let good = request(PEER);
        assert_eq!(as_server(&ca, &ca, Some(&good)).await, None);
        assert_eq!(as_client(&ca, &good).await, None);

        let expired = CertificateRequest { days: -1, ..good.clone() };
        assert!(matches!(as_server(&ca, &ca, Some(&expired)).await, Some(TrustError::Expired { .. })));
        assert!(matches!(as_client(&ca, &expired).await, Some(TrustError::Expired { .. })));

        let future = CertificateRequest { not_before_days: 2, ..good.clone() };
        assert!(matches!(as_server(&ca, &ca, Some(&future)).await, Some(TrustError::NotYetValid { .. })));
        assert!(matches!(as_client(&ca, &future).await, Some(TrustError::NotYetValid { .. })));

        let nobody = CertificateRequest { participant: None, ..good.clone() };
        assert!(matches!(as_server(&ca, &ca, Some(&nobody)).await, Some(TrustError::NoUri { .. })));
        assert!(matches!(as_client(&ca, &nobody).await, Some(TrustError::NoUri { .. })));

        let double = CertificateRequest { more_uris: vec!["urn:second".to_owned()], ..good.clone() };
        assert!(matches!(as_server(&ca, &ca, Some(&double)).await, Some(TrustError::SeveralUris { count: 2, .. })));
        assert!(matches!(as_client(&ca, &double).await, Some(TrustError::SeveralUris { count: 2, .. })));

        let server_only = CertificateRequest { client_auth: false, ..good.clone() };
        let refused = as_server(&ca, &ca, Some(&server_only)).await;
        assert!(matches!(refused, Some(TrustError::WrongUsage { usage: "clientAuth", .. })), "{refused:?}");
        let client_only = CertificateRequest { server_auth: false, ..good.clone() };
        let refused = as_client(&ca, &client_only).await;
        assert!(matches!(refused, Some(TrustError::WrongUsage { usage: "serverAuth", .. })), "{refused:?}");

        let stranger = Authority::generate("Stranger").unwrap();
        let refused = as_server(&ca, &stranger, Some(&good)).await;
        let Some(TrustError::UnknownAuthority { issuer, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(issuer, "CN=Stranger");
        assert_eq!(as_server(&ca, &ca, None).await, None);
    }

    #[tokio::test]
    async fn nothing_older_than_tls_1_3_is_spoken() {
        let ca = Authority::generate("CA").unwrap();
        let (server, _) = ours(&ca).accept().unwrap();
        let mut old = theirs(SslMethod::tls_client(), &ca, Some(&request(PEER)));
        old.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        let (accepted, connected) = shake(server, Ssl::new(&old.build()).unwrap()).await;
        assert!(accepted.is_err() && connected.is_err());
    }
}
