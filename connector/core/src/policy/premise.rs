//! What must hold of a rule beside its conditions: that parties and assets belong to its collections, and that its
//! duties are done. And whether a comparison holds with what is known.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::duty::{DutyKind, DutyState, Standing, When};
use super::evaluate::Truth;
use super::fact::{ASSIGNEE_COLLECTIONS, Fact, FactValue, TARGET_COLLECTIONS};
use super::model::{
    Ask, Comparison, Constraint, FactTest, Logical, LogicalOperand, NameRelation, NameTest, Rule, RuleKind, Test, Thing,
};
use super::{Request, World};

/// What is asked, with what is known, at an instant and with a count of uses.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub request: &'a Request,
    pub world: &'a World,
    pub now: Timestamp,
    pub uses: Option<u64>,
}

/// Whether a rule needs more than that it is about the request and that its conditions hold.
pub(super) fn any(rule: &Rule) -> bool {
    let narrowed = |thing: &Option<Thing>| thing.as_ref().is_some_and(|thing| thing.as_one().is_none());
    narrowed(&rule.target) || narrowed(&rule.assignee) || (rule.kind == RuleKind::Permission && !rule.duties.is_empty())
}

/// Whether what a rule needs is there.
pub(super) fn truth(rule: &Rule, at: At<'_>) -> Truth {
    let things = [(&rule.target, true), (&rule.assignee, false)]
        .into_iter()
        .filter_map(|(thing, target)| thing.as_ref().map(|thing| belongs(thing, target, at)));
    let duties: &[Rule] = if rule.kind == RuleKind::Permission { &rule.duties } else { &[] };
    Truth::all(things.chain(duties.iter().map(|duty| done(duty, at))))
}

/// The first instant after one at which that can be another one.
pub(super) fn turns_after(rule: &Rule, world: &World, after: Timestamp) -> Option<Timestamp> {
    let things = [(&rule.target, TARGET_COLLECTIONS), (&rule.assignee, ASSIGNEE_COLLECTIONS)].into_iter();
    let things = things.filter_map(|(thing, fact)| thing.as_ref().map(|thing| (thing, fact)));
    let ends = things.clone().filter_map(|(_, fact)| fact_turns_after(world.facts.get(fact), after));
    let refinements = things.filter_map(|(thing, _)| constraints_turn_after(&thing.refinements, world, after));
    let duties = rule.duties.iter().filter_map(|duty| duty_turns_after(duty, world, after));
    ends.chain(refinements).chain(duties).min()
}

/// Whether what is asked for is the thing, or belongs to it.
fn belongs(thing: &Thing, target: bool, at: At<'_>) -> Truth {
    let member = if !thing.collection {
        // That it is this one was compared already.
        Truth::True
    } else if target && at.request.target.as_deref() == Some(thing.id.as_str()) {
        // A dataset is handed over whole: who asks for the collection asks for all that is in it.
        Truth::True
    } else {
        let fact = if target { TARGET_COLLECTIONS } else { ASSIGNEE_COLLECTIONS };
        match known(at.world.facts.get(fact), at.now) {
            Some(FactValue::Names(collections)) => Truth::of(collections.contains(&thing.id)),
            Some(FactValue::Number(_) | FactValue::Instant(_) | FactValue::Level(_)) | None => Truth::Unknown,
        }
    };
    Truth::all(std::iter::once(member).chain(thing.refinements.iter().map(|inner| constraint(inner, at))))
}

/// Whether a duty is such that the use may go on.
pub(super) fn done(duty: &Rule, at: At<'_>) -> Truth {
    let Some(term) = &duty.term else { return Truth::Unknown };
    if matches!(term.kind, DutyKind::Other { .. } | DutyKind::Count) {
        return Truth::Unknown;
    }
    let consequences = || Truth::all(duty.duties.iter().map(|consequence| fulfilled(consequence, at)));
    match (state(duty, at.world, at.now), term.when) {
        (DutyState::Fulfilled, _) | (DutyState::Pending, When::During | When::After) => Truth::True,
        // The connector writes it down itself before the first byte, and lets none go where it cannot.
        (DutyState::Pending, When::Before) if matches!(term.kind, DutyKind::Log { .. }) => Truth::True,
        (DutyState::Pending, When::Before) => Truth::Unknown,
        (DutyState::Late, _) => consequences(),
        (DutyState::Violated, _) => Truth::False,
    }
}

