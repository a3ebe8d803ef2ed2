//! Load → step → commit state, outbox, agreement and audit in one transaction: the one place
//! that writes protocol state. There is no match on states here.

use std::time::Duration;

use jiff::Timestamp;
use kontor_core::effect::{Effect, Outgoing, Record, StopReason};
use kontor_core::id::{AgreementId, MessageId, ProcessId};
use kontor_core::negotiation::{self, Negotiation, OfferKind, Related};
use kontor_core::policy;
use kontor_core::refusal::Refusal;
use kontor_core::transfer::{self, Transfer};

use super::automation::{Action, Decision, Visits};
use super::capability::Assurance;
use super::error::ControlError;
use super::wire_format::{self, Pids};
use super::{Control, fresh_urn};
use crate::model::{AgreementRecord, AgreementState, AuditRecord, Machine, OutboxEntry, TransferDetail};
use crate::store::{AuditFilter, Batch, Page, StoreError, Versioned};

/// How often one input is stepped again after somebody else changed the same process.
const CONFLICTS_MAX: u32 = 32;
/// How many decisions of rules one input may set off; a rule set that circles ends here.
const DECISIONS_MAX: u32 = 8;

/// A process after an advance, and the messages that are to be sent now.
#[derive(Debug)]
pub struct Advanced<T> {
    /// The process.
    pub value: T,
    /// To be handed to the outbox: by the caller, so that an answer to the message that caused
    /// them can leave first.
    pub outgoing: Vec<OutboxEntry>,
}

/// What the terms of an offer are to us, given the negotiation that it came in.
pub type Terms<'a> = &'a (dyn Fn(&Negotiation) -> Result<Related, Refusal> + Send + Sync);

/// A negotiation's step with everything that rules decided after it, ready to be committed.
struct Settled<T> {
    next: T,
    batch: Batch,
    outgoing: Vec<OutboxEntry>,
    /// Messages of ours that what was heard presupposes.
    arrived: Vec<MessageId>,
    /// Messages of ours that are not to be said any more.
    cancelled: Vec<MessageId>,
    flow: Option<FlowOrder>,
    later: Option<Decision>,
    /// The states that were entered so far, where a rule counts them.
    visits: Visits,
    changed: bool,
    /// Which facts it was decided by.
    epoch: u64,
}

impl<T> Settled<T> {
    /// The message is said until the commit says that it is not: where that fails, it is still to be said.
    fn cancel(&mut self, id: MessageId) {
        self.outgoing.retain(|entry| entry.id != id);
        self.batch.outbox.retain(|entry| entry.id != id);
        self.batch.outbox_done.push(id.clone());
        self.cancelled.push(id);
    }
}

/// What the data plane is told after the commit.
#[derive(Debug, Clone)]
enum FlowOrder {
    Start,
    Stop(StopReason),
}

impl Control {
    /// Advances a stored negotiation by one input.
    pub(crate) async fn advance_negotiation(
        &self,
        id: &ProcessId,
        input: negotiation::Input,
        terms: Terms<'_>,
        done: Option<&MessageId>,
    ) -> Result<Advanced<Negotiation>, ControlError> {
        let loaded = self.loaded_negotiation(id).await?;
        self.advance_loaded_negotiation(loaded, input, terms, done).await
    }

    /// The same of a negotiation that was loaded for other reasons.
    pub(crate) async fn advance_loaded_negotiation(
        &self,
        mut loaded: Versioned<Negotiation>,
        input: negotiation::Input,
        terms: Terms<'_>,
        done: Option<&MessageId>,
    ) -> Result<Advanced<Negotiation>, ControlError> {
        for _ in 0..CONFLICTS_MAX {
            let id = loaded.value.id.clone();
            let batch = Batch { outbox_done: done.cloned().into_iter().collect(), ..Batch::default() };
            match self.commit_negotiation(loaded.value, loaded.version, Some(input.clone()), terms, batch).await {
                Err(ControlError::Store(StoreError::Conflict { .. })) => loaded = self.loaded_negotiation(&id).await?,
                other => return other,
            }
        }
        Err(ControlError::Busy)
    }

