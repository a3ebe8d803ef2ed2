//! Spec: DSP 2025-1, Contract Negotiation HTTPS Binding. Provider and consumer paths are the
//! same resource, since a process is found by our own pid whatever our role.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use kontor_core::negotiation::Negotiation;
use kontor_core::peer::VerifiedPeer;
use serde_json::Value;

use super::{Chapter, Process, answer, bounded, told};
use crate::control::Control;
use crate::control::negotiation::Endpoint;
use crate::control::wire_format::negotiation_ack;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/negotiations/request", post(|s, p, b| open(s, p, b, Endpoint::Request)))
        .route("/negotiations/offers", post(|s, p, b| open(s, p, b, Endpoint::Offers)))
        .route("/negotiations/{pid}", get(state))
        .route("/negotiations/{pid}/request", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Request)))
        .route("/negotiations/{pid}/offers", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Offers)))
        .route("/negotiations/{pid}/events", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Events)))
        .route("/negotiations/{pid}/agreement", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Agreement)))
        .route(
            "/negotiations/{pid}/agreement/verification",
            post(|s, p, i, b| receive(s, p, i, b, Endpoint::Verification)),
        )
        .route("/negotiations/{pid}/termination", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Termination)))
}

async fn open(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    body: Result<Bytes, BytesRejection>,
    endpoint: Endpoint,
) -> Response {
    let body = match bounded(Chapter::Negotiation, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let result = control.negotiation_opened(peer.participant(), endpoint, &body).await;
    answer(control, StatusCode::CREATED, result, &body, None)
}

async fn receive(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Path(pid): Path<String>,
    body: Result<Bytes, BytesRejection>,
    endpoint: Endpoint,
) -> Response {
    let body = match bounded(Chapter::Negotiation, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let result = control.negotiation_received(peer.participant(), &pid, endpoint, &body).await;
    answer(control, StatusCode::OK, result, &body, Some(&pid))
}

async fn state(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Path(pid): Path<String>,
) -> Response {
    told(control.negotiation_asked(peer.participant(), &pid).await, &pid)
}

impl Process for Negotiation {
    const CHAPTER: Chapter = Chapter::Negotiation;

    fn acknowledged(&self) -> Value {
        negotiation_ack(self)
    }
}
