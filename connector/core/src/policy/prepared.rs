//! A policy made ready to be asked many times: what concerns the time alone is one set of instants, and the counts
//! that matter are known. [`evaluate`](super::evaluate) asks the same way, once.

use std::borrow::Cow;

use jiff::Timestamp;

use super::conflict;
use super::duty::{DueDuty, DutyKind, DutyState, DutyTerm, When};
use super::enforce;
use super::evaluate::{Truth, asked_action, covers_by};
use super::model::{Constraint, LogicalOperand, Policy, Rule, RuleKind, Test};
use super::permit::{Rate, StreamTerms, Transform};
use super::premise::{self, At, duty_turns_after, test_turns_after, tested};
use super::times::Times;
use super::{Problem, Request, World};

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
    /// What about the policy as a whole cannot be held to: with one of them nothing is allowed under it.
    problems: Vec<Problem>,
    /// A permission that holds wins over every prohibition.
    permission_wins: bool,
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
    /// Whether it needs more than its conditions: membership in collections, duties.
    premises: bool,
    /// Whether a decision may bring burdens or duties of it.
    burdened: bool,
    /// How many of its comparisons are with what was moved.
    measured: usize,
    /// What it takes to ask for its burdens once, as a number of comparisons.
    weight: usize,
}

/// Most comparisons that are made to find out whether burdens turn.
const COMPARISONS_MAX: usize = 1 << 20;
/// What a rule with all that hangs from it weighs by itself, as a number of comparisons.
const RULE_WEIGHT: usize = 16;

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
                let mut ready = Ready {
                    index,
                    condition,
                    counts,
                    premises: premise::any(rule),
                    burdened: rule.kind == RuleKind::Permission && !rule.duties.is_empty(),
                    measured: 0,
                    weight: RULE_WEIGHT * (1 + rule.duties.len()),
                };
                ready.weigh(rule.kind == RuleKind::Permission);
                ready
            })
            .collect();
        let problems = enforce::policy_problems(&policy);
        let permission_wins = conflict::permission_wins(&policy);
        Self { policy, rules, problems, permission_wins }
    }

    /// What about the policy as a whole cannot be held to.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
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
        Verdict { allowed, valid_until: self.turns(&asked, allowed), uses_max: asked.uses_max(allowed) }
    }

    /// Under which burdens bytes may flow, and which duties come with the decision. A permission without burdens
    /// lifts those of the others; otherwise all are borne that any permission has which holds.
    #[must_use]
    pub fn burdens(&self, request: &Request, world: &World, allowed: bool) -> (StreamTerms, Vec<DueDuty>) {
        self.burdens_at(&self.ask(request, world), world.now, allowed)
    }

    /// The first instant at which the decision is another one.
    fn turns(&self, asked: &Asked<'_>, allowed: bool) -> Option<Timestamp> {
        let world = asked.world;
        let mut instants = asked.instants_from(world.now);
        if asked.bears_the_same(allowed) {
            return instants.find(|at| asked.allows(*at, world.uses) != allowed);
        }
        let borne = |at: Timestamp| {
            let (terms, duties) = self.burdens_at(asked, at, allowed);
            // Under which burdens bytes would flow matters only where they do.
            (allowed.then_some(terms), duties.into_iter().map(|due| (due.key, due.state)).collect::<Vec<_>>())
        };
        let (mut now, mut left) = (None, COMPARISONS_MAX);
        instants.find(|at| {
            if asked.allows(*at, world.uses) != allowed {
                return true;
            }
            // Too much to find out whether something turns: then it may.
            let Some(rest) = left.checked_sub(asked.weight()) else { return true };
            left = rest;
            *now.get_or_insert_with(|| borne(world.now)) != borne(*at)
        })
    }

    fn burdens_at(&self, asked: &Asked<'_>, now: Timestamp, allowed: bool) -> (StreamTerms, Vec<DueDuty>) {
        let uses = asked.world.uses;
        let at = asked.at(now, uses);
        let mut borne: Option<Burdens> = None;
        for one in asked.rules.iter().filter(|(rule, ..)| rule.kind == RuleKind::Permission) {
            let (rule, ready, about) = one;
            let truth = if allowed {
                asked.truth(one, now, uses)
            } else {
                // What stands between a denial and its use are the duties that are still to be done.
                Truth::all([ready.condition.truth(asked, now, uses), *about])
            };
            if truth != Truth::True {
                continue;
            }
            let own = Burdens::of(rule, at, allowed);
            borne = Some(match borne {
                Some(so_far) if allowed && (own.is_empty() || so_far.is_empty()) => Burdens::default(),
                Some(so_far) => so_far.and(own),
                None => own,
            });
        }
        let mut burdens = borne.unwrap_or_default();
        for (duty, about) in &asked.obligations {
            if premise::obliges(duty, *about, at) != Truth::False {
                burdens.duty(duty, at, allowed);
            }
        }
        for rule in asked.infringed.iter().filter(|rule| premise::made_good(rule, at) != Truth::True) {
            burdens.duties.extend(open(&rule.duties, at));
        }
        burdens.duties.sort_by(|one, other| (&one.key, &one.path).cmp(&(&other.key, &other.path)));
        burdens.duties.dedup_by(|one, other| one.key == other.key);
        if allowed {
            burdens.terms.bytes_max = self.most(asked, now, true);
            burdens.terms.records_max = self.most(asked, now, false);
        }
        (burdens.terms.normalised(), burdens.duties)
    }

    /// The largest quantity that is allowed without a gap before it, from the present one on.
    fn most(&self, asked: &Asked<'_>, now: Timestamp, bytes: bool) -> Option<u64> {
        let (request, world) = (asked.request, asked.world);
        let mut bounds = Vec::new();
        asked.rules.iter().for_each(|(_, ready, _)| ready.condition.quantities(bytes, &mut bounds));
        let from = if bytes { world.bytes } else { world.records }?;
        bounds.retain(|n| *n > from);
        bounds.sort_unstable();
        bounds.dedup();
        let mut at = world.clone();
        let denied = bounds.into_iter().find(|n| {
            if bytes {
                at.bytes = Some(*n)
            } else {
                at.records = Some(*n)
            }
            !self.ask(request, &at).allows(now, world.uses)
        });
        denied.map(|n| n.saturating_sub(1))
    }

    /// The rules that are about a request.
    pub(super) fn ask(&'a self, request: &'a Request, world: &'a World) -> Asked<'a> {
        let mut asked = Asked {
            rules: Vec::new(),
            obligations: Vec::new(),
            infringed: Vec::new(),
            void: !self.problems.is_empty(),
            request,
            world,
        };
        if !world.duties.is_empty() {
            // Whatever it was about, and whoever wins where rules meet: an infringement stands in the way of every use.
            let recorded = |rule: &&Rule| rule.infringement.as_ref().is_some_and(|key| world.duties.get(key).is_some());
            asked.infringed.extend(self.policy.rules.iter().filter(recorded));
        }
        let action = asked_action(&request.action);
        for ready in &self.rules {
            let Some(rule) = self.policy.rules.get(ready.index) else { continue };
            let about = covers_by(rule, request, action);
            if about == Truth::False {
                continue;
            }
            match rule.kind {
                // Where a permission wins, what is prohibited besides, or may be, decides nothing.
                RuleKind::Prohibition if self.permission_wins => {}
                RuleKind::Permission | RuleKind::Prohibition => asked.rules.push((rule, ready, about)),
                RuleKind::Obligation => asked.obligations.push((rule, about)),
                RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => asked.void = true,
            }
        }
        asked
    }
}

