//! Errors as the management API and the broker answer them (RFC 9457).

use ::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kontor_core::refusal::{Fault, Refusal};
use serde::Serialize;

/// An `application/problem+json` body with the members that help to mend the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The HTTP status, repeated in the body.
    #[serde(serialize_with = "status_number")]
    pub status: StatusCode,
    /// Which kind of problem: a URI reference that is the same for all of its kind.
    #[serde(rename = "type")]
    pub type_: String,
    /// The kind in words, the same for all of its kind.
    pub title: String,
    /// What was wrong this time.
    pub detail: String,
    /// Path of the member at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The rule that was broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What would have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// The thing that the problem is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

fn status_number<S: serde::Serializer>(status: &StatusCode, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem with its status, short kind (such as `unknown-dataset`, which becomes the type
    /// `urn:kontor:problem:unknown-dataset`) and detail. The title is the kind in words.
    #[must_use]
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            type_: format!("urn:kontor:problem:{kind}"),
            title: kind.replace(['-', '.'], " "),
            detail: detail.into(),
            field: None,
            rule: None,
            cure: None,
            instance: None,
        }
    }

    /// Names the member at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the rule.
    #[must_use]
    pub fn by(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Says what would have passed.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Names the thing that the problem is about.
    #[must_use]
    pub fn about(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// A refusal of the core as a problem; the status follows the fault.
    #[must_use]
    pub fn from_refusal(refusal: &Refusal) -> Self {
        let status = match refusal.fault {
            Fault::Malformed => StatusCode::BAD_REQUEST,
            Fault::IllegalMove | Fault::Altered => StatusCode::CONFLICT,
            Fault::NotFound => StatusCode::NOT_FOUND,
            Fault::Denied => StatusCode::FORBIDDEN,
            Fault::Unenforceable => StatusCode::UNPROCESSABLE_ENTITY,
            Fault::Limit => StatusCode::TOO_MANY_REQUESTS,
            Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            field: refusal.field.clone(),
            rule: refusal.rule.clone(),
            cure: refusal.cure.clone(),
            ..Self::new(status, &refusal.code, refusal.message.clone())
        }
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        Self::from_refusal(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, axum::Json(self)).into_response();
        response
            .headers_mut()
            .insert(::http::header::CONTENT_TYPE, ::http::HeaderValue::from_static("application/problem+json"));
        response
    }
}
