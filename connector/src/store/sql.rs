//! The store in SQLite: one file in the data directory, one writer thread, one for reading what may be much.
//!
//! The writer takes every batch that waits, applies all of them in one transaction, each inside
//! its own savepoint where there are several, and answers them after one sync to disk: a batch that fails is rolled back
//! alone, and under load many share the cost of the sync. Records are JSON in a column, beside
//! the columns that they are searched by.
//!
//! What a step of a process needs to know is one row or a few, found by an index: some tens of
//! microseconds, less than handing the question to a thread and the answer back. Such questions
//! are answered where they are asked, on a connection of their own.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use tokio::sync::oneshot;

use super::{Batch, Column, Committed, Expect, Filter, Record, Row, StoreError, Versioned, Work, from_micros};

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "kontor.sqlite3";
/// The name of the file in the data directory that the running process holds a lock on.
pub const LOCK_FILE: &str = "kontor.lock";

/// Most batches that share one transaction: bounds how long the first of them waits.
const GROUP_MAX: usize = 256;
/// Most rows of a question that is answered where it is asked.
const GLANCE_ROWS_MAX: usize = 32;
/// Page cache per connection, in KiB.
const CACHE_KIB: u32 = 2048;
/// Prepared statements kept per connection.
const STATEMENTS_MAX: usize = 128;
/// How long to wait for a lock that only a foreign tool (a backup) can hold.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The schema, step by step. Never change a step that was released: append one.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
];

/// SQLite in a data directory. The last clone that is dropped closes it.
#[derive(Debug, Clone)]
pub struct SqlStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    // Taken when dropped, which ends the threads.
    writer: Option<Sender<Job>>,
    reader: Option<Sender<Question>>,
    // Never held over anything that waits. The writer's own answers where it is free: what it changed itself it need not
    // read again, while every commit of another connection empties a connection's cache.
    writing: Option<Arc<Mutex<Connection>>>,
    glance: Option<Mutex<Connection>>,
    // The writer's first.
    threads: Vec<JoinHandle<()>>,
    // Held until the threads are gone.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Those that read first: only the writer can fold the write-ahead log into the database, and
        // SQLite does so when the last connection closes.
        self.glance = None;
        self.reader = None;
        let writer = if self.threads.is_empty() { None } else { Some(self.threads.remove(0)) };
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to close.
            let _ = thread.join();
        }
        self.writer = None;
        if let Some(thread) = writer {
            let _ = thread.join();
        }
        self.writing = None;
    }
}

enum Job {
    Commit {
        batch: Box<Batch>,
        answer: oneshot::Sender<Result<Committed, StoreError>>,
    },
    #[cfg(test)]
    Run(Box<dyn FnOnce(&Connection) + Send>),
}

type Question = Box<dyn FnOnce(&Connection) + Send>;

impl SqlStore {
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let unavailable = |what: &str, path: &Path, error: std::io::Error| {
            StoreError::Unavailable(format!("cannot {what} `{}`: {error}", path.display()))
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|error| unavailable("create the data directory", data_dir, error))?;
        let lock = lock(data_dir)?;
        let path = data_dir.join(DATABASE_FILE);
        // The database holds tokens of peers: made here, so that nobody else can ever read it.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| unavailable("open the database", &path, error))?;

        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrate(&mut connection, &path)?;
        let reader = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let glance = Some(Mutex::new(connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?));

