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

/// Most comparisons that are made to find out whether a policy is void.
pub(super) const COMPARISONS_MAX: usize = 1 << 18;

/// What makes a policy void by its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Void<'a> {
    /// The first permission and prohibition that may meet.
    Meet(&'a Rule, &'a Rule),
    /// They are more than are compared; and what is uncertain meets.
    TooMany,
}

/// Why a policy is void by its own words, if it is.
pub(super) fn voided_by(policy: &Policy) -> Option<Void<'_>> {
    if policy.conflict != Some(Conflict::Invalid) {
        return None;
    }
    let of = |kind: RuleKind| policy.rules.iter().filter(move |rule| rule.kind == kind);
    let prohibitions: Vec<(&Rule, Size)> = of(RuleKind::Prohibition).map(|rule| (rule, Size::of(rule))).collect();
    let mut pairs = Vec::new();
    let mut comparisons = 0_usize;
    for may in of(RuleKind::Permission) {
        let size = Size::of(may);
        for (must_not, other) in prohibitions.iter().filter(|(must_not, _)| about_one_request(may, must_not)) {
            // All are counted before the first is compared, so that the order of the rules makes no difference.
            comparisons = comparisons.saturating_add(size.times(*other));
            pairs.push((may, *must_not));
        }
    }
    if comparisons > COMPARISONS_MAX {
        return Some(Void::TooMany);
    }
    pairs.into_iter().find(|(may, must_not)| !apart(may, must_not)).map(|(may, must_not)| Void::Meet(may, must_not))
}

/// How much there is to compare in a rule.
#[derive(Clone, Copy, Default)]
struct Size {
    conditions: usize,
    names: usize,
}

impl Size {
    fn of(rule: &Rule) -> Self {
        let mut size = Self::default();
        rule.constraints.iter().for_each(|constraint| size.add(constraint));
        size
    }

    fn add(&mut self, constraint: &Constraint) {
        self.conditions += 1;
        match constraint {
            Constraint::Logical(logical) => logical.of.iter().for_each(|part| self.add(part)),
            Constraint::Atomic(atomic) => match &atomic.test {
                Test::Recipient(_, ids) => self.names += ids.len(),
                Test::Fact(test) => match &test.ask {
                    Ask::Names(names) => self.names += names.names.len(),
                    Ask::Level { levels, .. } => self.names += levels.len(),
                    Ask::Number(..) | Ask::Instant(..) => {}
                },
                Test::Time(..)
                | Test::Elapsed(..)
                | Test::Count(..)
                | Test::Bytes(..)
                | Test::Records(..)
                | Test::Delay(_)
                | Test::Rate(..)
                | Test::Fields(_)
                | Test::Undecided => {}
            },
        }
    }

    /// How many comparisons it takes to compare each condition of the one with each of the other: names are walked
    /// through side by side.
    fn times(self, other: Self) -> usize {
        let each = self.conditions.saturating_mul(other.conditions);
        let ours = self.names.saturating_mul(other.conditions);
        let theirs = other.names.saturating_mul(self.conditions);
        each.saturating_add(ours).saturating_add(theirs)
    }
}

/// Whether two rules can be about one request and hold at once, and how many comparisons it takes to find that out.
pub(super) fn together(one: &Rule, other: &Rule) -> (usize, impl FnOnce() -> bool) {
    (Size::of(one).times(Size::of(other)), || about_one_request(one, other) && !apart(one, other))
}

/// Whether a permission and a prohibition may both be about one request. Only where that, or that they hold at once,
/// is ruled out for certain are they not in conflict.
fn about_one_request(may: &Rule, must_not: &Rule) -> bool {
    same_action(may.action, must_not.action) && same_things(may, must_not)
}

