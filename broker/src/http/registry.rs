//! Registering, renewing and withdrawing: only for the participant of the certificate, only for itself.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::peer::VerifiedPeer;
use kontor_wire::problem::Problem;
use serde_json::{Map, Value, json};

use super::{Broker, bounded, failed, with_members};
use crate::ingest::{CONTEXTS_MAX, IngestError, TERMS_MAX};
use crate::registry::RegistryError;
use crate::store::rdf::ParseError;
use crate::store::{Document, DocumentState, StoreError, Syntax};

type Peer = Option<Extension<VerifiedPeer>>;
type Participant = Result<Path<String>, PathRejection>;

/// The participant that a path names.
fn named(participant: Participant) -> Result<String, Response> {
    let Path(participant) = participant.map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-path", error.body_text())
            .at("participant")
            .cure("a participant of `/v1/participants`, percent-encoded")
            .into_response()
    })?;
    Ok(participant)
}

fn owner(broker: &Broker, peer: Peer) -> Result<ParticipantId, Response> {
    match peer {
        Some(Extension(peer)) => Ok(peer.participant().clone()),
        None => Err(Problem::new(StatusCode::FORBIDDEN, "no-identity", "this port does not know who you are")
            .by("a description is registered over mutual TLS, by the participant of the certificate")
            .cure(format!("the same request at {}, with a client certificate", broker.registry_url))
            .into_response()),
    }
}

pub(super) async fn announce(State(broker): State<Broker>, peer: Peer, request: Request) -> Result<Response, Response> {
    let owner = owner(&broker, peer)?;
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let syntax = Syntax::from_media_type(kind)
        .ok_or_else(|| refuse(&RegistryError::Ingest(IngestError::MediaType(kind.to_owned())), &owner))?;
    let lease = lease(&parts.headers)?;
    let bytes = bounded(body, broker.registry.ingest_limits().bytes_max).await.map_err(Problem::into_response)?;
    let document =
        broker.registry.announce(&owner, syntax, bytes, lease).await.map_err(|error| refuse(&error, &owner))?;
    tracing::info!(participant = %owner, version = document.version, digest = %document.digest, "description registered");
    let status = if document.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(receipt(&document))).into_response())
}

pub(super) async fn renew(State(broker): State<Broker>, peer: Peer, headers: HeaderMap) -> Result<Response, Response> {
    let owner = owner(&broker, peer)?;
    let lease = lease(&headers)?;
    let document = broker.registry.renew(&owner, lease).await.map_err(|error| refuse(&error, &owner))?;
    Ok(Json(receipt(&document)).into_response())
}

pub(super) async fn withdraw(State(broker): State<Broker>, peer: Peer) -> Result<Response, Response> {
    let owner = owner(&broker, peer)?;
    let document = broker.registry.withdraw(&owner).await.map_err(|error| refuse(&error, &owner))?;
    tracing::info!(participant = %owner, "description withdrawn");
    Ok(Json(receipt(&document)).into_response())
}

pub(super) async fn own(State(broker): State<Broker>, peer: Peer) -> Result<Response, Response> {
    let owner = owner(&broker, peer)?;
    match broker.registry.own(&owner).await.map_err(|error| refuse(&error, &owner))? {
        None => Err(refuse(&RegistryError::Store(StoreError::Unknown), &owner)),
        Some(document) => Ok(as_received(document)),
    }
}

/// Anybody may read what is active; what is not, reads as unknown.
pub(super) async fn published(State(broker): State<Broker>, participant: Participant) -> Result<Response, Response> {
    let participant = named(participant)?;
    let unknown = || {
        Problem::new(StatusCode::NOT_FOUND, "unknown-participant", format!("`{participant}` has no active description"))
            .cure("a participant of `/v1/participants`, percent-encoded")
            .into_response()
    };
    let id = ParticipantId::parse(participant.clone()).map_err(|_| unknown())?;
    match broker.registry.own(&id).await.map_err(|error| refuse(&error, &id))? {
        Some(document)
            if document.state == DocumentState::Active && document.lease_until_ms > crate::registry::now_ms() =>
        {
            Ok(as_received(document))
        }
        _ => Err(unknown()),
    }
}

pub(super) async fn announce_for(
    State(broker): State<Broker>,
    participant: Participant,
    peer: Peer,
    request: Request,
) -> Result<Response, Response> {
    refuse_other(&owner(&broker, peer.clone())?, &named(participant)?)?;
    announce(State(broker), peer, request).await
}

pub(super) async fn withdraw_for(
    State(broker): State<Broker>,
    participant: Participant,
    peer: Peer,
) -> Result<Response, Response> {
    refuse_other(&owner(&broker, peer.clone())?, &named(participant)?)?;
    withdraw(State(broker), peer).await
}

fn refuse_other(owner: &ParticipantId, participant: &str) -> Result<(), Response> {
    if owner.as_str() == participant {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "not-the-owner",
        format!("`{owner}` may not change the description of `{participant}`"),
    )
    .at("participant")
    .by("only its owner changes a description")
    .cure(format!("`{owner}`"))
    .into_response())
}

fn as_received(document: Document) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), document.syntax.media_type().to_owned()),
        (header::ETAG.as_str(), format!("\"{}\"", document.digest)),
        ("description-state", document.state.as_str().to_owned()),
        ("lease-until", instant(document.lease_until_ms)),
    ];
    if document.state == DocumentState::Withdrawn {
        let problem =
            Problem::new(StatusCode::GONE, "withdrawn", "the description was withdrawn and its content is gone")
                .cure("a new registration");
        return (headers.into_iter().skip(1).collect::<Vec<_>>().into_headers(), problem).into_response();
    }
    (headers, document.bytes).into_response()
}

trait IntoHeaders {
    fn into_headers(self) -> HeaderMap;
}

