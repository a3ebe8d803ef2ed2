//! What this connector cannot hold to, by name and place.
//!
//! The line is drawn here and nowhere else: whatever is not listed as enforced is refused before
//! an agreement, and a decision never counts on it.

use kontor_vocab::odrl::PolicyDocument;
use kontor_vocab::odrl::terms::LEFT_OPERANDS;

use super::capability::{Capabilities, StageKind};
use super::conflict::{self, Void};
use super::duty::{DutyKind, When};
use super::fact::FactSource;
use super::model::{Constraint, Logical, LogicalOperand, Policy, Rule, RuleKind, Test, Thing};
use super::operand::operand;
use super::parse::{clip, parse_with};
use super::premise;
use super::{Problem, ProblemKind};
use crate::negotiation::Role;
use crate::refusal::{Fault, Refusal};

/// The actions that are held to. A transfer hands over the data, and what is done with it then is
/// any `use`; that it is only read, or never printed, is nothing that a stream can see to.
pub const ACTIONS_ENFORCED: &[&str] = &["use"];
/// The left operands that are decided.
pub const OPERANDS_ENFORCED: &[&str] = &["dateTime", "elapsedTime", "count", "recipient"];
/// The profiles whose terms are all known: ODRL's name for its own core (ODRL 2.2, §3.4), and the one of the Dataspace
/// Protocol, by both its names, which adds no terms.
pub const PROFILES_KNOWN: &[&str] = &[
    "http://www.w3.org/ns/odrl/2/core",
    "https://w3id.org/dspace/2025/1/odrl-profile",
    "https://w3id.org/dspace/2025/1/odrl-profile.jsonld",
];

/// Parses a policy and checks that this connector can enforce all of it.
///
/// # Errors
/// [`Refusal`] with fault `Malformed` (not a policy), `Limit` (too large) or `Unenforceable`
/// (names every term that we cannot hold to).
pub fn enforceable(document: &PolicyDocument, capabilities: &Capabilities) -> Result<Policy, Refusal> {
    let policy = parse_with(document, &capabilities.vocabulary).map_err(|problems| refusal(&problems))?;
    let problems = unenforceable(&policy, capabilities);
    if problems.is_empty() { Ok(policy) } else { Err(refusal(&problems)) }
}

/// Everything in a policy that this connector cannot hold to.
#[must_use]
pub fn unenforceable(policy: &Policy, capabilities: &Capabilities) -> Vec<Problem> {
    let mut problems = policy_problems(policy);
    problems.extend(policy.rules.iter().flat_map(rule_problems));
    problems.extend(policy.rules.iter().flat_map(|rule| Held { capabilities, rule }.problems()));
    if policy.rules.windows(2).any(|pair| matches!(pair, [a, b] if a.assigner != b.assigner)) {
        problems.push(problem("assigner", "the rules have different assigners", "one assigner for all rules"));
    }
    // A rule that was atomised has the same problem once for each of its parts.
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(problem);
        if new {
            seen.push(problem.clone());
        }
        new
    });
    problems
}

/// What concerns the policy as a whole.
pub(super) fn policy_problems(policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    for profile in &policy.profiles {
        if !PROFILES_KNOWN.contains(&profile.as_str()) {
            let message = format!("the profile `{}` may give terms another meaning", clip(profile));
            problems.push(problem("profile", message, "no profile, ODRL's core, or the one of the Dataspace Protocol"));
        }
    }
    for parent in &policy.inherits {
        let message = format!("the rules of `{}` are not part of the document", clip(parent));
        let cure =
            "a policy that stands alone: an operator's own is written out when it is stored, a peer's must come so";
        problems.push(problem("inheritFrom", message, cure));
    }
    if let Some(void) = conflict::voided_by(policy) {
        let which = match void {
            Void::Meet(may, must_not) => format!("`{}` and `{}` may meet", may.path, must_not.path),
            Void::TooMany => "there are too many conditions to know that they do not meet".to_owned(),
        };
        let message = format!("{which}, and the policy says that it is void where a permission and a prohibition do");
        let cure = "a permission and a prohibition that no request can have both, or `prohibit`";
        problems.push(problem("conflict", message, cure));
    }
    for rule in &policy.rules {
        let understood =
            rule.term.as_ref().is_some_and(|term| !matches!(term.kind, DutyKind::Other { .. } | DutyKind::Count));
        let one = |thing: &Option<Thing>| thing.as_ref().and_then(|thing| thing.as_one().map(str::to_owned));
        if rule.kind == RuleKind::Obligation && one(&rule.assignee).is_some_and(|who| one(&rule.assigner) == Some(who))
        {
            // A use is asked for by the assignee of a permission, and what obliges only the assigner comes with none.
            let message =
                format!("the obligation to `{}` is the assigner's own, and no use would bear it", rule.action);
            problems.push(problem(
                &format!("{}.assignee", rule.path),
                message,
                "an obligation of whoever uses the data",
            ));
        }
        if rule.kind == RuleKind::Obligation && !understood {
            let message = format!("the obligation to `{}` is not carried out by this connector", rule.action);
            problems.push(problem(&rule.path, message, "the policy without it"));
        }
    }
    problems
}

