//! The registers that policies ask: claims of participants, facts of agreements, events and states.
//!
//! A change is committed first. Then every transfer whose permission rested on it is decided again, at once: where the
//! answer is now no, its grant is shut before anything else happens.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use kontor_core::id::{AgreementId, DatasetId, ParticipantId, ProcessId};
use kontor_core::negotiation::Role;
use kontor_core::policy::operand::{canonical_name, canonical_operand, operand};
use kontor_core::policy::{
    self, ASSIGNEE_COLLECTIONS, Decision, DefinedKind, DueDuty, DutyKey, DutyKind, DutyState, DutyStates, FactSource,
    FactValue, Facts, OPERANDS, OperandKind, Rule, RuleKind, Standing, TARGET_COLLECTIONS, Vocabulary, World,
};
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::{Input, Transfer};
use kontor_vocab::odrl::PolicyDocument;
use serde_json::Value;

use super::Control;
use super::error::ControlError;
use super::transfer::denied;
use crate::data::gate::StopKind;
use crate::model::{AgreementRecord, AuditRecord, DatasetRecord, DutyProgress, FactRecord, Subject, TokenBinding};
use crate::store::{Batch, DutyFilter, Page, Unit};

/// Most facts that one subject has. Default and maximum 256.
pub const FACTS_PER_SUBJECT_MAX: usize = 256;
/// Longest name of a fact, event or state, and longest text of a value, in bytes.
pub const FACT_TEXT_BYTES_MAX: usize = 2048;
/// The fact of an agreement that its duties to obtain consent are fulfilled.
pub const CONSENT: &str = "consent";
/// The fact of an agreement that its duties to pay are fulfilled.
pub const PAYMENT: &str = "payment";
/// Most texts in one value.
pub const FACT_VALUES_MAX: usize = 64;

/// How many ends of facts a permission may outlive before it is cut at the next one and asked again.
const TURNS_MAX: usize = 64;

/// What changed: which decisions may be other ones now.
#[derive(Debug, Clone)]
pub enum Change {
    /// Facts of a register, by their names.
    Facts(Subject, BTreeSet<String>),
    /// The labels of a dataset.
    Labels(DatasetId),
}

/// What a transfer's latest permission rested on.
#[derive(Debug, Clone)]
pub(crate) struct Interest {
    pub(crate) agreement: AgreementId,
    pub(crate) assignee: ParticipantId,
    pub(crate) dataset: DatasetId,
    pub(crate) depends_on: BTreeSet<String>,
}

impl Interest {
    fn touched_by(&self, change: &Change) -> bool {
        match change {
            Change::Facts(Subject::Participant(participant), names) => {
                *participant == self.assignee && !self.depends_on.is_disjoint(names)
            }
            // Consent and payment answer duties, which have other names than the facts.
            Change::Facts(Subject::Agreement(agreement), _) => *agreement == self.agreement,
            Change::Facts(Subject::Events, _) => self.depends_on.contains("event"),
            Change::Facts(Subject::States, _) => self.depends_on.contains("idsc:STATE"),
            Change::Labels(dataset) => *dataset == self.dataset,
        }
    }
}

/// A fact as an operator gives it.
#[derive(Debug, Clone)]
pub struct NewFact {
    /// The operand that it answers, or the event or state itself.
    pub name: String,
    /// A text, a number, `true`, or an array of texts.
    pub value: Value,
    /// The first instant at which it is no longer known to be so.
    pub valid_until: Option<Timestamp>,
    /// For people: how we know.
    pub note: String,
}

impl Control {
    /// The facts of one register and subject, oldest first; those that are over as well.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is no such agreement.
    pub async fn facts(&self, subject: &Subject) -> Result<Vec<FactRecord>, ControlError> {
        self.subject_exists(subject).await?;
        Ok(self.parts.store.facts(subject).await?)
    }

    /// Sets facts; with `replace` all others of the subject are forgotten. Once it answers, nothing flows any more
    /// that rested on what was so before.
    ///
    /// # Errors
    /// [`ControlError::Refused`] that names the fact at fault.
    pub async fn set_facts(
        &self,
        subject: &Subject,
        new: Vec<NewFact>,
        replace: bool,
    ) -> Result<Vec<FactRecord>, ControlError> {
        self.subject_exists(subject).await?;
        let now = self.now();
        let held = self.parts.store.facts(subject).await?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut facts = Vec::new();
        for new in new {
            let fact = FactRecord {
                subject: subject.clone(),
                name: new.name,
                value: new.value,
                since: now,
                valid_until: new.valid_until,
                note: new.note,
            };
            let fact = checked(fact, &self.parts.capabilities.vocabulary)?;
            if !names.insert(fact.name.clone()) {
                return Err(malformed(format!("`{}` is there twice", fact.name)).at("name").into());
            }
            facts.push(fact);
        }
        let kept = if replace { 0 } else { held.iter().filter(|fact| !names.contains(&fact.name)).count() };
        if kept + facts.len() > FACTS_PER_SUBJECT_MAX {
            return Err(Refusal::new(
                Fault::Limit,
                "limits.facts_per_subject_max",
                format!("more than {FACTS_PER_SUBJECT_MAX} facts of one subject"),
            )
            .cure("forget some of them first")
            .into());
        }
        let mut audit: Vec<AuditRecord> =
            facts.iter().map(|fact| line(now, subject, "fact.set", words(fact))).collect();
        if replace {
            for gone in held {
                if names.insert(gone.name.clone()) {
                    audit.push(line(now, subject, "fact.cleared", format!("`{}` is no longer known", gone.name)));
                }
            }
        }
        let batch = Batch {
            now,
            clear_facts: replace.then(|| subject.clone()),
            facts: facts.clone(),
            audit,
            ..Batch::default()
        };
        self.parts.store.commit(batch).await?;
        self.decide_again(&Change::Facts(subject.clone(), names)).await;
        Ok(facts)
    }