impl Ready {
    /// Looks for what the stream bears.
    fn weigh(&mut self, permits: bool) {
        let (mut burdened, mut measured, mut weight) = (false, 0, self.condition.size());
        self.condition.tests(&mut |test| match test {
            Test::Bytes(..) | Test::Records(..) => measured += 1,
            Test::Rate(..) | Test::Delay(_) => burdened = true,
            Test::Fields(fields) => {
                burdened = true;
                if let Transform::Keep { fields } | Transform::Drop { fields } = fields {
                    weight += fields.len();
                }
            }
            Test::Time(..)
            | Test::Elapsed(..)
            | Test::Count(..)
            | Test::Recipient(..)
            | Test::Fact(_)
            | Test::Undecided => {}
        });
        self.burdened |= burdened && permits;
        self.measured = measured;
        self.weight += weight;
    }
}

/// What one request asks of a policy.
pub(super) struct Asked<'a> {
    /// Permissions and prohibitions about it, and whether that is certain.
    rules: Vec<(&'a Rule, &'a Ready, Truth)>,
    /// Obligations about it, which every permission bears, and whether that is certain.
    obligations: Vec<(&'a Rule, Truth)>,
    /// Prohibitions of which an infringement was recorded.
    infringed: Vec<&'a Rule>,
    void: bool,
    request: &'a Request,
    world: &'a World,
}

