//! The records that the store keeps and `control` works with, beside the two protocol machines.
//!
//! Plain values that serialise: what is here is what is on disk. A member that is added later
//! needs `#[serde(default)]`, so that records written before it still read.

mod duty;
mod fact;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kontor_core::catalog::PublishedOffer;
use kontor_core::id::{AgreementId, DatasetId, MessageId, ParticipantId, ProcessId};
use kontor_core::negotiation::{Agreement, Role};
use kontor_core::peer::{Binding, VerifiedPeer};
use kontor_vocab::odrl::PolicyDocument;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use duty::{DutyProgress, DutyRecord, DutyTask, ReceivedRecord, ReceivedState};
pub use fact::{FactRecord, Subject};

/// An agreement as we hold it, on either side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementRecord {
    /// The agreement itself: parties, dataset, time, policy.
    pub agreement: Agreement,
    /// Our side.
    pub role: Role,
    /// The other participant.
    pub counterparty: ParticipantId,
    /// Our own identifier of the negotiation that led to it.
    pub negotiation: ProcessId,
    /// Whether it counts.
    pub state: AgreementState,
}

/// Whether an agreement counts. It only moves down this list; the store keeps it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum AgreementState {
    /// Agreed, not yet finalized: nothing may be transferred under it.
    Pending,
    /// Finalized.
    InForce,
    /// Taken back by the provider's operator; running flows are cut.
    Revoked {
        /// Why, in words.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

impl AgreementState {
    /// The word, for listings and filters.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InForce => "in-force",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// How far down the list it is.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::InForce => 1,
            Self::Revoked { .. } => 2,
        }
    }
}

/// A dataset that we can offer, and where its bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// `@id` in the catalogue.
    pub id: DatasetId,
    /// One line for people.
    pub title: String,
    /// A paragraph for people; may be empty.
    #[serde(default)]
    pub description: String,
    /// Words to search by.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// IANA media type of the bytes, such as `text/csv`.
    pub media_type: String,
    /// Where the bytes are.
    pub source: SourceSpec,
    /// What policies may ask of it: its classification, whether it is anonymised, and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Value>,
    /// When it was first described here.
    pub created: Timestamp,
}

/// Where the bytes of a dataset come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum SourceSpec {
    /// One file.
    File {
        /// Absolute path on the provider's machine.
        path: String,
    },
    /// The files directly and indirectly below a directory.
    Directory {
        /// Absolute path on the provider's machine.
        path: String,
    },
}

/// Where a consumer puts the bytes of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum SinkSpec {
    /// One file, written beside and renamed when whole.
    File {
        /// Absolute path on the consumer's machine.
        path: String,
    },
    /// One file per member of a directory source.
    Directory {
        /// Absolute path on the consumer's machine.
        path: String,
    },
}

/// A policy under a name, to be used in offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The name.
    pub id: String,
    /// The ODRL policy.
    pub document: PolicyDocument,
}

/// An offer in our catalogue: a policy bound to a dataset, with its audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferRecord {
    /// The offer as the core knows it.
    pub offer: PublishedOffer,
    /// When it was put up.
    pub created: Timestamp,
}

/// Which of the two protocol machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// Contract negotiation.
    Negotiation,
    /// Transfer process.
    Transfer,
}

/// A message that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The message; every retry carries the same.
    pub id: MessageId,
    /// Whose message it is.
    pub machine: Machine,
    /// Our own identifier of the negotiation or transfer.
    pub process: ProcessId,
    /// Who must receive it, and nobody else.
    pub to: ParticipantId,
    /// The full URL that it is posted to.
    pub url: String,
    /// The JSON body, byte for byte the same on every retry.
    pub body: String,
    /// When it was queued.
    pub queued: Timestamp,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When to try (again).
    pub next_attempt: Timestamp,
    /// What went wrong the last time.
    pub last_error: Option<String>,
    /// Whether it is the peer's turn once it has the message.
    #[serde(default)]
    pub awaits_answer: bool,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Our own identifier of the negotiation or transfer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// With whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterparty: Option<ParticipantId>,
    /// Under which agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Stable name, such as `negotiation.agreed`.
    pub event: String,
    /// One sentence.
    pub detail: String,
}

/// A line of the audit log with its place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Counts up by one per line, from 1.
    pub seq: u64,
    /// The line.
    #[serde(flatten)]
    pub record: AuditRecord,
}

/// What one side saw of one flow of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// Identifies the flow on this side. Committed again, it replaces the earlier report.
    pub id: String,
    /// The transfer.
    pub transfer: ProcessId,
    /// The agreement.
    pub agreement: AgreementId,
    /// Our side.
    pub role: Role,
    /// For a directory: which member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in the file the flow began, in bytes.
    pub offset: u64,
    /// How many bytes flowed.
    pub bytes: u64,
    /// BLAKE3 of those bytes, lower-case hexadecimal.
    pub digest_blake3: String,
    /// When the first byte was asked for.
    pub started: Timestamp,
    /// When the last byte was through, or the flow was cut.
    pub ended: Timestamp,
    /// How it ended.
    pub outcome: FlowOutcome,
    /// How many bytes the other side reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_bytes: Option<u64>,
    /// The digest that the other side reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_digest: Option<String>,
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum FlowOutcome {
    /// All bytes that were asked for.
    Whole,
    /// Stopped on purpose: the policy, the machine or the peer ended it.
    Cut {
        /// Why, in words.
        reason: String,
    },
    /// Stopped by a fault.
    Failed {
        /// Which, in words.
        reason: String,
    },
}

/// What belongs to a transfer but is no protocol state: the consumer's sink, the provider's grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferDetail {
    /// The transfer, by our own identifier.
    pub transfer: ProcessId,
    /// Consumer: where the bytes go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkSpec>,
    /// Provider: SHA-256 of the access token, lower-case hexadecimal; no two transfers share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// Provider: what the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<TokenBinding>,
    /// Whether the flow begins by itself once the transfer is started.
    #[serde(default = "yes")]
    pub auto_start: bool,
    /// Whatever else a data plane must remember; kept as it is.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl TransferDetail {
    /// Nothing known yet, and the flow begins by itself.
    #[must_use]
    pub fn new(transfer: ProcessId) -> Self {
        Self { transfer, sink: None, token_digest: None, binding: None, auto_start: true, extra: Map::new() }
    }
}

/// What an access token is bound to, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum TokenBinding {
    /// The peer's certificate.
    Certificate {
        /// SHA-256 of its DER form, lower-case hexadecimal.
        sha256: String,
    },
    /// Nothing but a header, in a profile whose name says `insecure`.
    InsecureHeader,
}

impl TokenBinding {
    /// Whether this peer is the one that the token was made for. The participant is compared by
    /// the caller: it is the transfer's counterparty.
    #[must_use]
    pub fn matches(&self, peer: &VerifiedPeer) -> bool {
        *self == Self::from(peer.binding())
    }
}

impl From<&Binding> for TokenBinding {
    fn from(binding: &Binding) -> Self {
        match binding {
            Binding::Certificate(digest) => {
                Self::Certificate { sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
            }
            Binding::InsecureHeader => Self::InsecureHeader,
        }
    }
}

/// What a broker holds of our self-description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The broker, as a participant.
    pub broker: ParticipantId,
    /// Its address.
    pub url: String,
    /// Digest of the self-description that it took last; `None` before the first.
    #[serde(default)]
    pub digest: Option<String>,
    /// Until when it keeps it without hearing from us.
    #[serde(default)]
    pub lease_until: Option<Timestamp>,
    /// What went wrong the last time.
    #[serde(default)]
    pub last_error: Option<String>,
}
