//! Policies that inherit: the rule S34 of `SEMANTICS.md`.

use std::collections::BTreeMap;

use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Map, Value, json};

use super::*;
use crate::refusal::{Fault, Refusal};

fn document(value: Value) -> PolicyDocument {
    PolicyDocument::from_value(value).unwrap()
}

/// The child with the policies that are stored here, each under its id.
fn written_out(child: Value, stored: Value) -> Result<PolicyDocument, Refusal> {
    let stored: BTreeMap<String, Value> = serde_json::from_value(stored).unwrap();
    inherit(&document(child), &|id| stored.get(id).cloned().map(document))
}

fn count(n: u64) -> Value {
    json!([{"leftOperand": "count", "operator": "lteq", "rightOperand": n}])
}

/// S34.
#[test]
fn a_policy_has_the_rules_of_all_that_it_inherits_from() {
    let stored = json!({
        "urn:house": {"@id": "urn:house", "prohibition": [{"action": "use", "constraint": count(3)}]},
        "urn:partners": {"@id": "urn:partners", "inheritFrom": ["urn:house"], "dct:title": "for partners",
            "assignee": "urn:partner", "permission": [{"@id": "_:b0", "action": "use", "constraint": count(2)}]},
        "urn:both": {"inheritFrom": [{"@id": "urn:partners"}, "urn:house"], "obligation": [{"action": "inform"}]},
    });
    let child = json!({"@id": "urn:child", "@type": "Offer", "target": "urn:data", "odrl:inheritFrom": "urn:both",
        "permission": [{"@id": "_:b0", "action": "use", "constraint": count(1)}]});
    let found = written_out(child, stored).unwrap();
    // The rules of the house once, though there are two ways to it.
    let whole = json!({"@type": "Offer", "@id": "urn:child", "target": "urn:data", "assignee": "urn:partner",
        "permission": [{"action": "use", "constraint": count(1)}, {"action": "use", "constraint": count(2)}],
        "prohibition": [{"action": "use", "constraint": count(3)}],
        "obligation": [{"action": "inform"}]});
    assert_eq!(terms_digest(&parse(&found).unwrap()), terms_digest(&parse(&document(whole)).unwrap()));
    assert_eq!((found.id(), found.kind(), found.target()), (Some("urn:child"), Some("Offer"), Some("urn:data")));
    assert_eq!(found.to_value()["prohibition"].as_array().map(Vec::len), Some(1));
    let text = found.to_value().to_string();
    assert!(!text.contains("inheritFrom") && !text.contains("for partners"), "{text}");
    assert_eq!(text.matches("_:b0").count(), 1, "a name of one document is none of the other: {text}");
}

/// S34.
#[test]
fn what_a_policy_says_for_all_its_rules_is_said_for_each_of_them() {
    // ODRL 2.2, section 2.9: the parent's assigner is the child's, the child's assignee the parent's.
    let default = json!({"urn:default": {"@id": "urn:default", "assigner": "urn:org",
        "obligation": [{"target": "urn:terms", "action": "inform"}]}});
    let child = json!({"@type": "Agreement", "@id": "urn:4444", "inheritFrom": "urn:default", "assignee": "urn:user",
        "permission": [{"target": "urn:asset", "action": "display"}]});
    let found = parse(&written_out(child, default).unwrap()).unwrap();
    assert_eq!(found.rules.len(), 2);
    for rule in &found.rules {
        assert_eq!(rule.assigner.as_ref().map(|who| who.id.as_str()), Some("urn:org"), "{rule:?}");
        assert_eq!(rule.assignee.as_ref().map(|who| who.id.as_str()), Some("urn:user"), "{rule:?}");
    }
    // Each policy's own stays with its rules.
    let other = json!({"urn:p": {"target": "urn:two", "action": "use", "permission": [{"constraint": count(2)}]}});
    let child = json!({"target": "urn:one", "inheritFrom": "urn:p", "permission": [{"action": "use"}]});
    let found = parse(&written_out(child, other).unwrap()).unwrap();
    let targets: Vec<&str> = found.rules.iter().filter_map(|rule| Some(rule.target.as_ref()?.id.as_str())).collect();
    assert_eq!(targets, ["urn:one", "urn:two"]);
}

/// S34.
#[test]
fn a_policy_that_inherits_from_nothing_stays_as_it_is() {
    let alone = json!({"odrl:permission": {"odrl:action": {"@id": "odrl:use"}}, "dct:title": "as it came"});
    assert_eq!(written_out(alone.clone(), json!({})).unwrap().to_value(), alone);
}