impl<'a> Asked<'a> {
    fn at(&self, now: Timestamp, uses: Option<u64>) -> At<'a> {
        At { request: self.request, world: self.world, now, uses }
    }

    /// Whether one of its rules is in force.
    fn truth(&self, (rule, ready, about): &(&Rule, &Ready, Truth), now: Timestamp, uses: Option<u64>) -> Truth {
        let premises = if ready.premises { premise::truth(rule, self.at(now, uses)) } else { Truth::True };
        Truth::all([ready.condition.truth(self, now, uses), *about, premises])
    }

    /// Whether it is allowed at an instant, with a count of uses.
    pub(super) fn allows(&self, now: Timestamp, uses: Option<u64>) -> bool {
        self.outcome(now, uses, |truth| truth == Truth::True, |truth| truth == Truth::False)
    }

    /// Whether burdens and duties are the same at all times at which the decision is that one.
    fn bears_the_same(&self, allowed: bool) -> bool {
        if !self.obligations.is_empty() || !self.infringed.is_empty() {
            return false;
        }
        let permissions = || self.rules.iter().filter(|(rule, ..)| rule.kind == RuleKind::Permission);
        if !self.rules.iter().any(|(_, ready, _)| ready.burdened || ready.measured > 0) {
            return true;
        }
        // What the only permission asks for, it asks for whenever it holds.
        let alone = allowed && permissions().nth(1).is_none() && self.world.duties.is_empty();
        alone && self.rules.iter().all(|(_, ready, _)| ready.measured == 0)
    }

    /// What it takes to ask for the burdens once, as a number of comparisons.
    fn weight(&self) -> usize {
        let once: usize = self.rules.iter().map(|(_, ready, _)| ready.weight).sum();
        // Each can turn at what it names and right after it.
        let quantities = self.rules.iter().map(|(_, ready, _)| 2 * ready.measured);
        let owed = self.obligations.len() + self.infringed.len();
        once.saturating_mul(1 + quantities.sum::<usize>()).saturating_add(owed.saturating_mul(RULE_WEIGHT))
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
        for asked in &self.rules {
            let truth = || self.truth(asked, now, uses);
            if asked.0.kind == RuleKind::Permission {
                permitted = permitted || permits(truth());
            } else if !lets_pass(truth()) {
                return false;
            }
        }
        let at = self.at(now, uses);
        let borne = |(duty, about): &(&Rule, Truth)| {
            permits(Truth::any([premise::obliges(duty, *about, at).negated(), premise::done(duty, at)]))
        };
        let obliged = || self.obligations.iter().all(borne);
        let made_good = || self.infringed.iter().all(|rule| permits(premise::made_good(rule, self.at(now, uses))));
        permitted && !self.void && obliged() && made_good()
    }

    /// Every instant after one at which a condition turns, the first one first. Between two neighbours nothing changes.
    pub(super) fn instants_from(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let next = |at: &Timestamp| {
            let conditions = self.rules.iter().filter_map(|(_, ready, _)| ready.condition.turns_after(self, *at));
            let premises = self.rules.iter().filter(|(_, ready, _)| ready.premises);
            let premises = premises.filter_map(|(rule, ..)| premise::turns_after(rule, self.world, *at));
            let duties = self.obligations.iter().flat_map(|(duty, _)| {
                [duty_turns_after(duty, self.world, *at), premise::turns_after(duty, self.world, *at)]
            });
            let infringed =
                self.infringed.iter().filter_map(|rule| premise::infringement_turns_after(rule, self.world, *at));
            conditions.chain(premises).chain(duties.flatten()).chain(infringed).min()
        };
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

/// What comes with a permission.
#[derive(Default)]
struct Burdens {
    terms: StreamTerms,
    duties: Vec<DueDuty>,
}

impl Burdens {
    fn of(rule: &Rule, at: At<'_>, allowed: bool) -> Self {
        let mut burdens = Self::default();
        burdens.conditions(&rule.constraints, at.world);
        rule.duties.iter().for_each(|duty| burdens.duty(duty, at, allowed));
        burdens
    }

    fn duty(&mut self, duty: &Rule, at: At<'_>, allowed: bool) {
        if allowed && let Some(DutyTerm { kind: DutyKind::Transform(transform), .. }) = &duty.term {
            self.terms.transforms.push(transform.clone());
        }
        self.duties.extend(due(duty, at, allowed));
    }

    fn conditions(&mut self, constraints: &[Constraint], world: &World) {
        for constraint in constraints {
            match constraint {
                Constraint::Logical(logical) if logical.operand == LogicalOperand::And => {
                    self.conditions(&logical.of, world);
                }
                Constraint::Logical(_) => {}
                Constraint::Atomic(atomic) => match &atomic.test {
                    Test::Rate(bytes, per) => {
                        self.bear(StreamTerms { rate: Rate::new(*bytes, *per), ..StreamTerms::default() })
                    }
                    Test::Delay(span) => {
                        let not_before = world.agreed_at.and_then(|agreed| span.after(agreed));
                        self.bear(StreamTerms { not_before, ..StreamTerms::default() });
                    }
                    Test::Fields(fields) => self.terms.transforms.push(fields.clone()),
                    // How much is asked of the whole policy, not of one permission.
                    Test::Bytes(..)
                    | Test::Records(..)
                    | Test::Time(..)
                    | Test::Elapsed(..)
                    | Test::Count(..)
                    | Test::Recipient(..)
                    | Test::Fact(_)
                    | Test::Undecided => {}
                },
            }
        }
    }

    fn bear(&mut self, more: StreamTerms) {
        self.terms = std::mem::take(&mut self.terms).stricter(more);
    }

    fn is_empty(&self) -> bool {
        self.terms.is_unrestricted() && self.duties.is_empty()
    }

    fn and(mut self, other: Self) -> Self {
        self.bear(other.terms);
        self.duties.extend(other.duties);
        self
    }
}

/// A duty as it comes with a decision: with an allowed use what is to be done as it begins, during and after it, with a denied one
/// what should have been done before.
fn due(duty: &Rule, at: At<'_>, allowed: bool) -> Vec<DueDuty> {
    let Some(term) = &duty.term else { return Vec::new() };
    let state = premise::state(duty, at.world, at.now);
    let wanted = if allowed {
        match term.kind {
            DutyKind::Transform(_) => false,
            // Whenever it is to be made, it is made as the use begins.
            DutyKind::Log { .. } => true,
            DutyKind::Compensate { .. }
            | DutyKind::ObtainConsent { .. }
            | DutyKind::Inform { .. }
            | DutyKind::Delete { .. }
            | DutyKind::NextPolicy { .. }
            | DutyKind::Count
            | DutyKind::Other { .. } => term.when != When::Before,
        }
    } else {
        premise::done(duty, at) != Truth::True
    };
    let mut all = Vec::new();
    if wanted {
        let (path, key, kind, when) = (duty.path.clone(), term.key.clone(), term.kind.clone(), term.when);
        all.push(DueDuty { path, key, kind, when, state });
    }
    // What follows from not having done it in time.
    if matches!(state, DutyState::Violated | DutyState::Late) {
        all.extend(open(&duty.duties, at));
    }
    all
}

/// Consequences or remedies that are still to be done.
fn open(duties: &[Rule], at: At<'_>) -> Vec<DueDuty> {
    let due = |duty: &Rule| {
        let (term, state) = (duty.term.as_ref()?, premise::state(duty, at.world, at.now));
        let (path, key, kind, when) = (duty.path.clone(), term.key.clone(), term.kind.clone(), term.when);
        (state != DutyState::Fulfilled).then_some(DueDuty { path, key, kind, when, state })
    };
    duties.iter().filter_map(due).collect()
}

/// A condition made ready.
#[derive(Debug, Clone)]
enum Node {
    /// On the time alone.
    Times(Times),
    /// One comparison with something else.
    Test(Test),
    Logical(LogicalOperand, Vec<Self>),
    /// Several that must have come to hold in this order: what their sets of instants have in common does not say it.
    Sequence(Vec<Constraint>),
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
            Constraint::Logical(logical) if logical.operand == LogicalOperand::AndSequence => {
                Self::Sequence(logical.of.clone())
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
                    Self::Test(_) | Self::Logical(..) | Self::Sequence(_) => None,
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
            Self::Test(test) => tested(test, asked.at(now, uses)),
            Self::Logical(operand, of) => Truth::under(*operand, of.iter().map(|node| node.truth(asked, now, uses))),
            Self::Sequence(of) => premise::sequence(of, asked.at(now, uses)),
        }
    }

    /// The first instant after one at which it can be another one.
    fn turns_after(&self, asked: &Asked<'_>, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Times(times) => times.turns_after(at),
            Self::Test(test) => test_turns_after(test, asked.world, at),
            Self::Logical(_, of) => of.iter().filter_map(|node| node.turns_after(asked, at)).min(),
            Self::Sequence(of) => premise::constraints_turn_after(of, asked.world, at),
        }
    }

    /// How many comparisons it is made of, those that follow one another included.
    fn size(&self) -> usize {
        match self {
            Self::Times(_) | Self::Test(_) => 1,
            Self::Logical(_, of) => of.iter().map(Self::size).sum(),
            Self::Sequence(_) => {
                let mut size = 1;
                self.tests(&mut |_| size += 1);
                size
            }
        }
    }

    /// The quantities from which on it can be another one.
    fn quantities(&self, bytes: bool, bounds: &mut Vec<u64>) {
        self.tests(&mut |test| {
            if let (Test::Bytes(_, n), true) | (Test::Records(_, n), false) = (test, bytes) {
                bounds.extend([Some(*n), n.checked_add(1)].into_iter().flatten());
            }
        });
    }

    fn counts(&self, counts: &mut Vec<u64>) {
        self.tests(&mut |test| {
            if let Test::Count(_, n) = test {
                counts.extend([Some(*n), n.checked_add(1)].into_iter().flatten());
            }
        });
    }

    /// Every comparison but those with the time.
    fn tests(&self, see: &mut impl FnMut(&Test)) {
        fn inside(constraint: &Constraint, see: &mut impl FnMut(&Test)) {
            match constraint {
                Constraint::Atomic(atomic) => see(&atomic.test),
                Constraint::Logical(logical) => logical.of.iter().for_each(|part| inside(part, see)),
            }
        }
        match self {
            Self::Times(_) => {}
            Self::Test(test) => see(test),
            Self::Logical(_, of) => of.iter().for_each(|node| node.tests(see)),
            Self::Sequence(of) => of.iter().for_each(|part| inside(part, see)),
        }
    }
}
