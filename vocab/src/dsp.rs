//! The messages of the Dataspace Protocol 2025-1 as they travel, in compact form.
//!
//! One flat struct per message family keeps parsing total: a member that is missing is `None`,
//! and who reads the message says what it needs. Absent is absent, never `null`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::iri::DSPACE_CONTEXT;
use crate::odrl::PolicyDocument;

/// The `@context` that every message of ours carries: an array with one string.
#[must_use]
pub fn context() -> Value {
    json!([DSPACE_CONTEXT])
}

/// Reads a single value or an array of values: JSON-LD allows both.
///
/// # Errors
/// Those of the item's own deserializer.
pub fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    use serde::de::Error;
    match Value::deserialize(deserializer)? {
        Value::Array(items) => {
            items.into_iter().map(|item| serde_json::from_value(item).map_err(D::Error::custom)).collect()
        }
        Value::Null => Ok(Vec::new()),
        one => Ok(vec![serde_json::from_value(one).map_err(D::Error::custom)?]),
    }
}

/// Any message of negotiation or transfer, and their acknowledgements and errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Message {
    /// `@context`.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// `@type`, bare.
    #[serde(rename = "@type", default)]
    pub kind: String,
    /// `@id` of the message.
    #[serde(rename = "@id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The provider's process.
    #[serde(rename = "providerPid", default, skip_serializing_if = "Option::is_none")]
    pub provider_pid: Option<String>,
    /// The consumer's process.
    #[serde(rename = "consumerPid", default, skip_serializing_if = "Option::is_none")]
    pub consumer_pid: Option<String>,
    /// Where the sender listens (first messages).
    #[serde(rename = "callbackAddress", default, skip_serializing_if = "Option::is_none")]
    pub callback_address: Option<String>,
    /// The offer of a request or offer message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<PolicyDocument>,
    /// The agreement of an agreement message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<PolicyDocument>,
    /// `ACCEPTED` or `FINALIZED`.
    #[serde(rename = "eventType", default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The agreement that a transfer is under.
    #[serde(rename = "agreementId", default, skip_serializing_if = "Option::is_none")]
    pub agreement_id: Option<String>,
    /// The transfer format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where data is or goes.
    #[serde(rename = "dataAddress", default, skip_serializing_if = "Option::is_none")]
    pub data_address: Option<DataAddress>,
    /// State of an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Code of a termination, suspension or error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Reasons of a termination, suspension or error; strings, or objects as some peers send.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub reason: Vec<Value>,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// An empty message of a type, with our context.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self { context: Some(context()), kind: kind.to_owned(), ..Self::default() }
    }
}

/// Where data is or goes. Spec: DSP 2025-1, DataAddress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataAddress {
    /// `@type`: `DataAddress`.
    #[serde(rename = "@type", default = "data_address_type")]
    pub kind: String,
    /// `endpointType`.
    #[serde(rename = "endpointType")]
    pub endpoint_type: String,
    /// `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Named values, such as the token (`authorization`).
    #[serde(
        rename = "endpointProperties",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "one_or_many"
    )]
    pub endpoint_properties: Vec<EndpointProperty>,
}

fn data_address_type() -> String {
    "DataAddress".to_owned()
}

/// A named value of a data address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointProperty {
    /// `@type`: `EndpointProperty`.
    #[serde(rename = "@type", default = "endpoint_property_type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its value; what is no string is kept as the JSON that it came as.
    #[serde(deserialize_with = "text_of")]
    pub value: String,
}

fn text_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

fn endpoint_property_type() -> String {
    "EndpointProperty".to_owned()
}

/// `CatalogRequestMessage`. Spec: DSP 2025-1, Catalog Request Message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogRequest {
    /// `@context`.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// `@type`: `CatalogRequestMessage`.
    #[serde(rename = "@type", default)]
    pub kind: String,
    /// Implementation-specific filter; an unsupported one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An error body: `CatalogError`, `ContractNegotiationError` or `TransferError`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// `@context`.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// `@type`.
    #[serde(rename = "@type", default)]
    pub kind: String,
    /// The provider's process, where there is one.
    #[serde(rename = "providerPid", default, skip_serializing_if = "Option::is_none")]
    pub provider_pid: Option<String>,
    /// The consumer's process, where there is one.
    #[serde(rename = "consumerPid", default, skip_serializing_if = "Option::is_none")]
    pub consumer_pid: Option<String>,
    /// A code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub reason: Vec<Value>,
}

/// The version document at `/.well-known/dspace-version`. Spec: DSP 2025-1, Common Protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// The versions spoken.
    #[serde(rename = "protocolVersions")]
    pub protocol_versions: Vec<Version>,
}

/// One version of the protocol at one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// `2025-1`.
    pub version: String,
    /// Appended to the base.
    pub path: String,
    /// `HTTPS`.
    pub binding: String,
    /// How participants are identified, such as `did:web`.
    #[serde(rename = "identifierType", default, skip_serializing_if = "Option::is_none")]
    pub identifier_type: Option<String>,
    /// Members that we do not read, kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
