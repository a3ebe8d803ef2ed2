//! What the operator keeps about participants, agreements and the world, for policies to ask for.

use jiff::Timestamp;
use kontor_core::id::{AgreementId, ParticipantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which register a fact is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "register", content = "subject")]
pub enum Subject {
    /// What is known of a participant: its claims.
    Participant(ParticipantId),
    /// What was done or said about an agreement: consent, payment.
    Agreement(AgreementId),
    /// Events that are raised; the name is the event.
    Events,
    /// States that hold; the name is the state.
    States,
}

impl Subject {
    /// The register's word.
    #[must_use]
    pub fn register(&self) -> &'static str {
        match self {
            Self::Participant(_) => "participant",
            Self::Agreement(_) => "agreement",
            Self::Events => "events",
            Self::States => "states",
        }
    }

    /// Whom or what it is about; empty where there is one register for all.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Participant(participant) => participant.as_str(),
            Self::Agreement(agreement) => agreement.as_str(),
            Self::Events | Self::States => "",
        }
    }
}

/// One fact: what is so, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRecord {
    /// Where it is kept.
    pub subject: Subject,
    /// The operand that it answers (`spatial`, `consent`), or the event or state itself.
    pub name: String,
    /// A text, a number, `true`, or an array of texts.
    pub value: Value,
    /// When it was set.
    pub since: Timestamp,
    /// The first instant at which it is no longer known to be so; `None`: until it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// For people: how we know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl FactRecord {
    /// Whether it counts at an instant.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.valid_until.is_none_or(|until| now < until)
    }
}
