//! Negotiations and the agreements that they end in.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::routing::{get, post};
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::{Command, MessageName, Negotiation, Offer, Role, StateName};
use kontor_core::policy;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, Paging, Path, Query, Waiting, bad_id, list, ok, read, reply};
use crate::control::Control;
use crate::control::error::ControlError;
use crate::control::negotiation::NewNegotiation;
use crate::control::wire_format;
use crate::store::{AgreementFilter, NegotiationFilter};

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/negotiations", post(create).get(index))
        .route("/negotiations/{id}", get(show))
        .route("/negotiations/{id}/{action}", post(act))
        .route("/agreements", get(agreements))
        .route("/agreements/{id}", get(agreement))
        .route("/agreements/{id}/revoke", post(revoke))
        .route("/agreements/{id}/uses", post(uses))
}

fn view(negotiation: &Negotiation) -> Value {
    let mut value = json!(negotiation);
    if let Value::Object(map) = &mut value {
        map.remove("seen");
        map.remove("compared");
        let compared = negotiation.compared.as_ref();
        map.insert("relation".to_owned(), json!(compared.map(|compared| compared.relation)));
        map.insert("difference".to_owned(), json!(compared.and_then(|compared| compared.difference.as_ref())));
        map.insert("state".to_owned(), json!(negotiation.state.name().as_str()));
        map.insert("offer".to_owned(), json!(negotiation.offer().map(|offer| &offer.policy)));
        map.insert("agreement".to_owned(), json!(negotiation.agreement()));
        map.insert(
            "ended".to_owned(),
            match &negotiation.state {
                kontor_core::negotiation::State::Terminated { ended } => json!(ended),
                _ => Value::Null,
            },
        );
        let actions: Vec<&str> = negotiation.allowed_commands().into_iter().map(MessageName::command).collect();
        map.insert("actions".to_owned(), json!(actions));
        map.retain(|_, value| !value.is_null());
    }
    value
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    /// `consumer` (we ask, the default) or `provider` (we offer unasked).
    #[serde(default)]
    role: Option<Role>,
    counterparty: String,
    address: String,
    /// The dataset; with it, `offer` may be an offer's id, or absent for the first one.
    #[serde(default)]
    dataset: Option<String>,
    #[serde(default)]
    offer: Option<Value>,
}

async fn create(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let new: New = read(body)?;
    let counterparty = ParticipantId::parse_insecure(new.counterparty).map_err(bad_id("counterparty"))?;
    let role = new.role.unwrap_or(Role::Consumer);
    let offer = match (new.offer, &new.dataset, role) {
        (Some(Value::Object(map)), dataset, _) => full_offer(Value::Object(map), dataset.as_deref())?,
        (Some(Value::String(id)), Some(dataset), Role::Consumer) => {
            control.remote_offer(&counterparty, &new.address, dataset, Some(&id)).await?
        }
        (None, Some(dataset), Role::Consumer) => {
            control.remote_offer(&counterparty, &new.address, dataset, None).await?
        }
        (Some(Value::String(id)), _, Role::Provider) => {
            let id = kontor_core::id::OfferId::parse(id).map_err(bad_id("offer"))?;
            control.own_offer(&id).await?
        }
        _ => {
            return Err(Refusal::new(Fault::Malformed, "body", "neither dataset nor offer says what to negotiate")
                .at("offer")
                .cure("`dataset` with an offer's id in `offer`, or a whole offer with `@id` and `target`")
                .into());
        }
    };
    let new = NewNegotiation { counterparty, address: new.address, offer };
    let negotiation = match role {
        Role::Consumer => control.request(new).await?,
        Role::Provider => control.offer_unasked(new).await?,
    };
    Ok(reply(StatusCode::CREATED, &view(&negotiation)))
}

