//! One description per participant, with a lease: announce, renew, withdraw, expire.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kontor_core::id::ParticipantId;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::ingest::{self, IngestError, IngestLimits};
use crate::store::{Document, NewDocument, Store, StoreError, Syntax};
use crate::validate::validate;

/// Longest sleep of the lease timer: a wall clock that is set back or forth is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Descriptions that are read and checked at once. Others wait, so that lists and renewals have threads.
const READ_AT_ONCE_MAX: usize = 4;

/// How long descriptions may live without a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Shortest lease.
    pub min: Duration,
    /// Lease of a publisher that names none.
    pub default: Duration,
    /// Longest lease.
    pub max: Duration,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        Self { min: Duration::from_secs(10), default: Duration::from_secs(300), max: Duration::from_secs(86_400) }
    }
}

/// Why the registry says no.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The description is at fault.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The lease is outside the limits.
    #[error("a lease of {asked} seconds is outside {min} to {max}")]
    Lease {
        /// Asked for.
        asked: u64,
        /// Shortest.
        min: u64,
        /// Longest.
        max: u64,
    },
    /// The store says no, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker thread died.
    #[error("the registry's worker failed")]
    Worker,
}

/// The registry.
pub struct Registry {
    store: Arc<Store>,
    ingest: IngestLimits,
    lease: LeaseLimits,
    leases_changed: Notify,
    places: Arc<Semaphore>,
}

/// Milliseconds since 1970 by the wall clock.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Registry {
    /// A registry over a store.
    #[must_use]
    pub fn new(store: Arc<Store>, ingest: IngestLimits, lease: LeaseLimits) -> Self {
        let places = Arc::new(Semaphore::new(READ_AT_ONCE_MAX));
        Self { store, ingest, lease, leases_changed: Notify::new(), places }
    }

    /// Limits of a description.
    #[must_use]
    pub fn ingest_limits(&self) -> &IngestLimits {
        &self.ingest
    }

    /// Registers or replaces the participant's own description.
    ///
    /// # Errors
    /// [`RegistryError`]; then nothing was stored.
    ///
    /// # Cancellation
    /// It waits for a place until then. Once started the change runs to its end, whether or not anybody waits for it.
    pub async fn announce(
        &self,
        participant: &ParticipantId,
        syntax: Syntax,
        bytes: Bytes,
        lease: Option<Duration>,
    ) -> Result<Document, RegistryError> {
        let lease_ms = millis(self.lease(lease)?.unwrap_or(self.lease.default));
        let (store, limits, participant) = (Arc::clone(&self.store), self.ingest, participant.as_str().to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| RegistryError::Worker)?;
        let document = blocking(move || {
            let _place = place;
            let triples = ingest::read(syntax, &bytes, &participant, &limits)?;
            let summary = validate(&triples, &participant).map_err(IngestError::Shape)?;
            let subjects: BTreeSet<&str> = triples.iter().filter_map(|triple| triple.subject.iri()).collect();
            let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
            let new = NewDocument {
                participant: &participant,
                syntax,
                bytes: &bytes,
                digest: &digest,
                triples: triples.len(),
                lease_ms,
                summary: &summary,
                subjects: &subjects,
            };
            Ok(store.put(&new, &triples, now_ms())?)
        })
        .await?;
        self.leases_changed.notify_one();
        Ok(document)
    }

    /// Renews the participant's lease.
    ///
    /// # Errors
    /// [`RegistryError::Lease`], [`RegistryError::Store`] with `Unknown` or `Withdrawn`.
    pub async fn renew(&self, participant: &ParticipantId, lease: Option<Duration>) -> Result<Document, RegistryError> {
        let lease_ms = self.lease(lease)?.map(millis);
        let (store, participant) = (Arc::clone(&self.store), participant.as_str().to_owned());
        let document = blocking(move || Ok(store.renew(&participant, lease_ms, now_ms())?)).await?;
        self.leases_changed.notify_one();
        Ok(document)
    }

    /// Withdraws the participant's description.
    ///
    /// # Errors
    /// [`RegistryError::Store`] with `Unknown`.
    pub async fn withdraw(&self, participant: &ParticipantId) -> Result<Document, RegistryError> {
        let (store, participant) = (Arc::clone(&self.store), participant.as_str().to_owned());
        blocking(move || Ok(store.withdraw(&participant, now_ms())?)).await
    }

    /// The participant's document, whatever its state.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn own(&self, participant: &ParticipantId) -> Result<Option<Document>, RegistryError> {
        let (store, participant) = (Arc::clone(&self.store), participant.as_str().to_owned());
        blocking(move || Ok(store.document(&participant)?)).await
    }

    /// Takes descriptions out as their leases end, woken at each end and by each change.
    ///
    /// # Cancellation
    /// Ends with the token; a change that has begun is finished.
    pub async fn expire_forever(&self, shutdown: CancellationToken) {
        loop {
            let store = Arc::clone(&self.store);
            let sleep = match blocking(move || Ok(store.expire(now_ms())?)).await {
                Ok(Some(next)) => Duration::from_millis(u64::try_from(next - now_ms()).unwrap_or(0)).min(SLEEP_MAX),
                Ok(None) => SLEEP_MAX,
                Err(error) => {
                    tracing::error!(%error, "leases could not be ended; trying again in a second");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.leases_changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn lease(&self, asked: Option<Duration>) -> Result<Option<Duration>, RegistryError> {
        match asked {
            Some(asked) if asked < self.lease.min || asked > self.lease.max => Err(RegistryError::Lease {
                asked: asked.as_secs(),
                min: self.lease.min.as_secs(),
                max: self.lease.max.as_secs(),
            }),
            other => Ok(other),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RegistryError::Worker)?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn descriptions_wait_for_a_place_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), now_ms()).unwrap());
        let registry = Registry::new(store, IngestLimits::default(), LeaseLimits::default());
        let who = ParticipantId::parse("urn:example:one").unwrap();
        let places = u32::try_from(READ_AT_ONCE_MAX).unwrap();
        let all = Arc::clone(&registry.places).acquire_many_owned(places).await.unwrap();
        let announced = registry.announce(&who, Syntax::Turtle, Bytes::from_static(b""), None);
        assert!(tokio::time::timeout(Duration::from_millis(50), announced).await.is_err());
        assert!(matches!(registry.renew(&who, None).await, Err(RegistryError::Store(StoreError::Unknown))));
        assert_eq!(registry.own(&who).await.unwrap(), None);
        drop(all);
        let announced = registry.announce(&who, Syntax::Turtle, Bytes::from_static(b""), None).await;
        assert!(matches!(announced, Err(RegistryError::Ingest(IngestError::Shape(_)))));
    }
}