    async fn loaded_negotiation(&self, id: &ProcessId) -> Result<Versioned<Negotiation>, ControlError> {
        let loaded = self.parts.store.negotiation(id).await?;
        loaded.ok_or_else(|| ControlError::not_found("negotiation", id.as_str()))
    }

    /// Steps a negotiation that was loaded (or begun, with version 0) and commits it.
    pub(crate) async fn commit_negotiation(
        &self,
        negotiation: Negotiation,
        version: u64,
        input: Option<negotiation::Input>,
        terms: Terms<'_>,
        batch: Batch,
    ) -> Result<Advanced<Negotiation>, ControlError> {
        let visits = self.visits(&negotiation.id).await?;
        let settled = self.settle_negotiation(negotiation, input, terms, batch, visits).await?;
        let Settled { next, mut batch, outgoing, arrived, cancelled, later, changed, .. } = settled;
        if changed {
            batch.negotiation = Some((next.clone(), version));
        }
        if changed || !batch.outbox_done.is_empty() {
            self.parts.store.commit(batch).await?;
            self.outbox.cancel(&cancelled);
            self.outbox.arrived(&arrived);
            self.changed(&next.id);
        }
        if let Some(decision) = later {
            self.decide_negotiation_later(next.clone(), decision);
        }
        Ok(Advanced { value: next, outgoing })
    }

    async fn settle_negotiation(
        &self,
        negotiation: Negotiation,
        input: Option<negotiation::Input>,
        terms: Terms<'_>,
        batch: Batch,
        visits: Visits,
    ) -> Result<Settled<Negotiation>, ControlError> {
        let now = self.now();
        let mut settled = Settled {
            next: negotiation,
            batch,
            outgoing: Vec::new(),
            arrived: Vec::new(),
            cancelled: Vec::new(),
            flow: None,
            later: None,
            visits,
            changed: false,
            epoch: 0,
        };
        settled.batch.now = now;
        let settle_rules = input.is_none();
        let failed = match (&input, &settled.next.pending) {
            (Some(negotiation::Input::Undelivered { failure, .. }), Some(pending)) => {
                Some((pending.message.kind(), failure.clone()))
            }
            _ => None,
        };
        if let Some(input) = input {
            if let negotiation::Input::Decided(negotiation::Command::Agree { .. }) = &input {
                match self.assurance(&settled.next).await? {
                    Assurance::NotNeeded => {}
                    Assurance::Given(record) => self.record_negotiation(record, &mut settled, now),
                    Assurance::Refused(refusal) => return Err(refusal.into()),
                }
            }
            let facts = self.negotiation_facts(now, terms(&settled.next));
            let outcome = settled.next.clone().step(input, &facts)?;
            if !outcome.changed {
                return Ok(settled);
            }
            self.take_negotiation(outcome, &mut settled, now);
        }
        for _ in 0..DECISIONS_MAX {
            if settled.next.pending.is_some() || !(settled.changed || settle_rules) {
                break;
            }
            let Some(decision) = self.parts.rules.negotiation(&settled.next, &settled.visits) else { break };
            if !decision.after.is_zero() && failed.is_none() {
                settled.later = Some(decision);
                break;
            }
            let Some(mut command) = self.negotiation_command(decision.action, &settled.next).await? else { break };
            if let negotiation::Command::Agree { .. } = &command {
                match self.assurance(&settled.next).await? {
                    Assurance::NotNeeded => {}
                    Assurance::Given(record) => self.record_negotiation(record, &mut settled, now),
                    Assurance::Refused(refusal) => {
                        tracing::info!(negotiation.id = %settled.next.id, %refusal, "no agreement is made");
                        let (code, reason) = (Some(refusal.code.clone()), refusal.sentences());
                        command = negotiation::Command::Terminate { code, reason };
                    }
                }
            }
            // What a rule offers is what is published, or on the table and judged before.
            let terms =
                if decision.action == Action::Counter { Ok(OfferKind::Published.into()) } else { terms(&settled.next) };
            let facts = self.negotiation_facts(now, terms);
            let mut decided = settled.next.clone().step(negotiation::Input::Decided(command), &facts);
            if let (Ok(outcome), Some((kind, failure))) = (&decided, &failed)
                && outcome.next.pending.as_ref().is_some_and(|pending| pending.message.kind() == *kind)
            {
                let (code, reason) = not_again(failure);
                let end = negotiation::Command::Terminate { code, reason };
                decided = settled.next.clone().step(negotiation::Input::Decided(end), &facts);
            } else if !decision.after.is_zero() {
                settled.later = Some(decision);
                break;
            }
            match decided {
                Ok(outcome) if outcome.changed => self.take_negotiation(outcome, &mut settled, now),
                Ok(_) => break,
                Err(refusal) => {
                    tracing::warn!(negotiation.id = %settled.next.id, %refusal, "a rule's decision was refused");
                    break;
                }
            }
        }
        Ok(settled)
    }

