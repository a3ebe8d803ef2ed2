//! What a policy says as a whole, and how it is said anew without the loss of a term.

use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Map, Value};

use super::ids;
use super::model::RuleKind;
use super::parse::DESCRIPTIONS;

/// The rules of a policy.
const RULES: [RuleKind; 3] = [RuleKind::Permission, RuleKind::Prohibition, RuleKind::Obligation];

/// The policy with this text as its `target`, `assigner`, `assignee` or `timestamp`, however that was spelled before.
///
/// Only one plain identifier is taken away. What is more than that (a collection, a refinement, several) is a term, and
/// goes into each rule that says nothing of its own, where it means the same (ODRL 2.2, §2.7).
#[must_use]
pub fn said_of_all(document: PolicyDocument, member: &str, text: &str) -> PolicyDocument {
    let mut document = document;
    take(&mut document.0, member, true);
    document.with(member, text)
}

/// As [`said_of_all`], with nothing in its place.
#[must_use]
pub fn left_to_rules(document: PolicyDocument, member: &str) -> PolicyDocument {
    let mut document = document;
    take(&mut document.0, member, false);
    document
}

/// The one identifier that the policy has as its `target`, `assigner` or `assignee`, where it is no collection and
/// nothing narrows it.
#[must_use]
pub fn one_plain<'a>(document: &'a PolicyDocument, member: &str) -> Option<&'a str> {
    let mut said = values(&document.0, member);
    said.next().filter(|_| said.next().is_none()).and_then(plain)
}

/// Whether the policy says of its `target`, `assigner` or `assignee` more than one identifier could.
#[must_use]
pub fn is_more_than_one_plain(document: &PolicyDocument, member: &str) -> bool {
    values(&document.0, member).next().is_some() && one_plain(document, member).is_none()
}

fn take(policy: &mut Map<String, Value>, member: &str, keep_place: bool) {
    let mut said: Vec<Value> = Vec::new();
    for value in values(policy, member).cloned() {
        if !said.contains(&value) {
            said.push(value);
        }
    }
    policy.retain(|key, _| !is(key, member) || (keep_place && key == member));
    let more = match said.as_slice() {
        [] => None,
        [one] => plain(one).is_none().then(|| one.clone()),
        _ => Some(Value::Array(said)),
    };
    let Some(more) = more.filter(|_| member != "timestamp") else { return };
    let is_rules = |key: &str| RULES.iter().any(|kind| is(key, kind.member()));
    for (_, rules) in policy.iter_mut().filter(|(key, _)| is_rules(key)) {
        let rules = match rules {
            Value::Array(rules) => rules.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            if !rule.iter().any(|(key, value)| is(key, member) && !value.is_null()) {
                rule.insert(member.to_owned(), more.clone());
            }
        }
    }
}

/// Whether a key is the member, in the words of ODRL or of the IDS.
fn is(key: &str, member: &str) -> bool {
    key == member || ids::member_name(key) == Some(member)
}

/// What is said of a member, in every spelling; an empty list is said, too.
fn values<'a>(policy: &'a Map<String, Value>, member: &str) -> impl Iterator<Item = &'a Value> {
    let said = policy.iter().filter(move |(key, value)| is(key, member) && !value.is_null());
    said.flat_map(|(_, value)| match value {
        Value::Array(all) if !all.is_empty() => all.iter().collect(),
        one => vec![one],
    })
}

fn plain(value: &Value) -> Option<&str> {
    match value {
        Value::String(id) => Some(id),
        Value::Object(node) => {
            let known =
                |key: &String| ["@id", "uid", "@type"].contains(&key.as_str()) || DESCRIPTIONS.contains(&key.as_str());
            let collection = node.get("@type").is_some_and(|kinds| kinds.to_string().contains("Collection"));
            let id = node.get("@id").or_else(|| node.get("uid")).and_then(Value::as_str);
            id.filter(|_| !collection && node.keys().all(known))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}
