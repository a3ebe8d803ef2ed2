//! Duties: what must be done before, during or after a use, and how far it is.
//!
//! A duty is known by its [`DutyKey`], the digest of its normal form, so that provider and consumer, and the register
//! that keeps its state, speak of the same one.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::literal::Duration;
use super::permit::Transform;

/// Which duty of a policy: the SHA-256 of its normal form, as lower-case hexadecimal. Duties that mean the same have
/// the same key, wherever they stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DutyKey(pub(super) String);

impl DutyKey {
    /// The digest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that was stored.
    ///
    /// # Errors
    /// The text, where it is not the hexadecimal form of a SHA-256.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == 64 && text.chars().all(hex) { Ok(Self(text.to_owned())) } else { Err(text) }
    }
}

impl fmt::Display for DutyKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// When a duty is to be done, seen from the use that it hangs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Before it: what is not fulfilled forbids the use.
    Before,
    /// While it goes on: the connector does it, or does not let the use go on.
    During,
    /// After it: the use leaves the duty behind.
    After,
}

impl When {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// How far a duty is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DutyState {
    /// Not done, and still to be done in time.
    #[default]
    Pending,
    /// Done.
    Fulfilled,
    /// Not done in time: nothing is allowed until it is done all the same, and its consequences too.
    Violated,
    /// Done after its time: good only together with its consequences.
    Late,
}

/// A duty's state, and until when it is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: DutyState,
    /// The first instant at which it is pending again, as a rent that is paid until then. `None`: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The states of duties, as facts. A duty that is not here is pending.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DutyStates(BTreeMap<DutyKey, Standing>);

impl DutyStates {
    /// The same states and one more.
    #[must_use]
    pub fn with(mut self, key: DutyKey, state: DutyState) -> Self {
        self.insert(key, Standing { state, until: None });
        self
    }

    /// Sets the state of a duty.
    pub fn insert(&mut self, key: DutyKey, standing: Standing) {
        self.0.insert(key, standing);
    }

    /// The state of a duty, where one was recorded.
    #[must_use]
    pub fn get(&self, key: &DutyKey) -> Option<Standing> {
        self.0.get(key).copied()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When data must be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// As soon as the use is over.
    Immediately,
    /// At the latest at an instant.
    At(Timestamp),
    /// At the latest so long after the use, by the calendar in UTC.
    Within(Duration),
}

/// How often a payment is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequency {
    /// Once.
    Once,
    /// Again after each such span.
    Every(Duration),
}

/// What a duty asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DutyKind {
    /// Pay (`compensate`).
    Compensate {
        /// How much, where it is said.
        #[serde(default, with = "rust_decimal::serde::str_option")]
        amount: Option<Decimal>,
        /// In which currency, where it is said.
        unit: Option<String>,
        /// How often.
        frequency: Frequency,
        /// To whom, where it is said.
        party: Option<String>,
    },
    /// Have the consent of these parties; of the assigner where there is none (`obtainConsent`).
    ObtainConsent {
        /// The parties, sorted.
        parties: Vec<String>,
    },
    /// Record the use (`idsc:LOG`).
    Log {
        /// In which system; in the connector's own record where none is named.
        target: Option<String>,
    },
    /// Tell a party of the use (`inform`, `idsc:NOTIFY`).
    Inform {
        /// Whom, sorted; the assigner where there is none.
        parties: Vec<String>,
    },
    /// Delete the data (`delete`).
    Delete {
        /// When.
        after: Deadline,
    },
    /// Pass the data on only under this policy (`nextPolicy`).
    NextPolicy {
        /// Its IRI.
        policy: String,
    },
    /// Change the data on its way.
    Transform(Transform),
    /// A use was counted: what `count` does by itself (`idsc:INCREMENT_COUNTER`).
    Count,
    /// Something else, which is not carried out here.
    Other {
        /// The action.
        action: String,
    },
}

/// A duty that comes with a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueDuty {
    /// JSON path of the duty.
    pub path: String,
    /// Which duty.
    pub key: DutyKey,
    /// What it asks for.
    pub kind: DutyKind,
    /// When.
    pub when: When,
    /// How far it is.
    pub state: DutyState,
}
