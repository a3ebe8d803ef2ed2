//! The Dataspace Protocol's HTTPS binding, one file per chapter of the specification.
//!
//! Errors are the protocol's own bodies: 400 for what is malformed or not possible now, 403 where
//! the policy says no, 404 for unknown *and* for not yours.

pub mod after;
pub mod capability;
pub mod catalog;
pub mod fallback;
pub mod negotiation;
pub mod transfer;
pub mod version;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::dsp::{ErrorBody, context};
use kontor_wire::serve::require_peer;
use serde_json::Value;

use self::after::send_after;
use crate::control::Control;
use crate::control::advance::Advanced;
use crate::control::error::ControlError;

/// All routes of the protocol, below `/dsp/2025-1`, and the version document.
pub fn router(control: Arc<Control>) -> Router {
    let protocol = Router::new()
        .merge(capability::routes())
        .merge(catalog::routes())
        .merge(negotiation::routes())
        .merge(transfer::routes())
        .fallback(|| async { StatusCode::NOT_FOUND });
    // The version document is open to everybody; all else wants to know who asks.
    Router::new()
        .nest("/dsp/2025-1", require_peer(protocol.with_state(control.clone())))
        .merge(version::routes().with_state(control))
}

/// Which error body a chapter answers with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chapter {
    Catalog,
    Negotiation,
    Transfer,
}

/// An error in the protocol's own body.
pub(crate) struct DspError {
    chapter: Chapter,
    refusal: Refusal,
    pids: (Option<String>, Option<String>),
}

impl DspError {
    /// `body` is the message that is refused: its pids go into the answer, as the schema wants.
    pub(crate) fn new(chapter: Chapter, error: &ControlError, body: &[u8]) -> Self {
        let value = serde_json::from_slice::<Value>(body).map(kontor_vocab::context::compact).unwrap_or(Value::Null);
        let pid = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Self { chapter, refusal: error.refusal(), pids: (pid("providerPid"), pid("consumerPid")) }
    }

    /// Completes the pids from the path.
    pub(crate) fn about(mut self, pid: &str) -> Self {
        self.pids.0.get_or_insert_with(|| pid.to_owned());
        self.pids.1.get_or_insert_with(|| pid.to_owned());
        self
    }
}

impl IntoResponse for DspError {
    fn into_response(self) -> Response {
        let status = match self.refusal.fault {
            Fault::Malformed | Fault::IllegalMove | Fault::Altered | Fault::Unenforceable => StatusCode::BAD_REQUEST,
            Fault::NotFound => StatusCode::NOT_FOUND,
            Fault::Denied => StatusCode::FORBIDDEN,
            Fault::Limit => StatusCode::TOO_MANY_REQUESTS,
            Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let (kind, pids) = match self.chapter {
            Chapter::Catalog => ("CatalogError", (None, None)),
            Chapter::Negotiation => ("ContractNegotiationError", self.pids),
            Chapter::Transfer => ("TransferError", self.pids),
        };
        // The schema wants both pids; where only one is known the other is said to be unknown.
        let known = |pid: Option<String>, wanted: bool| {
            if wanted { Some(pid.unwrap_or_else(|| "unknown".to_owned())) } else { None }
        };
        let wanted = !matches!(self.chapter, Chapter::Catalog);
        let body = ErrorBody {
            context: Some(context()),
            kind: kind.to_owned(),
            provider_pid: known(pids.0, wanted),
            consumer_pid: known(pids.1, wanted),
            code: Some(self.refusal.code.clone()),
            reason: self.refusal.sentences().into_iter().map(Value::String).collect(),
        };
        json(status, &serde_json::to_value(body).unwrap_or(Value::Null))
    }
}

/// What both machines' endpoints answer alike.
pub(crate) trait Process {
    /// Whose error bodies its endpoints answer with.
    const CHAPTER: Chapter;

    /// The process as the peer is told of it.
    fn acknowledged(&self) -> Value;
}

/// Answers a message with the state after it; what it set off leaves after the answer. `pid` is that of the path.
pub(crate) fn answer<T: Process>(
    control: Arc<Control>,
    status: StatusCode,
    result: Result<Advanced<T>, ControlError>,
    body: &[u8],
    pid: Option<&str>,
) -> Response {
    match result {
        Ok(advanced) => send_after(json(status, &advanced.value.acknowledged()), control, advanced.outgoing),
        Err(error) => {
            let answer = DspError::new(T::CHAPTER, &error, body);
            match pid {
                Some(pid) => answer.about(pid).into_response(),
                None => answer.into_response(),
            }
        }
    }
}

/// Answers a question for the state.
pub(crate) fn told<T: Process>(result: Result<T, ControlError>, pid: &str) -> Response {
    match result {
        Ok(process) => json(StatusCode::OK, &process.acknowledged()),
        Err(error) => DspError::new(T::CHAPTER, &error, &[]).about(pid).into_response(),
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A body that is larger than the limit is refused in the chapter's own words.
pub(crate) fn bounded(chapter: Chapter, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Response> {
    body.map_err(|rejection| {
        let refusal = Refusal::new(Fault::Limit, "limits.body_bytes_max", format!("the body was refused: {rejection}"))
            .cure("a smaller message");
        let mut response = DspError { chapter, refusal, pids: (None, None) }.into_response();
        let too_large = within(&rejection, |cause| cause.is::<LengthLimitError>());
        *response.status_mut() = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { rejection.status() };
        response
    })
}

/// Whether an error or one of its causes is the one that is looked for.
fn within(
    error: &(dyn std::error::Error + 'static),
    wanted: impl Fn(&(dyn std::error::Error + 'static)) -> bool,
) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(wanted)
}
