//! What can go wrong between a request and its answer.

use kontor_core::refusal::{Fault, Refusal};

use crate::store::StoreError;

/// Why the control plane did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The rules say no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The store says no.
    #[error("the store is not available: {0}")]
    Store(#[source] StoreError),
    /// A peer that we had to ask did not answer usefully.
    #[error("{0}")]
    Peer(String),
    /// Somebody changed the same process too often at once.
    #[error("the process is being changed by many at once; try again")]
    Busy,
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UseExhausted { agreement, taken, max } => Self::Refused(
                Refusal::new(
                    Fault::Denied,
                    "policy.uses-exhausted",
                    format!("agreement `{agreement}` allows {max} uses and {taken} are taken"),
                )
                .by("ODRL count")
                .cure("a new agreement"),
            ),
            StoreError::QuantityExhausted { agreement, unit, taken, max } => Self::Refused(
                Refusal::new(
                    Fault::Denied,
                    "policy.quantity-exhausted",
                    format!("agreement `{agreement}` allows {max} {} and {taken} are taken", unit.as_str()),
                )
                .by("quantity of data")
                .cure("a new agreement, or a smaller part of the data"),
            ),
            StoreError::Duplicate { what: "agreement", id } => Self::Refused(
                Refusal::new(Fault::Malformed, "agreement.id", format!("an agreement `{id}` is here already"))
                    .at("agreement.@id")
                    .cure("an identifier that no other agreement has"),
            ),
            StoreError::Cursor(cursor) => Self::Refused(
                Refusal::new(Fault::Malformed, "page.after", format!("`{cursor}` is no place in a list"))
                    .at("after")
                    .cure("the value that the page before named"),
            ),
            other => Self::Store(other),
        }
    }
}

impl ControlError {
    /// Unknown, or not for whoever asked: both read the same.
    #[must_use]
    pub fn not_found(what: &str, id: &str) -> Self {
        let refusal = Refusal::new(Fault::NotFound, "not-found", format!("there is no {what} `{id}` here for you"));
        Self::Refused(refusal.cure("the identifier of one that is here and that you take part in"))
    }

    /// Whether the same may succeed later although nobody changes anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)) | Self::Busy)
    }

    /// The refusal to show, whatever went wrong.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Store(error) => {
                tracing::error!(%error, "the store failed");
                Refusal::new(
                    Fault::Unavailable,
                    "store.unavailable",
                    "the connector cannot read or write its state now",
                )
                .cure("the same request later")
            }
            Self::Peer(detail) => Refusal::new(Fault::Unavailable, "peer.unavailable", detail.clone())
                .cure("the same request once the peer answers as the protocol has it"),
            Self::Busy => Refusal::new(Fault::Unavailable, "busy", self.to_string()).cure("the same request later"),
        }
    }
}