    fn take_negotiation(&self, outcome: negotiation::Outcome, settled: &mut Settled<Negotiation>, now: Timestamp) {
        settled.next = outcome.next;
        settled.changed = true;
        let state = settled.next.state.name();
        let next = settled.next.clone();
        for effect in outcome.effects {
            match effect {
                Effect::Send(message) => {
                    let entry = self.negotiation_entry(&next, &message, now);
                    settled.outgoing.push(entry.clone());
                    settled.batch.outbox.push(entry);
                }
                Effect::Cancel(id) => settled.cancel(id),
                Effect::Arrived(id) => {
                    settled.batch.outbox_done.push(id.clone());
                    settled.arrived.push(id);
                }
                Effect::StoreAgreement(agreement) => {
                    settled.batch.agreement = Some(agreement_record(&next, *agreement));
                }
                Effect::Record(record) => self.record_negotiation(record, settled, now),
                Effect::WakeAt(_) | Effect::StartFlow | Effect::StopFlow(_) => {}
            }
        }
        if let Some(agreement) = next.agreement()
            && state == negotiation::StateName::Finalized
        {
            settled.batch.agreement = Some(agreement_record(&next, agreement.clone()));
        }
    }

    fn negotiation_facts(&self, now: Timestamp, terms: Result<Related, Refusal>) -> negotiation::Facts {
        let vocabulary = self.parts.capabilities.vocabulary.clone();
        negotiation::Facts { now, message_id: self.fresh_message_id(), terms, vocabulary }
    }

    fn record_negotiation(&self, record: Record, settled: &mut Settled<Negotiation>, now: Timestamp) {
        settled.visits.count(&record.event);
        let next = &settled.next;
        let agreement = next.agreement().map(|agreement| agreement.id.clone());
        settled.batch.audit.push(audit(&next.id, &next.counterparty, agreement, record, now));
    }

    /// Advances a stored transfer by one input. `permission` is evaluated afresh each time.
    pub(crate) async fn advance_transfer(
        &self,
        id: &ProcessId,
        input: transfer::Input,
        detail: Option<TransferDetail>,
        done: Option<&MessageId>,
    ) -> Result<Advanced<Transfer>, ControlError> {
        let loaded = self.loaded_transfer(id).await?;
        self.advance_loaded_transfer(loaded, input, detail, done).await
    }

    /// The same of a transfer that was loaded for other reasons.
    pub(crate) async fn advance_loaded_transfer(
        &self,
        mut loaded: Versioned<Transfer>,
        input: transfer::Input,
        detail: Option<TransferDetail>,
        done: Option<&MessageId>,
    ) -> Result<Advanced<Transfer>, ControlError> {
        for _ in 0..CONFLICTS_MAX {
            let id = loaded.value.id.clone();
            let batch = Batch {
                transfer_detail: detail.clone(),
                outbox_done: done.cloned().into_iter().collect(),
                ..Batch::default()
            };
            match self.commit_transfer(loaded.value, loaded.version, Some(input.clone()), batch).await {
                Err(ControlError::Store(StoreError::Conflict { .. })) => loaded = self.loaded_transfer(&id).await?,
                other => return other,
            }
        }
        Err(ControlError::Busy)
    }

