//! What we offer, and what others offer: datasets, policies, offers, remote catalogues.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use kontor_core::catalog::{Audience, PublishedOffer};
use kontor_core::id::{DatasetId, OfferId, ParticipantId};
use kontor_core::policy;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, Paging, Path, Query, bad_id, list, ok, read, reply};
use crate::control::error::ControlError;
use crate::control::{Control, fresh_urn};
use crate::model::{DatasetRecord, OfferRecord, PolicyRecord, SourceSpec};

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/datasets", post(put_dataset).get(datasets))
        .route("/datasets/{id}", get(dataset).delete(withdraw_dataset))
        .route("/policies", post(put_policy).get(policies))
        .route("/policies/{id}", get(policy).delete(delete_policy))
        .route("/offers", post(put_offer).get(offers))
        .route("/offers/{id}", get(offer).delete(withdraw_offer))
        .route("/catalog", get(own_catalog))
        .route("/catalog/request", post(remote_catalog))
        .route("/catalog/dataset", post(remote_dataset))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDataset {
    id: Option<String>,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default = "octets")]
    media_type: String,
    source: SourceSpec,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
}

/// Longest title and keyword of a dataset, in bytes: longer ones no broker takes, and with them nothing else of ours.
const TITLE_BYTES_MAX: usize = 1024;
const KEYWORD_BYTES_MAX: usize = 256;

/// Whether a text can stand for an IRI (RFC 3987): a scheme, and none of the characters that delimit one.
fn is_iri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let delimits = |c: char| c.is_whitespace() || c.is_control() || "<>\"{}|\\^`".contains(c);
    named && !rest.is_empty() && !rest.contains(delimits)
}

fn octets() -> String {
    "application/octet-stream".to_owned()
}

async fn put_dataset(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let new: NewDataset = read(body)?;
    let id = DatasetId::parse(new.id.unwrap_or_else(fresh_urn)).map_err(bad_id("id"))?;
    if !is_iri(id.as_str()) {
        return Err(Refusal::new(Fault::Malformed, "identifier", format!("`{id}` is no IRI"))
            .at("id")
            .by("self-description: a dataset is named by an IRI")
            .cure("`urn:…` or `https://…`")
            .into());
    }
    if new.title.trim().is_empty() {
        return Err(Refusal::new(Fault::Malformed, "body", "the title is empty")
            .at("title")
            .by("self-description: a dataset has a title")
            .cure("a word or more")
            .into());
    }
    for (field, text, max) in std::iter::once(("title".to_owned(), &new.title, TITLE_BYTES_MAX))
        .chain(new.keywords.iter().enumerate().map(|(n, text)| (format!("keywords[{n}]"), text, KEYWORD_BYTES_MAX)))
    {
        if text.len() > max {
            return Err(Refusal::new(Fault::Malformed, "body", format!("{} bytes are too many", text.len()))
                .at(field)
                .by("self-description: brokers list short texts")
                .cure(format!("at most {max} bytes"))
                .into());
        }
    }
    control.check_source(&new.source).map_err(Failure::from)?;
    let record = DatasetRecord {
        id,
        title: new.title,
        description: new.description,
        keywords: new.keywords,
        media_type: new.media_type,
        source: new.source,
        labels: new.labels,
        created: jiff::Timestamp::now(),
    };
    let record = control.put_dataset(record).await?;
    Ok(reply(StatusCode::CREATED, &record))
}

async fn datasets(State(control): State<Arc<Control>>, Query(paging): Query<Paging>) -> Answer {
    Ok(list(control.store().datasets(&paging.page()).await?, |record| json!(record.value)))
}

async fn dataset(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let parsed = DatasetId::parse(id.as_str()).map_err(bad_id("id"))?;
    let record = control.store().dataset(&parsed).await?.ok_or_else(|| ControlError::not_found("dataset", &id))?;
    Ok(ok(&record.value))
}

