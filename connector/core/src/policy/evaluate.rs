//! The decision: default deny, prohibition wins, unknown never allows.
//!
//! A policy is first *settled* for a request: rules that do not concern it fall away, and every
//! condition becomes a comparison of the time or of the count of uses with a constant. What is
//! left is cheap to ask again, which is how the exact end of a decision is found.

use jiff::{SignedDuration, Timestamp};
use kontor_vocab::context::compact_term;
use kontor_vocab::odrl::terms::action_term;

use super::enforce;
use super::model::{Atomic, Comparison, Constraint, LogicalOperand, Policy, Rule, RuleKind, Test, Thing};
use super::parse::clip;
use super::{Decision, Reason, Request, World};

/// Most reasons that a decision gives.
pub const REASONS_MAX: usize = 128;

/// Decides. Total: never panics, never waits.
#[must_use]
pub fn evaluate(policy: &Policy, request: &Request, world: &World) -> Decision {
    let settled = Settled::new(policy, request, world.agreed_at);
    let allowed = settled.allows(world.now, world.uses);
    Decision {
        allowed,
        valid_until: settled.turns(allowed, world),
        uses_max: settled.uses_max(world),
        reasons: Reasons::of(policy, request, world, allowed),
    }
}

/// Whether the request is not ruled out for good: whether there is a time from `now` on at which
/// the policy may allow it, for an agreement and a count of uses still to come. For catalogues: an
/// offer of which this is false has nothing left to offer to this participant.
#[must_use]
pub fn could_allow(policy: &Policy, request: &Request, now: Timestamp) -> bool {
    let settled = Settled::new(policy, request, None);
    std::iter::once(now).chain(settled.instants_after(now)).any(|at| settled.may_allow(at))
}

/// The first instant from `world.now` on at which the request is allowed, if nothing but time
/// changes; `None` where it never is.
#[must_use]
pub fn first_allowed(policy: &Policy, request: &Request, world: &World) -> Option<Timestamp> {
    let settled = Settled::new(policy, request, world.agreed_at);
    let mut instants = settled.instants_after(world.now);
    instants.insert(0, world.now);
    instants.into_iter().find(|at| settled.allows(*at, world.uses))
}

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn of(known: bool) -> Self {
        if known { Self::True } else { Self::False }
    }

    pub(super) fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::True;
        for truth in truths {
            match truth {
                Self::False => return Self::False,
                Self::Unknown => all = Self::Unknown,
                Self::True => {}
            }
        }
        all
    }

    fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Self::False;
        for truth in truths {
            match truth {
                Self::True => return Self::True,
                Self::Unknown => any = Self::Unknown,
                Self::False => {}
            }
        }
        any
    }

    fn exactly_one(truths: impl IntoIterator<Item = Self>) -> Self {
        let (mut yes, mut unknown) = (0_usize, false);
        for truth in truths {
            match truth {
                Self::True => yes += 1,
                Self::Unknown => unknown = true,
                Self::False => {}
            }
        }
        // Two that hold are too many, whatever the unknown ones are.
        match (yes, unknown) {
            (2.., _) => Self::False,
            (_, true) => Self::Unknown,
            (yes, false) => Self::of(yes == 1),
        }
    }

    /// All of them, in an order that nobody watched.
    fn in_sequence(truths: impl IntoIterator<Item = Self>) -> Self {
        match Self::all(truths) {
            Self::False => Self::False,
            Self::True | Self::Unknown => Self::Unknown,
        }
    }
}

/// A condition of which only time and count are open.
enum Node {
    Known(Truth),
    Time(Comparison, Timestamp),
    Count(Comparison, u64),
    Logical(LogicalOperand, Vec<Self>),
}

impl Node {
    fn new(constraint: &Constraint, request: &Request, agreed_at: Option<Timestamp>) -> Self {
        match constraint {
            Constraint::Atomic(atomic) => Self::atomic(&atomic.test, request, agreed_at),
            Constraint::Logical(logical) => {
                Self::Logical(logical.operand, Self::several(&logical.of, request, agreed_at))
            }
        }
    }

