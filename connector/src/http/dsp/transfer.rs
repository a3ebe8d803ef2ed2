//! Spec: DSP 2025-1, Transfer Process HTTPS Binding.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use kontor_core::peer::VerifiedPeer;
use kontor_core::transfer::Transfer;
use serde_json::Value;

use super::{Chapter, Process, answer, bounded, told};
use crate::control::Control;
use crate::control::transfer::Endpoint;
use crate::control::wire_format::transfer_ack;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/transfers/request", post(open))
        .route("/transfers/{pid}", get(state))
        .route("/transfers/{pid}/start", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Start)))
        .route("/transfers/{pid}/completion", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Completion)))
        .route("/transfers/{pid}/suspension", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Suspension)))
        .route("/transfers/{pid}/termination", post(|s, p, i, b| receive(s, p, i, b, Endpoint::Termination)))
}

async fn open(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match bounded(Chapter::Transfer, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let result = control.transfer_opened(&peer, &body).await;
    answer(control, StatusCode::CREATED, result, &body, None)
}

async fn receive(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Path(pid): Path<String>,
    body: Result<Bytes, BytesRejection>,
    endpoint: Endpoint,
) -> Response {
    let body = match bounded(Chapter::Transfer, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    let result = control.transfer_received(&peer, &pid, endpoint, &body).await;
    answer(control, StatusCode::OK, result, &body, Some(&pid))
}

async fn state(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Path(pid): Path<String>,
) -> Response {
    told(control.transfer_asked(peer.participant(), &pid).await, &pid)
}

impl Process for Transfer {
    const CHAPTER: Chapter = Chapter::Transfer;

    fn acknowledged(&self) -> Value {
        transfer_ack(self)
    }
}
