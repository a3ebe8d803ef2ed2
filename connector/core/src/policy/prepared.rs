//! A policy made ready to be asked many times: what concerns the time alone is one set of instants, and the counts
//! that matter are known. [`evaluate`](super::evaluate) asks the same way, once.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use super::enforce;
use super::evaluate::{Truth, asked_action, covers_by};
use super::model::{Constraint, LogicalOperand, Policy, Rule, RuleKind, Test};
use super::times::Times;
use super::{Request, World};

/// A policy made ready to be asked many times.
///
/// ```
/// use kontor_core::{id::ParticipantId, policy::{Prepared, Request, World, parse}};
/// # use kontor_vocab::odrl::PolicyDocument;
/// let document: PolicyDocument = serde_json::from_str(r#"{"permission": [{"action": "use"}]}"#).unwrap();
/// let policy = Prepared::new(parse(&document).unwrap());
/// let request =
///     Request { action: "use".into(), assignee: ParticipantId::parse("urn:me").unwrap(), target: None };
/// assert!(policy.decide(&request, &World::default()).allowed);
/// ```
#[derive(Debug, Clone)]
pub struct Prepared<'a> {
    policy: Cow<'a, Policy>,
    rules: Vec<Ready>,
    /// Something about the policy as a whole that cannot be held to: nothing is allowed under it.
    void: bool,
}

/// Allow or deny, and for how long; the reasons are [`evaluate`](super::evaluate)'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// As [`Decision::allowed`](super::Decision::allowed).
    pub allowed: bool,
    /// As [`Decision::valid_until`](super::Decision::valid_until).
    pub valid_until: Option<Timestamp>,
    /// As [`Decision::uses_max`](super::Decision::uses_max).
    pub uses_max: Option<u64>,
}

/// A rule made ready.
#[derive(Debug, Clone)]
struct Ready {
    /// Its place in the policy.
    index: usize,
    condition: Node,
    /// The counts from which on the condition can be another one.
    counts: Vec<u64>,
}

impl<'a> Prepared<'a> {
    /// Makes a policy ready.
    #[must_use]
    pub fn new(policy: Policy) -> Prepared<'static> {
        Prepared::of(Cow::Owned(policy))
    }

    /// Makes a policy ready for as long as somebody else has it.
    #[must_use]
    pub fn borrowed(policy: &'a Policy) -> Self {
        Self::of(Cow::Borrowed(policy))
    }

    fn of(policy: Cow<'a, Policy>) -> Self {
        let rules = policy
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                let of = rule.constraints.iter().map(Node::new).collect();
                let condition = Node::under(LogicalOperand::And, of);
                let mut counts = Vec::new();
                condition.counts(&mut counts);
                Ready { index, condition, counts }
            })
            .collect();
        let void = !enforce::policy_problems(&policy).is_empty();
        Self { policy, rules, void }
    }

    /// The policy itself.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides, without the reasons. Total, as [`evaluate`](super::evaluate) is, and of one mind with it.
    #[must_use]
    pub fn decide(&self, request: &Request, world: &World) -> Verdict {
        let asked = self.ask(request, world);
        let allowed = asked.allows(world.now, world.uses);
        Verdict {
            allowed,
            valid_until: asked.instants_from(world.now).find(|at| asked.allows(*at, world.uses) != allowed),
            uses_max: asked.uses_max(allowed),
        }
    }

    /// The rules that are about a request.
    pub(super) fn ask(&'a self, request: &'a Request, world: &'a World) -> Asked<'a> {
        let mut asked = Asked { rules: Vec::new(), void: self.void, request, world };
        let action = asked_action(&request.action);
        for ready in &self.rules {
            let Some(rule) = self.policy.rules.get(ready.index) else { continue };
            let about = covers_by(rule, request, action);
            if about == Truth::False {
                continue;
            }
            match rule.kind {
                RuleKind::Permission | RuleKind::Prohibition => asked.rules.push((rule, ready, about)),
                RuleKind::Obligation | RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => asked.void = true,
            }
        }
        asked
    }
}

/// What one request asks of a policy.
pub(super) struct Asked<'a> {
    /// Permissions and prohibitions about it, and whether that is certain.
    rules: Vec<(&'a Rule, &'a Ready, Truth)>,
    void: bool,
    request: &'a Request,
    world: &'a World,
}

impl Asked<'_> {
    /// Whether it is allowed at an instant, with a count of uses.
    pub(super) fn allows(&self, now: Timestamp, uses: Option<u64>) -> bool {
        self.outcome(now, uses, |truth| truth == Truth::True, |truth| truth == Truth::False)
    }

    /// As [`Self::allows`], with the benefit of the doubt.
    pub(super) fn may_allow(&self, now: Timestamp) -> bool {
        self.outcome(now, None, |truth| truth != Truth::False, |truth| truth != Truth::True)
    }

    fn outcome(
        &self,
        now: Timestamp,
        uses: Option<u64>,
        permits: impl Fn(Truth) -> bool,
        lets_pass: impl Fn(Truth) -> bool,
    ) -> bool {
        let mut permitted = false;
        for (rule, ready, about) in &self.rules {
            let truth = || match ready.condition.truth(self, now, uses) {
                Truth::True => *about,
                Truth::Unknown => Truth::Unknown,
                Truth::False => Truth::False,
            };
            if rule.kind == RuleKind::Permission {
                permitted = permitted || permits(truth());
            } else if !lets_pass(truth()) {
                return false;
            }
        }
        permitted && !self.void
    }

    /// Every instant after one at which a condition turns, the first one first. Between two neighbours nothing changes.
    pub(super) fn instants_from(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let next =
            |at: &Timestamp| self.rules.iter().filter_map(|(_, ready, _)| ready.condition.turns_after(self, *at)).min();
        std::iter::successors(next(&now), next)
    }

    /// The largest count that is allowed without a gap before it; `None` without an end, and
    /// where no condition counts.
    fn uses_max(&self, allowed: bool) -> Option<u64> {
        if self.rules.iter().all(|(_, ready, _)| ready.counts.is_empty()) {
            return None;
        }
        // From the present use on where it is allowed, from the first use on where it is not.
        let from = self.world.uses.filter(|_| allowed).unwrap_or(1);
        let mut counts = vec![from];
        counts.extend(self.rules.iter().flat_map(|(_, ready, _)| &ready.counts).filter(|n| **n > from));
        counts.sort_unstable();
        counts.dedup();
        counts.into_iter().find(|n| !self.allows(self.world.now, Some(*n))).map(|n| n.saturating_sub(1))
    }
}