    pub(super) async fn loaded_transfer(&self, id: &ProcessId) -> Result<Versioned<Transfer>, ControlError> {
        let loaded = self.parts.store.transfer(id).await?;
        loaded.ok_or_else(|| ControlError::not_found("transfer", id.as_str()))
    }

    /// Steps a transfer that was loaded (or begun, with version 0) and commits it.
    pub(crate) async fn commit_transfer(
        &self,
        transfer: Transfer,
        version: u64,
        input: Option<transfer::Input>,
        batch: Batch,
    ) -> Result<Advanced<Transfer>, ControlError> {
        let id = transfer.id.clone();
        let committed = self.settle_and_commit(transfer, version, input, batch).await;
        if committed.is_err() && version == 0 {
            // It was decided about, but it does not come to be.
            self.interests().remove(&id);
        }
        committed
    }

    async fn settle_and_commit(
        &self,
        transfer: Transfer,
        version: u64,
        input: Option<transfer::Input>,
        batch: Batch,
    ) -> Result<Advanced<Transfer>, ControlError> {
        let settled = self.settle_transfer(transfer, input, batch).await?;
        let Settled { next, mut batch, outgoing, arrived, cancelled, flow, later, changed, epoch, .. } = settled;
        if !changed && !batch.outbox_done.is_empty() {
            batch.transfer_detail = None;
            self.parts.store.commit(batch).await?;
        } else if changed {
            batch.transfer = Some((next.clone(), version));
            let wakes = batch.wake.is_some();
            let detail = batch.transfer_detail.clone();
            // A running flow is stopped before the commit: data must not outrun the decision.
            if let Some(FlowOrder::Stop(reason)) = &flow {
                self.stop_flow(&next, *reason);
            }
            self.parts.store.commit(batch).await?;
            self.outbox.cancel(&cancelled);
            self.outbox.arrived(&arrived);
            self.changed(&next.id);
            if wakes {
                self.wake.notify_one();
            }
            self.after_transfer_commit(&next, detail, matches!(flow, Some(FlowOrder::Start))).await;
            if let (Some(FlowOrder::Stop(_)), negotiation::Role::Provider) = (&flow, next.role)
                && let Err(error) = self.hold_to_state(&next.id).await
            {
                self.again_later(&next.id, &error);
            }
            if epoch != self.facts_epoch()
                && let Some(control) = self.arc()
            {
                // A fact changed after we had decided, and whoever changed it may not have seen this transfer yet.
                let id = next.id.clone();
                self.spawn(async move { control.decide_one_again(&id).await });
            }
        }
        if let Some(decision) = later {
            self.decide_transfer_later(next.clone(), decision);
        }
        Ok(Advanced { value: next, outgoing })
    }

