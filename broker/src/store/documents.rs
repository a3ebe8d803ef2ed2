//! The documents: every description as it was received, its lease and state, and the text index, in SQLite.
//!
//! This is the source of truth. WAL with full sync: what was acknowledged survives a power cut.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kontor_vocab::iri;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{
    DatasetRow, Document, DocumentState, FolderState, Found, FoundKind, NewDocument, Page, ParticipantRow, StoreError,
    Syntax, Window,
};

/// Each entry brings a database from the version of its index to the next; never edited once released.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE document (
    id           INTEGER PRIMARY KEY,
    participant  TEXT NOT NULL UNIQUE,
    version      INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('active', 'expired', 'withdrawn')),
    media_type   TEXT NOT NULL,
    bytes        BLOB NOT NULL,
    digest       TEXT NOT NULL,
    triples      INTEGER NOT NULL,
    lease_ms     INTEGER NOT NULL,
    lease_until  INTEGER NOT NULL,
    registered   INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    title        TEXT,
    endpoint     TEXT NOT NULL
) STRICT;
CREATE INDEX document_lease ON document (lease_until) WHERE state = 'active';

-- What a description offers, for lists; written with it and only with it.
CREATE TABLE dataset (
    id           INTEGER PRIMARY KEY,
    document     INTEGER NOT NULL REFERENCES document (id),
    dataset      TEXT NOT NULL,
    title        TEXT NOT NULL,
    description  TEXT,
    keywords     TEXT NOT NULL,
    formats      TEXT NOT NULL,
    offers       TEXT NOT NULL,
    UNIQUE (document, dataset)
) STRICT;

-- Which participant a node of a description belongs to. Kept after a withdrawal, so that nobody else can take it.
CREATE TABLE claim (
    iri       TEXT PRIMARY KEY,
    document  INTEGER NOT NULL REFERENCES document (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_document ON claim (document);

-- rowid: 2 * dataset.id for a dataset, 2 * document.id + 1 for a participant.
CREATE VIRTUAL TABLE entry USING fts5(title, description, keywords, names, tokenize = 'unicode61 remove_diacritics 2');
",
    "
-- Every IRI that a description says something about: some may become another participant's later.
CREATE TABLE subject (
    iri       TEXT NOT NULL,
    document  INTEGER NOT NULL REFERENCES document (id),
    PRIMARY KEY (iri, document)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_document ON subject (document);
",
];

/// Where vocabularies have their terms: everybody speaks of these, and they are no participant's.
const VOCABULARIES: &[&str] = &[
    iri::DCAT,
    iri::DSPACE,
    iri::EDC,
    iri::FOAF,
    iri::ODRL,
    iri::RDF,
    iri::RDFS,
    iri::SPDX,
    iri::XSD,
    "http://purl.org/dc/", // terms, elements and types
    "http://www.w3.org/2002/07/owl#",
    "http://www.w3.org/2004/02/skos/core#",
    "http://www.w3.org/2006/vcard/ns#",
    "http://www.w3.org/ns/adms#",
    "http://www.w3.org/ns/locn#",
    "http://www.w3.org/ns/prov#",
    "http://schema.org/",
    "https://schema.org/",
    "https://w3id.org/dspace/",
    "https://w3id.org/edc/",
    "https://w3id.org/idsa/", // core, code and the versions
];

/// Bytes of the entries of a page, past which it ends.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Read connections that are kept open between requests.
const READERS_KEPT: usize = 4;

pub(super) struct Documents {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    /// Held for as long as the store is open, so that a second broker is refused.
    _lock: File,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // SQLite rolls an unfinished transaction back by itself when it is dropped, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a folder before it is opened.
pub(super) fn probe(data_dir: &Path) -> Result<FolderState, StoreError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Folder { path, source }
    };
    let there = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    // Where nothing of a relative path is there, it is made in the working folder.
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    // A file is what tells; permission bits are not all that decides.
    let trial = there.join(format!(".kontor-broker-check-{}", std::process::id()));
    File::create_new(&trial).and_then(|_| std::fs::remove_file(&trial)).map_err(refused(there))?;
    if there != data_dir {
        return Ok(FolderState::New);
    }
    for name in ["lock", "broker.sqlite"] {
        let path = data_dir.join(name);
        match File::options().write(true).open(&path) {
            Ok(file) if name == "lock" && file.try_lock().is_err() => return Ok(FolderState::InUse),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&path)(error)),
        }
    }
    Ok(FolderState::Free)
}

