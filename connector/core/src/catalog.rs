//! Which offers a given peer may see, and why.

use kontor_vocab::odrl::PolicyDocument;
use serde::{Deserialize, Serialize};

use crate::id::{DatasetId, OfferId, ParticipantId};
use crate::negotiation::{Offer, OfferKind, Related};
use crate::policy::{self, Capabilities, Compared, RelationKind, Vocabulary, World};
use crate::refusal::{Fault, Refusal};

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
/// (the peer is only ever told "not found"). The world is what is known before there is an
/// agreement: the time, and facts about the peer and the dataset.
///
/// # Errors
/// [`Refusal`] when the audience excludes the peer, the policy's assignee is somebody else, or
/// the policy can no longer allow anything to this peer at any time from now on.
pub fn visible(
    offer: &PublishedOffer,
    peer: &ParticipantId,
    world: &World,
    capabilities: &Capabilities,
) -> Result<(), Refusal> {
    let hidden = |code: &str, message: String| {
        Err(Refusal::new(Fault::NotFound, code, message).by("Kontor, which offers a peer may see"))
    };
    match &offer.audience {
        Audience::Everyone => {}
        Audience::Only(participants) if participants.contains(peer) => {}
        Audience::Only(_) => {
            return hidden("catalog.audience", format!("offer `{}` is not published to `{peer}`", offer.id));
        }
    }
    // Who belongs to a collection is for the policy to decide.
    if let Some(assignee) = policy::one_plain(&offer.policy, "assignee")
        && assignee != peer.as_str()
    {
        return hidden("catalog.assignee", format!("offer `{}` is for `{assignee}` alone", offer.id));
    }
    if !could_allow(offer, peer, world, capabilities) {
        return hidden("catalog.over", format!("offer `{}` can no longer allow anything to `{peer}`", offer.id));
    }
    Ok(())
}

/// Whether the policy may allow the peer something, now or later. What does not parse or cannot
/// be enforced here allows nothing.
fn could_allow(offer: &PublishedOffer, peer: &ParticipantId, world: &World, capabilities: &Capabilities) -> bool {
    let Ok(policy) = policy::enforceable(&offer.policy, capabilities) else { return false };
    let request = policy::Request {
        action: policy::transfer_action(&policy).to_owned(),
        assignee: peer.clone(),
        target: offer.policy.target().map(|_| offer.dataset.as_str().to_owned()),
    };
    policy::could_allow(&policy, &request, world)
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
    world: &World,
    capabilities: &Capabilities,
) -> Result<Related, Refusal> {
    let mut of_dataset = offers.iter().filter(|offer| visible(offer, peer, world, capabilities).is_ok());
    // One sentence for "unknown" and for "not for you": a peer learns nothing by asking.
    let Some(published) = of_dataset.find(|offer| offer.id == requested.id) else {
        return Err(Refusal::new(
            Fault::NotFound,
            "catalog.no-offer",
            format!("there is no offer `{}` for this participant", requested.id),
        )
        .at("offer.@id")
        .cure("an offer of the catalogue that this participant is shown"));
    };
    if requested.target != published.dataset {
        return Err(Refusal::new(
            Fault::Altered,
            "catalog.target",
            format!("offer `{}` is not about `{}`", requested.id, requested.target),
        )
        .at("offer.target")
        .by("DSP 2025-1, Contract Negotiation Protocol, Contract Request Message")
        .cure(format!("`{}`", published.dataset)));
    }
    policy::enforceable(&requested.policy, capabilities)?;
    Ok(related(
        &policy::said_of_all(published.policy.clone(), "target", published.dataset.as_str()),
        &requested.policy,
        &capabilities.vocabulary,
    ))
}

/// How terms that somebody sent relate to those that they should be: with the same terms they are
/// equal, whoever is named as a party; otherwise the first difference is named.
#[must_use]
pub fn related(ours: &PolicyDocument, theirs: &PolicyDocument, vocabulary: &Vocabulary) -> Related {
    if policy::same_terms_with(ours, theirs, vocabulary).is_ok() {
        let equal = Compared { relation: RelationKind::Equal, difference: None };
        return Related { kind: OfferKind::Published, compared: Some(equal) };
    }
    let compared = match (policy::parse_with(ours, vocabulary), policy::parse_with(theirs, vocabulary)) {
        (Ok(ours), Ok(theirs)) => Some(policy::compared(&ours, &theirs)),
        (Err(_), _) | (_, Err(_)) => None,
    };
    Related { kind: OfferKind::Counter, compared }
}
