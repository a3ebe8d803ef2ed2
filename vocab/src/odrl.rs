//! An ODRL policy as it travels: compact JSON-LD with every member kept.
//!
//! The typed model with meaning lives in `kontor-core`; this document only knows the few members
//! that the protocol itself reads.

pub mod terms;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A policy document (Set, Offer or Agreement) in compact form, members in the order they came.
///
/// Spec: ODRL Information Model 2.2, §2.1; DSP 2025-1, Contract Negotiation.
///
/// ```
/// use kontor_vocab::odrl::PolicyDocument;
/// let offer: PolicyDocument = serde_json::from_str(
///     r#"{"@id":"urn:offer:1","@type":"Offer","target":"urn:data:1","permission":[{"action":"use"}]}"#,
/// ).unwrap();
/// assert_eq!(offer.id(), Some("urn:offer:1"));
/// assert_eq!(offer.target(), Some("urn:data:1"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct PolicyDocument(pub Map<String, Value>);

impl PolicyDocument {
    /// Takes a JSON object; anything else is handed back.
    ///
    /// # Errors
    /// The value itself, when it is not an object.
    pub fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(other),
        }
    }

    /// The policy as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// `@id`, the identifier of the policy.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.text("@id")
    }

    /// `@type`: `Set`, `Offer` or `Agreement` in compact form.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.text("@type")
    }

    /// `target`, the dataset that the whole policy is about.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.text("target")
    }

    /// `assigner`, the party that grants.
    #[must_use]
    pub fn assigner(&self) -> Option<&str> {
        self.text("assigner")
    }

    /// `assignee`, the party that is granted to.
    #[must_use]
    pub fn assignee(&self) -> Option<&str> {
        self.text("assignee")
    }

    /// `timestamp`, when an agreement was made (`xsd:dateTime`), as a text or typed.
    #[must_use]
    pub fn timestamp(&self) -> Option<&str> {
        match self.0.get("timestamp")? {
            Value::Object(typed) => typed.get("@value").and_then(Value::as_str),
            _ => self.text("timestamp"),
        }
    }

    /// The same policy with the member set to a text.
    #[must_use]
    pub fn with(mut self, member: &str, text: &str) -> Self {
        self.0.insert(member.to_owned(), Value::String(text.to_owned()));
        self
    }

    /// The same policy without the member.
    #[must_use]
    pub fn without(mut self, member: &str) -> Self {
        self.0.shift_remove(member);
        self
    }

    /// A text member; `{"@id": "…"}` reads as its id.
    fn text(&self, member: &str) -> Option<&str> {
        match self.0.get(member)? {
            Value::String(text) => Some(text),
            Value::Object(map) => map.get("@id").and_then(Value::as_str),
            _ => None,
        }
    }
}
