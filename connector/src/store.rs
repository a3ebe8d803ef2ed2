//! Where state lives: the port, its types, and its two adapters.
//!
//! Every change is one [`Batch`]: the new state of a machine together with its agreement, its
//! outgoing messages, its wake-up, its audit lines. A batch is kept whole or not at all, and it
//! is on disk when [`Store::commit`] answers. Versions are optimistic: load, step, commit, and on
//! [`StoreError::Conflict`] load again. Nothing waits for a peer inside a commit.
//!
//! What a batch means is written once, in `apply`, over a handful of primitives that
//! each adapter brings (`Work`); `suite.rs` runs the same tests on each.

mod memory;
mod sql;
#[cfg(test)]
mod suite;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kontor_core::id::{AgreementId, DatasetId, MessageId, OfferId, ParticipantId, ProcessId};
use kontor_core::negotiation::{self, Negotiation, Role};
use kontor_core::policy::DueDuty;
use kontor_core::transfer::{self, Transfer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{
    AgreementRecord, AuditLine, AuditRecord, DatasetRecord, DutyProgress, DutyRecord, FactRecord, FlowReport,
    OfferRecord, OutboxEntry, PolicyRecord, Publication, ReceivedRecord, ReceivedState, Subject, TransferDetail,
};
pub use memory::MemoryStore;
pub use sql::{DATABASE_FILE, LOCK_FILE, SqlStore};

/// Most entries that one page holds; a larger limit is lowered to this.
pub const PAGE_MAX: u32 = 500;
/// How many entries a page holds when nothing else is asked for.
pub const PAGE_DEFAULT: u32 = 50;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was faster: load again and step again.
    #[error("{what} `{id}` changed since it was loaded; load it again")]
    Conflict {
        /// Kind of record.
        what: &'static str,
        /// Its identifier.
        id: String,
    },
    /// The uses that the agreement allows are taken.
    #[error("all {max} uses that agreement `{agreement}` allows are taken")]
    UseExhausted {
        /// The agreement.
        agreement: AgreementId,
        /// How many are taken.
        taken: u64,
        /// How many it allows.
        max: u64,
    },
    /// The bytes or records that the agreement allows are taken.
    #[error("{taken} of the {max} {unit} that agreement `{agreement}` allows are taken", unit = unit.as_str())]
    QuantityExhausted {
        /// The agreement.
        agreement: AgreementId,
        /// Of what.
        unit: Unit,
        /// How many are taken, without those that were asked for.
        taken: u64,
        /// How many it allows.
        max: u64,
    },
    /// There is one already: with this identifier, or with the same counterparty, role and
    /// counterparty's identifier.
    #[error("there is a {what} like `{id}` already")]
    Duplicate {
        /// Kind of record.
        what: &'static str,
        /// The identifier of the record that was to be added.
        id: String,
    },
    /// A record that the batch needs is not there.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// Kind of record.
        what: &'static str,
        /// Its identifier.
        id: String,
    },
    /// A page cursor that this store did not hand out.
    #[error("`{0}` is no page cursor; pass `next` of the page before, or nothing for the first page")]
    Cursor(String),
    /// The disk or the database says no; nothing of the batch was kept. Try later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is on disk is not what we wrote.
    #[error("the stored {what} `{id}` cannot be read: {detail}")]
    Corrupt {
        /// Kind of record.
        what: &'static str,
        /// Its identifier.
        id: String,
        /// What is wrong.
        detail: String,
    },
    /// Another process has this data directory.
    #[error("`{}` is in use by another kontor (process {holder}); stop it, or give this one its own data directory", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The holder's process id, as far as it is known.
        holder: String,
    },
    /// A newer kontor has written this data directory.
    #[error(
        "`{}` was written by a newer kontor (schema {found}, this one knows up to {known}); run that version or restore a backup",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The latest schema that this program knows.
        known: i64,
    },
}

impl StoreError {
    /// Whether loading again and stepping again can help.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// A record with its version and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The record.
    pub value: T,
    /// Counts up by one per commit, from 1.
    pub version: u64,
    /// When it was first committed (to the microsecond).
    pub created: Timestamp,
    /// When it was last committed (to the microsecond).
    pub updated: Timestamp,
}

/// Which part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// `next` of the page before; `None` for the first page, which has the newest.
    pub after: Option<String>,
    /// How many at most; 1 to [`PAGE_MAX`], anything else is brought into that range.
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: PAGE_DEFAULT }
    }
}

impl Page {
    /// The first page, as large as pages get.
    #[must_use]
    pub fn largest() -> Self {
        Self { after: None, limit: PAGE_MAX }
    }

    /// The row that the page begins below, and how many rows it has.
    fn bounds(&self) -> Result<(u64, usize), StoreError> {
        let below = match &self.after {
            None => i64::MAX as u64,
            Some(cursor) => cursor
                .parse::<u64>()
                .ok()
                .filter(|seq| i64::try_from(*seq).is_ok())
                .ok_or_else(|| StoreError::Cursor(cursor.clone()))?,
        };
        Ok((below, self.limit.clamp(1, PAGE_MAX) as usize))
    }
}

/// One page, newest first. Entries that are added meanwhile do not shift the pages that follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Cursor of the next page; `None` when this is the last.
    pub next: Option<String>,
}

/// Which negotiations. Every member that is set must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NegotiationFilter {
    /// Our side.
    pub role: Option<Role>,
    /// Its state.
    pub state: Option<negotiation::StateName>,
    /// With whom.
    pub counterparty: Option<ParticipantId>,
}

/// Which transfers. Every member that is set must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransferFilter {
    /// Our side.
    pub role: Option<Role>,
    /// Its state.
    pub state: Option<transfer::StateName>,
    /// With whom.
    pub counterparty: Option<ParticipantId>,
    /// Under which agreement.
    pub agreement: Option<AgreementId>,
}

/// Which agreements. Every member that is set must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgreementFilter {
    /// Our side.
    pub role: Option<Role>,
    /// `pending`, `in-force` or `revoked`, see [`crate::model::AgreementState::as_str`].
    pub state: Option<&'static str>,
    /// With whom.
    pub counterparty: Option<ParticipantId>,
    /// About which dataset.
    pub dataset: Option<DatasetId>,
}

