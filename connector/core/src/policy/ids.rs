//! Contracts of the IDS Information Model, read as the ODRL policies that they are.
//!
//! Only names are changed here, member by member; what has no counterpart keeps its name, so that it is refused with
//! its path by whoever reads the policy. Spec: IDS Information Model 4.2, Contract; IDS-G, usage control.

use kontor_vocab::iri::IDS;
use serde_json::{Map, Value};

use super::operand::canonical_name;

/// Deepest nesting that is looked at; what lies deeper stays as it is.
const DEPTH_MAX: usize = 64;

/// The actions of the IDS, by code: the ODRL action that each is, or its own name where it is another.
pub(super) const ACTIONS: &[(&str, &str)] = &[
    ("idsc:USE", "use"),
    ("idsc:READ", "read"),
    ("idsc:DISTRIBUTE", "distribute"),
    ("idsc:GRANT_USE", "grantUse"),
    ("idsc:DELETE", "delete"),
    ("idsc:ANONYMIZE", "anonymize"),
    ("idsc:NOTIFY", "inform"),
    ("idsc:INFORM", "inform"),
    ("idsc:NEXT_POLICY", "nextPolicy"),
    ("idsc:OBTAIN_CONSENT", "obtainConsent"),
    ("idsc:COMPENSATE", "compensate"),
    ("idsc:LOG", "idsc:LOG"),
    ("idsc:INCREMENT_COUNTER", "idsc:INCREMENT_COUNTER"),
    ("idsc:REPLACE", "idsc:REPLACE"),
    ("idsc:HASH", "idsc:HASH"),
    ("idsc:DROP", "idsc:DROP"),
    ("idsc:ROUND", "idsc:ROUND"),
    ("idsc:ADD", "idsc:ADD"),
    ("idsc:MULTIPLY", "idsc:MULTIPLY"),
    ("idsc:DIVIDE", "idsc:DIVIDE"),
    ("idsc:SHUFFLE", "idsc:SHUFFLE"),
    ("idsc:ENCRYPT", "idsc:ENCRYPT"),
    ("idsc:MPC", "idsc:MPC"),
    ("idsc:TRACK_PROVENANCE", "idsc:TRACK_PROVENANCE"),
    ("idsc:AGGREGATE_BY_PROVIDER", "idsc:AGGREGATE_BY_PROVIDER"),
    ("idsc:AGGREGATE_BY_CONSUMER", "idsc:AGGREGATE_BY_CONSUMER"),
];

/// The operators of the IDS that say exactly what one of ODRL's does.
const OPERATORS: &[(&str, &str)] = &[
    ("idsc:EQUALS", "eq"),
    ("idsc:EQ", "eq"),
    ("idsc:SAME_AS", "eq"),
    ("idsc:STRING_EQ", "eq"),
    ("idsc:DEFINES_AS", "eq"),
    ("idsc:TEMPORAL_EQUALS", "eq"),
    ("idsc:DURATION_EQ", "eq"),
    ("idsc:SPATIAL_EQUALS", "eq"),
    ("idsc:HAS_STATE", "eq"),
    ("idsc:NOT", "neq"),
    ("idsc:GT", "gt"),
    ("idsc:AFTER", "gt"),
    ("idsc:LONGER", "gt"),
    ("idsc:GTEQ", "gteq"),
    ("idsc:LONGER_EQ", "gteq"),
    ("idsc:LT", "lt"),
    ("idsc:BEFORE", "lt"),
    ("idsc:SHORTER", "lt"),
    ("idsc:LTEQ", "lteq"),
    ("idsc:SHORTER_EQ", "lteq"),
    ("idsc:IN", "isPartOf"),
    ("idsc:INSIDE", "isPartOf"),
    ("idsc:MEMBER_OF", "isPartOf"),
    ("idsc:HAS_MEMBERSHIP", "isPartOf"),
    ("idsc:COVERED_BY", "isPartOf"),
    ("idsc:CONTAINS", "hasPart"),
    ("idsc:SPATIAL_CONTAINS", "hasPart"),
];

