//! Facts for transfers: agreements, permissions, tokens, flows.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontor_core::effect::StopReason;
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::{MessageName as Finalizing, Role};
use kontor_core::peer::VerifiedPeer;
use kontor_core::policy::{self, DueDuty};
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::{Begin, Command, Input, Message, MessageName, Received, State, StateName, Transfer};
use kontor_vocab::iri::FORMAT_HTTP_PULL;
use kontor_wire::token::{random_token, token_digest};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use url::Url;

use super::Control;
use super::advance::Advanced;
use super::automation::Action;
use super::duty::{Occasion, Receipt};
use super::error::ControlError;
use super::reading::{Beginning, Readings};
use super::wire_format::{self, Parsed};
use crate::data::FlowEvent;
use crate::data::gate::{GrantSpec, StopKind};
use crate::data::puller::{self, PullJob, PullResult};
use crate::data::sink::SinkError;
use crate::data::stage::PseudonymKey;
use crate::model::{
    AgreementRecord, AgreementState, AuditRecord, DutyRecord, FlowReport, ReceivedState, SinkSpec, TokenBinding,
    TransferDetail,
};
use crate::store::{Batch, Page, StoreError, TakeUse, TransferFilter, Versioned};

/// How often a grant is decided again because facts change while it is opened.
const FACTS_RACES_MAX: usize = 8;

/// A decision with the agreement that it is of.
pub(super) struct Decided {
    pub(super) record: AgreementRecord,
    pub(super) decision: policy::Decision,
    /// Whether it is still a yes from its `valid_until` on, under other terms or with other duties.
    pub(super) goes_on: bool,
}

/// Which message an endpoint takes, as its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `…/start`.
    Start,
    /// `…/completion`.
    Completion,
    /// `…/suspension`.
    Suspension,
    /// `…/termination`.
    Termination,
}

impl Endpoint {
    /// The `@type` that the endpoint takes.
    #[must_use]
    pub fn message_type(self) -> &'static str {
        match self {
            Self::Start => "TransferStartMessage",
            Self::Completion => "TransferCompletionMessage",
            Self::Suspension => "TransferSuspensionMessage",
            Self::Termination => "TransferTerminationMessage",
        }
    }
}

impl Control {
    /// Takes a transfer request (we provide).
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason for the peer.
    pub async fn transfer_opened(&self, peer: &VerifiedPeer, body: &[u8]) -> Result<Advanced<Transfer>, ControlError> {
        let Parsed { document, digest, content } = wire_format::parse(body, "TransferRequestMessage")?;
        let from = peer.participant();
        let peer_pid = wire_format::required_pid(&document.consumer_pid, "consumerPid")?;
        let format = wire_format::required(&document.format, "format")?.to_owned();
        let agreement_id = wire_format::required(&document.agreement_id, "agreementId")?;
        let callback = wire_format::required(&document.callback_address, "callbackAddress")?;
        let peer_address = self.checked_callback(callback, "callbackAddress")?;
        let unknown = || {
            Refusal::new(
                Fault::NotFound,
                "transfer.agreement",
                format!("there is no agreement `{agreement_id}` in force with you"),
            )
            .at("agreementId")
            .cure("the id of an agreement that was finalized with us")
        };
        let agreement = AgreementId::parse(agreement_id).map_err(|_| unknown())?;
        let purpose = wire_format::purpose(&document)?;
        let message = Message::Request {
            agreement: agreement.clone(),
            format: format.clone(),
            data_address: document.data_address.map(wire_format::data_address),
            purpose: purpose.clone(),
        };
        let input =
            Input::Received(Received { from: from.clone(), peer_pid: peer_pid.clone(), digest, content, message });
        if let Some(known) = self.parts.store.transfer_by_peer(from, &peer_pid, Role::Provider).await? {
            return self.advance_loaded_transfer(known, input, None, None).await;
        }
        let record = self.parts.store.agreement(&agreement).await?.ok_or_else(unknown)?.value;
        if record.counterparty != *from || record.role != Role::Provider {
            return Err(unknown().into());
        }
        if record.state == AgreementState::Pending {
            self.finalization_proven(&record.negotiation).await?;
        }
        if format != FORMAT_HTTP_PULL {
            return Err(Refusal::new(
                Fault::Unenforceable,
                "transfer.format",
                format!("the format `{format}` is not offered"),
            )
            .at("format")
            .cure(format!("`{FORMAT_HTTP_PULL}`"))
            .into());
        }
        let open = self.parts.store.open_transfers(from, Role::Provider).await?;
        if open >= self.parts.open_processes_max as u64 {
            return Err(Refusal::new(
                Fault::Limit,
                "limits.open_processes_max",
                format!("you have {open} transfers open here, which is the limit"),
            )
            .cure("end some of them first")
            .into());
        }
        let fresh = Transfer::begin(Begin {
            id: self.fresh_process_id(),
            role: Role::Provider,
            counterparty: from.clone(),
            peer_address,
            agreement,
            dataset: record.agreement.target,
            format,
            purpose,
        });
        let mut detail = TransferDetail::new(fresh.id.clone());
        // RFC 8705: what the token opens, it opens for this certificate alone.
        detail.binding = Some(TokenBinding::from(peer.binding()));
        let batch = Batch { transfer_detail: Some(detail), ..Batch::default() };
        match self.commit_transfer(fresh, 0, Some(input.clone()), batch).await {
            Err(ControlError::Store(StoreError::Duplicate { .. })) => {
                let Some(known) = self.parts.store.transfer_by_peer(from, &peer_pid, Role::Provider).await? else {
                    return Err(ControlError::Busy);
                };
                self.advance_loaded_transfer(known, input, None, None).await
            }
            other => other,
        }
    }

    /// A consumer that asks for the data of an agreement has read that it is in force, although
    /// the receipt of our message may not have been taken up here yet.
    async fn finalization_proven(&self, negotiation: &ProcessId) -> Result<(), ControlError> {
        let Some(loaded) = self.parts.store.negotiation(negotiation).await? else { return Ok(()) };
        let Some(pending) = loaded.value.pending.filter(|pending| pending.message.kind() == Finalizing::Finalized)
        else {
            return Ok(());
        };
        let input = kontor_core::negotiation::Input::Delivered { id: pending.id.clone(), peer_pid: None };
        let advanced =
            self.advance_negotiation(negotiation, input, &super::negotiation::published, Some(&pending.id)).await?;
        self.outbox.arrived(std::slice::from_ref(&pending.id));
        self.send(advanced.outgoing);
        Ok(())
    }

