//! What a connector can hold to, as a value: the line between what is agreed to and what is refused.

use std::collections::BTreeSet;

use super::fact::FactSource;
use super::operand::Vocabulary;
use super::permit::{StreamTerms, Transform};
use crate::negotiation::Role;

/// Something that the data plane can do to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageKind {
    /// End it after so many bytes.
    Bytes,
    /// End it after so many records.
    Records,
    /// Slow it down.
    Rate,
    /// Hold it back until an instant.
    Delay,
    /// Hand over nothing but some fields.
    Keep,
    /// Leave fields out.
    Drop,
    /// Replace a value.
    Replace,
    /// Put a pseudonym in place of a value.
    Hash,
    /// Round a number.
    Round,
    /// Add to a number.
    Add,
    /// Multiply a number.
    Multiply,
}

impl StageKind {
    /// Every stage.
    pub const ALL: [Self; 11] = [
        Self::Bytes,
        Self::Records,
        Self::Rate,
        Self::Delay,
        Self::Keep,
        Self::Drop,
        Self::Replace,
        Self::Hash,
        Self::Round,
        Self::Add,
        Self::Multiply,
    ];

    /// The stage that a transform needs.
    #[must_use]
    pub fn of(transform: &Transform) -> Self {
        match transform {
            Transform::Keep { .. } => Self::Keep,
            Transform::Drop { .. } => Self::Drop,
            Transform::Replace { .. } => Self::Replace,
            Transform::Hash { .. } => Self::Hash,
            Transform::Round { .. } => Self::Round,
            Transform::Add { .. } => Self::Add,
            Transform::Multiply { .. } => Self::Multiply,
        }
    }

    /// What it does, in words that follow "the data plane can".
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Bytes => "end a stream after a number of bytes",
            Self::Records => "end a stream after a number of records",
            Self::Rate => "slow a stream down",
            Self::Delay => "hold a stream back until an instant",
            Self::Keep => "hand over nothing but some fields",
            Self::Drop => "leave fields out",
            Self::Replace => "replace a value",
            Self::Hash => "put a pseudonym in place of a value",
            Self::Round => "round a number",
            Self::Add => "add to a number",
            Self::Multiply => "multiply a number",
        }
    }

    /// The stages that terms need.
    #[must_use]
    pub fn needed(terms: &StreamTerms) -> BTreeSet<Self> {
        let mut needed: BTreeSet<Self> = terms.transforms.iter().map(Self::of).collect();
        needed.extend(terms.bytes_max.map(|_| Self::Bytes));
        needed.extend(terms.records_max.map(|_| Self::Records));
        needed.extend(terms.rate.map(|_| Self::Rate));
        needed.extend(terms.not_before.map(|_| Self::Delay));
        needed
    }
}

/// What this connector can hold to. Whatever is not named here is refused before an agreement.
///
/// The default is what the core does by itself with a shell that hands in the time, the agreement, its durable count
/// of uses and the verified participant, and nothing more. A shell that can do more says so, and only then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// On which side of the agreement this connector stands.
    pub role: Role,
    /// The operator's own terms.
    pub vocabulary: Vocabulary,
    /// Whose knowledge is handed in with a decision.
    pub sources: BTreeSet<FactSource>,
    /// Whose facts are handed in with the instant since which they hold
    /// ([`Facts::insert_since`](super::Facts::insert_since)): of others nobody knows in which order they came to hold.
    pub beginnings: BTreeSet<FactSource>,
    /// What the data plane can do to a stream.
    pub stages: BTreeSet<StageKind>,
    /// Whether an infringement of a prohibition can be recorded and is handed in with a decision, so that a remedy has
    /// something to follow.
    pub infringements: bool,
    /// Whether it is seen that a payment which is due after a use was not made in time, and handed in with a decision, so
    /// that a bill forbids further uses once it is overdue.
    pub overdue_payments: bool,
    /// Whether each use is recorded before it begins, and refused where it cannot be.
    pub log_sink: bool,
    /// The systems that a use can be recorded in, by the name that a policy gives them, beside our own record.
    pub log_targets: BTreeSet<String>,
    /// Whether the parties of the agreement know of every use: each takes part in it by its own connector, which keeps
    /// a record.
    pub inform_counterparty: bool,
    /// The parties that can be told of a use by a message that survives a restart, beside those of the agreement.
    pub inform_targets: BTreeSet<String>,
    /// Whether data that was received is deleted in time, also after a restart.
    pub delete: bool,
    /// Whether data that was received is offered on only under the policy that its agreement demands.
    pub next_policy: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            role: Role::Provider,
            vocabulary: Vocabulary::default(),
            sources: BTreeSet::from([
                FactSource::Clock,
                FactSource::Agreement,
                FactSource::Uses,
                FactSource::Requester,
            ]),
            beginnings: BTreeSet::new(),
            stages: BTreeSet::new(),
            infringements: false,
            overdue_payments: false,
            log_sink: false,
            log_targets: BTreeSet::new(),
            inform_counterparty: false,
            inform_targets: BTreeSet::new(),
            delete: false,
            next_policy: false,
        }
    }
}

impl Capabilities {
    /// Everything that the core knows how to ask for: what a connector with all its parts switched on can hold to.
    #[must_use]
    pub fn all() -> Self {
        Self {
            sources: FactSource::ALL.into(),
            beginnings: BTreeSet::from([FactSource::Peer, FactSource::Register, FactSource::AgreementRegister]),
            stages: StageKind::ALL.into(),
            infringements: true,
            overdue_payments: true,
            log_sink: true,
            inform_counterparty: true,
            delete: true,
            next_policy: true,
            ..Self::default()
        }
    }

    /// The same, on the other side of an agreement.
    #[must_use]
    pub fn for_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
}
