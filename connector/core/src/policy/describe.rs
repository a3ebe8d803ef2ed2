//! The capability document: what a connector holds to, for its peers and its operator.
//!
//! Nothing in it is written by hand. Each term of the vocabularies is put into a small policy, and
//! the document says what the plan of that policy says; so it cannot promise what a negotiation
//! would refuse, nor leave out what one would agree to.

use std::collections::BTreeSet;
use std::fmt;

use kontor_vocab::odrl::PolicyDocument;
use kontor_vocab::odrl::terms::{ACTIONS, LEFT_OPERANDS, LOGICAL, OPERATORS};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::capability::Capabilities;
use super::enforce::PROFILES_KNOWN;
use super::model::{Atomic, Constraint, Rule, RuleKind};
use super::operand::OPERANDS;
use super::plan::{Enforcement, plan};
use super::{Plan, Policy, parse_with};
use crate::negotiation::Role;

/// The version of the document's own form.
pub const CAPABILITIES_VERSION: u32 = 1;

/// What a connector holds to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityDocument {
    /// The version of this form: [`CAPABILITIES_VERSION`].
    pub version: u32,
    /// The profiles whose terms are all known.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// The strategies for a permission and a prohibition that meet.
    #[serde(default)]
    pub conflict: Vec<String>,
    /// The operands of logical constraints.
    #[serde(default)]
    pub logical: Vec<String>,
    /// The actions that may be permitted or prohibited.
    #[serde(default)]
    pub actions: Vec<Capability>,
    /// The left operands that are decided.
    #[serde(default)]
    pub operands: Vec<Capability>,
    /// The duties of a permission that are carried out.
    #[serde(default)]
    pub duties: Vec<Capability>,
    /// The obligations of a policy that are carried out.
    #[serde(default)]
    pub obligations: Vec<Capability>,
    /// The remedies of a prohibition that are asked for.
    #[serde(default)]
    pub remedies: Vec<Capability>,
}

/// A term that is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The term, in compact form: `dateTime`, `delete`.
    pub term: String,
    /// The operators that it is compared by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// When it is enforced, and how. Empty for what needs no enforcement of its own.
    #[serde(default)]
    pub enforced: Vec<Enforcement>,
}

/// A part of a policy that only the connector of one side can enforce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// JSON path of the duty or condition.
    pub path: String,
    /// In which list of a capability document it is to be found.
    pub list: NeedList,
    /// Under which term.
    pub term: String,
}

/// A list of a capability document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedList {
    /// Its `operands`.
    Operands,
    /// Its `duties`.
    Duties,
    /// Its `obligations`.
    Obligations,
}

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.list {
            NeedList::Operands => "the condition on",
            NeedList::Duties => "the duty to",
            NeedList::Obligations => "the obligation to",
        };
        write!(out, "{what} `{}` at {}", self.term, self.path)
    }
}

/// The parts of a policy that its plan leaves to one side alone.
#[must_use]
pub fn needs(policy: &Policy, plan: &Plan, of: Role) -> Vec<Need> {
    plan.enforced
        .iter()
        .filter(|step| !step.phases.is_empty() && step.phases.iter().all(|how| how.by == of))
        .filter_map(|step| policy.rules.iter().find_map(|rule| need_at(rule, &step.path)))
        .collect()
}

/// What stands at a path in a rule.
fn need_at(rule: &Rule, path: &str) -> Option<Need> {
    let need = |list, term: &str| Some(Need { path: path.to_owned(), list, term: term.to_owned() });
    if rule.path == path {
        return match rule.kind {
            RuleKind::Obligation => need(NeedList::Obligations, rule.action),
            RuleKind::Permission
            | RuleKind::Prohibition
            | RuleKind::Duty
            | RuleKind::Remedy
            | RuleKind::Consequence => need(NeedList::Duties, rule.action),
        };
    }
    if let Some(atomic) = rule.constraints.iter().find_map(|constraint| atomic_at(constraint, path)) {
        return need(NeedList::Operands, &atomic.left);
    }
    rule.duties.iter().find_map(|duty| need_at(duty, path))
}

fn atomic_at<'a>(constraint: &'a Constraint, path: &str) -> Option<&'a Atomic> {
    match constraint {
        Constraint::Atomic(atomic) => (atomic.path == path).then_some(atomic),
        Constraint::Logical(logical) => logical.of.iter().find_map(|part| atomic_at(part, path)),
    }
}

impl CapabilityDocument {
    /// Whether the document claims that its connector meets a need on this side of an agreement.
    #[must_use]
    pub fn claims(&self, need: &Need, of: Role) -> bool {
        let list = match need.list {
            NeedList::Operands => &self.operands,
            NeedList::Duties => &self.duties,
            NeedList::Obligations => &self.obligations,
        };
        list.iter().any(|entry| entry.term == need.term && entry.enforced.iter().any(|how| how.by == of))
    }
}

/// Values to try an operand with, until one is of its type.
fn samples() -> [Value; 4] {
    [
        json!({ "@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime" }),
        json!({ "@value": "P1D", "@type": "xsd:duration" }),
        json!({ "@value": "1", "@type": "xsd:integer" }),
        json!("urn:kontor:sample"),
    ]
}

/// Duties to try an action with, until one has all the parameters that it needs. Those of the IDS may need some.
fn duty_samples(action: &str) -> Vec<Value> {
    let refined = |parameters: &[(&str, &str)]| {
        let refinement: Vec<Value> =
            parameters.iter().map(|(name, value)| sample_constraint(name, "eq", json!(value))).collect();
        json!({ "action": { "rdf:value": { "@id": action }, "refinement": refinement } })
    };
    let field = ("idsc:JSON_PATH", "$.sample");
    let mut samples = vec![json!({ "action": action })];
    if action == "nextPolicy" {
        samples.push(json!({ "action": action, "hasPolicy": "urn:kontor:sample" }));
    }
    if action.starts_with("idsc:") {
        samples.extend([
            refined(&[field]),
            refined(&[field, ("idsc:REPLACE_WITH", "sample")]),
            refined(&[field, ("idsc:OPERAND", "1")]),
        ]);
    }
    samples
}

