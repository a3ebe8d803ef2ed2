//! Facts for negotiations: what arrived, what we decide.

use std::sync::Arc;

use kontor_core::catalog;
use kontor_core::id::{AgreementId, OfferId, ParticipantId, ProcessId};
use kontor_core::negotiation::{Command, Input, Message, Negotiation, Offer, OfferKind, Received, Related, Role};
use kontor_core::policy::{Vocabulary, said_of_all};
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::odrl::PolicyDocument;
use url::Url;

use super::advance::Advanced;
use super::error::ControlError;
use super::wire_format::{self, Parsed};
use super::{Control, fresh_urn};
use crate::store::{Batch, NegotiationFilter, Page, StoreError, Versioned};

/// Which message an endpoint takes, as its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `…/request`.
    Request,
    /// `…/offers`.
    Offers,
    /// `…/events`.
    Events,
    /// `…/agreement`.
    Agreement,
    /// `…/agreement/verification`.
    Verification,
    /// `…/termination`.
    Termination,
}

impl Endpoint {
    /// The `@type` that the endpoint takes.
    #[must_use]
    pub fn message_type(self) -> &'static str {
        match self {
            Self::Request => "ContractRequestMessage",
            Self::Offers => "ContractOfferMessage",
            Self::Events => "ContractNegotiationEventMessage",
            Self::Agreement => "ContractAgreementMessage",
            Self::Verification => "ContractAgreementVerificationMessage",
            Self::Termination => "ContractNegotiationTerminationMessage",
        }
    }
}

/// Who a consumer wants to negotiate with, about what.
#[derive(Debug, Clone)]
pub struct NewNegotiation {
    /// The provider.
    pub counterparty: ParticipantId,
    /// The base of its protocol endpoint.
    pub address: String,
    /// The offer, with its target.
    pub offer: Offer,
}

impl Control {
    /// Takes a message that begins a negotiation: a first request (we provide) or a first offer
    /// (we consume).
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason for the peer.
    pub async fn negotiation_opened(
        &self,
        peer: &ParticipantId,
        endpoint: Endpoint,
        body: &[u8],
    ) -> Result<Advanced<Negotiation>, ControlError> {
        let Parsed { document, digest, content } = wire_format::parse(body, endpoint.message_type())?;
        let role = if endpoint == Endpoint::Offers { Role::Consumer } else { Role::Provider };
        let (mine, theirs, mine_name, theirs_name) = match role {
            Role::Provider => (&document.provider_pid, &document.consumer_pid, "providerPid", "consumerPid"),
            Role::Consumer => (&document.consumer_pid, &document.provider_pid, "consumerPid", "providerPid"),
        };
        if let Some(known) = mine {
            // Spec: a request with a providerPid goes to that negotiation's own path.
            return Err(Refusal::new(
                Fault::Malformed,
                "message.malformed",
                format!("a first message has no `{mine_name}`, this one has `{known}`"),
            )
            .at(mine_name)
            .cure(format!("the same message at `/negotiations/{{{mine_name}}}/…`"))
            .into());
        }
        let peer_pid = wire_format::required_pid(theirs, theirs_name)?;
        let callback = wire_format::required(&document.callback_address, "callbackAddress")?;
        let peer_address = self.checked_callback(callback, "callbackAddress")?;
        let offer = document.offer.clone().ok_or_else(|| missing("offer"))?;
        let offer = wire_format::offer(offer)?;
        let message = match endpoint {
            Endpoint::Offers => Message::Offer { offer: offer.clone() },
            _ => Message::Request { offer: offer.clone() },
        };
        let input =
            Input::Received(Received { from: peer.clone(), peer_pid: peer_pid.clone(), digest, content, message });
        if let Some(known) = self.parts.store.negotiation_by_peer(peer, &peer_pid, role).await? {
            return self.advance_loaded_negotiation(known, input, &unrelated, None).await;
        }
        self.room_for(peer, role).await?;
        let terms = self.terms_of(peer, role, &offer).await?;
        let fresh =
            Negotiation::begin(self.fresh_process_id(), role, self.participant().clone(), peer.clone(), peer_address);
        let begun =
            self.commit_negotiation(fresh, 0, Some(input.clone()), &move |_| terms.clone(), Batch::default()).await;
        match begun {
            // The same message came twice at once, and the other one was first.
            Err(ControlError::Store(StoreError::Duplicate { .. })) => {
                let Some(known) = self.parts.store.negotiation_by_peer(peer, &peer_pid, role).await? else {
                    return Err(ControlError::Busy);
                };
                self.advance_loaded_negotiation(known, input, &unrelated, None).await
            }
            other => other,
        }
    }