    /// Takes a message to a transfer that exists.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason for the peer.
    pub async fn transfer_received(
        &self,
        peer: &VerifiedPeer,
        pid: &str,
        endpoint: Endpoint,
        body: &[u8],
    ) -> Result<Advanced<Transfer>, ControlError> {
        let found = self.transfer_of(peer.participant(), pid).await?;
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
        let reason = wire_format::reasons(&document.reason);
        let identified = document.id.is_some();
        let message = match endpoint {
            Endpoint::Start => Message::Start { data_address: document.data_address.map(wire_format::data_address) },
            Endpoint::Completion => Message::Completion,
            Endpoint::Suspension => Message::Suspension { code: document.code, reason },
            Endpoint::Termination => Message::Termination { code: document.code, reason },
        };
        let now = loaded.allowed_messages().contains(&message.kind());
        let digest = wire_format::known_as(digest, identified, &loaded.seen, now);
        let mut detail = None;
        if endpoint == Endpoint::Start && loaded.role == Role::Provider {
            // A consumer that resumes with a renewed certificate reads with that one from now on. Its token stays what it
            // is, because a consumer's start is not answered with another one.
            detail = self.parts.store.transfer_detail(&loaded.id).await?;
            if let Some(detail) = &mut detail {
                detail.binding = Some(TokenBinding::from(peer.binding()));
            }
        }
        let input = Input::Received(Received { from: peer.participant().clone(), peer_pid, digest, content, message });
        self.advance_loaded_transfer(found, input, detail, None).await
    }

    /// The transfer that a peer may speak of; unknown and not yours read the same.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with fault `NotFound`.
    pub async fn transfer_of(&self, peer: &ParticipantId, pid: &str) -> Result<Versioned<Transfer>, ControlError> {
        let unknown = || ControlError::not_found("transfer", pid);
        let id = ProcessId::parse(pid).map_err(|_| unknown())?;
        let loaded = self.parts.store.transfer(&id).await?.ok_or_else(unknown)?;
        if loaded.value.counterparty != *peer {
            return Err(unknown());
        }
        Ok(loaded)
    }

    /// The transfer for a peer that asks how it stands, once it has what we sent.
    ///
    /// # Errors
    /// As [`Control::transfer_of`].
    pub async fn transfer_asked(&self, peer: &ParticipantId, pid: &str) -> Result<Transfer, ControlError> {
        let look = || self.transfer_of(peer, pid);
        Ok(self.look_when_settled(pid, look, |found| found.value.pending.is_some()).await?.value)
    }

    /// Begins a transfer as consumer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the agreement is not in force or the policy says no.
    pub async fn request_transfer(
        &self,
        agreement: &AgreementId,
        address: Option<String>,
        format: &str,
        sink: Option<SinkSpec>,
        purpose: Vec<String>,
    ) -> Result<Transfer, ControlError> {
        wire_format::check_purpose(&purpose)?;
        let record = self
            .parts
            .store
            .agreement(agreement)
            .await?
            .ok_or_else(|| ControlError::not_found("agreement", agreement.as_str()))?
            .value;
        if record.role != Role::Consumer {
            return Err(Refusal::new(
                Fault::IllegalMove,
                "transfer.role",
                "we are the provider of this agreement; its consumer requests the transfer",
            )
            .at("agreement")
            .into());
        }
        if format != FORMAT_HTTP_PULL {
            return Err(Refusal::new(
                Fault::Unenforceable,
                "transfer.format",
                format!("the format `{format}` is not supported"),
            )
            .at("format")
            .cure(format!("`{FORMAT_HTTP_PULL}`"))
            .into());
        }
        let peer_address = match address {
            Some(address) => self.checked_callback(&address, "address")?,
            None => {
                let negotiation = self.parts.store.negotiation(&record.negotiation).await?;
                negotiation
                    .ok_or_else(|| ControlError::not_found("negotiation", record.negotiation.as_str()))?
                    .value
                    .peer_address
            }
        };
        let fresh = Transfer::begin(Begin {
            id: self.fresh_process_id(),
            role: Role::Consumer,
            counterparty: record.counterparty.clone(),
            peer_address,
            agreement: agreement.clone(),
            dataset: record.agreement.target.clone(),
            format: format.to_owned(),
            purpose,
        });
        if let Some(sink) = &sink {
            self.check_sink(sink, &fresh.id).await?;
        }
        let permission = self.permission(&fresh, None, self.now()).await;
        if !matches!(permission, Ok(Ok(_))) {
            self.interests().remove(&fresh.id);
        }
        permission??;
        let mut detail = TransferDetail::new(fresh.id.clone());
        detail.auto_start = sink.is_some();
        detail.sink = sink;
        let batch = Batch { transfer_detail: Some(detail), ..Batch::default() };
        let input = Input::Decided(Command::Request { data_address: None });
        let advanced = self.commit_transfer(fresh, 0, Some(input), batch).await?;
        self.send(advanced.outgoing);
        Ok(advanced.value)
    }

    /// Whether data can be put there, as far as that shows now.
    async fn check_sink(&self, sink: &SinkSpec, transfer: &ProcessId) -> Result<(), ControlError> {
        let (root, sink, id) = (self.parts.sink_root.clone(), sink.clone(), transfer.clone());
        let free = tokio::task::spawn_blocking(move || puller::free(&root, &sink, &id)).await;
        let refuse = |fault: Fault, message: String| {
            Refusal::new(fault, "transfer.sink", message).at("sink.path").by("what is there is not overwritten")
        };
        let path = match free {
            Ok(Ok(path)) => path,
            Ok(Err(SinkError::Exists(path))) => {
                let message = format!("`{path}` exists already");
                return Err(refuse(Fault::IllegalMove, message).cure("a path where nothing is").into());
            }
            Ok(Err(error)) => {
                let refusal = Refusal::new(Fault::Malformed, "transfer.sink", error.to_string()).at("sink.path");
                return Err(refusal.cure("a relative path below the setting `data.sink_root`").into());
            }
            Err(_) => return Err(ControlError::Busy),
        };
        let Some(path) = path else { return Ok(()) };
        for other in self.parts.store.received_at(&path.display().to_string()).await? {
            if other.state == ReceivedState::Receiving
                && self
                    .parts
                    .store
                    .transfer(&other.transfer)
                    .await?
                    .is_some_and(|it| !it.value.state.name().is_terminal())
            {
                let message = format!("transfer `{}` is writing `{}`", other.transfer, path.display());
                return Err(refuse(Fault::IllegalMove, message).cure("another path").into());
            }
        }
        Ok(())
    }

