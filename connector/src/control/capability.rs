//! What we enforce, as a document for our operator and our peers.

use kontor_core::id::ParticipantId;
use kontor_core::policy::{self, CapabilityDocument};
use serde::{Deserialize, Serialize};

use super::Control;

/// A capability document and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whose.
    pub participant: ParticipantId,
    /// What they enforce.
    #[serde(flatten)]
    pub document: CapabilityDocument,
}

impl Control {
    /// What this connector enforces.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { participant: self.participant().clone(), document: policy::describe() }
    }

    /// Where peers read it: beside the messages of the protocol, which knows no such document.
    #[must_use]
    pub fn capabilities_url(&self) -> String {
        format!("{}/capabilities", self.protocol_base())
    }
}
