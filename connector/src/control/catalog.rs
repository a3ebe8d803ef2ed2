//! Our catalogue as a given peer may see it, and the catalogues of others.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use kontor_core::catalog;
use kontor_core::id::{DatasetId, OfferId, ParticipantId};
use kontor_core::negotiation::{Offer, Role};
use kontor_core::policy;
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::compact;
use kontor_vocab::dcat::{Catalog, DataService, Dataset, Distribution};
use kontor_vocab::dsp;
use kontor_vocab::iri::FORMAT_HTTP_PULL;
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Map, Value, json};
use url::Url;

mod query;

pub use query::CatalogQuery;

use super::Control;
use super::error::ControlError;
use super::fact::{Change, checked_labels};
use super::wire_format;
use crate::data::SourceRoots;
use crate::data::source::SourceError;
use crate::model::{AuditRecord, DatasetRecord, OfferRecord, PolicyRecord};
use crate::store::{Batch, Expect, Page};

/// How many pages of a peer's catalogue are read, one after the other.
pub const CATALOG_PAGES_MAX: usize = 64;
/// How many bytes of a peer's catalogue are kept.
pub const CATALOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a peer answered to a question.
struct Answered {
    /// In compact form.
    value: Value,
    /// How long it was.
    bytes: usize,
    /// Where the next page is, as the peer wrote it.
    next: Option<String>,
}

/// A page of our catalogue, and the cursor of the next one.
#[derive(Debug)]
pub struct CatalogPage {
    /// The catalogue.
    pub catalog: Catalog,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// The page before this one; `Some(None)` is the first, which needs no cursor.
    pub previous: Option<Option<String>>,
}

impl Control {
    /// A page of the catalogue as the peer may see it: datasets with at least one visible offer.
    ///
    /// # Errors
    /// [`ControlError::Store`] when the store cannot be read.
    pub async fn catalog_for(&self, peer: &ParticipantId, after: Option<String>) -> Result<CatalogPage, ControlError> {
        let page = Page { after, ..Page::largest() };
        let listing = self.parts.store.datasets(&page).await?;
        let previous = self.parts.store.datasets_page_before(&page).await?.map(|page| page.after);
        let mut datasets = Vec::new();
        for record in listing.items {
            if let Some(dataset) = self.dataset_document(&record.value, Some(peer)).await? {
                datasets.push(dataset);
            }
        }
        Ok(CatalogPage { catalog: self.catalog_of(datasets), next: listing.next, previous })
    }

    fn catalog_of(&self, dataset: Vec<Dataset>) -> Catalog {
        Catalog {
            context: Some(dsp::context()),
            id: format!("{}#catalog", self.participant()),
            kind: "Catalog".to_owned(),
            participant_id: Some(self.participant().to_string()),
            service: vec![self.service()],
            dataset,
            catalog: Vec::new(),
            extra: Map::new(),
        }
    }

