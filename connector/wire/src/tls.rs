//! TLS contexts from files, replaced under running connections.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use kontor_core::id::ParticipantId;
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509StoreContext};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::{Expect, TrustError, Verdict, name_text, participant_of, verify};

/// Key exchange, best first. The hybrid keeps recorded traffic closed to a later quantum computer; a library without
/// it gets the classical ones.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256";
const GROUPS_CLASSICAL: &str = "X25519:P-256";
const CIPHERSUITES: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/// Where a participant's certificate, key and trust bundle lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM, own certificate first.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
    /// Certificate authorities that we trust, in PEM. Nothing else is trusted.
    pub trust: PathBuf,
}

/// Our own certificate, key and trust bundle, as TLS contexts for both directions. Clones share one identity: a
/// reload reaches them all.
#[derive(Clone)]
pub struct TlsIdentity {
    inner: Arc<Inner>,
}

struct Inner {
    files: TlsFiles,
    contexts: ArcSwap<Contexts>,
    generation: watch::Sender<u64>,
}

/// `X509_V_ERR_CERT_HAS_EXPIRED`: looked for once the chain leads to an authority that is trusted.
const CERTIFICATE_EXPIRED: i32 = 10;

/// What a peer showed in the handshake of a connection.
pub(crate) struct Shown {
    certificate: X509,
    chain: Vec<X509>,
}

impl Shown {
    /// `None` where it showed nothing.
    pub(crate) fn by_peer(ssl: &SslRef) -> Option<Self> {
        let chain = ssl.peer_cert_chain().map(|chain| chain.iter().map(ToOwned::to_owned).collect());
        Some(Self { certificate: ssl.peer_certificate()?, chain: chain.unwrap_or_default() })
    }
}

struct Contexts {
    server: SslContext,
    client: SslContext,
    participant: ParticipantId,
    not_after: String,
    stamps: Stamps,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TlsIdentity").field("participant", &self.participant()).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads and checks the files: the certificate names exactly one participant, is valid now, and the key is its own.
    ///
    /// # Errors
    /// [`TrustError`] that names the file and what to do about it.
    pub fn load(files: &TlsFiles) -> Result<Self, TrustError> {
        let contexts = Contexts::load(files)?;
        let (generation, _) = watch::channel(0);
        let inner = Inner { files: files.clone(), contexts: ArcSwap::from_pointee(contexts), generation };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads the same files again. New connections use the new certificate; open ones end after the exchange that they
    /// are in. Where the peer's certificate is of no authority that is trusted now, they are cut at once, so that nobody
    /// stays connected on a trust that was withdrawn.
    ///
    /// # Errors
    /// [`TrustError`]; the old identity stays in place.
    pub fn reload(&self) -> Result<(), TrustError> {
        let contexts = Contexts::load(&self.inner.files)?;
        let old = self.participant();
        if contexts.participant != old {
            return Err(TrustError::ParticipantChanged { old: old.to_string(), new: contexts.participant.to_string() });
        }
        self.inner.contexts.store(Arc::new(contexts));
        self.inner.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Reloads when a file changes, until shutdown. A failed reload is logged, and the old identity stays in place.
    ///
    /// # Cancellation
    /// May be dropped at any time; the identity then stays as it is.
    pub async fn watch(&self, every: Duration, shutdown: CancellationToken) {
        let mut warned = None;
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.inner.files.stamps();
            if now == self.inner.contexts.load().stamps {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!(not_after = %self.not_after(), "certificate and trust bundle reloaded"),
                // It is tried again, since a certificate may only begin later, or be half written; it is said once.
                Err(error) if warned != Some(now) => {
                    tracing::warn!(%error, "certificate not reloaded, the old one stays in use");
                    warned = Some(now);
                }
                Err(_) => {}
            }
        }
    }

    /// Who we are, by our certificate.
    #[must_use]
    pub fn participant(&self) -> ParticipantId {
        self.inner.contexts.load().participant.clone()
    }

    /// When our certificate expires, in words.
    #[must_use]
    pub fn not_after(&self) -> String {
        self.inner.contexts.load().not_after.clone()
    }

    /// Whether what a peer showed when it connected would still pass for a chain of an authority that we trust.
    pub(crate) fn still_trusts(&self, shown: &Shown) -> bool {
        let verified = || {
            let mut chain = Stack::new()?;
            for certificate in &shown.chain {
                chain.push(certificate.clone())?;
            }
            let contexts = self.inner.contexts.load();
            let trust = contexts.server.cert_store();
            X509StoreContext::new()?.init(trust, &shown.certificate, &chain, |context| {
                // A certificate that ran out meanwhile was good when the connection began, and would be without a reload.
                Ok(context.verify_cert()? || context.error().as_raw() == CERTIFICATE_EXPIRED)
            })
        };
        verified().unwrap_or_else(|error: ErrorStack| {
            tracing::error!(%error, "a chain could not be verified again");
            false
        })
    }

    /// Counts reloads.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    pub(crate) fn generation_now(&self) -> u64 {
        *self.inner.generation.borrow()
    }

