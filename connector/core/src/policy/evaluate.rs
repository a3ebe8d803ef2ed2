//! The decision: default deny, prohibition wins unless the policy says otherwise, unknown never allows.
//!
//! A policy is first made ready ([`super::prepared`]): conditions on the time become sets of
//! instants, so that it is cheap to ask again, which is how the exact end of a decision is found.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kontor_vocab::context::compact_term;
use kontor_vocab::odrl::terms::{ActionTerm, action_term};

use super::conflict;
use super::duty::DutyState;
use super::enforce;
use super::fact::{ASSIGNEE_COLLECTIONS, FactValue, TARGET_COLLECTIONS};
use super::model::{
    Ask, Atomic, Comparison, Constraint, FactTest, LogicalOperand, NameRelation, Policy, Rule, RuleKind, Test, Thing,
};
use super::operand::operand;
use super::parse::clip;
use super::premise::{self, At, Beginning};
use super::prepared::{Prepared, Verdict};
use super::{Decision, Reason, Request, World};

/// Most reasons that a decision gives.
pub const REASONS_MAX: usize = 128;

/// Decides. Total: never panics, never waits.
#[must_use]
pub fn evaluate(policy: &Policy, request: &Request, world: &World) -> Decision {
    let prepared = Prepared::borrowed(policy);
    let Verdict { allowed, valid_until, uses_max } = prepared.decide(request, world);
    let (terms, duties) = prepared.burdens(request, world, allowed);
    Decision {
        allowed,
        valid_until,
        uses_max,
        terms,
        duties,
        depends_on: depends_on(policy, request),
        reasons: Reasons::of(&prepared, request, world, allowed),
    }
}

/// Whether the request is not ruled out for good: whether there is a time from `world.now` on at which
/// the policy may allow it, for an agreement and a count of uses still to come. For catalogues: an
/// offer of which this is false has nothing left to offer to this participant.
#[must_use]
pub fn could_allow(policy: &Policy, request: &Request, world: &World) -> bool {
    let world = World { agreed_at: None, uses: None, ..world.clone() };
    let prepared = Prepared::borrowed(policy);
    let asked = prepared.ask(request, &world);
    std::iter::once(world.now).chain(asked.instants_from(world.now)).any(|at| asked.may_allow(at))
}

/// The first instant from `world.now` on at which the request is allowed, if nothing but time
/// changes; `None` where it never is.
#[must_use]
pub fn first_allowed(policy: &Policy, request: &Request, world: &World) -> Option<Timestamp> {
    let prepared = Prepared::borrowed(policy);
    let asked = prepared.ask(request, world);
    std::iter::once(world.now).chain(asked.instants_from(world.now)).find(|at| asked.allows(*at, world.uses))
}

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub(super) fn of(known: bool) -> Self {
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

    /// Several under an operand.
    pub(super) fn under(operand: LogicalOperand, truths: impl IntoIterator<Item = Self>) -> Self {
        match operand {
            LogicalOperand::And => Self::all(truths),
            LogicalOperand::Or => Self::any(truths),
            LogicalOperand::Xone => Self::exactly_one(truths),
            LogicalOperand::AndSequence => Self::in_sequence(truths),
        }
    }

    pub(super) fn any(truths: impl IntoIterator<Item = Self>) -> Self {
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

    /// The contrary.
    pub(super) fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }

    /// All of them, in an order that their truths alone do not tell.
    fn in_sequence(truths: impl IntoIterator<Item = Self>) -> Self {
        match Self::all(truths) {
            Self::False => Self::False,
            Self::True | Self::Unknown => Self::Unknown,
        }
    }
}

/// Whether a condition holds, for all that is known.
pub(super) fn truth(constraint: &Constraint, request: &Request, world: &World) -> Truth {
    premise::constraint(constraint, At { request, world, now: world.now, uses: world.uses })
}

/// Whether a rule is about the request: action, target and assignee.
pub(super) fn covers(rule: &Rule, request: &Request) -> Truth {
    covers_by(rule, request, asked_action(&request.action))
}