    /// The part of the catalogue that a query names, as the peer may see it. A query without a limit is a page, with the
    /// cursor of the next; who names one goes on by offset.
    ///
    /// # Errors
    /// As [`Control::catalog_for`].
    pub async fn catalog_part(
        &self,
        peer: &ParticipantId,
        query: CatalogQuery,
        after: Option<String>,
    ) -> Result<CatalogPage, ControlError> {
        let Some(limit) = query.limit.or(query.ids.as_ref().map(Vec::len)) else {
            return self.catalog_for(peer, after).await;
        };
        let mut found = Vec::new();
        let mut skip = query.offset;
        let mut take = |dataset: Dataset| {
            if skip > 0 {
                skip -= 1;
            } else {
                found.push(dataset);
            }
            found.len() < limit
        };
        if limit == 0 {
            return Ok(CatalogPage { catalog: self.catalog_of(Vec::new()), next: None, previous: None });
        }
        if let Some(ids) = query.ids {
            for id in ids.iter().collect::<std::collections::BTreeSet<_>>() {
                let Ok(id) = DatasetId::parse(id.as_str()) else { continue };
                let Some(record) = self.parts.store.dataset(&id).await? else { continue };
                let Some(dataset) = self.dataset_document(&record.value, Some(peer)).await? else { continue };
                if !take(dataset) {
                    break;
                }
            }
        } else {
            let mut page = Page { after, ..Page::largest() };
            'pages: loop {
                let listing = self.parts.store.datasets(&page).await?;
                for record in listing.items {
                    let Some(dataset) = self.dataset_document(&record.value, Some(peer)).await? else { continue };
                    if !take(dataset) {
                        break 'pages;
                    }
                }
                page.after = listing.next;
                if page.after.is_none() {
                    break;
                }
            }
        }
        Ok(CatalogPage { catalog: self.catalog_of(found), next: None, previous: None })
    }

    /// One dataset as the peer may see it; unknown and not visible read the same.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with fault `NotFound`.
    pub async fn dataset_for(&self, peer: &ParticipantId, id: &str) -> Result<Dataset, ControlError> {
        let unknown = || ControlError::not_found("dataset", id);
        let id = DatasetId::parse(id).map_err(|_| unknown())?;
        let record = self.parts.store.dataset(&id).await?.ok_or_else(unknown)?;
        let mut dataset = self.dataset_document(&record.value, Some(peer)).await?.ok_or_else(unknown)?;
        dataset.context = Some(dsp::context());
        Ok(dataset)
    }

    fn service(&self) -> DataService {
        DataService {
            id: format!("{}#dsp", self.participant()),
            kind: "DataService".to_owned(),
            endpoint_url: Some(self.protocol_base()),
            extra: Map::new(),
        }
    }

    /// A dataset with the offers that the peer may see (`None`: every public offer, as the
    /// broker is told); `None` when there is no such offer.
    pub(super) async fn dataset_document(
        &self,
        record: &DatasetRecord,
        peer: Option<&ParticipantId>,
    ) -> Result<Option<Dataset>, ControlError> {
        let world = match peer {
            Some(peer) => self.world_before(peer, Some(record)).await?,
            None => policy::World::default(),
        };
        let capabilities = self.capable(Role::Provider);
        let offers: Vec<PolicyDocument> = self
            .parts
            .store
            .offers_of(&record.id)
            .await?
            .into_iter()
            .map(|offer| offer.offer)
            .filter(|offer| match peer {
                Some(peer) => catalog::visible(offer, peer, &world, &capabilities).is_ok(),
                None => offer.audience == catalog::Audience::Everyone,
            })
            .map(|offer| {
                let policy = wire_format::typed_operands(offer.policy);
                policy.without("target").with("@type", "Offer").with("@id", offer.id.as_str())
            })
            .collect();
        if offers.is_empty() {
            return Ok(None);
        }
        let mut extra = Map::new();
        extra.insert("title".to_owned(), json!(record.title));
        if !record.description.is_empty() {
            extra.insert("description".to_owned(), json!(record.description));
        }
        if !record.keywords.is_empty() {
            extra.insert("keyword".to_owned(), json!(record.keywords));
        }
        let mut distribution = Map::new();
        distribution.insert("mediaType".to_owned(), json!(record.media_type));
        Ok(Some(Dataset {
            context: None,
            id: record.id.to_string(),
            kind: "Dataset".to_owned(),
            has_policy: offers,
            distribution: vec![Distribution {
                kind: "Distribution".to_owned(),
                format: FORMAT_HTTP_PULL.to_owned(),
                access_service: serde_json::to_value(self.service()).unwrap_or(Value::Null),
                extra: distribution,
            }],
            extra,
        }))
    }

    /// Asks another connector for its catalogue, page by page.
    ///
    /// # Errors
    /// [`ControlError::Peer`] when it does not answer usefully, or with more than [`CATALOG_PAGES_MAX`] pages or
    /// [`CATALOG_BYTES_MAX`] bytes.
    pub async fn remote_catalog(
        &self,
        peer: &ParticipantId,
        address: &str,
        filter: Option<Value>,
    ) -> Result<Value, ControlError> {
        let base = self.checked_callback(address, "address")?;
        let body = dsp::CatalogRequest {
            context: Some(dsp::context()),
            kind: "CatalogRequestMessage".to_owned(),
            // The schema wants a list.
            filter: filter.filter(|filter| !filter.is_null()).map(|filter| match filter {
                Value::Array(_) => filter,
                one => Value::Array(vec![one]),
            }),
            extra: Map::new(),
        };
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let mut address = format!("{base}/catalog/request");
        let mut whole: Option<Value> = None;
        let mut known = Known::new();
        let mut bytes = 0;
        for _ in 0..CATALOG_PAGES_MAX {
            let request = http::Request::post(&address).header(http::header::ACCEPT_ENCODING, "gzip");
            let page = self.ask(peer, request, body.clone()).await?;
            bytes += page.bytes;
            if bytes > CATALOG_BYTES_MAX {
                return Err(ControlError::Peer(format!(
                    "the catalogue of `{peer}` is longer than {CATALOG_BYTES_MAX} bytes; ask for single datasets"
                )));
            }
            match &mut whole {
                None => whole = Some(page.value),
                Some(whole) => append(whole, page.value, &mut known),
            }
            match page.next {
                Some(next) => address = followed(&address, &next)?,
                None => return Ok(whole.unwrap_or_default()),
            }
        }
        Err(ControlError::Peer(format!(
            "the catalogue of `{peer}` has more than {CATALOG_PAGES_MAX} pages; ask for single datasets"
        )))
    }

    /// Asks another connector for one of its datasets.
    ///
    /// # Errors
    /// [`ControlError::Peer`] when it does not answer usefully.
    pub async fn remote_dataset(
        &self,
        peer: &ParticipantId,
        address: &str,
        dataset: &str,
    ) -> Result<Value, ControlError> {
        let base = self.checked_callback(address, "address")?;
        let request = http::Request::get(format!("{base}/catalog/datasets/{}", wire_format::segment(dataset)));
        Ok(self.ask(peer, request, Bytes::new()).await?.value)
    }

    async fn ask(
        &self,
        peer: &ParticipantId,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Answered, ControlError> {
        let request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(body)
            .map_err(|error| ControlError::Peer(format!("the address cannot be called: {error}")))?;
        let response = self
            .parts
            .client
            .send(peer, request)
            .await
            .map_err(|error| ControlError::Peer(format!("`{peer}` did not answer: {error}")))?;
        let value = serde_json::from_slice::<Value>(response.body()).map(compact);
        if !response.status().is_success() {
            let why = match &value {
                Ok(value) => match value.get("reason") {
                    Some(Value::Array(items)) => wire_format::reasons(items).join("; "),
                    Some(one) => wire_format::reasons(std::slice::from_ref(one)).join("; "),
                    None => String::new(),
                },
                Err(_) => String::new(),
            };
            let answer = format!("`{peer}` answered {}: {why}", response.status());
            if response.status() == http::StatusCode::NOT_FOUND {
                let refusal = Refusal::new(Fault::NotFound, "peer.not-found", answer).at("address");
                return Err(refusal.cure("the address that the peer publishes, such as `https://host:8443/dsp/2025-1`, and what it offers").into());
            }
            return Err(ControlError::Peer(answer));
        }
        let value = value.map_err(|error| ControlError::Peer(format!("`{peer}` answered with no JSON: {error}")))?;
        let links = response.headers().get_all(http::header::LINK).iter().filter_map(|link| link.to_str().ok());
        Ok(Answered { value, bytes: response.body().len(), next: links.filter_map(next_link).next() })
    }

    /// Finds an offer in another connector's catalogue, with its target filled in.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with fault `NotFound` when the dataset has no such offer.
    pub async fn remote_offer(
        &self,
        peer: &ParticipantId,
        address: &str,
        dataset: &str,
        offer: Option<&str>,
    ) -> Result<Offer, ControlError> {
        let document = self.remote_dataset(peer, address, dataset).await?;
        let found: Dataset = serde_json::from_value(document)
            .map_err(|error| ControlError::Peer(format!("`{peer}` answered with no dataset: {error}")))?;
        let policy = found
            .has_policy
            .into_iter()
            .find(|policy| offer.is_none_or(|wanted| policy.id() == Some(wanted)))
            .ok_or_else(|| ControlError::not_found("offer", offer.unwrap_or("(any)")))?;
        Ok(wire_format::offer(policy::said_of_all(policy, "target", dataset))?)
    }

    /// Adds or replaces a dataset; gives it as it is kept. Once it answers, nothing flows any more that rested on other
    /// labels.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when a label is none, or its source must not be offered like this.
    pub async fn put_dataset(&self, mut record: DatasetRecord) -> Result<DatasetRecord, ControlError> {
        record.labels = checked_labels(record.labels, &self.parts.capabilities.vocabulary)?;
        for offer in self.parts.store.offers_of(&record.id).await? {
            self.check_next_policy(&record.source, &offer.offer.policy).await?;
        }
        let now = self.now();
        let line = catalogue_line(now, "catalog.dataset", format!("dataset `{}` offered: {}", record.id, record.title));
        let kept = record.clone();
        let batch = Batch { now, datasets: vec![(record, Expect::Any)], audit: vec![line], ..Batch::default() };
        self.parts.store.commit(batch).await?;
        self.published.notify_waiters();
        self.decide_again(&Change::Labels(kept.id.clone())).await;
        Ok(kept)
    }

    /// Withdraws a dataset and its offers; agreements stay, but once it answers nothing flows any more.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is none.
    pub async fn withdraw_dataset(&self, id: &DatasetId) -> Result<(), ControlError> {
        if self.parts.store.dataset(id).await?.is_none() {
            return Err(ControlError::not_found("dataset", id.as_str()));
        }
        let now = self.now();
        let line = catalogue_line(now, "catalog.withdrawn", format!("dataset `{id}` withdrawn"));
        let batch = Batch { now, delete_datasets: vec![id.clone()], audit: vec![line], ..Batch::default() };
        self.parts.store.commit(batch).await?;
        self.published.notify_waiters();
        self.decide_again(&Change::Labels(id.clone())).await;
        Ok(())
    }

    /// Keeps a policy for use in offers. What it inherits from policies that are kept here is written out now: a later
    /// change of theirs does not reach it, as it does not reach agreements.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when it inherits from what is not kept here, or asks for what cannot be enforced here.
    pub async fn put_policy(&self, mut record: PolicyRecord) -> Result<PolicyRecord, ControlError> {
        record.document = self.written_out(&record.document).await?;
        self.enforceable(&record.document, Role::Provider)?;
        let batch = Batch { now: self.now(), policies: vec![(record.clone(), Expect::Any)], ..Batch::default() };
        self.parts.store.commit(batch).await?;
        Ok(record)
    }

    /// A policy with all that it inherits from policies that are kept here.
    async fn written_out(&self, document: &PolicyDocument) -> Result<PolicyDocument, ControlError> {
        let mut known: BTreeMap<String, Option<PolicyDocument>> = BTreeMap::new();
        loop {
            let unread = RefCell::new(None);
            let written = policy::inherit(document, &|parent| match known.get(parent) {
                Some(found) => found.clone(),
                None => {
                    unread.borrow_mut().get_or_insert_with(|| parent.to_owned());
                    None
                }
            });
            match unread.into_inner().filter(|_| known.len() <= policy::PARENTS_MAX) {
                None => return Ok(written?),
                Some(parent) => {
                    let found = self.parts.store.policy(&parent).await?;
                    known.insert(parent, found.map(|found| found.value.document));
                }
            }
        }
    }

    /// Puts up an offer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the dataset does not exist, or the policy asks for what
    /// cannot be enforced here: it is never put up and then ignored.
    pub async fn put_offer(&self, mut record: OfferRecord) -> Result<OfferRecord, ControlError> {
        record.offer.policy = self.written_out(&record.offer.policy).await?;
        // An offer is kept without a target of its own: its dataset is that, and the terms are in the rules.
        if policy::is_more_than_one_plain(&record.offer.policy, "target") {
            record.offer.policy = policy::left_to_rules(record.offer.policy, "target");
        }
        self.enforceable(&record.offer.policy, Role::Provider)?;
        let Some(dataset) = self.parts.store.dataset(&record.offer.dataset).await? else {
            return Err(Refusal::new(
                Fault::NotFound,
                "catalog.dataset",
                format!("there is no dataset `{}`", record.offer.dataset),
            )
            .at("dataset")
            .cure("the id of a dataset that was added before")
            .into());
        };
        self.check_next_policy(&dataset.value.source, &record.offer.policy).await?;
        let now = self.now();
        let line = catalogue_line(
            now,
            "catalog.offer",
            format!("offer `{}` put up for `{}`", record.offer.id, record.offer.dataset),
        );
        let batch = Batch { now, offers: vec![(record.clone(), Expect::Any)], audit: vec![line], ..Batch::default() };
        self.parts.store.commit(batch).await?;
        self.published.notify_waiters();
        Ok(record)
    }

    /// Withdraws an offer; agreements made of it stay.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is none.
    pub async fn withdraw_offer(&self, id: &OfferId) -> Result<(), ControlError> {
        if self.parts.store.offer(id).await?.is_none() {
            return Err(ControlError::not_found("offer", id.as_str()));
        }
        let now = self.now();
        let line = catalogue_line(now, "catalog.withdrawn", format!("offer `{id}` withdrawn"));
        let batch = Batch { now, delete_offers: vec![id.clone()], audit: vec![line], ..Batch::default() };
        self.parts.store.commit(batch).await?;
        self.published.notify_waiters();
        Ok(())
    }
}

