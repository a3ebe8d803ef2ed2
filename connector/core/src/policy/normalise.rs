//! The normal form: what two policies have in common when they mean the same.
//!
//! Order, repetition, nesting of `and` in `and`, spelling of values, and whether something is
//! said once for the policy or in each rule make no difference. Identifiers, type, parties,
//! target and timestamp of the policy as a whole are no terms: an offer and the agreement made
//! from it have the same normal form.

use std::collections::BTreeSet;

use kontor_vocab::odrl::PolicyDocument;
use sha2::{Digest, Sha256};

use super::conflict;
use super::duty::{DutyKind, When};
use super::enforce::refusal;
use super::evaluate::wanted;
use super::model::{Ask, Atomic, Conflict, Constraint, Logical, LogicalOperand, Policy, Rule, Test, Thing};
use super::operand::Vocabulary;
use super::parse::parse_with;
use crate::refusal::{Fault, Refusal};

/// SHA-256 over the normal form, as lower-case hexadecimal: two policies that mean the same have
/// the same digest. `@id`, `@type`, parties, target and timestamp are left out, so that an offer
/// and the agreement made from it agree.
#[must_use]
pub fn terms_digest(policy: &Policy) -> String {
    let normal = Normal::of(policy, None);
    let mut text = String::from("kontor-terms-1\n");
    for line in normal.frame.iter().cloned().chain(normal.rules.into_iter().map(|rule| rule.text())) {
        text.push_str(&line);
        text.push('\n');
    }
    hex_digest(&text)
}

/// SHA-256 as lower-case hexadecimal.
pub(super) fn hex_digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A duty in normal form: what it asks for and when, however it was written, with its consequences. A duty that is
/// not understood is what was written.
pub(super) fn duty_text(rule: &Rule, kind: &DutyKind, when: When) -> String {
    if matches!(kind, DutyKind::Other { .. }) {
        return normal_rule(rule, None).text();
    }
    let kind = serde_json::to_string(kind).unwrap_or_default();
    let consequences: BTreeSet<String> = rule.duties.iter().map(rule_text).collect();
    format!("{}<{}>{kind}{}", rule.kind.member(), when.as_str(), list(consequences))
}

/// Whether an agreement's terms are those of the offer.
///
/// # Errors
/// [`Refusal`] with fault `Altered`, naming the first difference and its place; with the fault of
/// the problem where either is no policy.
pub fn same_terms(offer: &PolicyDocument, agreement: &PolicyDocument) -> Result<(), Refusal> {
    same_terms_with(offer, agreement, &Vocabulary::default())
}

/// As [`same_terms`], with an operator's own terms.
///
/// # Errors
/// As [`same_terms`].
pub fn same_terms_with(
    offer: &PolicyDocument,
    agreement: &PolicyDocument,
    vocabulary: &Vocabulary,
) -> Result<(), Refusal> {
    let offer = parse_with(offer, vocabulary).map_err(|problems| refusal(&problems))?;
    let agreement = parse_with(agreement, vocabulary).map_err(|problems| refusal(&problems))?;
    let agreed = Normal::of(&agreement, None);
    // An offer names in its rules what the agreement names as a whole: read it with the agreement's parties.
    let offered = Normal::of(&offer, Some(&agreement));
    match difference(&offered, &agreed) {
        None => Ok(()),
        Some((path, message)) => Err(Refusal::new(Fault::Altered, "policy.altered", message)
            .at(path)
            .by("DSP 2025-1, Contract Negotiation: an agreement is made on the terms of its offer")
            .cure("the terms of the offer, unchanged")),
    }
}

/// What a policy says beside its rules and its conflict strategy: profiles, parents.
pub(super) fn frame(policy: &Policy) -> [String; 2] {
    let [profiles, _, parents] = Normal::of(policy, None).frame;
    [profiles, parents]
}