/// Whether an obligation is for what is asked: that it names nothing else, and that what it names are collections to
/// which that belongs.
pub(super) fn obliges(obligation: &Rule, about: Truth, at: At<'_>) -> Truth {
    Truth::all([about, truth(obligation, at)])
}

/// Whether a consequence that is due was done.
fn fulfilled(duty: &Rule, at: At<'_>) -> Truth {
    match state(duty, at.world, at.now) {
        DutyState::Fulfilled => Truth::True,
        DutyState::Pending => Truth::Unknown,
        DutyState::Late => Truth::all(duty.duties.iter().map(|consequence| fulfilled(consequence, at))),
        DutyState::Violated => Truth::False,
    }
}

/// Whether a prohibition was not infringed, or that was made good. Without a remedy nothing makes it good.
pub(super) fn made_good(prohibition: &Rule, at: At<'_>) -> Truth {
    if !infringed(prohibition, at.world, at.now) {
        return Truth::True;
    }
    if prohibition.duties.is_empty() {
        return Truth::False;
    }
    Truth::all(prohibition.duties.iter().map(|remedy| match remedy.term.as_ref().map(|term| &term.kind) {
        Some(kind) if remediable(kind) => fulfilled(remedy, at),
        Some(_) | None => Truth::Unknown,
    }))
}

/// What can be done to make good: what is recorded once, whatever use it hangs from.
pub(super) fn remediable(kind: &DutyKind) -> bool {
    matches!(kind, DutyKind::Compensate { .. } | DutyKind::ObtainConsent { .. })
}

/// Whether a prohibition was infringed, and that was not recorded for a time that is over.
fn infringed(prohibition: &Rule, world: &World, now: Timestamp) -> bool {
    let standing = prohibition.infringement.as_ref().and_then(|key| world.duties.get(key));
    standing_at(standing, now) == DutyState::Violated
}

/// The first instant after one at which that can be another one, by time alone.
pub(super) fn infringement_turns_after(prohibition: &Rule, world: &World, after: Timestamp) -> Option<Timestamp> {
    let own = prohibition.infringement.as_ref().and_then(|key| world.duties.get(key)?.until);
    let remedies = prohibition.duties.iter().filter_map(|duty| duty_turns_after(duty, world, after));
    remedies.chain(own.filter(|until| *until > after)).min()
}

/// How far a duty is at an instant.
pub(super) fn state(duty: &Rule, world: &World, now: Timestamp) -> DutyState {
    standing_at(duty.term.as_ref().and_then(|term| world.duties.get(&term.key)), now)
}

fn standing_at(standing: Option<Standing>, now: Timestamp) -> DutyState {
    match standing {
        Some(standing) if standing.until.is_none_or(|until| now < until) => standing.state,
        Some(_) | None => DutyState::Pending,
    }
}

/// The first instant after one at which a duty can be another one, by time alone.
pub(super) fn duty_turns_after(duty: &Rule, world: &World, after: Timestamp) -> Option<Timestamp> {
    let own = duty.term.as_ref().and_then(|term| world.duties.get(&term.key)?.until).filter(|until| *until > after);
    let inner = duty.duties.iter().filter_map(|duty| duty_turns_after(duty, world, after));
    inner.chain(own).min()
}

/// Whether a condition holds, for all that is known.
pub(super) fn constraint(constraint: &Constraint, at: At<'_>) -> Truth {
    match constraint {
        Constraint::Atomic(atomic) => tested(&atomic.test, at),
        Constraint::Logical(Logical { operand: LogicalOperand::AndSequence, of, .. }) => sequence(of, at),
        Constraint::Logical(Logical { operand, of, .. }) => {
            Truth::under(*operand, of.iter().map(|inner| self::constraint(inner, at)))
        }
    }
}