/// A condition made ready.
#[derive(Debug, Clone)]
enum Node {
    /// On the time alone.
    Times(Times),
    /// One comparison with something else.
    Test(Test),
    Logical(LogicalOperand, Vec<Self>),
}

impl Node {
    fn new(constraint: &Constraint) -> Self {
        match constraint {
            Constraint::Atomic(atomic) => {
                if let Test::Time(comparison, at) = &atomic.test {
                    Self::Times(Times::that(*comparison, *at))
                } else {
                    Self::Test(atomic.test.clone())
                }
            }
            Constraint::Logical(logical) => Self::under(logical.operand, logical.of.iter().map(Self::new).collect()),
        }
    }

    /// Several conditions under an operand; those on the time alone become one.
    fn under(operand: LogicalOperand, of: Vec<Self>) -> Self {
        let (times, mut others): (Vec<Self>, Vec<Self>) =
            of.into_iter().partition(|node| matches!(node, Self::Times(_)));
        let whole = {
            let sets: Vec<&Times> = times
                .iter()
                .filter_map(|node| match node {
                    Self::Times(times) => Some(times),
                    Self::Test(_) | Self::Logical(..) => None,
                })
                .collect();
            match operand {
                LogicalOperand::And | LogicalOperand::Or if !sets.is_empty() => Times::under(operand, &sets),
                LogicalOperand::Xone if others.is_empty() => Times::under(operand, &sets),
                LogicalOperand::And | LogicalOperand::Or | LogicalOperand::Xone | LogicalOperand::AndSequence => None,
            }
        };
        match whole {
            Some(whole) if others.is_empty() => Self::Times(whole),
            Some(whole) => {
                others.push(Self::Times(whole));
                Self::Logical(operand, others)
            }
            None => {
                others.extend(times);
                Self::Logical(operand, others)
            }
        }
    }

    fn truth(&self, asked: &Asked<'_>, now: Timestamp, uses: Option<u64>) -> Truth {
        match self {
            Self::Times(times) => Truth::of(times.holds(now)),
            Self::Test(test) => tested(test, asked.request, asked.world, now, uses),
            Self::Logical(operand, of) => Truth::under(*operand, of.iter().map(|node| node.truth(asked, now, uses))),
        }
    }

    /// The first instant after one at which it can be another one.
    fn turns_after(&self, asked: &Asked<'_>, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Times(times) => times.turns_after(at),
            Self::Test(test) => test_turns_after(test, asked.world, at),
            Self::Logical(_, of) => of.iter().filter_map(|node| node.turns_after(asked, at)).min(),
        }
    }

    fn counts(&self, counts: &mut Vec<u64>) {
        match self {
            Self::Test(Test::Count(_, n)) => counts.extend([Some(*n), n.checked_add(1)].into_iter().flatten()),
            Self::Times(_) | Self::Test(_) => {}
            Self::Logical(_, of) => of.iter().for_each(|node| node.counts(counts)),
        }
    }
}

/// Whether one comparison holds, for all that is known.
pub(super) fn tested(test: &Test, request: &Request, world: &World, now: Timestamp, uses: Option<u64>) -> Truth {
    match test {
        Test::Time(comparison, at) => Truth::of(comparison.holds(&now, at)),
        // "The time since the agreement is at most D" is "the time is at most agreement + D".
        Test::Elapsed(comparison, span) => match world.agreed_at.and_then(|agreed| span.after(agreed)) {
            Some(at) => Truth::of(comparison.holds(&now, &at)),
            None => Truth::Unknown,
        },
        Test::Count(comparison, n) => match uses {
            Some(uses) => Truth::of(comparison.holds(&uses, n)),
            None => Truth::Unknown,
        },
        Test::Recipient(inside, ids) => Truth::of(ids.iter().any(|id| id == request.assignee.as_str()) == *inside),
        Test::Undecided => Truth::Unknown,
    }
}

/// The first instant after one at which a comparison can be another one.
fn test_turns_after(test: &Test, world: &World, after: Timestamp) -> Option<Timestamp> {
    match test {
        Test::Time(_, at) => turn_of(*at, after),
        Test::Elapsed(_, span) => turn_of(world.agreed_at.and_then(|agreed| span.after(agreed))?, after),
        Test::Count(..) | Test::Recipient(..) | Test::Undecided => None,
    }
}

/// A comparison with an instant can turn at it and right after it.
fn turn_of(at: Timestamp, after: Timestamp) -> Option<Timestamp> {
    if at > after { Some(at) } else { at.checked_add(SignedDuration::from_nanos(1)).ok().filter(|next| *next > after) }
}
