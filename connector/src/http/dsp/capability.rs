//! The capability document. It is no part of the protocol: a peer that knows us can ask what we
//! enforce before it agrees to a policy that only we can hold to.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use kontor_core::peer::VerifiedPeer;

use crate::control::Control;
use crate::control::capability::Statement;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new().route("/capabilities", get(capabilities))
}

/// For every verified participant.
async fn capabilities(State(control): State<Arc<Control>>, _: Extension<VerifiedPeer>) -> Json<Statement> {
    Json(control.statement().clone())
}
