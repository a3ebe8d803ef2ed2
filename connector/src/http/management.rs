//! The operator's API, on its own port with its own token. Errors are RFC 9457 problems that name
//! the field, the rule and the cure.

pub mod catalog;
pub mod duty;
pub mod fact;
pub mod negotiation;
pub mod operation;
pub mod policy;
mod request;
pub mod transfer;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kontor_core::id::{ID_BYTES_MAX, ProcessId};
use kontor_core::refusal::{Fault, Refusal};
use kontor_wire::problem::Problem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use request::{Path, Query, read};

use crate::control::Control;
use crate::control::error::ControlError;
use crate::store::{Listing, Page};

/// Longest time that a request may wait for a state.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// All routes, below `/management/v1`.
pub fn router(control: Arc<Control>) -> Router {
    let routes = Router::new()
        .merge(operation::routes())
        .merge(catalog::routes())
        .merge(duty::routes())
        .merge(fact::routes())
        .merge(policy::routes())
        .merge(negotiation::routes())
        .merge(transfer::routes());
    Router::new()
        .nest("/management/v1", routes)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(control)
}

async fn unknown(uri: http::Uri) -> Response {
    Problem::new(StatusCode::NOT_FOUND, "route", format!("there is nothing at `{}`", uri.path()))
        .at("path")
        .by("only the routes of this API are here")
        .cure("the routes below `/management/v1` that the README lists")
        .into_response()
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("`{}` is not possible at `{}`", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail)
        .at("method")
        .by("each route has methods of its own")
        .cure("one of the methods in `Allow`")
}

/// What a handler answers.
pub(crate) type Answer = Result<Response, Failure>;

/// A refusal as a problem.
#[derive(Debug)]
pub(crate) struct Failure(Problem);

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        error.refusal().into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Problem::from_refusal(&refusal).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        ControlError::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// A member that is no identifier.
pub(crate) fn bad_id(field: &str) -> impl FnOnce(kontor_core::id::IdError) -> Failure {
    let field = field.to_owned();
    move |error| {
        Refusal::new(Fault::Malformed, "identifier", error.to_string())
            .at(field)
            .by(format!("an identifier is a URI of at most {ID_BYTES_MAX} bytes"))
            .cure("`urn:…` or `https://…`")
            .into()
    }
}

pub(crate) fn ok(value: &impl Serialize) -> Response {
    reply(StatusCode::OK, value)
}

pub(crate) fn reply(status: StatusCode, value: &impl Serialize) -> Response {
    (status, axum::Json(serde_json::to_value(value).unwrap_or(Value::Null))).into_response()
}

/// `?after=…&limit=…` of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    after: Option<String>,
    limit: Option<u32>,
}

impl Paging {
    pub(crate) fn page(self) -> Page {
        let limit = self.limit.unwrap_or(Page::default().limit);
        Page { after: self.after, limit }
    }
}

/// `{"items": […], "next": "…"}`.
pub(crate) fn list<T>(listing: Listing<T>, show: impl Fn(T) -> Value) -> Response {
    let items: Vec<Value> = listing.items.into_iter().map(show).collect();
    ok(&json!({ "items": items, "next": listing.next }))
}

/// `?wait=STATE&timeout_ms=…` of a process: answers when the state is reached, the process has
/// ended, or the time is over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiting {
    wait: Option<String>,
    timeout_ms: Option<u64>,
}

impl Waiting {
    /// Checks that what is waited for is a state: nobody comes to another one.
    pub(crate) fn names<T: DeserializeOwned>(&self) -> Result<(), Failure> {
        let Some(wanted) = &self.wait else { return Ok(()) };
        match serde_json::from_value::<T>(json!(wanted)) {
            Ok(_) => Ok(()),
            Err(error) => Err(request::value("query", "wait", &error.to_string()).into()),
        }
    }

    /// Calls `look` until it is content: `(state, terminal)` of the process.
    pub(crate) async fn until<T, F, Fut>(&self, control: &Control, id: &ProcessId, look: F) -> Result<T, Failure>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(T, &'static str, bool), Failure>>,
    {
        let mut changes = control.changes();
        let timeout = Duration::from_millis(self.timeout_ms.unwrap_or(10_000)).min(WAIT_MAX);
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            let (value, state, terminal) = look().await?;
            let Some(wanted) = &self.wait else { return Ok(value) };
            if terminal || state == wanted {
                return Ok(value);
            }
            loop {
                tokio::select! {
                    () = &mut deadline => return Ok(value),
                    changed = changes.recv() => match changed {
                        Ok(changed) if changed != *id => {}
                        _ => break,
                    },
                }
            }
        }
    }
}
