//! How what is asked for relates to what was offered.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::capability::Capabilities;
use super::conflict::{self, meet, within as all_within};
use super::enforce::unenforceable;
use super::model::{Ask, Comparison, Conflict, Constraint, Logical, NameRelation, Policy, Rule, RuleKind, Test, Thing};
use super::normalise::{conjunction, frame, in_words, normal_constraint, normal_thing, rule_text, terms_digest};
use super::parse::conditions;

/// How a requested policy relates to an offered one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// The same is allowed.
    Equal,
    /// Nothing is allowed that was not offered.
    Narrower,
    /// Everything offered is allowed, and more: the first rule or condition that is wider.
    Wider(String),
    /// Neither holds everything of the other: the first place that goes beyond the offer.
    Conflict(String),
    /// One of them has terms that cannot be compared here.
    Unknown,
}

/// The name of a [`Relation`], for records, rules and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationKind {
    /// See [`Relation::Equal`].
    Equal,
    /// See [`Relation::Narrower`].
    Narrower,
    /// See [`Relation::Wider`].
    Wider,
    /// See [`Relation::Conflict`].
    Conflict,
    /// See [`Relation::Unknown`].
    Unknown,
}

impl RelationKind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something is asked for that was not offered, or may be.
    #[must_use]
    pub fn goes_beyond(self) -> bool {
        matches!(self, Self::Wider | Self::Conflict | Self::Unknown)
    }
}

/// How a requested policy relates to an offered one, with the first difference in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// How.
    pub relation: RelationKind,
    /// The first place that makes it so; none where they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// Where two policies differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// JSON path: in the requested policy where it goes beyond the offer, in the offer where it is
    /// narrower.
    pub path: String,
    /// In a sentence.
    pub message: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.message)
    }
}

/// How `requested` relates to `offered`. Sound, not complete: `Equal` and `Narrower` are only said
/// where they are certain; rules are compared one with one, conditions by their bounds.
#[must_use]
pub fn compare(offered: &Policy, requested: &Policy) -> Relation {
    let Compared { relation, difference } = compared(offered, requested);
    let path = difference.map(|difference| difference.path).unwrap_or_default();
    match relation {
        RelationKind::Equal => Relation::Equal,
        RelationKind::Narrower => Relation::Narrower,
        RelationKind::Wider => Relation::Wider(path),
        RelationKind::Conflict => Relation::Conflict(path),
        RelationKind::Unknown => Relation::Unknown,
    }
}

/// As [`compare`], with the first difference in words.
#[must_use]
pub fn compared(offered: &Policy, requested: &Policy) -> Compared {
    // The digest leaves out parties and target where they are common to all rules.
    if parties(offered) == parties(requested) && terms_digest(offered) == terms_digest(requested) {
        return Compared { relation: RelationKind::Equal, difference: None };
    }
    let unknown = |difference: Difference| Compared { relation: RelationKind::Unknown, difference: Some(difference) };
    // What is compared is what is meant, whatever this connector can hold to.
    let all = Capabilities::all();
    if let Some(problem) = unenforceable(requested, &all).into_iter().chain(unenforceable(offered, &all)).next() {
        return unknown(Difference { path: problem.path, message: problem.message });
    }
    let (ours, theirs) = (conflict::strategy(offered), conflict::strategy(requested));
    // Where only one of the two has a strategy that matters, the other one would decide the same under it.
    let ([profiles, parents], [their_profiles, their_parents]) = (frame(offered), frame(requested));
    let strategies_differ = ours.zip(theirs).is_some_and(|(ours, theirs)| ours != theirs);
    let differs = [
        ("profile", profiles != their_profiles),
        ("conflict", strategies_differ),
        ("inheritFrom", parents != their_parents),
    ];
    if let Some((path, _)) = differs.into_iter().find(|(_, differs)| *differs) {
        let message = format!("`{path}` is not that of the offer");
        return unknown(Difference { path: path.to_owned(), message });
    }
    let permission_wins = ours.or(theirs) == Some(Conflict::Permission);
    // Each direction has its own, so that the one does not depend on the other.
    let go_beyond = |inner, outer, every| beyond(inner, outer, every, &mut Steps(Steps::MAX));
    let (wider, narrower) = (go_beyond(requested, offered, true), go_beyond(offered, requested, !permission_wins));
    let asked_beyond = |gap: Gap| {
        let asked = gap.inner.map_or_else(|| "nothing of the kind".to_owned(), |words| format!("`{words}`"));
        let message = match gap.outer {
            Some(words) => format!("{asked} is asked for, and the offer has `{words}`"),
            None => "the offer has no such rule".to_owned(),
        };
        Difference { path: gap.path, message }
    };
    let offered_beyond = |gap: Gap| {
        let has = gap.inner.map_or_else(|| "nothing of the kind".to_owned(), |words| format!("`{words}`"));
        let message = match gap.outer {
            Some(words) => format!("the offer has {has}, and `{words}` is asked for"),
            None => "this rule of the offer is not asked for".to_owned(),
        };
        Difference { path: gap.path, message }
    };
    let (relation, difference) = match (wider, narrower) {
        (None, None) => (RelationKind::Equal, None),
        (None, Some(gap)) => (RelationKind::Narrower, Some(offered_beyond(gap))),
        (Some(gap), None) => (RelationKind::Wider, Some(asked_beyond(gap))),
        (Some(gap), Some(_)) => (RelationKind::Conflict, Some(asked_beyond(gap))),
    };
    Compared { relation, difference }
}