/// Which audit lines. Every member that is set must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// About which negotiation or transfer.
    pub process: Option<ProcessId>,
    /// Under which agreement.
    pub agreement: Option<AgreementId>,
    /// With whom.
    pub counterparty: Option<ParticipantId>,
    /// Which event.
    pub event: Option<String>,
}

/// Which duties. Every member that is set must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DutyFilter {
    /// `pending`, `fulfilled` or `violated`, see [`DutyProgress::as_str`].
    pub state: Option<&'static str>,
    /// Under which agreement.
    pub agreement: Option<AgreementId>,
    /// Caused by which transfer.
    pub transfer: Option<ProcessId>,
}

/// What must hold of what is there already when a record is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything: add it or replace it.
    Any,
    /// Nothing: a record with this identifier is a [`StoreError::Duplicate`].
    New,
    /// This version: another one, or none, is a [`StoreError::Conflict`].
    Version(u64),
}

impl Expect {
    /// The version that was loaded; 0 is a new record.
    fn loaded(version: u64) -> Self {
        if version == 0 { Self::New } else { Self::Version(version) }
    }
}

/// One use of an agreement, to be taken in the same commit as what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeUse {
    /// The agreement.
    pub agreement: AgreementId,
    /// The transfer that uses it.
    pub transfer: ProcessId,
    /// What within the transfer counts as one use; the same one taken again counts once. Empty
    /// where the whole transfer is one use.
    pub flow: String,
    /// How many uses the agreement allows; `None`: any number, still counted.
    pub max: Option<u64>,
}

/// What quantities of data are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Records.
    Records,
}

impl Unit {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Records => "records",
        }
    }
}

/// Bytes or records of an agreement, to be taken before they leave: a crash gives nothing back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeQuantity {
    /// The agreement.
    pub agreement: AgreementId,
    /// Of what.
    pub unit: Unit,
    /// What they are taken for, say a flow: taken again under the same name, the new number stands
    /// in place of the old one, so that what was not used is given back by a smaller number.
    pub name: String,
    /// How many, under this name, in total.
    pub amount: u64,
    /// How many the agreement allows, all names together; `None`: any number, still counted.
    pub max: Option<u64>,
}

/// Everything that is committed at once. Applied in the order of its members.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The time; becomes `created` and `updated`.
    pub now: Timestamp,
    /// A negotiation and the version that was loaded; 0 is a new one.
    pub negotiation: Option<(Negotiation, u64)>,
    /// A transfer and the version that was loaded; 0 is a new one.
    pub transfer: Option<(Transfer, u64)>,
    /// Added or replaced.
    pub transfer_detail: Option<TransferDetail>,
    /// Added, or moved on: its state never moves back, and its content never changes. Another
    /// agreement under an identifier that we hold is a [`StoreError::Duplicate`]: the counterparty
    /// chooses it.
    pub agreement: Option<AgreementRecord>,
    /// Refuses the whole batch when no use is left.
    pub take_use: Option<TakeUse>,
    /// Refuses the whole batch when more is asked for than is left.
    pub take_quantities: Vec<TakeQuantity>,
    /// Facts of this register to forget before those of the batch are added.
    pub clear_facts: Option<Subject>,
    /// Facts, added or replaced by register, subject and name.
    pub facts: Vec<FactRecord>,
    /// Facts to forget, by their name; each must be there.
    pub delete_facts: Vec<(Subject, String)>,
    /// Duties that are caused; one that is there already stays as it is.
    pub duties: Vec<DutyRecord>,
    /// Duties that were tried or settled: replaced, where they are not settled yet.
    pub duties_tried: Vec<DutyRecord>,
    /// What a transfer brings: added, or moved on; its state never moves back, and it loses no duty.
    pub received: Option<ReceivedRecord>,
    /// Added to the outbox. A message that is there already is a [`StoreError::Duplicate`].
    pub outbox: Vec<OutboxEntry>,
    /// Attempts that failed: replaced, where the message still waits.
    pub outbox_retry: Vec<OutboxEntry>,
    /// Taken out of the outbox, where the message still waits.
    pub outbox_done: Vec<MessageId>,
    /// When to wake the process; `None` clears it.
    pub wake: Option<(ProcessId, Option<Timestamp>)>,
    /// The process was woken for this time: its wake-up is cleared, unless it is a later one by now.
    pub woken: Option<(ProcessId, Timestamp)>,
    /// Added or replaced, by its identifier.
    pub flow: Option<FlowReport>,
    /// Datasets, each with what must be there.
    pub datasets: Vec<(DatasetRecord, Expect)>,
    /// Policies, each with what must be there.
    pub policies: Vec<(PolicyRecord, Expect)>,
    /// Offers, each with what must be there. Its dataset must be there.
    pub offers: Vec<(OfferRecord, Expect)>,
    /// Offers to withdraw; each must be there.
    pub delete_offers: Vec<OfferId>,
    /// Policies to forget; each must be there. Offers made from them stay.
    pub delete_policies: Vec<String>,
    /// Datasets to withdraw, with all their offers; each must be there. Agreements stay.
    pub delete_datasets: Vec<DatasetId>,
    /// What a broker holds of us: added or replaced.
    pub publication: Option<Publication>,
    /// A broker to forget.
    pub delete_publication: Option<ParticipantId>,
    /// Appended to the audit log, in this order.
    pub audit: Vec<AuditRecord>,
}

impl Batch {
    /// Nothing yet, at this time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    /// With a negotiation and the version that was loaded; 0 is a new one.
    #[must_use]
    pub fn with_negotiation(mut self, negotiation: Negotiation, loaded: u64) -> Self {
        self.negotiation = Some((negotiation, loaded));
        self
    }

    /// With a transfer and the version that was loaded; 0 is a new one.
    #[must_use]
    pub fn with_transfer(mut self, transfer: Transfer, loaded: u64) -> Self {
        self.transfer = Some((transfer, loaded));
        self
    }