/// Members of a contract and of what is in it, with their ODRL names.
const MEMBERS: &[(&str, &str)] = &[
    ("permission", "permission"),
    ("prohibition", "prohibition"),
    ("obligation", "obligation"),
    ("provider", "assigner"),
    ("consumer", "assignee"),
    ("assigner", "assigner"),
    ("assignee", "assignee"),
    ("target", "target"),
    ("action", "action"),
    ("constraint", "constraint"),
    ("refinement", "refinement"),
    ("actionRefinement", "refinement"),
    ("assetRefinement", "refinement"),
    ("leftOperand", "leftOperand"),
    ("operator", "operator"),
    ("rightOperand", "rightOperand"),
    ("rightOperandReference", "rightOperandReference"),
    ("unit", "unit"),
    ("contractDate", "timestamp"),
];

/// Where the words of an IDS member or code are; where they are asked and carried out is for each connector to know.
const ENDPOINTS: &[&str] = &["pipEndpoint", "pxpEndpoint"];

/// The ODRL action of an IDS code, or of the name that it has here.
pub(super) fn action(text: &str) -> Option<&'static str> {
    let code = canonical_name(text);
    ACTIONS.iter().find(|(name, _)| *name == code).map(|(_, action)| *action)
}

/// The ODRL operator of an IDS code.
pub(super) fn operator(text: &str) -> Option<&'static str> {
    let code = canonical_name(text);
    OPERATORS.iter().find(|(name, _)| *name == code).map(|(_, operator)| *operator)
}

/// The ODRL name of an IDS member.
pub(super) fn member_name(key: &str) -> Option<&'static str> {
    let name = local(key)?;
    MEMBERS.iter().find(|(ids, _)| *ids == name).map(|(_, odrl)| *odrl)
}

fn local(key: &str) -> Option<&str> {
    key.strip_prefix("ids:").or_else(|| key.strip_prefix(IDS))
}

/// A policy that may be an IDS contract, in the words of ODRL. A policy in ODRL stays as it is, but for the places at
/// which the IDS says that facts are to be asked and duties to be carried out: each connector knows its own.
pub(super) fn to_odrl(document: Value) -> Value {
    let mut document = node(document, DEPTH_MAX);
    if let Value::Object(policy) = &mut document {
        for member in ["permission", "prohibition"] {
            let Some(rules) = policy.get_mut(member).and_then(Value::as_array_mut) else { continue };
            rules.iter_mut().filter_map(Value::as_object_mut).for_each(payments);
        }
    }
    document
}

fn node(value: Value, depth: usize) -> Value {
    if depth == 0 {
        return value;
    }
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(|item| node(item, depth - 1)).collect()),
        Value::Object(map) => {
            let mut changed = Map::new();
            for (key, value) in map {
                member(&mut changed, key, value, depth - 1);
            }
            Value::Object(changed)
        }
        other => other,
    }
}

fn member(into: &mut Map<String, Value>, key: String, value: Value, depth: usize) {
    let name = local(&key);
    match name {
        Some(name) if ENDPOINTS.contains(&name) => {}
        Some("preDuty") => duties(into, value, "lt", depth),
        Some("postDuty") => duties(into, value, "gt", depth),
        Some(name) => match MEMBERS.iter().find(|(ids, _)| *ids == name) {
            Some((_, odrl)) => put(into, odrl, node(value, depth)),
            None => put(into, &key, value),
        },
        None if key == "@type" => put(into, &key, kinds(value)),
        None if key == "@context" => put(into, &key, value),
        None => put(into, &key, node(value, depth)),
    }
}

/// Two spellings of one member are one member with the values of both.
fn put(into: &mut Map<String, Value>, key: &str, value: Value) {
    match into.get_mut(key) {
        Some(Value::Array(present)) => match value {
            Value::Array(more) => present.extend(more),
            one => present.push(one),
        },
        Some(present) if *present != value => {
            let mut all = vec![present.take()];
            match value {
                Value::Array(more) => all.extend(more),
                one => all.push(one),
            }
            *present = Value::Array(all);
        }
        Some(_) => {}
        None => {
            into.insert(key.to_owned(), value);
        }
    }
}

