//! Transfers and their flows.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::routing::{get, post};
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::Role;
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::{Command, MessageName, State as TransferState, StateName, Transfer};
use kontor_vocab::iri::FORMAT_HTTP_PULL;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Paging, Path, Query, Waiting, bad_id, list, ok, read, reply};
use crate::control::Control;
use crate::control::error::ControlError;
use crate::model::SinkSpec;
use crate::store::TransferFilter;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/transfers", post(create).get(index))
        .route("/transfers/{id}", get(show))
        .route("/transfers/{id}/flows", get(flows))
        .route("/transfers/{id}/{action}", post(act))
}

/// Tokens are not shown.
fn view(transfer: &Transfer) -> Value {
    let (reason, endpoint) = match &transfer.state {
        TransferState::Suspended { by, data_address } => (json!(by), data_address.as_ref()),
        TransferState::Terminated { ended } => (json!(ended), None),
        TransferState::Completed { by } => (json!({ "by": by }), None),
        TransferState::Started { data_address } => (Value::Null, data_address.as_ref()),
        TransferState::Initial | TransferState::Requested => (Value::Null, None),
    };
    let actions: Vec<&str> = transfer.allowed_commands().into_iter().map(MessageName::command).collect();
    let mut value = json!({
        "id": transfer.id,
        "role": transfer.role,
        "state": transfer.state.name().as_str(),
        "counterparty": transfer.counterparty,
        "peer_pid": transfer.peer_pid,
        "peer_address": transfer.peer_address,
        "agreement": transfer.agreement,
        "dataset": transfer.dataset,
        "format": transfer.format,
        "purpose": (!transfer.purpose.is_empty()).then_some(&transfer.purpose),
        "endpoint": endpoint.and_then(|address| address.endpoint.clone()),
        "why": reason,
        "pending": transfer.pending.as_ref().map(|pending| pending.message.name()),
        "problem": transfer.problem,
        "actions": actions,
    });
    if let Value::Object(map) = &mut value {
        map.retain(|_, value| !value.is_null());
    }
    value
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    agreement: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    address: Option<String>,
    /// Where the data goes; absent: nothing is pulled, and the data address is left to others.
    #[serde(default)]
    sink: Option<SinkSpec>,
    /// What the data is for: a URI, or several. The provider is told.
    #[serde(default, deserialize_with = "kontor_vocab::dsp::one_or_many")]
    purpose: Vec<String>,
}

async fn create(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let new: New = read(body)?;
    let agreement = AgreementId::parse(new.agreement).map_err(bad_id("agreement"))?;
    let format = new.format.as_deref().unwrap_or(FORMAT_HTTP_PULL);
    let transfer = control.request_transfer(&agreement, new.address, format, new.sink, new.purpose).await?;
    Ok(reply(StatusCode::CREATED, &view(&transfer)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    role: Option<Role>,
    state: Option<StateName>,
    counterparty: Option<String>,
    agreement: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

async fn index(State(control): State<Arc<Control>>, Query(query): Query<Filter>) -> Answer {
    let filter = TransferFilter {
        role: query.role,
        state: query.state,
        counterparty: query
            .counterparty
            .map(ParticipantId::parse_insecure)
            .transpose()
            .map_err(bad_id("counterparty"))?,
        agreement: query.agreement.map(AgreementId::parse).transpose().map_err(bad_id("agreement"))?,
    };
    let page = Paging { after: query.after, limit: query.limit }.page();
    Ok(list(control.store().transfers(&filter, &page).await?, |loaded| view(&loaded.value)))
}

async fn show(State(control): State<Arc<Control>>, Path(id): Path<String>, Query(waiting): Query<Waiting>) -> Answer {
    let id = ProcessId::parse(id).map_err(bad_id("id"))?;
    waiting.names::<StateName>()?;
    let transfer = waiting
        .until(&control, &id, || async {
            let loaded = control.store().transfer(&id).await?;
            let loaded = loaded.ok_or_else(|| ControlError::not_found("transfer", id.as_str()))?.value;
            let state = loaded.state.name();
            Ok((loaded, state.as_str(), state.is_terminal()))
        })
        .await?;
    Ok(ok(&view(&transfer)))
}

async fn flows(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let id = ProcessId::parse(id).map_err(bad_id("id"))?;
    if control.store().transfer(&id).await?.is_none() {
        return Err(ControlError::not_found("transfer", id.as_str()).into());
    }
    let flows = control.store().flows(&id).await?;
    Ok(ok(&json!({ "items": flows, "running": control.running_flows(&id) })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

async fn act(
    State(control): State<Arc<Control>>,
    Path((id, action)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let act: Act = read(body)?;
    let id = ProcessId::parse(id).map_err(bad_id("id"))?;
    let reason: Vec<String> = act.reason.into_iter().collect();
    let transfer = match action.as_str() {
        "start" | "resume" => control.start_transfer(&id).await?,
        "suspend" => control.decide_transfer(&id, Command::Suspend { code: act.code, reason }).await?,
        "complete" => control.complete_transfer(&id).await?,
        "terminate" => control.decide_transfer(&id, Command::Terminate { code: act.code, reason }).await?,
        other => {
            return Err(Refusal::new(Fault::NotFound, "action", format!("there is no action `{other}`"))
                .cure("start, resume, suspend, complete or terminate")
                .into());
        }
    };
    Ok(ok(&view(&transfer)))
}