/// S34.
#[test]
fn a_family_that_contradicts_itself_is_refused_by_name() {
    let may = || json!([{"action": "use"}]);
    let not = || json!([{"action": "use", "constraint": count(1)}]);
    let child = |more: Value| {
        let mut child = json!({"@id": "urn:child", "inheritFrom": "urn:p", "permission": may()});
        child.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        child
    };
    let p = |parent: Value| json!({"urn:p": parent});
    // The last one of a line of so many.
    let line = |length: usize| -> Value {
        let next = |at: usize| json!({"permission": may(), "inheritFrom": format!("urn:{at}")});
        let mut line: Map<String, Value> = (1..length).map(|at| (format!("urn:{at}"), next(at + 1))).collect();
        line.insert(format!("urn:{length}"), json!({"permission": may()}));
        line.into()
    };
    let crowd = |size: usize| -> (Value, Value) {
        let ids: Vec<String> = (0..size).map(|n| format!("urn:{n}")).collect();
        let stored: Map<String, Value> = ids.iter().map(|id| (id.clone(), json!({"permission": may()}))).collect();
        (child(json!({"inheritFrom": ids})), stored.into())
    };
    let rules: Vec<Value> = (0..RULES_MAX).map(|n| json!({"action": "use", "constraint": count(n as u64)})).collect();
    let (crowded, many) = crowd(PARENTS_MAX + 1);
    for (name, child, stored, fault, said) in [
        ("unknown", child(json!({})), json!({}), Fault::Unenforceable, "`urn:p`"),
        (
            "itself",
            child(json!({"inheritFrom": "urn:child"})),
            json!({"urn:child": {"permission": may()}}),
            Fault::Unenforceable,
            "`urn:child`, then `urn:child`",
        ),
        (
            "a round",
            child(json!({})),
            json!({"urn:p": {"inheritFrom": "urn:q", "permission": may()}, "urn:q": {"inheritFrom": "urn:p"}}),
            Fault::Unenforceable,
            "`urn:child`, then `urn:p`, then `urn:q`, then `urn:p`",
        ),
        ("no name", child(json!({"inheritFrom": [7]})), json!({}), Fault::Malformed, "IRI"),
        (
            "another profile",
            child(json!({"profile": "urn:one"})),
            p(json!({"profile": "urn:two", "permission": may()})),
            Fault::Unenforceable,
            "`urn:one`",
        ),
        (
            "an unknown profile of one",
            child(json!({})),
            p(json!({"profile": "urn:two", "permission": may()})),
            Fault::Unenforceable,
            "`urn:two`",
        ),
        (
            "another strategy",
            child(json!({"conflict": "prohibit"})),
            p(json!({"conflict": "invalid", "permission": may()})),
            Fault::Unenforceable,
            "strategy",
        ),
        (
            "a permission would win over what a silent parent prohibits",
            child(json!({"conflict": "perm"})),
            p(json!({"prohibition": not()})),
            Fault::Unenforceable,
            "strategy",
        ),
        (
            "a permission would win over what a silent child prohibits",
            child(json!({"prohibition": not()})),
            p(json!({"conflict": "perm", "permission": may()})),
            Fault::Unenforceable,
            "strategy",
        ),
        (
            "a parent that was replaced",
            child(json!({})),
            p(json!({"dct:isReplacedBy": "urn:q", "permission": may()})),
            Fault::Unenforceable,
            "dct:isReplacedBy",
        ),
        (
            "other names",
            child(json!({})),
            p(json!({"@context": {"ex": "urn:ex:"}, "permission": may()})),
            Fault::Unenforceable,
            "@context",
        ),
        (
            "two targets, and a rule without",
            child(json!({"inheritFrom": ["urn:p", "urn:q", "urn:r"]})),
            json!({"urn:p": {"target": "urn:1", "permission": may()}, "urn:q": {"target": "urn:2", "permission": may()},
                "urn:r": {"prohibition": not()}}),
            Fault::Unenforceable,
            "`target`",
        ),
        (
            "a prohibition for everybody would be one for somebody",
            child(json!({"assignee": "urn:me", "permission": [{"action": "use", "assignee": "urn:other"}]})),
            p(json!({"prohibition": not()})),
            Fault::Unenforceable,
            "`assignee`",
        ),
        ("a long line", child(json!({"inheritFrom": "urn:1"})), line(INHERITANCE_MAX + 1), Fault::Limit, "generations"),
        ("a crowd", crowded, many, Fault::Limit, "policies"),
        ("many rules", child(json!({})), p(json!({"permission": rules})), Fault::Limit, "rules"),
    ] {
        let refusal = written_out(child, stored).unwrap_err();
        assert_eq!((refusal.fault, refusal.field.as_deref()), (fault, Some("inheritFrom")), "{name}: {refusal:?}");
        assert!(refusal.message.contains(said) && refusal.cure.is_some(), "{name}: {refusal:?}");
    }
    // As long and as many as there may be.
    assert!(written_out(child(json!({"inheritFrom": "urn:1"})), line(INHERITANCE_MAX)).is_ok());
    let (crowded, many) = crowd(PARENTS_MAX);
    assert!(written_out(crowded, many).is_ok());
    // Void where it conflicts: that is stricter for who said nothing, and for nobody more generous.
    let void = written_out(child(json!({})), p(json!({"conflict": "invalid", "prohibition": not()}))).unwrap();
    let problems = unenforceable(&parse(&void).unwrap(), &Capabilities::all());
    assert!(problems.iter().any(|problem| problem.path == "conflict"), "{problems:?}");
}

/// S17 and S34.
#[test]
fn what_still_refers_to_a_parent_is_refused_and_the_cure_is_to_write_it_out() {
    let refers = document(json!({"inheritFrom": "urn:p", "permission": [{"action": "use"}]}));
    let refusal = enforceable(&refers, &Capabilities::all()).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("inheritFrom"));
    assert!(refusal.message.contains("urn:p") && refusal.cure.unwrap().contains("stands alone"));
}