    /// Carries out an operator's decision.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where the state or the policy does not allow it.
    pub async fn decide_transfer(&self, id: &ProcessId, command: Command) -> Result<Transfer, ControlError> {
        let advanced = self.advance_transfer(id, Input::Decided(command), None, None).await?;
        self.send(advanced.outgoing);
        Ok(advanced.value)
    }

    /// Carries out an operator's decision that all data was moved. Not while it moves, and not where data was to come and
    /// is not there: nobody is to take a cut transfer for a whole one.
    ///
    /// # Errors
    /// As [`Control::decide_transfer`].
    pub async fn complete_transfer(&self, id: &ProcessId) -> Result<Transfer, ControlError> {
        let transfer = self.loaded_transfer(id).await?.value;
        let why = match transfer.role {
            Role::Provider if self.running_flows(id) > 0 => Some("data flows, and would be cut"),
            Role::Provider => None,
            Role::Consumer => {
                let sink = self.parts.store.transfer_detail(id).await?.and_then(|detail| detail.sink);
                let here = self.parts.store.received(id).await?.is_some_and(|it| it.state != ReceivedState::Receiving);
                (sink.is_some() && !here).then_some("the data is not here yet")
            }
        };
        match why {
            Some(why) => Err(Refusal::new(Fault::IllegalMove, "transfer.not-complete", why)
                .by("a completed transfer has moved all its data")
                .cure("`suspend` or `terminate`; it completes by itself when the data is there")
                .into()),
            None => self.decide_transfer(id, Command::Complete).await,
        }
    }

    /// Starts or resumes a transfer, with a fresh token where we provide.
    ///
    /// # Errors
    /// As [`Control::decide_transfer`].
    pub async fn start_transfer(&self, id: &ProcessId) -> Result<Transfer, ControlError> {
        let loaded =
            self.parts.store.transfer(id).await?.ok_or_else(|| ControlError::not_found("transfer", id.as_str()))?;
        self.decide_transfer_action(&loaded.value, Action::Start).await?;
        let now = self.parts.store.transfer(id).await?;
        Ok(now.map_or(loaded.value, |now| now.value))
    }

    /// What a rule's action means for a transfer; a start as provider makes the token.
    pub(super) async fn transfer_command(
        &self,
        action: Action,
        transfer: &Transfer,
        batch: &mut Batch,
    ) -> Result<Option<Command>, ControlError> {
        Ok(Some(match action {
            Action::Start if transfer.role == Role::Provider => {
                let token = random_token();
                let stored = match batch.transfer_detail.take() {
                    Some(detail) => Some(detail),
                    None => self.parts.store.transfer_detail(&transfer.id).await?,
                };
                let mut detail = stored.unwrap_or_else(|| TransferDetail::new(transfer.id.clone()));
                detail.token_digest = Some(token_digest(token.expose_secret()));
                batch.transfer_detail = Some(detail);
                let endpoint = format!("{}/data/{}", self.public_base(), wire_format::segment(transfer.id.as_str()));
                let address = wire_format::pull_address(endpoint, token.expose_secret().to_owned());
                Command::Start { data_address: Some(address) }
            }
            Action::Start => Command::Start { data_address: None },
            Action::Suspend => Command::Suspend {
                code: Some("rule".to_owned()),
                reason: vec!["suspended by a rule of the operator".to_owned()],
            },
            Action::Complete => Command::Complete,
            Action::Terminate => Command::Terminate {
                code: Some("rule".to_owned()),
                reason: vec!["ended by a rule of the operator".to_owned()],
            },
            Action::Hold
            | Action::Request
            | Action::Offer
            | Action::Counter
            | Action::Accept
            | Action::Agree
            | Action::Verify
            | Action::Finalize => return Ok(None),
        }))
    }

    /// The policy's decision for a transfer at this moment: until when it holds, or why not.
    pub(super) async fn permission(
        &self,
        transfer: &Transfer,
        detail: Option<&TransferDetail>,
        now: Timestamp,
    ) -> Result<Result<Option<Timestamp>, Refusal>, ControlError> {
        Ok(self.decision(transfer, detail, now).await?.map(|decided| decided.decision.valid_until))
    }

    /// The policy's decision with the agreement that it is of; `detail` where it is known already.
    pub(super) async fn decision(
        &self,
        transfer: &Transfer,
        detail: Option<&TransferDetail>,
        now: Timestamp,
    ) -> Result<Result<Decided, Refusal>, ControlError> {
        let Some(loaded) = self.parts.store.agreement(&transfer.agreement).await? else {
            return Ok(Err(denied(format!("there is no agreement `{}`", transfer.agreement))));
        };
        let record = loaded.value;
        match &record.state {
            AgreementState::InForce => {}
            AgreementState::Pending => {
                return Ok(Err(denied(format!("agreement `{}` is not in force yet", transfer.agreement))
                    .cure("a finalized negotiation")));
            }
            AgreementState::Revoked { reason, .. } => {
                return Ok(Err(
                    denied(format!("agreement `{}` was revoked: {reason}", transfer.agreement)).cure("a new agreement")
                ));
            }
        }
        let taken = self.parts.store.uses(&transfer.agreement).await?;
        let before = matches!(transfer.state.name(), StateName::Initial | StateName::Requested);
        // Before the first byte the question is whether one more use may be taken; afterwards
        // whether those that were taken are still within the limit.
        let uses = if before && transfer.role == Role::Provider { taken + 1 } else { taken.max(1) };
        let stored = match detail {
            Some(_) => None,
            None => self.parts.store.transfer_detail(&transfer.id).await?,
        };
        let binding = detail.or(stored.as_ref()).and_then(|detail| detail.binding.as_ref());
        let decision = self.decide(&record, transfer, binding, now, uses).await?;
        Ok(decision.map(|(decision, goes_on)| Decided { record, decision, goes_on }))
    }

