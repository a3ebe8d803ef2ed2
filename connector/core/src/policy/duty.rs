//! Duties: what must be done before, during or after a use, and how far it is.
//!
//! A duty is known by its [`DutyKey`], the digest of its normal form, so that provider and consumer, and the register
//! that keeps its state, speak of the same one.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::literal::{self, Duration};
use super::model::{Atomic, Constraint, Operator, Policy, Rule, RuleKind, Thing};
use super::normalise::{duty_text, hex_digest, rule_text};
use super::operand::canonical_name;
use super::permit::{FieldPath, Transform};

/// Which duty of a policy: the SHA-256 of its normal form, as lower-case hexadecimal. Duties that mean the same have
/// the same key, wherever they stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DutyKey(pub(super) String);

impl DutyKey {
    /// Which prohibition: the same for those that mean the same.
    pub(super) fn of_prohibition(rule: &Rule) -> Self {
        Self(hex_digest(&rule_text(rule)))
    }

    /// The digest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that was stored.
    ///
    /// # Errors
    /// The text, where it is not the hexadecimal form of a SHA-256.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == 64 && text.chars().all(hex) { Ok(Self(text.to_owned())) } else { Err(text) }
    }
}

impl fmt::Display for DutyKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// When a duty is to be done, seen from the use that it hangs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Before it: what is not fulfilled forbids the use.
    Before,
    /// While it goes on: the connector does it, or does not let the use go on.
    During,
    /// After it: the use leaves the duty behind.
    After,
}

impl When {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// How far a duty is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DutyState {
    /// Not done, and still to be done in time.
    #[default]
    Pending,
    /// Done.
    Fulfilled,
    /// Not done in time: nothing is allowed until it is done all the same, and its consequences too.
    Violated,
    /// Done after its time: good only together with its consequences.
    Late,
}

/// A duty's state, and until when it is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: DutyState,
    /// The first instant at which it is pending again, as a rent that is paid until then. `None`: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The states of duties, as facts. A duty that is not here is pending.
///
/// A prohibition that was infringed is here as [`DutyState::Violated`], by the key that
/// [`Rule::infringement`] has; in any other state, and where it is not here, it was not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DutyStates(BTreeMap<DutyKey, Standing>);

impl DutyStates {
    /// The same states and one more.
    #[must_use]
    pub fn with(mut self, key: DutyKey, state: DutyState) -> Self {
        self.insert(key, Standing { state, until: None });
        self
    }

    /// Sets the state of a duty.
    pub fn insert(&mut self, key: DutyKey, standing: Standing) {
        self.0.insert(key, standing);
    }

    /// The state of a duty, where one was recorded.
    #[must_use]
    pub fn get(&self, key: &DutyKey) -> Option<Standing> {
        self.0.get(key).copied()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When data must be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// As soon as the use is over.
    Immediately,
    /// At the latest at an instant.
    At(Timestamp),
    /// At the latest so long after the use, by the calendar in UTC.
    Within(Duration),
}

/// How often a payment is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequency {
    /// Once.
    Once,
    /// Again after each such span.
    Every(Duration),
}

/// What a duty asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DutyKind {
    /// Pay (`compensate`).
    Compensate {
        /// How much, where it is said.
        #[serde(default, with = "rust_decimal::serde::str_option")]
        amount: Option<Decimal>,
        /// In which currency, where it is said.
        unit: Option<String>,
        /// How often.
        frequency: Frequency,
        /// To whom, where it is said.
        party: Option<String>,
    },
    /// Have the consent of these parties; of the assigner where there is none (`obtainConsent`).
    ObtainConsent {
        /// The parties, sorted.
        parties: Vec<String>,
    },
    /// Record the use (`idsc:LOG`).
    Log {
        /// In which system; in the connector's own record where none is named.
        target: Option<String>,
    },
    /// Tell a party of the use (`inform`, `idsc:NOTIFY`).
    Inform {
        /// Whom, sorted; the assigner where there is none.
        parties: Vec<String>,
    },
    /// Delete the data (`delete`).
    Delete {
        /// When.
        after: Deadline,
    },
    /// Pass the data on only under this policy (`nextPolicy`).
    NextPolicy {
        /// Its IRI.
        policy: String,
    },
    /// Change the data on its way.
    Transform(Transform),
    /// A use was counted: what `count` does by itself (`idsc:INCREMENT_COUNTER`).
    Count,
    /// Something else, which is not carried out here.
    Other {
        /// The action.
        action: String,
    },
}

