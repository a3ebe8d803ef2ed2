//! Lets somebody else say "begin now" without the operator's token: for conformance kits, whose
//! tests of the consumer begin with such a call. Part of the profile `insecure` alone, and like
//! all of it on loopback alone.
//!
//! * `POST /negotiations/requests`: `{"providerId", "offerId", "datasetId", "connectorAddress"}`
//! * `POST /transfers/requests`: `{"providerId", "agreementId", "format", "connectorAddress"}`

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use kontor_core::id::{AgreementId, DatasetId, IdError, OfferId, ParticipantId};
use kontor_core::negotiation::Offer;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::odrl::PolicyDocument;
use kontor_wire::problem::Problem;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::control::Control;
use crate::control::error::ControlError;
use crate::control::negotiation::NewNegotiation;

/// Both routes.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/negotiations/requests", post(negotiation))
        .route("/transfers/requests", post(transfer))
        .with_state(control)
}

/// Unknown members are let through: the caller's format is its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NegotiationRequest {
    provider_id: String,
    offer_id: String,
    dataset_id: String,
    connector_address: String,
}

async fn negotiation(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    answer(begin_negotiation(&control, &body).await)
}

async fn begin_negotiation(control: &Control, body: &[u8]) -> Result<String, ControlError> {
    let request: NegotiationRequest = read(body)?;
    // The caller names an offer that it publishes nowhere; plain use is what can be asked for.
    let policy = json!({ "@type": "Offer", "permission": [{ "action": "use" }] });
    let policy = PolicyDocument::from_value(policy).unwrap_or_default();
    let offer = Offer {
        policy: policy.with("@id", &request.offer_id).with("target", &request.dataset_id),
        id: OfferId::parse(request.offer_id).map_err(at("offerId"))?,
        target: DatasetId::parse(request.dataset_id).map_err(at("datasetId"))?,
    };
    let counterparty = ParticipantId::parse_insecure(request.provider_id).map_err(at("providerId"))?;
    let new = NewNegotiation { counterparty, address: request.connector_address, offer };
    Ok(control.request(new).await?.id.to_string())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransferRequest {
    agreement_id: String,
    format: String,
    connector_address: String,
}

async fn transfer(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    answer(begin_transfer(&control, &body).await)
}

async fn begin_transfer(control: &Control, body: &[u8]) -> Result<String, ControlError> {
    let request: TransferRequest = read(body)?;
    let agreement = AgreementId::parse(request.agreement_id).map_err(at("agreementId"))?;
    let transfer = control
        .request_transfer(&agreement, Some(request.connector_address), &request.format, None, Vec::new())
        .await?;
    Ok(transfer.id.to_string())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(Fault::Malformed, "body", error.to_string()).cure("the members that the route's description lists")
    })
}

fn at(field: &'static str) -> impl FnOnce(IdError) -> Refusal {
    move |error| Refusal::new(Fault::Malformed, "identifier", error.to_string()).at(field)
}

fn answer(result: Result<String, ControlError>) -> Response {
    match result {
        Ok(id) => (StatusCode::ACCEPTED, axum::Json(json!({ "id": id }))).into_response(),
        Err(error) => Problem::from_refusal(&error.refusal()).into_response(),
    }
}