    /// Forgets a fact. Once it answers, nothing flows any more that rested on it.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when there is no such fact.
    pub async fn forget_fact(&self, subject: &Subject, name: &str) -> Result<(), ControlError> {
        self.subject_exists(subject).await?;
        let (name, _) = known(subject, name, &self.parts.capabilities.vocabulary)?;
        if !self.parts.store.facts(subject).await?.iter().any(|fact| fact.name == name) {
            return Err(ControlError::not_found("fact", &name));
        }
        let now = self.now();
        let batch = Batch {
            now,
            delete_facts: vec![(subject.clone(), name.clone())],
            audit: vec![line(now, subject, "fact.cleared", format!("`{name}` is no longer known"))],
            ..Batch::default()
        };
        self.parts.store.commit(batch).await?;
        self.decide_again(&Change::Facts(subject.clone(), BTreeSet::from([name]))).await;
        Ok(())
    }

    async fn subject_exists(&self, subject: &Subject) -> Result<(), ControlError> {
        if let Subject::Agreement(id) = subject
            && self.parts.store.agreement(id).await?.is_none()
        {
            return Err(ControlError::not_found("agreement", id.as_str()));
        }
        Ok(())
    }

    /// Decides every transfer again whose permission rested on what changed.
    pub(crate) async fn decide_again(&self, change: &Change) {
        // Whoever decided by the old facts and has not opened its grant yet sees this and asks again.
        self.facts_epoch.fetch_add(1, Ordering::SeqCst);
        let touched: Vec<ProcessId> = self
            .interests()
            .iter()
            .filter(|(_, interest)| interest.touched_by(change))
            .map(|(id, _)| id.clone())
            .collect();
        for id in touched {
            self.decide_one_again(&id).await;
        }
    }