    /// What the data plane is told after a commit: grants follow the state.
    pub(super) async fn after_transfer_commit(&self, transfer: &Transfer, detail: Option<TransferDetail>, flow: bool) {
        match transfer.role {
            Role::Provider => {
                // The grant opens with the intention to start: the consumer may come before the
                // receipt of our message was read.
                let starting =
                    matches!(transfer.pending.as_ref().map(|pending| pending.message.kind()), Some(MessageName::Start));
                if (starting || flow)
                    && let Err(error) = self.open_grant(transfer, detail).await
                {
                    tracing::error!(transfer.id = %transfer.id, %error, "the grant could not be opened");
                }
                if transfer.state.name().is_terminal() {
                    self.readings().remove(&transfer.id);
                    self.interests().remove(&transfer.id);
                }
            }
            Role::Consumer => {
                if transfer.state.name().is_terminal() {
                    self.interests().remove(&transfer.id);
                }
                if flow {
                    self.start_pull(transfer.clone(), detail).await;
                }
                if transfer.state.name().is_terminal()
                    && let Ok(Some(detail)) = self.parts.store.transfer_detail(&transfer.id).await
                    && let Some(sink) = detail.sink
                {
                    let (root, id) = (self.parts.sink_root.clone(), transfer.id.clone());
                    if transfer.state.name() == StateName::Terminated || self.is_receiving(&transfer.id).await {
                        if transfer.state.name() == StateName::Completed {
                            self.completed_too_early(transfer).await;
                        }
                        self.received_all_the_same(transfer, &sink).await;
                        puller::discard_parts(&root, &sink, &id);
                    } else {
                        drop(tokio::task::spawn_blocking(move || puller::forget_received(&root, &sink, &id)));
                    }
                }
            }
        }
    }

    /// The provider says that all data was moved, and it is not here.
    async fn completed_too_early(&self, transfer: &Transfer) {
        let problem = "the provider completed the transfer before its data was here; nothing was kept";
        tracing::warn!(transfer.id = %transfer.id, problem, "a transfer is completed without its data");
        let noted = async {
            let mut loaded = self.loaded_transfer(&transfer.id).await?;
            loaded.value.problem = Some(problem.to_owned());
            let batch = Batch { now: self.now(), transfer: Some((loaded.value, loaded.version)), ..Batch::default() };
            self.parts.store.commit(batch).await.map_err(ControlError::from)
        };
        if let Err(error) = noted.await {
            tracing::error!(transfer.id = %transfer.id, %error, "that could not be written down");
        }
        self.changed(&transfer.id);
    }

    pub(super) async fn open_grant(
        &self,
        transfer: &Transfer,
        detail: Option<TransferDetail>,
    ) -> Result<(), ControlError> {
        let detail = match detail {
            Some(detail) => Some(detail),
            None => self.parts.store.transfer_detail(&transfer.id).await?,
        };
        let Some(detail) = detail else { return Ok(()) };
        let (Some(token_digest), Some(binding)) = (detail.token_digest.clone(), detail.binding.clone()) else {
            return Ok(());
        };
        let Some(loaded) = self.parts.store.dataset(&transfer.dataset).await? else {
            self.parts.grants.stop(&transfer.id, StopKind::Terminated, "the dataset was withdrawn");
            return Ok(());
        };
        let dataset = loaded.value;
        if let Some(agreement) = self.parts.store.agreement(&transfer.agreement).await? {
            // What came here after the offer was put up is not handed on under wider terms either.
            self.check_next_policy(&dataset.source, &agreement.value.agreement.policy).await?;
        }
        let secret = &self.parts.pseudonym_secret;
        for _ in 0..FACTS_RACES_MAX {
            let (now, epoch) = (self.now(), self.facts_epoch());
            let (valid_until, goes_on, terms) = match self.decision(transfer, Some(&detail), now).await? {
                Ok(Decided { decision, goes_on, .. }) => (decision.valid_until, goes_on, decision.terms),
                // Open for nothing: the holder of the token is told why.
                Err(_) => (Some(now), false, policy::StreamTerms::default()),
            };
            self.parts.grants.open(GrantSpec {
                transfer: transfer.id.clone(),
                agreement: transfer.agreement.clone(),
                token_digest: token_digest.clone(),
                participant: transfer.counterparty.clone(),
                binding: binding.clone(),
                source: dataset.source.clone(),
                media_type: dataset.media_type.clone(),
                valid_until,
                goes_on,
                terms,
                pseudonyms: Some(PseudonymKey::derive(secret.expose_secret().as_bytes(), &transfer.agreement)),
            });
            self.hold_to_state(&transfer.id).await?;
            // What was decided by facts that changed meanwhile may stand over what was decided by the new ones.
            if epoch == self.facts_epoch() {
                return Ok(());
            }
        }
        Err(ControlError::Busy)
    }

    /// The state has the last word on a grant: what stopped the transfer while its grant was being opened came too early
    /// for the grant. Asked after the grant is open, and after the stop is committed.
    ///
    /// # Errors
    /// Where the state cannot be read; nothing flows then.
    pub(super) async fn hold_to_state(&self, id: &ProcessId) -> Result<(), ControlError> {
        match self.parts.store.transfer(id).await {
            Ok(Some(Versioned { value: transfer, .. })) => {
                let pending = transfer.pending.as_ref().map(|pending| pending.message.kind());
                let reason = match (transfer.state.name(), pending) {
                    (StateName::Completed, _) | (_, Some(MessageName::Completion)) => StopReason::Completed,
                    (StateName::Terminated, _) | (_, Some(MessageName::Termination)) => StopReason::Terminated,
                    _ => StopReason::Suspended,
                };
                if !transfer.may_flow() && pending != Some(MessageName::Start) {
                    self.stop_flow(&transfer, reason);
                }
                Ok(())
            }
            Ok(None) => {
                self.parts.grants.stop(id, StopKind::Terminated, "there is no such transfer");
                Ok(())
            }
            Err(error) => {
                self.parts.grants.stop(id, StopKind::Undecided, "the state of the transfer could not be read");
                Err(error.into())
            }
        }
    }