/// Whether several conditions hold that came to hold in this order.
pub(super) fn sequence(of: &[Constraint], at: At<'_>) -> Truth {
    if let [one] = of {
        return constraint(one, at);
    }
    let truths: Vec<Truth> = of.iter().map(|part| constraint(part, at)).collect();
    let mut whole = Truth::all(truths.iter().copied());
    let mut latest = None;
    for (part, _) in of.iter().zip(&truths).filter(|(_, truth)| **truth == Truth::True) {
        match beginning(part, at) {
            // A wrong order stays wrong, whatever the others turn out to be.
            Beginning::Known(began) if began < latest => return Truth::False,
            Beginning::Known(began) => latest = began,
            Beginning::Unknown => whole = Truth::all([whole, Truth::Unknown]),
        }
    }
    whole
}

/// Since when a condition that holds has held without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Since an instant; `None`: it held before all instants.
    Known(Option<Timestamp>),
    /// Nobody says.
    Unknown,
}

/// The beginning of a condition that holds.
pub(super) fn beginning(constraint: &Constraint, at: At<'_>) -> Beginning {
    match constraint {
        Constraint::Atomic(atomic) => began(&atomic.test, at),
        Constraint::Logical(Logical { of, operand, .. }) => {
            let all = || of.iter().map(|part| beginning(part, at));
            match (of.as_slice(), operand) {
                ([one], _) => beginning(one, at),
                // They all hold since the last of them does.
                (_, LogicalOperand::And | LogicalOperand::AndSequence) => all()
                    .reduce(|one, other| match (one, other) {
                        (Beginning::Known(one), Beginning::Known(other)) => Beginning::Known(one.max(other)),
                        (Beginning::Unknown, _) | (_, Beginning::Unknown) => Beginning::Unknown,
                    })
                    .unwrap_or(Beginning::Unknown),
                // One that holds no more, or held before, may have been first: only of alternatives that all hold
                // since the same instant it is known.
                (_, LogicalOperand::Or) => {
                    let hold = of.iter().all(|part| self::constraint(part, at) == Truth::True);
                    let mut all = all();
                    let first = all.next().filter(|_| hold);
                    first.filter(|first| all.all(|other| other == *first)).unwrap_or(Beginning::Unknown)
                }
                (_, LogicalOperand::Xone) => Beginning::Unknown,
            }
        }
    }
}

fn began(test: &Test, at: At<'_>) -> Beginning {
    match test {
        Test::Time(comparison, instant) => began_at(*comparison, *instant, at.now),
        Test::Elapsed(comparison, span) => match at.world.agreed_at.and_then(|agreed| span.after(agreed)) {
            Some(end) => began_at(*comparison, end, at.now),
            None => Beginning::Unknown,
        },
        // Who asks is who asks: that has no beginning.
        Test::Recipient(..) => Beginning::Known(None),
        Test::Fact(test) => match at.world.facts.get(&test.operand).and_then(|fact| fact.since) {
            Some(since) => Beginning::Known(Some(since)),
            None => Beginning::Unknown,
        },
        Test::Count(..)
        | Test::Bytes(..)
        | Test::Records(..)
        | Test::Delay(_)
        | Test::Rate(..)
        | Test::Fields(_)
        | Test::Undecided => Beginning::Unknown,
    }
}

/// Since when the time compares so with an instant, where it does.
fn began_at(comparison: Comparison, instant: Timestamp, now: Timestamp) -> Beginning {
    let next = || match instant.checked_add(SignedDuration::from_nanos(1)) {
        Ok(next) => Beginning::Known(Some(next)),
        Err(_) => Beginning::Unknown,
    };
    match comparison {
        Comparison::Lt | Comparison::Lteq => Beginning::Known(None),
        Comparison::Gteq | Comparison::Eq => Beginning::Known(Some(instant)),
        Comparison::Gt => next(),
        Comparison::Neq if now < instant => Beginning::Known(None),
        Comparison::Neq => next(),
    }
}