        let mut threads = Vec::with_capacity(2);
        let mut spawn =
            |name: String, work: Box<dyn FnOnce() + Send>| match thread::Builder::new().name(name).spawn(work) {
                Ok(handle) => {
                    threads.push(handle);
                    Ok(())
                }
                Err(error) => Err(StoreError::Unavailable(format!("cannot start a thread: {error}"))),
            };
        let (jobs, queue) = channel();
        let writing = Arc::new(Mutex::new(connection));
        let connection = writing.clone();
        spawn("store-writer".to_owned(), Box::new(move || write(&connection, &queue)))?;
        let (questions, queue) = channel::<Question>();
        spawn("store-reader".to_owned(), Box::new(move || read(&reader, &queue)))?;
        let (writer, reader, writing) = (Some(jobs), Some(questions), Some(writing));
        let inner = Inner { path, writer, reader, writing, glance, threads, _lock: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(super) async fn commit(&self, batch: Box<Batch>) -> Result<Committed, StoreError> {
        let (answer, result) = oneshot::channel();
        let sent = self.inner.writer.as_ref().map(|writer| writer.send(Job::Commit { batch, answer }));
        let Some(Ok(())) = sent else { return Err(stopped()) };
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Runs a test's own statements where the batches are applied.
    #[cfg(test)]
    pub(super) async fn run_on_writer<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, result) = oneshot::channel();
        let job = Job::Run(Box::new(move |connection| {
            let _ = answer.send(run(connection));
        }));
        self.inner.writer.as_ref()?.send(job).ok()?;
        result.await.ok()
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            // Nobody waits any more: nothing to do.
            let _ = answer.send(question(connection));
        });
        let sent = self.inner.reader.as_ref().map(|reader| reader.send(question));
        let Some(Ok(())) = sent else { return Err(stopped()) };
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// A question whose answer is a row or a few, found by an index.
    fn glance<T>(&self, question: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(Ok(connection)) = self.inner.writing.as_ref().map(|connection| connection.try_lock())
            && connection.is_autocommit()
        {
            return question(&connection);
        }
        let connection = self.inner.glance.as_ref().ok_or_else(stopped)?;
        question(&connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[expect(clippy::unused_async, reason = "one face for what is glanced at and what is handed to a thread")]
    pub(super) async fn get<R: Record>(&self, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
        self.glance(|connection| get(connection, id))
    }

    /// All rows that fit, oldest first, where there are seldom more than a few.
    pub(super) async fn few<R: Record>(&self, filter: Filter) -> Result<Vec<Row<R>>, StoreError> {
        let rows = self.glance(|connection| select(connection, &filter, "ORDER BY seq", GLANCE_ROWS_MAX + 1))?;
        if rows.len() <= GLANCE_ROWS_MAX { Ok(rows) } else { self.oldest(filter, usize::MAX).await }
    }

    #[expect(clippy::unused_async, reason = "one face for what is glanced at and what is handed to a thread")]
    pub(super) async fn first<R: Record>(&self, filter: Filter) -> Result<Option<Row<R>>, StoreError> {
        Ok(self.glance(|connection| select(connection, &filter, "ORDER BY seq", 1))?.pop())
    }

    pub(super) async fn newest<R: Record>(
        &self,
        mut filter: Filter,
        below: u64,
        limit: usize,
    ) -> Result<Vec<Row<R>>, StoreError> {
        // Rows are numbered from 1, so "below" is "at most" less one.
        filter.at_most = Some(("seq", i64::try_from(below).unwrap_or(i64::MAX).saturating_sub(1)));
        self.ask(move |connection| select(connection, &filter, "ORDER BY seq DESC", limit)).await
    }

    pub(super) async fn oldest<R: Record>(&self, filter: Filter, limit: usize) -> Result<Vec<Row<R>>, StoreError> {
        self.ask(move |connection| select(connection, &filter, &oldest_first(&filter), limit)).await
    }

    /// The numbers of the rows from one on, oldest first.
    pub(super) async fn seqs_from<R: Record>(&self, from: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        self.ask(move |connection| {
            let sql = format!("SELECT seq FROM {} WHERE seq >= ?1 ORDER BY seq LIMIT ?2", R::TABLE);
            let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
            let bounds = [i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX)];
            let rows = statement.query_map(bounds, |row| row.get::<_, i64>(0)).map_err(fault)?;
            rows.map(|seq| seq.map(|seq| u64::try_from(seq).unwrap_or_default()).map_err(fault)).collect()
        })
        .await
    }

    #[expect(clippy::unused_async, reason = "one face for what is glanced at and what is handed to a thread")]
    pub(super) async fn count<R: Record>(&self, filter: Filter) -> Result<u64, StoreError> {
        self.glance(|connection| count::<R>(connection, &filter))
    }

    #[expect(clippy::unused_async, reason = "one face for what is glanced at and what is handed to a thread")]
    pub(super) async fn least<R: Record>(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        self.glance(|connection| {
            let mut statement = connection.prepare_cached(&least_of::<R>(column)).map_err(fault)?;
            statement.query_row([], |row| row.get(0)).map_err(fault)
        })
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("its thread has ended; restart the connector".to_owned())
}

/// Takes the data directory for this process. The lock ends with the process, however it ends.
fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join(LOCK_FILE);
    let failed = |error: std::io::Error| {
        StoreError::Unavailable(format!("cannot lock the data directory with `{}`: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known =
                Read::by_ref(&mut file).take(20).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
            return Err(StoreError::Locked { path: data_dir.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Only for the message above; the lock itself does not depend on it.
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    note(&mut file).map_err(failed)?;
    Ok(file)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fault)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let settings = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA cache_size = -{CACHE_KIB}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
    );
    connection.execute_batch(&settings).map_err(fault)?;
    // A plan that looks at bound values is made anew whenever they change, which is every time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(fault)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fault)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction().map_err(fault)?;
        transaction.execute_batch(migration).map_err(fault)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {}", number + 1)).map_err(fault)?;
        transaction.commit().map_err(fault)?;
    }
    Ok(())
}

/// What a database error means to whoever asked.
fn fault(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { what: "database", id: DATABASE_FILE.to_owned(), detail: error.to_string() }
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

// ── the writer ──

fn write(connection: &Mutex<Connection>, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut group = Vec::new();
        for job in std::iter::once(first).chain(queue.try_iter()) {
            match job {
                Job::Commit { batch, answer } => group.push((batch, answer)),
                #[cfg(test)]
                Job::Run(run) => run(&connection.lock().unwrap_or_else(PoisonError::into_inner)),
            }
            if group.len() >= GROUP_MAX {
                break;
            }
        }
        commit_group(connection, group);
    }
}

type Waiting = (Box<Batch>, oneshot::Sender<Result<Committed, StoreError>>);

fn commit_group(connection: &Mutex<Connection>, mut group: Vec<Waiting>) {
    // Free again before anybody is answered, who may have the next question.
    let outcome = try_group(&connection.lock().unwrap_or_else(PoisonError::into_inner), &group);
    match outcome {
        Ok(results) => {
            for ((_, answer), result) in group.into_iter().zip(results) {
                // Whoever asked may have gone; the batch is kept all the same.
                let _ = answer.send(result);
            }
        }
        // One batch spoiled the transaction of all, say by being too large for the disk: nothing
        // was kept, so each gets a transaction of its own.
        Err(_) if group.len() > 1 => {
            for waiting in group {
                commit_group(connection, vec![waiting]);
            }
        }
        Err(error) => {
            if let Some((_, answer)) = group.pop() {
                let _ = answer.send(Err(error));
            }
        }
    }
}

/// All batches in one transaction. On an error nothing of any batch was kept.
fn try_group(connection: &Connection, group: &[Waiting]) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    let in_transaction = || -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        run(connection, "BEGIN IMMEDIATE")?;
        let mut results = Vec::with_capacity(group.len());
        // A savepoint keeps a copy of every page that changes; a batch that is alone needs none.
        if let [(batch, _)] = group {
            let result = super::apply(&mut Transaction { connection }, batch);
            let end = match &result {
                Ok(_) => "COMMIT",
                Err(error @ StoreError::Unavailable(_)) => return Err(error.clone()),
                Err(_) => "ROLLBACK",
            };
            run(connection, end)?;
            results.push(result);
            return Ok(results);
        }
        for (batch, _) in group {
            run(connection, "SAVEPOINT batch")?;
            let result = super::apply(&mut Transaction { connection }, batch);
            match &result {
                Ok(_) => {}
                // SQLite may have rolled back everything by itself.
                Err(error @ StoreError::Unavailable(_)) => return Err(error.clone()),
                Err(_) => run(connection, "ROLLBACK TO batch")?,
            }
            run(connection, "RELEASE batch")?;
            results.push(result);
        }
        run(connection, "COMMIT")?;
        Ok(results)
    };
    let outcome = in_transaction();
    if !connection.is_autocommit()
        && let Err(error) = run(connection, "ROLLBACK")
    {
        tracing::error!(%error, "the store could not roll back");
    }
    outcome
}