impl Documents {
    /// Opens or makes the database in the folder.
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(data_dir).map_err(|source| StoreError::Folder { path: data_dir.into(), source })?;
        let lock_path = data_dir.join("lock");
        let lock = File::create(&lock_path).map_err(|source| StoreError::Folder { path: lock_path.clone(), source })?;
        if lock.try_lock().is_err() {
            return Err(StoreError::InUse { path: data_dir.into() });
        }
        let path = data_dir.join("broker.sqlite");
        let mut writer = connect(&path)?;
        migrate(&mut writer)?;
        Ok(Self { path, writer: Mutex::new(writer), readers: Mutex::new(Vec::new()), _lock: lock })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let kept = locked(&self.readers).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let answer = work(&connection);
        let mut readers = locked(&self.readers);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        answer
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut writer = locked(&self.writer);
        let transaction = writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let answer = work(&transaction)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Registers or replaces a description with its index entries, in one transaction. Returns it, and whose descriptions
    /// say something about what has become this participant's.
    pub(super) fn put(&self, new: &NewDocument<'_>, now_ms: i64) -> Result<(Document, Vec<Document>), StoreError> {
        self.write(|transaction| {
            let mut registered = Registered::read(transaction)?;
            registered.add(new.participant.to_owned());
            let names = Names { me: new.participant, registered: &registered };
            refuse_foreign(transaction, &names, new)?;
            let id: i64 = transaction.query_row(
                "INSERT INTO document (participant, version, state, media_type, bytes, digest, triples, lease_ms, lease_until,
                                       registered, updated, title, endpoint)
                 VALUES (?1, 1, 'active', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10)
                 ON CONFLICT (participant) DO UPDATE SET
                    version = version + 1, state = 'active', media_type = ?2, bytes = ?3, digest = ?4, triples = ?5,
                    lease_ms = ?6, lease_until = ?7, updated = ?8, title = ?9, endpoint = ?10
                 RETURNING id",
                params![
                    new.participant,
                    new.syntax.media_type(),
                    new.bytes,
                    new.digest,
                    i64::try_from(new.triples).unwrap_or(i64::MAX),
                    new.lease_ms,
                    now_ms.saturating_add(new.lease_ms),
                    now_ms,
                    new.summary.title,
                    new.summary.endpoint,
                ],
                |row| row.get(0),
            )?;
            clear_index(transaction, id)?;
            let others = take_over(transaction, &names, id, new)?;
            write_index(transaction, id, new)?;
            Ok((document(transaction, new.participant)?.ok_or(StoreError::Vanished)?, others))
        })
    }

    /// Those of a description's subjects that are another participant's by now. Remembers the subjects of a description
    /// that was stored before subjects were.
    pub(super) fn foreign(
        &self,
        registered: &Registered,
        participant: &str,
        subjects: &BTreeSet<&str>,
    ) -> Result<HashSet<String>, StoreError> {
        let (foreign, known) = self.read(|connection| {
            let names = Names { me: participant, registered };
            let mut foreign = HashSet::new();
            for iri in subjects {
                if owner(connection, &names, iri)?.is_some() {
                    foreign.insert((*iri).to_owned());
                }
            }
            let known: bool = connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM subject JOIN document ON document.id = subject.document WHERE participant = ?1)",
                [participant],
                |row| row.get(0),
            )?;
            Ok((foreign, known))
        })?;
        if !known {
            self.write(|transaction| {
                let id =
                    transaction
                        .query_row("SELECT id FROM document WHERE participant = ?1", [participant], |row| row.get(0))?;
                write_subjects(transaction, id, subjects)
            })?;
        }
        Ok(foreign)
    }

    /// Who has ever registered: read once where many descriptions are looked at.
    pub(super) fn registered(&self) -> Result<Registered, StoreError> {
        self.read(Registered::read)
    }

    /// Renews a lease; an expired description becomes active again.
    pub(super) fn renew(&self, participant: &str, lease_ms: Option<i64>, now_ms: i64) -> Result<Document, StoreError> {
        self.write(|transaction| {
            let known = document(transaction, participant)?.ok_or(StoreError::Unknown)?;
            if known.state == DocumentState::Withdrawn {
                return Err(StoreError::Withdrawn);
            }
            let lease_ms = lease_ms.unwrap_or(known.lease_ms);
            transaction.execute(
                "UPDATE document SET state = 'active', lease_ms = ?2, lease_until = ?3 WHERE participant = ?1",
                params![participant, lease_ms, now_ms.saturating_add(lease_ms)],
            )?;
            document(transaction, participant)?.ok_or(StoreError::Vanished)
        })
    }

    /// Withdraws: the content goes, the identity and what it claimed stay taken.
    pub(super) fn withdraw(&self, participant: &str, now_ms: i64) -> Result<Document, StoreError> {
        self.write(|transaction| {
            let id: i64 = transaction
                .query_row("SELECT id FROM document WHERE participant = ?1", [participant], |row| row.get(0))
                .optional()?
                .ok_or(StoreError::Unknown)?;
            clear_entries(transaction, id)?;
            transaction.execute("DELETE FROM subject WHERE document = ?1", [id])?;
            transaction.execute(
                "UPDATE document SET state = 'withdrawn', bytes = x'', triples = 0, lease_until = min(lease_until, ?2),
                        updated = ?2
                 WHERE id = ?1 AND state <> 'withdrawn'",
                params![id, now_ms],
            )?;
            document(transaction, participant)?.ok_or(StoreError::Vanished)
        })
    }

    /// Marks what is past its lease; returns whose, and when the next lease ends.
    pub(super) fn expire(&self, now_ms: i64) -> Result<(Vec<String>, Option<i64>), StoreError> {
        self.write(|transaction| {
            let mut due = transaction.prepare_cached(
                "UPDATE document SET state = 'expired' WHERE state = 'active' AND lease_until <= ?1 RETURNING participant",
            )?;
            let expired = due.query_map([now_ms], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            let next = transaction.query_row(
                "SELECT min(lease_until) FROM document WHERE state = 'active'",
                [],
                |row| row.get(0),
            )?;
            Ok((expired, next))
        })
    }

    /// One participant's document, whatever its state.
    pub(super) fn document(&self, participant: &str) -> Result<Option<Document>, StoreError> {
        self.read(|connection| document(connection, participant))
    }

    /// Every active document, for the view.
    pub(super) fn active(&self, now_ms: i64) -> Result<Vec<Document>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM document WHERE state = 'active' AND lease_until > ?1 ORDER BY participant",
            )?;
            let rows = statement.query_map([now_ms], read_document)?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        })
    }

    /// Active participants by URI.
    pub(super) fn participants(&self, window: Window, now_ms: i64) -> Result<Page<ParticipantRow>, StoreError> {
        self.read(|connection| {
            let total = connection.query_row(
                "SELECT count(*) FROM document WHERE state = 'active' AND lease_until > ?1",
                [now_ms],
                |row| row.get(0),
            )?;
            let mut statement = connection.prepare_cached(
                "SELECT participant, title, endpoint, version, digest, lease_until, updated,
                        (SELECT count(*) FROM dataset WHERE dataset.document = document.id)
                 FROM document WHERE state = 'active' AND lease_until > ?1
                 ORDER BY participant LIMIT ?2 OFFSET ?3",
            )?;
            let items = statement.query_map(params![now_ms, window.limit, window.offset], |row| {
                Ok(ParticipantRow {
                    participant: row.get(0)?,
                    title: row.get(1)?,
                    endpoint: row.get(2)?,
                    version: row.get(3)?,
                    digest: row.get(4)?,
                    lease_until_ms: row.get(5)?,
                    updated_ms: row.get(6)?,
                    datasets: row.get(7)?,
                })
            })?;
            let bytes = |row: &ParticipantRow| row.participant.len() + length(&row.title) + row.endpoint.len();
            Ok(Page { total, items: whole(items, bytes)? })
        })
    }

    /// Active datasets, of one participant or of all.
    pub(super) fn datasets(
        &self,
        participant: Option<&str>,
        window: Window,
        now_ms: i64,
    ) -> Result<Page<DatasetRow>, StoreError> {
        self.read(|connection| {
            let total = connection.query_row(
                "SELECT count(*) FROM dataset JOIN document ON document.id = dataset.document
                 WHERE state = 'active' AND lease_until > ?1 AND (?2 IS NULL OR participant = ?2)",
                params![now_ms, participant],
                |row| row.get(0),
            )?;
            let mut statement = connection.prepare_cached(
                "SELECT dataset.dataset, dataset.title, description, keywords, formats, offers, participant, endpoint
                 FROM dataset JOIN document ON document.id = dataset.document
                 WHERE state = 'active' AND lease_until > ?1 AND (?2 IS NULL OR participant = ?2)
                 ORDER BY participant, dataset.dataset LIMIT ?3 OFFSET ?4",
            )?;
            let items = statement.query_map(params![now_ms, participant, window.limit, window.offset], |row| {
                Ok(DatasetRow {
                    dataset: row.get(0)?,
                    title: row.get(1)?,
                    description: row.get(2)?,
                    keywords: list(row, 3)?,
                    formats: list(row, 4)?,
                    offers: list(row, 5)?,
                    participant: row.get(6)?,
                    endpoint: row.get(7)?,
                })
            })?;
            let bytes = |row: &DatasetRow| {
                let lists: usize =
                    [&row.keywords, &row.formats, &row.offers].into_iter().flatten().map(String::len).sum();
                let texts = row.dataset.len() + row.title.len() + length(&row.description);
                lists + texts + row.participant.len() + row.endpoint.len()
            };
            Ok(Page { total, items: whole(items, bytes)? })
        })
    }

    /// Active entries that match an FTS5 expression, best first. The expression is built by [`crate::search`].
    pub(super) fn search(&self, expression: &str, window: Window, now_ms: i64) -> Result<Page<Found>, StoreError> {
        const MATCHES: &str = "FROM entry
            LEFT JOIN dataset ON entry.rowid % 2 = 0 AND dataset.id = entry.rowid / 2
            JOIN document ON document.id = CASE WHEN entry.rowid % 2 = 0 THEN dataset.document ELSE entry.rowid / 2 END
            WHERE entry MATCH ?1 AND state = 'active' AND lease_until > ?2";
        self.read(|connection| {
            let total =
                connection
                    .query_row(&format!("SELECT count(*) {MATCHES}"), params![expression, now_ms], |row| row.get(0))?;
            let mut statement = connection.prepare_cached(&format!(
                "SELECT dataset.dataset, entry.title, entry.description, participant, endpoint {MATCHES}
                 ORDER BY bm25(entry, 8.0, 2.0, 4.0, 1.0), entry.rowid LIMIT ?3 OFFSET ?4"
            ))?;
            let items = statement.query_map(params![expression, now_ms, window.limit, window.offset], |row| {
                let dataset: Option<String> = row.get(0)?;
                Ok(Found {
                    kind: if dataset.is_some() { FoundKind::Dataset } else { FoundKind::Participant },
                    dataset,
                    title: row.get(1)?,
                    description: row.get(2)?,
                    participant: row.get(3)?,
                    endpoint: row.get(4)?,
                })
            })?;
            let bytes = |found: &Found| {
                let texts = length(&found.dataset) + length(&found.title) + length(&found.description);
                texts + found.participant.len() + found.endpoint.len()
            };
            Ok(Page { total, items: whole(items, bytes)? })
        })
    }
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// The entries up to the limit of a page, and at least one: the next page begins where this one ends.
fn whole<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
    bytes: impl Fn(&T) -> usize,
) -> Result<Vec<T>, StoreError> {
    let (mut items, mut sum) = (Vec::new(), 0_usize);
    for row in rows {
        let row = row?;
        sum = sum.saturating_add(bytes(&row));
        if sum > PAGE_BYTES_MAX && !items.is_empty() {
            break;
        }
        items.push(row);
    }
    Ok(items)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = version as usize;
    if version > MIGRATIONS.len() {
        return Err(StoreError::Newer { found: version, known: MIGRATIONS.len() });
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", u32::try_from(index + 1).unwrap_or(u32::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Who has ever registered.
#[derive(Debug, Default)]
pub(super) struct Registered {
    all: HashSet<String>,
    longest: usize,
}

impl Registered {
    fn read(connection: &Connection) -> Result<Self, StoreError> {
        let mut statement = connection.prepare_cached("SELECT participant FROM document")?;
        let mut registered = Self::default();
        for name in statement.query_map([], |row| row.get(0))? {
            registered.add(name?);
        }
        Ok(registered)
    }

    fn add(&mut self, name: String) {
        self.longest = self.longest.max(name.len());
        self.all.insert(name);
    }
}

/// Whose an IRI is by its name, for one of those who registered. What extends a participant's URI is that participant's,
/// however early somebody else spoke of it; of two participants whose URIs both fit, the longer one's.
struct Names<'a> {
    me: &'a str,
    registered: &'a Registered,
}

impl Names<'_> {
    /// The participant whose URI an IRI is, or extends.
    fn of<'b>(&self, iri: &'b str) -> Option<&'b str> {
        let ends = iri.bytes().enumerate().take(self.registered.longest + 1).filter(|(_, byte)| b"#/?:".contains(byte));
        // Up to the sign, or with it: `https://one.example` and `https://one.example/` are different participants.
        let mut prefixes = ends.flat_map(|(at, _)| [iri.get(..at), iri.get(..=at)]).chain([Some(iri)]).flatten();
        prefixes.rfind(|prefix| self.registered.all.contains(*prefix))
    }

    fn is_mine(&self, iri: &str) -> bool {
        self.of(iri) == Some(self.me)
    }
}

