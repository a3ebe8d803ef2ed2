//! The store in memory: the same meaning, nothing on disk. For tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kontor_core::negotiation::Negotiation;
use kontor_core::transfer::Transfer;

use super::{
    Batch, Column, Committed, Expect, Filter, QuantityTaken, QuantityTotal, Record, Row, StoreError, UseRecord,
    UseTotal, Versioned, WakeRecord, Work,
};
use crate::model::{
    AgreementRecord, AuditRecord, DatasetRecord, DutyRecord, FactRecord, FlowReport, OfferRecord, OutboxEntry,
    PolicyRecord, Publication, ReceivedRecord, TransferDetail,
};

/// Everything under one mutex, which is never held across an await.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic inside a commit leaves its changes in the journal; they are rolled back below.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.end(false);
        tables
    }

    pub(super) fn commit(&self, batch: Box<Batch>) -> Result<Committed, StoreError> {
        let mut tables = self.lock();
        let result = super::apply(&mut *tables, &batch);
        tables.end(result.is_ok());
        result
    }

    pub(super) fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
        self.lock().get(id)
    }

    pub(super) fn newest<R: Record>(
        &self,
        filter: Filter,
        below: u64,
        limit: usize,
    ) -> Result<Vec<Row<R>>, StoreError> {
        let mut tables = self.lock();
        let rows = R::table(&mut tables).rows.range(..below).rev();
        Ok(rows.filter(|(_, row)| fits(&row.value, &filter)).take(limit).map(to_row).collect())
    }

    pub(super) fn oldest<R: Record>(&self, filter: Filter, limit: usize) -> Result<Vec<Row<R>>, StoreError> {
        let mut tables = self.lock();
        let rows = R::table(&mut tables).rows.iter().filter(|(_, row)| fits(&row.value, &filter));
        // What is due comes in the order of its time.
        let Some((column, _)) = filter.at_most else { return Ok(rows.take(limit).map(to_row).collect()) };
        let mut due: Vec<_> = rows.collect();
        due.sort_by_key(|(seq, row)| (time_of(&row.value, column), **seq));
        Ok(due.into_iter().take(limit).map(to_row).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other adapter has it")]
    pub(super) fn seqs_from<R: Record>(&self, from: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        let mut tables = self.lock();
        Ok(R::table(&mut tables).rows.range(from..).map(|(seq, _)| *seq).take(limit).collect())
    }

    pub(super) fn few<R: Record>(&self, filter: Filter) -> Result<Vec<Row<R>>, StoreError> {
        self.oldest(filter, usize::MAX)
    }

    pub(super) fn first<R: Record>(&self, filter: Filter) -> Result<Option<Row<R>>, StoreError> {
        Ok(self.oldest(filter, 1)?.pop())
    }

    pub(super) fn count<R: Record>(&self, filter: Filter) -> Result<u64, StoreError> {
        Ok(R::table(&mut self.lock()).rows.values().filter(|row| fits(&row.value, &filter)).count() as u64)
    }

    pub(super) fn least<R: Record>(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        let mut tables = self.lock();
        Ok(R::table(&mut tables).rows.values().filter_map(|row| time_of(&row.value, column)).min())
    }
}

fn to_row<R: Clone>((seq, versioned): (&u64, &Versioned<R>)) -> Row<R> {
    Row { seq: *seq, versioned: versioned.clone() }
}

fn fits<R: Record>(record: &R, filter: &Filter) -> bool {
    if filter.equal.is_empty() && filter.among.is_none() && filter.at_most.is_none() {
        return true;
    }
    let columns = record.columns();
    let equal = filter.equal.iter().all(|(name, wanted)| {
        columns.iter().any(|(column, value)| column == name && *value == Column::Text(Some(wanted.as_str())))
    });
    let among = filter.among.as_ref().is_none_or(|(name, any)| {
        let mut columns = columns.iter();
        columns.any(|(column, value)| column == name && any.iter().any(|one| *value == Column::Text(Some(one))))
    });
    equal && among && filter.at_most.is_none_or(|(name, bound)| time_of(record, name).is_some_and(|at| at <= bound))
}

fn time_of<R: Record>(record: &R, name: &str) -> Option<i64> {
    record.columns().into_iter().find_map(|(column, value)| match value {
        Column::Time(Some(at)) if column == name => Some(at.as_microsecond()),
        Column::Time(_) | Column::Text(_) => None,
    })
}

/// What no other record may have in common with this one; `None` where a part is not set.
fn unique_key<R: Record>(record: &R) -> Option<Vec<String>> {
    if R::UNIQUE.is_empty() {
        return None;
    }
    let columns = record.columns();
    let part = |name: &&str| {
        columns.iter().find_map(|(column, value)| match value {
            Column::Text(Some(text)) if column == name => Some((*text).to_owned()),
            Column::Text(_) | Column::Time(_) => None,
        })
    };
    R::UNIQUE.iter().map(part).collect()
}

/// The records of one kind, with what it takes to undo the changes since the last commit.
#[derive(Debug)]
pub(super) struct Table<R> {
    rows: BTreeMap<u64, Versioned<R>>,
    ids: HashMap<String, u64>,
    unique: HashMap<Vec<String>, u64>,
    undo: Vec<(u64, Option<Versioned<R>>)>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), ids: HashMap::new(), unique: HashMap::new(), undo: Vec::new() }
    }
}

