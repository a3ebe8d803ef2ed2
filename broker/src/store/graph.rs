//! The graph: a view of the active descriptions in oxigraph, one named graph per participant, rebuilt at every start.
//!
//! The default graph is the merge of all named graphs and is kept as quads of its own: evaluating a union per query
//! returns a triple that two graphs hold twice, and `COUNT` would be wrong. A triple leaves the default graph with the
//! last named graph that holds it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use oxigraph::io::{JsonLdProfileSet, RdfFormat, RdfSerializer};
use oxigraph::model::{
    BlankNode, GraphName, GraphNameRef, Literal, NamedNode, NamedOrBlankNode, Term as OxTerm, Triple as OxTriple,
};
use oxigraph::sparql::results::{QueryResultsFormat, QueryResultsSerializer};
use oxigraph::sparql::{CancellationToken, QueryEvaluationError, QueryResults};
use oxigraph::store::{StorageError, Store, Transaction};
use spargebra::SparqlParser;

use super::budget::{self, Budget};
use super::rdf::{Term, Triple};

/// Dead quads that are kept before the view is copied, at least. The in-memory store never frees a removed quad.
const DEAD_QUADS_MIN: usize = 20_000;
/// Bytes of the terms of dead quads that are kept before the view is copied, at least: one quad may hold a long text.
const DEAD_BYTES_MIN: usize = 32 << 20;

/// How a `SELECT` or `ASK` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFormat {
    /// `application/sparql-results+json`.
    Json,
    /// `application/sparql-results+xml`.
    Xml,
    /// `text/csv`.
    Csv,
    /// `text/tab-separated-values`.
    Tsv,
}

impl ResultFormat {
    /// The media type of the answer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        self.oxigraph().media_type()
    }

    fn oxigraph(self) -> QueryResultsFormat {
        match self {
            Self::Json => QueryResultsFormat::Json,
            Self::Xml => QueryResultsFormat::Xml,
            Self::Csv => QueryResultsFormat::Csv,
            Self::Tsv => QueryResultsFormat::Tsv,
        }
    }
}

/// How a `CONSTRUCT` or `DESCRIBE` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphFormat {
    /// `text/turtle`.
    Turtle,
    /// `application/n-triples`.
    NTriples,
    /// `application/ld+json`.
    JsonLd,
}

impl GraphFormat {
    /// The media type of the answer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Turtle => "text/turtle; charset=utf-8",
            Self::NTriples => "application/n-triples",
            Self::JsonLd => "application/ld+json",
        }
    }

    fn oxigraph(self) -> RdfFormat {
        match self {
            Self::Turtle => RdfFormat::Turtle,
            Self::NTriples => RdfFormat::NTriples,
            Self::JsonLd => RdfFormat::JsonLd { profile: JsonLdProfileSet::empty() },
        }
    }
}

/// A query with everything that bounds it.
#[derive(Debug, Clone)]
pub struct QueryTask {
    /// SPARQL 1.1 query text.
    pub text: String,
    /// Graphs whose merge is the default graph, instead of all.
    pub default_graphs: Vec<String>,
    /// Named graphs that can be asked, instead of all.
    pub named_graphs: Vec<String>,
    /// For `SELECT` and `ASK`; `None` when the caller accepts none of ours.
    pub results: Option<ResultFormat>,
    /// For `CONSTRUCT` and `DESCRIBE`; `None` when the caller accepts none of ours.
    pub graph: Option<GraphFormat>,
    /// Most rows or triples of an answer.
    pub rows_max: usize,
    /// Most bytes of an answer.
    pub bytes_max: usize,
    /// Most bytes of text that the query may make and keep on the way.
    pub made_bytes_max: usize,
    /// Most values, rows times variables, that the query may hold on the way: to sort, group, tell apart, multiply,
    /// and for `OPTIONAL`, `MINUS` and parts in braces.
    pub held_values_max: usize,
}

/// Ends a running query: cancelled when it is dropped or told so.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Token);

#[derive(Clone, Default)]
struct Token(CancellationToken);

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Token({})", self.0.is_cancelled())
    }
}

impl Cancel {
    /// Asks the query to end.
    pub fn cancel(&self) {
        self.0.0.cancel();
    }
}

