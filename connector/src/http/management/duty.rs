//! What agreements oblige us to do, and what transfers brought us.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use kontor_core::id::{AgreementId, ProcessId};
use kontor_core::refusal::{Fault, Refusal};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Paging, Path, Query, bad_id, list, ok};
use crate::control::Control;
use crate::control::error::ControlError;
use crate::store::DutyFilter;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/duties", get(duties))
        .route("/received", get(received))
        .route("/received/{transfer}", get(received_by))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DutyQuery {
    state: Option<String>,
    agreement: Option<String>,
    transfer: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

async fn duties(State(control): State<Arc<Control>>, Query(query): Query<DutyQuery>) -> Answer {
    let state = match query.state.as_deref() {
        None => None,
        Some("pending") => Some("pending"),
        Some("fulfilled") => Some("fulfilled"),
        Some("violated") => Some("violated"),
        Some(other) => {
            return Err(Refusal::new(Fault::Malformed, "query", format!("`{other}` is no state of a duty"))
                .at("state")
                .cure("pending, fulfilled or violated")
                .into());
        }
    };
    let filter = DutyFilter {
        state,
        agreement: query.agreement.map(AgreementId::parse).transpose().map_err(bad_id("agreement"))?,
        transfer: query.transfer.map(ProcessId::parse).transpose().map_err(bad_id("transfer"))?,
    };
    let page = Paging { after: query.after, limit: query.limit }.page();
    Ok(list(control.store().duties(&filter, &page).await?, |duty| json!(duty.value)))
}

async fn received(State(control): State<Arc<Control>>, Query(paging): Query<Paging>) -> Answer {
    Ok(list(control.store().received_all(&paging.page()).await?, |received| json!(received.value)))
}

async fn received_by(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let transfer = ProcessId::parse(id.as_str()).map_err(bad_id("transfer"))?;
    let received = control.store().received(&transfer).await?;
    Ok(ok(&received.ok_or_else(|| ControlError::not_found("received data", &id))?))
}