    /// With a transfer's detail.
    #[must_use]
    pub fn with_detail(mut self, detail: TransferDetail) -> Self {
        self.transfer_detail = Some(detail);
        self
    }

    /// With an agreement.
    #[must_use]
    pub fn with_agreement(mut self, agreement: AgreementRecord) -> Self {
        self.agreement = Some(agreement);
        self
    }

    /// With one use to take.
    #[must_use]
    pub fn taking(mut self, take: TakeUse) -> Self {
        self.take_use = Some(take);
        self
    }

    /// With bytes or records to take.
    #[must_use]
    pub fn taking_quantity(mut self, take: TakeQuantity) -> Self {
        self.take_quantities.push(take);
        self
    }

    /// With one more fact.
    #[must_use]
    pub fn with_fact(mut self, fact: FactRecord) -> Self {
        self.facts.push(fact);
        self
    }

    /// With one more duty.
    #[must_use]
    pub fn owing(mut self, duty: DutyRecord) -> Self {
        self.duties.push(duty);
        self
    }

    /// With what a transfer brings.
    #[must_use]
    pub fn receiving(mut self, received: ReceivedRecord) -> Self {
        self.received = Some(received);
        self
    }

    /// With one more message to send.
    #[must_use]
    pub fn sending(mut self, entry: OutboxEntry) -> Self {
        self.outbox.push(entry);
        self
    }

    /// With one message less to send.
    #[must_use]
    pub fn done(mut self, id: MessageId) -> Self {
        self.outbox_done.push(id);
        self
    }

    /// With a failed attempt.
    #[must_use]
    pub fn retrying(mut self, entry: OutboxEntry) -> Self {
        self.outbox_retry.push(entry);
        self
    }

    /// With a wake-up, or without one from now on.
    #[must_use]
    pub fn waking(mut self, process: ProcessId, at: Option<Timestamp>) -> Self {
        self.wake = Some((process, at));
        self
    }

    /// With a flow report.
    #[must_use]
    pub fn with_flow(mut self, report: FlowReport) -> Self {
        self.flow = Some(report);
        self
    }

    /// With one more audit line.
    #[must_use]
    pub fn recording(mut self, line: AuditRecord) -> Self {
        self.audit.push(line);
        self
    }

    /// With a dataset.
    #[must_use]
    pub fn with_dataset(mut self, dataset: DatasetRecord, expect: Expect) -> Self {
        self.datasets.push((dataset, expect));
        self
    }

    /// With a policy.
    #[must_use]
    pub fn with_policy(mut self, policy: PolicyRecord, expect: Expect) -> Self {
        self.policies.push((policy, expect));
        self
    }

    /// With an offer.
    #[must_use]
    pub fn with_offer(mut self, offer: OfferRecord, expect: Expect) -> Self {
        self.offers.push((offer, expect));
        self
    }
}

/// What a commit made of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// The negotiation's new version.
    pub negotiation: Option<u64>,
    /// The transfer's new version.
    pub transfer: Option<u64>,
    /// How many uses of the agreement are taken, the one of this batch included.
    pub uses: Option<u64>,
}

/// The store. A clone is the same store.
///
/// # Cancellation
/// A commit whose future is dropped is still kept or refused as a whole; its answer is lost. A
/// read whose future is dropped has no effect.
#[derive(Debug, Clone)]
pub enum Store {
    /// Nothing survives the process: for tests.
    Memory(MemoryStore),
    /// SQLite in a data directory.
    Sql(SqlStore),
}

macro_rules! ask {
    ($store:ident, $method:ident $(::<$kind:ty>)? ($($argument:expr),*)) => {
        match $store {
            Store::Memory(store) => store.$method$(::<$kind>)?($($argument),*),
            Store::Sql(store) => store.$method$(::<$kind>)?($($argument),*).await,
        }
    };
}