/// As [`covers`], for an action that was looked up once for all rules.
pub(super) fn covers_by(rule: &Rule, request: &Request, action: Option<&'static ActionTerm>) -> Truth {
    let things = [
        covers_thing(rule.target.as_ref(), request.target.as_deref()),
        covers_thing(rule.assignee.as_ref(), Some(request.assignee.as_str())),
    ];
    if rule.kind == RuleKind::Obligation {
        // Its action is what must be done, not what is asked for.
        return Truth::all(things);
    }
    let narrowed = !rule.action_refinements.is_empty() || !rule.parties.is_empty();
    // A prohibition that is infringed has remedies, but it is not thereby less of a prohibition.
    let unclear = narrowed && (rule.kind == RuleKind::Permission || rule.duties.is_empty());
    let whole = if unclear { Truth::Unknown } else { Truth::True };
    Truth::all([covers_term(rule, action), whole].into_iter().chain(things))
}

pub(super) fn covers_action(rule: &Rule, asked: &str) -> Truth {
    covers_term(rule, asked_action(asked))
}

/// The action that is asked for, where it is known.
pub(super) fn asked_action(asked: &str) -> Option<&'static ActionTerm> {
    action_term(asked).or_else(|| action_term(&compact_term(asked)))
}

fn covers_term(rule: &Rule, asked: Option<&'static ActionTerm>) -> Truth {
    let Some(asked) = asked else { return Truth::False };
    if is_part_of(asked, rule.action) {
        return Truth::True;
    }
    // To prohibit a part is to leave open whether the whole may be done: nobody watches which part is.
    // What the IDS adds to ODRL's actions is done to data in use.
    let part = || match action_term(rule.action) {
        Some(action) => is_part_of(action, asked.name),
        None => asked.name == "use",
    };
    if rule.kind == RuleKind::Prohibition && part() { Truth::Unknown } else { Truth::False }
}

/// Whether one action is another or is included in it.
pub(super) fn is_part_of(part: &'static ActionTerm, whole: &str) -> bool {
    let mut at = Some(part);
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
            // Whether it belongs to the collection is asked of the facts.
            None if thing.collection => Truth::True,
            None => Truth::of(thing.id == asked),
        },
        (Some(_), None) => Truth::Unknown,
    }
}

/// The operands that the rules about a request ask for.
fn depends_on(policy: &Policy, request: &Request) -> BTreeSet<String> {
    fn collect(constraint: &Constraint, names: &mut BTreeSet<String>) {
        match constraint {
            Constraint::Atomic(atomic) => {
                names.insert(atomic.left.to_string());
            }
            Constraint::Logical(logical) => logical.of.iter().for_each(|constraint| collect(constraint, names)),
        }
    }
    let mut names = BTreeSet::new();
    let decides = |rule: &&Rule| rule.kind != RuleKind::Prohibition || !conflict::permission_wins(policy);
    for rule in policy.rules.iter().filter(decides).filter(|rule| covers(rule, request) != Truth::False) {
        for (thing, collections) in [(&rule.target, TARGET_COLLECTIONS), (&rule.assignee, ASSIGNEE_COLLECTIONS)] {
            let Some(thing) = thing else { continue };
            names.extend(thing.collection.then(|| collections.to_owned()));
            thing.refinements.iter().for_each(|constraint| collect(constraint, &mut names));
        }
        if rule.kind == RuleKind::Obligation {
            // What it says of a use is when it is to be done.
            continue;
        }
        rule.constraints.iter().for_each(|constraint| collect(constraint, &mut names));
    }
    names
}

/// Says why, rule by rule.
struct Reasons<'a> {
    request: &'a Request,
    world: &'a World,
    reasons: Vec<Reason>,
}

