//! TLS contexts from files, replaced under running connections.

use std::path::PathBuf;
use std::time::Duration;

use kontor_core::id::ParticipantId;
use tokio_util::sync::CancellationToken;

use crate::identity::TrustError;

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

/// Our own certificate, key and trust bundle, as TLS contexts for both directions.
#[derive(Debug, Clone)]
pub struct TlsIdentity {}

impl TlsIdentity {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TrustError`] that names the file and what to do about it.
    pub fn load(files: &TlsFiles) -> Result<Self, TrustError> {
        let _ = files;
        todo!()
    }

    /// Reads the same files again.
    ///
    /// # Errors
    /// [`TrustError`]; the old identity stays in place.
    pub fn reload(&self) -> Result<(), TrustError> {
        todo!()
    }

    /// Reloads when a file changes, until shutdown.
    pub async fn watch(&self, every: Duration, shutdown: CancellationToken) {
        let _ = (every, shutdown);
        todo!()
    }

    /// Who we are, by our certificate.
    #[must_use]
    pub fn participant(&self) -> ParticipantId {
        todo!()
    }

    /// When our certificate expires, in words.
    #[must_use]
    pub fn not_after(&self) -> String {
        todo!()
    }
}