/// Where one policy may allow what another one does not.
struct Gap {
    /// The place in the policy that allows more.
    path: String,
    /// What it asks for there, in words.
    inner: Option<String>,
    /// What the other one asks for, in words; none where the other one has no such rule at all.
    outer: Option<String>,
}

/// On what a rule is, and for whom: its own, or what is said of the whole policy.
fn target<'a>(rule: &'a Rule, policy: &'a Policy) -> Option<&'a str> {
    rule.target.as_ref().and_then(Thing::as_one).or(policy.target.as_deref())
}

fn assignee<'a>(rule: &'a Rule, policy: &'a Policy) -> Option<&'a str> {
    rule.assignee.as_ref().and_then(Thing::as_one).or(policy.assignee.as_deref())
}

/// Every pair of target and assignee that a policy's rules name.
fn parties(policy: &Policy) -> BTreeSet<(Option<&str>, Option<&str>)> {
    policy.rules.iter().map(|rule| (target(rule, policy), assignee(rule, policy))).collect()
}

/// Where the inner policy may allow what the outer one does not; `None` where it does not. A prohibition of the outer
/// one that takes nothing away is not looked for where only what is allowed counts.
fn beyond(inner: &Policy, outer: &Policy, every_prohibition: bool, steps: &mut Steps) -> Option<Gap> {
    let of = |policy: &'_ Policy, kind: RuleKind| -> Vec<Rule> {
        policy.rules.iter().filter(|rule| rule.kind == kind).cloned().collect()
    };
    let outer_permissions = of(outer, RuleKind::Permission);
    for rule in of(inner, RuleKind::Permission) {
        if outer_permissions.iter().any(|other| within(&rule, inner, other, outer, steps).is_none()) {
            continue;
        }
        // The condition is the better place where there is only one rule to compare with.
        return match outer_permissions.as_slice() {
            [only] => within(&rule, inner, only, outer, steps),
            _ => Some(Gap { path: rule.path, inner: None, outer: None }),
        };
    }
    if let Some(gap) = lighter(&of(inner, RuleKind::Permission), inner, &outer_permissions, outer, steps) {
        return Some(gap);
    }
    // What was prohibited must stay so.
    let kept = of(inner, RuleKind::Prohibition);
    for rule in of(outer, RuleKind::Prohibition) {
        // One with remedies takes something away even where a permission wins: once it was infringed.
        if (every_prohibition || !rule.duties.is_empty())
            && !kept.iter().any(|other| within(&rule, outer, other, inner, steps).is_none())
        {
            let path = kept.first().map_or_else(|| "prohibition".to_owned(), |rule| rule.path.clone());
            let outer = format!("a prohibition to {}", rule.action);
            return Some(Gap { path, inner: None, outer: Some(outer) });
        }
    }
    // What had to be done must still be done, whoever may do whatever is allowed.
    let kept: Vec<(Rule, String)> = of(inner, RuleKind::Obligation)
        .into_iter()
        .map(|rule| {
            let text = rule_text(&rule);
            (rule, text)
        })
        .collect();
    let permissions = of(inner, RuleKind::Permission);
    for rule in of(outer, RuleKind::Obligation) {
        let text = rule_text(&rule);
        let alike: Vec<&Rule> = kept.iter().filter(|(_, other)| *other == text).map(|(rule, _)| rule).collect();
        let kept_for = |whom: &Rule| alike.iter().any(|other| reaches(other, whom));
        let meets = |permission: &&Rule| conflict::same_things(&rule, permission);
        if !kept_for(&rule) && (alike.is_empty() || !permissions.iter().filter(meets).all(kept_for)) {
            let outer = format!("an obligation to {}", rule.action);
            return Some(Gap { path: "obligation".to_owned(), inner: None, outer: Some(outer) });
        }
    }
    None
}