fn run(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(|_| ()).map_err(fault)
}

struct Transaction<'a> {
    connection: &'a Connection,
}

impl Work for Transaction<'_> {
    fn put<R: Record>(&mut self, record: &R, expect: Expect, now: Timestamp) -> Result<(), StoreError> {
        put(self.connection, record, expect, now)
    }

    fn get<R: Record>(&mut self, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
        get(self.connection, id)
    }

    fn remove<R: Record>(&mut self, id: &str) -> Result<bool, StoreError> {
        let sql = format!("DELETE FROM {} WHERE id = ?1", R::TABLE);
        let mut statement = self.connection.prepare_cached(&sql).map_err(fault)?;
        Ok(statement.execute([id]).map_err(fault)? > 0)
    }

    fn keys<R: Record>(&mut self, filter: &Filter) -> Result<Vec<String>, StoreError> {
        let (conditions, values) = conditions(filter);
        let sql = format!("SELECT id FROM {}{conditions} AND id IS NOT NULL ORDER BY seq", R::TABLE);
        let mut statement = self.connection.prepare_cached(&sql).map_err(fault)?;
        let keys = statement.query_map(params_from_iter(values), |row| row.get(0)).map_err(fault)?;
        keys.collect::<Result<_, _>>().map_err(fault)
    }
}

