//! Facts about the world, as typed values that are handed in with a decision.
//!
//! A fact has a name (that of the left operand that asks for it), a value, and perhaps an end. What is not here is
//! unknown, and unknown never allows. Who can know a fact is its [`FactSource`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::operand::{canonical_name, canonical_operand};

/// The collections of parties that the requester belongs to, as a fact of [`FactValue::Names`].
pub const ASSIGNEE_COLLECTIONS: &str = "assignee.partOf";
/// The collections of assets that the asked-for target belongs to, as a fact of [`FactValue::Names`].
pub const TARGET_COLLECTIONS: &str = "target.partOf";

/// Who knows the value of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactSource {
    /// The connector's clock.
    Clock,
    /// The agreement: when it was made.
    Agreement,
    /// The durable counters of an agreement: uses, bytes, records.
    Uses,
    /// The verified identity of the participant that asks.
    Requester,
    /// The connector that the data goes to, as its certificate shows it.
    Connector,
    /// Claims about the participant that asks, kept by the operator or proved by credentials.
    Peer,
    /// Labels of the dataset.
    Dataset,
    /// Events and states that the operator raises and clears.
    Register,
    /// What is recorded for one agreement: payments, consents.
    AgreementRegister,
    /// What the consumer declares when it asks for a transfer.
    Declared,
}

impl FactSource {
    /// Every source.
    pub const ALL: [Self; 10] = [
        Self::Clock,
        Self::Agreement,
        Self::Uses,
        Self::Requester,
        Self::Connector,
        Self::Peer,
        Self::Dataset,
        Self::Register,
        Self::AgreementRegister,
        Self::Declared,
    ];

    /// Who knows it, in words that follow "known from".
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Clock => "the clock",
            Self::Agreement => "the agreement",
            Self::Uses => "the counters of the agreement",
            Self::Requester => "the verified identity of the participant",
            Self::Connector => "the certificate of the connector",
            Self::Peer => "the claims that are kept about the participant",
            Self::Dataset => "the labels of the dataset",
            Self::Register => "the register of events and states",
            Self::AgreementRegister => "the register of payments and consents",
            Self::Declared => "the consumer's declaration in its transfer request",
        }
    }
}

/// The value of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactValue {
    /// Names, places, labels. The empty set is known to be empty.
    Names(BTreeSet<String>),
    /// A number.
    Number(#[serde(with = "rust_decimal::serde::str")] Decimal),
    /// An instant.
    Instant(Timestamp),
    /// One of the ordered levels of the operand.
    Level(String),
}

impl FactValue {
    /// Names, each in its canonical spelling.
    pub fn names<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::Names(names.into_iter().map(|name| canonical_name(name.as_ref())).collect())
    }

    fn canonical(self) -> Self {
        match self {
            Self::Names(names) => Self::names(names),
            Self::Level(level) => Self::Level(canonical_name(&level)),
            Self::Number(_) | Self::Instant(_) => self,
        }
    }
}

/// A fact: a value, and from when on and until when it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The value.
    pub value: FactValue,
    /// The first instant at which it holds, where that is known: before it, nothing is known. `None`: it holds, nobody
    /// says since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The first instant at which it is no longer known. `None`: it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Facts by the name of the operand that asks for them. What is absent is unknown.
///
/// ```
/// use kontor_core::policy::{FactValue, Facts};
/// let facts = Facts::default().with("idsc:PURPOSE", FactValue::names(["urn:purpose:research"]));
/// // Every spelling of an operand is the same operand.
/// assert!(facts.get("purpose").is_some());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facts(BTreeMap<String, Fact>);

impl Facts {
    /// The same facts and one more.
    #[must_use]
    pub fn with(mut self, operand: &str, value: FactValue) -> Self {
        self.insert(operand, value);
        self
    }

    /// Adds a fact that does not end by itself; one that was there is replaced.
    pub fn insert(&mut self, operand: &str, value: FactValue) {
        self.0.insert(canonical_operand(operand), Fact { value: value.canonical(), since: None, until: None });
    }

    /// Adds a fact that is known up to but not including an instant; one that was there is replaced.
    pub fn insert_until(&mut self, operand: &str, value: FactValue, until: Timestamp) {
        self.0.insert(canonical_operand(operand), Fact { value: value.canonical(), since: None, until: Some(until) });
    }

    /// Adds a fact that holds from an instant on, up to but not including another one where there is one; one that was
    /// there is replaced. Only of such facts it is known in which order they came to hold.
    ///
    /// The instant is that of the whole value: several names that began at different instants have none, and nor has a
    /// value that only took the place of another one, of which a condition may have held before.
    pub fn insert_since(&mut self, operand: &str, value: FactValue, since: Timestamp, until: Option<Timestamp>) {
        self.0.insert(canonical_operand(operand), Fact { value: value.canonical(), since: Some(since), until });
    }

    /// The fact that an operand asks for, by the operand's canonical name.
    #[must_use]
    pub fn get(&self, operand: &str) -> Option<&Fact> {
        self.0.get(operand)
    }

    /// All facts, by the canonical names of their operands.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.0.iter().map(|(name, fact)| (name.as_str(), fact))
    }

    /// Adds all of another's facts; those of the other win.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