/// The target of the first link whose relation is `next`. Spec: RFC 8288, Link Serialisation in HTTP Headers.
fn next_link(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some((_, from)) = rest.split_once('<') {
        let (target, after) = from.split_once('>')?;
        // A comma inside quotes is no end of a link, and neither `<` nor `,` belongs into a relation.
        let mut quoted = false;
        let end = after.find(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let parameters = end.map_or(after, |end| &after[..end]);
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target.to_owned());
        }
        rest = end.map_or("", |end| &after[end..]);
    }
    None
}

/// The address of a next page; the client checks whether it may be called, and who is there.
fn followed(address: &str, link: &str) -> Result<String, ControlError> {
    let next = Url::parse(address).and_then(|base| base.join(link));
    let mut next =
        next.map_err(|error| ControlError::Peer(format!("the next page `{link}` is at no address: {error}")))?;
    next.set_fragment(None);
    Ok(next.into())
}

/// What the lists of the pages before hold, by the list's name; filled as pages come, so that each item is looked at
/// once, however many pages there are.
type Known = HashMap<String, HashSet<Value>>;

/// Adds what a page lists to the pages before it.
fn append(whole: &mut Value, page: Value, known: &mut Known) {
    let (Value::Object(whole), Value::Object(page)) = (whole, page) else { return };
    for (name, member) in page {
        match (whole.get_mut(&name), member) {
            (Some(Value::Array(all)), Value::Array(more)) if name == "dataset" => all.extend(more),
            (Some(Value::Array(all)), Value::Array(more)) => {
                // Services are the same on every page.
                let known = known.entry(name).or_insert_with(|| all.iter().cloned().collect());
                all.extend(more.into_iter().filter(|item| known.insert(item.clone())));
            }
            (Some(_), _) => {}
            (None, member) => {
                whole.insert(name, member);
            }
        }
    }
}

