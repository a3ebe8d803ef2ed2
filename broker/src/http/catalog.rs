//! Lists and search as JSON; every entry names the participant and where its connector is.

use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use kontor_wire::problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::registry::instant;
use super::{Broker, failed};
use crate::registry::now_ms;
use crate::search;
use crate::store::{DatasetRow, Found, Page, ParticipantRow, Store, StoreError, Window};

/// Items of a page that does not ask.
const LIMIT_DEFAULT: i64 = 100;
/// Most items of a page.
const LIMIT_MAX: i64 = 1000;

/// What a list can be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<i64>,
    offset: Option<i64>,
    participant: Option<String>,
    pub(super) q: Option<String>,
}

type Parameters = Result<Query<Asked>, axum::extract::rejection::QueryRejection>;

/// A parameter that means nothing here: what is asked for would not be what is answered.
pub(super) fn bad_parameter(detail: impl Into<String>, cure: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail).at("query").cure(cure)
}

/// What a list is asked, where it has those parameters besides `limit` and `offset`.
pub(super) fn asked(parameters: Parameters, more: &[&str]) -> Result<(Asked, Window), Problem> {
    let names: Vec<String> = ["limit", "offset"].iter().chain(more).map(|name| format!("`{name}`")).collect();
    let cure = names.join(", ");
    let Query(asked) = parameters.map_err(|error| bad_parameter(error.body_text(), &cure))?;
    for (name, is_asked) in [("participant", asked.participant.is_some()), ("q", asked.q.is_some())] {
        if is_asked && !more.contains(&name) {
            return Err(bad_parameter(format!("`{name}` means nothing here"), &cure));
        }
    }
    let window = Window { limit: asked.limit.unwrap_or(LIMIT_DEFAULT), offset: asked.offset.unwrap_or(0) };
    if !(1..=LIMIT_MAX).contains(&window.limit) || window.offset < 0 {
        let detail = format!("limit {} and offset {} are out of range", window.limit, window.offset);
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail)
            .at("limit")
            .cure(format!("a limit of 1 to {LIMIT_MAX} and an offset from 0")));
    }
    Ok((asked, window))
}

/// Reads the store off the asynchronous threads.
pub(super) async fn blocking<T: Send + 'static>(
    broker: Broker,
    work: impl FnOnce(&Store, i64) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(move || work(&broker.store, now_ms())).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

pub(super) async fn list_participants(broker: Broker, window: Window) -> Result<Page<ParticipantRow>, Problem> {
    blocking(broker, move |store, now| store.participants(window, now)).await
}

pub(super) async fn list_datasets(
    broker: Broker,
    participant: Option<String>,
    window: Window,
) -> Result<Page<DatasetRow>, Problem> {
    blocking(broker, move |store, now| store.datasets(participant.as_deref(), window, now)).await
}

pub(super) async fn find(broker: Broker, text: &str, window: Window) -> Result<Page<Found>, Problem> {
    match search::expression(text) {
        None => Ok(Page { total: 0, items: Vec::new() }),
        Some(expression) => blocking(broker, move |store, now| store.search(&expression, window, now)).await,
    }
}

/// Where a list goes on after a page of it, if it does.
pub(super) fn end<T>(found: &Page<T>, window: Window) -> Option<i64> {
    let end = window.offset.saturating_add(i64::try_from(found.items.len()).unwrap_or(i64::MAX));
    (end < found.total && !found.items.is_empty()).then_some(end)
}

fn page<T: Serialize>(name: &str, path: &str, more: &[(&str, &str)], found: &Page<T>, window: Window) -> Json<Value> {
    let mut body = json!({ "total": found.total, name: found.items });
    if let Some(end) = end(found, window) {
        let mut next = url::form_urlencoded::Serializer::new(String::new());
        next.extend_pairs(more);
        next.append_pair("limit", &window.limit.to_string()).append_pair("offset", &end.to_string());
        body["next"] = Value::from(format!("{path}?{}", next.finish()));
    }
    Json(body)
}

pub(super) async fn participants(State(broker): State<Broker>, parameters: Parameters) -> Result<Json<Value>, Problem> {
    let (_, window) = asked(parameters, &[])?;
    let found = list_participants(broker, window).await?;
    let items = found.items.iter().map(|row| {
        json!({
            "participant": row.participant,
            "title": row.title,
            "endpoint": row.endpoint,
            "datasets": row.datasets,
            "graph": row.participant,
            "version": row.version,
            "digest": row.digest,
            "lease_until": instant(row.lease_until_ms),
            "updated": instant(row.updated_ms),
        })
    });
    let found = Page { total: found.total, items: items.collect::<Vec<_>>() };
    Ok(page("participants", "/v1/participants", &[], &found, window))
}

pub(super) async fn datasets(State(broker): State<Broker>, parameters: Parameters) -> Result<Json<Value>, Problem> {
    let (asked, window) = asked(parameters, &["participant"])?;
    let found = list_datasets(broker, asked.participant.clone(), window).await?;
    let more: Vec<(&str, &str)> = asked.participant.iter().map(|who| ("participant", who.as_str())).collect();
    Ok(page("datasets", "/v1/datasets", &more, &found, window))
}

pub(super) async fn search(State(broker): State<Broker>, parameters: Parameters) -> Result<Json<Value>, Problem> {
    let (asked, window) = asked(parameters, &["q"])?;
    let Some(text) = asked.q else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", "there is nothing to search for")
            .at("q")
            .cure("`/v1/search?q=` and a word"));
    };
    let found = find(broker, &text, window).await?;
    let Json(mut body) = page("results", "/v1/search", &[("q", &text)], &found, window);
    body["query"] = Value::from(text);
    Ok(Json(body))
}