fn put<R: Record>(connection: &Connection, record: &R, expect: Expect, now: Timestamp) -> Result<(), StoreError> {
    let key = record.key();
    let id = || key.as_deref().unwrap_or_default().to_owned();
    let body = serde_json::to_string(record).map_err(|error| StoreError::Corrupt {
        what: R::WHAT,
        id: id(),
        detail: error.to_string(),
    })?;
    let columns = record.columns();
    let mut values = vec![
        key.as_deref().map_or(Value::Null, |key| Value::Text(key.to_owned())),
        Value::Integer(now.as_microsecond()),
        Value::Text(body),
    ];
    values.extend(columns.iter().map(|(_, column)| match column {
        Column::Text(text) => text.map_or(Value::Null, |text| Value::Text(text.to_owned())),
        Column::Time(at) => at.map_or(Value::Null, |at| Value::Integer(at.as_microsecond())),
    }));
    // Neither `RETURNING` nor an upsert: for both SQLite keeps a copy of every page that the statement changes.
    let run = |sql: &str, values: &[Value]| -> Result<bool, StoreError> {
        let mut statement = connection.prepare_cached(sql).map_err(fault)?;
        let changed = statement.execute(params_from_iter(values)).map_err(|error| {
            if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
                StoreError::Duplicate { what: R::WHAT, id: id() }
            } else {
                fault(error)
            }
        })?;
        Ok(changed > 0)
    };
    let numbered = || columns.iter().zip(4..).map(|((name, _), number)| (name, number));
    let insert = |values: &[Value]| {
        let mut sql = format!("INSERT INTO {} (id, version, created, updated, body", R::TABLE);
        numbered().for_each(|(name, _)| sql.extend([", ", name]));
        sql.push_str(") VALUES (?1, 1, ?2, ?2, ?3");
        numbered().for_each(|(_, number)| sql.push_str(&format!(", ?{number}")));
        sql.push(')');
        run(&sql, values)
    };
    let update = |values: &[Value], and: &str| {
        let mut sql = format!("UPDATE {} SET version = version + 1, updated = ?2, body = ?3", R::TABLE);
        numbered().for_each(|(name, number)| sql.push_str(&format!(", {name} = ?{number}")));
        sql.push_str(" WHERE id = ?1");
        sql.push_str(and);
        run(&sql, values)
    };
    match expect {
        Expect::New => insert(&values).map(drop),
        Expect::Any => {
            if !update(&values, "")? {
                insert(&values)?;
            }
            Ok(())
        }
        Expect::Version(loaded) => {
            values.push(Value::Integer(i64::try_from(loaded).unwrap_or(i64::MAX)));
            if update(&values, &format!(" AND version = ?{}", values.len()))? {
                return Ok(());
            }
            Err(StoreError::Conflict { what: R::WHAT, id: id() })
        }
    }
}

