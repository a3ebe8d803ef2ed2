//! A throw-away certificate authority, for `kontor pki`, the demo and tests.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kontor_core::id::ParticipantId;
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use secrecy::{ExposeSecret as _, SecretString};

use crate::tls::TlsFiles;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// OpenSSL refused.
    #[error("OpenSSL could not make the certificate")]
    OpenSsl(#[from] ErrorStack),
    /// A file could not be read or written.
    #[error("`{path}`: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The request cannot become a certificate.
    #[error("{0}")]
    Request(String),
}

/// Longest common name of X.509 (ub-common-name of RFC 5280), in characters.
const COMMON_NAME_MAX: usize = 64;
/// Days that a new authority is valid.
const AUTHORITY_DAYS: i64 = 3650;

/// A certificate authority with its key.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority, valid for ten years, with a P-256 key. It signs end certificates only.
    ///
    /// # Errors
    /// [`PkiError`] when OpenSSL refuses.
    pub fn generate(name: &str) -> Result<Self, PkiError> {
        let key = new_key()?;
        let subject = common_name(name)?;
        let mut builder = builder(&subject, &subject, &key, 0, AUTHORITY_DAYS)?;
        builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    /// Reads `ca.pem` and `ca.key` from a folder.
    ///
    /// # Errors
    /// [`PkiError`] that names the file.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| file_error(&path, source))
        };
        let certificate = X509::from_pem(&read("ca.pem")?)?;
        let key = PKey::private_key_from_pem(&read("ca.key")?)?;
        if !certificate.public_key()?.public_eq(&key) {
            let path = dir.display();
            return Err(PkiError::Request(format!("`ca.key` does not belong to `ca.pem` in `{path}`")));
        }
        Ok(Self { certificate, key })
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into a folder; never overwrites.
    ///
    /// # Errors
    /// [`PkiError`] that names the file.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        let key = self.key.private_key_to_pem_pkcs8()?;
        let certificate = self.certificate.to_pem()?;
        for (name, bytes, mode) in [("ca.key", key, 0o600), ("ca.pem", certificate, 0o644)] {
            let path = dir.join(name);
            write_new(&path, &bytes, mode).map_err(|source| file_error(&path, source))?;
        }
        Ok(())
    }

    /// The authority's certificate, to be handed to everyone who shall trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem_text(self.certificate.to_pem())
    }

    /// Makes a key and a certificate.
    ///
    /// # Errors
    /// [`PkiError`] when the request has no name to certify, or OpenSSL refuses.
    pub fn issue(&self, request: &CertificateRequest) -> Result<Issued, PkiError> {
        let named = request.participant.as_ref().map(ParticipantId::as_str);
        let Some(name) = named.or(request.hosts.first().map(String::as_str)) else {
            return Err(PkiError::Request("a certificate needs a participant or a host to name".to_owned()));
        };
        let key = new_key()?;
        let subject = common_name(name)?;
        let issuer = self.certificate.subject_name();
        let mut builder = builder(&subject, issuer, &key, request.not_before_days, request.days)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        let mut usage = ExtendedKeyUsage::new();
        if request.server_auth {
            usage.server_auth();
        }
        if request.client_auth {
            usage.client_auth();
        }
        if request.server_auth || request.client_auth {
            builder.append_extension(usage.build()?)?;
        }
        let mut names = SubjectAlternativeName::new();
        for uri in named.into_iter().chain(request.more_uris.iter().map(String::as_str)) {
            names.uri(uri);
        }
        for host in &request.hosts {
            if host.parse::<IpAddr>().is_ok() {
                names.ip(host)
            } else {
                names.dns(host)
            };
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let names = names.build(&context)?;
        let own = SubjectKeyIdentifier::new().build(&context)?;
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        for extension in [names, own, authority] {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        let key_pem = SecretString::from(pem_text(key.private_key_to_pem_pkcs8()));
        Ok(Issued { certificate_pem: pem_text(builder.build().to_pem()), key_pem })
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn common_name(name: &str) -> Result<X509Name, ErrorStack> {
    let short: String = name.chars().take(COMMON_NAME_MAX).collect();
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, &short)?;
    Ok(builder.build())
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    from_days: i64,
    to_days: i64,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    // 127 bits that never make the number negative or longer than RFC 5280 allows.
    serial.rand(127, MsbOption::ONE, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(Asn1Integer::from_bn(&serial)?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    // An expired certificate must still end after it began. A minute of slack covers clocks that differ a little.
    let begin = from_days.min(to_days.saturating_sub(1));
    builder.set_not_before(Asn1Time::from_unix(unix_in(begin).saturating_sub(60))?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(unix_in(to_days))?.as_ref())?;
    Ok(builder)
}

fn unix_in(days: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX).saturating_add(days.saturating_mul(86_400))
}

fn pem_text(pem: Result<Vec<u8>, ErrorStack>) -> String {
    pem.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

fn file_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::File { path: path.display().to_string(), source }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What a certificate shall say.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// The participant: the one URI among the subject alternative names.
    pub participant: Option<ParticipantId>,
    /// DNS names and IP addresses under which the participant is reached.
    pub hosts: Vec<String>,
    /// Days until it expires; negative makes one that expired.
    pub days: i64,
    /// Days from now until it becomes valid; 0 is now.
    pub not_before_days: i64,
    /// More URIs among the subject alternative names, to test that two are refused.
    pub more_uris: Vec<String>,
    /// Whether it may authenticate a client.
    pub client_auth: bool,
    /// Whether it may authenticate a server.
    pub server_auth: bool,
}

impl CertificateRequest {
    /// A certificate for both directions, valid for 90 days.
    #[must_use]
    pub fn new(participant: ParticipantId, hosts: Vec<String>) -> Self {
        Self {
            participant: Some(participant),
            hosts,
            days: 90,
            not_before_days: 0,
            more_uris: Vec::new(),
            client_auth: true,
            server_auth: true,
        }
    }
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The key in PEM (PKCS #8).
    pub key_pem: SecretString,
}

impl Issued {
    /// Writes `name.pem`, `name.key` (mode 0600) and `ca.pem` into a folder. The certificate and key are never
    /// overwritten; `ca.pem` is left as it is when it holds the same authority.
    ///
    /// # Errors
    /// What the system said, with the file's name.
    pub fn save(&self, dir: &Path, name: &str, ca: &Authority) -> io::Result<TlsFiles> {
        let files = TlsFiles {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            trust: dir.join("ca.pem"),
        };
        let named =
            |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
        // Both or neither: one of another pair is no use to anybody.
        for file in [&files.key, &files.certificate] {
            if file.exists() {
                let error =
                    io::Error::new(io::ErrorKind::AlreadyExists, "is there already; another name would have passed");
                return Err(named(file, error));
            }
        }
        let trust = ca.certificate_pem();
        match std::fs::read_to_string(&files.trust) {
            Ok(present) if present == trust => {}
            Ok(_) => {
                let error = io::Error::new(io::ErrorKind::AlreadyExists, "holds another authority");
                return Err(named(&files.trust, error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_new(&files.trust, trust.as_bytes(), 0o644).map_err(|error| named(&files.trust, error))?;
            }
            Err(error) => return Err(named(&files.trust, error)),
        }
        write_new(&files.key, self.key_pem.expose_secret().as_bytes(), 0o600)
            .map_err(|error| named(&files.key, error))?;
        write_new(&files.certificate, self.certificate_pem.as_bytes(), 0o644)
            .map_err(|error| named(&files.certificate, error))?;
        Ok(files)
    }
}
