//! What the broker keeps: documents in SQLite, which are the truth, and the graph, which is a view of them.
//!
//! Only this file and its folder touch oxigraph ([`rdf`] parses, the graph evaluates). Everything here blocks; callers
//! keep it off the asynchronous threads.

mod budget;
mod documents;
mod graph;
pub mod rdf;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use documents::Documents;
pub use graph::{Answer, Cancel, GraphError, GraphFormat, QueryError, QueryTask, ResultFormat};
use graph::{Content, Graph};
pub use rdf::Syntax;
use rdf::Triple;

/// Whether a description can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentState {
    /// Its lease runs: every read path shows it.
    Active,
    /// Its lease ended: no read path shows it, a renewal brings it back.
    Expired,
    /// Its owner took it back: the content is gone, a new registration brings the participant back.
    Withdrawn,
}

impl DocumentState {
    /// The state as it is spelled in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A description as it was received, with what the broker knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Whose.
    pub participant: String,
    /// How often it was registered, from 1.
    pub version: i64,
    /// Whether it can be found.
    pub state: DocumentState,
    /// How it is written.
    pub syntax: Syntax,
    /// The bytes as received; none once withdrawn.
    pub bytes: Vec<u8>,
    /// `sha256:` and the hex digest of the bytes.
    pub digest: String,
    /// Triples that the bytes say.
    pub triples: i64,
    /// Length of the lease, in milliseconds.
    pub lease_ms: i64,
    /// When the lease ends, in milliseconds since 1970.
    pub lease_until_ms: i64,
    /// When it was last registered or withdrawn, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// What lists and search show of a description, taken from its triples by [`crate::validate`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Title of the connector.
    pub title: Option<String>,
    /// Description of the connector.
    pub description: Option<String>,
    /// Where its protocol is spoken.
    pub endpoint: String,
    /// What it offers.
    pub datasets: Vec<DatasetSummary>,
    /// IRIs of the nodes that make up the description: nobody else may describe them.
    pub claims: BTreeSet<String>,
}

/// What lists and search show of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSummary {
    /// Its IRI.
    pub dataset: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: Option<String>,
    /// Its keywords.
    pub keywords: Vec<String>,
    /// Transfer formats of its distributions.
    pub formats: Vec<String>,
    /// IRIs of its offers.
    pub offers: Vec<String>,
}

/// A description that passed every check and is about to be kept.
#[derive(Debug, Clone)]
pub struct NewDocument<'a> {
    /// Whose.
    pub participant: &'a str,
    /// How it is written.
    pub syntax: Syntax,
    /// The bytes as received.
    pub bytes: &'a [u8],
    /// `sha256:` and the hex digest of the bytes.
    pub digest: &'a str,
    /// Triples that the bytes say.
    pub triples: usize,
    /// Length of the lease, in milliseconds.
    pub lease_ms: i64,
    /// For lists and search.
    pub summary: &'a Summary,
    /// Every IRI that the description says something about.
    pub subjects: &'a BTreeSet<&'a str>,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Most items.
    pub limit: i64,
    /// Items to skip.
    pub offset: i64,
}

/// Part of a list, with the length of the whole. It may be shorter than what was asked for: a page ends where its entries
/// have more than 4 MiB, though not before its first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Items in the whole list.
    pub total: i64,
    /// This part.
    pub items: Vec<T>,
}

/// A participant in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantRow {
    /// Its URI, which is also the name of its graph.
    pub participant: String,
    /// Title of its connector.
    pub title: Option<String>,
    /// Where its protocol is spoken.
    pub endpoint: String,
    /// How often its description was registered.
    pub version: i64,
    /// Digest of its description.
    pub digest: String,
    /// When its lease ends.
    pub lease_until_ms: i64,
    /// When its description was last registered.
    pub updated_ms: i64,
    /// Datasets that it offers.
    pub datasets: i64,
}