/// A duty that comes with a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueDuty {
    /// JSON path of the duty.
    pub path: String,
    /// Which duty.
    pub key: DutyKey,
    /// What it asks for.
    pub kind: DutyKind,
    /// When.
    pub when: When,
    /// How far it is.
    pub state: DutyState,
}

/// Every duty of which a decision under a policy may ask how far it is, each once: those of permissions, obligations,
/// and what follows where something was not done or was infringed. All are pending here. Whoever hands in states hands
/// in those of these, and not of the duties alone that come with one decision: a denial brings those for want of which
/// it is one, and another may be overdue.
#[must_use]
pub fn duties(policy: &Policy) -> Vec<DueDuty> {
    fn collect(rule: &Rule, found: &mut BTreeMap<DutyKey, DueDuty>) {
        if let Some(DutyTerm { kind, when, key }) = &rule.term {
            let (path, kind) = (rule.path.clone(), kind.clone());
            let due = DueDuty { path, key: key.clone(), kind, when: *when, state: DutyState::Pending };
            found.entry(key.clone()).or_insert(due);
        }
        rule.duties.iter().for_each(|duty| collect(duty, found));
    }
    let mut found = BTreeMap::new();
    policy.rules.iter().for_each(|rule| collect(rule, &mut found));
    found.into_values().collect()
}

/// What a duty asks for and when, read from its rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DutyTerm {
    /// What.
    pub kind: DutyKind,
    /// When.
    pub when: When,
    /// Which.
    pub key: DutyKey,
}

impl DutyTerm {
    /// Reads a duty. What is not understood whole is [`DutyKind::Other`].
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let (kind, when) = Self::read(rule);
        let key = DutyKey(hex_digest(&duty_text(rule, &kind, when)));
        Self { kind, when, key }
    }

    fn read(rule: &Rule) -> (DutyKind, When) {
        let other = (DutyKind::Other { action: rule.action.to_owned() }, When::Before);
        let Some((said, conditions)) = said_when(&rule.constraints) else { return other };
        // A duty that is due only under conditions is due always here: that is the stricter reading, but not the same.
        if conditions > 0 {
            return other;
        }
        let Some(kind) = kind(rule) else { return other };
        let when = match (&kind, said) {
            (DutyKind::Compensate { .. } | DutyKind::ObtainConsent { .. }, None | Some(When::Before)) => When::Before,
            // A bill: the use leaves the payment behind, and nothing is allowed once it is overdue.
            (DutyKind::Compensate { .. }, Some(When::After)) => When::After,
            (DutyKind::Transform(_), None | Some(When::Before | When::During)) => When::During,
            (DutyKind::Log { .. } | DutyKind::Inform { .. }, None | Some(_)) => said.unwrap_or(When::After),
            (DutyKind::Delete { .. } | DutyKind::Count, None | Some(When::After)) => When::After,
            // The policy is passed on before the data is: with the use that hands it on.
            (DutyKind::NextPolicy { .. }, None | Some(_)) => When::After,
            _ => return other,
        };
        (kind, when)
    }
}

