//! The HTTP faces: parse, call control, answer. No business rules.
//!
//! * [`dsp`]: the Dataspace Protocol for other connectors, with its own error bodies.
//! * [`initiation`]: "begin now" for conformance kits, in the profile `insecure` alone.
//! * [`management`]: the operator's API, errors as RFC 9457 problems.

pub mod dsp;
pub mod initiation;
pub mod management;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

/// Lets every request run to its end although its peer hangs up: what was committed is then also
/// acted on, and the messages that the answer would have set off are sent.
pub fn uncancelled(router: Router) -> Router {
    router.layer(from_fn(to_its_end))
}

async fn to_its_end(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a request ended in a panic");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