impl<'a> Reasons<'a> {
    fn of(prepared: &Prepared<'_>, request: &'a Request, world: &'a World, allowed: bool) -> Vec<Reason> {
        let policy = prepared.policy();
        let mut says = Self { request, world, reasons: Vec::new() };
        for problem in prepared.problems() {
            says.say(&problem.path, format!("{}: nothing is allowed under such a policy", problem.message));
        }
        for rule in &policy.rules {
            says.infringement(rule);
        }
        let covering = |kind: RuleKind| {
            policy.rules.iter().filter(move |rule| rule.kind == kind && covers(rule, request) != Truth::False)
        };
        let overridden = conflict::permission_wins(policy);
        for rule in covering(RuleKind::Prohibition) {
            if overridden {
                if allowed && says.truth_of(rule) != Truth::False {
                    let message = format!(
                        "would prohibit `{}`, but the policy says that a permission wins (`perm`)",
                        rule.action
                    );
                    says.say(&rule.path, message);
                }
                continue;
            }
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
        for rule in covering(RuleKind::Obligation).filter(|_| !allowed) {
            says.obligation(rule);
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
            if !allowed {
                says.premises(rule);
            }
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
        let at = At { request: self.request, world: self.world, now: self.world.now, uses: self.world.uses };
        Truth::all([covers(rule, self.request), premise::truth(rule, at)].into_iter().chain(conditions))
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

    /// What is missing beside the conditions.
    fn premises(&mut self, rule: &Rule) {
        let at = At { request: self.request, world: self.world, now: self.world.now, uses: self.world.uses };
        for (thing, what) in [(&rule.target, "target"), (&rule.assignee, "assignee")] {
            let Some(thing) = thing.as_ref().filter(|thing| thing.as_one().is_none()) else { continue };
            self.say(&format!("{}.{what}", rule.path), format!("is for what belongs to `{}`", clip(&thing.id)));
            self.constraints(&thing.refinements, false);
        }
        for duty in &rule.duties {
            if premise::done(duty, at) != Truth::True {
                self.undone(duty);
            }
        }
    }

    /// That what must be done, whatever permits the use, is not.
    fn obligation(&mut self, rule: &Rule) {
        let at = At { request: self.request, world: self.world, now: self.world.now, uses: self.world.uses };
        if premise::obliges(rule, covers(rule, self.request), at) != Truth::False
            && premise::done(rule, at) != Truth::True
        {
            self.undone(rule);
        }
    }

    fn undone(&mut self, duty: &Rule) {
        let state = match premise::state(duty, self.world, self.world.now) {
            DutyState::Pending => "is not yet done",
            DutyState::Fulfilled => "is done",
            DutyState::Violated => "was not done in time",
            DutyState::Late => "was done late, and its consequences are not",
        };
        self.say(&duty.path, format!("the {} to `{}` {state}", duty.kind, duty.action));
    }

    /// That a prohibition was infringed and not made good.
    fn infringement(&mut self, rule: &Rule) {
        let at = At { request: self.request, world: self.world, now: self.world.now, uses: self.world.uses };
        if premise::made_good(rule, at) == Truth::True {
            return;
        }
        let until = if rule.duties.is_empty() { "it has no remedy" } else { "its remedies are not done" };
        self.say(&rule.path, format!("was infringed, and nothing is allowed: {until}"));
        for remedy in &rule.duties {
            if premise::state(remedy, self.world, self.world.now) != DutyState::Fulfilled {
                self.say(&remedy.path, format!("the remedy to `{}` is not done", remedy.action));
            }
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
            if self.reasons.len() >= REASONS_MAX {
                return;
            }
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
                    let since = match logical.operand {
                        LogicalOperand::AndSequence if holding == of => self.since(&logical.of),
                        LogicalOperand::And
                        | LogicalOperand::Or
                        | LogicalOperand::Xone
                        | LogicalOperand::AndSequence => String::new(),
                    };
                    self.say(&logical.path, format!("{wanted} of {of} conditions must hold; {holding} do{since}"));
                    let each = matches!(logical.operand, LogicalOperand::Xone | LogicalOperand::AndSequence);
                    self.constraints(&logical.of, all || each);
                }
            }
        }
    }

    /// In which order conditions came to hold, in words.
    fn since(&self, constraints: &[Constraint]) -> String {
        let at = At { request: self.request, world: self.world, now: self.world.now, uses: self.world.uses };
        let each = constraints.iter().take(NAMES_SHOWN_MAX).map(|part| match premise::beginning(part, at) {
            Beginning::Known(Some(since)) => format!("since {since}"),
            Beginning::Known(None) => "from the beginning".to_owned(),
            Beginning::Unknown => "nobody knows since when".to_owned(),
        });
        format!(": {}", each.collect::<Vec<_>>().join(", then "))
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
            Test::Fact(test) => match self.world.facts.get(&test.operand) {
                Some(fact) => format!("{verdict}: found {}, and {wanted} is asked for", found(&fact.value)),
                None => format!("{verdict}: nothing is known of `{}`, and {wanted} is asked for", clip(&test.operand)),
            },
            Test::Bytes(..) => match self.world.bytes {
                Some(bytes) => format!("{verdict}: {bytes} bytes were moved, and {wanted} is asked for"),
                None => format!("{verdict}: the bytes were not counted, and {wanted} is asked for"),
            },
            Test::Records(..) => match self.world.records {
                Some(records) => format!("{verdict}: {records} records were moved, and {wanted} is asked for"),
                None => format!("{verdict}: the records were not counted, and {wanted} is asked for"),
            },
            Test::Delay(_) => match self.world.agreed_at {
                Some(_) => format!("{verdict}: the stream bears it: {wanted}"),
                None => format!("{verdict}: there is no agreement yet, and {wanted} is asked for"),
            },
            Test::Rate(..) | Test::Fields(_) => format!("{verdict}: the stream bears it: {wanted}"),
            Test::Undecided => format!(
                "{verdict}: this connector does not decide `{}` with `{}`",
                atomic.left,
                atomic.operator.as_str()
            ),
        }
    }
}