/// A whole answer: never a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the bytes are.
    pub media_type: &'static str,
    /// The answer.
    pub bytes: Vec<u8>,
    /// Rows or triples in it; 1 for `ASK`.
    pub rows: usize,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No SPARQL 1.1 query.
    #[error("{0}")]
    Syntax(String),
    /// A SPARQL update, on an endpoint that only reads.
    #[error("the text is a SPARQL update, and this endpoint only reads")]
    Update,
    /// Federation, which would let a caller send requests from here.
    #[error("`SERVICE` is not evaluated here")]
    Service,
    /// A graph name that is no IRI.
    #[error("`{0}` is not an IRI")]
    GraphName(String),
    /// The caller accepts nothing that this form of query can be answered in.
    #[error("none of the accepted media types fits {0}")]
    NotAcceptable(&'static str),
    /// More rows or triples than allowed.
    #[error("the answer has more than {0} rows")]
    TooManyRows(usize),
    /// More bytes than allowed.
    #[error("the answer has more than {0} bytes")]
    TooManyBytes(usize),
    /// One text that it makes is too long.
    #[error("the query makes a text of more than {0} bytes")]
    LongText(usize),
    /// `REPLACE` over too much.
    #[error("the query replaces in a text of more than {0} bytes, or by one of more than {1}")]
    LongReplace(usize, usize),
    /// It makes too much text.
    #[error("the query makes more than {0} bytes of text")]
    TooMuchText(usize),
    /// A path of any length, or of several, with nothing to start from.
    #[error("the path `{0}` has no end to start from")]
    OpenPath(String),
    /// It holds too many rows.
    #[error("the query holds more than {0} values on the way")]
    TooManyHeld(usize),
    /// It was told to end.
    #[error("the query was cancelled")]
    Cancelled,
    /// The view failed.
    #[error("the query failed: {0}")]
    Failed(String),
}

/// Quads, and bytes of their terms. Changed by the writer only.
#[derive(Default)]
struct Amount {
    quads: AtomicUsize,
    bytes: AtomicUsize,
}