/// What concerns one rule.
pub(super) fn rule_problems(rule: &Rule) -> Vec<Problem> {
    let mut problems = Vec::new();
    if rule.kind == RuleKind::Obligation {
        // The obligation itself is reported with the policy.
        rule.duties.iter().for_each(|consequence| duty_problems(consequence, &mut problems));
        return problems;
    }
    let at = |member: &str| format!("{}.{member}", rule.path);
    if !rule.action_refinements.is_empty() {
        problems.push(problem(&at("action"), "a refined action is not enforced", "the action without `refinement`"));
    }
    if rule.assigner.as_ref().is_some_and(|thing: &Thing| thing.as_one().is_none()) {
        let message = "who belongs to the collection in `assigner` is not known here";
        problems.push(problem(&at("assigner"), message, "one URI"));
    }
    let mut functions: Vec<&str> = rule.parties.iter().map(|(function, _)| *function).collect();
    functions.dedup();
    for function in functions {
        let message = format!("the party function `{function}` has no effect in this connector");
        problems.push(problem(&at(function), message, "`assigner` and `assignee` only"));
    }
    for duty in &rule.duties {
        duty_problems(duty, &mut problems);
    }
    for constraint in &rule.constraints {
        constraint_problems(constraint, &mut problems);
    }
    problems
}

/// A duty that is not understood, or that hangs where none is carried out.
fn duty_problems(duty: &Rule, problems: &mut Vec<Problem>) {
    let understood = duty.term.as_ref().is_some_and(|term| match duty.kind {
        // What hangs from a use cannot follow an infringement, which is none.
        RuleKind::Remedy => premise::remediable(&term.kind),
        RuleKind::Permission
        | RuleKind::Prohibition
        | RuleKind::Obligation
        | RuleKind::Duty
        | RuleKind::Consequence => !matches!(term.kind, DutyKind::Other { .. } | DutyKind::Count),
    });
    if !understood {
        let message = format!("the {} to `{}` is not carried out by this connector", duty.kind, duty.action);
        problems.push(problem(&duty.path, message, "the rule without it"));
    }
    duty.duties.iter().for_each(|consequence| duty_problems(consequence, problems));
}

/// Whether a rule permits to hand data on, under a next policy that the connector which receives it holds it to.
pub(super) fn is_bound_onward(rule: &Rule) -> bool {
    let next_policy =
        |duty: &Rule| matches!(&duty.term, Some(term) if matches!(term.kind, DutyKind::NextPolicy { .. }));
    rule.kind == RuleKind::Permission && rule.action == "distribute" && rule.duties.iter().any(next_policy)
}

/// The action that a transfer under a policy is asked for: `use`; or `distribute`, where the policy permits nothing but
/// that, under a next policy.
#[must_use]
pub fn transfer_action(policy: &Policy) -> &'static str {
    let mut permissions = policy.rules.iter().filter(|rule| rule.kind == RuleKind::Permission).peekable();
    if permissions.peek().is_some() && permissions.all(is_bound_onward) { "distribute" } else { "use" }
}