/// A rule with all that hangs from it, in normal form.
pub(super) fn rule_text(rule: &Rule) -> String {
    match &rule.term {
        Some(term) => duty_text(rule, &term.kind, term.when),
        None => normal_rule(rule, None).text(),
    }
}

/// The first difference between two sets of terms, with its place.
fn difference(offered: &Normal, agreed: &Normal) -> Option<(String, String)> {
    for (path, (before, after)) in
        ["profile", "conflict", "inheritFrom"].iter().zip(offered.frame.iter().zip(&agreed.frame))
    {
        if before != after {
            return Some(((*path).to_owned(), format!("`{path}` is not what was offered")));
        }
    }
    if let Some(added) = agreed.rules.iter().find(|rule| !offered.rules.contains(rule)) {
        // A rule of the same kind on the same action that the agreement lacks is what it was made from.
        let origin = offered.rules.iter().find(|rule| rule.head == added.head && !agreed.rules.contains(rule));
        let Some(origin) = origin else {
            return Some((added.path.clone(), "this rule was not offered".to_owned()));
        };
        if let Some(condition) = added.conditions.iter().find(|condition| !origin.conditions.contains(condition)) {
            let message = format!("this condition was not offered: {}", condition.words);
            return Some((condition.path.clone(), message));
        }
        if let Some(condition) = origin.conditions.iter().find(|condition| !added.conditions.contains(condition)) {
            let message =
                format!("a condition of the offer is missing: {} (there at `{}`)", condition.words, condition.path);
            return Some((added.path.clone(), message));
        }
        return Some((added.path.clone(), "this rule has other duties than the one offered".to_owned()));
    }
    let missing = offered.rules.iter().find(|rule| !agreed.rules.contains(rule))?;
    let member = missing.path.split('[').next().unwrap_or_default().to_owned();
    Some((member, format!("a rule of the offer is missing (there at `{}`)", missing.path)))
}

/// A policy in normal form.
struct Normal {
    /// Profiles, conflict strategy, parents.
    frame: [String; 3],
    rules: BTreeSet<NormalRule>,
}

/// A rule in normal form. Where it came from is no part of what it is.
struct NormalRule {
    head: String,
    conditions: BTreeSet<Condition>,
    duties: BTreeSet<String>,
    path: String,
}

/// A condition in normal form.
struct Condition {
    text: String,
    words: String,
    path: String,
}

impl NormalRule {
    fn text(&self) -> String {
        let conditions: Vec<&str> = self.conditions.iter().map(|condition| condition.text.as_str()).collect();
        let duties: Vec<&str> = self.duties.iter().map(String::as_str).collect();
        format!("{{{}[{}][{}]}}", self.head, conditions.join(","), duties.join(","))
    }

    fn key(&self) -> (&str, &BTreeSet<Condition>, &BTreeSet<String>) {
        (&self.head, &self.conditions, &self.duties)
    }
}

macro_rules! compared_by {
    ($type:ty, $key:expr) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                let key = $key;
                key(self).cmp(&key(other))
            }
        }
    };
}

compared_by!(NormalRule, Self::key);
compared_by!(Condition, |condition: &Condition| condition.text.clone());

/// What is said once for all rules, and therefore not in each.
struct Shared {
    target: Option<String>,
    assigner: Option<String>,
    assignee: Option<String>,
}

impl Shared {
    fn of(policy: &Policy, fallback: Option<&Policy>) -> Self {
        let pick = |whole: fn(&Policy) -> &Option<String>, each: fn(&Rule) -> &Option<Thing>| {
            let everywhere = |policy: &Policy| {
                let first = policy.rules.first().and_then(|rule| each(rule).as_ref())?;
                let all = policy.rules.iter().all(|rule| each(rule).as_ref() == Some(first));
                first.as_one().filter(|_| all).map(str::to_owned)
            };
            let own = whole(policy).clone();
            own.or_else(|| fallback.and_then(|policy| whole(policy).clone())).or_else(|| everywhere(policy))
        };
        Self {
            target: pick(|policy| &policy.target, |rule| &rule.target),
            assigner: pick(|policy| &policy.assigner, |rule| &rule.assigner),
            assignee: pick(|policy| &policy.assignee, |rule| &rule.assignee),
        }
    }
}