impl Amount {
    fn read(&self) -> (usize, usize) {
        (self.quads.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn set(&self, quads: usize, bytes: usize) {
        self.quads.store(quads, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// The view.
pub(super) struct Graph {
    store: RwLock<Store>,
    /// One writer at a time, so that compaction sees a still store.
    writer: Mutex<()>,
    live: Amount,
    dead: Amount,
    /// Whether removed quads stay in the way until the view is copied. On disk RocksDB takes them out by itself.
    keeps_dead: bool,
}

impl Graph {
    /// An empty view in memory.
    pub(super) fn new() -> Result<Self, StorageError> {
        Ok(Self::over(Store::new()?, true))
    }

    /// An empty view on disk, in a folder that is not there yet.
    #[cfg(feature = "rocksdb")]
    pub(super) fn on_disk(folder: &std::path::Path) -> Result<Self, StorageError> {
        Ok(Self::over(Store::open(folder)?, false))
    }

    fn over(store: Store, keeps_dead: bool) -> Self {
        let (live, dead) = (Amount::default(), Amount::default());
        Self { store: RwLock::new(store), writer: Mutex::new(()), live, dead, keeps_dead }
    }

    fn store(&self) -> Store {
        // A poisoned lock only says that a thread panicked while it held a clone; the store is whole.
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a participant's graph in place of its old one, in one transaction: a query sees the old one or the new one.
    /// Triples that stay are not touched.
    pub(super) fn replace(&self, content: Content) -> Result<(), StorageError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store();
        let mut transaction = store.start_transaction()?;
        let changed = swap(&mut transaction, content)?;
        transaction.commit()?;
        let ((live, live_bytes), (dead, dead_bytes)) = (self.live.read(), self.dead.read());
        let live = (live + changed.added).saturating_sub(changed.removed);
        let live_bytes = (live_bytes + changed.added_bytes).saturating_sub(changed.removed_bytes);
        let (dead, dead_bytes) = (dead + changed.removed, dead_bytes + changed.removed_bytes);
        self.live.set(live, live_bytes);
        self.dead.set(dead, dead_bytes);
        let mostly_dead = dead > live.max(DEAD_QUADS_MIN) || dead_bytes > live_bytes.max(DEAD_BYTES_MIN);
        if self.keeps_dead && mostly_dead {
            self.compact(&store)?;
        }
        Ok(())
    }

    /// Takes a participant's graph out, in one transaction.
    pub(super) fn remove(&self, participant: &str) -> Result<(), GraphError> {
        Ok(self.replace(Content::new(participant, &[])?)?)
    }

    /// Copies the live quads to a new store and swaps; queries that run keep the old one until they end.
    fn compact(&self, store: &Store) -> Result<(), StorageError> {
        let fresh = Store::new()?;
        let mut transaction = fresh.start_transaction()?;
        for quad in store.iter() {
            transaction.insert(quad?.as_ref());
        }
        for name in store.named_graphs() {
            transaction.insert_named_graph(name?.as_ref());
        }
        transaction.commit()?;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.dead.set(0, 0);
        Ok(())
    }

    /// Quads in the view, the default graph's included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.store().len().unwrap_or_default()
    }

    /// Evaluates a query on one snapshot. Blocks; see [`crate::query`] for the thread that this belongs on.
    pub(super) fn query(&self, task: &QueryTask, cancel: &Cancel) -> Result<Answer, QueryError> {
        let query = SparqlParser::new().parse_query(&task.text).map_err(|error| {
            match SparqlParser::new().parse_update(&task.text) {
                Ok(_) => QueryError::Update,
                Err(_) => QueryError::Syntax(error.to_string()),
            }
        })?;
        let budget = Budget::new(task.made_bytes_max, task.held_values_max, cancel.0.0.clone());
        // No service handler is set and oxigraph has no HTTP client compiled in: `SERVICE` cannot reach anything.
        let mut prepared = budget.evaluator(&query).for_query(budget::bound(query)?);
        let named = |name: &String| NamedNode::new(name).map_err(|_| QueryError::GraphName(name.clone()));
        if !task.default_graphs.is_empty() || !task.named_graphs.is_empty() {
            // SPARQL 1.1 Protocol, 2.1.4: the dataset of the protocol wins over the one of the query.
            let defaults = task.default_graphs.iter().map(|name| named(name).map(GraphName::from));
            let names = task.named_graphs.iter().map(|name| named(name).map(NamedOrBlankNode::from));
            prepared.dataset_mut().set_default_graph(defaults.collect::<Result<_, _>>()?);
            prepared.dataset_mut().set_available_named_graphs(names.collect::<Result<_, _>>()?);
        }
        let store = self.store();
        let answer = budget::ending(|| {
            let results = prepared.on_store(&store).execute().map_err(evaluation)?;
            serialize(results, task)
        });
        // What is past a budget looks like an error in an expression, or like the end.
        budget.broken().map_or(answer, Err)
    }
}

/// The view failed.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Oxigraph says so.
    #[error("the graph could not be changed: {0}")]
    Storage(#[from] StorageError),
    /// A participant whose URI cannot name a graph.
    #[error("`{0}` is not an IRI and cannot name a graph")]
    Name(String),
    /// A triple that the parser should not have let through.
    #[error("`{0}` is not an IRI")]
    Iri(String),
}

/// What a participant's graph is to hold, in oxigraph's own terms: nothing in it can be refused any more.
pub(super) struct Content {
    name: NamedNode,
    triples: Vec<OxTriple>,
}

impl Content {
    /// Checks the name and every term.
    pub(super) fn new(participant: &str, triples: &[Triple]) -> Result<Self, GraphError> {
        let name = NamedNode::new(participant).map_err(|_| GraphError::Name(participant.to_owned()))?;
        Ok(Self { name, triples: triples.iter().map(to_oxigraph).collect::<Result<_, _>>()? })
    }
}

/// What a change added to the view and took out of it.
#[derive(Default)]
struct Changed {
    added: usize,
    added_bytes: usize,
    removed: usize,
    removed_bytes: usize,
}

impl Changed {
    fn add(&mut self, triple: &OxTriple) {
        self.added += 1;
        self.added_bytes += bytes(triple);
    }

    fn remove(&mut self, triple: &OxTriple) {
        self.removed += 1;
        self.removed_bytes += bytes(triple);
    }
}

fn bytes(triple: &OxTriple) -> usize {
    let subject = match &triple.subject {
        NamedOrBlankNode::NamedNode(node) => node.as_str().len(),
        NamedOrBlankNode::BlankNode(node) => node.as_str().len(),
    };
    subject + triple.predicate.as_str().len() + budget::bytes(&triple.object)
}

/// Replaces one graph inside a transaction.
fn swap(transaction: &mut Transaction<'_>, Content { name, triples }: Content) -> Result<Changed, StorageError> {
    let is_empty = triples.is_empty();
    let graph = GraphNameRef::NamedNode(name.as_ref());
    let mut old = HashSet::new();
    for quad in transaction.quads_for_pattern(None, None, None, Some(graph)) {
        old.insert(OxTriple::from(quad?));
    }
    let mut changed = Changed::default();
    for triple in triples {
        if old.remove(&triple) {
            continue;
        }
        let named = triple.as_ref().in_graph(graph);
        let merged = triple.as_ref().in_graph(GraphNameRef::DefaultGraph);
        transaction.insert(named);
        changed.add(&triple);
        if !transaction.contains(merged)? {
            transaction.insert(merged);
            changed.add(&triple);
        }
    }
    for triple in &old {
        transaction.remove(triple.as_ref().in_graph(graph));
        changed.remove(triple);
        if !held_by_a_named_graph(transaction, triple)? {
            transaction.remove(triple.as_ref().in_graph(GraphNameRef::DefaultGraph));
            changed.remove(triple);
        }
    }
    if is_empty {
        transaction.remove_named_graph(name.as_ref())?;
    } else {
        transaction.insert_named_graph(name.as_ref());
    }
    Ok(changed)
}

fn held_by_a_named_graph(transaction: &Transaction<'_>, triple: &OxTriple) -> Result<bool, StorageError> {
    let same = transaction.quads_for_pattern(
        Some(triple.subject.as_ref()),
        Some(triple.predicate.as_ref()),
        Some(triple.object.as_ref()),
        None,
    );
    for quad in same {
        if !quad?.graph_name.is_default_graph() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn to_oxigraph(triple: &Triple) -> Result<OxTriple, GraphError> {
    let named = |iri: &str| NamedNode::new(iri).map_err(|_| GraphError::Iri(iri.to_owned()));
    let blank = |label: &str| BlankNode::new(label).map_err(|_| GraphError::Iri(label.to_owned()));
    let subject = match &triple.subject {
        Term::Iri(iri) => NamedOrBlankNode::from(named(iri)?),
        Term::Blank(label) => NamedOrBlankNode::from(blank(label)?),
        Term::Literal { value, .. } => return Err(GraphError::Iri(value.clone())),
    };
    let object = match &triple.object {
        Term::Iri(iri) => OxTerm::from(named(iri)?),
        Term::Blank(label) => OxTerm::from(blank(label)?),
        Term::Literal { value, language: Some(language), .. } => {
            Literal::new_language_tagged_literal(value, language).map_err(|_| GraphError::Iri(language.clone()))?.into()
        }
        Term::Literal { value, datatype, language: None } => Literal::new_typed_literal(value, named(datatype)?).into(),
    };
    Ok(OxTriple { subject, predicate: named(&triple.predicate)?, object })
}

fn evaluation(error: QueryEvaluationError) -> QueryError {
    match error {
        QueryEvaluationError::Cancelled => QueryError::Cancelled,
        QueryEvaluationError::UnsupportedService(_)
        | QueryEvaluationError::UnboundService
        | QueryEvaluationError::InvalidServiceName(_)
        | QueryEvaluationError::Service(_) => QueryError::Service,
        other => QueryError::Failed(other.to_string()),
    }
}

fn serialize(results: QueryResults<'_>, task: &QueryTask) -> Result<Answer, QueryError> {
    let out = Bounded { bytes: Vec::new(), max: task.bytes_max };
    let full = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => QueryError::TooManyBytes(task.bytes_max),
        _ => QueryError::Failed(error.to_string()),
    };
    let mut rows = 0;
    let mut count = || {
        rows += 1;
        if rows > task.rows_max { Err(QueryError::TooManyRows(task.rows_max)) } else { Ok(()) }
    };
    let (media_type, out) = match results {
        QueryResults::Boolean(value) => {
            let format = task.results.ok_or(QueryError::NotAcceptable("ASK"))?;
            count()?;
            let serializer = QueryResultsSerializer::from_format(format.oxigraph());
            (format.media_type(), serializer.serialize_boolean_to_writer(out, value).map_err(full)?)
        }
        QueryResults::Solutions(solutions) => {
            let format = task.results.ok_or(QueryError::NotAcceptable("SELECT"))?;
            let mut serializer = QueryResultsSerializer::from_format(format.oxigraph())
                .serialize_solutions_to_writer(out, solutions.variables().to_vec())
                .map_err(full)?;
            for solution in solutions {
                let solution = solution.map_err(evaluation)?;
                count()?;
                serializer.serialize(&solution).map_err(full)?;
            }
            (format.media_type(), serializer.finish().map_err(full)?)
        }
        QueryResults::Graph(triples) => {
            let format = task.graph.ok_or(QueryError::NotAcceptable("CONSTRUCT and DESCRIBE"))?;
            let mut serializer = RdfSerializer::from_format(format.oxigraph()).for_writer(out);
            // A graph is a set; the iterator may hand out a triple once per solution.
            let mut seen = HashSet::new();
            for triple in triples {
                let triple = triple.map_err(evaluation)?;
                if seen.contains(&triple) {
                    continue;
                }
                count()?;
                serializer.serialize_triple(triple.as_ref()).map_err(full)?;
                seen.insert(triple);
            }
            (format.media_type(), serializer.finish().map_err(full)?)
        }
    };
    Ok(Answer { media_type, bytes: out.bytes, rows })
}

/// A buffer that refuses to grow past its limit.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.max {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn content(values: std::ops::Range<usize>) -> Content {
        let iri = |text: String| Term::Iri(text);
        let triples: Vec<Triple> = values
            .map(|n| Triple {
                subject: iri(format!("urn:s{n}")),
                predicate: "urn:p".into(),
                object: iri(format!("urn:o{n}")),
            })
            .collect();
        Content::new("urn:one", &triples).unwrap()
    }

    #[test]
    fn replaced_quads_do_not_pile_up() {
        let graph = Graph::new().unwrap();
        for round in 0..12 {
            graph.replace(content(round * 1000..(round + 1) * 1000)).unwrap();
        }
        assert_eq!(graph.len(), 2000);
        assert!(graph.dead.read().0 < DEAD_QUADS_MIN, "the view was copied on the way");
        graph.remove("urn:one").unwrap();
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn replaced_texts_do_not_pile_up() {
        let graph = Graph::new().unwrap();
        let mut most = 0;
        for round in 0..80 {
            let value = format!("{round}{}", "x".repeat(1 << 20));
            let datatype = "http://www.w3.org/2001/XMLSchema#string".to_owned();
            let object = Term::Literal { value, datatype, language: None };
            let triple = Triple { subject: Term::Iri("urn:s".into()), predicate: "urn:p".into(), object };
            graph.replace(Content::new("urn:one", &[triple]).unwrap()).unwrap();
            let ((live, live_bytes), (_, dead_bytes)) = (graph.live.read(), graph.dead.read());
            assert_eq!((live, live_bytes >> 20), (2, 2));
            most = most.max(dead_bytes);
        }
        assert!(most > DEAD_BYTES_MIN / 2 && most <= DEAD_BYTES_MIN, "{most} dead bytes were kept");
        graph.remove("urn:one").unwrap();
        assert_eq!((graph.len(), graph.live.read()), (0, (0, 0)));
    }

    #[test]
    fn the_same_description_again_changes_no_quad() {
        let graph = Graph::new().unwrap();
        graph.replace(content(0..10)).unwrap();
        graph.replace(content(0..10)).unwrap();
        assert_eq!((graph.len(), graph.dead.read()), (20, (0, 0)));
    }
}
