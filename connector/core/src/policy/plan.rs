//! What this connector will do about each part of a policy, and when.

use serde::{Deserialize, Serialize};

use super::Problem;
use super::capability::Capabilities;
use super::conflict;
use super::duty::{DutyKind, When};
use super::enforce::unenforceable;
use super::evaluate::wanted;
use super::model::{Conflict, Constraint, LogicalOperand, Policy, Rule, RuleKind, Test};
use super::operand::operand;
use crate::negotiation::Role;

/// When something is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Whether the offer is shown to a participant at all.
    Catalogue,
    /// Whether it is agreed to.
    Negotiation,
    /// Whether a transfer may begin.
    TransferStart,
    /// While bytes flow: they stop within one buffer.
    InStream,
    /// After the transfer: what the consumer's connector does with what it has.
    AfterTransfer,
}

impl Phase {
    /// When, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Catalogue => "when the catalogue is shown",
            Self::Negotiation => "when an agreement is made",
            Self::TransferStart => "when a transfer starts",
            Self::InStream => "while bytes flow",
            Self::AfterTransfer => "after the transfer",
        }
    }
}

/// What is done about one part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// JSON path of the rule or constraint.
    pub path: String,
    /// What it asks for, in words.
    pub term: String,
    /// When it is enforced, and how.
    pub phases: Vec<Enforcement>,
}

/// How something is enforced in one phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// When.
    pub phase: Phase,
    /// By whom.
    #[serde(default = "provider")]
    pub by: Role,
    /// How, in a sentence.
    pub how: String,
}

fn provider() -> Role {
    Role::Provider
}

/// What this connector enforces of a policy, and what it must refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is enforced, part by part.
    pub enforced: Vec<Step>,
    /// What is not: where this is not empty, the policy is refused before an agreement.
    pub refused: Vec<Problem>,
}

/// What this connector will do about a policy, phase by phase.
#[must_use]
pub fn plan(policy: &Policy, capabilities: &Capabilities) -> Plan {
    let mut enforced = Vec::new();
    for rule in policy.rules.iter().filter(|rule| matches!(rule.kind, RuleKind::Permission | RuleKind::Prohibition)) {
        if rule.kind == RuleKind::Prohibition && conflict::permission_wins(policy) {
            // It decides nothing; only what follows its infringement is held to.
            rule.duties.iter().for_each(|duty| duty_steps(duty, &mut enforced));
            continue;
        }
        if let Some(assignee) = rule.assignee.as_ref().and_then(|assignee| assignee.as_one()) {
            enforced.push(Step {
                path: format!("{}.assignee", rule.path),
                term: format!("the participant `{assignee}`"),
                phases: identity(),
            });
        }
        for (member, thing) in [("target", &rule.target), ("assignee", &rule.assignee)] {
            let Some(thing) = thing.as_ref().filter(|thing| thing.as_one().is_none()) else { continue };
            enforced.push(Step {
                path: format!("{}.{member}", rule.path),
                term: format!("what belongs to `{}`", thing.id),
                phases: facts(&[Phase::Catalogue, Phase::TransferStart, Phase::InStream], "membership"),
            });
            thing.refinements.iter().for_each(|constraint| steps(constraint, &mut enforced));
        }
        rule.constraints.iter().for_each(|constraint| steps(constraint, &mut enforced));
        rule.duties.iter().for_each(|duty| duty_steps(duty, &mut enforced));
    }
    for duty in policy.rules.iter().filter(|rule| rule.kind == RuleKind::Obligation) {
        duty_steps(duty, &mut enforced);
    }
    Plan { enforced, refused: unenforceable(policy, capabilities) }
}

fn identity() -> Vec<Enforcement> {
    let how = |phase, how: &str| Enforcement { phase, by: Role::Provider, how: how.to_owned() };
    vec![
        how(Phase::Catalogue, "the offer is shown only where the verified participant may use it"),
        how(Phase::Negotiation, "the verified participant is compared"),
        how(Phase::TransferStart, "the access token opens only with the certificate of the participant"),
    ]
}