fn catalogue_line(at: jiff::Timestamp, event: &str, detail: String) -> AuditRecord {
    AuditRecord { at, process: None, counterparty: None, agreement: None, event: event.to_owned(), detail }
}

impl Control {
    /// Whether a source can be opened now, by the data plane's own rule: it is there, of its kind,
    /// and inside the folders that datasets may name.
    ///
    /// # Errors
    /// [`ControlError::Refused`] that names the folders.
    pub fn check_source(&self, source: &crate::model::SourceSpec) -> Result<(), ControlError> {
        let roots = &self.parts.source_roots;
        let checked = SourceRoots::lenient(roots.iter().cloned()).resolve(source);
        let listed = checked.and_then(|found| match source {
            crate::model::SourceSpec::Directory { .. } => found.index(&self.parts.data_limits).map(drop),
            crate::model::SourceSpec::File { .. } => Ok(()),
        });
        listed.map_err(|error| {
            if let SourceError::Unnamed(_) | SourceError::TooMany { .. } = error {
                let refusal = Refusal::new(Fault::Malformed, "dataset.source", error.to_string()).at("source.path");
                return ControlError::from(refusal.by("a folder is offered with all its files").cure("another folder"));
            }
            let names: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
            ControlError::from(
                Refusal::new(Fault::Malformed, "dataset.source", error.to_string())
                    .at("source.path")
                    .cure(format!("a path inside {}", names.join(" or "))),
            )
        })
    }