    /// Decides one transfer again; where that is impossible, nothing flows. Boxed, since an advance may end in it.
    pub(crate) fn decide_one_again<'a>(&'a self, id: &'a ProcessId) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.asked_again(id))
    }

    async fn asked_again(&self, id: &ProcessId) {
        match self.advance_transfer(id, Input::Due, None, None).await {
            Ok(advanced) => {
                self.send(advanced.outgoing);
                if let Err(error) = self.on_new_terms(&advanced.value).await {
                    self.again_later(id, &error);
                }
            }
            Err(error) => {
                tracing::error!(transfer.id = %id, %error, "the policy could not be decided again: the flow is stopped");
                let words = "the facts changed and the policy could not be decided again";
                self.parts.grants.stop(id, StopKind::Undecided, words);
                self.again_later(id, &error);
            }
        }
    }

    /// What could not be decided for the moment is decided again: nobody else would open what was stopped meanwhile.
    pub(super) fn again_later(&self, id: &ProcessId, error: &ControlError) {
        let (Some(control), id) = (self.arc(), id.clone()) else { return };
        if !error.may_pass() || !self.undecided().insert(id.clone()) {
            return;
        }
        self.spawn(async move {
            tokio::time::sleep(super::deadline::TROUBLED).await;
            control.undecided().remove(&id);
            control.decide_one_again(&id).await;
        });
    }

    /// The transfers that are to be decided again in a moment.
    fn undecided(&self) -> std::sync::MutexGuard<'_, HashSet<ProcessId>> {
        self.undecided.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The permission of a transfer may end at another time by now, or hold on other terms.
    ///
    /// # Errors
    /// Where they cannot be taken up; the flow is stopped then.
    pub(crate) async fn on_new_terms(&self, transfer: &Transfer) -> Result<(), ControlError> {
        if !transfer.may_flow() {
            return Ok(());
        }
        let told = match transfer.role {
            Role::Provider => self.open_grant(transfer, None).await,
            // What is being received may oblige us to more than what was asked for did.
            Role::Consumer => match self.parts.store.transfer_detail(&transfer.id).await {
                Ok(Some(detail)) if detail.auto_start => match &detail.sink {
                    Some(sink) => self.receive(transfer, sink).await.map(drop),
                    None => Ok(()),
                },
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            },
        };
        let Err(error) = told else { return Ok(()) };
        tracing::error!(transfer.id = %transfer.id, %error, "the new terms of a transfer could not be taken up: the flow is stopped");
        match transfer.role {
            Role::Provider => {
                let words = "the terms changed and could not be taken up";
                self.parts.grants.stop(&transfer.id, StopKind::Undecided, words);
                Err(error)
            }
            // A pull takes them up before it asks for anything, and waits where it cannot.
            Role::Consumer => {
                let now = self.parts.store.transfer(&transfer.id).await?;
                if let Some(now) = now.filter(|now| now.value.may_flow()) {
                    self.start_pull(now.value, None).await;
                }
                Ok(())
            }
        }
    }

    pub(crate) fn facts_epoch(&self) -> u64 {
        self.facts_epoch.load(Ordering::SeqCst)
    }

    /// Parses a policy and checks that we can hold to all of it on this side of an agreement.
    ///
    /// # Errors
    /// [`Refusal`] that names every term that we cannot hold to.
    pub(crate) fn enforceable(&self, document: &PolicyDocument, role: Role) -> Result<policy::Policy, Refusal> {
        policy::enforceable(document, &self.capable(role))
    }

    /// What we can hold to on one side of an agreement.
    pub(crate) fn capable(&self, role: Role) -> policy::Capabilities {
        self.parts.capabilities.clone().for_role(role)
    }

    /// The agreement's policy, asked whether its consumer may use its target now, by all that is known.
    pub(crate) async fn decide(
        &self,
        record: &AgreementRecord,
        transfer: &Transfer,
        binding: Option<&TokenBinding>,
        now: Timestamp,
        uses: u64,
    ) -> Result<Result<(Decision, bool), Refusal>, ControlError> {
        let agreement = &record.agreement;
        let model = match self.enforceable(&agreement.policy, record.role) {
            Ok(model) => model,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let request = policy::Request {
            action: policy::transfer_action(&model).to_owned(),
            assignee: agreement.assignee.clone(),
            target: Some(agreement.target.to_string()),
        };
        let known = self.known_of(record, transfer, binding, uses).await?;
        if known.role == Role::Provider && known.dataset.is_none() {
            let gone = denied(format!("the dataset `{}` was withdrawn", agreement.target));
            return Ok(Err(gone.cure("another dataset: this one is not offered any more")));
        }
        let world = |at: Timestamp| World { duties: known.duties(&model, at), ..known.world(at) };
        let ask = |at: Timestamp| policy::evaluate(&model, &request, &world(at));
        let mut decision = ask(now);
        // What has ended is not decided again.
        if !transfer.state.name().is_terminal() {
            self.watch(record, transfer, decision.depends_on.clone());
        }
        if !decision.allowed && known.role == Role::Consumer && known.leaves_open(&decision, now) {
            // What the provider knows and we do not is the provider's to decide, and it decides before a byte leaves.
            // Where duties of ours are at stake we must know which permission it is: it is the only one.
            let world = world(now);
            let permissions = model.rules.iter().filter(|rule| rule.kind == RuleKind::Permission).count();
            let burdened = !policy::duties(&model).is_empty();
            if (permissions == 1 || !burdened) && policy::could_allow(&model, &request, &world) {
                let duties = all_due(&model, &world.duties);
                let allowed = Decision { allowed: true, valid_until: None, uses_max: None, duties, ..decision };
                return Ok(Ok((allowed, false)));
            }
        }
        if decision.allowed {
            // The end of one fact is the end of the permission only where nothing else carries it, on the same terms.
            for _ in 0..TURNS_MAX {
                let Some(until) = decision.valid_until else { break };
                let then = ask(until);
                if !then.allowed {
                    break;
                }
                if then.terms != decision.terms || duties_with(&then) != duties_with(&decision) {
                    return Ok(Ok((decision, true)));
                }
                decision.valid_until = then.valid_until;
            }
            return Ok(Ok((decision, false)));
        }
        let why: Vec<String> =
            decision.reasons.iter().map(|reason| format!("{}: {}", reason.path, reason.message)).collect();
        let mut refusal = denied(format!("the policy of agreement `{}` says no: {}", agreement.id, why.join("; ")));
        if decision.depends_on.contains("purpose") && transfer.purpose.is_empty() {
            refusal = refusal.cure(format!(
                "a transfer request that declares its purpose (member `{}`)",
                super::wire_format::PURPOSE
            ));
        }
        Ok(Err(refusal))
    }

    /// Notes what a transfer's permission rests on.
    fn watch(&self, record: &AgreementRecord, transfer: &Transfer, depends_on: BTreeSet<String>) {
        let AgreementRecord { agreement, .. } = record;
        let interest = Interest {
            agreement: agreement.id.clone(),
            assignee: agreement.assignee.clone(),
            dataset: agreement.target.clone(),
            depends_on,
        };
        self.interests().insert(transfer.id.clone(), interest);
    }

    /// What is known of a participant and a dataset before there is an agreement.
    pub(crate) async fn world_before(
        &self,
        peer: &ParticipantId,
        dataset: Option<&DatasetRecord>,
    ) -> Result<World, ControlError> {
        let now = self.now();
        let vocabulary = &self.parts.capabilities.vocabulary;
        let mut facts = Facts::default();
        let claims = self.parts.store.facts(&Subject::Participant(peer.clone())).await?;
        insert_all(&mut facts, FactSource::Peer, &claims, now, vocabulary);
        for (name, value) in dataset.iter().flat_map(|dataset| &dataset.labels) {
            insert(&mut facts, FactSource::Dataset, (name, value, None), vocabulary);
        }
        Ok(World { now, facts, ..World::default() })
    }

    /// Reads everything that a decision about a transfer may ask for.
    async fn known_of(
        &self,
        record: &AgreementRecord,
        transfer: &Transfer,
        binding: Option<&TokenBinding>,
        uses: u64,
    ) -> Result<Known, ControlError> {
        let store = &self.parts.store;
        let agreement = &record.agreement;
        let participant = Subject::Participant(agreement.assignee.clone());
        let of_agreement = Subject::Agreement(agreement.id.clone());
        let dataset = match record.role {
            Role::Provider => store.dataset(&agreement.target).await?.map(|dataset| dataset.value),
            Role::Consumer => None,
        };
        let violated = self.violations(&agreement.id).await?;
        Ok(Known {
            role: record.role,
            agreed_at: agreement.agreed_at,
            uses,
            bytes: store.quantity_taken(&agreement.id, Unit::Bytes).await?,
            records: store.quantity_taken(&agreement.id, Unit::Records).await?,
            claims: store.facts(&participant).await?,
            register: store.facts(&of_agreement).await?,
            events: store.facts(&Subject::Events).await?,
            states: store.facts(&Subject::States).await?,
            dataset,
            purpose: transfer.purpose.clone(),
            connector: binding.map(|binding| connector_names(&agreement.assignee, binding)),
            violated,
            vocabulary: self.parts.capabilities.vocabulary.clone(),
        })
    }

    /// The duties of an agreement that were not done and given up, each with the time of the latest.
    async fn violations(&self, agreement: &AgreementId) -> Result<BTreeMap<String, Timestamp>, ControlError> {
        let filter =
            DutyFilter { state: Some("violated"), agreement: Some(agreement.clone()), ..DutyFilter::default() };
        let mut latest: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut page = Page::largest();
        loop {
            let listing = self.parts.store.duties(&filter, &page).await?;
            for duty in listing.items.into_iter().map(|item| item.value) {
                if let DutyProgress::Violated { at, .. } = duty.state {
                    let known = latest.entry(duty.key).or_insert(at);
                    *known = at.max(*known);
                }
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return Ok(latest),
            }
        }
    }

    pub(crate) fn interests(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<ProcessId, Interest>> {
        self.interests.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How the certificate names the connector that the data goes to.
fn connector_names(participant: &ParticipantId, binding: &TokenBinding) -> Vec<String> {
    match binding {
        TokenBinding::Certificate { sha256 } => vec![participant.to_string(), format!("urn:sha256:{sha256}")],
        // A header proves no connector.
        TokenBinding::InsecureHeader => Vec::new(),
    }
}

/// What is known for one decision, at whatever instant it is asked.
struct Known {
    role: Role,
    agreed_at: Timestamp,
    uses: u64,
    bytes: u64,
    records: u64,
    claims: Vec<FactRecord>,
    register: Vec<FactRecord>,
    events: Vec<FactRecord>,
    states: Vec<FactRecord>,
    dataset: Option<DatasetRecord>,
    purpose: Vec<String>,
    connector: Option<Vec<String>>,
    violated: BTreeMap<String, Timestamp>,
    vocabulary: Vocabulary,
}

impl Known {
    fn world(&self, now: Timestamp) -> World {
        let mut facts = Facts::default();
        insert_all(&mut facts, FactSource::Peer, &self.claims, now, &self.vocabulary);
        insert_all(&mut facts, FactSource::AgreementRegister, &self.register, now, &self.vocabulary);
        for (operand, records) in [("event", &self.events), ("idsc:STATE", &self.states)] {
            // The provider's register says all there is; a consumer's own is silent until it says something.
            if self.role == Role::Consumer && records.is_empty() {
                continue;
            }
            let on: Vec<&FactRecord> = records.iter().filter(|fact| fact.holds_at(now)).collect();
            let names = FactValue::names(on.iter().map(|fact| fact.name.as_str()));
            match on.iter().filter_map(|fact| fact.valid_until).min() {
                Some(until) => facts.insert_until(operand, names, until),
                None => facts.insert(operand, names),
            }
        }
        for (name, value) in self.dataset.iter().flat_map(|dataset| &dataset.labels) {
            insert(&mut facts, FactSource::Dataset, (name, value, None), &self.vocabulary);
        }
        if !self.purpose.is_empty() {
            facts.insert("purpose", FactValue::names(&self.purpose));
        }
        if let Some(names) = self.connector.as_ref().filter(|names| !names.is_empty()) {
            facts.insert("idsc:CONNECTOR", FactValue::names(names));
        }
        World {
            now,
            agreed_at: Some(self.agreed_at),
            uses: Some(self.uses),
            bytes: Some(self.bytes),
            records: Some(self.records),
            facts,
            duties: DutyStates::default(),
        }
    }

    /// Whether a decision asked for what only the other side knows.
    fn leaves_open(&self, decision: &Decision, now: Timestamp) -> bool {
        let facts = self.world(now).facts;
        decision.depends_on.iter().any(|name| {
            let source = match operand(name) {
                Some(spec) => spec.source,
                None => self.vocabulary.operands.get(name).map(|defined| defined.source),
            };
            let theirs = matches!(
                source,
                Some(
                    FactSource::Peer
                        | FactSource::Dataset
                        | FactSource::Register
                        | FactSource::AgreementRegister
                        | FactSource::Connector
                )
            );
            theirs && facts.get(name).is_none()
        })
    }

    /// How far the duties of a policy are, their consequences included, by the agreement's register.
    fn duties(&self, model: &policy::Policy, now: Timestamp) -> DutyStates {
        let mut states = DutyStates::default();
        let duties = policy::duties(model);
        let alike = |wanted: &str| duties.iter().filter(|duty| fact_of(&duty.kind) == Some(wanted)).count();
        for duty in &duties {
            let by_key = self.register.iter().find(|fact| fact.name == duty.key.as_str());
            if let Some(given_up) = self.violated.get(duty.key.as_str()) {
                // What we gave up and the operator did by other means, after that, is done, late.
                let since = |fact: &&FactRecord| fact.since >= *given_up && fact.holds_at(now);
                let done = by_key.filter(since).is_some_and(|fact| fact.value == Value::Bool(true));
                let state = if done { DutyState::Late } else { DutyState::Violated };
                states.insert(duty.key.clone(), Standing { state, until: None });
                continue;
            }
            let Some(wanted) = fact_of(&duty.kind) else { continue };
            // The word stands for the only duty of its kind; where there are several, each has its key.
            let by_word = || self.register.iter().find(|fact| fact.name == wanted && alike(wanted) == 1);
            let found = by_key.or_else(by_word);
            if self.role == Role::Consumer && found.is_none() {
                // The provider keeps the register of payments and consents, and decides by it.
                states.insert(duty.key.clone(), Standing { state: DutyState::Fulfilled, until: None });
                continue;
            }
            if let Some(fact) = found.filter(|fact| fact.holds_at(now) && fulfils(&duty.kind, &fact.value)) {
                let standing = Standing { state: DutyState::Fulfilled, until: fact.valid_until };
                states.insert(duty.key.clone(), standing);
            }
        }
        states
    }
}

/// The duties of a policy's only permission, and its obligations, as they stand.
fn all_due(model: &policy::Policy, states: &DutyStates) -> Vec<DueDuty> {
    let first = model.rules.iter().flat_map(|rule| match rule.kind {
        RuleKind::Permission => rule.duties.iter().collect(),
        RuleKind::Obligation => vec![rule],
        RuleKind::Prohibition | RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => Vec::new(),
    });
    let due = |duty: &Rule| {
        let term = duty.term.as_ref()?;
        let state = states.get(&term.key).map_or(DutyState::Pending, |standing| standing.state);
        let (path, key, kind, when) = (duty.path.clone(), term.key.clone(), term.kind.clone(), term.when);
        Some(DueDuty { path, key, kind, when, state })
    };
    first.filter_map(due).collect()
}

/// Which duties come with a decision, and how far they are.
fn duties_with(decision: &Decision) -> BTreeSet<(&DutyKey, DutyState)> {
    decision.duties.iter().map(|duty| (&duty.key, duty.state)).collect()
}

fn insert_all(facts: &mut Facts, source: FactSource, records: &[FactRecord], now: Timestamp, vocabulary: &Vocabulary) {
    for fact in records.iter().filter(|fact| fact.holds_at(now)) {
        insert(facts, source, (&fact.name, &fact.value, fact.valid_until), vocabulary);
    }
}

fn insert(facts: &mut Facts, source: FactSource, fact: (&str, &Value, Option<Timestamp>), vocabulary: &Vocabulary) {
    let (name, value, until) = fact;
    let kind = match name {
        ASSIGNEE_COLLECTIONS | TARGET_COLLECTIONS => Kind::Names,
        name => match of_source(source, name, vocabulary) {
            Ok((_, kind)) => kind,
            // A fact about a duty, or one whose definition the settings no longer have.
            Err(_) => return,
        },
    };
    match (typed(&kind, value), until) {
        (Some(value), Some(until)) => facts.insert_until(name, value, until),
        (Some(value), None) => facts.insert(name, value),
        (None, _) => {}
    }
}

/// The fact of an agreement that fulfils a duty.
fn fact_of(kind: &DutyKind) -> Option<&'static str> {
    match kind {
        DutyKind::ObtainConsent { .. } => Some(CONSENT),
        DutyKind::Compensate { .. } => Some(PAYMENT),
        _ => None,
    }
}

/// Whether a fact says enough: the consent of every party that is named, the whole amount.
fn fulfils(kind: &DutyKind, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Bool(so)) => *so,
        (DutyKind::ObtainConsent { parties }, value) => {
            texts(value).is_some_and(|given| !parties.is_empty() && parties.iter().all(|party| given.contains(party)))
        }
        (DutyKind::Compensate { amount: Some(amount), .. }, Value::Number(paid)) => {
            paid.to_string().parse().is_ok_and(|paid| *amount <= paid)
        }
        _ => false,
    }
}