impl Store {
    /// An empty store in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(MemoryStore::default())
    }

    /// Opens the SQLite store in a data directory, and makes both where they are not there.
    /// Blocks: call it while starting.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Newer`], [`StoreError::Corrupt`] or
    /// [`StoreError::Unavailable`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        SqlStore::open(data_dir).map(Self::Sql)
    }

    /// In words, for the first lines of a program.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Memory(_) => "memory (nothing survives this process)".to_owned(),
            Self::Sql(store) => format!("SQLite in {}", store.path().display()),
        }
    }

    /// Keeps all of the batch or nothing. It is on disk when this answers.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::UseExhausted`], [`StoreError::QuantityExhausted`],
    /// [`StoreError::Duplicate`], [`StoreError::NotFound`] or [`StoreError::Unavailable`]; nothing was kept.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        ask!(self, commit(Box::new(batch)))
    }

    /// Whether the store reads and takes commits.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`] when it does not.
    pub async fn health(&self) -> Result<(), StoreError> {
        self.commit(Batch::default()).await?;
        self.next_wake().await.map(|_| ())
    }

    /// One negotiation, by our own identifier.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`], as in every reading method.
    pub async fn negotiation(&self, id: &ProcessId) -> Result<Option<Versioned<Negotiation>>, StoreError> {
        self.get(id.as_str()).await
    }

    /// The negotiation that this counterparty knows by its own identifier.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn negotiation_by_peer(
        &self,
        counterparty: &ParticipantId,
        peer_pid: &ProcessId,
        role: Role,
    ) -> Result<Option<Versioned<Negotiation>>, StoreError> {
        self.first(by_peer(counterparty, peer_pid, role)).await
    }

    /// Negotiations, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn negotiations(
        &self,
        filter: &NegotiationFilter,
        page: &Page,
    ) -> Result<Listing<Versioned<Negotiation>>, StoreError> {
        let wanted = Filter::default()
            .text("role", filter.role.map(Role::as_str))
            .text("state", filter.state.map(negotiation::StateName::as_str))
            .text("counterparty", filter.counterparty.as_ref().map(ParticipantId::as_str));
        self.list(wanted, page).await
    }

    /// How many negotiations with a counterparty have not ended.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn open_negotiations(&self, counterparty: &ParticipantId, role: Role) -> Result<u64, StoreError> {
        use negotiation::StateName as S;
        let open = [S::Initial, S::Requested, S::Offered, S::Accepted, S::Agreed, S::Verified].map(S::as_str);
        ask!(self, count::<Negotiation>(open_in(counterparty, role, &open)))
    }

    /// How many transfers with a counterparty have not ended.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn open_transfers(&self, counterparty: &ParticipantId, role: Role) -> Result<u64, StoreError> {
        use transfer::StateName as S;
        let open = [S::Initial, S::Requested, S::Started, S::Suspended].map(S::as_str);
        ask!(self, count::<Transfer>(open_in(counterparty, role, &open)))
    }

    /// One transfer, by our own identifier.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn transfer(&self, id: &ProcessId) -> Result<Option<Versioned<Transfer>>, StoreError> {
        self.get(id.as_str()).await
    }

    /// The transfer that this counterparty knows by its own identifier.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn transfer_by_peer(
        &self,
        counterparty: &ParticipantId,
        peer_pid: &ProcessId,
        role: Role,
    ) -> Result<Option<Versioned<Transfer>>, StoreError> {
        self.first(by_peer(counterparty, peer_pid, role)).await
    }

    /// The transfer whose access token has this digest, with its detail.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn transfer_by_token(
        &self,
        token_digest: &str,
    ) -> Result<Option<(Versioned<Transfer>, TransferDetail)>, StoreError> {
        let Some(detail) =
            self.first::<TransferDetail>(Filter::default().text("token_digest", Some(token_digest))).await?
        else {
            return Ok(None);
        };
        let transfer = self.transfer(&detail.value.transfer).await?;
        Ok(transfer.map(|transfer| (transfer, detail.value)))
    }

    /// A transfer's detail.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn transfer_detail(&self, id: &ProcessId) -> Result<Option<TransferDetail>, StoreError> {
        Ok(self.get::<TransferDetail>(id.as_str()).await?.map(|found| found.value))
    }

    /// Transfers, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn transfers(
        &self,
        filter: &TransferFilter,
        page: &Page,
    ) -> Result<Listing<Versioned<Transfer>>, StoreError> {
        let wanted = Filter::default()
            .text("role", filter.role.map(Role::as_str))
            .text("state", filter.state.map(transfer::StateName::as_str))
            .text("counterparty", filter.counterparty.as_ref().map(ParticipantId::as_str))
            .text("agreement", filter.agreement.as_ref().map(AgreementId::as_str));
        self.list(wanted, page).await
    }

    /// One agreement.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn agreement(&self, id: &AgreementId) -> Result<Option<Versioned<AgreementRecord>>, StoreError> {
        self.get(id.as_str()).await
    }

    /// Agreements, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn agreements(
        &self,
        filter: &AgreementFilter,
        page: &Page,
    ) -> Result<Listing<Versioned<AgreementRecord>>, StoreError> {
        let wanted = Filter::default()
            .text("role", filter.role.map(Role::as_str))
            .text("state", filter.state)
            .text("counterparty", filter.counterparty.as_ref().map(ParticipantId::as_str))
            .text("dataset", filter.dataset.as_ref().map(DatasetId::as_str));
        self.list(wanted, page).await
    }

    /// How many uses of an agreement are taken.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn uses(&self, agreement: &AgreementId) -> Result<u64, StoreError> {
        Ok(self.get::<UseTotal>(agreement.as_str()).await?.map_or(0, |total| total.value.uses))
    }

    /// How many bytes or records of an agreement are taken.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn quantity_taken(&self, agreement: &AgreementId, unit: Unit) -> Result<u64, StoreError> {
        Ok(self.get::<QuantityTotal>(&quantity_key(agreement, unit)).await?.map_or(0, |total| total.value.amount))
    }

    /// The facts of one register and subject, oldest first; those that are over as well.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn facts(&self, subject: &Subject) -> Result<Vec<FactRecord>, StoreError> {
        self.few(about(subject)).await
    }

    /// Duties, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn duties(&self, filter: &DutyFilter, page: &Page) -> Result<Listing<Versioned<DutyRecord>>, StoreError> {
        let wanted = Filter::default()
            .text("agreement", filter.agreement.as_ref().map(AgreementId::as_str))
            .text("transfer", filter.transfer.as_ref().map(ProcessId::as_str))
            .text("state", filter.state);
        self.list(wanted, page).await
    }

    /// Duties whose next attempt is due, oldest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn duties_due(&self, now: Timestamp, limit: usize) -> Result<Vec<DutyRecord>, StoreError> {
        self.values(Filter::default().due("next_attempt", now), limit).await
    }

    /// When the next duty is due.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn next_duty(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(ask!(self, least::<DutyRecord>("next_attempt"))?.map(from_micros))
    }

    /// What a transfer brought.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn received(&self, transfer: &ProcessId) -> Result<Option<ReceivedRecord>, StoreError> {
        Ok(self.get::<ReceivedRecord>(transfer.as_str()).await?.map(|found| found.value))
    }

    /// What transfers brought, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn received_all(&self, page: &Page) -> Result<Listing<Versioned<ReceivedRecord>>, StoreError> {
        self.list(Filter::default(), page).await
    }

    /// What transfers brought to a path, oldest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn received_at(&self, path: &str) -> Result<Vec<ReceivedRecord>, StoreError> {
        self.few(Filter::default().text("path", Some(path))).await
    }

    /// One dataset.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn dataset(&self, id: &DatasetId) -> Result<Option<Versioned<DatasetRecord>>, StoreError> {
        self.get(id.as_str()).await
    }

    /// Datasets, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn datasets(&self, page: &Page) -> Result<Listing<Versioned<DatasetRecord>>, StoreError> {
        self.list(Filter::default(), page).await
    }

    /// The page of datasets before this one; `None`: this is the first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn datasets_page_before(&self, page: &Page) -> Result<Option<Page>, StoreError> {
        if page.after.is_none() {
            return Ok(None);
        }
        let (from, limit) = page.bounds()?;
        // The page begins below the row that comes just before it.
        let newer = ask!(self, seqs_from::<DatasetRecord>(from, limit + 1))?;
        Ok(Some(Page { after: newer.get(limit).map(u64::to_string), limit: page.limit }))
    }

    /// One offer.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn offer(&self, id: &OfferId) -> Result<Option<Versioned<OfferRecord>>, StoreError> {
        self.get(id.as_str()).await
    }

    /// Offers, newest first; of one dataset, or of all.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn offers(
        &self,
        dataset: Option<&DatasetId>,
        page: &Page,
    ) -> Result<Listing<Versioned<OfferRecord>>, StoreError> {
        self.list(Filter::default().text("dataset", dataset.map(DatasetId::as_str)), page).await
    }

    /// Every offer of one dataset, oldest first: what a request for it is related to.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn offers_of(&self, dataset: &DatasetId) -> Result<Vec<OfferRecord>, StoreError> {
        self.few(Filter::default().text("dataset", Some(dataset.as_str()))).await
    }

    /// One named policy.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn policy(&self, id: &str) -> Result<Option<Versioned<PolicyRecord>>, StoreError> {
        self.get(id).await
    }

    /// Named policies, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn policies(&self, page: &Page) -> Result<Listing<Versioned<PolicyRecord>>, StoreError> {
        self.list(Filter::default(), page).await
    }

    /// Every message that waits, in the order in which they were queued.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn outbox_all(&self) -> Result<Vec<OutboxEntry>, StoreError> {
        self.values(Filter::default(), usize::MAX).await
    }

    /// Processes whose wake-up is due, with the time that they asked for. It stays due until a
    /// batch sets or clears it.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn wakes_due(&self, now: Timestamp, limit: usize) -> Result<Vec<(ProcessId, Timestamp)>, StoreError> {
        let due: Vec<WakeRecord> = self.values(Filter::default().due("at", now), limit).await?;
        Ok(due.into_iter().map(|wake| (wake.process, wake.at)).collect())
    }

    /// When the next process is to be woken.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(ask!(self, least::<WakeRecord>("at"))?.map(from_micros))
    }

    /// The flows of one transfer, oldest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn flows(&self, transfer: &ProcessId) -> Result<Vec<FlowReport>, StoreError> {
        self.values(Filter::default().text("transfer", Some(transfer.as_str())), usize::MAX).await
    }

    /// One flow.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn flow(&self, id: &str) -> Result<Option<FlowReport>, StoreError> {
        Ok(self.get::<FlowReport>(id).await?.map(|found| found.value))
    }

    /// What each broker holds of us.
    ///
    /// # Errors
    /// As [`Store::negotiation`].
    pub async fn publications(&self) -> Result<Vec<Publication>, StoreError> {
        self.values(Filter::default(), usize::MAX).await
    }

    /// The audit log, newest first.
    ///
    /// # Errors
    /// As [`Store::negotiation`], and [`StoreError::Cursor`].
    pub async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Listing<AuditLine>, StoreError> {
        let wanted = Filter::default()
            .text("process", filter.process.as_ref().map(ProcessId::as_str))
            .text("agreement", filter.agreement.as_ref().map(AgreementId::as_str))
            .text("counterparty", filter.counterparty.as_ref().map(ParticipantId::as_str))
            .text("event", filter.event.as_deref());
        let rows: Rows<AuditRecord> = self.rows(wanted, page).await?;
        let items = rows.rows.into_iter().map(|row| AuditLine { seq: row.seq, record: row.versioned.value }).collect();
        Ok(Listing { items, next: rows.next })
    }

    async fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
        ask!(self, get::<R>(id))
    }

    async fn rows<R: Record>(&self, filter: Filter, page: &Page) -> Result<Rows<R>, StoreError> {
        let (below, limit) = page.bounds()?;
        // One more than asked for tells whether there is a next page.
        let mut rows = ask!(self, newest::<R>(filter, below, limit + 1))?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.seq.to_string());
        Ok(Rows { rows, next })
    }

    async fn list<R: Record>(&self, filter: Filter, page: &Page) -> Result<Listing<Versioned<R>>, StoreError> {
        let rows = self.rows(filter, page).await?;
        Ok(Listing { items: rows.rows.into_iter().map(|row| row.versioned).collect(), next: rows.next })
    }

    async fn first<R: Record>(&self, filter: Filter) -> Result<Option<Versioned<R>>, StoreError> {
        Ok(ask!(self, first::<R>(filter))?.map(|row| row.versioned))
    }

    /// All that fits, where that is seldom more than a few.
    async fn few<R: Record>(&self, filter: Filter) -> Result<Vec<R>, StoreError> {
        Ok(ask!(self, few::<R>(filter))?.into_iter().map(|row| row.versioned.value).collect())
    }

    async fn values<R: Record>(&self, filter: Filter, limit: usize) -> Result<Vec<R>, StoreError> {
        Ok(ask!(self, oldest::<R>(filter, limit))?.into_iter().map(|row| row.versioned.value).collect())
    }
}