    /// Takes a message to a negotiation that exists.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason for the peer.
    pub async fn negotiation_received(
        &self,
        peer: &ParticipantId,
        pid: &str,
        endpoint: Endpoint,
        body: &[u8],
    ) -> Result<Advanced<Negotiation>, ControlError> {
        let found = self.negotiation_of(peer, pid).await?;
        let loaded = &found.value;
        let Parsed { document, digest, content } = wire_format::parse(body, endpoint.message_type())?;
        let (mine, theirs, mine_name, theirs_name) = match loaded.role {
            Role::Provider => (&document.provider_pid, &document.consumer_pid, "providerPid", "consumerPid"),
            Role::Consumer => (&document.consumer_pid, &document.provider_pid, "consumerPid", "providerPid"),
        };
        let named = wire_format::required(mine, mine_name)?;
        if named != loaded.id.as_str() {
            return Err(Refusal::new(
                Fault::Malformed,
                "message.pid",
                format!("`{mine_name}` is `{named}` and the path names `{}`", loaded.id),
            )
            .at(mine_name)
            .cure(format!("`{}`", loaded.id))
            .into());
        }
        let peer_pid = wire_format::required_pid(theirs, theirs_name)?;
        let identified = document.id.is_some();
        let message = self.message_of(endpoint, document)?;
        let now = loaded.allowed_messages().contains(&message.kind());
        let digest = wire_format::known_as(digest, identified, &loaded.seen, now);
        let terms = match &message {
            Message::Request { offer } | Message::Offer { offer } => self.terms_of(peer, loaded.role, offer).await?,
            Message::Agreement { agreement } => {
                self.enforceable(&agreement.policy, Role::Consumer)?;
                Ok(OfferKind::Published.into())
            }
            Message::Accepted | Message::Verification | Message::Finalized | Message::Termination { .. } => {
                Ok(OfferKind::Published.into())
            }
        };
        let offered = match &message {
            Message::Offer { offer } => Some(offer.clone()),
            _ => None,
        };
        let vocabulary = self.parts.capabilities.vocabulary.clone();
        let kind_of = move |negotiation: &Negotiation| {
            let related = terms.clone()?;
            Ok(match &offered {
                Some(offer) => as_asked(negotiation, offer, &vocabulary),
                None => related,
            })
        };
        let input = Input::Received(Received { from: peer.clone(), peer_pid, digest, content, message });
        self.advance_loaded_negotiation(found, input, &kind_of, None).await
    }

    fn message_of(&self, endpoint: Endpoint, document: kontor_vocab::dsp::Message) -> Result<Message, Refusal> {
        let offer =
            |document: Option<PolicyDocument>| document.ok_or_else(|| missing("offer")).and_then(wire_format::offer);
        Ok(match endpoint {
            Endpoint::Request => Message::Request { offer: offer(document.offer)? },
            Endpoint::Offers => Message::Offer { offer: offer(document.offer)? },
            Endpoint::Events => match document.event_type.as_deref() {
                Some("ACCEPTED") => Message::Accepted,
                Some("FINALIZED") => Message::Finalized,
                other => {
                    return Err(Refusal::new(
                        Fault::Malformed,
                        "message.malformed",
                        format!("`eventType` is `{}`", other.unwrap_or("(missing)")),
                    )
                    .at("eventType")
                    .by("DSP 2025-1, Contract Negotiation Event Message")
                    .cure("`ACCEPTED` or `FINALIZED`"));
                }
            },
            Endpoint::Agreement => Message::Agreement {
                agreement: wire_format::agreement(document.agreement.ok_or_else(|| missing("agreement"))?, self.now())?,
            },
            Endpoint::Verification => Message::Verification,
            Endpoint::Termination => {
                Message::Termination { code: document.code, reason: wire_format::reasons(&document.reason) }
            }
        })
    }

