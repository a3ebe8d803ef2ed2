//! How the connector is: status, audit, outbox, brokers, health.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use kontor_core::id::{AgreementId, ProcessId};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Paging, Path, Query, bad_id, list, ok, read, reply};
use crate::control::Control;
use crate::store::AuditFilter;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/status", get(status))
        .route("/health/live", get(|| async { StatusCode::NO_CONTENT }))
        .route("/health/ready", get(ready))
        .route("/audit", get(audit))
        .route("/outbox", get(outbox))
        .route("/brokers", get(brokers))
        .route("/brokers/query", post(query))
        .route("/brokers/{participant}", delete(withdraw))
        .route("/brokers/{participant}/publish", post(publish))
        .route("/self-description", get(self_description))
}

async fn status(State(control): State<Arc<Control>>) -> Answer {
    Ok(ok(&json!({
        "participant": control.participant(),
        "protocol": control.protocol_base(),
        "version": env!("CARGO_PKG_VERSION"),
        "store": control.store().describe(),
    })))
}

async fn ready(State(control): State<Arc<Control>>) -> Answer {
    control.store().health().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    process: Option<String>,
    agreement: Option<String>,
    event: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

async fn audit(State(control): State<Arc<Control>>, Query(query): Query<AuditQuery>) -> Answer {
    let filter = AuditFilter {
        process: query.process.map(ProcessId::parse).transpose().map_err(bad_id("process"))?,
        agreement: query.agreement.map(AgreementId::parse).transpose().map_err(bad_id("agreement"))?,
        event: query.event,
        ..AuditFilter::default()
    };
    let page = Paging { after: query.after, limit: query.limit }.page();
    let listing = control.store().audit(&filter, &page).await?;
    Ok(list(listing, |line| json!(line)))
}

async fn outbox(State(control): State<Arc<Control>>) -> Answer {
    let waiting = control.store().outbox_all().await?;
    let items: Vec<_> = waiting
        .iter()
        .map(|entry| {
            json!({
                // The body may hold a token: it is not shown.
                "id": entry.id, "process": entry.process, "to": entry.to, "url": entry.url,
                "queued": entry.queued, "attempts": entry.attempts,
                "next_attempt": entry.next_attempt, "last_error": entry.last_error,
            })
        })
        .collect();
    Ok(ok(&json!({ "items": items })))
}

async fn brokers(State(control): State<Arc<Control>>) -> Answer {
    Ok(ok(&json!({ "items": control.publications() })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerQuery {
    broker: Option<String>,
    sparql: String,
}

async fn query(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let query: BrokerQuery = read(body)?;
    Ok(ok(&control.broker_query(query.broker.as_deref(), &query.sparql).await?))
}

async fn withdraw(State(control): State<Arc<Control>>, Path(broker): Path<String>) -> Answer {
    Ok(ok(&control.withdraw_at(&broker).await?))
}

/// It is on its way: `GET /brokers` says when it is there.
async fn publish(State(control): State<Arc<Control>>, Path(broker): Path<String>) -> Answer {
    Ok(reply(StatusCode::ACCEPTED, &control.publish_at(&broker).await?))
}

async fn self_description(State(control): State<Arc<Control>>) -> Answer {
    Ok(ok(&control.self_description().await?))
}