    async fn settle_transfer(
        &self,
        transfer: Transfer,
        input: Option<transfer::Input>,
        batch: Batch,
    ) -> Result<Settled<Transfer>, ControlError> {
        let now = self.now();
        let visits = self.visits(&transfer.id).await?;
        let mut settled = Settled {
            next: transfer,
            batch,
            outgoing: Vec::new(),
            arrived: Vec::new(),
            cancelled: Vec::new(),
            flow: None,
            later: None,
            visits,
            changed: false,
            epoch: self.facts_epoch(),
        };
        settled.batch.now = now;
        let settle_rules = input.is_none();
        let failed = match (&input, &settled.next.pending) {
            (Some(transfer::Input::Undelivered { failure, .. }), Some(pending)) => {
                Some((pending.message.kind(), failure.clone()))
            }
            _ => None,
        };
        let permission = self.permission(&settled.next, settled.batch.transfer_detail.as_ref(), now).await?;
        if let Some(input) = input {
            let facts = transfer::Facts { now, message_id: self.fresh_message_id(), permission: permission.clone() };
            let outcome = settled.next.clone().step(input, &facts)?;
            if !outcome.changed {
                self.take_transfer_effects_only(&outcome, &mut settled);
                return Ok(settled);
            }
            self.take_transfer(outcome, &mut settled, now);
        }
        for _ in 0..DECISIONS_MAX {
            if settled.next.pending.is_some() || !(settled.changed || settle_rules) {
                break;
            }
            let Some(decision) = self.parts.rules.transfer(&settled.next, &settled.visits) else { break };
            if !decision.after.is_zero() && failed.is_none() {
                settled.later = Some(decision);
                break;
            }
            let Some(command) = self.transfer_command(decision.action, &settled.next, &mut settled.batch).await? else {
                break;
            };
            let facts = transfer::Facts { now, message_id: self.fresh_message_id(), permission: permission.clone() };
            let mut decided = settled.next.clone().step(transfer::Input::Decided(command), &facts);
            if let (Ok(outcome), Some((kind, failure))) = (&decided, &failed)
                && outcome.next.pending.as_ref().is_some_and(|pending| pending.message.kind() == *kind)
            {
                let (code, reason) = not_again(failure);
                let end = transfer::Command::Terminate { code, reason };
                decided = settled.next.clone().step(transfer::Input::Decided(end), &facts);
            } else if !decision.after.is_zero() {
                settled.later = Some(decision);
                break;
            }
            match decided {
                Ok(outcome) if outcome.changed => self.take_transfer(outcome, &mut settled, now),
                Ok(_) => break,
                Err(refusal) => {
                    // The policy says no: the consumer learns why, instead of waiting for ever.
                    let end =
                        transfer::Command::Terminate { code: Some(refusal.code.clone()), reason: refusal.sentences() };
                    tracing::info!(transfer.id = %settled.next.id, %refusal, "the transfer is refused");
                    let facts = transfer::Facts { message_id: self.fresh_message_id(), ..facts };
                    if let Ok(outcome) = settled.next.clone().step(transfer::Input::Decided(end), &facts) {
                        self.take_transfer(outcome, &mut settled, now);
                    }
                    break;
                }
            }
        }
        Ok(settled)
    }

