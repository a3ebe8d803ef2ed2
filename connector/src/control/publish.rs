//! The self-description: built from the catalogue, sent to the brokers, renewed at half of its
//! lease. Nothing in it is written by hand, and only what everybody may see goes in.
//!
//! What a broker may hold of us is in the store before it is sent. A broker that is no longer in the settings, or that an
//! operator withdraws from, is asked to forget us until it says that it has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::names_things;
use kontor_vocab::iri;
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Map, Value, json};
use url::Url;

use super::Control;
use super::error::ControlError;
use crate::model::Publication;
use crate::store::{Batch, Page};

/// Where a broker is.
#[derive(Debug, Clone)]
pub struct BrokerAddress {
    /// Its participant.
    pub participant: ParticipantId,
    /// Its registry's base.
    pub url: Url,
    /// The lease that we ask for, in seconds.
    pub lease_seconds: u64,
}

impl BrokerAddress {
    /// An address of the broker.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url.as_str().trim_end_matches('/'))
    }
}

/// How a publication stands, for the operator.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct PublicationState {
    /// The broker.
    pub broker: String,
    /// Where it is.
    pub url: String,
    /// Whether the broker holds our present description.
    pub published: bool,
    /// Whether it is taken back: by an operator, until the next start or a publication by hand; or because the broker is
    /// no longer in the settings.
    pub withdrawn: bool,
    /// The broker's receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Value>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// First wait after a failure; doubled up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(250);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Changes that come together are published together.
const SETTLE: Duration = Duration::from_millis(20);