/// When a duty says that it is to be done (`event` against `policyUsage`), and how many other conditions it has.
/// `None` where it says two things.
fn said_when(constraints: &[Constraint]) -> Option<(Option<When>, usize)> {
    let (mut said, mut others) = (None, 0);
    for constraint in constraints {
        match constraint {
            Constraint::Atomic(atomic) if is_policy_usage(atomic) => {
                let when = match atomic.operator {
                    Operator::Lt => When::Before,
                    Operator::Eq => When::During,
                    Operator::Gt => When::After,
                    Operator::Gteq
                    | Operator::Lteq
                    | Operator::Neq
                    | Operator::IsA
                    | Operator::HasPart
                    | Operator::IsPartOf
                    | Operator::IsAllOf
                    | Operator::IsAnyOf
                    | Operator::IsNoneOf => return None,
                };
                if said.is_some_and(|said| said != when) {
                    return None;
                }
                said = Some(when);
            }
            Constraint::Atomic(_) | Constraint::Logical(_) => others += 1,
        }
    }
    Some((said, others))
}

fn is_policy_usage(atomic: &Atomic) -> bool {
    let value = atomic.right.first().map(|value| value.text.as_str());
    atomic.left == "event"
        && atomic.right.len() == 1
        && matches!(value, Some("policyUsage" | "odrl:policyUsage" | "http://www.w3.org/ns/odrl/2/policyUsage"))
}

/// The parameters of a duty: each named once, by `eq` and one value.
fn parameters<'a>(rule: &'a Rule, known: &[&str]) -> Option<BTreeMap<&'a str, &'a Atomic>> {
    let mut found = BTreeMap::new();
    for refinement in &rule.action_refinements {
        let Constraint::Atomic(atomic) = refinement else { return None };
        let fits = known.contains(&atomic.left.as_ref()) && atomic.right.len() == 1;
        if !fits || found.insert(atomic.left.as_ref(), atomic).is_some() {
            return None;
        }
    }
    Some(found)
}

fn text<'a>(parameters: &BTreeMap<&str, &'a Atomic>, name: &str) -> Option<Option<&'a str>> {
    match parameters.get(name) {
        None => Some(None),
        Some(atomic) if atomic.operator == Operator::Eq && atomic.unit.is_none() => {
            Some(atomic.right.first().map(|value| value.text.as_str()))
        }
        Some(_) => None,
    }
}

/// The parties of one function, sorted; `None` where there are others, or collections.
fn parties(rule: &Rule, functions: &[&str]) -> Option<Vec<String>> {
    let mut ids = Vec::new();
    for (function, party) in &rule.parties {
        if !functions.contains(function) {
            return None;
        }
        ids.push(party.as_one()?.to_owned());
    }
    ids.sort();
    ids.dedup();
    Some(ids)
}

/// On which decisions something is recorded or told: only those that allow are understood.
fn on_allow(parameters: &BTreeMap<&str, &Atomic>, name: &str) -> bool {
    match text(parameters, name) {
        Some(None) => true,
        Some(Some(level)) => canonical_name(level) == "idsc:ON_ALLOW",
        None => false,
    }
}

fn kind(rule: &Rule) -> Option<DutyKind> {
    // A duty of somebody else, or on something else, is another duty.
    let target = rule.target.as_ref().map(Thing::as_one);
    if rule.assigner.is_some() || rule.assignee.is_some() {
        return (rule.kind == RuleKind::Obligation).then(|| kind_of(rule, None)).flatten();
    }
    match (rule.action, target) {
        ("nextPolicy", Some(policy)) => kind_of(rule, policy),
        (_, None) => kind_of(rule, None),
        (_, Some(_)) => (rule.kind == RuleKind::Obligation).then(|| kind_of(rule, None)).flatten(),
    }
}