fn open_in(counterparty: &ParticipantId, role: Role, states: &[&'static str]) -> Filter {
    let of = Filter::default().text("counterparty", Some(counterparty.as_str())).text("role", Some(role.as_str()));
    Filter { among: Some(("state", states.to_vec())), ..of }
}

fn about(subject: &Subject) -> Filter {
    Filter::default().text("register", Some(subject.register())).text("subject", Some(subject.id()))
}

fn by_peer(counterparty: &ParticipantId, peer_pid: &ProcessId, role: Role) -> Filter {
    Filter::default()
        .text("counterparty", Some(counterparty.as_str()))
        .text("peer_pid", Some(peer_pid.as_str()))
        .text("role", Some(role.as_str()))
}

// ── what the adapters share ──

/// A kind of record: what both adapters must know of it.
trait Record: Clone + Serialize + DeserializeOwned + Send + Sync + memory::Kept + 'static {
    /// Its name in errors.
    const WHAT: &'static str;
    /// Its table.
    const TABLE: &'static str;
    /// Columns that no two records may have in common, where all of them are set.
    const UNIQUE: &'static [&'static str] = &[];

    /// What identifies it; `None` where only its place does.
    fn key(&self) -> Option<Cow<'_, str>>;

    /// What it can be searched by; always the same names in the same order.
    fn columns(&self) -> Vec<(&'static str, Column<'_>)>;
}