/// Of which kind the values of an operand are, as far as facts can have them.
enum Kind {
    Names,
    Level(Vec<String>),
    Number,
    Instant,
}

/// What a register may hold under a name: the canonical name, and the kind of its values.
fn known(subject: &Subject, name: &str, vocabulary: &Vocabulary) -> Result<(String, Kind), Refusal> {
    let wanted = match subject {
        Subject::Events | Subject::States => return Ok((canonical_name(name), Kind::Names)),
        Subject::Agreement(_) if is_duty(name) => return Ok((name.to_owned(), Kind::Names)),
        Subject::Participant(_) if name == ASSIGNEE_COLLECTIONS => return Ok((name.to_owned(), Kind::Names)),
        Subject::Participant(_) => FactSource::Peer,
        Subject::Agreement(_) => FactSource::AgreementRegister,
    };
    of_source(wanted, name, vocabulary)
}

/// Whether a fact of an agreement answers its duties: consent, payment, or one duty by its key.
fn is_duty(name: &str) -> bool {
    matches!(name, CONSENT | PAYMENT) || DutyKey::parse(name).is_ok()
}

/// A fact as somebody states it for a question about a policy: the canonical name of the operand, and the value read
/// from a text, with commas between several.
///
/// # Errors
/// [`Refusal`] where no policy asks for the name, or the value is none.
pub fn stated(name: &str, text: &str, vocabulary: &Vocabulary) -> Result<(String, FactValue), Refusal> {
    let collection = matches!(name, ASSIGNEE_COLLECTIONS | TARGET_COLLECTIONS);
    let found = if collection { Some((name.to_owned(), None, Some(Kind::Names))) } else { kind_of(name, vocabulary) };
    let Some((name, _, Some(kind))) = found else {
        let known = OPERANDS.iter().filter(|spec| spec.source.is_some()).map(|spec| spec.name);
        let all: Vec<&str> = known.chain(vocabulary.operands.keys().map(String::as_str)).collect();
        return Err(malformed(format!("no policy asks for the fact `{name}`"))
            .at("fact")
            .cure(format!("one of {}, {CONSENT}, {PAYMENT}", all.join(", "))));
    };
    let value = match kind {
        Kind::Names => Value::from(text.split(',').map(str::trim).collect::<Vec<_>>()),
        Kind::Level(_) | Kind::Number | Kind::Instant => Value::from(text),
    };
    match typed(&kind, &value) {
        Some(value) => Ok((name, value)),
        None => {
            Err(malformed(format!("`{text}` is no value of the fact `{name}`")).at("fact").cure("a value of its type"))
        }
    }
}