impl Normal {
    fn of(policy: &Policy, fallback: Option<&Policy>) -> Self {
        let shared = Shared::of(policy, fallback);
        let set = |texts: &[String]| list(texts.iter().map(|text| quote(text)).collect::<BTreeSet<_>>());
        let conflict = match conflict::strategy(policy) {
            // Where nothing is said, a prohibition wins: that is what `prohibit` says.
            None | Some(Conflict::Prohibition) => "prohibit",
            Some(Conflict::Permission) => "perm",
            Some(Conflict::Invalid) => "invalid",
        };
        Self {
            frame: [set(&policy.profiles), conflict.to_owned(), set(&policy.inherits)],
            rules: policy.rules.iter().map(|rule| normal_rule(rule, Some(&shared))).collect(),
        }
    }
}

fn normal_rule(rule: &Rule, shared: Option<&Shared>) -> NormalRule {
    let own = |thing: &Option<Thing>, shared: Option<&Option<String>>| match thing {
        Some(thing) if shared.is_some_and(|id| thing.as_one().is_some() && thing.as_one() == id.as_deref()) => {
            String::from("-")
        }
        Some(thing) => normal_thing(thing),
        None => String::from("-"),
    };
    let mut parties: Vec<String> =
        rule.parties.iter().map(|(function, party)| format!("{function}:{}", normal_thing(party))).collect();
    parties.sort();
    let head = format!(
        "{}({}{}){},{},{},{}",
        rule.kind.member(),
        rule.action,
        conjunction(&rule.action_refinements),
        own(&rule.target, shared.map(|shared| &shared.target)),
        own(&rule.assigner, shared.map(|shared| &shared.assigner)),
        own(&rule.assignee, shared.map(|shared| &shared.assignee)),
        list(parties),
    );
    let mut conditions = BTreeSet::new();
    flatten(&rule.constraints, LogicalOperand::And, &mut |constraint| {
        let (text, words) = (normal_constraint(constraint), in_words(constraint));
        conditions.insert(Condition { text, words, path: constraint.path().to_owned() });
    });
    let duties = rule.duties.iter().map(rule_text).collect();
    NormalRule { head, conditions, duties, path: rule.path.clone() }
}

pub(super) fn in_words(constraint: &Constraint) -> String {
    match constraint {
        Constraint::Atomic(atomic) => wanted(atomic),
        Constraint::Logical(logical) => {
            let all: Vec<String> = logical.of.iter().map(in_words).collect();
            format!("{} of ({})", logical.operand.as_str(), all.join("; "))
        }
    }
}

pub(super) fn normal_thing(thing: &Thing) -> String {
    let kind = if thing.collection { "*" } else { "" };
    format!("{kind}{}{}", quote(&thing.id), conjunction(&thing.refinements))
}

/// Conditions that all have to hold; nothing where there are none.
pub(super) fn conjunction(constraints: &[Constraint]) -> String {
    let mut all = BTreeSet::new();
    flatten(constraints, LogicalOperand::And, &mut |constraint| {
        all.insert(normal_refinement(constraint));
    });
    if all.is_empty() { String::new() } else { list(all) }
}

/// Conditions under an operand that takes its own kind apart, and a logical constraint of one is
/// the one.
fn flatten(constraints: &[Constraint], operand: LogicalOperand, see: &mut impl FnMut(&Constraint)) {
    for constraint in constraints {
        match constraint {
            Constraint::Logical(logical) if logical.operand == operand || logical.of.len() == 1 => {
                flatten(&logical.of, operand, see);
            }
            Constraint::Logical(_) | Constraint::Atomic(_) => see(constraint),
        }
    }
}