/// A value to search by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column<'a> {
    Text(Option<&'a str>),
    Time(Option<Timestamp>),
}

/// What is searched for: every condition must hold.
#[derive(Debug, Clone, Default)]
struct Filter {
    equal: Vec<(&'static str, String)>,
    among: Option<(&'static str, Vec<&'static str>)>,
    at_most: Option<(&'static str, i64)>,
}

impl Filter {
    fn text(mut self, column: &'static str, value: Option<&str>) -> Self {
        self.equal.extend(value.map(|value| (column, value.to_owned())));
        self
    }

    fn due(mut self, column: &'static str, now: Timestamp) -> Self {
        self.at_most = Some((column, now.as_microsecond()));
        self
    }
}

/// A record at its place: `seq` orders by when it was first put.
#[derive(Debug, Clone)]
struct Row<R> {
    seq: u64,
    versioned: Versioned<R>,
}

struct Rows<R> {
    rows: Vec<Row<R>>,
    next: Option<String>,
}

/// What a batch is made of, within one transaction. Whoever calls it rolls back on an error.
trait Work {
    /// Adds or replaces a record. Its version is 1, or one more than it was.
    fn put<R: Record>(&mut self, record: &R, expect: Expect, now: Timestamp) -> Result<(), StoreError>;
    /// One record.
    fn get<R: Record>(&mut self, id: &str) -> Result<Option<Versioned<R>>, StoreError>;
    /// Removes one record; whether it was there.
    fn remove<R: Record>(&mut self, id: &str) -> Result<bool, StoreError>;
    /// The identifiers of the records that fit.
    fn keys<R: Record>(&mut self, filter: &Filter) -> Result<Vec<String>, StoreError>;
}

/// What a batch means.
fn apply(work: &mut impl Work, batch: &Batch) -> Result<Committed, StoreError> {
    let now = batch.now;
    let mut committed = Committed::default();
    if let Some((negotiation, loaded)) = &batch.negotiation {
        work.put(negotiation, Expect::loaded(*loaded), now)?;
        committed.negotiation = Some(loaded + 1);
    }
    if let Some((transfer, loaded)) = &batch.transfer {
        work.put(transfer, Expect::loaded(*loaded), now)?;
        committed.transfer = Some(loaded + 1);
    }
    if let Some(detail) = &batch.transfer_detail {
        work.put(detail, Expect::Any, now)?;
    }
    if let Some(agreement) = &batch.agreement {
        put_agreement(work, agreement, now)?;
    }
    if let Some(take) = &batch.take_use {
        committed.uses = Some(take_use(work, take, now)?);
    }
    for take in &batch.take_quantities {
        take_quantity(work, take, now)?;
    }
    apply_facts(work, batch)?;
    apply_duties(work, batch)?;
    for entry in &batch.outbox {
        work.put(entry, Expect::New, now)?;
    }
    for entry in &batch.outbox_retry {
        // A message that was delivered or cancelled meanwhile must not come back.
        if work.get::<OutboxEntry>(entry.id.as_str())?.is_some() {
            work.put(entry, Expect::Any, now)?;
        }
    }
    for id in &batch.outbox_done {
        work.remove::<OutboxEntry>(id.as_str())?;
    }
    match &batch.wake {
        Some((process, Some(at))) => {
            work.put(&WakeRecord { process: process.clone(), at: *at }, Expect::Any, now)?;
        }
        Some((process, None)) => {
            work.remove::<WakeRecord>(process.as_str())?;
        }
        None => {}
    }
    if let Some((process, due)) = &batch.woken
        && work.get::<WakeRecord>(process.as_str())?.is_some_and(|wake| wake.value.at <= *due)
    {
        work.remove::<WakeRecord>(process.as_str())?;
    }
    if let Some(report) = &batch.flow {
        // The provider names a flow. By a name that a flow of another transfer has, it would take that one's place.
        let held = work.get::<FlowReport>(&report.id)?.is_some_and(|held| held.value.transfer != report.transfer);
        if held {
            let id = format!("{}:{}", report.transfer, report.id);
            work.put(&FlowReport { id, ..report.clone() }, Expect::Any, now)?;
        } else {
            work.put(report, Expect::Any, now)?;
        }
    }
    apply_catalog(work, batch)?;
    if let Some(publication) = &batch.publication {
        work.put(publication, Expect::Any, now)?;
    }
    if let Some(broker) = &batch.delete_publication {
        work.remove::<Publication>(broker.as_str())?;
    }
    for line in &batch.audit {
        work.put(line, Expect::New, now)?;
    }
    Ok(committed)
}

fn apply_facts(work: &mut impl Work, batch: &Batch) -> Result<(), StoreError> {
    if let Some(subject) = &batch.clear_facts {
        for id in work.keys::<FactRecord>(&about(subject))? {
            work.remove::<FactRecord>(&id)?;
        }
    }
    for fact in &batch.facts {
        work.put(fact, Expect::Any, batch.now)?;
    }
    for (subject, name) in &batch.delete_facts {
        if !work.remove::<FactRecord>(&fact_key(subject, name))? {
            return Err(StoreError::NotFound { what: FactRecord::WHAT, id: name.clone() });
        }
    }
    Ok(())
}

fn apply_duties(work: &mut impl Work, batch: &Batch) -> Result<(), StoreError> {
    for duty in &batch.duties {
        if work.get::<DutyRecord>(&duty.id)?.is_none() {
            work.put(duty, Expect::New, batch.now)?;
        }
    }
    for duty in &batch.duties_tried {
        // INVARIANT: what is settled stays settled.
        let pending = work.get::<DutyRecord>(&duty.id)?.is_some_and(|held| held.value.state == DutyProgress::Pending);
        if pending {
            work.put(duty, Expect::Any, batch.now)?;
        }
    }
    if let Some(received) = &batch.received {
        let held = work.get::<ReceivedRecord>(received.transfer.as_str())?.map(|held| held.value);
        let mut received = received.clone();
        if let Some(held) = &held {
            // INVARIANT: what came with a use stays with what it brought, whoever writes it down.
            let fresh = |duty: &&DueDuty| received.duties.iter().all(|known| known.key != duty.key);
            let kept: Vec<DueDuty> = held.duties.iter().filter(fresh).cloned().collect();
            received.duties.extend(kept);
        }
        let (rank, receiving) = (received.state.rank(), received.state == ReceivedState::Receiving);
        if held.is_none_or(|held| rank > held.state.rank() || (receiving && rank == held.state.rank())) {
            work.put(&received, Expect::Any, batch.now)?;
        }
    }
    Ok(())
}

fn apply_catalog(work: &mut impl Work, batch: &Batch) -> Result<(), StoreError> {
    for (dataset, expect) in &batch.datasets {
        work.put(dataset, *expect, batch.now)?;
    }
    for (policy, expect) in &batch.policies {
        work.put(policy, *expect, batch.now)?;
    }
    for (offer, expect) in &batch.offers {
        let dataset = offer.offer.dataset.as_str();
        if work.get::<DatasetRecord>(dataset)?.is_none() {
            return Err(StoreError::NotFound { what: DatasetRecord::WHAT, id: dataset.to_owned() });
        }
        work.put(offer, *expect, batch.now)?;
    }
    for id in &batch.delete_offers {
        must_remove::<OfferRecord>(work, id.as_str())?;
    }
    for id in &batch.delete_policies {
        must_remove::<PolicyRecord>(work, id)?;
    }
    for id in &batch.delete_datasets {
        for offer in work.keys::<OfferRecord>(&Filter::default().text("dataset", Some(id.as_str())))? {
            work.remove::<OfferRecord>(&offer)?;
        }
        must_remove::<DatasetRecord>(work, id.as_str())?;
    }
    Ok(())
}

fn must_remove<R: Record>(work: &mut impl Work, id: &str) -> Result<(), StoreError> {
    if work.remove::<R>(id)? {
        return Ok(());
    }
    Err(StoreError::NotFound { what: R::WHAT, id: id.to_owned() })
}

fn put_agreement(work: &mut impl Work, new: &AgreementRecord, now: Timestamp) -> Result<(), StoreError> {
    let id = new.agreement.id.as_str();
    let Some(Versioned { value: held, .. }) = work.get::<AgreementRecord>(id)? else {
        work.put(new, Expect::New, now)?;
        return Ok(());
    };
    // The counterparty chooses the identifier: it must not reach an agreement that is not its own.
    let same = held.agreement == new.agreement
        && held.role == new.role
        && held.counterparty == new.counterparty
        && held.negotiation == new.negotiation;
    if !same {
        return Err(StoreError::Duplicate { what: AgreementRecord::WHAT, id: id.to_owned() });
    }
    // INVARIANT: what is revoked never comes back into force.
    if new.state.rank() > held.state.rank() {
        work.put(new, Expect::Any, now)?;
    }
    Ok(())
}

fn take_use(work: &mut impl Work, take: &TakeUse, now: Timestamp) -> Result<u64, StoreError> {
    let taken = work.get::<UseTotal>(take.agreement.as_str())?.map_or(0, |total| total.value.uses);
    let record =
        UseRecord { agreement: take.agreement.clone(), transfer: take.transfer.clone(), flow: take.flow.clone() };
    if let Some(key) = record.key()
        && work.get::<UseRecord>(&key)?.is_some()
    {
        return Ok(taken);
    }
    match take.max {
        Some(max) if taken >= max => Err(StoreError::UseExhausted { agreement: take.agreement.clone(), taken, max }),
        Some(_) | None => {
            work.put(&record, Expect::New, now)?;
            work.put(&UseTotal { agreement: take.agreement.clone(), uses: taken + 1 }, Expect::Any, now)?;
            Ok(taken + 1)
        }
    }
}

fn take_quantity(work: &mut impl Work, take: &TakeQuantity, now: Timestamp) -> Result<(), StoreError> {
    let TakeQuantity { agreement, unit, name, amount, max } = take.clone();
    let total = work.get::<QuantityTotal>(&quantity_key(&agreement, unit))?.map_or(0, |total| total.value.amount);
    let record = QuantityTaken { agreement: agreement.clone(), unit, name, amount };
    let held = match record.key() {
        Some(key) => work.get::<QuantityTaken>(&key)?.map_or(0, |held| held.value.amount),
        None => 0,
    };
    let taken = total.saturating_sub(held);
    let wanted = taken.saturating_add(amount);
    if let Some(max) = max
        && amount > held
        && wanted > max
    {
        return Err(StoreError::QuantityExhausted { agreement, unit, taken, max });
    }
    work.put(&record, Expect::Any, now)?;
    work.put(&QuantityTotal { agreement, unit, amount: wanted }, Expect::Any, now)?;
    Ok(())
}

/// What was taken under one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct QuantityTaken {
    agreement: AgreementId,
    unit: Unit,
    name: String,
    amount: u64,
}

/// What was taken of one agreement, all names together.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct QuantityTotal {
    agreement: AgreementId,
    unit: Unit,
    amount: u64,
}