/// The duties of a policy that are fulfilled by what is stated under this word, `consent` or `payment`.
pub fn fulfilled_by(word: &str, model: &policy::Policy) -> Vec<DutyKey> {
    let duties = policy::duties(model).into_iter();
    duties.filter(|duty| fact_of(&duty.kind) == Some(word)).map(|duty| duty.key).collect()
}

/// The canonical name of an operand that facts answer, who knows them, and of which kind their values are.
fn kind_of(name: &str, vocabulary: &Vocabulary) -> Option<(String, Option<FactSource>, Option<Kind>)> {
    match operand(name) {
        Some(spec) => {
            let kind = match spec.kind {
                OperandKind::Names { .. } => Some(Kind::Names),
                OperandKind::Level(levels) => Some(Kind::Level(levels.iter().map(|&level| level.to_owned()).collect())),
                _ => None,
            };
            Some((spec.name.to_owned(), spec.source, kind))
        }
        None => vocabulary.operands.get(name).map(|defined| {
            let kind = match &defined.kind {
                DefinedKind::Names { .. } => Kind::Names,
                DefinedKind::Level { levels } => {
                    Kind::Level(levels.iter().map(|level| canonical_name(level)).collect())
                }
                DefinedKind::Number { .. } => Kind::Number,
                DefinedKind::Instant => Kind::Instant,
            };
            (canonical_operand(name), Some(defined.source), Some(kind))
        }),
    }
}