/// How facts are asked for in each phase.
fn facts(phases: &[Phase], what: &str) -> Vec<Enforcement> {
    let how = |phase| match phase {
        Phase::Catalogue => "an offer that is ruled out by what is known is not shown",
        Phase::Negotiation => "it is compared with what is known",
        Phase::TransferStart => "it is compared with what is known, and what is unknown denies",
        Phase::InStream => {
            "the decision is made again when what is known changes, and the stream is cut where it turns"
        }
        Phase::AfterTransfer => "it is compared again by whoever has the data",
    };
    let one =
        |phase: &Phase| Enforcement { phase: *phase, by: Role::Provider, how: format!("{what}: {}", how(*phase)) };
    phases.iter().map(one).collect()
}

/// What is done about a duty.
fn duty_steps(duty: &Rule, steps_so_far: &mut Vec<Step>) {
    duty.duties.iter().for_each(|consequence| duty_steps(consequence, steps_so_far));
    let Some(term) = &duty.term else { return };
    let how = |phase, by, how: &str| Enforcement { phase, by, how: how.to_owned() };
    if duty.kind == RuleKind::Remedy {
        let phases = vec![
            how(
                Phase::TransferStart,
                Role::Provider,
                "after an infringement nothing is handed over before it is recorded",
            ),
            how(Phase::InStream, Role::Provider, "the stream is cut where an infringement is recorded"),
        ];
        steps_so_far.push(Step {
            path: duty.path.clone(),
            term: format!("{}, after an infringement", duty.action),
            phases,
        });
        return;
    }
    let phases = match &term.kind {
        DutyKind::Compensate { .. } if term.when == When::After => vec![
            how(Phase::TransferStart, Role::Provider, "nothing is handed over while a payment is overdue"),
            how(Phase::InStream, Role::Provider, "the stream is cut where a payment is overdue"),
        ],
        DutyKind::Compensate { .. } => vec![
            how(Phase::TransferStart, Role::Provider, "nothing is handed over before the payment is recorded"),
            how(Phase::InStream, Role::Provider, "the stream is cut where a payment ends"),
        ],
        DutyKind::ObtainConsent { .. } => vec![
            how(Phase::TransferStart, Role::Provider, "nothing is handed over before the consent is recorded"),
            how(Phase::InStream, Role::Provider, "the stream is cut where a consent is withdrawn"),
        ],
        DutyKind::Log { .. } => vec![
            how(Phase::TransferStart, Role::Provider, "the use is recorded before it begins, or it does not begin"),
            how(Phase::AfterTransfer, Role::Consumer, "the use is recorded"),
        ],
        DutyKind::Inform { .. } => {
            vec![how(Phase::AfterTransfer, Role::Provider, "the party is told by a message that survives a restart")]
        }
        DutyKind::Delete { .. } => {
            vec![how(
                Phase::AfterTransfer,
                Role::Consumer,
                "the received data is deleted in time, also after a restart",
            )]
        }
        DutyKind::NextPolicy { .. } => {
            vec![how(Phase::AfterTransfer, Role::Consumer, "the received data is offered on only under that policy")]
        }
        DutyKind::Transform(_) => {
            vec![how(Phase::InStream, Role::Provider, "every record is changed before it leaves")]
        }
        DutyKind::Count | DutyKind::Other { .. } => return,
    };
    steps_so_far.push(Step {
        path: duty.path.clone(),
        term: format!("{}, {} the use", duty.action, term.when.as_str()),
        phases,
    });
}