/// What one connector can hold to of one rule.
struct Held<'a> {
    capabilities: &'a Capabilities,
    rule: &'a Rule,
}

impl Held<'_> {
    fn problems(&self) -> Vec<Problem> {
        let rule = self.rule;
        let mut problems = Vec::new();
        if rule.term.is_some() {
            self.duty(rule, &mut problems);
            return problems;
        }
        let redistributes = self.capabilities.next_policy && is_bound_onward(rule);
        if !ACTIONS_ENFORCED.contains(&rule.action) && !redistributes {
            let message =
                format!("the action `{}` is understood, but a transfer cannot tell it from other uses", rule.action);
            problems.push(problem(&format!("{}.action", rule.path), message, "`use`"));
        }
        for (member, thing, source) in
            [("target", &rule.target, FactSource::Dataset), ("assignee", &rule.assignee, FactSource::Peer)]
        {
            let Some(thing) = thing else { continue };
            if thing.collection && !self.capabilities.sources.contains(&source) {
                let message = format!("who or what belongs to the collection in `{member}` is not known here");
                problems.push(problem(&format!("{}.{member}", rule.path), message, "one URI"));
            }
            let mut refined = Vec::new();
            for refinement in &thing.refinements {
                constraint_problems(refinement, &mut refined);
                self.constraint(refinement, &mut refined);
            }
            problems.extend(refined);
        }
        rule.constraints.iter().for_each(|constraint| self.constraint(constraint, &mut problems));
        rule.duties.iter().for_each(|duty| self.duty(duty, &mut problems));
        problems
    }

    fn constraint(&self, constraint: &Constraint, problems: &mut Vec<Problem>) {
        let atomic = match constraint {
            Constraint::Logical(logical) => {
                if logical.operand == LogicalOperand::AndSequence && logical.of.len() > 1 {
                    logical.of.iter().for_each(|part| self.ordered(part, problems));
                }
                logical.of.iter().for_each(|inner| self.constraint(inner, problems));
                return;
            }
            Constraint::Atomic(atomic) => atomic,
        };
        let missing = match &atomic.test {
            Test::Fact(test) => match self.source(&test.operand) {
                Some(source) if self.capabilities.sources.contains(&source) => None,
                Some(source) => Some(format!("it is known from {}, which nobody hands in", source.about())),
                None => Some("nobody knows it".to_owned()),
            },
            Test::Bytes(..) => self.stage(StageKind::Bytes),
            Test::Records(..) => self.stage(StageKind::Records),
            Test::Delay(_) => self.stage(StageKind::Delay),
            Test::Rate(..) => self.stage(StageKind::Rate),
            Test::Fields(fields) => self.stage(StageKind::of(fields)),
            Test::Time(..) | Test::Elapsed(..) | Test::Count(..) | Test::Recipient(..) | Test::Undecided => None,
        };
        if let Some(missing) = missing {
            let message = format!("{}: {missing}", not_enforced(&atomic.left));
            let path = format!("{}.leftOperand", atomic.path);
            problems.push(problem(&path, message, "`dateTime`, `elapsedTime`, `count` or `recipient`"));
        }
    }

    /// A fact in a sequence is one whose beginning is handed in.
    fn ordered(&self, part: &Constraint, problems: &mut Vec<Problem>) {
        match part {
            Constraint::Logical(logical) => logical.of.iter().for_each(|part| self.ordered(part, problems)),
            Constraint::Atomic(atomic) => {
                let Test::Fact(test) = &atomic.test else { return };
                if !self.source(&test.operand).is_some_and(|source| self.capabilities.beginnings.contains(&source)) {
                    problems.push(unordered(&format!("{}.leftOperand", atomic.path), &atomic.left));
                }
            }
        }
    }

    /// Who knows an operand.
    fn source(&self, name: &str) -> Option<FactSource> {
        let defined = || Some(self.capabilities.vocabulary.operands.get(name)?.source);
        operand(name).and_then(|spec| spec.source).or_else(defined)
    }

    fn stage(&self, stage: StageKind) -> Option<String> {
        let missing = !self.capabilities.stages.contains(&stage);
        missing.then(|| format!("the data plane cannot {}", stage.about()))
    }

    fn duty(&self, duty: &Rule, problems: &mut Vec<Problem>) {
        duty.duties.iter().for_each(|consequence| self.duty(consequence, problems));
        let Some(term) = &duty.term else { return };
        let can = self.capabilities;
        let register = || {
            let missing = !can.sources.contains(&FactSource::AgreementRegister);
            missing.then(|| "no register of payments and consents is asked".to_owned())
        };
        // A remedy or consequence follows something else than a use.
        let hangs = matches!(duty.kind, RuleKind::Duty | RuleKind::Obligation);
        let mut cure = "the rule without it";
        let missing = match &term.kind {
            _ if duty.kind == RuleKind::Remedy && !can.infringements => {
                Some("infringements are not recorded".to_owned())
            }
            DutyKind::Compensate { .. } if hangs && term.when == When::After && !can.overdue_payments => {
                cure = "a payment before the use";
                Some("whether a payment that is due after the use is overdue is not seen".to_owned())
            }
            DutyKind::Inform { .. } if hangs && term.when == When::Before => {
                cure = "after the use, which is told as it begins";
                Some("nobody is told of a use before it begins".to_owned())
            }
            DutyKind::Compensate { .. } | DutyKind::ObtainConsent { .. } => register(),
            DutyKind::Log { .. } if !can.log_sink => Some("uses are not recorded".to_owned()),
            DutyKind::Log { target: Some(target) } if !can.log_targets.contains(target) => {
                Some(format!("`{}` is no system that uses are recorded in", clip(target)))
            }
            // The provider, whose connector sees every use begin, tells the parties.
            DutyKind::Inform { parties } if can.role == Role::Provider => self.inform(parties),
            DutyKind::Delete { .. } if !can.delete => Some("received data is not deleted in time".to_owned()),
            DutyKind::NextPolicy { .. } if !can.next_policy => {
                Some("received data is not bound to a policy when it is offered on".to_owned())
            }
            DutyKind::Transform(transform) => self.stage(StageKind::of(transform)),
            DutyKind::Log { .. }
            | DutyKind::Inform { .. }
            | DutyKind::Delete { .. }
            | DutyKind::NextPolicy { .. }
            | DutyKind::Count
            | DutyKind::Other { .. } => None,
        };
        if let Some(missing) = missing {
            let message =
                format!("the {} to `{}` is not carried out by this connector: {missing}", duty.kind, duty.action);
            problems.push(problem(&duty.path, message, cure));
        }
    }

    fn inform(&self, parties: &[String]) -> Option<String> {
        let can = self.capabilities;
        let ours = |party: &str| {
            let of_rule = [&self.rule.assigner, &self.rule.assignee];
            of_rule.into_iter().flatten().any(|thing| thing.as_one() == Some(party))
        };
        let told = |party: &String| can.inform_targets.contains(party) || (can.inform_counterparty && ours(party));
        match parties.iter().find(|party| !told(party)) {
            Some(party) => Some(format!("`{}` is not told of uses", clip(party))),
            None if parties.is_empty() && !can.inform_counterparty => Some("nobody is told of uses".to_owned()),
            None => None,
        }
    }
}