fn of_source(wanted: FactSource, name: &str, vocabulary: &Vocabulary) -> Result<(String, Kind), Refusal> {
    match kind_of(name, vocabulary) {
        Some((name, Some(source), Some(kind))) if source == wanted => Ok((name, kind)),
        Some((_, Some(source), _)) => Err(malformed(format!("`{name}` is known from {}", source.about()))
            .at("name")
            .by("SEMANTICS, facts by their source")
            .cure(names_of(wanted, vocabulary))),
        _ => Err(malformed(format!("no policy asks for `{name}`")).at("name").cure(names_of(wanted, vocabulary))),
    }
}

/// The names that would have passed.
fn names_of(source: FactSource, vocabulary: &Vocabulary) -> String {
    let own = vocabulary.operands.iter().filter(|(_, defined)| defined.source == source).map(|(name, _)| name.as_str());
    let known = OPERANDS.iter().filter(|spec| spec.source == Some(source)).map(|spec| spec.name);
    let duties =
        if source == FactSource::AgreementRegister { vec![CONSENT, PAYMENT, "the key of a duty"] } else { Vec::new() };
    let collections = (source == FactSource::Peer).then_some(ASSIGNEE_COLLECTIONS);
    let all: Vec<&str> = known.chain(own).chain(duties).chain(collections).collect();
    format!("one of {}", all.join(", "))
}

/// A value as the engine compares it; `None` where it is none of this kind.
fn typed(kind: &Kind, value: &Value) -> Option<FactValue> {
    match kind {
        Kind::Names => Some(FactValue::names(texts(value)?)),
        Kind::Level(levels) => {
            let level = canonical_name(value.as_str()?);
            levels.contains(&level).then_some(FactValue::Level(level))
        }
        // Read from its digits, so that no number is rounded on its way.
        Kind::Number => {
            let digits = match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) => text.clone(),
                _ => return None,
            };
            serde_json::from_value(serde_json::json!({ "number": digits })).ok()
        }
        Kind::Instant => value.as_str()?.parse().ok().map(FactValue::Instant),
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Checks a fact and brings its name into the spelling under which it is kept.
fn checked(mut fact: FactRecord, vocabulary: &Vocabulary) -> Result<FactRecord, Refusal> {
    text(&fact.name, "name")?;
    let (name, kind) = known(&fact.subject, &fact.name, vocabulary)?;
    let plain = match &fact.subject {
        Subject::Events | Subject::States => fact.value == Value::Bool(true),
        Subject::Agreement(_) if is_duty(&name) => match &fact.value {
            Value::Bool(true) | Value::Number(_) => true,
            value => texts(value).is_some(),
        },
        Subject::Agreement(_) | Subject::Participant(_) => typed(&kind, &fact.value).is_some(),
    };
    if !plain {
        let cure = match (&fact.subject, kind) {
            (Subject::Events | Subject::States, _) => "`true`; what is not so is deleted".to_owned(),
            (Subject::Agreement(_), _) if is_duty(&name) => {
                "`true`, the amount that was paid, or the parties that consented; what is not so is deleted".to_owned()
            }
            (_, Kind::Names) => "a text, or an array of texts".to_owned(),
            (_, Kind::Level(levels)) => format!("one of {}", levels.join(", ")),
            (_, Kind::Number) => "a number".to_owned(),
            (_, Kind::Instant) => "an instant, such as `2030-01-01T00:00:00Z`".to_owned(),
        };
        return Err(malformed(format!("{} is no value of `{name}`", fact.value)).at("value").cure(cure));
    }
    for one in texts(&fact.value).unwrap_or_default() {
        text(&one, "value")?;
    }
    if fact.value.as_array().is_some_and(|all| all.len() > FACT_VALUES_MAX) {
        let message = format!("more than {FACT_VALUES_MAX} values for one fact");
        return Err(malformed(message).at("value").cure(format!("at most {FACT_VALUES_MAX}")));
    }
    if fact.note.len() > FACT_TEXT_BYTES_MAX {
        return Err(malformed("the note is too long").at("note").cure(format!("at most {FACT_TEXT_BYTES_MAX} bytes")));
    }
    fact.name = name;
    Ok(fact)
}

