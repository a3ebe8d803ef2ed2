//! What policies ask about: claims of participants, facts of agreements, events and states.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use jiff::Timestamp;
use kontor_core::id::{AgreementId, ParticipantId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, Path, bad_id, ok, read};
use crate::control::Control;
use crate::control::fact::NewFact;
use crate::model::{FactRecord, Subject};

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/participants/{id}/claims", get(claims).put(replace_claims))
        .route("/participants/{id}/claims/{name}", put(put_claim).delete(delete_claim))
        .route("/agreements/{id}/facts", get(facts).put(replace_facts))
        .route("/agreements/{id}/facts/{name}", put(put_fact).delete(delete_fact))
        .route("/events", get(events))
        .route("/events/{name}", put(raise_event).delete(clear_event))
        .route("/states", get(states))
        .route("/states/{name}", put(raise_state).delete(clear_state))
}

type Body = Result<Bytes, BytesRejection>;
type Shared = State<Arc<Control>>;

fn participant(id: String) -> Result<Subject, Failure> {
    Ok(Subject::Participant(ParticipantId::parse_insecure(id).map_err(bad_id("id"))?))
}

fn agreement(id: String) -> Result<Subject, Failure> {
    Ok(Subject::Agreement(AgreementId::parse(id).map_err(bad_id("id"))?))
}

async fn claims(State(control): Shared, Path(id): Path<String>) -> Answer {
    all(&control, &participant(id)?).await
}

async fn replace_claims(State(control): Shared, Path(id): Path<String>, body: Body) -> Answer {
    replace(&control, &participant(id)?, body).await
}

async fn put_claim(State(control): Shared, Path((id, name)): Path<(String, String)>, body: Body) -> Answer {
    set(&control, &participant(id)?, name, body).await
}

async fn delete_claim(State(control): Shared, Path((id, name)): Path<(String, String)>) -> Answer {
    forget(&control, &participant(id)?, &name).await
}

async fn facts(State(control): Shared, Path(id): Path<String>) -> Answer {
    all(&control, &agreement(id)?).await
}

async fn replace_facts(State(control): Shared, Path(id): Path<String>, body: Body) -> Answer {
    replace(&control, &agreement(id)?, body).await
}

async fn put_fact(State(control): Shared, Path((id, name)): Path<(String, String)>, body: Body) -> Answer {
    set(&control, &agreement(id)?, name, body).await
}

async fn delete_fact(State(control): Shared, Path((id, name)): Path<(String, String)>) -> Answer {
    forget(&control, &agreement(id)?, &name).await
}

async fn events(State(control): Shared) -> Answer {
    all(&control, &Subject::Events).await
}

async fn raise_event(State(control): Shared, Path(name): Path<String>, body: Body) -> Answer {
    set(&control, &Subject::Events, name, body).await
}

async fn clear_event(State(control): Shared, Path(name): Path<String>) -> Answer {
    forget(&control, &Subject::Events, &name).await
}

async fn states(State(control): Shared) -> Answer {
    all(&control, &Subject::States).await
}

async fn raise_state(State(control): Shared, Path(name): Path<String>, body: Body) -> Answer {
    set(&control, &Subject::States, name, body).await
}

async fn clear_state(State(control): Shared, Path(name): Path<String>) -> Answer {
    forget(&control, &Subject::States, &name).await
}

/// A fact in a body. Without a value it is so: `true`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    #[serde(default)]
    name: Option<String>,
    #[serde(default = "so")]
    value: Value,
    #[serde(default)]
    valid_until: Option<Timestamp>,
    #[serde(default)]
    note: String,
    /// What a listing shows and a body may repeat; it is set anew.
    #[serde(default, rename = "since")]
    _since: Option<Timestamp>,
}

fn so() -> Value {
    Value::Bool(true)
}

/// All facts of a subject, in the shape that [`all`] answers with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    items: Vec<Fact>,
}

fn view(fact: &FactRecord) -> Value {
    let mut value = json!({ "name": fact.name, "value": fact.value, "since": fact.since });
    if let Value::Object(map) = &mut value {
        if let Some(until) = fact.valid_until {
            map.insert("valid_until".to_owned(), json!(until));
        }
        if !fact.note.is_empty() {
            map.insert("note".to_owned(), json!(fact.note));
        }
    }
    value
}

async fn all(control: &Control, subject: &Subject) -> Answer {
    let facts = control.facts(subject).await?;
    Ok(ok(&json!({ "items": facts.iter().map(view).collect::<Vec<_>>() })))
}

fn new(fact: Fact, name: String) -> NewFact {
    NewFact { name, value: fact.value, valid_until: fact.valid_until, note: fact.note }
}

async fn replace(control: &Control, subject: &Subject, body: Body) -> Answer {
    let facts: Facts = read(body)?;
    let facts = facts.items.into_iter().map(|mut fact| {
        let name = fact.name.take().unwrap_or_default();
        new(fact, name)
    });
    let facts = control.set_facts(subject, facts.collect(), true).await?;
    Ok(ok(&json!({ "items": facts.iter().map(view).collect::<Vec<_>>() })))
}

async fn set(control: &Control, subject: &Subject, name: String, body: Body) -> Answer {
    let fact: Fact = read(body)?;
    let facts = control.set_facts(subject, vec![new(fact, name)], false).await?;
    Ok(ok(&facts.first().map(view)))
}

async fn forget(control: &Control, subject: &Subject, name: &str) -> Answer {
    control.forget_fact(subject, name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