/// A dataset in a list; names the participant that offers it and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetRow {
    /// Its IRI.
    pub dataset: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: Option<String>,
    /// Its keywords.
    pub keywords: Vec<String>,
    /// Its transfer formats.
    pub formats: Vec<String>,
    /// IRIs of its offers.
    pub offers: Vec<String>,
    /// Who offers it.
    pub participant: String,
    /// Where its protocol is spoken.
    pub endpoint: String,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundKind {
    /// A dataset.
    Dataset,
    /// A participant.
    Participant,
}

/// An entry that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Dataset or participant.
    pub kind: FoundKind,
    /// IRI of the dataset, for a dataset.
    pub dataset: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Who offers it.
    pub participant: String,
    /// Where its protocol is spoken.
    pub endpoint: String,
}

/// What the store cannot do, by whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("`{path}` cannot be used")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Another broker has the folder.
    #[error("`{path}` is in use by another kontor-broker; stop it or set another `data_dir`")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Written by a later version of the program.
    #[error("the store has layout {found} and this program knows up to {known}; use the program that wrote it")]
    Newer {
        /// Layout found.
        found: usize,
        /// Layout known.
        known: usize,
    },
    /// No description of that participant was ever registered.
    #[error("no description is registered")]
    Unknown,
    /// The description was withdrawn.
    #[error("the description was withdrawn")]
    Withdrawn,
    /// A node belongs to another participant's description.
    #[error("`{iri}` belongs to the description of `{owner}`")]
    Claimed {
        /// The node.
        iri: String,
        /// Its owner.
        owner: String,
    },
    /// A term of a vocabulary, in the place of a node of the description.
    #[error("`{iri}` is a term of a vocabulary and belongs to nobody")]
    Vocabulary {
        /// The term.
        iri: String,
    },
    /// SQLite says so.
    #[error("the document store failed: {0}")]
    Documents(#[from] rusqlite::Error),
    /// Something that was written in the same transaction is not there.
    #[error("the document store lost a row")]
    Vanished,
    /// The view could not follow the documents; the next start rebuilds it.
    #[error("the graph could not follow the documents: {0}")]
    View(#[from] GraphError),
    /// A stored description does not parse any more.
    #[error("the stored description of `{participant}` cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        participant: String,
        /// Why.
        reason: String,
    },
}

/// Where the view is kept. It is rebuilt from the documents at every start, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// In memory.
    Memory,
    /// In the folder `view` of the store, by RocksDB.
    #[cfg(feature = "rocksdb")]
    Disk,
}

/// What [`Store::probe`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderState {
    /// It is not there and can be made.
    New,
    /// It is there, can be written, and nobody has it.
    Free,
    /// A running broker has it.
    InUse,
}

/// Documents and graph together: every change goes to SQLite first and to the view second, and returns after both.
pub struct Store {
    documents: Documents,
    graph: Graph,
    /// Held over both steps of a change, so that the view sees changes in the order of the documents.
    order: Mutex<()>,
}

impl Store {
    /// Looks at a folder without making or opening anything in it.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when it cannot be made or written.
    pub fn probe(data_dir: &Path) -> Result<FolderState, StoreError> {
        documents::probe(data_dir)
    }