/// Where the inner policy may have lighter burdens for what both allow: of several permissions that hold, each has its
/// duties and burdens borne, as long as none is without, so that one that is left out makes the others lighter.
fn lighter(
    inner_permissions: &[Rule],
    inner: &Policy,
    outer_permissions: &[Rule],
    outer: &Policy,
    steps: &mut Steps,
) -> Option<Gap> {
    let with_burdens = |rules: &'_ [Rule]| -> Vec<(Rule, BTreeSet<String>)> {
        rules.iter().map(|rule| (rule.clone(), burdens(rule))).collect()
    };
    let (kept, offered) = (with_burdens(inner_permissions), with_burdens(outer_permissions));
    for (rule, borne) in kept.iter().filter(|(_, borne)| !borne.is_empty()) {
        let mut free = offered.iter().filter(|(_, burdens)| burdens.is_empty());
        // It asks to bear what nobody demands of it.
        if free.any(|(free, _)| steps.take(RULE_STEPS) && within(rule, inner, free, outer, steps).is_none()) {
            continue;
        }
        for (beside, demanded) in &offered {
            if demanded.is_subset(borne)
                || (steps.take(RULE_STEPS) && within(rule, inner, beside, outer, steps).is_none())
            {
                continue;
            }
            let mut alike = kept.iter().filter(|(_, borne)| demanded.is_subset(borne));
            if alike.any(|(other, _)| steps.take(RULE_STEPS) && within(beside, outer, other, inner, steps).is_none()) {
                continue;
            }
            let (size, together) = conflict::together(rule, beside);
            if !steps.take(size) || together() {
                let outer = format!("the burdens of {} beside it", beside.path);
                return Some(Gap { path: rule.path.clone(), inner: None, outer: Some(outer) });
            }
        }
    }
    None
}

/// The duties and the burdens of a permission, in normal form.
fn burdens(rule: &Rule) -> BTreeSet<String> {
    fn of(constraints: &[Constraint], found: &mut BTreeSet<String>) {
        for constraint in constraints {
            match constraint {
                Constraint::Logical(logical) => of(&logical.of, found),
                Constraint::Atomic(atomic) => {
                    if matches!(atomic.test, Test::Rate(..) | Test::Delay(_) | Test::Fields(_)) {
                        found.insert(normal_constraint(constraint));
                    }
                }
            }
        }
    }
    let mut found: BTreeSet<String> = rule.duties.iter().map(rule_text).collect();
    of(&rule.constraints, &mut found);
    found
}

/// Whether one rule is about everything that another is about, by target and assignee alone.
fn reaches(wide: &Rule, narrow: &Rule) -> bool {
    let covers = |wide: &Option<Thing>, narrow: &Option<Thing>| {
        wide.is_none() || wide.as_ref().map(normal_thing) == narrow.as_ref().map(normal_thing)
    };
    covers(&wide.target, &narrow.target) && covers(&wide.assignee, &narrow.assignee)
}