/// What a connector with these capabilities holds to, on either side of an agreement.
#[must_use]
pub fn describe(capabilities: &Capabilities) -> CapabilityDocument {
    let asking = Asking { sides: [Role::Provider, Role::Consumer].map(|role| capabilities.clone().for_role(role)) };
    let use_with = |member: &str, value: Value| json!({ "permission": [{ "action": "use", member: value }] });
    let duties = |action: &str| duty_samples(action).into_iter().map(|duty| use_with("duty", json!([duty]))).collect();
    // A permission and a prohibition that do not meet: one policy that no strategy voids.
    let counted =
        |operator: &str| json!({ "action": "use", "constraint": [sample_constraint("count", operator, json!(1))] });
    let both = |strategy: &str| json!({ "conflict": strategy, "permission": [counted("lteq")], "prohibition": [counted("gt")] });
    let logical = |operand: &str| {
        // Conditions that have a beginning, so that they have an order.
        let [instant, ..] = samples();
        let parts = ["lt", "gteq"].map(|operator| sample_constraint("dateTime", operator, instant.clone()));
        let list = if operand == "andSequence" { json!({ "@list": parts }) } else { json!(parts) };
        use_with("constraint", json!([{ operand: list }]))
    };
    let operands: BTreeSet<&str> = LEFT_OPERANDS
        .iter()
        .map(|(operand, _)| *operand)
        .chain(OPERANDS.iter().map(|spec| spec.name))
        .chain(capabilities.vocabulary.operands.keys().map(String::as_str))
        .collect();
    CapabilityDocument {
        version: CAPABILITIES_VERSION,
        profiles: asking
            .held(PROFILES_KNOWN, |profile| json!({ "profile": profile, "permission": [{ "action": "use" }] })),
        conflict: asking.held(&["perm", "prohibit", "invalid"], both),
        logical: asking.held(LOGICAL, logical),
        actions: asking.actions(|action| {
            let onward = json!({ "action": "nextPolicy", "hasPolicy": "urn:kontor:sample" });
            let bound = (action == "distribute").then(|| json!({ "action": action, "duty": [onward] }));
            let permissions = [json!({ "action": action })].into_iter().chain(bound);
            permissions.map(|permission| json!({ "permission": [permission] })).collect()
        }),
        operands: operands.into_iter().filter_map(|operand| asking.operand(operand)).collect(),
        duties: asking.actions(duties),
        obligations: asking.actions(|action| {
            let obligation = |duty| json!({ "permission": [{ "action": "use" }], "obligation": [duty] });
            duty_samples(action).into_iter().map(obligation).collect()
        }),
        remedies: asking.actions(|action| {
            let remedy = |duty| {
                let prohibition = json!([{ "action": "use", "remedy": [duty] }]);
                json!({ "permission": [{ "action": "use" }], "prohibition": prohibition })
            };
            duty_samples(action).into_iter().map(remedy).collect()
        }),
    }
}

fn sample_constraint(left: &str, operator: &str, right: Value) -> Value {
    json!({ "leftOperand": left, "operator": operator, "rightOperand": right })
}

/// Asks for the plan of a policy on both sides.
struct Asking {
    sides: [Capabilities; 2],
}

impl Asking {
    /// The words with which a policy is held to.
    fn held(&self, words: &[&str], policy: impl Fn(&str) -> Value) -> Vec<String> {
        words.iter().filter(|word| self.planned(policy(word)).is_some()).map(|word| (*word).to_owned()).collect()
    }

    /// The actions with which a policy is held to.
    fn actions(&self, policies: impl Fn(&str) -> Vec<Value>) -> Vec<Capability> {
        let capability = |action: &str| {
            let enforced = policies(action).into_iter().find_map(|policy| self.planned(policy))?;
            Some(Capability { term: action.to_owned(), operators: Vec::new(), enforced })
        };
        ACTIONS.iter().filter_map(|action| capability(action.name)).collect()
    }

    fn operand(&self, operand: &str) -> Option<Capability> {
        let mut found: Option<Capability> = None;
        for operator in OPERATORS {
            let enforced = samples().into_iter().find_map(|sample| {
                let constraint = sample_constraint(operand, operator, sample);
                self.planned(json!({ "permission": [{ "action": "use", "constraint": [constraint] }] }))
            });
            let Some(enforced) = enforced else { continue };
            let capability =
                found.get_or_insert_with(|| Capability { term: operand.to_owned(), operators: Vec::new(), enforced });
            capability.operators.push((*operator).to_owned());
        }
        found
    }

    /// What this connector does for a policy on the sides on which it holds to all of it; `None`
    /// where that is neither.
    fn planned(&self, policy: Value) -> Option<Vec<Enforcement>> {
        let document = PolicyDocument::from_value(policy).ok()?;
        let mut found: Option<Vec<Enforcement>> = None;
        let [side, _] = &self.sides;
        let policy = parse_with(&document, &side.vocabulary).ok()?;
        for side in &self.sides {
            let plan = plan(&policy, side);
            if plan.refused.is_empty() {
                let ours = plan.enforced.into_iter().flat_map(|step| step.phases).filter(|how| how.by == side.role);
                found.get_or_insert_default().extend(ours);
            }
        }
        let mut all = found?;
        all.sort_by_key(|enforcement| (enforcement.phase, enforcement.by));
        all.dedup();
        Some(all)
    }
}