    /// Opens the folder with its view in memory.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn open(data_dir: &Path, now_ms: i64) -> Result<Self, StoreError> {
        Self::open_with(data_dir, View::Memory, now_ms)
    }

    /// Opens the folder, ends leases that ran out meanwhile and rebuilds the view from the documents. A document that
    /// cannot be shown is logged and left out of the view.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be used.
    pub fn open_with(data_dir: &Path, view: View, now_ms: i64) -> Result<Self, StoreError> {
        // First, because it locks the folder: from here on the old view is nobody's.
        let documents = Documents::open(data_dir)?;
        let folder = data_dir.join("view");
        match std::fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Folder { path: folder, source });
            }
            _ => {}
        }
        let graph = match view {
            View::Memory => Graph::new(),
            #[cfg(feature = "rocksdb")]
            View::Disk => Graph::on_disk(&folder),
        };
        let store = Self { documents, graph: graph.map_err(GraphError::from)?, order: Mutex::new(()) };
        store.documents.expire(now_ms)?;
        let registered = store.documents.registered()?;
        for document in store.documents.active(now_ms)? {
            store.show_or_hide(&registered, &document)?;
        }
        Ok(store)
    }

    /// Registers or replaces a description.
    ///
    /// # Errors
    /// [`StoreError::Claimed`], [`StoreError::Vocabulary`], and [`StoreError::View`] for a term that the view refuses, and then nothing was kept;
    /// [`StoreError::Documents`], and [`StoreError::View`] where the view failed.
    pub fn put(&self, new: &NewDocument<'_>, triples: &[Triple], now_ms: i64) -> Result<Document, StoreError> {
        // Before the document is kept: what cannot be shown must not be there at the next start.
        let content = Content::new(new.participant, triples)?;
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (document, others) = self.documents.put(new, now_ms)?;
        if !others.is_empty() {
            let registered = self.documents.registered()?;
            for other in &others {
                self.show_or_hide(&registered, other)?;
            }
        }
        self.graph.replace(content).map_err(GraphError::from)?;
        Ok(document)
    }

    /// Renews a lease, for the same length where none is named. An expired description is shown again; one that cannot be
    /// shown is logged.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Withdrawn`], [`StoreError::Documents`], [`StoreError::View`].
    pub fn renew(&self, participant: &str, lease_ms: Option<i64>, now_ms: i64) -> Result<Document, StoreError> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let was = self.documents.document(participant)?.ok_or(StoreError::Unknown)?;
        let document = self.documents.renew(participant, lease_ms, now_ms)?;
        if was.state != DocumentState::Active {
            self.show_or_hide(&self.documents.registered()?, &document)?;
        }
        Ok(document)
    }

    /// Withdraws a description; a second time changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Documents`], [`StoreError::View`].
    pub fn withdraw(&self, participant: &str, now_ms: i64) -> Result<Document, StoreError> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let document = self.documents.withdraw(participant, now_ms)?;
        self.graph.remove(participant)?;
        Ok(document)
    }

    /// Takes out what is past its lease; returns when the next lease ends, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Documents`], [`StoreError::View`].
    pub fn expire(&self, now_ms: i64) -> Result<Option<i64>, StoreError> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (expired, next) = self.documents.expire(now_ms)?;
        for participant in &expired {
            self.graph.remove(participant)?;
        }
        Ok(next)
    }

    /// One participant's document, whatever its state.
    ///
    /// # Errors
    /// [`StoreError::Documents`].
    pub fn document(&self, participant: &str) -> Result<Option<Document>, StoreError> {
        self.documents.document(participant)
    }

    /// Active participants by URI.
    ///
    /// # Errors
    /// [`StoreError::Documents`].
    pub fn participants(&self, window: Window, now_ms: i64) -> Result<Page<ParticipantRow>, StoreError> {
        self.documents.participants(window, now_ms)
    }

    /// Active datasets, of one participant or of all.
    ///
    /// # Errors
    /// [`StoreError::Documents`].
    pub fn datasets(
        &self,
        participant: Option<&str>,
        window: Window,
        now_ms: i64,
    ) -> Result<Page<DatasetRow>, StoreError> {
        self.documents.datasets(participant, window, now_ms)
    }

    /// Active entries that match an expression of [`crate::search::expression`].
    ///
    /// # Errors
    /// [`StoreError::Documents`].
    pub fn search(&self, expression: &str, window: Window, now_ms: i64) -> Result<Page<Found>, StoreError> {
        self.documents.search(expression, window, now_ms)
    }

    /// Evaluates a query on a snapshot of the view, on this thread.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn query(&self, task: &QueryTask, cancel: &Cancel) -> Result<Answer, QueryError> {
        self.graph.query(task, cancel)
    }

    /// Puts a description into the view. One that cannot be shown is logged and taken out: a document of one participant
    /// must not stop the broker, nor another participant.
    fn show_or_hide(&self, registered: &documents::Registered, document: &Document) -> Result<(), StoreError> {
        match self.show(registered, document) {
            Err(error @ (StoreError::Unreadable { .. } | StoreError::View(GraphError::Iri(_)))) => {
                let participant = &document.participant;
                tracing::error!(%participant, %error, "a description cannot be shown; it is left out until it is registered again");
                Ok(self.graph.remove(participant)?)
            }
            Err(error @ StoreError::View(GraphError::Name(_))) => {
                tracing::error!(participant = %document.participant, %error, "a description cannot be shown; it is left out");
                Ok(())
            }
            other => other,
        }
    }

    /// Puts a description into the view, without its words about what is another participant's by now.
    fn show(&self, registered: &documents::Registered, document: &Document) -> Result<(), StoreError> {
        // What is stored passed the limits of the day it came in; those of today must not lose it.
        let mut triples =
            rdf::parse(document.syntax, &document.bytes, &document.participant, rdf::ParseLimits::NONE).map_err(
                |error| StoreError::Unreadable { participant: document.participant.clone(), reason: error.to_string() },
            )?;
        let subjects = triples.iter().filter_map(|triple| triple.subject.iri()).collect();
        let foreign = self.documents.foreign(registered, &document.participant, &subjects)?;
        triples.retain(|triple| triple.subject.iri().is_none_or(|iri| !foreign.contains(iri)));
        Ok(self.graph.replace(Content::new(&document.participant, &triples)?).map_err(GraphError::from)?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn put(store: &Store, who: &str, text: &str) -> Result<Document, StoreError> {
        let triples = rdf::parse(Syntax::Turtle, text.as_bytes(), who, rdf::ParseLimits::NONE).unwrap();
        put_triples(store, who, text, &triples)
    }

    fn put_triples(store: &Store, who: &str, text: &str, triples: &[Triple]) -> Result<Document, StoreError> {
        let new = NewDocument {
            participant: who,
            syntax: Syntax::Turtle,
            bytes: text.as_bytes(),
            digest: "sha256:0",
            triples: triples.len(),
            lease_ms: 1000,
            summary: &Summary::default(),
            subjects: &triples.iter().filter_map(|triple| triple.subject.iri()).collect(),
        };
        store.put(&new, triples, 0)
    }

    #[test]
    fn what_the_view_refuses_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 0).unwrap();
        let bad = [Triple {
            subject: rdf::Term::Iri("urn:a".into()),
            predicate: "urn:b\u{e0001}".into(),
            object: rdf::Term::Iri("urn:c".into()),
        }];
        let error = put_triples(&store, "urn:one", "", &bad).unwrap_err();
        assert!(matches!(error, StoreError::View(GraphError::Iri(_))), "{error:?}");
        assert_eq!(store.document("urn:one").unwrap(), None);
    }

    #[test]
    fn a_stored_description_that_cannot_be_shown_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 0).unwrap();
        put(&store, "urn:bad", "<urn:two:a> <urn:b> 1 .").unwrap();
        put(&store, "urn:one", "<urn:one:a> <urn:b> 1 .").unwrap();
        drop(store);
        // As a version that took it would have kept it.
        let database = rusqlite::Connection::open(folder.path().join("broker.sqlite")).unwrap();
        let bytes = "@prefix p: <urn:p:> . <urn:two:a> <urn:b> p:a\u{e0001} .";
        let change = "UPDATE document SET bytes = ?1 WHERE participant = 'urn:bad'";
        assert_eq!(database.execute(change, [bytes.as_bytes()]).unwrap(), 1);
        drop(database);

        let store = Store::open(folder.path(), 0).unwrap();
        assert_eq!(store.graph.len(), 2, "the other one's triple, there and in the merge");
        // It speaks of what becomes another's now, and is looked at for that.
        put(&store, "urn:two", "<urn:two:a> <urn:b> 2 .").unwrap();
        assert_eq!(store.graph.len(), 4);
        store.expire(1000).unwrap();
        assert_eq!(store.renew("urn:bad", None, 2000).unwrap().state, DocumentState::Active);
        assert_eq!(store.graph.len(), 0);
        put(&store, "urn:bad", "<urn:bad:a> <urn:b> 1 .").unwrap();
        assert_eq!(store.graph.len(), 2);
    }
}
