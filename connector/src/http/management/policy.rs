//! Policies in words, the same as `kontor policy …` says: checked, explained, and as templates.
//! Nothing is kept here; `/policies` keeps.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::refusal::{Fault, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, Path, Query, bad_id, ok};
use crate::control::Control;
use crate::policy::check::check;
use crate::policy::explain::{Question, explain};
use crate::policy::template::{TEMPLATES, template};

/// Names below `/policies` that are taken, so that no kept policy can have them.
pub(super) const TAKEN: [&str; 3] = ["check", "explain", "templates"];

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/capabilities", get(capabilities))
        .route("/policies/check", post(checked))
        .route("/policies/explain", post(explained))
        .route("/policies/templates", get(templates))
        .route("/policies/templates/{name}", get(filled))
}

/// The body is the policy as it is written, so that lines can be named. A policy that is refused
/// is an answer here, not an error.
async fn checked(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let found = check(&text(body)?, control.capabilities())?;
    let words = found.text("the policy");
    Ok(ok(&with_text(json!(found), words)))
}

/// A request to decide, as parameters of the query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    assignee: Option<String>,
    action: Option<String>,
    target: Option<String>,
    /// Absent: now.
    at: Option<Timestamp>,
    agreed_at: Option<Timestamp>,
    uses: Option<u64>,
    /// `name=value`, with semicolons between several.
    facts: Option<String>,
}

async fn explained(
    State(control): State<Arc<Control>>,
    Query(ask): Query<Ask>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let told = explain(&text(body)?, question(ask)?.as_ref(), control.capabilities())?;
    let words = told.text();
    Ok(ok(&with_text(json!(told), words)))
}

fn question(ask: Ask) -> Result<Option<Question>, Failure> {
    let Some(assignee) = ask.assignee else {
        let alone = ask.action.is_none()
            && ask.target.is_none()
            && ask.at.is_none()
            && ask.agreed_at.is_none()
            && ask.uses.is_none()
            && ask.facts.is_none();
        return match alone {
            true => Ok(None),
            false => Err(Refusal::new(Fault::Malformed, "query", "the request says not who asks")
                .at("assignee")
                .cure("`assignee`, a participant's URI")
                .into()),
        };
    };
    Ok(Some(Question {
        assignee: ParticipantId::parse_insecure(assignee).map_err(bad_id("assignee"))?,
        action: ask.action.unwrap_or_else(|| "use".to_owned()),
        target: ask.target,
        at: ask.at.unwrap_or_else(Timestamp::now),
        agreed_at: ask.agreed_at,
        uses: ask.uses,
        facts: facts(ask.facts.as_deref().unwrap_or_default())?,
    }))
}

fn facts(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = text.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    pairs.map(pair).collect::<Option<_>>().ok_or_else(|| {
        Refusal::new(Fault::Malformed, "query", format!("`{text}` states no facts"))
            .at("facts")
            .cure("`spatial=urn:example:de;purpose=urn:example:research`")
    })
}

fn text(body: Result<Bytes, BytesRejection>) -> Result<String, Failure> {
    String::from_utf8(super::request::bytes(body)?.into()).map_err(|error| {
        Refusal::new(Fault::Malformed, "body", error.to_string()).at("body").cure("a policy in UTF-8").into()
    })
}

fn with_text(mut value: Value, text: String) -> Value {
    if let Value::Object(map) = &mut value {
        map.insert("text".to_owned(), Value::String(text));
    }
    value
}

async fn capabilities(State(control): State<Arc<Control>>) -> Answer {
    Ok(ok(control.statement()))
}

async fn templates(State(control): State<Arc<Control>>) -> Answer {
    let items: Vec<Value> = TEMPLATES.iter().map(|template| template.view(control.capabilities())).collect();
    Ok(ok(&json!({ "items": items })))
}

/// The parameters are those of the query: `?count=10`.
async fn filled(State(control): State<Arc<Control>>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let values: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    Ok(ok(&template(&name)?.fill(&values, control.capabilities())?))
}

/// A kept policy must be reachable by its name.
pub(super) fn not_taken(id: &str) -> Result<(), Refusal> {
    if TAKEN.contains(&id) {
        return Err(Refusal::new(Fault::Malformed, "identifier", format!("`{id}` names a route of this API"))
            .at("id")
            .cure("another name"));
    }
    Ok(())
}