/// That a term is known, and what it asks about.
fn not_enforced(left: &str) -> String {
    let spec = operand(left).map(|spec| spec.about);
    let about = spec.or_else(|| LEFT_OPERANDS.iter().find(|(term, _)| *term == left).map(|(_, about)| *about));
    match about {
        Some(about) => format!("`{left}` ({about}) is understood, but not enforced by this connector"),
        None => format!("`{}` is understood, but not enforced by this connector", clip(left)),
    }
}

fn constraint_problems(constraint: &Constraint, problems: &mut Vec<Problem>) {
    match constraint {
        Constraint::Logical(logical) => {
            if let LogicalOperand::AndSequence = logical.operand
                && logical.of.len() > 1
            {
                logical.of.iter().for_each(|part| sequence_problems(part, problems));
            }
            logical.of.iter().for_each(|constraint| constraint_problems(constraint, problems));
        }
        Constraint::Atomic(atomic) if atomic.test == Test::Undecided => {
            let spec = operand(&atomic.left);
            let decided = spec.is_some_and(|spec| spec.source.is_some());
            if !decided && !atomic.left.contains("://") {
                let because = spec.map(|spec| spec.because).filter(|because| !because.is_empty());
                let because = because.map(|because| format!(": {because}")).unwrap_or_default();
                let message = format!("{}{because}", not_enforced(&atomic.left));
                let cure = "`dateTime`, `elapsedTime`, `count` or `recipient`";
                problems.push(problem(&format!("{}.leftOperand", atomic.path), message, cure));
            } else if atomic.unit.is_some() {
                let message = format!("a unit changes what `{}` compares with", atomic.left);
                problems.push(problem(&format!("{}.unit", atomic.path), message, "the constraint without `unit`"));
            } else {
                let message = format!("`{}` cannot be compared by `{}`", atomic.left, atomic.operator.as_str());
                let cure = match atomic.left.as_ref() {
                    "recipient" => "`eq`, `neq`, `isAnyOf` or `isNoneOf`",
                    _ => "`eq`, `neq`, `lt`, `lteq`, `gt` or `gteq`",
                };
                problems.push(problem(&format!("{}.operator", atomic.path), message, cure));
            }
        }
        Constraint::Atomic(_) => {}
    }
}