/// `None` where the one rule covers nothing that the other does not. Otherwise the place of the
/// inner condition that is too wide, where there is one, or that of the rule.
fn within(inner: &Rule, inner_policy: &Policy, outer: &Rule, outer_policy: &Policy, steps: &mut Steps) -> Option<Gap> {
    let gap = |path: &str, inner: Option<String>, outer: String| {
        Some(Gap { path: path.to_owned(), inner, outer: Some(outer) })
    };
    if inner.action != outer.action {
        return gap(&inner.path, Some(inner.action.to_owned()), outer.action.to_owned());
    }
    let covered = |inner: Option<&str>, outer: Option<&str>| outer.is_none() || inner == outer;
    for (what, inner_thing, outer_thing) in [
        ("target", target(inner, inner_policy), target(outer, outer_policy)),
        ("assignee", assignee(inner, inner_policy), assignee(outer, outer_policy)),
    ] {
        if !covered(inner_thing, outer_thing) {
            let outer_words = format!("the {what} {}", outer_thing.unwrap_or_default());
            let inner_words = inner_thing.map(|thing| format!("the {what} {thing}"));
            return gap(&format!("{}.{what}", inner.path), inner_words, outer_words);
        }
    }
    // What narrows an action or a collection, and who else has a part, is compared as a whole.
    if (shape(inner), &inner.parties) != (shape(outer), &outer.parties) {
        return gap(&inner.path, None, format!("another refinement or party of {}", outer.action));
    }
    // A duty more is a burden more; one less is not what was offered. The remedies of a prohibition stay as they are.
    let lacks = |one: &Rule, other: &Rule| {
        let has: Vec<String> = one.duties.iter().map(rule_text).collect();
        other.duties.iter().find(|duty| !has.contains(&rule_text(duty))).map(|duty| (duty.kind, duty.action))
    };
    let missing = lacks(inner, outer).or_else(|| lacks(outer, inner).filter(|_| inner.kind != RuleKind::Permission));
    if let Some((kind, action)) = missing {
        return gap(&inner.path, None, format!("the {kind} to {action}"));
    }
    let too_wide = outer.constraints.iter().find(|wanted| !steps.implied(&inner.constraints, wanted))?;
    let left = match too_wide {
        Constraint::Atomic(atomic) => Some(&atomic.left),
        Constraint::Logical(_) => None,
    };
    let same_operand = inner.constraints.iter().find_map(|constraint| match constraint {
        Constraint::Atomic(atomic) if Some(&atomic.left) == left => Some((atomic.path.as_str(), in_words(constraint))),
        Constraint::Atomic(_) | Constraint::Logical(_) => None,
    });
    match same_operand {
        Some((path, words)) => gap(path, Some(words), in_words(too_wide)),
        None => gap(&inner.path, None, in_words(too_wide)),
    }
}

/// What narrows a rule's action, target and assignee.
fn shape(rule: &Rule) -> (String, Option<String>, Option<String>) {
    let narrowed = |thing: &Option<Thing>| thing.as_ref().filter(|thing| thing.as_one().is_none()).map(normal_thing);
    (conjunction(&rule.action_refinements), narrowed(&rule.target), narrowed(&rule.assignee))
}

/// What it takes to put one rule beside another, but for their conditions.
const RULE_STEPS: usize = 16;

/// How much is compared at most. What lies beyond is not implied.
struct Steps(usize);

impl Steps {
    const MAX: usize = 1 << 20;