    /// How often a process entered its states so far, where a rule asks for it: by its lines of the audit log, which are
    /// committed with the states, so that no restart forgets a visit.
    async fn visits(&self, process: &ProcessId) -> Result<Visits, ControlError> {
        let mut visits = Visits::default();
        if !self.parts.rules.count_visits() {
            return Ok(visits);
        }
        let filter = AuditFilter { process: Some(process.clone()), ..AuditFilter::default() };
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.audit(&filter, &page).await?;
            listing.items.iter().for_each(|line| visits.count(&line.record.event));
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(visits),
            }
        }
    }

    /// An unchanged transfer may still ask to be woken again.
    fn take_transfer_effects_only(&self, outcome: &transfer::Outcome, settled: &mut Settled<Transfer>) {
        for effect in &outcome.effects {
            if let Effect::WakeAt(at) = effect {
                settled.batch.wake = Some((outcome.next.id.clone(), Some(*at)));
                settled.changed = true;
            }
        }
    }

    fn take_transfer(&self, outcome: transfer::Outcome, settled: &mut Settled<Transfer>, now: Timestamp) {
        let before = settled.next.state.name();
        settled.next = outcome.next;
        settled.changed = true;
        let state = settled.next.state.name();
        if state != before && state.is_terminal() {
            settled.batch.wake = Some((settled.next.id.clone(), None));
        }
        let next = settled.next.clone();
        for effect in outcome.effects {
            match effect {
                Effect::Send(message) => {
                    let entry = self.transfer_entry(&next, &message, now);
                    settled.outgoing.push(entry.clone());
                    settled.batch.outbox.push(entry);
                }
                Effect::Cancel(id) => settled.cancel(id),
                Effect::Arrived(id) => {
                    settled.batch.outbox_done.push(id.clone());
                    settled.arrived.push(id);
                }
                Effect::StoreAgreement(_) => {}
                Effect::StartFlow => settled.flow = Some(FlowOrder::Start),
                Effect::StopFlow(reason) => settled.flow = Some(FlowOrder::Stop(reason)),
                Effect::WakeAt(at) => settled.batch.wake = Some((next.id.clone(), Some(at))),
                Effect::Record(record) => {
                    settled.visits.count(&record.event);
                    settled.batch.audit.push(audit(
                        &next.id,
                        &next.counterparty,
                        Some(next.agreement.clone()),
                        record,
                        now,
                    ));
                }
            }
        }
    }

    fn negotiation_entry(
        &self,
        negotiation: &Negotiation,
        message: &Outgoing<negotiation::Message>,
        now: Timestamp,
    ) -> OutboxEntry {
        let callback = self.protocol_base();
        let letter = wire_format::negotiation_letter(
            &message.message,
            Pids {
                consumer: negotiation.consumer_pid(),
                provider: negotiation.provider_pid(),
                peer: negotiation.peer_pid.as_ref(),
                callback: &callback,
                id: message.id.as_str(),
            },
        );
        OutboxEntry {
            id: message.id.clone(),
            machine: Machine::Negotiation,
            process: negotiation.id.clone(),
            to: negotiation.counterparty.clone(),
            url: format!("{}{}", negotiation.peer_address, letter.path),
            body: letter.body.to_string(),
            queued: now,
            attempts: 0,
            next_attempt: now,
            last_error: None,
            awaits_answer: negotiation.awaits_answer(),
        }
    }

    fn transfer_entry(
        &self,
        transfer: &Transfer,
        message: &Outgoing<transfer::Message>,
        now: Timestamp,
    ) -> OutboxEntry {
        let callback = self.protocol_base();
        let letter = wire_format::transfer_letter(
            &message.message,
            Pids {
                consumer: transfer.consumer_pid(),
                provider: transfer.provider_pid(),
                peer: transfer.peer_pid.as_ref(),
                callback: &callback,
                id: message.id.as_str(),
            },
        );
        OutboxEntry {
            id: message.id.clone(),
            machine: Machine::Transfer,
            process: transfer.id.clone(),
            to: transfer.counterparty.clone(),
            url: format!("{}{}", transfer.peer_address, letter.path),
            body: letter.body.to_string(),
            queued: now,
            attempts: 0,
            next_attempt: now,
            last_error: None,
            awaits_answer: transfer.awaits_answer(),
        }
    }

    /// A rule that waits: acted on later, if the process still stands where it stood.
    fn decide_negotiation_later(&self, negotiation: Negotiation, decision: Decision) {
        let Some(control) = self.arc() else { return };
        self.spawn(async move {
            tokio::time::sleep(decision.after).await;
            let Ok(Some(now)) = control.parts.store.negotiation(&negotiation.id).await else { return };
            if now.value.state != negotiation.state || now.value.pending.is_some() {
                return;
            }
            let Ok(Some(command)) = control.negotiation_command(decision.action, &now.value).await else { return };
            let input = negotiation::Input::Decided(command);
            match control.advance_negotiation(&negotiation.id, input, &super::negotiation::published, None).await {
                Ok(advanced) => control.send(advanced.outgoing),
                Err(error) => tracing::warn!(negotiation.id = %negotiation.id, %error, "a rule's decision failed"),
            }
        });
    }

    fn decide_transfer_later(&self, transfer: Transfer, decision: Decision) {
        let Some(control) = self.arc() else { return };
        self.spawn(async move {
            tokio::time::sleep(decision.after).await;
            let Ok(Some(now)) = control.parts.store.transfer(&transfer.id).await else { return };
            if now.value.state != transfer.state || now.value.pending.is_some() {
                return;
            }
            if let Err(error) = control.decide_transfer_action(&now.value, decision.action).await {
                tracing::warn!(transfer.id = %transfer.id, %error, "a rule's decision failed");
            }
        });
    }

    /// Acts on a rule's decision about a transfer.
    pub(crate) async fn decide_transfer_action(&self, transfer: &Transfer, action: Action) -> Result<(), ControlError> {
        let mut batch = Batch::default();
        let Some(command) = self.transfer_command(action, transfer, &mut batch).await? else { return Ok(()) };
        let input = transfer::Input::Decided(command);
        let advanced = self.advance_transfer(&transfer.id, input, batch.transfer_detail, None).await?;
        self.send(advanced.outgoing);
        Ok(())
    }

    /// Hands messages to the outbox.
    pub(crate) fn send(&self, entries: Vec<OutboxEntry>) {
        let Some(control) = self.arc() else { return };
        for entry in entries {
            self.deliver(control.clone(), entry, Duration::ZERO);
        }
    }
}

