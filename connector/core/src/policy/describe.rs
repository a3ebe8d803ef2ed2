//! The capability document: what a connector holds to, for its peers and its operator.
//!
//! Nothing in it is written by hand. Each term of the vocabularies is put into a small policy, and
//! the document says what the plan of that policy says; so it cannot promise what a negotiation
//! would refuse, nor leave out what one would agree to.

use kontor_vocab::odrl::PolicyDocument;
use kontor_vocab::odrl::terms::{ACTIONS, LEFT_OPERANDS, LOGICAL, OPERATORS};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::capability::Capabilities;
use super::enforce::PROFILES_KNOWN;
use super::plan::{Enforcement, plan};
use super::{Plan, parse};

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

/// Values to try an operand with, until one is of its type.
fn samples() -> [Value; 4] {
    [
        json!({ "@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime" }),
        json!({ "@value": "P1D", "@type": "xsd:duration" }),
        json!({ "@value": "1", "@type": "xsd:integer" }),
        json!("urn:kontor:sample"),
    ]
}

/// What this connector holds to.
#[must_use]
pub fn describe() -> CapabilityDocument {
    let use_with = |member: &str, value: Value| json!({ "permission": [{ "action": "use", member: value }] });
    let duty = |action: &str| use_with("duty", json!([{ "action": action }]));
    let open = json!({ "action": "use", "constraint": [sample_constraint("count", "lteq", json!(1))] });
    let both = |strategy: &str| json!({ "conflict": strategy, "permission": [open], "prohibition": [open] });
    let logical = |operand: &str| {
        let parts = [sample_constraint("count", "lteq", json!(1)), sample_constraint("count", "lteq", json!(2))];
        let list = if operand == "andSequence" { json!({ "@list": parts }) } else { json!(parts) };
        use_with("constraint", json!([{ operand: list }]))
    };
    CapabilityDocument {
        version: CAPABILITIES_VERSION,
        profiles: PROFILES_KNOWN.iter().map(|profile| (*profile).to_owned()).collect(),
        conflict: held(&["perm", "prohibit", "invalid"], both),
        logical: held(LOGICAL, logical),
        actions: actions(|action| json!({ "permission": [{ "action": action }] })),
        operands: LEFT_OPERANDS.iter().filter_map(|(operand, _)| operand_capability(operand)).collect(),
        duties: actions(duty),
        obligations: actions(
            |action| json!({ "permission": [{ "action": "use" }], "obligation": [{ "action": action }] }),
        ),
    }
}

fn sample_constraint(left: &str, operator: &str, right: Value) -> Value {
    json!({ "leftOperand": left, "operator": operator, "rightOperand": right })
}

/// The words with which a policy is held to.
fn held(words: &[&str], policy: impl Fn(&str) -> Value) -> Vec<String> {
    words.iter().filter(|word| planned(policy(word)).is_some()).map(|word| (*word).to_owned()).collect()
}

/// The actions with which a policy is held to.
fn actions(policy: impl Fn(&str) -> Value) -> Vec<Capability> {
    let capability = |action: &str| {
        let plan = planned(policy(action))?;
        Some(Capability { term: action.to_owned(), operators: Vec::new(), enforced: enforcements(plan) })
    };
    ACTIONS.iter().filter_map(|action| capability(action.name)).collect()
}

fn operand_capability(operand: &str) -> Option<Capability> {
    let mut found: Option<Capability> = None;
    for operator in OPERATORS {
        let plan = samples().into_iter().find_map(|sample| {
            let constraint = sample_constraint(operand, operator, sample);
            planned(json!({ "permission": [{ "action": "use", "constraint": [constraint] }] }))
        });
        let Some(plan) = plan else { continue };
        let capability = found.get_or_insert_with(|| Capability {
            term: operand.to_owned(),
            operators: Vec::new(),
            enforced: enforcements(plan),
        });
        capability.operators.push((*operator).to_owned());
    }
    found
}

/// The plan of a policy, where all of it is held to.
fn planned(policy: Value) -> Option<Plan> {
    let document = PolicyDocument::from_value(policy).ok()?;
    let plan = plan(&parse(&document).ok()?, &Capabilities::default());
    plan.refused.is_empty().then_some(plan)
}

fn enforcements(plan: Plan) -> Vec<Enforcement> {
    let mut all: Vec<Enforcement> = plan.enforced.into_iter().flat_map(|step| step.phases).collect();
    all.sort_by_key(|enforcement| enforcement.phase);
    all.dedup();
    all
}