fn is_vocabulary(iri: &str) -> bool {
    VOCABULARIES.iter().any(|namespace| iri.starts_with(namespace) || iri == namespace.trim_end_matches(['#', '/']))
}

/// The other participant that an IRI belongs to: by its name, else by the first claim.
fn owner(connection: &Connection, names: &Names<'_>, iri: &str) -> Result<Option<String>, StoreError> {
    match names.of(iri) {
        Some(owner) if owner == names.me => Ok(None),
        Some(owner) => Ok(Some(owner.to_owned())),
        None if is_vocabulary(iri) => Ok(None),
        None => {
            let mut statement = connection.prepare_cached(
                "SELECT participant FROM claim JOIN document ON document.id = claim.document
                 WHERE claim.iri = ?1 AND participant <> ?2",
            )?;
            Ok(statement.query_row([iri, names.me], |row| row.get(0)).optional()?)
        }
    }
}

/// Another participant whose description says something about an IRI that this one did not claim before.
fn first_to_speak(connection: &Connection, names: &Names<'_>, iri: &str) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT participant FROM subject JOIN document ON document.id = subject.document
         WHERE subject.iri = ?1 AND participant <> ?2 AND NOT EXISTS (
            SELECT 1 FROM claim JOIN document AS mine ON mine.id = claim.document
            WHERE claim.iri = ?1 AND mine.participant = ?2)
         LIMIT 1",
    )?;
    Ok(statement.query_row([iri, names.me], |row| row.get(0)).optional()?)
}