    /// A server's side of a handshake.
    pub(crate) fn accept(&self) -> Result<(Ssl, Verdict), TrustError> {
        let mut ssl = Ssl::new(&self.inner.contexts.load().server).map_err(openssl_error)?;
        let verdict = Verdict::default();
        let kept = Arc::clone(&verdict);
        ssl.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, move |ok, context| {
            verify(&Expect::AnyClient, &kept, ok, context)
        });
        Ok((ssl, verdict))
    }

    /// A client's side of a handshake with one participant at one host.
    pub(crate) fn connect(&self, participant: &ParticipantId, host: &str) -> Result<(Ssl, Verdict), TrustError> {
        let mut ssl = Ssl::new(&self.inner.contexts.load().client).map_err(openssl_error)?;
        let param = ssl.param_mut();
        param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT);
        match host.parse::<IpAddr>() {
            Ok(ip) => param.set_ip(ip).map_err(openssl_error)?,
            Err(_) => {
                param.set_host(host).map_err(openssl_error)?;
                ssl.set_hostname(host).map_err(openssl_error)?;
            }
        }
        let verdict = Verdict::default();
        let kept = Arc::clone(&verdict);
        let expect = Expect::Server { participant: participant.clone(), host: host.to_owned() };
        ssl.set_verify_callback(SslVerifyMode::PEER, move |ok, context| verify(&expect, &kept, ok, context));
        Ok((ssl, verdict))
    }
}

/// When certificate, key and trust were last changed.
type Stamps = [Option<SystemTime>; 3];

impl TlsFiles {
    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        [stamp(&self.certificate), stamp(&self.key), stamp(&self.trust)]
    }
}

impl Contexts {
    fn load(files: &TlsFiles) -> Result<Self, TrustError> {
        // Before they are read: what is changed meanwhile is read again.
        let stamps = files.stamps();
        let chain = certificates(&files.certificate)?;
        let Some((own, rest)) = chain.split_first() else {
            return Err(file_error(
                &files.certificate,
                "no certificate in it; a PEM chain, own one first, would have passed",
            ));
        };
        let participant = participant_of(own)?;
        let subject = name_text(own.subject_name());
        let now = Asn1Time::days_from_now(0).map_err(openssl_error)?;
        if own.not_after() < now {
            return Err(TrustError::Expired { subject, not_after: own.not_after().to_string() });
        }
        if own.not_before() > now {
            return Err(TrustError::NotYetValid { subject, not_before: own.not_before().to_string() });
        }
        let key = PKey::private_key_from_pem(&read(&files.key)?)
            .map_err(|_| file_error(&files.key, "no private key in PEM without a passphrase in it"))?;
        let matches = own.public_key().map(|public| public.public_eq(&key)).unwrap_or(false);
        if !matches {
            return Err(TrustError::KeyMismatch {
                certificate: files.certificate.display().to_string(),
                key: files.key.display().to_string(),
            });
        }
        let trust = certificates(&files.trust)?;
        if trust.is_empty() {
            return Err(file_error(
                &files.trust,
                "no certificate in it; the authorities that you trust, in PEM, would have passed",
            ));
        }
        let context = |method| context(method, own, rest, &key, &trust).map_err(openssl_error);
        let mut server = context(SslMethod::tls_server())?;
        let mut names = Stack::new().map_err(openssl_error)?;
        for authority in &trust {
            names.push(authority.subject_name().to_owned().map_err(openssl_error)?).map_err(openssl_error)?;
        }
        server.set_client_ca_list(names);
        // No tickets and no cache: every connection shows its certificate, so a reload or a withdrawn authority counts
        // from the next connection on.
        server.set_num_tickets(0).map_err(openssl_error)?;
        server.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        let mut client = context(SslMethod::tls_client())?;
        client.set_verify(SslVerifyMode::PEER);
        Ok(Self {
            server: server.build(),
            client: client.build(),
            participant,
            not_after: own.not_after().to_string(),
            stamps,
        })
    }
}

fn context(
    method: SslMethod,
    own: &X509,
    rest: &[X509],
    key: &PKey<openssl::pkey::Private>,
    trust: &[X509],
) -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(method)?;
    context.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    context.set_ciphersuites(CIPHERSUITES)?;
    if context.set_groups_list(GROUPS).is_err() {
        context.set_groups_list(GROUPS_CLASSICAL)?;
    }
    context.set_options(SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION | SslOptions::NO_TICKET);
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_mode(SslMode::AUTO_RETRY | SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::ENABLE_PARTIAL_WRITE);
    context.set_certificate(own)?;
    for certificate in rest {
        context.add_extra_chain_cert(certificate.clone())?;
    }
    context.set_private_key(key)?;
    context.set_cert_store(store(trust)?);
    Ok(context)
}

fn store(trust: &[X509]) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for authority in trust {
        store.add_cert(authority.clone())?;
    }
    Ok(store.build())
}

fn certificates(path: &Path) -> Result<Vec<X509>, TrustError> {
    X509::stack_from_pem(&read(path)?).map_err(|_| file_error(path, "not a list of certificates in PEM"))
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, reason: impl ToString) -> TrustError {
    TrustError::File { path: path.display().to_string(), reason: reason.to_string() }
}

fn openssl_error(error: ErrorStack) -> TrustError {
    TrustError::OpenSsl(error.to_string())
}
