//! HTTP: the registry for participants, and reading for participants and people.
//!
//! One router serves both ports. Who registers is known from the certificate of the connection; on the browse port
//! there is none, and the registry says so.

#![allow(clippy::result_large_err, reason = "refusals are whole answers, made once per request")]

mod catalog;
mod registry;
mod sparql;
mod ui;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::{HeaderValue, StatusCode, header};
use kontor_wire::problem::Problem;
use serde_json::{Map, Value};

use crate::query::Queries;
use crate::registry::Registry;
use crate::store::Store;

/// What the handlers share.
#[derive(Clone)]
pub struct Broker {
    /// Who this broker is.
    pub participant: String,
    /// Where participants register.
    pub registry_url: String,
    /// Descriptions and leases.
    pub registry: Arc<Registry>,
    /// For lists and search.
    pub store: Arc<Store>,
    /// For SPARQL.
    pub queries: Arc<Queries>,
}

/// Longest time from a request's head to its answer, its body included. A query has its own time on top.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// Every route.
pub fn router(broker: Broker) -> Router {
    router_within(broker, REQUEST_TIME_MAX)
}

fn router_within(broker: Broker, time_max: Duration) -> Router {
    let query_time_max = time_max.saturating_add(broker.queries.limits().time_max);
    let in_time = move |request: Request, next: Next| {
        let is_query = matches!(request.uri().path(), "/sparql" | "/query");
        let time_max = if is_query { query_time_max } else { time_max };
        async move {
            let answer = tokio::time::timeout(time_max, next.run(request)).await;
            answer.unwrap_or_else(|_| too_slow(time_max))
        }
    };
    let registry = Router::new()
        .route("/v1/self-description", put(registry::announce).get(registry::own).delete(registry::withdraw))
        .route("/v1/self-description/renewal", post(registry::renew))
        .route(
            "/v1/participants/{participant}/self-description",
            get(registry::published).put(registry::announce_for).delete(registry::withdraw_for),
        )
        .route_layer(middleware::from_fn(no_parameters));
    Router::new()
        .merge(registry)
        .route("/v1/participants", get(catalog::participants))
        .route("/v1/datasets", get(catalog::datasets))
        .route("/v1/search", get(catalog::search))
        .route("/sparql", get(sparql::get).post(sparql::post))
        .route("/", get(ui::index))
        .route("/query", get(ui::query))
        .route("/style.css", get(ui::style))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(in_time))
        .layer(middleware::map_response(harden))
        .with_state(broker)
}

/// Every route, for the plain port on loopback: answers only to loopback names, so that a page elsewhere cannot read
/// it through a name that it controls.
pub fn browse_router(broker: Broker) -> Router {
    router(broker).layer(middleware::from_fn(loopback_names_only))
}

async fn loopback_names_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = host.parse::<http::uri::Authority>().ok();
    let name = authority.as_ref().map_or("", http::uri::Authority::host);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let local = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if local {
        return next.run(request).await;
    }
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "not-this-host", format!("`{host}` is not this machine"))
        .at("Host")
        .by("the browse port answers only to loopback names")
        .cure("`localhost` or `127.0.0.1`")
        .into_response()
}

/// The registry takes headers; a parameter that was meant for it must not be lost without a word.
async fn no_parameters(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => catalog::bad_parameter("there are no parameters here", "the header `Lease-Seconds` for a lease")
            .into_response(),
    }
}

fn too_slow(time_max: Duration) -> Response {
    let detail = format!("the request was not answered within {} ms", time_max.as_millis());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail)
        .by("a request is sent and answered within a time")
        .cure("the same request again, sent without a pause")
        .into_response()
}

async fn harden(mut response: Response) -> Response {
    const POLICY: &str =
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn ready(State(broker): State<Broker>) -> Result<&'static str, Problem> {
    catalog::blocking(broker, |store, now| store.participants(crate::store::Window { limit: 0, offset: 0 }, now))
        .await?;
    Ok("ready\n")
}

async fn unknown(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-path", format!("there is nothing at `{}`", request.uri().path()))
        .cure("`/v1/participants`, `/v1/datasets`, `/v1/search`, `/sparql` or `/`")
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("`{}` is not possible at `{}`", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail).cure("one of the methods in `Allow`")
}

/// Something that failed on our side: logged here, once, and not told in detail.
fn failed(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a request failed");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the broker could not do that; its log says why")
}

/// A problem with members of its own (RFC 9457, 3.2).
fn with_members(problem: Problem, members: Map<String, Value>) -> Response {
    let status = problem.status;
    let mut body = serde_json::to_value(&problem).unwrap_or_default();
    if let Value::Object(object) = &mut body {
        object.extend(members);
    }
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

/// A whole body within a limit.
async fn bounded(body: axum::body::Body, max: usize) -> Result<bytes::Bytes, Problem> {
    axum::body::to_bytes(body, max).await.map_err(|_| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("the body has more than {max} bytes"))
            .at("body")
            .by("limits.body_bytes")
            .cure(format!("at most {max} bytes, sent to the end"))
    })
}