/// Checks the labels of a dataset, and brings their names into one spelling.
///
/// # Errors
/// [`Refusal`] that names the label at fault.
pub fn checked_labels(
    labels: BTreeMap<String, Value>,
    vocabulary: &Vocabulary,
) -> Result<BTreeMap<String, Value>, Refusal> {
    if labels.len() > FACTS_PER_SUBJECT_MAX {
        let cure = format!("at most {FACTS_PER_SUBJECT_MAX}");
        return Err(malformed("too many labels").at("labels").cure(cure));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in labels {
        let field = format!("labels.{name}");
        let kind = if name == TARGET_COLLECTIONS {
            Kind::Names
        } else {
            of_source(FactSource::Dataset, &name, vocabulary).map_err(|refusal| refusal.at(&*field))?.1
        };
        let few = value.as_array().is_none_or(|all| all.len() <= FACT_VALUES_MAX);
        if typed(&kind, &value).is_none() || !few {
            return Err(malformed(format!("{value} is no value of `{name}`")).at(field).cure("a text, or some texts"));
        }
        for one in texts(&value).unwrap_or_default() {
            text(&one, &field)?;
        }
        checked.insert(if name == TARGET_COLLECTIONS { name } else { canonical_operand(&name) }, value);
    }
    Ok(checked)
}

fn text(text: &str, field: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > FACT_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("`{field}` is empty, too long, or has control characters");
        return Err(malformed(message).at(field).cure(format!("1 to {FACT_TEXT_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Fault::Malformed, "fact.malformed", message)
}

fn words(fact: &FactRecord) -> String {
    let until = fact.valid_until.map(|until| format!(" until {until}")).unwrap_or_default();
    let note = if fact.note.is_empty() { String::new() } else { format!(": {}", fact.note) };
    format!("`{}` is {}{until}{note}", fact.name, fact.value)
}

fn line(at: Timestamp, subject: &Subject, event: &str, detail: String) -> AuditRecord {
    let (counterparty, agreement, about) = match subject {
        Subject::Participant(participant) => (Some(participant.clone()), None, format!("participant `{participant}`")),
        Subject::Agreement(agreement) => (None, Some(agreement.clone()), format!("agreement `{agreement}`")),
        Subject::Events => (None, None, "event".to_owned()),
        Subject::States => (None, None, "state".to_owned()),
    };
    AuditRecord {
        at,
        process: None,
        counterparty,
        agreement,
        event: event.to_owned(),
        detail: format!("{about}: {detail}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn participant() -> Subject {
        Subject::Participant(ParticipantId::parse("urn:them").unwrap())
    }

    fn agreement() -> Subject {
        Subject::Agreement(AgreementId::parse("urn:agreement").unwrap())
    }

    fn check(subject: Subject, name: &str, value: Value) -> Result<FactRecord, Refusal> {
        let (since, name) = (Timestamp::UNIX_EPOCH, name.to_owned());
        let own = json!({ "operands": {
            "urn:own:staff": { "about": "people", "kind": { "number": {} }, "source": "peer" },
            "urn:own:rating": { "about": "rating", "kind": { "level": { "levels": ["urn:c", "urn:b", "urn:a"] } }, "source": "agreement-register" },
        } });
        let vocabulary: Vocabulary = serde_json::from_value(own).unwrap();
        checked(FactRecord { subject, name, value, since, valid_until: None, note: String::new() }, &vocabulary)
    }

    #[test]
    fn facts_have_the_names_and_kinds_that_policies_ask_for() {
        for (subject, name, value, kept) in [
            (participant(), "spatial", json!("urn:place:de"), "spatial"),
            (participant(), "http://www.w3.org/ns/odrl/2/spatial", json!(["urn:place:de", "urn:place:fr"]), "spatial"),
            (participant(), "idsc:SECURITY_LEVEL", json!("idsc:TRUST_SECURITY_PROFILE"), "idsc:SECURITY_LEVEL"),
            (participant(), "urn:own:staff", json!(12.5), "urn:own:staff"),
            (participant(), "assignee.partOf", json!("urn:club"), "assignee.partOf"),
            (agreement(), "consent", json!(true), "consent"),
            (agreement(), "payment", json!(120.5), "payment"),
            (agreement(), &"0a".repeat(32), json!(true), &"0a".repeat(32)),
            (agreement(), "urn:own:rating", json!("urn:b"), "urn:own:rating"),
            (Subject::Events, "urn:event:fair", json!(true), "urn:event:fair"),
        ] {
            assert_eq!(check(subject, name, value).unwrap().name, kept);
        }
    }

    #[test]
    fn a_fact_that_no_policy_could_ask_for_is_refused_with_what_would_have_passed() {
        for (subject, name, value, field, cure) in [
            (participant(), "colour", json!("red"), "name", "spatial"),
            (participant(), "purpose", json!("urn:p"), "name", "spatial"),
            (participant(), "", json!("red"), "name", "bytes of text"),
            (participant(), "spatial", json!(1), "value", "array of texts"),
            (participant(), "spatial", json!(false), "value", "array of texts"),
            (participant(), "spatial", json!("a\nb"), "value", "bytes of text"),
            (participant(), "spatial", json!(vec!["urn:p"; FACT_VALUES_MAX + 1]), "value", "64"),
            (participant(), "idsc:SECURITY_LEVEL", json!("urn:high"), "value", "idsc:TRUST_SECURITY_PROFILE"),
            (participant(), "urn:own:staff", json!("many"), "value", "a number"),
            (agreement(), "spatial", json!("urn:place:de"), "name", "consent"),
            (agreement(), "consent", json!(false), "value", "`true`"),
            (Subject::States, "urn:state:open", json!("yes"), "value", "`true`"),
        ] {
            let refusal = check(subject, name, value.clone()).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{name}: {value}: {refusal:?}");
            assert!(refusal.cure.as_ref().is_some_and(|words| words.contains(cure)), "{name}: {value}: {refusal:?}");
        }
    }

    fn fact(subject: Subject, name: &str, value: Value, until: Option<i64>) -> FactRecord {
        let valid_until = until.map(|second| Timestamp::from_second(second).unwrap());
        FactRecord {
            subject,
            name: name.to_owned(),
            value,
            since: Timestamp::UNIX_EPOCH,
            valid_until,
            note: String::new(),
        }
    }

    fn known() -> Known {
        Known {
            role: Role::Provider,
            agreed_at: Timestamp::UNIX_EPOCH,
            uses: 1,
            bytes: 0,
            records: 0,
            claims: vec![fact(participant(), "spatial", json!("urn:place:de"), Some(10))],
            register: Vec::new(),
            events: vec![
                fact(Subject::Events, "urn:event:fair", json!(true), Some(20)),
                fact(Subject::Events, "urn:event:flood", json!(true), None),
            ],
            states: Vec::new(),
            dataset: None,
            purpose: Vec::new(),
            connector: None,
            violated: BTreeMap::new(),
            vocabulary: Vocabulary::default(),
        }
    }

    #[test]
    fn a_fact_is_known_until_its_end_and_unknown_from_then_on() {
        let at = |second: i64| known().world(Timestamp::from_second(second).unwrap()).facts;
        assert_eq!(at(9).get("spatial").unwrap().until, Some(Timestamp::from_second(10).unwrap()));
        assert_eq!(at(10).get("spatial"), None);
        assert_eq!(at(19).get("event").unwrap().value, FactValue::names(["urn:event:fair", "urn:event:flood"]));
        assert_eq!(at(20).get("event").unwrap().value, FactValue::names(["urn:event:flood"]));
        // That no state holds is known; what the consumer wants the data for is not.
        assert_eq!(at(0).get("idsc:STATE").unwrap().value, FactValue::names([""; 0]));
        assert_eq!(at(0).get("purpose"), None);
    }

    #[test]
    fn payment_and_consent_fulfil_what_they_cover_and_nothing_more() {
        let pay = |amount: &str| -> DutyKind {
            let value = json!({ "compensate": { "amount": amount, "unit": null, "frequency": "once", "party": null } });
            serde_json::from_value(value).unwrap()
        };
        assert!(fulfils(&pay("120.50"), &json!(true)) && fulfils(&pay("120.50"), &json!(120.5)));
        assert!(!fulfils(&pay("120.50"), &json!(120.49)) && !fulfils(&pay("120.50"), &json!("urn:them")));
        let consent = DutyKind::ObtainConsent { parties: vec!["urn:a".to_owned(), "urn:b".to_owned()] };
        assert!(fulfils(&consent, &json!(["urn:b", "urn:a", "urn:c"])) && fulfils(&consent, &json!(true)));
        assert!(!fulfils(&consent, &json!("urn:a")));
    }

    #[test]
    fn a_change_touches_the_transfers_that_rested_on_it() {
        let interest = Interest {
            agreement: AgreementId::parse("urn:agreement").unwrap(),
            assignee: ParticipantId::parse("urn:them").unwrap(),
            dataset: DatasetId::parse("urn:data").unwrap(),
            depends_on: BTreeSet::from(["spatial".to_owned(), "event".to_owned()]),
        };
        let facts = |subject: Subject, name: &str| Change::Facts(subject, BTreeSet::from([name.to_owned()]));
        let other = Subject::Participant(ParticipantId::parse("urn:others").unwrap());
        for (change, touches) in [
            (facts(participant(), "spatial"), true),
            (facts(participant(), "industry"), false),
            (facts(other, "spatial"), false),
            (facts(agreement(), "consent"), true),
            (facts(Subject::Events, "urn:event:fair"), true),
            (facts(Subject::States, "urn:state:open"), false),
            (Change::Labels(DatasetId::parse("urn:data").unwrap()), true),
            (Change::Labels(DatasetId::parse("urn:data:2").unwrap()), false),
        ] {
            assert_eq!(interest.touched_by(&change), touches, "{change:?}");
        }
    }
}