fn kind_of(rule: &Rule, target: Option<&str>) -> Option<DutyKind> {
    let no_parties = || parties(rule, &[]).map(|_| ());
    Some(match rule.action {
        "compensate" => compensate(rule)?,
        "obtainConsent" => {
            parameters(rule, &[])?;
            DutyKind::ObtainConsent { parties: parties(rule, &["consentingParty", "consentedParty"])? }
        }
        "idsc:LOG" => {
            no_parties()?;
            let given = parameters(rule, &["idsc:LOG_LEVEL", "systemDevice"])?;
            on_allow(&given, "idsc:LOG_LEVEL").then_some(())?;
            DutyKind::Log { target: text(&given, "systemDevice")?.map(str::to_owned) }
        }
        "inform" => {
            let given = parameters(rule, &["idsc:NOTIFICATION_LEVEL", "recipient"])?;
            on_allow(&given, "idsc:NOTIFICATION_LEVEL").then_some(())?;
            let mut parties = parties(rule, &["informedParty"])?;
            parties.extend(text(&given, "recipient")?.map(str::to_owned));
            parties.sort();
            parties.dedup();
            DutyKind::Inform { parties }
        }
        "delete" => {
            no_parties()?;
            DutyKind::Delete { after: deadline(rule)? }
        }
        "nextPolicy" => {
            no_parties()?;
            let given = parameters(rule, &["idsc:TARGET_POLICY"])?;
            let policy = match (text(&given, "idsc:TARGET_POLICY")?, target) {
                (Some(policy), None) | (None, Some(policy)) => policy,
                _ => return None,
            };
            DutyKind::NextPolicy { policy: policy.to_owned() }
        }
        "idsc:INCREMENT_COUNTER" => {
            no_parties()?;
            parameters(rule, &[])?;
            DutyKind::Count
        }
        _ => {
            no_parties()?;
            DutyKind::Transform(transform(rule)?)
        }
    })
}

fn compensate(rule: &Rule) -> Option<DutyKind> {
    let given = parameters(rule, &["payAmount", "timeInterval"])?;
    let mut payees = parties(rule, &["compensatedParty"])?;
    (payees.len() < 2).then_some(())?;
    let (mut amount, mut unit) = (None, None);
    if let Some(atomic) = given.get("payAmount") {
        (atomic.operator == Operator::Eq).then_some(())?;
        let number: Decimal = atomic.right.first()?.text.parse().ok()?;
        amount = Some(number.normalize());
        unit = atomic.unit.clone();
    }
    let frequency = match text(&given, "timeInterval")? {
        None => Frequency::Once,
        Some(span) => Frequency::Every(literal::duration(span).ok()?),
    };
    Some(DutyKind::Compensate { amount, unit, frequency, party: payees.pop() })
}

fn deadline(rule: &Rule) -> Option<Deadline> {
    let given = parameters(rule, &["dateTime", "delayPeriod", "elapsedTime"])?;
    let mut all = given.into_iter();
    let Some((operand, atomic)) = all.next() else { return Some(Deadline::Immediately) };
    if all.next().is_some() || !matches!(atomic.operator, Operator::Eq | Operator::Lteq) || atomic.unit.is_some() {
        return None;
    }
    let value = atomic.right.first()?.text.as_str();
    Some(match operand {
        "dateTime" => Deadline::At(literal::instant(value).ok()?),
        _ => Deadline::Within(literal::duration(value).ok()?),
    })
}

fn transform(rule: &Rule) -> Option<Transform> {
    let given = parameters(rule, &["idsc:PATH", "idsc:REPLACE_WITH", "idsc:OPERAND"])?;
    let field = || text(&given, "idsc:PATH")??.parse::<FieldPath>().ok();
    let with = text(&given, "idsc:REPLACE_WITH")?;
    let number = || text(&given, "idsc:OPERAND")??.parse::<Decimal>().ok().map(|number| number.normalize());
    let lacks = |name: &str| !given.contains_key(name);
    Some(match rule.action {
        "idsc:REPLACE" if lacks("idsc:OPERAND") => Transform::Replace { field: field()?, with: with?.to_owned() },
        "idsc:HASH" if given.len() == 1 => Transform::Hash { field: field()? },
        "idsc:DROP" | "anonymize" if given.len() == 1 => Transform::Drop { fields: vec![field()?] },
        "idsc:ROUND" if given.len() == 2 => Transform::Round { field: field()?, to: number()? },
        "idsc:ADD" if given.len() == 2 => Transform::Add { field: field()?, by: number()? },
        "idsc:MULTIPLY" if given.len() == 2 => Transform::Multiply { field: field()?, by: number()? },
        _ => return None,
    })
}
