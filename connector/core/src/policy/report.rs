//! What became of each rule and each condition: the whole of what a decision's reasons are drawn
//! from.
//!
//! The words are those of the compliance reports of ODRL's community group: a rule is active or
//! not, a condition is satisfied or not; what cannot be known is neither.

use serde::{Deserialize, Serialize};

use super::duty::DutyState;
use super::evaluate::{Truth, covers, covers_action, covers_thing, truth};
use super::model::{Constraint, Policy, Rule, RuleKind};
use super::premise::{self, At};
use super::{Request, World};

/// Every rule of a policy, for one request in one state of the world.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Permissions, prohibitions and obligations in the order of the policy, atomised: a rule with
    /// two actions is reported twice, under one path.
    pub rules: Vec<RuleReport>,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// JSON path of the rule: `permission[0]`.
    pub path: String,
    /// May, must not, must.
    pub kind: RuleKind,
    /// Whether it is in force for this request; an obligation is where it is for who asks and what is asked for, done
    /// or not.
    pub activation: Activation,
    /// How far it is, where it is an obligation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DutyState>,
    /// Whether it is about the action; an obligation is about every action.
    pub action: Satisfaction,
    /// Whether it is about the target; `None` where it is about every target.
    pub target: Option<Satisfaction>,
    /// Whether it is about who asks; `None` where it is about everybody.
    pub assignee: Option<Satisfaction>,
    /// What became of its conditions.
    pub constraints: Vec<ConstraintReport>,
}

/// What became of one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstraintReport {
    /// JSON path of the condition: `permission[0].constraint[0].and[1]`.
    pub path: String,
    /// Whether it holds.
    pub satisfaction: Satisfaction,
    /// What became of the conditions that a logical one is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<ConstraintReport>,
}

/// Whether a rule is in force; in the order in which the parts of an atomised rule make the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// It is not.
    Inactive,
    /// It cannot be known. A permission of this kind allows nothing, a prohibition denies.
    Unknown,
    /// It is.
    Active,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Satisfaction {
    /// It does.
    Satisfied,
    /// It does not.
    Unsatisfied,
    /// It cannot be known.
    Unknown,
}

impl From<Truth> for Activation {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::Active,
            Truth::False => Self::Inactive,
            Truth::Unknown => Self::Unknown,
        }
    }
}

impl From<Truth> for Satisfaction {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::Satisfied,
            Truth::False => Self::Unsatisfied,
            Truth::Unknown => Self::Unknown,
        }
    }
}

/// Reports on every rule, those included that are not about the request. Total, like
/// [`evaluate`](super::evaluate), and of one mind with it.
#[must_use]
pub fn report(policy: &Policy, request: &Request, world: &World) -> Report {
    Report { rules: policy.rules.iter().map(|rule| on_rule(rule, request, world)).collect() }
}

fn on_rule(rule: &Rule, request: &Request, world: &World) -> RuleReport {
    let at = At { request, world, now: world.now, uses: world.uses };
    // What an obligation says of the use is when it is to be done, and no condition.
    let own = rule.term.is_none().then_some(&rule.constraints).into_iter().flatten();
    let conditions = own.map(|constraint| truth(constraint, request, world));
    let premises = [covers(rule, request), premise::truth(rule, at)].into_iter().chain(conditions);
    let action = if rule.term.is_some() { Truth::True } else { covers_action(rule, &request.action) };
    RuleReport {
        path: rule.path.clone(),
        kind: rule.kind,
        activation: Truth::all(premises).into(),
        state: rule.term.as_ref().map(|_| premise::state(rule, world, world.now)),
        action: action.into(),
        target: rule.target.as_ref().map(|thing| covers_thing(Some(thing), request.target.as_deref()).into()),
        assignee: rule.assignee.as_ref().map(|thing| covers_thing(Some(thing), Some(request.assignee.as_str())).into()),
        constraints: on_constraints(&rule.constraints, request, world),
    }
}

fn on_constraints(constraints: &[Constraint], request: &Request, world: &World) -> Vec<ConstraintReport> {
    constraints
        .iter()
        .map(|constraint| ConstraintReport {
            path: constraint.path().to_owned(),
            satisfaction: truth(constraint, request, world).into(),
            of: match constraint {
                Constraint::Atomic(_) => Vec::new(),
                Constraint::Logical(logical) => on_constraints(&logical.of, request, world),
            },
        })
        .collect()
}
