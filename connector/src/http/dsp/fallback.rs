//! What no handler answered (a path or method that there is not, a coding that is not read, a request that took too
//! long) in the protocol's own error bodies.

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kontor_core::refusal::{Fault, Refusal};

use super::{Chapter, DspError};

/// Puts a refusal that has no JSON body into words. For the outermost layer, since others answer by themselves.
pub async fn in_words(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let Some(rest) = path.strip_prefix("/dsp/2025-1/") else { return response };
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || kind.contains("json") {
        return response;
    }
    let mut segments = rest.split('/');
    let chapter = match segments.next() {
        Some("negotiations") => Chapter::Negotiation,
        Some("transfers") => Chapter::Transfer,
        _ => Chapter::Catalog,
    };
    let refusal = match status {
        StatusCode::NOT_FOUND => Refusal::new(Fault::NotFound, "http.path", format!("there is no path `{path}`"))
            .cure("a path of the specification's HTTPS binding"),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = response.headers().get(header::ALLOW).and_then(|methods| methods.to_str().ok());
            let refusal = Refusal::new(Fault::Malformed, "http.method", format!("`{path}` does not take this method"));
            refusal.cure(allowed.unwrap_or("POST for messages, GET for questions").to_owned())
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Refusal::new(Fault::Malformed, "http.content-coding", "the body has a content coding that is not read")
                .at("Content-Encoding")
                .cure("`gzip`, or none")
        }
        StatusCode::REQUEST_TIMEOUT => {
            Refusal::new(Fault::Unavailable, "limits.request_seconds_max", "the request took too long")
                .cure("the same message again")
        }
        _ => Refusal::new(Fault::Malformed, "http.request", format!("the request was refused: {status}")),
    };
    let error = DspError { chapter, refusal, pids: (None, None) };
    let error = match segments.next() {
        Some(pid) if !matches!(pid, "" | "request" | "offers") => error.about(pid),
        _ => error,
    };
    let mut answer = error.into_response();
    *answer.status_mut() = status;
    for name in [header::ALLOW, header::ACCEPT_ENCODING] {
        if let Some(value) = response.headers().get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