/// The value of a fact, in words.
fn found(value: &FactValue) -> String {
    match value {
        FactValue::Names(names) if names.is_empty() => "nothing".to_owned(),
        FactValue::Names(names) => quoted(names.iter().take(NAMES_SHOWN_MAX)),
        FactValue::Number(number) => number.to_string(),
        FactValue::Instant(at) => at.to_string(),
        FactValue::Level(level) => format!("`{}`", clip(level)),
    }
}

/// Most names, or instants, that a sentence lists.
const NAMES_SHOWN_MAX: usize = 8;

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{}`", clip(name))).collect::<Vec<_>>().join(", ")
}

fn amount(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "exactly",
        Comparison::Neq => "anything but",
        Comparison::Gt => "more than",
        Comparison::Gteq => "at least",
        Comparison::Lt => "fewer than",
        Comparison::Lteq => "at most",
    }
}

fn asked_of_fact(test: &FactTest) -> String {
    let about =
        operand(&test.operand).map_or_else(|| format!("`{}`", clip(&test.operand)), |spec| spec.about.to_owned());
    match &test.ask {
        Ask::Names(names) => {
            let relation = match names.relation {
                NameRelation::AnyOf => "one of",
                NameRelation::NoneOf => "none of",
                NameRelation::AllOf => "all of",
                NameRelation::PartOf => "part of",
                NameRelation::HasPart => "the whole of",
            };
            format!("{about}: {relation} {}", quoted(names.names.iter()))
        }
        Ask::Level { allowed, .. } if allowed.is_empty() => format!("{about}: no level"),
        Ask::Level { allowed, .. } => format!("{about}: one of {}", quoted(allowed.iter())),
        Ask::Number(comparison, number) => format!("{about}: {} {number}", amount(*comparison)),
        Ask::Instant(comparison, at) => format!("{about}: {} {at}", comparison_of_instants(*comparison)),
    }
}

fn comparison_of_instants(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "exactly",
        Comparison::Neq => "not",
        Comparison::Gt => "after",
        Comparison::Gteq => "not before",
        Comparison::Lt => "before",
        Comparison::Lteq => "not after",
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
        Test::Fact(test) => asked_of_fact(test),
        Test::Bytes(comparison, n) => format!("{} {n} bytes moved", amount(*comparison)),
        Test::Records(comparison, n) => format!("{} {n} records moved", amount(*comparison)),
        Test::Delay(span) => format!("nothing before {span} after the agreement"),
        Test::Rate(bytes, per) => format!("at most {bytes} bytes in {} seconds", per.as_secs()),
        Test::Fields(fields) => fields.to_string(),
        Test::Undecided => {
            let values: Vec<String> = atomic.right.iter().map(|value| format!("`{}`", clip(&value.text))).collect();
            format!("`{}` {} {}", atomic.left, atomic.operator.as_str(), values.join(", "))
        }
    }
}
