//! Read-only SPARQL with budgets: text, nesting, time, rows, bytes, what is made and held on the way, and how many run at
//! once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::ingest::{iri_bytes, string_bytes};
use crate::store::{Answer, Cancel, QueryError, QueryTask, Store, Syntax};

/// Stack of a query's thread. Parser, optimiser and evaluator recurse over the query, whose size is limited; the memory
/// is only reserved, not used.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// Budgets of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Most bytes of query text.
    pub text_bytes_max: usize,
    /// Deepest nesting of brackets in the text.
    pub nesting_max: usize,
    /// Most patterns, path steps and groups in the text, counted by the signs that join them. Ordering joins takes
    /// more than linear time and cannot be cancelled.
    pub joints_max: usize,
    /// Longest time from start to answer.
    pub time_max: Duration,
    /// Most rows or triples of an answer.
    pub rows_max: usize,
    /// Most bytes of an answer.
    pub answer_bytes_max: usize,
    /// Most bytes of text that a query may make and keep on the way.
    pub made_bytes_max: usize,
    /// Most values, rows times variables, that a query may hold on the way.
    pub held_values_max: usize,
    /// Most queries at once.
    pub concurrent_max: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            text_bytes_max: 16 * 1024,
            nesting_max: 24,
            joints_max: 128,
            time_max: Duration::from_secs(10),
            rows_max: 10_000,
            answer_bytes_max: 8 * 1024 * 1024,
            made_bytes_max: 64 * 1024 * 1024,
            held_values_max: 4_000_000,
            concurrent_max: 4,
        }
    }
}

/// Why a query is not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryRefusal {
    /// The text is too long.
    #[error("the query has more than {0} bytes")]
    TextTooLong(usize),
    /// The text is nested too deep.
    #[error("the query is nested deeper than {0} brackets")]
    Nesting(usize),
    /// The text joins too many patterns.
    #[error("the query joins more than {0} patterns, path steps and groups")]
    Joints(usize),
    /// All places are taken.
    #[error("{0} queries are running already")]
    Busy(usize),
    /// It took too long.
    #[error("the query took longer than {} ms", .0.as_millis())]
    Time(Duration),
    /// It was refused or failed while it was evaluated.
    #[error(transparent)]
    Evaluation(#[from] QueryError),
}

/// Runs queries within their budgets.
pub struct Queries {
    store: Arc<Store>,
    limits: QueryLimits,
    places: Arc<Semaphore>,
}

impl Queries {
    /// A runner over a store.
    #[must_use]
    pub fn new(store: Arc<Store>, limits: QueryLimits) -> Self {
        Self { store, limits, places: Arc::new(Semaphore::new(limits.concurrent_max)) }
    }