fn full_offer(value: Value, target: Option<&str>) -> Result<Offer, Failure> {
    let document = PolicyDocument::from_value(compact(value)).map_err(|_| {
        Refusal::new(Fault::Malformed, "body", "the offer is no JSON object")
            .at("offer")
            .cure("a whole offer with `@id` and `target`")
    })?;
    let document = match target {
        Some(target) => policy::said_of_all(document, "target", target),
        None => document,
    };
    Ok(wire_format::offer(document.without("@context"))?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    role: Option<Role>,
    state: Option<StateName>,
    counterparty: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

async fn index(State(control): State<Arc<Control>>, Query(query): Query<Filter>) -> Answer {
    let filter = NegotiationFilter {
        role: query.role,
        state: query.state,
        counterparty: query
            .counterparty
            .map(ParticipantId::parse_insecure)
            .transpose()
            .map_err(bad_id("counterparty"))?,
    };
    let page = Paging { after: query.after, limit: query.limit }.page();
    let listing = control.store().negotiations(&filter, &page).await?;
    Ok(list(listing, |loaded| view(&loaded.value)))
}

async fn show(State(control): State<Arc<Control>>, Path(id): Path<String>, Query(waiting): Query<Waiting>) -> Answer {
    let id = ProcessId::parse(id).map_err(bad_id("id"))?;
    waiting.names::<StateName>()?;
    let negotiation = waiting
        .until(&control, &id, || async {
            let loaded = control.store().negotiation(&id).await?;
            let loaded = loaded.ok_or_else(|| ControlError::not_found("negotiation", id.as_str()))?.value;
            let state = loaded.state.name();
            Ok((loaded, state.as_str(), state.is_terminal()))
        })
        .await?;
    Ok(ok(&view(&negotiation)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    #[serde(default)]
    offer: Option<Value>,
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
    let offer = |value: Option<Value>| match value {
        Some(value) => full_offer(value, None),
        None => Err(Refusal::new(Fault::Malformed, "body", "`offer` is missing")
            .at("offer")
            .cure("a whole offer with `@id` and `target`")
            .into()),
    };
    let command = match action.as_str() {
        "request" => Command::Request { offer: offer(act.offer)? },
        "offer" => Command::Offer { offer: offer(act.offer)? },
        "accept" => Command::Accept,
        "agree" => match control.fresh_agreement_id() {
            Some(id) => Command::Agree { id },
            None => return Err(ControlError::Busy.into()),
        },
        "verify" => Command::Verify,
        "finalize" => Command::Finalize,
        "terminate" => Command::Terminate { code: act.code, reason: act.reason.into_iter().collect() },
        other => {
            return Err(Refusal::new(Fault::NotFound, "action", format!("there is no action `{other}`"))
                .cure("request, offer, accept, agree, verify, finalize or terminate")
                .into());
        }
    };
    Ok(ok(&view(&control.decide_negotiation(&id, command).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgreementQuery {
    role: Option<Role>,
    counterparty: Option<String>,
    dataset: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

async fn agreements(State(control): State<Arc<Control>>, Query(query): Query<AgreementQuery>) -> Answer {
    let filter = AgreementFilter {
        role: query.role,
        counterparty: query
            .counterparty
            .map(ParticipantId::parse_insecure)
            .transpose()
            .map_err(bad_id("counterparty"))?,
        dataset: query.dataset.map(kontor_core::id::DatasetId::parse).transpose().map_err(bad_id("dataset"))?,
        ..AgreementFilter::default()
    };
    let page = Paging { after: query.after, limit: query.limit }.page();
    Ok(list(control.store().agreements(&filter, &page).await?, |record| json!(record.value)))
}

async fn agreement(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let parsed = AgreementId::parse(id.as_str()).map_err(bad_id("id"))?;
    let record = control.store().agreement(&parsed).await?.ok_or_else(|| ControlError::not_found("agreement", &id))?;
    let uses = control.store().uses(&parsed).await?;
    let mut value = json!(record.value);
    if let Value::Object(map) = &mut value {
        map.insert("uses".to_owned(), json!(uses));
    }
    Ok(ok(&value))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    reason: String,
}

async fn revoke(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let revoke: Revoke = read(body)?;
    let id = AgreementId::parse(id).map_err(bad_id("id"))?;
    Ok(ok(&control.revoke(&id, revoke.reason).await?))
}

/// How many uses one report may count.
const USES_MAX: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uses {
    uses: u32,
}

async fn uses(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let report: Uses = read(body)?;
    if report.uses == 0 || report.uses > USES_MAX {
        return Err(Refusal::new(Fault::Malformed, "body", format!("`{}` is out of range", report.uses))
            .at("uses")
            .cure(format!("1 to {USES_MAX}"))
            .into());
    }
    let id = AgreementId::parse(id).map_err(bad_id("id"))?;
    let taken = control.report_uses(&id, report.uses).await?;
    Ok(ok(&json!({ "agreement": id, "uses": taken })))
}
