//! Who is at the other end, after it was proven.

use crate::id::ParticipantId;

/// A peer whose identity was verified. Private fields: only [`VerifiedPeer::assert_verified`]
/// makes one, so that every place that vouches for a peer can be found by that name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerifiedPeer {
    participant: ParticipantId,
    binding: Binding,
}

/// What a token handed to this peer is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Binding {
    /// SHA-256 of the peer's certificate (DER), as in RFC 8705, section 3.1.
    Certificate([u8; 32]),
    /// Nothing: the identity was read from a header, in a profile whose name says `insecure`.
    InsecureHeader,
}

impl VerifiedPeer {
    /// Vouches for a peer. Call this only where the identity was proven: in the TLS handshake, or
    /// in the adapter of a profile whose name says `insecure`.
    #[must_use]
    pub fn assert_verified(participant: ParticipantId, binding: Binding) -> Self {
        Self { participant, binding }
    }

    /// The participant.
    #[must_use]
    pub fn participant(&self) -> &ParticipantId {
        &self.participant
    }

    /// What tokens for this peer are bound to.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }
}
