//! Catalogue, dataset, distribution and data service, as they travel.
//!
//! Spec: DCAT 3; DSP 2025-1, Catalog Protocol.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dsp::one_or_many;
use crate::odrl::PolicyDocument;

/// A participant's catalogue. Spec: DSP 2025-1, Catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// `@context`.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// `@id`.
    #[serde(rename = "@id")]
    pub id: String,
    /// `@type`: `Catalog`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// Whose catalogue.
    #[serde(rename = "participantId", default, skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<String>,
    /// Where its data is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub service: Vec<DataService>,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub dataset: Vec<Dataset>,
    /// Catalogues inside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub catalog: Vec<Catalog>,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A dataset with its offers and distributions. Spec: DSP 2025-1, Dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// `@context`, where the dataset is the whole answer.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// `@id`.
    #[serde(rename = "@id")]
    pub id: String,
    /// `@type`: `Dataset`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// Its offers, without `target`.
    #[serde(rename = "hasPolicy", default, deserialize_with = "one_or_many")]
    pub has_policy: Vec<PolicyDocument>,
    /// How it can be had.
    #[serde(default, deserialize_with = "one_or_many")]
    pub distribution: Vec<Distribution>,
    /// Title, description, keywords and whatever else, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One way to have a dataset. Spec: DSP 2025-1, Distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// `@type`: `Distribution`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// The transfer format, such as `HttpData-PULL`.
    pub format: String,
    /// The service that serves it: an id or a [`DataService`].
    #[serde(rename = "accessService")]
    pub access_service: Value,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A service that serves data. Spec: DSP 2025-1, DataService.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataService {
    /// `@id`.
    #[serde(rename = "@id")]
    pub id: String,
    /// `@type`: `DataService`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// The base that message paths are appended to.
    #[serde(rename = "endpointURL", default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