impl<R: Record> Table<R> {
    /// Sets or clears one row, and gives what was there. Keeps the indexes in step.
    fn set(&mut self, seq: u64, new: Option<Versioned<R>>) -> Option<Versioned<R>> {
        let old = self.rows.remove(&seq);
        if let Some(old) = &old {
            if let Some(key) = old.value.key() {
                self.ids.remove(key.as_ref());
            }
            if let Some(key) = unique_key(&old.value) {
                self.unique.remove(&key);
            }
        }
        if let Some(new) = new {
            if let Some(key) = new.value.key() {
                self.ids.insert(key.into_owned(), seq);
            }
            if let Some(key) = unique_key(&new.value) {
                self.unique.insert(key, seq);
            }
            self.rows.insert(seq, new);
        }
        old
    }

    fn change(&mut self, seq: u64, new: Option<Versioned<R>>) {
        let old = self.set(seq, new);
        self.undo.push((seq, old));
    }

    fn end(&mut self, keep: bool) {
        for (seq, old) in std::mem::take(&mut self.undo).into_iter().rev() {
            if !keep {
                self.set(seq, old);
            }
        }
    }

    fn put(&mut self, record: &R, expect: Expect, now: Timestamp) -> Result<(), StoreError> {
        let id = record.key().unwrap_or_default().into_owned();
        let held = record.key().and_then(|key| self.ids.get(key.as_ref()).copied());
        let row = held.and_then(|seq| self.rows.get(&seq).map(|row| (seq, row.version, row.created)));
        let (seq, version, created) = match (row, expect) {
            (Some(_), Expect::New) => return Err(StoreError::Duplicate { what: R::WHAT, id }),
            (Some((_, held, _)), Expect::Version(loaded)) if held != loaded => {
                return Err(StoreError::Conflict { what: R::WHAT, id });
            }
            (None, Expect::Version(_)) => return Err(StoreError::Conflict { what: R::WHAT, id }),
            (Some((seq, version, created)), Expect::Version(_) | Expect::Any) => (seq, version + 1, created),
            (None, Expect::New | Expect::Any) => {
                (self.rows.last_key_value().map_or(1, |(seq, _)| seq + 1), 1, super::rounded(now))
            }
        };
        if let Some(key) = unique_key(record)
            && self.unique.get(&key).is_some_and(|other| *other != seq)
        {
            return Err(StoreError::Duplicate { what: R::WHAT, id });
        }
        self.change(seq, Some(Versioned { value: record.clone(), version, created, updated: super::rounded(now) }));
        Ok(())
    }
}

/// A kind of record that has its table here.
pub(super) trait Kept: Sized {
    fn table(tables: &mut Tables) -> &mut Table<Self>;
}

macro_rules! tables {
    ($($field:ident: $kind:ty),* $(,)?) => {
        /// One table per kind of record.
        #[derive(Debug, Default)]
        pub(super) struct Tables { $($field: Table<$kind>),* }

        impl Tables {
            /// Ends a commit: its changes stay, or are undone.
            fn end(&mut self, keep: bool) {
                $(self.$field.end(keep);)*
            }
        }

        $(impl Kept for $kind {
            fn table(tables: &mut Tables) -> &mut Table<Self> {
                &mut tables.$field
            }
        })*
    };
}

tables! {
    negotiations: Negotiation,
    transfers: Transfer,
    details: TransferDetail,
    agreements: AgreementRecord,
    uses: UseRecord,
    outbox: OutboxEntry,
    wakes: WakeRecord,
    flows: FlowReport,
    datasets: DatasetRecord,
    policies: PolicyRecord,
    offers: OfferRecord,
    publications: Publication,
    audit: AuditRecord,
    facts: FactRecord,
    duties: DutyRecord,
    received: ReceivedRecord,
    quantities: QuantityTaken,
    quantity_totals: QuantityTotal,
    use_totals: UseTotal,
}

impl Work for Tables {
    fn put<R: Record>(&mut self, record: &R, expect: Expect, now: Timestamp) -> Result<(), StoreError> {
        R::table(self).put(record, expect, now)
    }

    fn get<R: Record>(&mut self, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
        let table = R::table(self);
        Ok(table.ids.get(id).and_then(|seq| table.rows.get(seq)).cloned())
    }

    fn remove<R: Record>(&mut self, id: &str) -> Result<bool, StoreError> {
        let table = R::table(self);
        let Some(seq) = table.ids.get(id).copied() else { return Ok(false) };
        table.change(seq, None);
        Ok(true)
    }

    fn keys<R: Record>(&mut self, filter: &Filter) -> Result<Vec<String>, StoreError> {
        let rows = R::table(self).rows.values().filter(|row| fits(&row.value, filter));
        Ok(rows.filter_map(|row| row.value.key().map(|key| key.into_owned())).collect())
    }
}