    /// Stops what flows, at once, with the reason that the state or the pending message gives.
    pub(super) fn stop_flow(&self, transfer: &Transfer, reason: StopReason) {
        let words = match (&transfer.state, transfer.pending.as_ref().map(|pending| &pending.message)) {
            (_, Some(Message::Suspension { reason, .. } | Message::Termination { reason, .. })) => reason.join("; "),
            (State::Suspended { by, .. }, _) => by.reason.join("; "),
            (State::Terminated { ended }, _) => ended.reason.join("; "),
            _ => String::new(),
        };
        let name = match reason {
            StopReason::Suspended => "suspended",
            StopReason::Terminated => "terminated",
            StopReason::Completed => "completed",
        };
        let words = if words.is_empty() { format!("the transfer was {name}") } else { words };
        match transfer.role {
            Role::Provider => {
                let kind = match reason {
                    StopReason::Suspended => StopKind::Suspended,
                    StopReason::Terminated => StopKind::Terminated,
                    StopReason::Completed => StopKind::Completed,
                };
                self.parts.grants.stop(&transfer.id, kind, &words);
            }
            Role::Consumer => {
                if let Some(stop) = self.pulls().remove(&transfer.id) {
                    let _ = stop.send(Some(words));
                }
            }
        }
    }

    /// Whether what a transfer brings was not kept yet, whole or not.
    async fn is_receiving(&self, transfer: &ProcessId) -> bool {
        let received = self.parts.store.received(transfer).await;
        matches!(received, Ok(Some(received)) if received.state == ReceivedState::Receiving)
    }