impl Control {
    /// What a rule's action means for a negotiation that stands like this; `None` where it means
    /// nothing.
    async fn negotiation_command(
        &self,
        action: Action,
        negotiation: &Negotiation,
    ) -> Result<Option<negotiation::Command>, ControlError> {
        if action != Action::Counter {
            return Ok(negotiation_command(action, negotiation));
        }
        let Some(asked) = negotiation.offer() else { return Ok(None) };
        let published = self.parts.store.offers_of(&asked.target).await?;
        let published = published.into_iter().map(|record| record.offer).find(|offer| offer.id == asked.id);
        // An offer that was withdrawn meanwhile is not made again.
        Ok(published.map(|offer| {
            let policy = policy::said_of_all(offer.policy, "target", offer.dataset.as_str());
            let offer = negotiation::Offer { id: offer.id, target: offer.dataset, policy };
            negotiation::Command::Offer { offer }
        }))
    }
}

/// What a rule's action means for a negotiation that stands like this, beside a counter-offer.
fn negotiation_command(action: Action, negotiation: &Negotiation) -> Option<negotiation::Command> {
    use negotiation::Command;
    Some(match action {
        Action::Request => Command::Request { offer: negotiation.offer()?.clone() },
        Action::Offer => Command::Offer { offer: negotiation.offer()?.clone() },
        Action::Accept => Command::Accept,
        Action::Agree => Command::Agree { id: AgreementId::parse(fresh_urn()).ok()? },
        Action::Verify => Command::Verify,
        Action::Finalize => Command::Finalize,
        Action::Terminate => Command::Terminate {
            code: Some("rule".to_owned()),
            reason: std::iter::once("ended by a rule of the operator".to_owned())
                .chain(negotiation.objection())
                .collect(),
        },
        Action::Hold | Action::Counter | Action::Start | Action::Suspend | Action::Complete => return None,
    })
}

/// What a rule decided and the peer refused, or never took, would be refused again, and at once, or be tried for ever: the
/// process ends, and the peer is told.
fn not_again(failure: &negotiation::Failure) -> (Option<String>, Vec<String>) {
    let (code, what) = if failure.refused { ("refused", "was refused") } else { ("undelivered", "did not arrive") };
    (Some(code.to_owned()), vec![format!("what follows by rule {what}: {}", failure.detail)])
}

fn agreement_record(negotiation: &Negotiation, agreement: negotiation::Agreement) -> AgreementRecord {
    let in_force = negotiation.state.name() == negotiation::StateName::Finalized;
    AgreementRecord {
        agreement,
        role: negotiation.role,
        counterparty: negotiation.counterparty.clone(),
        negotiation: negotiation.id.clone(),
        state: if in_force { AgreementState::InForce } else { AgreementState::Pending },
    }
}

fn audit(
    process: &ProcessId,
    counterparty: &kontor_core::id::ParticipantId,
    agreement: Option<AgreementId>,
    record: Record,
    at: Timestamp,
) -> AuditRecord {
    AuditRecord {
        at,
        process: Some(process.clone()),
        counterparty: Some(counterparty.clone()),
        agreement,
        event: record.event,
        detail: record.detail,
    }
}