/// A part of a sequence of which it can never be known since when it holds.
fn sequence_problems(part: &Constraint, problems: &mut Vec<Problem>) {
    match part {
        Constraint::Logical(Logical { of, operand, path }) => match (of.as_slice(), operand) {
            ([one], _) => sequence_problems(one, problems),
            (_, LogicalOperand::And | LogicalOperand::AndSequence) => {
                of.iter().for_each(|part| sequence_problems(part, problems));
            }
            (_, LogicalOperand::Or | LogicalOperand::Xone) => {
                problems.push(unordered(&format!("{path}.{}", operand.as_str()), operand.as_str()));
            }
        },
        Constraint::Atomic(atomic) => match &atomic.test {
            Test::Count(..)
            | Test::Bytes(..)
            | Test::Records(..)
            | Test::Delay(_)
            | Test::Rate(..)
            | Test::Fields(_) => problems.push(unordered(&format!("{}.leftOperand", atomic.path), &atomic.left)),
            // What is undecided is refused as that, and whether facts have a beginning is for the shell to say.
            Test::Time(..) | Test::Elapsed(..) | Test::Recipient(..) | Test::Fact(_) | Test::Undecided => {}
        },
    }
}

fn unordered(path: &str, what: &str) -> Problem {
    let message = format!("since when `{}` holds is not known, and `andSequence` asks for the order", clip(what));
    problem(path, message, "`and`, or conditions whose beginning is known, such as `dateTime`")
}

fn problem(path: &str, message: impl Into<String>, cure: impl Into<String>) -> Problem {
    Problem { kind: ProblemKind::Unenforced, path: path.to_owned(), message: message.into(), cure: cure.into() }
}

/// One refusal that names every problem; its place and cure are those of the gravest.
#[must_use]
pub fn refusal(problems: &[Problem]) -> Refusal {
    let gravest = problems.iter().min_by_key(|problem| problem.kind);
    let (fault, code, rule) = match gravest.map(|problem| problem.kind) {
        Some(ProblemKind::Malformed) | None => {
            (Fault::Malformed, "policy.malformed", "ODRL Information Model 2.2; DSP 2025-1, contract-schema")
        }
        Some(ProblemKind::Limit) => (Fault::Limit, "policy.limit", "limits of this connector"),
        Some(ProblemKind::Unknown | ProblemKind::Unenforced) => {
            (Fault::Unenforceable, "policy.unenforceable", "what cannot be enforced is refused before an agreement")
        }
    };
    let all: Vec<String> = problems.iter().map(|problem| problem.sentence()).collect();
    let message = if all.is_empty() { "the policy cannot be read".to_owned() } else { all.join("; ") };
    let refusal = Refusal::new(fault, code, message).by(rule);
    match gravest {
        Some(problem) => refusal.at(problem.path.clone()).cure(problem.cure.clone()),
        None => refusal,
    }
}