// ── reading ──

fn read(connection: &Connection, queue: &Receiver<Question>) {
    while let Ok(question) = queue.recv() {
        question(connection);
    }
}

fn get<R: Record>(connection: &Connection, id: &str) -> Result<Option<Versioned<R>>, StoreError> {
    let rows = select(connection, &Filter::default().text("id", Some(id)), "", 1)?;
    Ok(rows.into_iter().next().map(|row| row.versioned))
}

/// ` WHERE …` with its values. Column names are ours, never a caller's.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut sql = " WHERE true".to_owned();
    let mut values = Vec::new();
    for (column, value) in &filter.equal {
        values.push(Value::Text(value.clone()));
        sql.push_str(&format!(" AND {column} = ?{}", values.len()));
    }
    if let Some((column, any)) = &filter.among {
        let places: Vec<String> = (1..=any.len()).map(|place| format!("?{}", values.len() + place)).collect();
        sql.push_str(&format!(" AND {column} IN ({})", places.join(", ")));
        values.extend(any.iter().map(|value| Value::Text((*value).to_owned())));
    }
    if let Some((column, bound)) = filter.at_most {
        values.push(Value::Integer(bound));
        sql.push_str(&format!(" AND {column} <= ?{}", values.len()));
    }
    (sql, values)
}

fn count<R: Record>(connection: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let (conditions, values) = conditions(filter);
    let sql = format!("SELECT count(*) FROM {}{conditions}", R::TABLE);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let count: i64 = statement.query_row(params_from_iter(values), |row| row.get(0)).map_err(fault)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// What is due comes in the order of its time, which the index has; all else in the order of its coming.
pub(super) fn oldest_first(filter: &Filter) -> String {
    match filter.at_most {
        Some((column, _)) => format!("ORDER BY {column}, seq"),
        None => "ORDER BY seq".to_owned(),
    }
}

/// So many words let an index answer that has only the rows that have a value.
pub(super) fn least_of<R: Record>(column: &str) -> String {
    format!("SELECT min({column}) FROM {} WHERE {column} IS NOT NULL", R::TABLE)
}

pub(super) fn selection<R: Record>(filter: &Filter, order: &str, limit: usize) -> (String, Vec<Value>) {
    let (conditions, mut values) = conditions(filter);
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let sql = format!(
        "SELECT seq, version, created, updated, body, id FROM {}{conditions} {order} LIMIT ?{}",
        R::TABLE,
        values.len()
    );
    (sql, values)
}

fn select<R: Record>(
    connection: &Connection,
    filter: &Filter,
    order: &str,
    limit: usize,
) -> Result<Vec<Row<R>>, StoreError> {
    let (sql, values) = selection::<R>(filter, order, limit);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let mut found = statement.query(params_from_iter(values)).map_err(fault)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let integer = |index: usize| row.get::<_, i64>(index).map_err(fault);
        let body = row.get_ref(4).map_err(fault)?;
        let parsed = body.as_str().map_err(|error| error.to_string());
        let parsed = parsed.and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()));
        let value = match parsed {
            Ok(value) => value,
            Err(detail) => {
                let id = row.get::<_, Option<String>>(5).ok().flatten().unwrap_or_default();
                return Err(StoreError::Corrupt { what: R::WHAT, id, detail });
            }
        };
        rows.push(Row {
            seq: u64::try_from(integer(0)?).unwrap_or_default(),
            versioned: Versioned {
                value,
                version: u64::try_from(integer(1)?).unwrap_or_default(),
                created: from_micros(integer(2)?),
                updated: from_micros(integer(3)?),
            },
        });
    }
    Ok(rows)
}
