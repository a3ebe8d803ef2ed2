//! What an agreement obliges us to do, as it is kept until it is done.

use jiff::Timestamp;
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::Role;
use kontor_core::policy::DueDuty;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A duty that is due at some time. Made in the commit of what caused it; once settled it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyRecord {
    /// Made of agreement, transfer, duty and occasion, so that the same occasion makes one duty.
    pub id: String,
    /// The agreement that it comes from.
    pub agreement: AgreementId,
    /// The transfer that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<ProcessId>,
    /// Our side of the agreement.
    pub role: Role,
    /// The other side.
    pub counterparty: ParticipantId,
    /// Which duty of the policy: the digest of its terms.
    pub key: String,
    /// Where in the policy it stands, such as `permission[0].duty[1]`.
    pub path: String,
    /// What is to be done.
    pub task: DutyTask,
    /// How far it is.
    pub state: DutyProgress,
    /// When it is to be done.
    pub due: Timestamp,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// When to try (again).
    pub next_attempt: Timestamp,
    /// What went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum DutyTask {
    /// Append an entry to the required log.
    Log {
        /// The entry.
        entry: Value,
    },
    /// Tell a party.
    Inform {
        /// Whom.
        party: String,
        /// What it is told.
        notice: Value,
    },
    /// Delete what a transfer brought.
    Delete,
}

impl DutyTask {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Log { .. } => "log",
            Self::Inform { .. } => "inform",
            Self::Delete => "delete",
        }
    }
}

/// How far a duty is. It is settled once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum DutyProgress {
    /// To be done.
    Pending,
    /// Done.
    Fulfilled {
        /// When.
        at: Timestamp,
        /// What was done, in a sentence.
        detail: String,
    },
    /// Not done, and never will be.
    Violated {
        /// When it was given up.
        at: Timestamp,
        /// Why, in a sentence.
        detail: String,
    },
}

impl DutyProgress {
    /// The word, for listings and filters.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fulfilled { .. } => "fulfilled",
            Self::Violated { .. } => "violated",
        }
    }
}

/// What a transfer brought us, from the first byte until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedRecord {
    /// The transfer, by our own identifier.
    pub transfer: ProcessId,
    /// The agreement that it came under.
    pub agreement: AgreementId,
    /// Who provided it.
    pub counterparty: ParticipantId,
    /// The absolute path of the file or directory.
    pub path: String,
    /// The duties that came with the permission to fetch it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duties: Vec<DueDuty>,
    /// How far it is.
    pub state: ReceivedState,
}

/// How far something received is. It only moves down this list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum ReceivedState {
    /// It is on its way; nothing had its name before.
    Receiving,
    /// It is there, whole and verified.
    Kept {
        /// When it was whole.
        at: Timestamp,
        /// How many bytes.
        bytes: u64,
        /// BLAKE3, as the pull computed it.
        digest_blake3: String,
    },
    /// It was deleted.
    Deleted {
        /// When.
        at: Timestamp,
        /// When it had been whole.
        received: Timestamp,
        /// How many bytes it was.
        bytes: u64,
        /// BLAKE3 of what was deleted.
        digest_blake3: String,
    },
}

impl ReceivedState {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Kept { .. } => "kept",
            Self::Deleted { .. } => "deleted",
        }
    }

    /// How far down the list it is.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Receiving => 0,
            Self::Kept { .. } => 1,
            Self::Deleted { .. } => 2,
        }
    }
}