    /// How many flows of a transfer run now.
    #[must_use]
    pub fn running_flows(&self, id: &kontor_core::id::ProcessId) -> usize {
        self.parts.grants.running(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, found) in [
            ("<https://p/catalog?t=2>; rel=\"next\"", Some("https://p/catalog?t=2")),
            ("</c?a=1>;rel=previous, </c?a=3,4>; title=\"a, b\"; rel=next", Some("/c?a=3,4")),
            ("<a>; rel=\"last next\"", Some("a")),
            ("<a>; REL=NEXT", Some("a")),
            ("<a>; rel=previous", None),
            ("<a>; title=\"rel=next\"", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_link(header).as_deref(), found, "{header}");
        }
    }

    #[test]
    fn pages_are_one_catalogue() {
        let mut whole = json!({ "@id": "c", "service": [{ "@id": "s" }], "dataset": [{ "@id": "1" }] });
        let mut known = Known::new();
        append(
            &mut whole,
            json!({ "@id": "d", "service": [{ "@id": "s" }], "dataset": [{ "@id": "2" }], "catalog": [] }),
            &mut known,
        );
        append(
            &mut whole,
            json!({ "service": [{ "@id": "t" }, { "@id": "s" }], "dataset": [{ "@id": "1" }] }),
            &mut known,
        );
        append(&mut whole, json!({ "service": [{ "@id": "t" }] }), &mut known);
        let services = json!([{ "@id": "s" }, { "@id": "t" }]);
        let datasets = json!([{ "@id": "1" }, { "@id": "2" }, { "@id": "1" }]);
        assert_eq!(known["service"].len(), 2, "an item is looked for again on every page");
        assert_eq!(whole, json!({ "@id": "c", "service": services, "dataset": datasets, "catalog": [] }));
    }
}