/// Whether two rules can never hold at once.
fn apart(may: &Rule, must_not: &Rule) -> bool {
    may.constraints.iter().any(|one| must_not.constraints.iter().any(|other| excludes(one, other)))
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
    match (one, other) {
        (Test::Time(a, x), Test::Time(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
        (Test::Elapsed(a, x), Test::Elapsed(b, y)) => x.order(*y).is_some_and(|order| bounds_exclude(*a, *b, order)),
        (Test::Count(a, x), Test::Count(b, y))
        | (Test::Bytes(a, x), Test::Bytes(b, y))
        | (Test::Records(a, x), Test::Records(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
        (Test::Recipient(true, a), Test::Recipient(true, b)) => !meet(a, b),
        (Test::Recipient(true, a), Test::Recipient(false, b))
        | (Test::Recipient(false, b), Test::Recipient(true, a)) => within(a, b),
        (Test::Fact(one), Test::Fact(other)) if one.operand == other.operand => match (&one.ask, &other.ask) {
            (Ask::Number(a, x), Ask::Number(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
            (Ask::Instant(a, x), Ask::Instant(b, y)) => bounds_exclude(*a, *b, x.cmp(y)),
            (Ask::Level { allowed: a, levels: all }, Ask::Level { allowed: b, levels }) => {
                // In the order of the levels, which is not that of their names.
                all == levels && !a.iter().any(|level| b.contains(level))
            }
            (Ask::Names(a), Ask::Names(b)) => names_exclude(a, b),
            _ => false,
        },
        _ => false,
    }
}

/// The names that two sorted lists have in common: both are walked through once.
fn common<'a>(one: &'a [String], other: &'a [String]) -> impl Iterator<Item = &'a String> {
    let mut rest = other.iter().peekable();
    one.iter().filter(move |name| {
        while rest.next_if(|other| other < name).is_some() {}
        rest.peek() == Some(name)
    })
}

/// Whether two lists of names, sorted and without repetitions, have one in common.
pub(super) fn meet(one: &[String], other: &[String]) -> bool {
    common(one, other).next().is_some()
}

/// Whether all names of a list are in another one, both sorted and without repetitions.
pub(super) fn within(part: &[String], whole: &[String]) -> bool {
    part.len() <= whole.len() && common(part, whole).count() == part.len()
}

/// Names that may have parts lie to one another in more ways than their spelling shows: of them nothing is ruled out,
/// whatever the operator's taxonomy has of them, so that a policy is void for everybody or for nobody.
fn names_exclude(one: &NameTest, other: &NameTest) -> bool {
    use NameRelation::{AllOf, AnyOf, HasPart, NoneOf, PartOf};
    let within = |a: &NameTest, b: &NameTest| within(&a.names, &b.names);
    let meets = |a: &NameTest, b: &NameTest| meet(&a.names, &b.names);
    !one.parts
        && !other.parts
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use kontor_vocab::odrl::PolicyDocument;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn policy(permission: &[Value], prohibition: &[Value]) -> Policy {
        let rule = |constraints: &[Value]| json!([{"action": "use", "constraint": constraints}]);
        let document = json!({"conflict": "invalid", "permission": rule(permission), "prohibition": rule(prohibition)});
        super::super::parse(&PolicyDocument::from_value(document).unwrap()).unwrap()
    }

    /// So many lists of names, of which all share the last one.
    fn lists(side: &str, count: usize, names: usize) -> Vec<Value> {
        let name =
            |list: usize, at: usize| if at + 1 < names { format!("urn:{side}{list}.{at}") } else { "urn:z".to_owned() };
        let list = |list: usize| (0..names).map(|at| name(list, at)).collect::<Vec<_>>();
        let condition =
            |at: usize| json!({"leftOperand": "recipient", "operator": "isAnyOf", "rightOperand": list(at)});
        (0..count).map(condition).collect()
    }

    /// S33: what the largest documents ask for is counted, and not compared.
    #[test]
    fn whether_a_policy_is_void_is_found_out_within_bounds() {
        let (count, names) = (510, 160);
        let large = policy(&lists("a", count, names), &lists("b", count, names));
        let size = Size::of(&large.rules[0]);
        assert_eq!((size.conditions, size.names), (count, count * names));
        assert!(size.times(size) > COMPARISONS_MAX);
        assert_eq!(voided_by(&large), Some(Void::TooMany));
        let with = |ours: &str, theirs: &str| {
            let one = |who: &str| vec![json!({"leftOperand": "recipient", "operator": "eq", "rightOperand": who})];
            let (ours, theirs) = (one(ours), one(theirs));
            policy(&[lists("a", 20, 20), ours].concat(), &[lists("b", 20, 20), theirs].concat())
        };
        assert_eq!(voided_by(&with("urn:me", "urn:other")), None);
        assert!(matches!(voided_by(&with("urn:z", "urn:z")), Some(Void::Meet(..))));
        // Rules that are about different requests are not compared at all.
        let mut large = large;
        large.rules[0].assignee = Some(Thing::one("urn:me"));
        large.rules[1].assignee = Some(Thing::one("urn:other"));
        assert_eq!(voided_by(&large), None);
    }

    proptest! {
        #[test]
        fn names_side_by_side_are_names_each_with_each(one in prop::collection::btree_set(0..12_u8, 0..8), other in prop::collection::btree_set(0..12_u8, 0..8)) {
            let names = |of: &BTreeSet<u8>| of.iter().map(|n| format!("{n:02}")).collect::<Vec<_>>();
            let (a, b) = (names(&one), names(&other));
            prop_assert_eq!(meet(&a, &b), !one.is_disjoint(&other));
            prop_assert_eq!(within(&a, &b), one.is_subset(&other));
        }
    }
}