/// As a condition a delay is a wait, and `eq` is no less of it than `gteq`. In what narrows an action it is the time at
/// which something is to be done, or after which.
fn normal_refinement(constraint: &Constraint) -> String {
    match constraint {
        Constraint::Atomic(Atomic { operator, test: Test::Delay(span), .. }) => {
            format!("(delayPeriod {} {span})", operator.as_str())
        }
        Constraint::Atomic(_) | Constraint::Logical(_) => normal_constraint(constraint),
    }
}

pub(super) fn normal_constraint(constraint: &Constraint) -> String {
    match constraint {
        Constraint::Atomic(atomic) => normal_atomic(atomic),
        Constraint::Logical(logical) => normal_logical(logical),
    }
}

/// Whether a logical constraint and another condition are the same.
pub(super) fn same_condition(one: &Logical, other: &Constraint) -> bool {
    normal_logical(one) == normal_constraint(other)
}

fn normal_logical(logical: &Logical) -> String {
    // One condition is what it is under whichever operand, and is looked at once.
    if let [one] = logical.of.as_slice() {
        return normal_constraint(one);
    }
    let mut of = Vec::new();
    match logical.operand {
        LogicalOperand::And | LogicalOperand::Or => {
            flatten(&logical.of, logical.operand, &mut |constraint| of.push(normal_constraint(constraint)));
            of.sort();
            of.dedup();
            if let [one] = of.as_slice() {
                return one.clone();
            }
        }
        // Repetition counts where exactly one may hold.
        LogicalOperand::Xone => {
            of.extend(logical.of.iter().map(normal_constraint));
            of.sort();
        }
        LogicalOperand::AndSequence => of.extend(logical.of.iter().map(normal_constraint)),
    }
    format!("{}{}", logical.operand.as_str(), list(of))
}

fn normal_atomic(atomic: &Atomic) -> String {
    let operator = atomic.operator.as_str();
    match &atomic.test {
        Test::Time(_, at) => format!("(dateTime {operator} {at})"),
        Test::Elapsed(_, span) => format!("(elapsedTime {operator} {span})"),
        Test::Count(_, n) => format!("(count {operator} {n})"),
        Test::Recipient(inside, ids) => {
            let operator = if *inside { "isAnyOf" } else { "isNoneOf" };
            format!("(recipient {operator} {})", list(ids.iter().map(|id| quote(id))))
        }
        Test::Fact(test) => match &test.ask {
            Ask::Names(names) => {
                let relation = names.relation.as_str();
                format!("({} {relation} {})", test.operand, list(names.names.iter().map(|name| quote(name))))
            }
            Ask::Level { allowed, .. } => {
                format!("({} isAnyOf {})", test.operand, list(allowed.iter().map(|level| quote(level))))
            }
            Ask::Number(_, number) => {
                let unit = atomic.unit.as_deref().map(quote).unwrap_or_default();
                format!("({} {operator} {number} {unit})", test.operand)
            }
            Ask::Instant(_, at) => format!("({} {operator} {at})", test.operand),
        },
        Test::Bytes(_, n) => format!("(bytes {operator} {n})"),
        Test::Records(_, n) => format!("(records {operator} {n})"),
        Test::Delay(span) => format!("(delayPeriod gteq {span})"),
        Test::Rate(bytes, per) => format!("(rate lteq {bytes} per {}s)", per.as_secs()),
        Test::Fields(fields) => format!("(fields {})", quote(&fields.to_string())),
        Test::Undecided => {
            let values = atomic.right.iter().map(|value| {
                let kind = value.datatype.as_deref().map(quote).unwrap_or_default();
                let language = value.language.as_deref().map(quote).unwrap_or_default();
                let iri = if value.is_iri { "@" } else { "" };
                format!("{iri}{}^{kind}~{language}", quote(&value.text))
            });
            let unit = atomic.unit.as_deref().map(quote).unwrap_or_default();
            format!("({} {operator} {} {unit})", atomic.left, list(values))
        }
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// Quoted as JSON does, so that no text can be mistaken for structure.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