/// The first instant after one at which one of several conditions, or its beginning, can be another one.
pub(super) fn constraints_turn_after(constraints: &[Constraint], world: &World, after: Timestamp) -> Option<Timestamp> {
    let turns = |constraint: &Constraint| match constraint {
        Constraint::Atomic(atomic) => test_turns_after(&atomic.test, world, after),
        Constraint::Logical(logical) => constraints_turn_after(&logical.of, world, after),
    };
    constraints.iter().filter_map(turns).min()
}

/// The value of a fact, where it is known at an instant.
fn known(fact: Option<&Fact>, now: Timestamp) -> Option<&FactValue> {
    let holds =
        |fact: &&Fact| fact.since.is_none_or(|since| since <= now) && fact.until.is_none_or(|until| now < until);
    fact.filter(holds).map(|fact| &fact.value)
}

/// The first instant after one at which a fact begins or ends.
fn fact_turns_after(fact: Option<&Fact>, after: Timestamp) -> Option<Timestamp> {
    let fact = fact?;
    fact.since.into_iter().chain(fact.until).filter(|turn| *turn > after).min()
}

/// Whether one comparison holds, for all that is known.
pub(super) fn tested(test: &Test, at: At<'_>) -> Truth {
    let compared = |known: Option<bool>| known.map_or(Truth::Unknown, Truth::of);
    match test {
        Test::Time(comparison, instant) => Truth::of(comparison.holds(&at.now, instant)),
        // "The time since the agreement is at most D" is "the time is at most agreement + D".
        Test::Elapsed(comparison, span) => compared(
            at.world.agreed_at.and_then(|agreed| span.after(agreed)).map(|end| comparison.holds(&at.now, &end)),
        ),
        Test::Count(comparison, n) => compared(at.uses.map(|uses| comparison.holds(&uses, n))),
        Test::Bytes(comparison, n) => compared(at.world.bytes.map(|bytes| comparison.holds(&bytes, n))),
        Test::Records(comparison, n) => compared(at.world.records.map(|records| comparison.holds(&records, n))),
        Test::Recipient(inside, ids) => Truth::of(ids.iter().any(|id| id == at.request.assignee.as_str()) == *inside),
        Test::Fact(test) => asked(test, at),
        // A burden is borne by the stream; a delay needs the instant that it begins at.
        Test::Delay(span) => match at.world.agreed_at.and_then(|agreed| span.after(agreed)) {
            Some(_) => Truth::True,
            None => Truth::Unknown,
        },
        Test::Rate(..) | Test::Fields(_) => Truth::True,
        Test::Undecided => Truth::Unknown,
    }
}

/// The first instant after one at which a comparison can be another one.
pub(super) fn test_turns_after(test: &Test, world: &World, after: Timestamp) -> Option<Timestamp> {
    match test {
        Test::Time(_, at) => turn_of(*at, after),
        Test::Elapsed(_, span) => turn_of(world.agreed_at.and_then(|agreed| span.after(agreed))?, after),
        Test::Fact(test) => fact_turns_after(world.facts.get(&test.operand), after),
        Test::Count(..)
        | Test::Bytes(..)
        | Test::Records(..)
        | Test::Recipient(..)
        | Test::Delay(_)
        | Test::Rate(..)
        | Test::Fields(_)
        | Test::Undecided => None,
    }
}

/// A comparison with an instant can turn at it and right after it.
fn turn_of(at: Timestamp, after: Timestamp) -> Option<Timestamp> {
    if at > after { Some(at) } else { at.checked_add(SignedDuration::from_nanos(1)).ok().filter(|next| *next > after) }
}