    /// Keeps what transfers brought that ended while we died: what is here obliges us.
    async fn resume_received(&self) -> Result<(), ControlError> {
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.received_all(&page).await?;
            for received in listing.items.into_iter().map(|item| item.value) {
                let Some(transfer) = self.parts.store.transfer(&received.transfer).await? else { continue };
                if received.state == ReceivedState::Receiving && transfer.value.state.name().is_terminal() {
                    self.after_transfer_commit(&transfer.value, None, false).await;
                }
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Opens the grants and pulls that a previous run left.
    pub(crate) async fn resume_transfers(self: &Arc<Self>) -> Result<(), ControlError> {
        self.resume_received().await?;
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.transfers(&TransferFilter::default(), &page).await?;
            for loaded in listing.items {
                let transfer = loaded.value;
                if transfer.state.name().is_terminal() {
                    continue;
                }
                let pending = transfer.pending.as_ref().map(|pending| pending.message.kind());
                let flows = transfer.may_flow();
                match transfer.role {
                    Role::Provider if transfer.state.name() != StateName::Requested || pending.is_some() => {
                        if let Err(error) = self.open_grant(&transfer, None).await {
                            tracing::error!(transfer.id = %transfer.id, %error, "the grant could not be opened");
                            let words = "the grant could not be opened again";
                            self.parts.grants.stop(&transfer.id, StopKind::Undecided, words);
                            self.again_later(&transfer.id, &error);
                        }
                    }
                    Role::Consumer if flows => self.start_pull(transfer.clone(), None).await,
                    Role::Provider | Role::Consumer => {}
                }
                let id = transfer.id.clone();
                let taken_up = async {
                    let mut loaded = Versioned { value: transfer, ..loaded };
                    if loaded.value.role == Role::Provider && flows {
                        // What forbids it may have been written down when nobody was left to decide.
                        self.send(self.advance_transfer(&id, Input::Due, None, None).await?.outgoing);
                        loaded = self.loaded_transfer(&id).await?;
                    }
                    if loaded.value.pending.is_none() && !loaded.value.state.name().is_terminal() {
                        let rules = self.commit_transfer(loaded.value, loaded.version, None, Batch::default());
                        self.send(rules.await?.outgoing);
                    }
                    Ok::<_, ControlError>(())
                };
                if let Err(error) = taken_up.await {
                    tracing::warn!(transfer.id = %id, %error, "could not be taken up again");
                }
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Answers the data plane's questions and keeps its reports.
    pub async fn serve_flow_events(self: Arc<Self>, mut events: mpsc::Receiver<FlowEvent>) {
        while let Some(event) = events.recv().await {
            let control = self.clone();
            self.tasks.spawn(async move {
                match event {
                    FlowEvent::Opening { transfer, flow, member, offset, version, mut reply } => {
                        let begins = Beginning { flow: &flow, member: member.as_deref(), version: &version, offset };
                        let answer = control.flow_opening(&transfer, begins, &mut reply).await;
                        let refused = answer.is_err();
                        let heard = reply.send(answer.map_err(|error| error.refusal())).is_ok();
                        if refused || !heard {
                            control.never_was(&transfer, &flow);
                        }
                    }
                    FlowEvent::NeverWas { transfer, flow } => control.never_was(&transfer, &flow),
                    FlowEvent::Reserve(question) => control.quantity_asked(question).await,
                    FlowEvent::Settled { agreement, flow, bytes, records } => {
                        control.quantity_settled(agreement, flow, bytes, records).await;
                    }
                    FlowEvent::Ended(report) => control.flow_ended(report).await,
                }
            });
        }
    }

    /// A flow was not let through, or nobody waited for it any more.
    fn never_was(&self, transfer: &ProcessId, flow: &str) {
        if let Some(readings) = self.readings().get_mut(transfer) {
            readings.refuse(flow);
        }
    }

    /// A flow is about to begin: the state must allow it, and a use is taken durably first.
    async fn flow_opening(
        &self,
        id: &ProcessId,
        flow: Beginning<'_>,
        reply: &mut oneshot::Sender<Result<(), Refusal>>,
    ) -> Result<(), ControlError> {
        let unknown = || ControlError::not_found("transfer", id.as_str());
        let mut transfer = self.parts.store.transfer(id).await?.ok_or_else(unknown)?.value;
        if let Some(pending) = &transfer.pending
            && pending.message.kind() == MessageName::Start
        {
            // Who holds the token has read our start message.
            let input = Input::Delivered { id: pending.id.clone(), peer_pid: None };
            let message = pending.id.clone();
            let advanced = self.advance_transfer(id, input, None, Some(&message)).await?;
            self.outbox.arrived(&[message]);
            self.send(advanced.outgoing);
            transfer = advanced.value;
        }
        if transfer.state.name() != StateName::Started || transfer.pending.is_some() {
            return Err(denied(format!("the transfer is {}", transfer.state.name().as_str())).into());
        }
        let Decided { record, decision, .. } = self.decision(&transfer, None, self.now()).await??;
        let (key, beside) = self.readings().entry(id.clone()).or_default().begin(flow, decision.duties.clone());
        let Beginning { flow: name, member, offset, .. } = flow;
        let now = self.now();
        let begins = Occasion {
            record: &record,
            transfer: &transfer,
            event: "use.begins",
            name,
            at: now,
            detail: json!({ "flow": name, "member": member, "offset": offset }),
        };
        tokio::select! {
            biased;
            // The log takes its time, and who asked was told to come again: that is another use, and this is none.
            () = reply.closed() => {
                return Err(Refusal::new(Fault::Unavailable, "transfer.too-late", "nobody waits for the answer").into());
            }
            logged = self.log_before(&decision.duties, &begins) => logged?,
        }
        // One reading makes one notice, however often it is resumed.
        let duties = self.owed(&decision.duties, &Occasion { name: &key, ..begins.clone() }, false, true);
        let wakes = !duties.is_empty();
        let batch = Batch {
            now,
            duties,
            take_use: Some(TakeUse {
                agreement: transfer.agreement.clone(),
                transfer: id.clone(),
                flow: key.clone(),
                max: decision.uses_max,
            }),
            audit: vec![AuditRecord {
                at: now,
                process: Some(id.clone()),
                counterparty: Some(transfer.counterparty.clone()),
                agreement: Some(transfer.agreement.clone()),
                event: "flow.opened".to_owned(),
                detail: format!("flow {name} from byte {offset}{}", of_member(member)),
            }],
            ..Batch::default()
        };
        match self.parts.store.commit(batch).await {
            // A reader that lost its connection is back before we know that it did: it is not to lose its reading too.
            Err(error @ StoreError::UseExhausted { .. }) if beside => {
                let words = format!("{}, and what came before still runs", ControlError::from(error));
                let refusal = Refusal::new(Fault::Unavailable, "transfer.still-read", words);
                return Err(refusal.cure("the same request once it has ended").into());
            }
            taken => drop(taken?),
        }
        if wakes {
            self.duty_wake.notify_one();
        }
        Ok(())
    }

    async fn flow_ended(&self, report: FlowReport) {
        let id = report.transfer.clone();
        let whole = report.outcome == crate::model::FlowOutcome::Whole;
        let ended = |readings: &mut Readings| readings.end(&report.id, report.offset, report.bytes, whole);
        let duties = self.readings().get_mut(&id).map(ended).unwrap_or_default();
        let now = self.now();
        let owed = || self.owed_at_the_end(&report, &duties, now);
        let duties = match self.until_taken("the end of a flow", owed).await {
            Ok(duties) => duties,
            Err(error) => {
                tracing::error!(transfer.id = %id, %error, "the end of a flow could not be logged");
                Vec::new()
            }
        };
        let wakes = !duties.is_empty();
        let batch = Batch {
            now,
            duties,
            audit: vec![AuditRecord {
                at: now,
                process: Some(id.clone()),
                counterparty: None,
                agreement: Some(report.agreement.clone()),
                event: "flow.ended".to_owned(),
                detail: format!(
                    "flow {}: {} bytes from {}{}, blake3 {}, {:?}",
                    report.id,
                    report.bytes,
                    report.offset,
                    of_member(report.path.as_deref()),
                    report.digest_blake3,
                    report.outcome
                ),
            }],
            flow: Some(report),
            ..Batch::default()
        };
        let kept = self.until_taken("a flow report", || async {
            self.parts.store.commit(batch.clone()).await.map_err(ControlError::from)
        });
        if let Err(error) = kept.await {
            tracing::error!(transfer.id = %id, %error, "a flow report was not kept");
        }
        if wakes {
            self.duty_wake.notify_one();
        }
        self.changed(&id);
    }

    /// The log entry about a flow that is over, where the agreement asks for a log.
    async fn owed_at_the_end(
        &self,
        report: &FlowReport,
        duties: &[DueDuty],
        at: Timestamp,
    ) -> Result<Vec<DutyRecord>, ControlError> {
        if duties.is_empty() {
            return Ok(Vec::new());
        }
        let (agreement, transfer) = tokio::try_join!(
            self.parts.store.agreement(&report.agreement),
            self.parts.store.transfer(&report.transfer)
        )?;
        let (Some(agreement), Some(transfer)) = (agreement, transfer) else {
            return Err(ControlError::not_found("transfer", report.transfer.as_str()));
        };
        let ended = Occasion {
            record: &agreement.value,
            transfer: &transfer.value,
            event: "use.ended",
            name: &report.id,
            at,
            detail: json!({
                "flow": report.id, "offset": report.offset, "bytes": report.bytes,
                "digest_blake3": report.digest_blake3, "outcome": report.outcome,
            }),
        };
        Ok(self.owed(duties, &ended, true, false))
    }

    /// Starts pulling as consumer, in its own task; a running pull of the transfer is stopped.
    pub(super) async fn start_pull(&self, transfer: Transfer, detail: Option<TransferDetail>) {
        let detail = match detail {
            Some(detail) => Some(detail),
            None => self.parts.store.transfer_detail(&transfer.id).await.ok().flatten(),
        };
        let Some(sink) = detail.filter(|detail| detail.auto_start).and_then(|detail| detail.sink) else { return };
        let Some(control) = self.arc() else { return };
        let (stop, stopped) = watch::channel(None);
        if let Some(running) = self.pulls().insert(transfer.id.clone(), stop) {
            let _ = running.send(Some("the transfer was started again".to_owned()));
        }
        self.spawn(control.pulling(transfer, sink, stopped));
    }

    /// A pull is over, and is told nothing any more; one that took its place is.
    fn leave(&self, transfer: &ProcessId, own: &watch::Receiver<Option<String>>) {
        let mut pulls = self.pulls();
        if pulls.get(transfer).is_some_and(|stop| stop.subscribe().same_channel(own)) {
            pulls.remove(transfer);
        }
    }

    /// Decides how a transfer ends whose pull is over, as often as the store needs it; not where another pull took its
    /// place meanwhile.
    async fn decide_the_end(&self, transfer: &ProcessId, command: Command) -> Result<(), ControlError> {
        let decided = || async {
            if self.pulls().contains_key(transfer) {
                return Ok(());
            }
            self.decide_transfer(transfer, command.clone()).await.map(drop)
        };
        self.until_taken("the end of a pull", decided).await
    }

    /// Boxed, since the end of a pull advances the transfer, which may start a pull.
    fn pulling(
        self: Arc<Self>,
        transfer: Transfer,
        sink: SinkSpec,
        stop: watch::Receiver<Option<String>>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.pull(transfer, sink, stop))
    }

    async fn pull(self: Arc<Self>, transfer: Transfer, sink: SinkSpec, stop: watch::Receiver<Option<String>>) {
        let address = match &transfer.state {
            State::Started { data_address: Some(address) } => address.clone(),
            _ => {
                let reason = "the provider's start message has no data address".to_owned();
                return self.fail_pull(&transfer, &stop, reason).await;
            }
        };
        let endpoint = match address.endpoint.as_deref().map(|text| (text, Url::parse(text))) {
            Some((_, Ok(url))) => url,
            Some((text, Err(error))) => {
                return self.fail_pull(&transfer, &stop, format!("the data address `{text}` is none: {error}")).await;
            }
            None => return self.fail_pull(&transfer, &stop, "the data address has no endpoint".to_owned()).await,
        };
        if let Err(error) = self.parts.egress.check_url(&endpoint) {
            return self.fail_pull(&transfer, &stop, format!("the data address is refused: {error}")).await;
        }
        let began = self.now();
        let mut wait = Duration::from_millis(self.parts.delivery.backoff_ms);
        loop {
            // Before each attempt: other terms may hold by now, with other duties.
            match self.receive(&transfer, &sink).await {
                Ok(Receipt::Expected) => {}
                Ok(Receipt::Deleted) => {
                    self.leave(&transfer.id, &stop);
                    return self.note(&transfer, "flow.stopped", "the data was received and deleted".to_owned()).await;
                }
                // A log that is required and down may be up again.
                Err(error) if error.refusal().fault == Fault::Unavailable && self.patient(began) => {
                    tracing::info!(transfer.id = %transfer.id, %error, "the pull waits for what it must do first");
                    if !self.pause(&mut wait, &stop).await {
                        return;
                    }
                    continue;
                }
                Err(error) => return self.fail_pull(&transfer, &stop, error.to_string()).await,
            }
            let job = PullJob {
                transfer: transfer.id.clone(),
                agreement: transfer.agreement.clone(),
                provider: transfer.counterparty.clone(),
                endpoint: endpoint.clone(),
                token: SecretString::from(address.token.clone().unwrap_or_default()),
                sink: sink.clone(),
                sink_root: self.parts.sink_root.clone(),
                limits: self.parts.data_limits.clone(),
            };
            let outcome = puller::pull(job, self.parts.client.clone(), stop.clone()).await;
            if outcome.reports.iter().any(|report| report.bytes > 0) {
                self.rebound().remove(&transfer.id);
            }
            for report in outcome.reports {
                self.flow_ended(report).await;
            }
            match outcome.result {
                PullResult::Done { bytes, digest_blake3 } => {
                    tracing::info!(transfer.id = %transfer.id, bytes, digest_blake3, "received whole and verified");
                    self.leave(&transfer.id, &stop);
                    let kept = || self.received(&transfer, bytes, digest_blake3.clone());
                    if let Err(error) = self.until_taken("what was received", kept).await {
                        // The transfer stays open, so that the next start takes this up again.
                        return tracing::error!(transfer.id = %transfer.id, %error, "what was received was not kept");
                    }
                    if let Err(error) = self.decide_the_end(&transfer.id, Command::Complete).await {
                        tracing::warn!(transfer.id = %transfer.id, %error, "the completion was refused");
                    }
                    return;
                }
                PullResult::Unwritable { full: false, retryable: true, reason } if self.patient(began) => {
                    tracing::info!(transfer.id = %transfer.id, reason, "the pull waits for its next attempt");
                    if !self.pause(&mut wait, &stop).await {
                        return;
                    }
                }
                PullResult::Unwritable { full, reason, .. } => {
                    return self.unwritable(&transfer, &stop, full, reason).await;
                }
                PullResult::OtherCertificate { reason } => return self.rebind(&transfer, &stop, reason).await,
                PullResult::Stopped { reason } => {
                    self.leave(&transfer.id, &stop);
                    tracing::info!(transfer.id = %transfer.id, reason, "the pull was stopped");
                    return self.note(&transfer, "flow.stopped", reason).await;
                }
                PullResult::Failed { retryable: true, reason } if self.patient(began) => {
                    tracing::info!(transfer.id = %transfer.id, reason, "the pull waits for its next attempt");
                    if !self.pause(&mut wait, &stop).await {
                        return;
                    }
                }
                PullResult::Failed { reason, .. } => return self.fail_pull(&transfer, &stop, reason).await,
            }
        }
    }

    /// Whether what began then is still tried.
    fn patient(&self, began: Timestamp) -> bool {
        let age = self.now().duration_since(began).as_secs();
        age < i64::try_from(self.parts.delivery.give_up_seconds).unwrap_or(i64::MAX)
    }

    /// Waits for the next attempt, and longer the next time; whether nobody stopped it meanwhile.
    async fn pause(&self, wait: &mut Duration, stop: &watch::Receiver<Option<String>>) -> bool {
        let mut stop = stop.clone();
        tokio::select! {
            () = tokio::time::sleep(*wait) => {}
            _ = stop.wait_for(Option::is_some) => return false,
        }
        *wait = (*wait * 2).min(Duration::from_millis(self.parts.delivery.backoff_ms_max));
        true
    }

    /// The data cannot be put down. Where it has no room, the transfer waits until an operator made some; what came stays.
    /// Paths of ours are not the provider's business: they are in the log and the audit.
    async fn unwritable(
        &self,
        transfer: &Transfer,
        stop: &watch::Receiver<Option<String>>,
        full: bool,
        reason: String,
    ) {
        tracing::warn!(transfer.id = %transfer.id, reason, "the data could not be written");
        self.note(transfer, "pull.unwritable", reason).await;
        if !full {
            return self.fail_pull(transfer, stop, "the consumer could not write the data".to_owned()).await;
        }
        self.leave(&transfer.id, stop);
        let reason = "the consumer's disk is full; once there is room it resumes the transfer".to_owned();
        let command = Command::Suspend { code: Some("disk-full".to_owned()), reason: vec![reason] };
        if let Err(error) = self.decide_the_end(&transfer.id, command).await {
            tracing::warn!(transfer.id = %transfer.id, %error, "the suspension was refused");
        }
    }

    /// The token is bound to a certificate that we renewed: suspended and started again, the transfer goes on with the new
    /// one. Not twice without a byte in between, or a provider that always says so would be asked for ever.
    async fn rebind(&self, transfer: &Transfer, stop: &watch::Receiver<Option<String>>, reason: String) {
        let id = &transfer.id;
        if !self.rebound().insert(id.clone()) {
            return self.fail_pull(transfer, stop, reason).await;
        }
        tracing::info!(transfer.id = %id, reason, "the transfer is suspended and started again with the certificate in use");
        self.leave(id, stop);
        let (code, reason) = (Some("certificate-renewed".to_owned()), vec![reason]);
        let mut changes = self.changes();
        let started = async {
            self.decide_the_end(id, Command::Suspend { code, reason }).await?;
            loop {
                let now = self.loaded_transfer(id).await?.value;
                match (now.state.name(), now.pending) {
                    (StateName::Suspended, None) => return self.start_transfer(id).await.map(drop),
                    // Whoever moved it on meanwhile knows better.
                    (_, None) => return Ok(()),
                    (_, Some(_)) => drop(tokio::time::timeout(Duration::from_secs(1), changes.recv()).await),
                }
            }
        };
        if let Err(error) = started.await {
            tracing::warn!(transfer.id = %id, %error, "the transfer was not started again");
        }
    }

    fn rebound(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<ProcessId>> {
        self.rebound.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The pull cannot succeed: the provider learns why, and the transfer ends.
    async fn fail_pull(&self, transfer: &Transfer, stop: &watch::Receiver<Option<String>>, reason: String) {
        tracing::warn!(transfer.id = %transfer.id, reason, "the pull failed");
        self.rebound().remove(&transfer.id);
        self.leave(&transfer.id, stop);
        let command = Command::Terminate { code: Some("pull-failed".to_owned()), reason: vec![reason] };
        if let Err(error) = self.decide_the_end(&transfer.id, command).await {
            tracing::warn!(transfer.id = %transfer.id, %error, "the termination was refused");
        }
    }

    async fn note(&self, transfer: &Transfer, event: &str, detail: String) {
        let now = self.now();
        let line = AuditRecord {
            at: now,
            process: Some(transfer.id.clone()),
            counterparty: Some(transfer.counterparty.clone()),
            agreement: Some(transfer.agreement.clone()),
            event: event.to_owned(),
            detail,
        };
        let batch = Batch { now, audit: vec![line], ..Batch::default() };
        if let Err(error) = self.parts.store.commit(batch).await {
            tracing::error!(%error, "an audit line was not kept");
        }
    }

    /// Revokes an agreement: running transfers under it are cut, new ones refused.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is no such agreement.
    pub async fn revoke(&self, id: &AgreementId, reason: String) -> Result<AgreementRecord, ControlError> {
        let mut record = self
            .parts
            .store
            .agreement(id)
            .await?
            .ok_or_else(|| ControlError::not_found("agreement", id.as_str()))?
            .value;
        if record.role == Role::Consumer {
            let refusal =
                Refusal::new(Fault::IllegalMove, "agreement.role", "only its provider can take an agreement back");
            return Err(refusal
                .at("id")
                .cure("the provider's operator revokes it; `terminate` ends a transfer")
                .into());
        }
        if reason.trim().is_empty() {
            let refusal = Refusal::new(Fault::Malformed, "agreement.reason", "the reason is empty");
            return Err(refusal.at("reason").by("whoever is refused reads it").cure("a word or more").into());
        }
        // What it was taken back for stays what it was.
        if let AgreementState::Revoked { .. } = record.state {
            return Ok(record);
        }
        let now = self.now();
        record.state = AgreementState::Revoked { reason: reason.clone(), at: now };
        let batch = Batch {
            now,
            agreement: Some(record.clone()),
            audit: vec![AuditRecord {
                at: now,
                process: None,
                counterparty: Some(record.counterparty.clone()),
                agreement: Some(id.clone()),
                event: "agreement.revoked".to_owned(),
                detail: reason,
            }],
            ..Batch::default()
        };
        self.parts.store.commit(batch).await?;
        self.ask_again(id).await?;
        Ok(record)
    }

    /// Counts uses that were made outside of the connector, such as by the application behind
    /// it; running transfers whose count is thereby exhausted are cut.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is no such agreement.
    pub async fn report_uses(&self, id: &AgreementId, uses: u32) -> Result<u64, ControlError> {
        let record = self
            .parts
            .store
            .agreement(id)
            .await?
            .ok_or_else(|| ControlError::not_found("agreement", id.as_str()))?
            .value;
        for _ in 0..uses {
            let batch = Batch {
                now: self.now(),
                take_use: Some(TakeUse {
                    agreement: id.clone(),
                    transfer: record.negotiation.clone(),
                    flow: super::fresh_urn(),
                    max: None,
                }),
                ..Batch::default()
            };
            self.parts.store.commit(batch).await?;
        }
        self.ask_again(id).await?;
        Ok(self.parts.store.uses(id).await?)
    }

    /// Evaluates the policy again for every transfer under an agreement.
    async fn ask_again(&self, id: &AgreementId) -> Result<(), ControlError> {
        let filter = TransferFilter { agreement: Some(id.clone()), ..TransferFilter::default() };
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.transfers(&filter, &page).await?;
            for loaded in listing.items {
                if loaded.value.state.name().is_terminal() {
                    continue;
                }
                let advanced = self.advance_transfer(&loaded.value.id, Input::Due, None, None).await?;
                self.send(advanced.outgoing);
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Takes away a wake-up that was due, unless a later one was set meanwhile.
    pub(super) async fn woken(&self, process: &ProcessId, due: Timestamp) -> Result<(), StoreError> {
        let batch = Batch { now: self.now(), woken: Some((process.clone(), due)), ..Batch::default() };
        self.parts.store.commit(batch).await.map(drop)
    }

    fn pulls(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<ProcessId, watch::Sender<Option<String>>>> {
        self.pulls.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn readings(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<ProcessId, Readings>> {
        self.readings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn of_member(member: Option<&str>) -> String {
    member.map(|member| format!(" of `{member}`")).unwrap_or_default()
}

pub(super) fn denied(message: String) -> Refusal {
    Refusal::new(Fault::Denied, "policy.denied", message).by("ODRL 2.2, default deny")
}