fn quantity_key(agreement: &AgreementId, unit: Unit) -> String {
    format!("{agreement}\u{1f}{}", unit.as_str())
}

fn fact_key(subject: &Subject, name: &str) -> String {
    // Identifiers and names hold no control characters, so the parts cannot run into one another.
    format!("{}\u{1f}{}\u{1f}{name}", subject.register(), subject.id())
}

/// One use that was taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UseRecord {
    agreement: AgreementId,
    transfer: ProcessId,
    flow: String,
}

/// How many uses of one agreement were taken: counted as they are, since there may be any number.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UseTotal {
    agreement: AgreementId,
    uses: u64,
}

/// One wake-up that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WakeRecord {
    process: ProcessId,
    at: Timestamp,
}

fn from_micros(micros: i64) -> Timestamp {
    // Only what `as_microsecond` gave is ever kept.
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

/// A time as both adapters keep it in `created` and `updated`.
fn rounded(at: Timestamp) -> Timestamp {
    from_micros(at.as_microsecond())
}

impl Record for Negotiation {
    const WHAT: &'static str = "negotiation";
    const TABLE: &'static str = "negotiation";
    const UNIQUE: &'static [&'static str] = &["counterparty", "peer_pid", "role"];
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("counterparty", Column::Text(Some(self.counterparty.as_str()))),
            ("peer_pid", Column::Text(self.peer_pid.as_ref().map(ProcessId::as_str))),
            ("role", Column::Text(Some(self.role.as_str()))),
            ("state", Column::Text(Some(self.state.name().as_str()))),
        ]
    }
}