/// What a fact says, of its own kind; of another kind it says nothing.
fn asked(test: &FactTest, at: At<'_>) -> Truth {
    match (&test.ask, known(at.world.facts.get(&test.operand), at.now)) {
        (Ask::Names(names), Some(FactValue::Names(found))) if test.operand == CONNECTOR => named(names, found),
        (Ask::Names(names), Some(FactValue::Names(found))) => related(names, &found.iter().collect::<Vec<_>>()),
        (Ask::Level { allowed, levels }, Some(FactValue::Level(level))) if levels.contains(level) => {
            Truth::of(allowed.contains(level))
        }
        (Ask::Number(comparison, wanted), Some(FactValue::Number(found))) => Truth::of(comparison.holds(found, wanted)),
        (Ask::Instant(comparison, wanted), Some(FactValue::Instant(found))) => {
            Truth::of(comparison.holds(found, wanted))
        }
        _ => Truth::Unknown,
    }
}

/// The operand of the receiving connector.
const CONNECTOR: &str = "idsc:CONNECTOR";

/// Whether a connector has the names of a test. Its certificate gives it one name of a form: of a participant, and of
/// the certificate itself. That it has another one of such a form is ruled out, and of any other form it is not known.
fn named(test: &NameTest, found: &BTreeSet<String>) -> Truth {
    let has = |name: &String| match form(name) {
        _ if found.contains(name) => Truth::True,
        Some(of) if found.iter().any(|known| form(known) == Some(of)) => Truth::False,
        Some(_) | None => Truth::Unknown,
    };
    let names = test.names.iter().map(has);
    match test.relation {
        NameRelation::AnyOf | NameRelation::PartOf => Truth::any(names),
        NameRelation::NoneOf => Truth::any(names).negated(),
        NameRelation::AllOf | NameRelation::HasPart => Truth::all(names),
    }
}

/// The form of a name: the method of a DID, the namespace of a URN.
fn form(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(scheme @ ("did" | "urn")), Some(of), Some(_)) => Some((scheme, of)),
        _ => None,
    }
}

/// How the names that were found lie to those of a test.
fn related(test: &NameTest, found: &[&String]) -> Truth {
    let is = |one: &String, other: &String| match () {
        () if one == other => Truth::True,
        // To be in a part is to be in the whole: neither is the other, and neither is something else.
        () if test.taxonomy.is_part(one, other) || test.taxonomy.is_part(other, one) => Truth::Unknown,
        () => Truth::False,
    };
    let part = |one: &String, other: &String| match () {
        () if test.taxonomy.is_part(one, other) => Truth::True,
        // That it is no part is known only of what the taxonomy lists, and not of what is wider.
        () if test.taxonomy.is_part(other, one) || !test.taxonomy.lists(one) => Truth::Unknown,
        () => Truth::False,
    };
    let among = |one: &String, relation: &dyn Fn(&String, &String) -> Truth| {
        Truth::any(test.names.iter().map(|name| relation(one, name)))
    };
    match test.relation {
        NameRelation::AnyOf => quantified(test.every, found.iter().map(|one| among(one, &is))),
        NameRelation::PartOf => quantified(test.every, found.iter().map(|one| among(one, &part))),
        NameRelation::NoneOf => Truth::any(found.iter().map(|one| among(one, &is))).negated(),
        NameRelation::AllOf => {
            Truth::all(test.names.iter().map(|name| Truth::any(found.iter().map(|one| is(one, name)))))
        }
        NameRelation::HasPart => {
            Truth::all(test.names.iter().map(|name| Truth::any(found.iter().map(|one| part(name, one)))))
        }
    }
}

/// For each or for one of several. Where it must be for each and is for some only, it neither holds nor fails: a
/// permission does not reach all of the use, a prohibition reaches part of it.
fn quantified(every: bool, truths: impl Iterator<Item = Truth> + Clone) -> Truth {
    let some = Truth::any(truths.clone());
    if !every {
        return some;
    }
    if truths.clone().next().is_none() {
        return Truth::Unknown;
    }
    let all = Truth::all(truths);
    if all == Truth::False && some != Truth::False { Truth::Unknown } else { all }
}