    fn several(constraints: &[Constraint], request: &Request, agreed_at: Option<Timestamp>) -> Vec<Self> {
        constraints.iter().map(|constraint| Self::new(constraint, request, agreed_at)).collect()
    }

    fn atomic(test: &Test, request: &Request, agreed_at: Option<Timestamp>) -> Self {
        match test {
            Test::Time(comparison, at) => Self::Time(*comparison, *at),
            Test::Elapsed(comparison, span) => match agreed_at {
                // "The time since the agreement is at most D" is "the time is at most agreement + D".
                Some(agreed_at) => match span.after(agreed_at) {
                    Some(at) => Self::Time(*comparison, at),
                    None => Self::Known(Truth::Unknown),
                },
                None => Self::Known(Truth::Unknown),
            },
            Test::Count(comparison, n) => Self::Count(*comparison, *n),
            Test::Recipient(inside, ids) => {
                Self::Known(Truth::of(ids.iter().any(|id| id == request.assignee.as_str()) == *inside))
            }
            Test::Undecided => Self::Known(Truth::Unknown),
        }
    }

    fn truth(&self, now: Timestamp, uses: Option<u64>) -> Truth {
        match self {
            Self::Known(truth) => *truth,
            Self::Time(comparison, at) => Truth::of(comparison.holds(&now, at)),
            Self::Count(comparison, n) => match uses {
                Some(uses) => Truth::of(comparison.holds(&uses, n)),
                None => Truth::Unknown,
            },
            Self::Logical(operand, of) => {
                let truths = of.iter().map(|node| node.truth(now, uses));
                match operand {
                    LogicalOperand::And => Truth::all(truths),
                    LogicalOperand::Or => Truth::any(truths),
                    LogicalOperand::Xone => Truth::exactly_one(truths),
                    LogicalOperand::AndSequence => Truth::in_sequence(truths),
                }
            }
        }
    }

    fn visit(&self, see: &mut impl FnMut(&Self)) {
        see(self);
        if let Self::Logical(_, of) = self {
            of.iter().for_each(|node| node.visit(see));
        }
    }
}

/// A policy reduced to what one request asks of it.
struct Settled {
    permissions: Vec<Node>,
    prohibitions: Vec<Node>,
    /// Something about the policy as a whole that cannot be held to: nothing is allowed under it.
    blocked: bool,
}

impl Settled {
    fn new(policy: &Policy, request: &Request, agreed_at: Option<Timestamp>) -> Self {
        let mut settled = Self {
            permissions: Vec::new(),
            prohibitions: Vec::new(),
            blocked: !enforce::policy_problems(policy).is_empty(),
        };
        for rule in &policy.rules {
            let covers = covers(rule, request);
            if covers == Truth::False {
                continue;
            }
            let mut all = Node::several(&rule.constraints, request, agreed_at);
            if covers == Truth::Unknown {
                all.push(Node::Known(Truth::Unknown));
            }
            let node = Node::Logical(LogicalOperand::And, all);
            match rule.kind {
                RuleKind::Permission => settled.permissions.push(node),
                RuleKind::Prohibition => settled.prohibitions.push(node),
                RuleKind::Obligation | RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => {
                    settled.blocked = true;
                }
            }
        }
        settled
    }

    fn allows(&self, now: Timestamp, uses: Option<u64>) -> bool {
        !self.blocked
            && self.permissions.iter().any(|node| node.truth(now, uses) == Truth::True)
            && self.prohibitions.iter().all(|node| node.truth(now, uses) == Truth::False)
    }

    /// As [`Self::allows`], with the benefit of the doubt.
    fn may_allow(&self, now: Timestamp) -> bool {
        !self.blocked
            && self.permissions.iter().any(|node| node.truth(now, None) != Truth::False)
            && self.prohibitions.iter().all(|node| node.truth(now, None) != Truth::True)
    }

    fn visit(&self, mut see: impl FnMut(&Node)) {
        self.permissions.iter().chain(&self.prohibitions).for_each(|node| node.visit(&mut see));
    }