    /// The budgets.
    #[must_use]
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }

    /// Evaluates a query on a thread of its own; `rows_max` and the other limits of the task are lowered to the budgets.
    ///
    /// # Errors
    /// [`QueryRefusal`]. An answer is whole or there is none.
    ///
    /// # Cancellation
    /// Dropping the future cancels the query; its place is free again when its thread has noticed.
    pub async fn run(&self, mut task: QueryTask) -> Result<Answer, QueryRefusal> {
        check_text(&task.text, &self.limits)?;
        task.rows_max = task.rows_max.min(self.limits.rows_max);
        task.bytes_max = task.bytes_max.min(self.limits.answer_bytes_max);
        task.made_bytes_max = task.made_bytes_max.min(self.limits.made_bytes_max);
        task.held_values_max = task.held_values_max.min(self.limits.held_values_max);
        let busy = QueryRefusal::Busy(self.limits.concurrent_max);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Err(busy) };
        let cancel = Cancel::default();
        let guard = CancelOnDrop(cancel.clone());
        let (answer, answered) = oneshot::channel();
        let store = Arc::clone(&self.store);
        let spawned = std::thread::Builder::new().name("query".into()).stack_size(STACK_BYTES).spawn(move || {
            let result = store.query(&task, &cancel);
            // The place is given back by the thread, not by the request: what still runs still counts.
            drop(place);
            let _ = answer.send(result);
        });
        if spawned.is_err() {
            return Err(busy);
        }
        let outcome = tokio::time::timeout(self.limits.time_max, answered).await;
        drop(guard);
        match outcome {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(QueryError::Failed("the query's thread ended early".into()).into()),
            Err(_) => Err(QueryRefusal::Time(self.limits.time_max)),
        }
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Refuses a text that is too long, nested too deep or federated, before a parser sees it.
fn check_text(text: &str, limits: &QueryLimits) -> Result<(), QueryRefusal> {
    if text.len() > limits.text_bytes_max {
        return Err(QueryRefusal::TextTooLong(limits.text_bytes_max));
    }
    // SPARQL 1.1, 19.2: code point escapes may stand for any character, a keyword's letters included.
    let text = unescape(text);
    let (mut depth, mut joints) = (0_usize, 0_usize);
    let mut rest = text.as_str();
    let mut before = ' ';
    while let Some(next) = rest.chars().next() {
        let skip = match next {
            // SPARQL's strings are Turtle's.
            '"' | '\'' => string_bytes(rest, next, Syntax::Turtle),
            '<' => iri_bytes(rest).unwrap_or(1),
            '#' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '\\' => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            letter if letter.is_alphanumeric() || letter == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))).unwrap_or(rest.len());
                let (word, tail) = rest.split_at(end);
                let is_name = tail.starts_with(':') || ":?$@".contains(before);
                if word.eq_ignore_ascii_case("service") && !is_name {
                    return Err(QueryError::Service.into());
                }
                end
            }
            other => other.len_utf8(),
        };
        match next {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        joints += usize::from(".;,/|^{".contains(next));
        if joints > limits.joints_max {
            return Err(QueryRefusal::Joints(limits.joints_max));
        }
        if depth > limits.nesting_max {
            return Err(QueryRefusal::Nesting(limits.nesting_max));
        }
        before = next;
        rest = rest.get(skip..).unwrap_or_default();
    }
    Ok(())
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        let digits = match tail.as_bytes().get(1) {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => 0,
        };
        let code = tail.get(2..2 + digits).filter(|code| !code.is_empty());
        match code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32) {
            Some(letter) => {
                out.push(letter);
                rest = tail.get(2 + digits..).unwrap_or_default();
            }
            None => {
                let end = 1 + tail.chars().nth(1).map_or(0, char::len_utf8);
                let (escape, after) = tail.split_at(end.min(tail.len()));
                out.push_str(escape);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_seen_through_case_comments_and_escapes() {
        let limits = QueryLimits::default();
        for text in [
            "SELECT * { SERVICE <http://x> {} }",
            "select * { service silent <http://x> {} }",
            "SELECT * {#\nSeRvIcE <http://x> {} }",
            "SELECT * { S\\u0045RVICE <http://x> {} }",
            "SELECT * { BIND('#' AS ?a) SERVICE ?s {} }",
        ] {
            assert!(matches!(check_text(text, &limits), Err(QueryRefusal::Evaluation(QueryError::Service))), "{text}");
        }
    }

    #[test]
    fn service_as_a_name_or_in_a_string_passes() {
        let limits = QueryLimits::default();
        for text in [
            "SELECT ?service { ?c dcat:service ?service }",
            "SELECT * { ?c <http://x/service> \"service\" } # service",
            "PREFIX service: <urn:s> SELECT * { ?a service:b 'a service' }",
        ] {
            assert!(check_text(text, &limits).is_ok(), "{text}");
        }
    }

    #[test]
    fn text_and_nesting_are_limited() {
        let limits = QueryLimits::default();
        let deep = format!("SELECT * {}", "{".repeat(10_000));
        assert!(matches!(check_text(&deep, &limits), Err(QueryRefusal::Nesting(_))));
        let joined = format!("ASK {{ ?a <urn:p>{} ?b }}", "/<urn:p>".repeat(600));
        assert!(matches!(check_text(&joined, &limits), Err(QueryRefusal::Joints(128))));
        assert!(matches!(check_text(&" ".repeat(20_000), &limits), Err(QueryRefusal::TextTooLong(_))));
    }
}