    /// The negotiation that a peer may speak of; unknown and not yours read the same.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with fault `NotFound`.
    pub async fn negotiation_of(
        &self,
        peer: &ParticipantId,
        pid: &str,
    ) -> Result<Versioned<Negotiation>, ControlError> {
        let unknown = || ControlError::not_found("negotiation", pid);
        let id = ProcessId::parse(pid).map_err(|_| unknown())?;
        let loaded = self.parts.store.negotiation(&id).await?.ok_or_else(unknown)?;
        if loaded.value.counterparty != *peer {
            return Err(unknown());
        }
        Ok(loaded)
    }

    /// The negotiation for a peer that asks how it stands, once it has what we sent.
    ///
    /// # Errors
    /// As [`Control::negotiation_of`].
    pub async fn negotiation_asked(&self, peer: &ParticipantId, pid: &str) -> Result<Negotiation, ControlError> {
        let look = || self.negotiation_of(peer, pid);
        Ok(self.look_when_settled(pid, look, |found| found.value.pending.is_some()).await?.value)
    }

    /// Begins a negotiation as consumer: the request goes out after the commit.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where the offer asks for what we cannot enforce, or the address
    /// is none that we call.
    pub async fn request(&self, new: NewNegotiation) -> Result<Negotiation, ControlError> {
        self.enforceable(&new.offer.policy, Role::Consumer)?;
        let address = self.checked_callback(&new.address, "address")?;
        let fresh = Negotiation::begin(
            self.fresh_process_id(),
            Role::Consumer,
            self.participant().clone(),
            new.counterparty,
            address,
        );
        let input = Input::Decided(Command::Request { offer: new.offer });
        let advanced = self.commit_negotiation(fresh, 0, Some(input), &published, Batch::default()).await?;
        self.send(advanced.outgoing);
        Ok(advanced.value)
    }

    /// Begins a negotiation as provider: an offer nobody asked for.
    ///
    /// # Errors
    /// As [`Control::request`].
    pub async fn offer_unasked(&self, new: NewNegotiation) -> Result<Negotiation, ControlError> {
        self.enforceable(&new.offer.policy, Role::Provider)?;
        let address = self.checked_callback(&new.address, "address")?;
        let fresh = Negotiation::begin(
            self.fresh_process_id(),
            Role::Provider,
            self.participant().clone(),
            new.counterparty,
            address,
        );
        let input = Input::Decided(Command::Offer { offer: new.offer });
        let advanced = self.commit_negotiation(fresh, 0, Some(input), &published, Batch::default()).await?;
        self.send(advanced.outgoing);
        Ok(advanced.value)
    }

    /// Carries out an operator's decision.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where the state does not allow it, or the offer's terms cannot
    /// be enforced here.
    pub async fn decide_negotiation(&self, id: &ProcessId, command: Command) -> Result<Negotiation, ControlError> {
        let mut command = command;
        if let Command::Terminate { reason, .. } = &mut command
            && reason.is_empty()
            && let Some(loaded) = self.parts.store.negotiation(id).await?
        {
            // Whoever asked for too much should learn where.
            reason.extend(loaded.value.objection());
        }
        let kind = match &command {
            Command::Request { offer } | Command::Offer { offer } => {
                let role = if matches!(command, Command::Request { .. }) { Role::Consumer } else { Role::Provider };
                self.enforceable(&offer.policy, role)?;
                OfferKind::Counter
            }
            Command::Accept
            | Command::Agree { .. }
            | Command::Verify
            | Command::Finalize
            | Command::Terminate { .. } => OfferKind::Published,
        };
        let advanced = self.advance_negotiation(id, Input::Decided(command), &move |_| Ok(kind.into()), None).await?;
        self.send(advanced.outgoing);
        Ok(advanced.value)
    }

    /// A fresh agreement id for [`Command::Agree`].
    #[must_use]
    pub fn fresh_agreement_id(&self) -> Option<AgreementId> {
        AgreementId::parse(fresh_urn()).ok()
    }