    /// Every instant after `now` at which a condition can change: the instant that it names, and
    /// the next one. Between two neighbours nothing changes.
    fn instants_after(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut instants = Vec::new();
        self.visit(|node| {
            if let Node::Time(_, at) = node {
                instants.push(*at);
                instants.extend(at.checked_add(SignedDuration::from_nanos(1)));
            }
        });
        instants.retain(|at| *at > now);
        instants.sort_unstable();
        instants.dedup();
        instants
    }

    /// The first instant after now at which the decision is another one.
    fn turns(&self, allowed: bool, world: &World) -> Option<Timestamp> {
        self.instants_after(world.now).into_iter().find(|at| self.allows(*at, world.uses) != allowed)
    }

    /// The largest count that is allowed without a gap before it; `None` without an end, and
    /// where no condition counts.
    fn uses_max(&self, world: &World) -> Option<u64> {
        let mut counts = vec![1];
        let mut counted = false;
        self.visit(|node| {
            if let Node::Count(_, n) = node {
                counted = true;
                counts.push(*n);
                counts.extend(n.checked_add(1));
            }
        });
        if !counted {
            return None;
        }
        // From the present use on where it is allowed, from the first use on where it is not.
        let from = world.uses.filter(|uses| self.allows(world.now, Some(*uses))).unwrap_or(1);
        counts.push(from);
        counts.retain(|n| *n >= from);
        counts.sort_unstable();
        counts.dedup();
        counts.into_iter().find(|n| !self.allows(world.now, Some(*n))).map(|n| n.saturating_sub(1))
    }
}

/// Whether a condition holds, for all that is known.
pub(super) fn truth(constraint: &Constraint, request: &Request, world: &World) -> Truth {
    Node::new(constraint, request, world.agreed_at).truth(world.now, world.uses)
}

/// Whether a rule is about the request: action, target and assignee.
pub(super) fn covers(rule: &Rule, request: &Request) -> Truth {
    let narrowed = !rule.action_refinements.is_empty() || !rule.duties.is_empty() || !rule.parties.is_empty();
    Truth::all([
        covers_action(rule, &request.action),
        covers_thing(rule.target.as_ref(), request.target.as_deref()),
        covers_thing(rule.assignee.as_ref(), Some(request.assignee.as_str())),
        // A prohibition that is infringed has remedies, but it is not thereby less of a prohibition.
        if narrowed && (rule.kind == RuleKind::Permission || rule.duties.is_empty()) {
            Truth::Unknown
        } else {
            Truth::True
        },
    ])
}

pub(super) fn covers_action(rule: &Rule, asked: &str) -> Truth {
    let asked = compact_term(asked);
    if is_part_of(&asked, rule.action) {
        return Truth::True;
    }
    // To prohibit a part is to leave open whether the whole may be done: nobody watches which part is.
    match rule.kind {
        RuleKind::Prohibition if is_part_of(rule.action, &asked) => Truth::Unknown,
        RuleKind::Permission
        | RuleKind::Prohibition
        | RuleKind::Obligation
        | RuleKind::Duty
        | RuleKind::Remedy
        | RuleKind::Consequence => Truth::False,
    }
}

/// Whether one action is another or is included in it.
fn is_part_of(part: &str, whole: &str) -> bool {
    let mut at = action_term(part);
    while let Some(term) = at {
        if term.name == whole {
            return true;
        }
        at = term.included_in.and_then(action_term);
    }
    false
}

pub(super) fn covers_thing(rule: Option<&Thing>, asked: Option<&str>) -> Truth {
    match (rule, asked) {
        (None, _) => Truth::True,
        (Some(thing), Some(asked)) => match thing.as_one() {
            Some(id) => Truth::of(id == asked),
            None => Truth::Unknown,
        },
        (Some(_), None) => Truth::Unknown,
    }
}

/// Says why, rule by rule.
struct Reasons<'a> {
    request: &'a Request,
    world: &'a World,
    reasons: Vec<Reason>,
}