/// Publishes to one broker until it is dropped: at once, at every change, and at half of the
/// lease.
pub async fn run(control: Arc<Control>, broker: BrokerAddress) {
    let mut retry = RETRY;
    let mut sent: Option<Vec<u8>> = None;
    loop {
        let changed = control.published.notified();
        let Some(withheld) = control.withheld.get(&broker.participant) else { return };
        let withheld = withheld.lock().await;
        if *withheld {
            sent = None;
            let gone = withdraw(&control, &broker).await;
            drop(withheld);
            match gone {
                Ok(()) => {
                    retry = RETRY;
                    changed.await;
                }
                Err(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(retry) => {}
                        () = changed => {}
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
            continue;
        }
        let outcome = publish(&control, &broker, sent.as_deref()).await;
        drop(withheld);
        let wait = match outcome {
            Ok((body, receipt)) => {
                retry = RETRY;
                let lease = receipt.get("lease_seconds").and_then(Value::as_u64).unwrap_or(broker.lease_seconds);
                note(&control, &broker, Some(receipt), None);
                sent = Some(body);
                Duration::from_millis(lease.max(1).saturating_mul(500))
            }
            Err(error) => {
                let detail = error.to_string();
                tracing::warn!(broker = %broker.participant, url = %broker.url, detail, "the self-description could not be published");
                note(&control, &broker, None, Some(detail));
                sent = None;
                let wait = retry;
                retry = (retry * 2).min(RETRY_MAX);
                wait
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed => tokio::time::sleep(SETTLE).await,
        }
    }
}

fn note(control: &Control, broker: &BrokerAddress, receipt: Option<Value>, last_error: Option<String>) {
    let published = last_error.is_none();
    show(control, broker, PublicationState { published, receipt, last_error, ..PublicationState::default() });
}

fn show(control: &Control, broker: &BrokerAddress, state: PublicationState) {
    let state = PublicationState { broker: broker.participant.to_string(), url: broker.url.to_string(), ..state };
    control
        .publications
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .insert(broker.participant.to_string(), state);
}

/// Sends the description when it changed, otherwise renews the lease.
async fn publish(
    control: &Control,
    broker: &BrokerAddress,
    sent: Option<&[u8]>,
) -> Result<(Vec<u8>, Value), ControlError> {
    let body = serde_json::to_vec(&control.self_description().await?).unwrap_or_default();
    let same = sent == Some(body.as_slice());
    let request = if same {
        http::Request::post(broker.at("/v1/self-description/renewal"))
    } else {
        http::Request::put(broker.at("/v1/self-description")).header(http::header::CONTENT_TYPE, "application/ld+json")
    };
    if !same {
        // Before it leaves: the broker may take it without our ever reading its receipt.
        remember(control, broker, &Value::Null).await?;
    }
    let payload = if same { Bytes::new() } else { Bytes::from(body.clone()) };
    let request = request
        .header("lease-seconds", broker.lease_seconds)
        .body(payload)
        .map_err(|error| ControlError::Peer(error.to_string()))?;
    let response = asked(control, broker, request).await?;
    if same && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::CONFLICT) {
        return Err(ControlError::Peer("the broker has forgotten us; publishing again".to_owned()));
    }
    if !response.status().is_success() {
        return Err(refused(&response));
    }
    let receipt = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
    remember(control, broker, &receipt).await?;
    Ok((body, receipt))
}

async fn asked(
    control: &Control,
    broker: &BrokerAddress,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, ControlError> {
    let answered = control.parts.client.send(&broker.participant, request).await;
    answered.map_err(|error| ControlError::Peer(format!("the broker did not answer: {error}")))
}

/// What a broker says that refuses, as far as it is worth reading.
fn refused(response: &http::Response<Bytes>) -> ControlError {
    let text: String = String::from_utf8_lossy(response.body()).chars().take(2000).collect();
    ControlError::Peer(format!("the broker answered {}: {text}", response.status()))
}

/// Keeps what the broker holds of us, by its receipt.
async fn remember(control: &Control, broker: &BrokerAddress, receipt: &Value) -> Result<(), ControlError> {
    let text = |name: &str| receipt.get(name).and_then(Value::as_str);
    let publication = Publication {
        broker: broker.participant.clone(),
        url: broker.url.to_string(),
        digest: text("digest").map(str::to_owned),
        // Before the receipt it is what we ask for, counted from now: no broker keeps it longer without hearing from us.
        lease_until: text("lease_until").and_then(|until| until.parse().ok()).or_else(|| {
            let asked = i64::try_from(broker.lease_seconds).unwrap_or(i64::MAX);
            control.now().checked_add(jiff::SignedDuration::from_secs(asked)).ok()
        }),
        last_error: None,
    };
    let batch = Batch { publication: Some(publication), ..Batch::new(control.now()) };
    control.store().commit(batch).await?;
    Ok(())
}

/// Asks a broker to forget us, if it may hold anything of us, and forgets it when it says that it has.
async fn withdraw(control: &Control, broker: &BrokerAddress) -> Result<(), ControlError> {
    let outcome = if control.store().publications().await?.iter().any(|held| held.broker == broker.participant) {
        ask_to_forget(control, broker).await
    } else {
        Ok(())
    };
    let last_error = outcome.as_ref().err().map(ToString::to_string);
    if let Some(detail) = &last_error {
        tracing::warn!(broker = %broker.participant, url = %broker.url, detail, "the self-description could not be withdrawn");
    }
    show(control, broker, PublicationState { withdrawn: true, last_error, ..PublicationState::default() });
    outcome
}

async fn ask_to_forget(control: &Control, broker: &BrokerAddress) -> Result<(), ControlError> {
    let request = http::Request::delete(broker.at("/v1/self-description"))
        .body(Bytes::new())
        .map_err(|error| ControlError::Peer(error.to_string()))?;
    let response = asked(control, broker, request).await?;
    // A broker that never heard of us holds nothing either.
    if !response.status().is_success() && response.status() != StatusCode::NOT_FOUND {
        return Err(refused(&response));
    }
    let batch = Batch { delete_publication: Some(broker.participant.clone()), ..Batch::new(control.now()) };
    control.store().commit(batch).await?;
    tracing::info!(broker = %broker.participant, url = %broker.url, "the self-description was withdrawn");
    Ok(())
}

/// Withdraws from a broker that is no longer in the settings, until it says that it has forgotten us, or the lease is over.
async fn leave(control: Arc<Control>, broker: BrokerAddress, until: Option<Timestamp>) {
    let mut retry = RETRY;
    while withdraw(&control, &broker).await.is_err() {
        if until.is_some_and(|until| until < control.now()) {
            tracing::info!(broker = %broker.participant, url = %broker.url, "the lease is over: nothing is left to withdraw");
            let batch = Batch { delete_publication: Some(broker.participant.clone()), ..Batch::new(control.now()) };
            if control.store().commit(batch).await.is_ok() {
                break;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
    let mut states = control.publications.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    states.remove(broker.participant.as_str());
}

impl Control {
    /// Begins to withdraw from the brokers that hold something of us and are no longer in the settings.
    pub(super) async fn leave_brokers(self: &Arc<Self>) -> Result<(), ControlError> {
        for held in self.store().publications().await? {
            if self.withheld.contains_key(&held.broker) {
                continue;
            }
            match Url::parse(&held.url) {
                Ok(url) => {
                    let broker = BrokerAddress { participant: held.broker, url, lease_seconds: 0 };
                    self.spawn(leave(self.clone(), broker, held.lease_until));
                }
                Err(error) => {
                    tracing::error!(broker = %held.broker, url = held.url, %error, "cannot withdraw from this broker");
                }
            }
        }
        Ok(())
    }

    /// Takes the self-description back from a broker, until the next start or [`Control::publish_at`].
    ///
    /// # Errors
    /// [`ControlError`] when there is no such broker, or when it did not say that it has forgotten us: then it is asked
    /// again until it does.
    ///
    /// # Cancellation
    /// The broker may or may not have been asked; it is asked again.
    pub async fn withdraw_at(&self, broker: &str) -> Result<PublicationState, ControlError> {
        let (address, withheld) = self.desk(broker)?;
        let mut withheld = withheld.lock().await;
        *withheld = true;
        // It goes on where this leaves off.
        self.published.notify_waiters();
        withdraw(self, address).await?;
        Ok(self.publication(address))
    }

    /// Publishes at a broker again after [`Control::withdraw_at`]; at any other time it renews.
    ///
    /// # Errors
    /// [`ControlError`] when there is no such broker.
    pub async fn publish_at(&self, broker: &str) -> Result<PublicationState, ControlError> {
        let (address, withheld) = self.desk(broker)?;
        let mut withheld = withheld.lock().await;
        if std::mem::take(&mut *withheld) {
            show(self, address, PublicationState::default());
        }
        self.published.notify_waiters();
        Ok(self.publication(address))
    }

    fn desk(&self, broker: &str) -> Result<(&BrokerAddress, &tokio::sync::Mutex<bool>), ControlError> {
        let address = self.parts.brokers.iter().find(|known| known.participant.as_str() == broker);
        address
            .and_then(|address| Some((address, self.withheld.get(&address.participant)?)))
            .ok_or_else(|| ControlError::not_found("broker", broker))
    }

    fn publication(&self, broker: &BrokerAddress) -> PublicationState {
        let states = self.publications.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        states.get(broker.participant.as_str()).cloned().unwrap_or_default()
    }

    /// How the publications stand.
    #[must_use]
    pub fn publications(&self) -> Vec<PublicationState> {
        self.publications.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values().cloned().collect()
    }

    /// Asks a broker's SPARQL endpoint.
    ///
    /// # Errors
    /// [`ControlError`] when there is no such broker or it does not answer.
    pub async fn broker_query(&self, broker: Option<&str>, query: &str) -> Result<Value, ControlError> {
        let found = self
            .parts
            .brokers
            .iter()
            .find(|known| broker.is_none_or(|wanted| known.participant.as_str() == wanted))
            .ok_or_else(|| ControlError::not_found("broker", broker.unwrap_or("(any)")))?;
        let request = http::Request::post(found.at("/sparql"))
            .header(http::header::CONTENT_TYPE, "application/sparql-query")
            .header(http::header::ACCEPT, "application/sparql-results+json")
            .body(Bytes::from(query.to_owned()))
            .map_err(|error| ControlError::Peer(error.to_string()))?;
        let response = self
            .parts
            .client
            .send(&found.participant, request)
            .await
            .map_err(|error| ControlError::Peer(format!("the broker did not answer: {error}")))?;
        let text = String::from_utf8_lossy(response.body()).into_owned();
        if !response.status().is_success() {
            let detail =
                serde_json::from_str::<Value>(&text).ok().and_then(|told| told["detail"].as_str().map(str::to_owned));
            let answer = format!("the broker answered {}: {}", response.status(), detail.unwrap_or(text));
            if response.status().is_client_error() {
                let refusal = Refusal::new(Fault::Malformed, "broker.query", answer).at("sparql");
                return Err(refusal.cure("a query of SPARQL 1.1 that only reads, within the broker's limits").into());
            }
            return Err(ControlError::Peer(answer));
        }
        serde_json::from_str(&text).map_err(|error| ControlError::Peer(format!("the broker answered no JSON: {error}")))
    }

    /// The self-description: DCAT 3 with the terms of the IDS Information Model.
    ///
    /// # Errors
    /// [`ControlError::Store`] when the catalogue cannot be read.
    pub async fn self_description(&self) -> Result<Value, ControlError> {
        let me = self.participant().as_str();
        let iri_of = |text: &str| json!({ "@id": text });
        let part = |name: &str| format!("{me}#{name}");
        let mut datasets = Vec::new();
        let mut page = Page::largest();
        loop {
            let listing = self.store().datasets(&page).await?;
            for record in listing.items.into_iter().map(|loaded| loaded.value) {
                let Some(dataset) = self.dataset_document(&record, None).await? else { continue };
                datasets.push(json!({
                    "@id": record.id,
                    "@type": ["dcat:Dataset", "ids:Resource"],
                    "dct:title": record.title,
                    "dct:description": record.description,
                    "dcat:keyword": record.keywords,
                    "odrl:hasPolicy": dataset.has_policy.iter().map(|policy| offer(policy, me)).collect::<Vec<_>>(),
                    "dcat:distribution": [{
                        "@type": "dcat:Distribution",
                        "dct:format": iri::FORMAT_HTTP_PULL,
                        "dcat:mediaType": record.media_type,
                        "dcat:accessService": iri_of(&part("dsp")),
                    }],
                }));
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(json!({
            "@context": {
                "dcat": iri::DCAT, "dct": iri::DCT, "dspace": iri::DSPACE, "ids": iri::IDS,
                "idsc": iri::IDSC, "odrl": iri::ODRL, "rdf": iri::RDF, "rdfs": iri::RDFS, "foaf": iri::FOAF,
                "xsd": iri::XSD,
            },
            "@id": part("connector"),
            "@type": "ids:BaseConnector",
            "dct:title": self.parts.title,
            "ids:maintainer": iri_of(me),
            "ids:curator": iri_of(me),
            "dspace:participantId": iri_of(me),
            "ids:hasDefaultEndpoint": {
                "@id": part("endpoint"),
                "@type": "ids:ConnectorEndpoint",
                "ids:accessURL": iri_of(&self.protocol_base()),
            },
            "ids:resourceCatalog": {
                "@id": part("catalog"),
                "@type": ["ids:ResourceCatalog", "dcat:Catalog"],
                "dspace:participantId": iri_of(me),
                "dcat:service": {
                    "@id": part("dsp"),
                    "@type": "dcat:DataService",
                    "dcat:endpointURL": iri_of(&self.protocol_base()),
                    "dcat:endpointDescription": iri_of(&self.capabilities_url()),
                    "dct:conformsTo": iri_of(iri::DSPACE),
                },
                "dcat:dataset": datasets,
            },
        }))
    }
}

/// An offer in the spelling of the self-description: prefixed terms, IRIs as nodes. Everything that the policy says is in
/// it; whose it is and what it is about is said beside it.
fn offer(policy: &PolicyDocument, me: &str) -> Value {
    let mut node = Map::new();
    node.insert("@id".to_owned(), json!(policy.id()));
    node.insert("@type".to_owned(), json!(["odrl:Offer", "ids:ContractOffer"]));
    node.insert("odrl:assigner".to_owned(), json!({ "@id": me }));
    let said = policy.0.iter().filter(|(key, _)| !key.starts_with('@'));
    for (key, value) in said.filter(|(key, _)| !["target", "assigner", "uid"].contains(&key.as_str())) {
        let (key, value) = member(key, value);
        node.insert(key, value);
    }
    Value::Object(node)
}

/// A member of a policy, rule or constraint.
fn member(key: &str, value: &Value) -> (String, Value) {
    let name = key.strip_prefix("odrl:").unwrap_or(key);
    let prefixed = if name.contains(':') { name.to_owned() } else { format!("odrl:{name}") };
    let value = match name {
        // RDF keeps the order of a list only.
        "andSequence" => match value {
            Value::Array(items) => json!({ "@list": items.iter().map(node).collect::<Vec<_>>() }),
            one => node(one),
        },
        name if names_things(name) => things(value),
        _ => node(value),
    };
    (prefixed, value)
}

fn node(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(node).collect()),
        Value::Object(map) => {
            let is_literal = map.contains_key("@value");
            let members = map.iter().filter(|(key, _)| *key != "@context").map(|(key, value)| match key.as_str() {
                "@type" if !is_literal => (key.clone(), types(value)),
                "@list" | "@set" => (key.clone(), node(value)),
                key if key.starts_with('@') => (key.to_owned(), value.clone()),
                key => member(key, value),
            });
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

/// Values that are terms or IRIs, one or several.
fn things(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "@id": term(text) }),
        Value::Array(items) => Value::Array(items.iter().map(things).collect()),
        other => node(other),
    }
}

fn types(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(term(text)),
        Value::Array(items) => Value::Array(items.iter().map(types).collect()),
        other => other.clone(),
    }
}

fn term(text: &str) -> String {
    if text.contains(':') { text.to_owned() } else { format!("odrl:{text}") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_offer_keeps_all_that_its_policy_says() {
        let policy = PolicyDocument::from_value(json!({
            "@context": "https://w3id.org/dspace/2025/1/context.jsonld",
            "@id": "urn:offer", "@type": "Offer", "assigner": "urn:somebody", "conflict": "prohibit",
            "profile": ["https://profile.example/one", "https://profile.example/two"],
            "permission": [{
                "@type": "Permission",
                "action": ["use", { "rdf:value": "idsc:READ", "refinement": [{
                    "leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": [{ "@id": "idsc:X" }, "text"]
                }] }],
                "constraint": [{ "andSequence": [
                    { "leftOperand": "idsc:SECURITY_LEVEL", "operator": "eq", "rightOperand": "high" },
                    { "leftOperand": "count", "operator": "lteq",
                      "rightOperand": { "@value": "3", "@type": "xsd:integer" } }
                ] }]
            }]
        }));
        assert_eq!(
            offer(&policy.unwrap(), "urn:me"),
            json!({
                "@id": "urn:offer", "@type": ["odrl:Offer", "ids:ContractOffer"], "odrl:assigner": { "@id": "urn:me" },
                "odrl:conflict": { "@id": "odrl:prohibit" },
                "odrl:profile": [{ "@id": "https://profile.example/one" }, { "@id": "https://profile.example/two" }],
                "odrl:permission": [{
                    "@type": "odrl:Permission",
                    "odrl:action": [{ "@id": "odrl:use" }, { "rdf:value": { "@id": "idsc:READ" }, "odrl:refinement": [{
                        "odrl:leftOperand": { "@id": "odrl:purpose" }, "odrl:operator": { "@id": "odrl:isAnyOf" },
                        "odrl:rightOperand": [{ "@id": "idsc:X" }, "text"]
                    }] }],
                    "odrl:constraint": [{ "odrl:andSequence": { "@list": [
                        { "odrl:leftOperand": { "@id": "idsc:SECURITY_LEVEL" }, "odrl:operator": { "@id": "odrl:eq" },
                          "odrl:rightOperand": "high" },
                        { "odrl:leftOperand": { "@id": "odrl:count" }, "odrl:operator": { "@id": "odrl:lteq" },
                          "odrl:rightOperand": { "@value": "3", "@type": "xsd:integer" } }
                    ] } }]
                }]
            })
        );
    }
}
