//! A throw-away certificate authority, for `kontor pki`, the demo and tests.

use std::io;
use std::path::Path;

use kontor_core::id::ParticipantId;
use secrecy::SecretString;

use crate::tls::TlsFiles;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// OpenSSL refused.
    #[error("OpenSSL could not make the certificate")]
    OpenSsl(#[from] openssl::error::ErrorStack),
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

/// A certificate authority with its key.
pub struct Authority {}

impl Authority {
    /// Makes a new authority, valid for ten years, with a P-256 key.
    ///
    /// # Errors
    /// [`PkiError`] when OpenSSL refuses.
    pub fn generate(name: &str) -> Result<Self, PkiError> {
        let _ = name;
        todo!()
    }

    /// Reads `ca.pem` and `ca.key` from a folder.
    ///
    /// # Errors
    /// [`PkiError`] that names the file.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let _ = dir;
        todo!()
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into a folder; never overwrites.
    ///
    /// # Errors
    /// [`PkiError`] that names the file.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        let _ = dir;
        todo!()
    }

    /// The authority's certificate, to be handed to everyone who shall trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        todo!()
    }

    /// Makes a key and a certificate.
    ///
    /// # Errors
    /// [`PkiError`] when the request has no name to certify, or OpenSSL refuses.
    pub fn issue(&self, request: &CertificateRequest) -> Result<Issued, PkiError> {
        let _ = request;
        todo!()
    }
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
        let _ = (dir, name, ca);
        todo!()
    }
}
