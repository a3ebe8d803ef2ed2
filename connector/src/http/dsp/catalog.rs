//! Spec: DSP 2025-1, Catalog HTTPS Binding.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use kontor_core::peer::VerifiedPeer;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::compact;
use kontor_vocab::dsp::CatalogRequest;
use serde::Deserialize;
use serde_json::Value;

use super::{Chapter, DspError, bounded, json};
use crate::control::Control;
use crate::control::catalog::CatalogQuery;
use crate::control::error::ControlError;
use crate::control::wire_format::{parse_json, segment};

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new().route("/catalog/request", post(request)).route("/catalog/datasets/{id}", get(dataset))
}

#[derive(Debug, Deserialize)]
struct Paging {
    after: Option<String>,
}

async fn request(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Query(paging): Query<Paging>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match bounded(Chapter::Catalog, body) {
        Ok(body) => body,
        Err(response) => return response,
    };
    match answer(&control, &peer, paging.after, &body).await {
        Ok(response) => response,
        Err(error) => DspError::new(Chapter::Catalog, &error, &[]).into_response(),
    }
}

async fn answer(
    control: &Control,
    peer: &VerifiedPeer,
    after: Option<String>,
    body: &[u8],
) -> Result<Response, ControlError> {
    let message: CatalogRequest = serde_json::from_value(compact(parse_json(body)?)).map_err(|error| {
        Refusal::new(Fault::Malformed, "message.malformed", format!("the body is no CatalogRequestMessage: {error}"))
    })?;
    if message.kind != "CatalogRequestMessage" {
        return Err(Refusal::new(Fault::Malformed, "message.malformed", format!("`@type` is `{}`", message.kind))
            .at("@type")
            .cure("`CatalogRequestMessage`")
            .into());
    }
    let query = CatalogQuery::parse(message.filter.as_ref())?;
    let page = control.catalog_part(peer.participant(), query, after).await?;
    let mut response = json(StatusCode::OK, &serde_json::to_value(&page.catalog).unwrap_or(Value::Null));
    // Spec: DSP 2025-1, Catalog HTTPS Binding, pagination: `next` and `previous`.
    for (relation, cursor) in [("next", page.next.map(Some)), ("previous", page.previous)] {
        let Some(cursor) = cursor else { continue };
        let query = cursor.map(|cursor| format!("?after={}", segment(&cursor))).unwrap_or_default();
        let link = format!("<{}/catalog/request{query}>; rel=\"{relation}\"", control.protocol_base());
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().append(header::LINK, link);
        }
    }
    Ok(response)
}

async fn dataset(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<VerifiedPeer>,
    Path(id): Path<String>,
) -> Response {
    match control.dataset_for(peer.participant(), &id).await {
        Ok(dataset) => json(StatusCode::OK, &serde_json::to_value(dataset).unwrap_or(Value::Null)),
        Err(error) => DspError::new(Chapter::Catalog, &error, &[]).into_response(),
    }
}