/// No word about a node that is another participant's, and no claim of one that others speak of.
fn refuse_foreign(transaction: &Transaction<'_>, names: &Names<'_>, new: &NewDocument<'_>) -> Result<(), StoreError> {
    for iri in new.subjects.iter().copied().chain(new.summary.claims.iter().map(String::as_str)) {
        if let Some(owner) = owner(transaction, names, iri)? {
            return Err(StoreError::Claimed { iri: iri.to_owned(), owner });
        }
    }
    for iri in new.summary.claims.iter().filter(|iri| !names.is_mine(iri)) {
        if is_vocabulary(iri) {
            return Err(StoreError::Vocabulary { iri: iri.clone() });
        }
        // A claim hides what others say about the node: it may not be laid on what is a part of their descriptions.
        if let Some(owner) = first_to_speak(transaction, names, iri)? {
            return Err(StoreError::Claimed { iri: iri.clone(), owner });
        }
    }
    Ok(())
}

/// Takes what extends the participant's URI out of other participants' claims and lists. Returns whose active
/// descriptions say something about that, or about what this description claims.
fn take_over(
    transaction: &Transaction<'_>,
    names: &Names<'_>,
    id: i64,
    new: &NewDocument<'_>,
) -> Result<Vec<Document>, StoreError> {
    let extending = |table: &str, column: &str| -> Result<Vec<(String, i64)>, StoreError> {
        // The highest character ends the range of what begins with the URI.
        let mut statement = transaction.prepare_cached(&format!(
            "SELECT {column}, document FROM {table}
             WHERE {column} >= ?1 AND {column} < ?1 || char(1114111) AND document <> ?2"
        ))?;
        let found = statement.query_map(params![new.participant, id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found = found.collect::<Result<Vec<(String, i64)>, _>>()?;
        Ok(found.into_iter().filter(|(iri, _)| names.is_mine(iri)).collect())
    };
    for (iri, document) in extending("claim", "iri")? {
        transaction.execute("DELETE FROM claim WHERE iri = ?1 AND document = ?2", params![iri, document])?;
    }
    for (iri, document) in extending("dataset", "dataset")? {
        transaction.execute(
            "DELETE FROM entry WHERE rowid IN (SELECT 2 * id FROM dataset WHERE dataset = ?1 AND document = ?2)",
            params![iri, document],
        )?;
        transaction.execute("DELETE FROM dataset WHERE dataset = ?1 AND document = ?2", params![iri, document])?;
    }
    let mut speaking: BTreeSet<i64> = extending("subject", "iri")?.into_iter().map(|(_, document)| document).collect();
    let mut about = transaction.prepare_cached("SELECT document FROM subject WHERE iri = ?1 AND document <> ?2")?;
    for iri in &new.summary.claims {
        for document in about.query_map(params![iri, id], |row| row.get(0))? {
            speaking.insert(document?);
        }
    }
    let mut active = transaction.prepare_cached("SELECT * FROM document WHERE id = ?1 AND state = 'active'")?;
    let mut others = Vec::new();
    for document in speaking {
        others.extend(active.query_row([document], read_document).optional()?);
    }
    Ok(others)
}

fn write_subjects(transaction: &Transaction<'_>, id: i64, subjects: &BTreeSet<&str>) -> Result<(), StoreError> {
    let mut subject = transaction.prepare_cached("INSERT OR IGNORE INTO subject (iri, document) VALUES (?1, ?2)")?;
    for iri in subjects {
        subject.execute(params![iri, id])?;
    }
    Ok(())
}

fn clear_entries(transaction: &Transaction<'_>, id: i64) -> Result<(), StoreError> {
    transaction.execute("DELETE FROM entry WHERE rowid = 2 * ?1 + 1", [id])?;
    transaction.execute("DELETE FROM entry WHERE rowid IN (SELECT 2 * id FROM dataset WHERE document = ?1)", [id])?;
    transaction.execute("DELETE FROM dataset WHERE document = ?1", [id])?;
    Ok(())
}

fn clear_index(transaction: &Transaction<'_>, id: i64) -> Result<(), StoreError> {
    clear_entries(transaction, id)?;
    transaction.execute("DELETE FROM claim WHERE document = ?1", [id])?;
    transaction.execute("DELETE FROM subject WHERE document = ?1", [id])?;
    Ok(())
}

fn write_index(transaction: &Transaction<'_>, id: i64, new: &NewDocument<'_>) -> Result<(), StoreError> {
    let mut entry = transaction
        .prepare_cached("INSERT INTO entry (rowid, title, description, keywords, names) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    entry.execute(params![2 * id + 1, new.summary.title, new.summary.description, "", new.participant])?;
    let mut claim = transaction.prepare_cached("INSERT INTO claim (iri, document) VALUES (?1, ?2)")?;
    for iri in &new.summary.claims {
        claim.execute(params![iri, id])?;
    }
    write_subjects(transaction, id, new.subjects)?;
    let mut dataset = transaction.prepare_cached(
        "INSERT INTO dataset (document, dataset, title, description, keywords, formats, offers)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
    )?;
    for item in &new.summary.datasets {
        let row: i64 = dataset.query_row(
            params![
                id,
                item.dataset,
                item.title,
                item.description,
                json(&item.keywords),
                json(&item.formats),
                json(&item.offers)
            ],
            |row| row.get(0),
        )?;
        let names = format!("{} {}", item.dataset, new.participant);
        entry.execute(params![2 * row, item.title, item.description, item.keywords.join(" "), names])?;
    }
    Ok(())
}

fn json(items: &[String]) -> String {
    serde_json::Value::from(items).to_string()
}

fn list(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn document(connection: &Connection, participant: &str) -> Result<Option<Document>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM document WHERE participant = ?1")?;
    Ok(statement.query_row([participant], read_document).optional()?)
}

fn read_document(row: &Row<'_>) -> rusqlite::Result<Document> {
    let unreadable = |name: &str, text: String| {
        let message = format!("`{text}` is no {name} that this version knows");
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, message.into())
    };
    let state: String = row.get("state")?;
    let media_type: String = row.get("media_type")?;
    Ok(Document {
        participant: row.get("participant")?,
        version: row.get("version")?,
        state: match state.as_str() {
            "active" => DocumentState::Active,
            "expired" => DocumentState::Expired,
            "withdrawn" => DocumentState::Withdrawn,
            _ => return Err(unreadable("state", state)),
        },
        syntax: Syntax::from_media_type(&media_type).ok_or_else(|| unreadable("media type", media_type))?,
        bytes: row.get("bytes")?,
        digest: row.get("digest")?,
        triples: row.get("triples")?,
        lease_ms: row.get("lease_ms")?,
        lease_until_ms: row.get("lease_until")?,
        updated_ms: row.get("updated")?,
    })
}