fn kinds(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(kinds).collect()),
        Value::String(kind) => Value::String(match local(&kind) {
            Some("ContractOffer" | "ContractRequest") => "Offer".to_owned(),
            Some("ContractAgreement") => "Agreement".to_owned(),
            Some("Permission") => "Permission".to_owned(),
            Some("Prohibition") => "Prohibition".to_owned(),
            Some("Duty") => "Duty".to_owned(),
            Some("Constraint") => "Constraint".to_owned(),
            _ => kind,
        }),
        other => other,
    }
}

/// The duties before or after a use, with ODRL's way to say when.
fn duties(into: &mut Map<String, Value>, value: Value, operator: &str, depth: usize) {
    let duties = match node(value, depth) {
        Value::Array(duties) => duties,
        one => vec![one],
    };
    let mut all = Vec::new();
    for mut duty in duties {
        if let Value::Object(duty) = &mut duty {
            let usage = serde_json::json!({
                "leftOperand": "event", "operator": operator, "rightOperand": { "@id": "odrl:policyUsage" }
            });
            let mut constraints = match duty.shift_remove("constraint") {
                Some(Value::Array(constraints)) => constraints,
                Some(one) => vec![one],
                None => Vec::new(),
            };
            constraints.push(usage);
            duty.insert("constraint".to_owned(), Value::Array(constraints));
        }
        all.push(duty);
    }
    put(into, "duty", Value::Array(all));
}

/// A payment as a condition is the duty to pay before the use, as ODRL says it.
fn payments(rule: &mut Map<String, Value>) {
    let Some(Value::Array(constraints)) = rule.get_mut("constraint") else { return };
    let is_payment = |constraint: &Value| {
        let left = constraint.get("leftOperand").and_then(|left| left.get("@id").or(Some(left)));
        matches!(left.and_then(Value::as_str).map(canonical_name).as_deref(), Some("idsc:PAY_AMOUNT" | "idsc:PAYMENT"))
    };
    let (payments, rest): (Vec<Value>, Vec<Value>) = constraints.drain(..).partition(is_payment);
    *constraints = rest;
    let mut all = Vec::new();
    for mut payment in payments {
        let mut refinements = Vec::new();
        if let Value::Object(payment) = &mut payment {
            // Sale or rent: what the frequency says better.
            let mut take = |name: &str| {
                let whole = payment.shift_remove(&format!("{IDS}{name}"));
                payment.shift_remove(&format!("ids:{name}")).or(whole)
            };
            take("contract");
            if let Some(frequency) = take("frequency") {
                refinements.push(every(&frequency));
            }
        }
        refinements.insert(0, payment);
        all.push(serde_json::json!({
            "action": { "rdf:value": { "@id": "odrl:compensate" }, "refinement": refinements },
            "constraint": [{
                "leftOperand": "event", "operator": "lt", "rightOperand": { "@id": "odrl:policyUsage" }
            }]
        }));
    }
    if !all.is_empty() {
        put(rule, "duty", Value::Array(all));
    }
}

/// How often, as the time between two payments.
fn every(frequency: &Value) -> Value {
    let text = frequency.get("@id").unwrap_or(frequency).as_str().unwrap_or_default();
    let span = match canonical_name(text).as_str() {
        "idsc:ANNUAL" => "P1Y",
        "idsc:QUARTERLY" => "P3M",
        "idsc:MONTHLY" => "P1M",
        "idsc:WEEKLY" => "P7D",
        "idsc:DAILY" => "P1D",
        // Not understood, so it stays what it is and the duty is refused.
        _ => text,
    };
    serde_json::json!({ "leftOperand": "timeInterval", "operator": "eq", "rightOperand": span })
}
