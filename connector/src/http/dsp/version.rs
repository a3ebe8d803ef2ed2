//! The version document. Spec: DSP 2025-1, Common Protocol, Exposure of Versions.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use kontor_vocab::dsp::{Version, Versions};
use kontor_vocab::iri::{DSP_BINDING, DSP_VERSION};
use serde_json::Map;

use crate::control::Control;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/.well-known/dspace-version", get(versions))
        // The same below the base that the self-description names.
        .route("/dsp/.well-known/dspace-version", get(versions))
        .route("/dsp/2025-1/.well-known/dspace-version", get(versions))
}

async fn versions(State(control): State<Arc<Control>>) -> Json<Versions> {
    let id = control.participant().as_str();
    let identifier_type = if id.starts_with("did:web:") { Some("did:web".to_owned()) } else { None };
    Json(Versions {
        protocol_versions: vec![Version {
            version: DSP_VERSION.to_owned(),
            path: "/dsp/2025-1".to_owned(),
            binding: DSP_BINDING.to_owned(),
            identifier_type,
            extra: Map::new(),
        }],
    })
}