async fn withdraw_dataset(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    control.withdraw_dataset(&DatasetId::parse(id).map_err(bad_id("id"))?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    id: Option<String>,
    policy: Value,
}

async fn put_policy(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let new: NewPolicy = read(body)?;
    let document = document(new.policy, "policy")?;
    let id = new.id.or_else(|| document.id().map(str::to_owned)).unwrap_or_else(fresh_urn);
    super::policy::not_taken(&id)?;
    let document = document.with("@id", &id);
    let record = control.put_policy(PolicyRecord { id, document }).await?;
    Ok(reply(StatusCode::CREATED, &record))
}

fn document(value: Value, field: &str) -> Result<PolicyDocument, Refusal> {
    PolicyDocument::from_value(compact(value)).map_err(|_| {
        Refusal::new(Fault::Malformed, "body", "the policy is no JSON object").at(field).cure("an ODRL policy")
    })
}

async fn policies(State(control): State<Arc<Control>>, Query(paging): Query<Paging>) -> Answer {
    Ok(list(control.store().policies(&paging.page()).await?, |record| json!(record.value)))
}

async fn policy(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let record = control.store().policy(&id).await?.ok_or_else(|| ControlError::not_found("policy", &id))?;
    Ok(ok(&record.value))
}

async fn delete_policy(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    if control.store().policy(&id).await?.is_none() {
        return Err(ControlError::not_found("policy", &id).into());
    }
    let batch = crate::store::Batch { delete_policies: vec![id], now: jiff::Timestamp::now(), ..Default::default() };
    control.store().commit(batch).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOffer {
    id: Option<String>,
    dataset: String,
    /// An ODRL policy, or the id of one that was kept before.
    policy: Value,
    /// Participants that may see it; absent: everyone.
    #[serde(default)]
    audience: Option<Vec<String>>,
}

async fn put_offer(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let new: NewOffer = read(body)?;
    let policy = match new.policy {
        Value::String(id) => {
            control.store().policy(&id).await?.ok_or_else(|| ControlError::not_found("policy", &id))?.value.document
        }
        other => document(other, "policy")?,
    };
    let id = new.id.unwrap_or_else(fresh_urn);
    // An offer is about its dataset. What narrows that is a term, and stays.
    let policy = if policy::is_more_than_one_plain(&policy, "target") { policy } else { policy.without("target") };
    let policy = policy
        .without("@context")
        .with("@type", "Offer")
        .with("@id", &id)
        .with("assigner", control.participant().as_str());
    let audience = match new.audience {
        None => Audience::Everyone,
        Some(names) => Audience::Only(
            names
                .into_iter()
                .map(ParticipantId::parse_insecure)
                .collect::<Result<_, _>>()
                .map_err(bad_id("audience"))?,
        ),
    };
    let record = OfferRecord {
        offer: PublishedOffer {
            id: OfferId::parse(id).map_err(bad_id("id"))?,
            dataset: DatasetId::parse(new.dataset).map_err(bad_id("dataset"))?,
            policy,
            audience,
        },
        created: jiff::Timestamp::now(),
    };
    let record = control.put_offer(record).await?;
    Ok(reply(StatusCode::CREATED, &record.offer))
}

async fn offers(State(control): State<Arc<Control>>, Query(paging): Query<Paging>) -> Answer {
    Ok(list(control.store().offers(None, &paging.page()).await?, |record| json!(record.value.offer)))
}

async fn offer(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    let parsed = OfferId::parse(id.as_str()).map_err(bad_id("id"))?;
    let record = control.store().offer(&parsed).await?.ok_or_else(|| ControlError::not_found("offer", &id))?;
    Ok(ok(&record.value.offer))
}

async fn withdraw_offer(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Answer {
    control.withdraw_offer(&OfferId::parse(id).map_err(bad_id("id"))?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AsPeer {
    /// Show what this participant sees; absent: ourselves.
    peer: Option<String>,
    after: Option<String>,
}

async fn own_catalog(State(control): State<Arc<Control>>, Query(query): Query<AsPeer>) -> Answer {
    let peer = match query.peer {
        Some(peer) => ParticipantId::parse_insecure(peer).map_err(bad_id("peer"))?,
        None => control.participant().clone(),
    };
    let page = control.catalog_for(&peer, query.after).await?;
    Ok(ok(&json!({ "catalog": page.catalog, "next": page.next })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteCatalog {
    counterparty: String,
    address: String,
    #[serde(default)]
    filter: Option<Value>,
}

async fn remote_catalog(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let asked: RemoteCatalog = read(body)?;
    let peer = ParticipantId::parse_insecure(asked.counterparty).map_err(bad_id("counterparty"))?;
    Ok(ok(&control.remote_catalog(&peer, &asked.address, asked.filter).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteDataset {
    counterparty: String,
    address: String,
    dataset: String,
}

async fn remote_dataset(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Answer {
    let asked: RemoteDataset = read(body)?;
    let peer = ParticipantId::parse_insecure(asked.counterparty).map_err(bad_id("counterparty"))?;
    Ok(ok(&control.remote_dataset(&peer, &asked.address, &asked.dataset).await?))
}