    fn take(&mut self, steps: usize) -> bool {
        let left = self.0.checked_sub(steps);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether conditions that all hold make another one hold.
    fn implied(&mut self, given: &[Constraint], wanted: &Constraint) -> bool {
        use super::model::LogicalOperand::{And, AndSequence, Or, Xone};
        let wanted = alone(wanted);
        if let Constraint::Logical(logical) = wanted {
            match logical.operand {
                // Whatever makes all of it hold makes each part hold.
                And => return logical.of.iter().all(|part| self.implied(given, part)),
                Or if logical.of.iter().any(|part| self.implied(given, part)) => return true,
                Or | Xone | AndSequence => {}
            }
        }
        given.iter().any(|have| {
            self.take(1)
                && match (alone(have), wanted) {
                    (Constraint::Atomic(have), Constraint::Atomic(wanted)) => test_implies(&have.test, &wanted.test),
                    (Constraint::Logical(have), _) => match have.operand {
                        And => self.implied(&have.of, wanted),
                        Or => have.of.iter().all(|part| self.implied(std::slice::from_ref(part), wanted)),
                        Xone => self.same(have, wanted),
                        // All hold, in whatever order.
                        AndSequence => self.same(have, wanted) || self.implied(&have.of, wanted),
                    },
                    (Constraint::Atomic(_), Constraint::Logical(_)) => false,
                }
        })
    }

    fn same(&mut self, have: &Logical, wanted: &Constraint) -> bool {
        let size = conditions(&have.of).saturating_add(conditions(std::slice::from_ref(wanted)));
        self.take(size) && super::normalise::same_condition(have, wanted)
    }
}

/// A logical constraint of one is the one.
fn alone(constraint: &Constraint) -> &Constraint {
    match constraint {
        Constraint::Logical(logical) => match logical.of.as_slice() {
            [one] => alone(one),
            _ => constraint,
        },
        Constraint::Atomic(_) => constraint,
    }
}

fn test_implies(have: &Test, wanted: &Test) -> bool {
    match (have, wanted) {
        (Test::Time(a, x), Test::Time(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Test::Count(a, x), Test::Count(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Test::Elapsed(a, x), Test::Elapsed(b, y)) => x.order(*y).is_some_and(|order| bound_implies(*a, *b, order)),
        (Test::Bytes(a, x), Test::Bytes(b, y)) | (Test::Records(a, x), Test::Records(b, y)) => {
            bound_implies(*a, *b, x.cmp(y))
        }
        (Test::Delay(x), Test::Delay(y)) => x.order(*y).is_some_and(std::cmp::Ordering::is_ge),
        (Test::Fields(x), Test::Fields(y)) => x == y,
        (Test::Rate(..), Test::Rate(..)) => have == wanted,
        (Test::Fact(have), Test::Fact(wanted)) => have.operand == wanted.operand && ask_implies(&have.ask, &wanted.ask),
        (Test::Recipient(true, a), Test::Recipient(true, b)) => all_within(a, b),
        (Test::Recipient(false, a), Test::Recipient(false, b)) => all_within(b, a),
        (Test::Recipient(true, a), Test::Recipient(false, b)) => !meet(a, b),
        _ => false,
    }
}

/// Whether what is asked of a fact makes the other hold of the same fact. Names are compared by their sets alone.
fn ask_implies(have: &Ask, wanted: &Ask) -> bool {
    use NameRelation::{AllOf, AnyOf, HasPart, NoneOf, PartOf};
    match (have, wanted) {
        (Ask::Number(a, x), Ask::Number(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Ask::Instant(a, x), Ask::Instant(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Ask::Level { allowed: a, levels: all }, Ask::Level { allowed: b, levels }) => {
            all == levels && a.iter().all(|level| b.contains(level))
        }
        (Ask::Names(a), Ask::Names(b)) if a.every == b.every && a.taxonomy == b.taxonomy => {
            match (a.relation, b.relation) {
                (AnyOf | PartOf, PartOf) | (AnyOf, AnyOf) => all_within(&a.names, &b.names),
                (NoneOf, NoneOf) | (AllOf, AllOf) | (HasPart | AllOf, HasPart) => all_within(&b.names, &a.names),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether `value a x` makes `value b y` hold, by how `x` compares with `y`.
fn bound_implies(a: Comparison, b: Comparison, x_to_y: std::cmp::Ordering) -> bool {
    use Comparison::{Eq, Gt, Gteq, Lt, Lteq, Neq};
    match (a, b) {
        (Eq, Lt) | (Lteq, Lt | Neq) => x_to_y.is_lt(),
        (Lt | Lteq | Eq, Lteq) | (Lt, Lt | Neq) => x_to_y.is_le(),
        (Eq, Gt) | (Gteq, Gt | Neq) => x_to_y.is_gt(),
        (Gt | Gteq | Eq, Gteq) | (Gt, Gt | Neq) => x_to_y.is_ge(),
        (Eq, Eq) | (Neq, Neq) => x_to_y.is_eq(),
        (Eq, Neq) => x_to_y.is_ne(),
        _ => false,
    }
}