impl<'a> Reasons<'a> {
    fn of(policy: &Policy, request: &'a Request, world: &'a World, allowed: bool) -> Vec<Reason> {
        let mut says = Self { request, world, reasons: Vec::new() };
        for problem in enforce::policy_problems(policy) {
            says.say(&problem.path, format!("{}: nothing is allowed under such a policy", problem.message));
        }
        let covering = |kind: RuleKind| {
            policy.rules.iter().filter(move |rule| rule.kind == kind && covers(rule, request) != Truth::False)
        };
        for rule in covering(RuleKind::Prohibition) {
            match says.truth_of(rule) {
                Truth::False => {}
                Truth::True => says.say(&rule.path, format!("prohibits `{}` now, and a prohibition wins", rule.action)),
                Truth::Unknown => {
                    says.say(&rule.path, format!("may prohibit `{}`, and what is unknown never allows", rule.action));
                }
            }
            if !allowed {
                says.constraints(&rule.constraints, false);
            }
        }
        let mut any = false;
        for rule in covering(RuleKind::Permission) {
            any = true;
            let truth = says.truth_of(rule);
            if allowed && truth != Truth::True {
                continue;
            }
            match truth {
                Truth::True => says.say(&rule.path, format!("permits `{}`", rule.action)),
                Truth::False => says.say(&rule.path, format!("would permit `{}`, but not now", rule.action)),
                Truth::Unknown => {
                    says.say(&rule.path, format!("would permit `{}`, but not all of it is known", rule.action));
                    says.unknown_parts(rule);
                }
            }
            says.constraints(&rule.constraints, allowed);
        }
        if !any {
            says.no_permission(policy);
        }
        says.reasons
    }

    fn say(&mut self, path: &str, message: impl Into<String>) {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(Reason { path: path.to_owned(), message: message.into() });
        }
    }

    fn truth(&self, constraint: &Constraint) -> Truth {
        truth(constraint, self.request, self.world)
    }

    fn truth_of(&self, rule: &Rule) -> Truth {
        let conditions = rule.constraints.iter().map(|constraint| self.truth(constraint));
        Truth::all(std::iter::once(covers(rule, self.request)).chain(conditions))
    }

    fn no_permission(&mut self, policy: &Policy) {
        let asked = clip(&self.request.action);
        self.say(
            "permission",
            format!("no permission is about this request for `{asked}`, and what is not permitted is denied"),
        );
        for rule in policy.rules.iter().filter(|rule| rule.kind == RuleKind::Permission) {
            let mut asked = Vec::new();
            if covers_action(rule, &self.request.action) == Truth::False {
                asked.push(format!("the action `{}`", rule.action));
            }
            for (thing, what, found) in [
                (&rule.target, "target", self.request.target.as_deref()),
                (&rule.assignee, "assignee", Some(self.request.assignee.as_str())),
            ] {
                if let Some(thing) = thing
                    && covers_thing(Some(thing), found) != Truth::True
                {
                    asked.push(format!("the {what} `{}`", clip(&thing.id)));
                }
            }
            self.say(&rule.path, format!("would have passed for {}", asked.join(" and ")));
        }
    }

    fn unknown_parts(&mut self, rule: &Rule) {
        for problem in enforce::rule_problems(rule) {
            self.say(&problem.path, problem.message);
        }
    }

    /// What was found of each condition: all of them, or those that do not hold.
    fn constraints(&mut self, constraints: &[Constraint], all: bool) {
        for constraint in constraints {
            let truth = self.truth(constraint);
            if !all && truth == Truth::True {
                continue;
            }
            match constraint {
                Constraint::Atomic(atomic) => {
                    let message = self.atomic(atomic, truth);
                    self.say(&atomic.path, message);
                }
                Constraint::Logical(logical) => {
                    let of = logical.of.len();
                    let (wanted, holding) = match logical.operand {
                        LogicalOperand::And => ("all", self.holding(&logical.of)),
                        LogicalOperand::Or => ("at least one", self.holding(&logical.of)),
                        LogicalOperand::Xone => ("exactly one", self.holding(&logical.of)),
                        LogicalOperand::AndSequence => ("all, in this order,", self.holding(&logical.of)),
                    };
                    self.say(&logical.path, format!("{wanted} of {of} conditions must hold; {holding} do"));
                    self.constraints(&logical.of, all || logical.operand == LogicalOperand::Xone);
                }
            }
        }
    }

    fn holding(&self, constraints: &[Constraint]) -> usize {
        constraints.iter().filter(|constraint| self.truth(constraint) == Truth::True).count()
    }

    /// What was found and what is asked for.
    fn atomic(&self, atomic: &Atomic, truth: Truth) -> String {
        let verdict = match truth {
            Truth::True => "holds",
            Truth::False => "does not hold",
            Truth::Unknown => "is unknown",
        };
        let wanted = wanted(atomic);
        match &atomic.test {
            Test::Time(..) => format!("{verdict}: the time is {}, and {wanted} is asked for", self.world.now),
            Test::Elapsed(_, span) => match self.world.agreed_at {
                Some(agreed) => match span.after(agreed) {
                    Some(at) => format!(
                        "{verdict}: the agreement was made at {agreed}, the time is {}, and {wanted} (reached at {at}) is asked for",
                        self.world.now
                    ),
                    None => format!("{verdict}: {wanted} is beyond the calendar"),
                },
                None => format!("{verdict}: there is no agreement yet, and {wanted} is asked for"),
            },
            Test::Count(..) => match self.world.uses {
                Some(uses) => format!("{verdict}: this is use {uses}, and {wanted} is asked for"),
                None => format!("{verdict}: the uses were not counted, and {wanted} is asked for"),
            },
            Test::Recipient(..) => {
                format!("{verdict}: the data would go to `{}`, and {wanted} is asked for", self.request.assignee)
            }
            Test::Undecided => format!(
                "{verdict}: this connector does not decide `{}` with `{}`",
                atomic.left,
                atomic.operator.as_str()
            ),
        }
    }
}