fn steps(constraint: &Constraint, steps_so_far: &mut Vec<Step>) {
    match constraint {
        Constraint::Logical(logical) => {
            logical.of.iter().for_each(|inner| steps(inner, steps_so_far));
            if logical.operand == LogicalOperand::AndSequence && logical.of.len() > 1 {
                let how = |phase, how: &str| Enforcement { phase, by: Role::Provider, how: how.to_owned() };
                let phases = vec![
                    how(Phase::TransferStart, "the instants since which the conditions hold are compared"),
                    how(Phase::InStream, "the stream is cut at the instant at which the decision turns"),
                ];
                steps_so_far.push(Step {
                    path: format!("{}.andSequence", logical.path),
                    term: words(constraint),
                    phases,
                });
            }
        }
        Constraint::Atomic(atomic) => {
            let how = |phase, how: &str| Enforcement { phase, by: Role::Provider, how: how.to_owned() };
            let phases = match &atomic.test {
                Test::Time(..) => vec![
                    how(Phase::Catalogue, "an offer that can no longer allow anything is not shown"),
                    how(Phase::TransferStart, "the time is compared"),
                    how(Phase::InStream, "the stream is cut at the instant at which the decision turns"),
                ],
                Test::Elapsed(..) => vec![
                    how(Phase::TransferStart, "the time since the agreement is compared"),
                    how(Phase::InStream, "the stream is cut at the instant at which the decision turns"),
                ],
                Test::Count(..) => {
                    vec![how(Phase::TransferStart, "a use is taken from the agreement's durable counter")]
                }
                Test::Recipient(..) => identity(),
                Test::Fact(test) => {
                    let spec = operand(&test.operand);
                    let about = spec.map_or(test.operand.as_str(), |spec| spec.about);
                    facts(spec.map_or(&[Phase::TransferStart, Phase::InStream], |spec| spec.phases), about)
                }
                Test::Bytes(..) | Test::Records(..) => vec![
                    how(Phase::TransferStart, "what the agreement has left is asked of its durable counter"),
                    how(Phase::InStream, "the stream is cut where nothing is left"),
                ],
                Test::Rate(..) => vec![how(Phase::InStream, "the stream is slowed down")],
                Test::Delay(_) => vec![how(Phase::InStream, "the stream is held back until the instant")],
                Test::Fields(_) => vec![how(Phase::InStream, "every record is changed before it leaves")],
                Test::Undecided => return,
            };
            steps_so_far.push(Step { path: atomic.path.clone(), term: wanted(atomic), phases });
        }
    }
}

/// A policy in plain English, one sentence for each rule.
#[must_use]
pub fn explain(policy: &Policy) -> Vec<String> {
    let mut sentences: Vec<String> = policy.rules.iter().map(sentence).collect();
    if policy.rules.iter().all(|rule| rule.kind != RuleKind::Permission) {
        sentences.push("Nothing is permitted, so everything is denied.".to_owned());
    }
    let strategy = match conflict::strategy(policy) {
        None | Some(Conflict::Prohibition) => None,
        Some(Conflict::Permission) => Some("Where a permission and a prohibition meet, the permission wins."),
        Some(Conflict::Invalid) => Some("Where a permission and a prohibition can meet, the whole policy is void."),
    };
    sentences.extend(strategy.map(str::to_owned));
    sentences
}

fn sentence(rule: &Rule) -> String {
    let who = rule.assignee.as_ref().map_or_else(|| "Whoever agrees".to_owned(), |who| format!("`{}`", who.id));
    let modal = match rule.kind {
        RuleKind::Permission => "may",
        RuleKind::Prohibition => "must not",
        RuleKind::Obligation | RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => "must",
    };
    let what = rule.target.as_ref().map_or_else(|| "the data".to_owned(), |what| format!("`{}`", what.id));
    let mut sentence = format!("{who} {modal} {} {what}", rule.action);
    if !rule.action_refinements.is_empty() {
        sentence.push_str(&format!(" (so far as: {})", all(&rule.action_refinements)));
    }
    match rule.constraints.as_slice() {
        [] if rule.kind == RuleKind::Permission => sentence.push_str(" without conditions"),
        [] => {}
        constraints => sentence.push_str(&format!(", on condition of: {}", all(constraints))),
    }
    sentence.push('.');
    for duty in &rule.duties {
        let when = match duty.kind {
            RuleKind::Remedy => "After an infringement",
            RuleKind::Consequence => "If that is not done",
            RuleKind::Permission | RuleKind::Prohibition | RuleKind::Obligation | RuleKind::Duty => {
                match duty.term.as_ref().map(|term| term.when) {
                    Some(When::Before) | None => "Before that",
                    Some(When::During) => "Meanwhile",
                    Some(When::After) => "After that",
                }
            }
        };
        sentence.push_str(&format!(" {when}: {}", self::sentence(duty)));
    }
    sentence
}

fn all(constraints: &[Constraint]) -> String {
    constraints.iter().map(words).collect::<Vec<_>>().join(", and ")
}

fn words(constraint: &Constraint) -> String {
    match constraint {
        Constraint::Atomic(atomic) => wanted(atomic),
        Constraint::Logical(logical) => {
            let of: Vec<String> = logical.of.iter().map(words).collect();
            let (open, between) = match logical.operand {
                LogicalOperand::And => ("all of", "; "),
                LogicalOperand::Or => ("any of", "; "),
                LogicalOperand::Xone => ("exactly one of", "; "),
                LogicalOperand::AndSequence => ("one after the other", "; then "),
            };
            format!("{open} ({})", of.join(between))
        }
    }
}
