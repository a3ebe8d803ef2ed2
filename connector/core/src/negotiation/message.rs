//! The alphabet of the negotiation.

use kontor_vocab::odrl::PolicyDocument;
use serde::{Deserialize, Serialize};

use crate::id::{AgreementId, DatasetId, OfferId, ParticipantId};
use crate::policy::Compared;

/// What either side may say in a negotiation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "message")]
pub enum Message {
    /// Consumer: asks for an agreement on an offer, or counters the provider's.
    ///
    /// Spec: DSP 2025-1, Contract Request Message.
    Request {
        /// The offer asked for.
        offer: Offer,
    },
    /// Provider: makes an offer, or counters the consumer's.
    ///
    /// Spec: DSP 2025-1, Contract Offer Message.
    Offer {
        /// The offer made.
        offer: Offer,
    },
    /// Consumer: accepts the provider's offer. Spec: Contract Negotiation Event Message, ACCEPTED.
    Accepted,
    /// Provider: agrees. Spec: DSP 2025-1, Contract Agreement Message.
    Agreement {
        /// The agreement, whole.
        agreement: Agreement,
    },
    /// Consumer: has stored and checked the agreement. Spec: Contract Agreement Verification Message.
    Verification,
    /// Provider: the agreement is in force. Spec: Contract Negotiation Event Message, FINALIZED.
    Finalized,
    /// Either: ends it. Spec: DSP 2025-1, Contract Negotiation Termination Message.
    Termination {
        /// Implementation-specific code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Reasons in words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        reason: Vec<String>,
    },
}

impl Message {
    /// The name of the message, as the specification spells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// An offer inside a message: its policy, and the two members that the machine reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// `@id`.
    pub id: OfferId,
    /// `target`: the dataset.
    pub target: DatasetId,
    /// The whole policy, as it came.
    pub policy: PolicyDocument,
}

/// An agreement: the policy that both sides hold, with its parties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// `@id`.
    pub id: AgreementId,
    /// `target`: the dataset.
    pub target: DatasetId,
    /// The provider.
    pub assigner: ParticipantId,
    /// The consumer.
    pub assignee: ParticipantId,
    /// When the provider made it (`timestamp`).
    pub agreed_at: jiff::Timestamp,
    /// The whole policy, as it travelled.
    pub policy: PolicyDocument,
}

/// How an offer relates to what the provider has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfferKind {
    /// Means the same as an offer that is published to this peer.
    Published,
    /// Anything else: a person or a rule must decide.
    Counter,
}

/// What the terms of an offer are to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Whether they are what is published, or what we asked for.
    pub kind: OfferKind,
    /// How they compare with that, for the record and for people; none where there is nothing to
    /// compare with.
    pub compared: Option<Compared>,
}

impl From<OfferKind> for Related {
    fn from(kind: OfferKind) -> Self {
        Self { kind, compared: None }
    }
}