/// What a comparison asks for, in words.
pub(super) fn wanted(atomic: &Atomic) -> String {
    match &atomic.test {
        Test::Time(comparison, at) => match comparison {
            Comparison::Eq => format!("exactly {at}"),
            Comparison::Neq => format!("any time but {at}"),
            Comparison::Gt => format!("a time after {at}"),
            Comparison::Gteq => format!("{at} or later"),
            Comparison::Lt => format!("a time before {at}"),
            Comparison::Lteq => format!("{at} or earlier"),
        },
        Test::Elapsed(comparison, span) => match comparison {
            Comparison::Eq => format!("exactly {span} after the agreement"),
            Comparison::Neq => format!("any time but {span} after the agreement"),
            Comparison::Gt => format!("more than {span} after the agreement"),
            Comparison::Gteq => format!("at least {span} after the agreement"),
            Comparison::Lt => format!("less than {span} after the agreement"),
            Comparison::Lteq => format!("at most {span} after the agreement"),
        },
        Test::Count(comparison, n) => match comparison {
            Comparison::Eq => format!("use number {n}"),
            Comparison::Neq => format!("any use but number {n}"),
            Comparison::Gt => format!("a use after number {n}"),
            Comparison::Gteq => format!("use number {n} or a later one"),
            Comparison::Lt => format!("fewer than {n} uses"),
            Comparison::Lteq => format!("at most {n} uses"),
        },
        Test::Recipient(inside, ids) => {
            let ids: Vec<String> = ids.iter().map(|id| format!("`{}`", clip(id))).collect();
            let which = if *inside { "one of" } else { "none of" };
            format!("{which} {}", ids.join(", "))
        }
        Test::Undecided => {
            let values: Vec<String> = atomic.right.iter().map(|value| format!("`{}`", clip(&value.text))).collect();
            format!("`{}` {} {}", atomic.left, atomic.operator.as_str(), values.join(", "))
        }
    }
}
