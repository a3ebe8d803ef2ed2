//! How what is asked for relates to what was offered.

use std::collections::BTreeSet;

use super::enforce::unenforceable;
use super::model::{Comparison, Constraint, Policy, Rule, RuleKind, Test, Thing};
use super::normalise::terms_digest;

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

/// How `requested` relates to `offered`. Sound, not complete: `Equal` and `Narrower` are only said
/// where they are certain; rules are compared one with one, conditions by their bounds.
#[must_use]
pub fn compare(offered: &Policy, requested: &Policy) -> Relation {
    // The digest leaves out parties and target where they are common to all rules.
    if parties(offered) == parties(requested) && terms_digest(offered) == terms_digest(requested) {
        return Relation::Equal;
    }
    if !unenforceable(offered).is_empty() || !unenforceable(requested).is_empty() {
        return Relation::Unknown;
    }
    match (beyond(requested, offered), beyond(offered, requested)) {
        (None, None) => Relation::Equal,
        (None, Some(_)) => Relation::Narrower,
        (Some(path), None) => Relation::Wider(path),
        (Some(path), Some(_)) => Relation::Conflict(path),
    }
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

/// Where the inner policy may allow what the outer one does not; `None` where it does not.
fn beyond(inner: &Policy, outer: &Policy) -> Option<String> {
    let of = |policy: &'_ Policy, kind: RuleKind| -> Vec<Rule> {
        policy.rules.iter().filter(|rule| rule.kind == kind).cloned().collect()
    };
    let outer_permissions = of(outer, RuleKind::Permission);
    for rule in of(inner, RuleKind::Permission) {
        if outer_permissions.iter().any(|other| within(&rule, inner, other, outer).is_none()) {
            continue;
        }
        // The condition is the better place where there is only one rule to compare with.
        let place = match outer_permissions.as_slice() {
            [only] => within(&rule, inner, only, outer).flatten(),
            _ => None,
        };
        return Some(place.unwrap_or(rule.path));
    }
    // What was prohibited must stay so.
    let kept = of(inner, RuleKind::Prohibition);
    for rule in of(outer, RuleKind::Prohibition) {
        if !kept.iter().any(|other| within(&rule, outer, other, inner).is_none()) {
            return Some(kept.first().map_or_else(|| "prohibition".to_owned(), |rule| rule.path.clone()));
        }
    }
    None
}

/// `None` where the one rule covers nothing that the other does not. Otherwise the place of the
/// inner condition that is too wide, where there is one.
fn within(inner: &Rule, inner_policy: &Policy, outer: &Rule, outer_policy: &Policy) -> Option<Option<String>> {
    let covered = |inner: Option<&str>, outer: Option<&str>| outer.is_none() || inner == outer;
    let same = inner.action == outer.action
        && covered(target(inner, inner_policy), target(outer, outer_policy))
        && covered(assignee(inner, inner_policy), assignee(outer, outer_policy));
    if !same {
        return Some(None);
    }
    let too_wide = outer.constraints.iter().find(|wanted| !implied(&inner.constraints, wanted))?;
    let left = match too_wide {
        Constraint::Atomic(atomic) => Some(atomic.left),
        Constraint::Logical(_) => None,
    };
    let place = inner.constraints.iter().find_map(|constraint| match constraint {
        Constraint::Atomic(atomic) if Some(atomic.left) == left => Some(atomic.path.clone()),
        Constraint::Atomic(_) | Constraint::Logical(_) => None,
    });
    Some(place)
}

/// Whether conditions that all hold make another one hold.
fn implied(given: &[Constraint], wanted: &Constraint) -> bool {
    use super::model::LogicalOperand::{And, AndSequence, Or, Xone};
    if let Constraint::Logical(logical) = wanted {
        let parts = match logical.operand {
            And => logical.of.iter().all(|part| implied(given, part)),
            Or => logical.of.iter().any(|part| implied(given, part)),
            Xone | AndSequence => false,
        };
        if parts {
            return true;
        }
    }
    given.iter().any(|have| match (have, wanted) {
        (Constraint::Atomic(have), Constraint::Atomic(wanted)) => test_implies(&have.test, &wanted.test),
        (Constraint::Logical(have), _) => match have.operand {
            And => implied(&have.of, wanted),
            Or => have.of.iter().all(|part| implied(std::slice::from_ref(part), wanted)),
            Xone | AndSequence => super::normalise::same_condition(have, wanted),
        },
        (Constraint::Atomic(_), Constraint::Logical(_)) => false,
    })
}

fn test_implies(have: &Test, wanted: &Test) -> bool {
    match (have, wanted) {
        (Test::Time(a, x), Test::Time(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Test::Count(a, x), Test::Count(b, y)) => bound_implies(*a, *b, x.cmp(y)),
        (Test::Elapsed(a, x), Test::Elapsed(b, y)) => x.order(*y).is_some_and(|order| bound_implies(*a, *b, order)),
        (Test::Recipient(true, a), Test::Recipient(true, b)) => a.iter().all(|id| b.contains(id)),
        (Test::Recipient(false, a), Test::Recipient(false, b)) => b.iter().all(|id| a.contains(id)),
        (Test::Recipient(true, a), Test::Recipient(false, b)) => a.iter().all(|id| !b.contains(id)),
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
