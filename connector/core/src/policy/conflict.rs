//! What happens where a permission and a prohibition of one policy meet.
//!
//! Whether they meet at all is a property of the policy alone: it does not change with the time, with what is known or
//! with who asks. So a policy that is void by its own words (`invalid`) is void from the beginning, and for everybody.

use kontor_vocab::odrl::terms::action_term;

use super::evaluate::is_part_of;
use super::model::{
    Ask, Comparison, Conflict, Constraint, Logical, LogicalOperand, NameRelation, NameTest, Policy, Rule, RuleKind,
    Test, Thing,
};

/// Whether a permission that holds wins over every prohibition.
pub(super) fn permission_wins(policy: &Policy) -> bool {
    policy.conflict == Some(Conflict::Permission)
}

/// The strategy, where it makes a difference: where nothing is prohibited, or nothing permitted, none does. Where none
/// is said, a prohibition wins.
pub(super) fn strategy(policy: &Policy) -> Option<Conflict> {
    let has = |kind: RuleKind| policy.rules.iter().any(|rule| rule.kind == kind);
    let meet = has(RuleKind::Permission) && has(RuleKind::Prohibition);
    meet.then(|| policy.conflict.unwrap_or(Conflict::Prohibition))
}

/// The first permission and prohibition that make a policy void by its own words.
pub(super) fn voided_by(policy: &Policy) -> Option<(&Rule, &Rule)> {
    if policy.conflict != Some(Conflict::Invalid) {
        return None;
    }
    let of = |kind: RuleKind| policy.rules.iter().filter(move |rule| rule.kind == kind);
    of(RuleKind::Permission).find_map(|may| {
        of(RuleKind::Prohibition).find(|must_not| conflict(may, must_not)).map(|must_not| (may, must_not))
    })
}

/// Whether a permission and a prohibition may both be about one request and hold at once. Only where that is ruled
/// out for certain are they not in conflict.
fn conflict(may: &Rule, must_not: &Rule) -> bool {
    let apart = |one: &Constraint| must_not.constraints.iter().any(|other| excludes(one, other));
    same_action(may.action, must_not.action) && same_things(may, must_not) && !may.constraints.iter().any(apart)
}

/// Whether one action is the other, or part of it. What the IDS adds to ODRL's actions may be part of any.
fn same_action(one: &str, other: &str) -> bool {
    match (action_term(one), action_term(other)) {
        (Some(a), Some(b)) => is_part_of(a, b.name) || is_part_of(b, a.name),
        (None, _) | (_, None) => true,
    }
}

/// Whether two rules may be about one target and one assignee.
pub(super) fn same_things(one: &Rule, other: &Rule) -> bool {
    same_thing(one.target.as_ref(), other.target.as_ref()) && same_thing(one.assignee.as_ref(), other.assignee.as_ref())
}

/// Whether two rules may be about one thing: two that have names of their own are two, and nobody knows who belongs to
/// a collection.
fn same_thing(one: Option<&Thing>, other: Option<&Thing>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.collection || other.collection || one.id == other.id,
        (None, _) | (_, None) => true,
    }
}

/// Whether two conditions can never hold at once. Sound, not complete.
fn excludes(one: &Constraint, other: &Constraint) -> bool {
    use LogicalOperand::{And, AndSequence, Or, Xone};
    // Alternatives are taken apart first, on whichever side they are: that sees the most, and sees it in any order.
    match (one, other) {
        (Constraint::Logical(Logical { operand: Or | Xone, of, .. }), _) => of.iter().all(|part| excludes(part, other)),
        (_, Constraint::Logical(Logical { operand: Or | Xone, of, .. })) => of.iter().all(|part| excludes(one, part)),
        (Constraint::Logical(Logical { operand: And | AndSequence, of, .. }), _) => {
            of.iter().any(|part| excludes(part, other))
        }
        (_, Constraint::Logical(Logical { operand: And | AndSequence, of, .. })) => {
            of.iter().any(|part| excludes(one, part))
        }
        (Constraint::Atomic(one), Constraint::Atomic(other)) => tests_exclude(&one.test, &other.test),
    }
}