impl IntoHeaders for Vec<(&str, String)> {
    fn into_headers(self) -> HeaderMap {
        let pairs = self.into_iter().filter_map(|(name, value)| {
            Some((http::HeaderName::from_bytes(name.as_bytes()).ok()?, value.parse().ok()?))
        });
        pairs.collect()
    }
}

fn lease(headers: &HeaderMap) -> Result<Option<Duration>, Response> {
    let Some(value) = headers.get("lease-seconds") else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => Err(Problem::new(StatusCode::BAD_REQUEST, "bad-lease", "`Lease-Seconds` is not a whole number")
            .at("Lease-Seconds")
            .cure("a number of seconds, or no such header")
            .into_response()),
    }
}

/// An instant of the store as text.
pub(super) fn instant(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |instant| instant.to_string())
}

fn receipt(document: &Document) -> Value {
    json!({
        "participant": document.participant,
        "graph": document.participant,
        "digest": document.digest,
        "triples": document.triples,
        "version": document.version,
        "state": document.state,
        "lease_until": instant(document.lease_until_ms),
        "lease_seconds": document.lease_ms / 1000,
    })
}

/// The one place where the registry's refusals become HTTP.
fn refuse(error: &RegistryError, owner: &ParticipantId) -> Response {
    let detail = error.to_string();
    let mut members = Map::new();
    let problem = match error {
        RegistryError::Ingest(IngestError::MediaType(_)) => {
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
                .at("Content-Type")
                .cure("`text/turtle` or `application/ld+json`")
        }
        RegistryError::Ingest(IngestError::TooLarge(max)) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
                .at("body")
                .by("limits.body_bytes")
                .cure(format!("at most {max} bytes"))
        }
        RegistryError::Ingest(IngestError::NotUtf8(_)) => {
            Problem::new(StatusCode::BAD_REQUEST, "not-utf-8", detail).at("body").cure("UTF-8 text")
        }
        RegistryError::Ingest(IngestError::Nesting { max, line, column }) => {
            members.insert("line".into(), json!(line));
            members.insert("column".into(), json!(column));
            Problem::new(StatusCode::BAD_REQUEST, "nested-too-deep", detail)
                .at("body")
                .by("limits.nesting")
                .cure(format!("at most {max} levels of brackets"))
        }
        RegistryError::Ingest(IngestError::RemoteContext { path, .. }) => {
            Problem::new(StatusCode::BAD_REQUEST, "remote-context", detail)
                .at(path.clone())
                .by("nothing is fetched while a description is read")
                .cure("the terms of that context in an inline `@context` object")
        }
        RegistryError::Ingest(IngestError::Contexts { path }) => {
            Problem::new(StatusCode::BAD_REQUEST, "too-many-contexts", detail)
                .at(path.clone())
                .by("a context is applied anew wherever it stands, and is copied for that")
                .cure(format!(
                    "at most {CONTEXTS_MAX} `@context` objects with at most {TERMS_MAX} terms together, best one at the root, \
                     and none in the definition of a term"
                ))
        }
        RegistryError::Ingest(IngestError::Parse(ParseError::Syntax { line, column, .. })) => {
            members.insert("line".into(), json!(line));
            members.insert("column".into(), json!(column));
            Problem::new(StatusCode::BAD_REQUEST, "not-rdf", detail)
                .at("body")
                .by("RDF 1.1 Turtle or JSON-LD 1.1")
                .cure("a text that the grammar allows from this line on")
        }
        RegistryError::Ingest(IngestError::Parse(ParseError::TooManyTriples { max })) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-triples", detail)
                .at("body")
                .by("limits.description_triples")
                .cure(format!("at most {max} triples"))
        }
        RegistryError::Ingest(IngestError::Parse(ParseError::Expanded { max })) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-much-text", detail)
                .at("body")
                .by("limits.expanded_bytes")
                .cure(format!("shorter prefixes, terms and identifiers: at most {max} bytes over all triples"))
        }
        RegistryError::Ingest(IngestError::Shape(violations)) => {
            members.insert("violations".into(), json!(violations));
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-a-self-description", detail)
                .at(violations.first().map_or("description", |first| first.path.as_str()))
                .by(violations.first().map_or("SD-1", |first| first.rule))
                .cure(violations.first().map_or("", |first| first.cure.as_str()))
        }
        RegistryError::Lease { min, max, .. } => Problem::new(StatusCode::BAD_REQUEST, "bad-lease", detail)
            .at("Lease-Seconds")
            .by("lease.min_seconds and lease.max_seconds")
            .cure(format!("{min} to {max}, or no such header")),
        RegistryError::Store(StoreError::Unknown) => Problem::new(
            StatusCode::NOT_FOUND,
            "not-registered",
            format!("`{owner}` has never registered a description"),
        )
        .cure("`PUT /v1/self-description`"),
        RegistryError::Store(StoreError::Withdrawn) => Problem::new(StatusCode::CONFLICT, "withdrawn", detail)
            .cure("`PUT /v1/self-description`, which registers it again"),
        RegistryError::Store(StoreError::Claimed { iri, owner }) => {
            Problem::new(StatusCode::CONFLICT, "claimed", detail)
                .at(iri.clone())
                .by("SD-10: a node is described by the participant whose URI it extends, or else by the first that registered it")
                .cure(format!("identifiers of your own; `{owner}` holds this one"))
        }
        RegistryError::Store(StoreError::Vocabulary { iri }) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "vocabulary-term", detail)
                .at(iri.clone())
                .by("SD-10: terms of vocabularies are nobody's")
                .cure(format!("an identifier of your own, such as `{owner}#…`"))
        }
        RegistryError::Store(_) | RegistryError::Worker => failed(error),
    };
    with_members(problem, members)
}