    /// Lets rules act on what a previous run left.
    pub(crate) async fn resume_negotiations(self: &Arc<Self>) -> Result<(), ControlError> {
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.negotiations(&NegotiationFilter::default(), &page).await?;
            for loaded in listing.items {
                if loaded.value.state.name().is_terminal() || loaded.value.pending.is_some() {
                    continue;
                }
                let id = loaded.value.id.clone();
                match self.commit_negotiation(loaded.value, loaded.version, None, &published, Batch::default()).await {
                    Ok(advanced) => self.send(advanced.outgoing),
                    Err(error) => tracing::warn!(negotiation.id = %id, %error, "could not be taken up again"),
                }
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// What an offer's terms are to us: as provider against what is published to this peer, as
    /// consumer whether we can enforce them.
    async fn terms_of(
        &self,
        peer: &ParticipantId,
        role: Role,
        offer: &Offer,
    ) -> Result<Result<Related, Refusal>, ControlError> {
        Ok(match role {
            Role::Provider => {
                let offers: Vec<_> =
                    self.parts.store.offers_of(&offer.target).await?.into_iter().map(|record| record.offer).collect();
                let dataset = self.parts.store.dataset(&offer.target).await?;
                let world = self.world_before(peer, dataset.as_ref().map(|dataset| &dataset.value)).await?;
                catalog::relate(&offers, offer, peer, &world, &self.capable(role))
            }
            Role::Consumer => self.enforceable(&offer.policy, Role::Consumer).map(|_| OfferKind::Counter.into()),
        })
    }

    /// A callback address that we are willing to call, without a trailing slash.
    pub(crate) fn checked_callback(&self, text: &str, field: &str) -> Result<String, Refusal> {
        let refuse = |message: String| {
            Refusal::new(Fault::Malformed, "address.refused", message)
                .at(field)
                .cure("an absolute https address that is public, or inside the operator's `egress.allow_networks`")
        };
        let url = Url::parse(text).map_err(|error| refuse(format!("`{text}` is not an address: {error}")))?;
        self.parts.egress.check_url(&url).map_err(|error| refuse(error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse(format!("`{text}` has a query or fragment, message paths are appended to it")));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    /// Refuses a peer that has too many open processes.
    async fn room_for(&self, peer: &ParticipantId, role: Role) -> Result<(), ControlError> {
        // Counted in memory would drift after a crash; the store counts by index.
        let open = self.parts.store.open_negotiations(peer, role).await?;
        if open >= self.parts.open_processes_max as u64 {
            return Err(Refusal::new(
                Fault::Limit,
                "limits.open_processes_max",
                format!("you have {open} negotiations open here, which is the limit"),
            )
            .cure("end some of them first")
            .into());
        }
        Ok(())
    }

    /// An offer of ours by its id, as it goes into a message.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is none.
    pub async fn own_offer(&self, id: &OfferId) -> Result<Offer, ControlError> {
        let record =
            self.parts.store.offer(id).await?.ok_or_else(|| ControlError::not_found("offer", id.as_str()))?.value;
        Ok(Offer { id: record.offer.id, target: record.offer.dataset, policy: record.offer.policy })
    }
}

fn missing(field: &str) -> Refusal {
    Refusal::new(Fault::Malformed, "message.malformed", format!("`{field}` is missing"))
        .at(field)
        .by("DSP 2025-1, message schemas")
}

/// To the consumer, an offer is as published when it is what it asked for.
fn as_asked(negotiation: &Negotiation, offered: &Offer, vocabulary: &Vocabulary) -> Related {
    let asked = match negotiation.pending.as_ref().map(|pending| &pending.message) {
        Some(Message::Request { offer }) => Some(offer),
        _ => negotiation.offer(),
    };
    match asked.filter(|asked| asked.target == offered.target) {
        Some(asked) => {
            let ours = said_of_all(asked.policy.clone(), "target", asked.target.as_str());
            let theirs = said_of_all(offered.policy.clone(), "target", offered.target.as_str());
            catalog::related(&ours, &theirs, vocabulary)
        }
        None => OfferKind::Counter.into(),
    }
}

/// Terms for inputs that carry no offer, or one that was checked before.
pub(super) fn published(_: &Negotiation) -> Result<Related, Refusal> {
    Ok(OfferKind::Published.into())
}

/// Terms for a repeated first message: a repeat changes nothing, anything else is no first message.
fn unrelated(_: &Negotiation) -> Result<Related, Refusal> {
    Ok(OfferKind::Counter.into())
}