fn tests_exclude(one: &Test, other: &Test) -> bool {
    let apart = |a: &[String], b: &[String]| !a.iter().any(|id| b.contains(id));
    match (one, other) {
        (Test::Time(a, x), Test::Time(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
        (Test::Elapsed(a, x), Test::Elapsed(b, y)) => x.order(*y).is_some_and(|order| bounds_exclude(*a, *b, order)),
        (Test::Count(a, x), Test::Count(b, y))
        | (Test::Bytes(a, x), Test::Bytes(b, y))
        | (Test::Records(a, x), Test::Records(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
        (Test::Recipient(true, a), Test::Recipient(true, b)) => apart(a, b),
        (Test::Recipient(true, a), Test::Recipient(false, b))
        | (Test::Recipient(false, b), Test::Recipient(true, a)) => a.iter().all(|id| b.contains(id)),
        (Test::Fact(one), Test::Fact(other)) if one.operand == other.operand => match (&one.ask, &other.ask) {
            (Ask::Number(a, x), Ask::Number(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
            (Ask::Instant(a, x), Ask::Instant(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
            (Ask::Level { allowed: a, levels: all }, Ask::Level { allowed: b, levels }) => all == levels && apart(a, b),
            (Ask::Names(a), Ask::Names(b)) => names_exclude(a, b),
            _ => false,
        },
        _ => false,
    }
}

/// Names that have parts lie to one another in more ways than their spelling shows: of them nothing is ruled out.
fn names_exclude(one: &NameTest, other: &NameTest) -> bool {
    use NameRelation::{AllOf, AnyOf, HasPart, NoneOf, PartOf};
    let flat = |test: &NameTest| *test.taxonomy == super::Taxonomy::default();
    let within = |a: &NameTest, b: &NameTest| a.names.iter().all(|name| b.names.contains(name));
    let meets = |a: &NameTest, b: &NameTest| a.names.iter().any(|name| b.names.contains(name));
    flat(one)
        && flat(other)
        && match (one.relation, other.relation) {
            // All that is found is among the one and among the other; where one of several is enough, each has its own.
            (AnyOf, AnyOf) => one.every && other.every && !meets(one, other),
            (AnyOf, NoneOf) => within(one, other),
            (NoneOf, AnyOf) => within(other, one),
            (AllOf, NoneOf) | (NoneOf, AllOf) => meets(one, other),
            (AnyOf | AllOf | NoneOf | PartOf | HasPart, _) => false,
        }
}

/// Whether no value compares so to both, by how the one bound compares with the other. Values may lie as close as one
/// likes: what only whole numbers exclude is not excluded.
fn bounds_exclude(a: Comparison, b: Comparison, x_to_y: std::cmp::Ordering) -> bool {
    use Comparison::{Eq, Gt, Gteq, Lt, Lteq, Neq};
    match (a, b) {
        (Eq, Eq) => x_to_y.is_ne(),
        (Eq, Neq) | (Neq, Eq) => x_to_y.is_eq(),
        (Eq | Lt | Lteq, Gt) | (Lt, Eq | Gteq) => x_to_y.is_le(),
        (Gt, Eq | Lt | Lteq) | (Eq | Gteq, Lt) => x_to_y.is_ge(),
        (Eq | Lteq, Gteq) | (Lteq, Eq) => x_to_y.is_lt(),
        (Gteq, Eq | Lteq) | (Eq, Lteq) => x_to_y.is_gt(),
        (Neq, Neq | Lt | Lteq | Gt | Gteq)
        | (Lt | Lteq | Gt | Gteq, Neq)
        | (Lt | Lteq, Lt | Lteq)
        | (Gt | Gteq, Gt | Gteq) => false,
    }
}