impl Record for Transfer {
    const WHAT: &'static str = "transfer";
    const TABLE: &'static str = "transfer";
    const UNIQUE: &'static [&'static str] = &["counterparty", "peer_pid", "role"];
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("counterparty", Column::Text(Some(self.counterparty.as_str()))),
            ("peer_pid", Column::Text(self.peer_pid.as_ref().map(ProcessId::as_str))),
            ("role", Column::Text(Some(self.role.as_str()))),
            ("state", Column::Text(Some(self.state.name().as_str()))),
            ("agreement", Column::Text(Some(self.agreement.as_str()))),
        ]
    }
}

impl Record for TransferDetail {
    const WHAT: &'static str = "transfer detail";
    const TABLE: &'static str = "transfer_detail";
    const UNIQUE: &'static [&'static str] = &["token_digest"];
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.transfer.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![("token_digest", Column::Text(self.token_digest.as_deref()))]
    }
}

impl Record for AgreementRecord {
    const WHAT: &'static str = "agreement";
    const TABLE: &'static str = "agreement";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.agreement.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("counterparty", Column::Text(Some(self.counterparty.as_str()))),
            ("role", Column::Text(Some(self.role.as_str()))),
            ("state", Column::Text(Some(self.state.as_str()))),
            ("dataset", Column::Text(Some(self.agreement.target.as_str()))),
        ]
    }
}

impl Record for DatasetRecord {
    const WHAT: &'static str = "dataset";
    const TABLE: &'static str = "dataset";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for PolicyRecord {
    const WHAT: &'static str = "policy";
    const TABLE: &'static str = "policy";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for OfferRecord {
    const WHAT: &'static str = "offer";
    const TABLE: &'static str = "offer";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.offer.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![("dataset", Column::Text(Some(self.offer.dataset.as_str())))]
    }
}

impl Record for OutboxEntry {
    const WHAT: &'static str = "message";
    const TABLE: &'static str = "outbox";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for WakeRecord {
    const WHAT: &'static str = "wake-up";
    const TABLE: &'static str = "wake";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.process.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![("at", Column::Time(Some(self.at)))]
    }
}

impl Record for UseRecord {
    const WHAT: &'static str = "use";
    const TABLE: &'static str = "use_taken";
    fn key(&self) -> Option<Cow<'_, str>> {
        // Identifiers hold no control characters, so the parts cannot run into one another.
        Some(format!("{}\u{1f}{}\u{1f}{}", self.agreement, self.transfer, self.flow).into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for UseTotal {
    const WHAT: &'static str = "number of uses";
    const TABLE: &'static str = "use_total";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.agreement.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for FlowReport {
    const WHAT: &'static str = "flow";
    const TABLE: &'static str = "flow";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![("transfer", Column::Text(Some(self.transfer.as_str())))]
    }
}

impl Record for Publication {
    const WHAT: &'static str = "publication";
    const TABLE: &'static str = "publication";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.broker.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for AuditRecord {
    const WHAT: &'static str = "audit line";
    const TABLE: &'static str = "audit";
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("process", Column::Text(self.process.as_ref().map(ProcessId::as_str))),
            ("agreement", Column::Text(self.agreement.as_ref().map(AgreementId::as_str))),
            ("counterparty", Column::Text(self.counterparty.as_ref().map(ParticipantId::as_str))),
            ("event", Column::Text(Some(&self.event))),
        ]
    }
}

impl Record for FactRecord {
    const WHAT: &'static str = "fact";
    const TABLE: &'static str = "fact";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(fact_key(&self.subject, &self.name).into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("register", Column::Text(Some(self.subject.register()))),
            ("subject", Column::Text(Some(self.subject.id()))),
        ]
    }
}

impl Record for DutyRecord {
    const WHAT: &'static str = "duty";
    const TABLE: &'static str = "duty";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.id.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        let pending = self.state == DutyProgress::Pending;
        vec![
            ("agreement", Column::Text(Some(self.agreement.as_str()))),
            ("transfer", Column::Text(self.transfer.as_ref().map(ProcessId::as_str))),
            ("state", Column::Text(Some(self.state.as_str()))),
            ("next_attempt", Column::Time(pending.then_some(self.next_attempt))),
        ]
    }
}

impl Record for ReceivedRecord {
    const WHAT: &'static str = "received data";
    const TABLE: &'static str = "received";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.transfer.as_str().into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        vec![
            ("agreement", Column::Text(Some(self.agreement.as_str()))),
            ("path", Column::Text(Some(self.path.as_str()))),
        ]
    }
}

impl Record for QuantityTaken {
    const WHAT: &'static str = "quantity";
    const TABLE: &'static str = "quantity_taken";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(format!("{}\u{1f}{}", quantity_key(&self.agreement, self.unit), self.name).into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}

impl Record for QuantityTotal {
    const WHAT: &'static str = "quantity in total";
    const TABLE: &'static str = "quantity_total";
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(quantity_key(&self.agreement, self.unit).into())
    }
    fn columns(&self) -> Vec<(&'static str, Column<'_>)> {
        Vec::new()
    }
}
