//! The rules of `SEMANTICS.md`, each by a table. The laws are in `tests/policy_laws.rs`.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Value, json};

use super::*;
use crate::negotiation::Role;
use crate::refusal::{Fault, Refusal};

const ME: &str = "did:web:consumer.example";

fn document(value: Value) -> PolicyDocument {
    PolicyDocument::from_value(value).unwrap()
}

fn offer(permission: Value) -> PolicyDocument {
    document(json!({"@type": "Offer", "@id": "urn:offer:1", "permission": permission}))
}

fn under(constraint: Value) -> PolicyDocument {
    offer(json!([{"action": "use", "constraint": constraint}]))
}

fn atom(left: &str, operator: &str, right: Value) -> Value {
    json!({"leftOperand": left, "operator": operator, "rightOperand": right})
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn request() -> Request {
    Request {
        action: "use".to_owned(),
        assignee: ParticipantId::parse(ME).unwrap(),
        target: Some("urn:data:1".to_owned()),
    }
}

fn world(now: &str) -> World {
    World { now: at(now), ..World::default() }
}

fn decide(document: &PolicyDocument, world: &World) -> Decision {
    evaluate(&parse(document).unwrap_or_else(|problems| panic!("{problems:?}")), &request(), world)
}

fn refused(document: &PolicyDocument) -> Refusal {
    enforceable(document, &Capabilities::default()).unwrap_err()
}

#[test]
fn default_deny() {
    let noon = world("2030-01-01T12:00:00Z");
    for (name, policy, allowed) in [
        ("permission", json!({"permission": [{"action": "use"}]}), true),
        ("odrl: permission", json!({"odrl:permission": {"odrl:action": {"@id": "odrl:use"}}}), true),
        ("only a prohibition of something else", json!({"prohibition": [{"action": "sell"}]}), false),
        ("somebody else", json!({"permission": [{"action": "use", "assignee": "did:web:other.example"}]}), false),
        (
            "somebody else, said once",
            json!({"assignee": "did:web:other.example", "permission": [{"action": "use"}]}),
            false,
        ),
        ("me", json!({"permission": [{"action": "use", "assignee": ME}]}), true),
        (
            "me among others",
            json!({"permission": [{"action": "use", "assignee": [ME, "did:web:other.example"]}]}),
            true,
        ),
        ("another target", json!({"permission": [{"action": "use", "target": "urn:data:2"}]}), false),
        ("this target", json!({"permission": [{"action": "use", "target": "urn:data:1"}]}), true),
        ("a part of use", json!({"permission": [{"action": "read"}]}), false),
        (
            "a collection",
            json!({"permission": [{"action": "use", "assignee": {"@id": ME, "@type": "PartyCollection"}}]}),
            false,
        ),
        ("a duty", json!({"permission": [{"action": "use", "duty": [{"action": "compensate"}]}]}), false),
        (
            "an obligation",
            json!({"permission": [{"action": "use"}], "obligation": [{"action": "ensureExclusivity"}]}),
            false,
        ),
        ("an unknown profile", json!({"profile": "urn:p", "permission": [{"action": "use"}]}), false),
        ("a parent", json!({"inheritFrom": "urn:p", "permission": [{"action": "use"}]}), false),
        (
            "an undecided condition",
            json!({"permission": [{"action": "use", "constraint": atom("purpose", "eq", json!("x"))}]}),
            false,
        ),
    ] {
        let decision = decide(&document(policy), &noon);
        assert_eq!(decision.allowed, allowed, "{name}: {:?}", decision.reasons);
        assert!(!decision.reasons.is_empty(), "{name} gives a reason");
    }
}

#[test]
fn a_deprecated_name_is_the_action_that_it_stands_for() {
    let noon = world("2030-01-01T12:00:00Z");
    let copy = Request { action: "copy".to_owned(), ..request() };
    for (name, policy, allowed) in [
        ("itself", json!({"permission": [{"action": "copy"}]}), true),
        ("what it stands for", json!({"permission": [{"action": "reproduce"}]}), true),
        ("what includes that", json!({"permission": [{"action": "use"}]}), true),
        ("something else", json!({"permission": [{"action": "print"}]}), false),
        (
            "but not a part of it",
            json!({"permission": [{"action": "use"}], "prohibition": [{"action": "extract"}]}),
            false,
        ),
    ] {
        assert_eq!(evaluate(&parse(&document(policy)).unwrap(), &copy, &noon).allowed, allowed, "{name}");
    }
}

#[test]
fn a_bill_lets_the_use_go_first_and_forbids_it_once_it_is_overdue() {
    let after = atom("event", "gt", json!({"@id": "odrl:policyUsage"}));
    let policy = offer(json!([{"action": "use", "duty": [{"action": "compensate", "constraint": [after]}]}]));
    let policy = parse(&policy).unwrap();
    let key = policy.rules[0].duties[0].term.clone().unwrap().key;
    let noon = world("2030-01-01T12:00:00Z");
    for (state, allowed) in [(DutyState::Pending, true), (DutyState::Fulfilled, true), (DutyState::Violated, false)] {
        let world = World { duties: DutyStates::default().with(key.clone(), state), ..noon.clone() };
        assert_eq!(evaluate(&policy, &request(), &world).allowed, allowed, "{state:?}");
    }
}

#[test]
fn prohibition_wins() {
    let noon = world("2030-01-01T12:00:00Z");
    for (name, prohibition, allowed) in [
        ("the same action", json!({"action": "use"}), false),
        ("for somebody else", json!({"action": "use", "assignee": "did:web:other.example"}), true),
        ("an action outside use", json!({"action": "sell"}), true),
        ("a part of use", json!({"action": "print"}), false),
        ("a part of a part of use", json!({"action": "extract"}), false),
        (
            "until yesterday",
            json!({"action": "use", "constraint": [atom("dateTime", "lt", json!("2029-12-31T12:00:00Z"))]}),
            true,
        ),
        (
            "until tomorrow",
            json!({"action": "use", "constraint": [atom("dateTime", "lt", json!("2030-01-02T12:00:00Z"))]}),
            false,
        ),
        (
            "under an undecided condition",
            json!({"action": "use", "constraint": [atom("purpose", "eq", json!("x"))]}),
            false,
        ),
        ("with a remedy", json!({"action": "use", "remedy": [{"action": "compensate"}]}), false),
    ] {
        let policy = document(json!({"permission": [{"action": "use"}], "prohibition": [prohibition]}));
        let decision = decide(&policy, &noon);
        assert_eq!(decision.allowed, allowed, "{name}: {:?}", decision.reasons);
    }
}

const STRATEGIES: [Option<&str>; 4] = [None, Some("prohibit"), Some("perm"), Some("invalid")];

fn meeting(strategy: Option<&str>, permission: Value, prohibition: Value) -> PolicyDocument {
    let mut policy = json!({"permission": [permission], "prohibition": [prohibition]});
    if let Some(strategy) = strategy {
        policy["conflict"] = json!(strategy);
    }
    document(policy)
}

/// S2 and S33.
#[test]
fn the_strategy_says_who_wins_where_permission_and_prohibition_meet() {
    let world = World { uses: Some(2), ..world("2030-01-01T12:00:00Z") };
    let counted = |operator: &str| json!({"action": "use", "constraint": [atom("count", operator, json!(5))]});
    let unknown = json!({"action": "use", "constraint": [atom("purpose", "eq", json!("x"))]});
    let free = || json!({"action": "use"});
    // For each strategy in turn: absent, prohibit, perm, invalid.
    for (name, permission, prohibition, allowed) in [
        ("both hold", free(), free(), [false, false, true, false]),
        ("a part is prohibited", free(), json!({"action": "print"}), [false, false, true, false]),
        ("the prohibition may hold", free(), unknown.clone(), [false, false, true, false]),
        ("the permission may hold", unknown.clone(), free(), [false, false, false, false]),
        ("neither is known", unknown.clone(), unknown, [false, false, false, false]),
        ("the permission does not hold", counted("gt"), counted("lteq"), [false, false, false, false]),
        ("the prohibition does not hold, and never with it", counted("lteq"), counted("gt"), [true, true, true, true]),
        ("the prohibition does not hold now", free(), counted("gt"), [true, true, true, false]),
        ("something else is prohibited", free(), json!({"action": "sell"}), [true, true, true, true]),
        (
            "somebody else is meant",
            json!({"action": "use", "assignee": ME}),
            json!({"action": "use", "assignee": "did:web:other.example"}),
            [true, true, true, true],
        ),
    ] {
        for (strategy, allowed) in STRATEGIES.into_iter().zip(allowed) {
            let policy = meeting(strategy, permission.clone(), prohibition.clone());
            let decision = decide(&policy, &world);
            assert_eq!(decision.allowed, allowed, "{name} under {strategy:?}: {:?}", decision.reasons);
            assert!(!decision.reasons.is_empty(), "{name} gives a reason");
        }
    }
    let overridden = decide(&meeting(Some("perm"), free(), free()), &world);
    assert!(overridden.reasons.iter().any(|reason| reason.path == "prohibition[0]"), "{:?}", overridden.reasons);
    assert!(overridden.reasons.iter().any(|reason| reason.path == "permission[0]"), "{:?}", overridden.reasons);
}

/// S33.
#[test]
fn a_policy_that_is_void_by_its_own_words_is_void_for_everything_and_names_both_rules() {
    // The conflict is about one dataset; the request is about another.
    let policy = document(json!({"conflict": "invalid", "permission": [
        {"action": "use", "target": "urn:data:1"}, {"action": "use", "target": "urn:data:2"}],
        "prohibition": [{"action": "print", "target": "urn:data:2"}]}));
    let decision = decide(&policy, &world("2030-01-01T12:00:00Z"));
    assert_eq!((decision.allowed, decision.valid_until), (false, None));
    let said = decision.reasons.iter().find(|reason| reason.path == "conflict").unwrap();
    assert!(said.message.contains("permission[1]") && said.message.contains("prohibition[0]"), "{said:?}");
    assert!(!could_allow(&parse(&policy).unwrap(), &request(), &World::default()));
    let refusal = refused(&policy);
    assert_eq!(refusal.field.as_deref(), Some("conflict"));
    assert!(refusal.message.contains("permission[1]") && refusal.message.contains("prohibition[0]"), "{refusal:?}");
}

/// S33.
#[test]
fn conditions_that_can_never_hold_together_are_no_conflict() {
    let noon = "2030-01-01T12:00:00Z";
    let when = |operator: &str| atom("dateTime", operator, json!(noon));
    let count = |operator: &str, n: u64| atom("count", operator, json!(n));
    let to = |operator: &str, who: Value| atom("recipient", operator, who);
    let purpose = |operator: &str, names: Value| atom("purpose", operator, names);
    let event = |operator: &str, names: Value| atom("event", operator, names);
    let media = |operator: &str, names: Value| atom("media", operator, names);
    let level = |operator: &str| atom("idsc:SECURITY_LEVEL", operator, json!("idsc:TRUST_SECURITY_PROFILE"));
    for (one, other, void) in [
        (when("lt"), when("gteq"), false),
        (when("lteq"), when("gteq"), true),
        (when("lteq"), when("gt"), false),
        (when("eq"), when("neq"), false),
        (when("neq"), when("neq"), true),
        (count("lteq", 3), count("gt", 3), false),
        (count("lt", 4), count("gt", 2), true),
        // Only whole numbers exclude it, and that is not looked at: what is uncertain is a conflict.
        (count("gt", 3), count("lt", 4), true),
        (count("eq", 1), atom("elapsedTime", "gt", json!("P1D")), true),
        (atom("elapsedTime", "lt", json!("P1D")), atom("elapsedTime", "gteq", json!("P2D")), false),
        (atom("elapsedTime", "lt", json!("P30D")), atom("elapsedTime", "gteq", json!("P1M")), true),
        (to("eq", json!("urn:a")), to("isAnyOf", json!(["urn:b", "urn:c"])), false),
        (to("eq", json!("urn:a")), to("isAnyOf", json!(["urn:b", "urn:a"])), true),
        (to("isAnyOf", json!(["urn:a"])), to("isNoneOf", json!(["urn:a", "urn:b"])), false),
        // Purposes and places may have parts, whether an operator says so or not.
        (purpose("eq", json!("urn:x")), purpose("eq", json!("urn:y")), true),
        (purpose("eq", json!("urn:x")), purpose("neq", json!("urn:x")), true),
        (media("eq", json!("urn:x")), media("eq", json!("urn:y")), false),
        (media("eq", json!("urn:x")), media("neq", json!("urn:x")), false),
        (media("isAnyOf", json!(["urn:x", "urn:z"])), media("neq", json!("urn:x")), true),
        (purpose("isAnyOf", json!(["urn:x", "urn:z"])), purpose("neq", json!("urn:x")), true),
        // Two events may go on at once.
        (event("eq", json!("urn:x")), event("eq", json!("urn:y")), true),
        (event("isAllOf", json!(["urn:x", "urn:y"])), event("neq", json!("urn:x")), false),
        (level("lt"), level("gteq"), false),
        (level("lteq"), level("gteq"), true),
        (json!({"or": [when("lt"), count("lteq", 1)]}), json!({"and": [when("gteq"), count("gt", 1)]}), false),
        (json!({"or": [when("lt"), count("lteq", 1)]}), when("gteq"), true),
        (json!({"xone": [when("lt"), count("lteq", 1)]}), json!({"and": [when("gteq"), count("gt", 1)]}), false),
    ] {
        let rule = |constraint: &Value| json!({"action": "use", "constraint": [constraint]});
        for (a, b) in [(&one, &other), (&other, &one)] {
            let policy = parse(&meeting(Some("invalid"), rule(a), rule(b))).unwrap();
            let refused = unenforceable(&policy, &Capabilities::all());
            assert_eq!(refused.iter().any(|problem| problem.path == "conflict"), void, "{a} and {b}: {refused:?}");
        }
    }
    for (permission, prohibition, void) in [
        (json!({"action": "use"}), json!({"action": "distribute"}), true),
        (json!({"action": "read"}), json!({"action": "use"}), true),
        (json!({"action": "read"}), json!({"action": "print"}), false),
        (json!({"action": "use"}), json!({"action": "sell"}), false),
        (json!({"action": "use"}), json!({"action": "idsc:ENCRYPT"}), true),
        (json!({"action": "use", "target": "urn:a"}), json!({"action": "use", "target": "urn:b"}), false),
        (json!({"action": "use", "target": "urn:a"}), json!({"action": "use"}), true),
        (
            json!({"action": "use", "target": "urn:a"}),
            json!({"action": "use", "target": {"@type": "AssetCollection", "@id": "urn:b"}}),
            true,
        ),
    ] {
        let policy = parse(&meeting(Some("invalid"), permission.clone(), prohibition.clone())).unwrap();
        let found = unenforceable(&policy, &Capabilities::all()).iter().any(|problem| problem.path == "conflict");
        assert_eq!(found, void, "{permission} and {prohibition}");
    }
}

/// S33: whatever an operator says is part of what.
#[test]
fn a_policy_is_void_for_every_operator_or_for_none() {
    let parts = Taxonomy::new([("urn:DE", "urn:EU"), ("urn:BY", "urn:DE")]);
    let mine = Vocabulary { parts, ..Vocabulary::default() };
    for operand in ["spatial", "purpose", "media", "event"] {
        for (ours, theirs) in [("eq", "eq"), ("eq", "neq"), ("isPartOf", "neq"), ("isAllOf", "isNoneOf")] {
            let rule = |operator: &str, name: &str| json!({"action": "use", "constraint": [atom(operand, operator, json!(name))]});
            for name in ["urn:DE", "urn:FR"] {
                let policy = meeting(Some("invalid"), rule(ours, "urn:DE"), rule(theirs, name));
                let void = |vocabulary: &Vocabulary| {
                    let policy = parse_with(&policy, vocabulary).unwrap();
                    unenforceable(&policy, &Capabilities::all()).iter().any(|problem| problem.path == "conflict")
                };
                assert_eq!(void(&mine), void(&Vocabulary::default()), "{operand} {ours} urn:DE, {theirs} {name}");
            }
        }
    }
}

/// S16 and S33.
#[test]
fn a_strategy_is_a_term_only_where_it_makes_a_difference() {
    let terms = |strategy: Option<&str>, prohibited: bool| {
        let mut policy = json!({"permission": [{"action": "use"}]});
        if let Some(strategy) = strategy {
            policy["conflict"] = json!(strategy);
        }
        if prohibited {
            policy["prohibition"] = json!([{"action": "sell"}]);
        }
        digest(policy)
    };
    for strategy in STRATEGIES {
        assert_eq!(terms(strategy, false), terms(None, false), "{strategy:?} where nothing is prohibited");
    }
    assert_eq!(terms(Some("prohibit"), true), terms(None, true));
    assert_ne!(terms(Some("perm"), true), terms(None, true));
    assert_ne!(terms(Some("invalid"), true), terms(None, true));
    assert_ne!(terms(Some("invalid"), true), terms(Some("perm"), true));
}

/// S19 and S33.
#[test]
fn a_comparison_heeds_the_strategy() {
    let counted = |operator: &str| json!({"action": "use", "constraint": [atom("count", operator, json!(5))]});
    let may = json!({"permission": [counted("lteq")]});
    let with =
        |strategy: &str| json!({"conflict": strategy, "permission": [counted("lteq")], "prohibition": [counted("gt")]});
    let void = json!({"conflict": "invalid", "permission": [counted("lteq")], "prohibition": [{"action": "use"}]});
    for (offered, requested, relation) in [
        (may.clone(), with("prohibit"), Relation::Narrower),
        (may.clone(), with("invalid"), Relation::Narrower),
        // A prohibition more takes nothing away where a permission wins, and one less is not what was offered.
        (may.clone(), with("perm"), Relation::Equal),
        (with("perm"), may.clone(), Relation::Wider("prohibition".to_owned())),
        (with("prohibit"), with("perm"), Relation::Unknown),
        (with("perm"), with("invalid"), Relation::Unknown),
        (with("perm"), with("perm"), Relation::Equal),
        // What is void allows nothing, and what is narrower than it might.
        (void.clone(), may, Relation::Unknown),
        (void, with("invalid"), Relation::Unknown),
    ] {
        let (a, b) = (parse(&document(offered.clone())).unwrap(), parse(&document(requested.clone())).unwrap());
        assert_eq!(compare(&a, &b), relation, "{offered} then {requested}");
    }
}

#[test]
fn time_windows_are_exact() {
    let t = "2030-01-01T12:00:00Z";
    let (before, after) = ("2030-01-01T11:59:59.999999999Z", "2030-01-01T12:00:00.000000001Z");
    for (operator, expected) in [
        // before, at, after
        ("lt", [true, false, false]),
        ("lteq", [true, true, false]),
        ("eq", [false, true, false]),
        ("neq", [true, false, true]),
        ("gteq", [false, true, true]),
        ("gt", [false, false, true]),
    ] {
        let policy = under(atom("dateTime", operator, json!({"@value": t, "@type": "xsd:dateTime"})));
        assert!(enforceable(&policy, &Capabilities::default()).is_ok(), "{operator}");
        for (now, allowed) in [before, t, after].into_iter().zip(expected) {
            assert_eq!(decide(&policy, &world(now)).allowed, allowed, "{now} {operator} {t}");
        }
    }
}

#[test]
fn a_decision_holds_until_just_before_valid_until() {
    let policy = |operator: &str| under(atom("dateTime", operator, json!("2030-01-01T12:00:00Z")));
    for (operator, now, valid_until) in [
        ("lteq", "2030-01-01T00:00:00Z", Some("2030-01-01T12:00:00.000000001Z")),
        ("lt", "2030-01-01T00:00:00Z", Some("2030-01-01T12:00:00Z")),
        ("gteq", "2030-01-01T00:00:00Z", Some("2030-01-01T12:00:00Z")),
        ("gt", "2030-01-01T00:00:00Z", Some("2030-01-01T12:00:00.000000001Z")),
        ("eq", "2030-01-01T00:00:00Z", Some("2030-01-01T12:00:00Z")),
        ("eq", "2030-01-01T12:00:00Z", Some("2030-01-01T12:00:00.000000001Z")),
        ("neq", "2030-01-01T12:00:00Z", Some("2030-01-01T12:00:00.000000001Z")),
        ("lteq", "2031-01-01T00:00:00Z", None),
        ("gteq", "2031-01-01T00:00:00Z", None),
    ] {
        assert_eq!(decide(&policy(operator), &world(now)).valid_until, valid_until.map(at), "{operator} {now}");
    }
    // Two windows that touch are one; the decision ends where the second does.
    let touching = under(json!([{"or": [
        {"and": [atom("dateTime", "gteq", json!("2030-01-01T00:00:00Z")), atom("dateTime", "lt", json!("2030-02-01T00:00:00Z"))]},
        {"and": [atom("dateTime", "gteq", json!("2030-02-01T00:00:00Z")), atom("dateTime", "lt", json!("2030-03-01T00:00:00Z"))]},
    ]}]));
    assert_eq!(decide(&touching, &world("2030-01-15T00:00:00Z")).valid_until, Some(at("2030-03-01T00:00:00Z")));
    // Exactly one: where the windows overlap, neither is one.
    let overlap = under(json!([{"xone": [
        atom("dateTime", "lt", json!("2030-02-01T00:00:00Z")), atom("dateTime", "gteq", json!("2030-01-10T00:00:00Z")),
    ]}]));
    for (now, allowed, until) in [
        ("2030-01-01T00:00:00Z", true, Some("2030-01-10T00:00:00Z")),
        ("2030-01-20T00:00:00Z", false, Some("2030-02-01T00:00:00Z")),
        ("2030-02-01T00:00:00Z", true, None),
    ] {
        let decision = decide(&overlap, &world(now));
        assert_eq!((decision.allowed, decision.valid_until), (allowed, until.map(at)), "{now}");
    }
}

#[test]
fn time_since_agreement_follows_the_calendar() {
    for (agreed, span, last) in [
        ("2030-01-01T12:00:00Z", "P30D", "2030-01-31T12:00:00Z"),
        ("2030-01-31T12:00:00Z", "P1M", "2030-02-28T12:00:00Z"),
        ("2028-01-31T12:00:00Z", "P1M", "2028-02-29T12:00:00Z"),
        ("2028-02-29T12:00:00Z", "P1Y", "2029-02-28T12:00:00Z"),
        ("2030-01-31T00:00:00Z", "P1M1D", "2030-03-01T00:00:00Z"),
        ("2030-01-01T00:00:00Z", "PT36H", "2030-01-02T12:00:00Z"),
        ("2030-01-01T00:00:00Z", "P1W", "2030-01-08T00:00:00Z"),
        ("2030-01-01T00:00:00Z", "PT0.5S", "2030-01-01T00:00:00.5Z"),
        ("2030-01-01T00:00:00Z", "P1Y2M3DT4H5M6.000000007S", "2031-03-04T04:05:06.000000007Z"),
    ] {
        let policy = under(atom("elapsedTime", "lteq", json!({"@value": span, "@type": "xsd:duration"})));
        assert!(enforceable(&policy, &Capabilities::default()).is_ok());
        let now = World { now: at(agreed), agreed_at: Some(at(agreed)), ..World::default() };
        let decision = decide(&policy, &now);
        assert!(decision.allowed, "{span}");
        let turns = at(last).checked_add(jiff::SignedDuration::from_nanos(1)).unwrap();
        assert_eq!(decision.valid_until, Some(turns), "{agreed} {span}");
    }
    // Before there is an agreement nothing is known, and unknown never allows.
    let policy = under(atom("elapsedTime", "lteq", json!("P30D")));
    assert!(!decide(&policy, &world("2030-01-01T00:00:00Z")).allowed);
}

#[test]
fn uses_are_counted_exactly() {
    for (constraint, uses, allowed, uses_max) in [
        (atom("count", "lteq", json!(3)), Some(1), true, Some(3)),
        (atom("count", "lteq", json!("3")), Some(3), true, Some(3)),
        (atom("count", "lteq", json!({"@value": "3", "@type": "xsd:integer"})), Some(4), false, Some(3)),
        (atom("count", "lt", json!(3)), Some(1), true, Some(2)),
        (atom("count", "eq", json!(1)), Some(1), true, Some(1)),
        (atom("count", "eq", json!(2)), Some(1), false, Some(0)),
        (atom("count", "neq", json!(3)), Some(1), true, Some(2)),
        (atom("count", "gteq", json!(1)), Some(7), true, None),
        (atom("count", "lteq", json!(3)), None, false, Some(3)),
        (atom("count", "lteq", json!(0)), Some(1), false, Some(0)),
        (json!({"or": [atom("count", "lteq", json!(3)), atom("count", "eq", json!(4))]}), Some(2), true, Some(4)),
        (json!({"or": [atom("count", "lteq", json!(3)), atom("count", "eq", json!(9))]}), Some(9), true, Some(9)),
        (atom("dateTime", "gteq", json!("2030-01-01T00:00:00Z")), Some(2), true, None),
        (atom("count", "lteq", json!(u64::MAX)), Some(2), true, None),
    ] {
        let policy = under(constraint.clone());
        assert!(enforceable(&policy, &Capabilities::default()).is_ok(), "{constraint}");
        let now = World { uses, ..world("2030-01-01T00:00:00Z") };
        let decision = decide(&policy, &now);
        assert_eq!((decision.allowed, decision.uses_max), (allowed, uses_max), "{constraint} {uses:?}");
    }
    let prohibited = document(json!({
        "permission": [{"action": "use"}],
        "prohibition": [{"action": "use", "constraint": [atom("count", "gt", json!(5))]}]
    }));
    let now = World { uses: Some(5), ..world("2030-01-01T00:00:00Z") };
    assert_eq!(decide(&prohibited, &now).uses_max, Some(5));
}

#[test]
fn recipient_is_the_participant_that_the_data_goes_to() {
    for (operator, right, allowed) in [
        ("eq", json!(ME), true),
        ("eq", json!({"@id": ME}), true),
        ("eq", json!("did:web:other.example"), false),
        ("neq", json!("did:web:other.example"), true),
        ("isAnyOf", json!(["did:web:other.example", ME]), true),
        ("isNoneOf", json!(["did:web:other.example", ME]), false),
    ] {
        let policy = under(atom("recipient", operator, right));
        assert!(enforceable(&policy, &Capabilities::default()).is_ok());
        assert_eq!(decide(&policy, &world("2030-01-01T00:00:00Z")).allowed, allowed, "{operator}");
    }
}

#[test]
fn logical_operands_by_truth_table() {
    let yes = || atom("dateTime", "lt", json!("2040-01-01T00:00:00Z"));
    let no = || atom("dateTime", "gt", json!("2040-01-01T00:00:00Z"));
    let unknown = || atom("purpose", "eq", json!("x"));
    for (operand, of, allowed) in [
        ("and", vec![yes(), yes()], true),
        ("and", vec![yes(), no()], false),
        ("and", vec![yes(), unknown()], false),
        ("or", vec![no(), yes()], true),
        ("or", vec![unknown(), yes()], true),
        ("or", vec![unknown(), no()], false),
        ("xone", vec![yes(), no()], true),
        ("xone", vec![yes(), yes()], false),
        ("xone", vec![yes(), unknown()], false),
        ("andSequence", vec![yes(), yes()], true),
        ("andSequence", vec![yes(), no()], false),
        ("andSequence", vec![yes(), unknown()], false),
        ("andSequence", vec![yes()], true),
    ] {
        let policy = under(json!({operand: of}));
        assert_eq!(decide(&policy, &world("2030-01-01T00:00:00Z")).allowed, allowed, "{operand} {of:?}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name_and_place() {
    let base = |rule: Value| document(json!({"@type": "Offer", "permission": [rule]}));
    for (policy, field, name) in [
        (base(json!({"action": "print"})), "permission[0].action", "print"),
        (base(json!({"action": "read"})), "permission[0].action", "read"),
        (base(json!({"action": "ex:fly"})), "permission[0].action", "ex:fly"),
        (base(json!({"action": "use", "duty": [{"action": "delete"}]})), "permission[0].duty[0]", "delete"),
        (base(json!({"action": "use", "ex:colour": "red"})), "permission[0].ex:colour", "ex:colour"),
        (
            base(json!({"action": "use", "constraint": [atom("purpose", "eq", json!("x"))]})),
            "permission[0].constraint[0].leftOperand",
            "purpose",
        ),
        (
            base(json!({"action": "use", "constraint": [atom("partner", "eq", json!("gold"))]})),
            "permission[0].constraint[0].leftOperand",
            "partner",
        ),
        (
            base(json!({"action": "use", "constraint": [atom("dateTime", "term-lteq", json!("x"))]})),
            "permission[0].constraint[0].operator",
            "term-lteq",
        ),
        (
            base(json!({"action": "use", "constraint": [atom("dateTime", "isAnyOf", json!("2030-01-01T00:00:00Z"))]})),
            "permission[0].constraint[0].operator",
            "isAnyOf",
        ),
        (
            base(
                json!({"action": "use", "constraint": [atom("dateTime", "eq", json!({"@value": "2030-01-01", "@type": "xsd:date"}))]}),
            ),
            "permission[0].constraint[0].rightOperand",
            "xsd:date",
        ),
        (
            base(json!({"action": "use", "constraint": [{"andSequence": [
                atom("dateTime", "gteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(1))]}]})),
            "permission[0].constraint[0].andSequence[1].leftOperand",
            "since when `count` holds is not known",
        ),
        (
            base(json!({"action": "use", "constraint": [{"andSequence": [
                {"or": [atom("dateTime", "lt", json!("2030-01-01T00:00:00Z")), atom("recipient", "eq", json!(ME))]},
                atom("dateTime", "lt", json!("2031-01-01T00:00:00Z"))]}]})),
            "permission[0].constraint[0].andSequence[0].or",
            "since when `or` holds is not known",
        ),
        (
            base(
                json!({"action": {"rdf:value": {"@id": "odrl:use"}, "refinement": [atom("count", "lteq", json!(1))]}}),
            ),
            "permission[0].action",
            "refined",
        ),
        (
            base(json!({"action": "use", "assignee": {"@id": "urn:g", "@type": "PartyCollection"}})),
            "permission[0].assignee",
            "collection",
        ),
        (base(json!({"action": "use", "informedParty": "urn:x"})), "permission[0].informedParty", "informedParty"),
        (
            document(json!({"permission": [{"action": "use"}], "obligation": [{"action": "inform"}]})),
            "obligation[0]",
            "inform",
        ),
        (
            document(json!({"permission": [{"action": "use"}], "profile": "https://test.com/profile"})),
            "profile",
            "https://test.com/profile",
        ),
        (document(json!({"permission": [{"action": "use"}], "conflict": "first"})), "conflict", "first"),
        (
            document(
                json!({"permission": [{"action": "use"}], "prohibition": [{"action": "print"}], "conflict": "invalid"}),
            ),
            "conflict",
            "prohibition[0]",
        ),
        (
            document(json!({"permission": [{"action": "use"}], "inheritFrom": ["urn:parent"]})),
            "inheritFrom",
            "urn:parent",
        ),
        (
            document(json!({"permission": [{"action": "use"}], "dct:isReplacedBy": "urn:newer"})),
            "dct:isReplacedBy",
            "dct:isReplacedBy",
        ),
    ] {
        let refusal = refused(&policy);
        assert_eq!(refusal.fault, Fault::Unenforceable, "{refusal:?}");
        assert_eq!(refusal.field.as_deref(), Some(field), "{refusal:?}");
        assert!(refusal.message.contains(name), "{refusal:?}");
        assert!(refusal.cure.is_some());
    }
}

/// S36.
#[test]
fn a_profile_is_understood_or_refused_by_name() {
    let under = |profiles: Value| document(json!({"profile": profiles, "permission": [{"action": "use"}]}));
    let known = [
        "http://www.w3.org/ns/odrl/2/core",
        "https://w3id.org/dspace/2025/1/odrl-profile",
        "https://w3id.org/dspace/2025/1/odrl-profile.jsonld",
    ];
    assert_eq!(known, PROFILES_KNOWN);
    assert_eq!(known.as_slice(), describe(&Capabilities::default()).profiles);
    for profile in known {
        for spelled in [json!(profile), json!([profile]), json!([{"@id": profile}]), json!(known)] {
            assert!(enforceable(&under(spelled.clone()), &Capabilities::default()).is_ok(), "{spelled}");
        }
    }
    for profile in ["http://example.com/ids-profile", "http://www.w3.org/ns/odrl/2/core/", "urn:mine", "odrl"] {
        for profiles in [json!(profile), json!([known[0], profile])] {
            let refusal = refused(&under(profiles));
            assert_eq!(refusal.field.as_deref(), Some("profile"));
            assert!(refusal.message.contains(profile), "{refusal:?}");
            assert!(!decide(&under(json!(profile)), &world("2030-01-01T12:00:00Z")).allowed);
        }
    }
}

#[test]
fn every_problem_is_named_not_only_the_first() {
    let policy = document(json!({"permission": [
        {"action": "fly", "constraint": [atom("moon", "eq", json!("full")), atom("dateTime", "about", json!("noon"))]},
        {"constraint": [{"and": []}]},
        {"action": "use", "assignee": []},
        {"action": [], "duty": [{"informedParty": []}]}
    ]}));
    let paths: Vec<String> = parse(&policy).unwrap_err().into_iter().map(|problem| problem.path).collect();
    for path in [
        "permission[0].action",
        "permission[0].constraint[0].leftOperand",
        "permission[0].constraint[1].operator",
        "permission[1].constraint[0].and",
        "permission[1].action",
        "permission[2].assignee",
        "permission[3].action",
        "permission[3].duty[0].action",
        "permission[3].duty[0].informedParty",
    ] {
        assert!(paths.iter().any(|found| found == path), "{path} in {paths:?}");
    }
    // What all rules have from the policy is refused once.
    let shared = document(json!({"action": "fly", "permission": [{}, {}], "prohibition": [{"action": "use"}]}));
    assert_eq!(parse(&shared).unwrap_err().len(), 1);
    let message = refused(&policy).message;
    assert!(message.contains("fly") && message.contains("moon") && message.contains("about"), "{message}");
}

#[test]
fn what_is_no_policy_is_malformed() {
    for (policy, field) in [
        (json!({}), "permission"),
        (json!({"permission": []}), "permission"),
        (json!({"permission": ["urn:rule"]}), "permission[0]"),
        (json!({"permission": [{}]}), "permission[0].action"),
        (json!({"permission": [{"action": 7}]}), "permission[0].action"),
        (json!({"permission": [{"action": []}]}), "permission[0].action"),
        (json!({"@type": "Car", "permission": [{"action": "use"}]}), "@type"),
        (json!({"@type": ["Offer", "Agreement"], "permission": [{"action": "use"}]}), "@type"),
        (
            json!({"@type": "Agreement", "target": "urn:d", "assigner": "urn:p", "permission": [{"action": "use"}]}),
            "assignee",
        ),
        (json!({"permission": [{"@type": "Prohibition", "action": "use"}]}), "permission[0].@type"),
        (json!({"permission": [{"action": "use", "assignee": []}]}), "permission[0].assignee"),
        (json!({"permission": [{"action": "use", "assignee": ""}]}), "permission[0].assignee"),
        (json!({"permission": [{"action": "use", "constraint": ["urn:c"]}]}), "permission[0].constraint[0]"),
        (
            json!({"permission": [{"action": "use", "constraint": [{"leftOperand": "count", "operator": "lteq"}]}]}),
            "permission[0].constraint[0].rightOperand",
        ),
        (
            json!({"permission": [{"action": "use", "constraint": [{"or": [], "and": []}]}]}),
            "permission[0].constraint[0]",
        ),
        (
            json!({"permission": [{"action": "use", "constraint": [atom("count", "lteq", json!([1, 2]))]}]}),
            "permission[0].constraint[0].rightOperand",
        ),
        (
            json!({"permission": [{"action": "use", "constraint": [atom("count", "lteq", json!("many"))]}]}),
            "permission[0].constraint[0].rightOperand",
        ),
        (
            json!({"permission": [{"action": "use", "constraint": [atom("dateTime", "lteq", json!("2030-01-01T00:00:00"))]}]}),
            "permission[0].constraint[0].rightOperand",
        ),
        (json!({"timestamp": "yesterday", "permission": [{"action": "use"}]}), "timestamp"),
    ] {
        let refusal = refused(&document(policy.clone()));
        assert_eq!((refusal.fault, refusal.field.as_deref()), (Fault::Malformed, Some(field)), "{policy}: {refusal:?}");
    }
}

#[test]
fn values_by_table() {
    let reads = |left: &str, right: &str| parse(&under(atom(left, "lteq", json!(right)))).is_ok();
    for good in ["2023-12-31T06:00Z", "2030-01-01T00:00:00+14:00", "2030-01-01T00:00:00.123456789-05:30"] {
        assert!(reads("dateTime", good), "{good}");
    }
    for bad in [
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-02-30T00:00:00Z",
        "2030-01-01 00:00:00Z",
        "20300101T000000Z",
        "2030-01-01T00:00:60Z",
        "2030-01-01T00:00:00+15:00",
        "2030-01-01T00:00:00.Z",
        "2030-01-01T00:00:00Z[UTC]",
        "2030-01-01T00:00:00z",
        "-2030-01-01T00:00:00Z",
        "2030-01-01T00:00:00.1234567891Z",
        "now",
        "2030-01-01T00:00:00+01:75",
    ] {
        assert!(!reads("dateTime", bad), "{bad}");
    }
    for (good, normal) in [
        ("P1D", "P1D"),
        ("PT24H", "P1D"),
        ("P1Y", "P1Y"),
        ("P12M", "P1Y"),
        ("P2W", "P14D"),
        ("PT90M", "PT1H30M"),
        ("PT0S", "PT0S"),
        ("PT1.50S", "PT1.5S"),
        ("P1YT1M", "P1YT1M"),
        ("P0Y", "PT0S"),
    ] {
        assert_eq!(literal::duration(good).map(|span| span.to_string()).as_deref(), Ok(normal), "{good}");
    }
    for bad in [
        "",
        "P",
        "PT",
        "1D",
        "-P1D",
        "P1",
        "P1S",
        "PT1D",
        "P1D1M",
        "P1.5D",
        "PT1.S",
        "P99999Y",
        "P1DT",
        "PT99999999999999999999S",
        "P1M1M",
    ] {
        assert!(literal::duration(bad).is_err(), "{bad}");
    }
    for (text, count) in [
        ("5", Some(5)),
        ("+5", Some(5)),
        ("5.0", Some(5)),
        ("-1", None),
        ("5.5", None),
        ("", None),
        ("5.", None),
        ("1e3", None),
    ] {
        assert_eq!(literal::count(text).ok(), count, "{text}");
    }
}

#[test]
fn limits_hold() {
    let rules: Vec<Value> = (0..=RULES_MAX).map(|_| json!({"action": "use"})).collect();
    assert_eq!(refused(&offer(json!(rules))).fault, Fault::Limit);
    let constraints: Vec<Value> = (0..=CONSTRAINTS_MAX).map(|_| atom("count", "lteq", json!(1))).collect();
    assert_eq!(refused(&under(json!(constraints))).fault, Fault::Limit);
    // Arrays multiply: what is written small is counted large.
    let many: Vec<String> = (0..20).map(|n| format!("urn:x:{n}")).collect();
    assert_eq!(refused(&offer(json!([{"action": "use", "target": many, "assignee": many}]))).fault, Fault::Limit);
    let parties: Vec<String> = (0..=PARTIES_MAX).map(|n| format!("urn:x:{n}")).collect();
    let few: Vec<&String> = parties.iter().take(20).collect();
    let condition = || atom("skos:concept", "eq", json!("urn:x"));
    let refined = json!({"@type": "AssetCollection", "source": "urn:x", "refinement": vec![condition(); 100]});
    let open = json!([{"action": "use"}, {"action": "use", "target": "urn:y"}]);
    let rules: Vec<Value> = (0..10).map(|n| json!({"action": "use", "assignee": format!("urn:x:{n}")})).collect();
    let inform = json!({"action": "inform"});
    for (what, document) in [
        ("parties", json!({"permission": [{"action": "use", "informedParty": parties}]})),
        ("parties", json!({"permission": [{"action": "use", "assignee": few, "informedParty": few}]})),
        ("constraints", json!({"target": refined, "permission": rules, "prohibition": [{"action": "use"}]})),
        ("constraints", json!({"target": refined, "assignee": few, "permission": open})),
        (
            "constraints",
            json!({"action": {"rdf:value": {"@id": "use"}, "refinement": vec![condition(); 100]}, "permission": [{"assignee": few}]}),
        ),
        ("rules", json!({"permission": [{"action": "use", "assignee": few, "duty": vec![inform; 20]}]})),
    ] {
        let problems = parse(&PolicyDocument::from_value(document.clone()).unwrap()).unwrap_err();
        let problem = problems.iter().find(|problem| problem.kind == ProblemKind::Limit);
        assert!(problem.is_some_and(|problem| problem.message.contains(what)), "{what}: {problems:?}");
    }
    let told = parse(&document(json!({"permission": [{"action": "use", "informedParty": few}]}))).unwrap();
    assert_eq!(unenforceable(&told, &Capabilities::all()).len(), 1, "one problem for a function");
    let mut deep = atom("count", "lteq", json!(1));
    for _ in 0..NESTING_MAX + 2 {
        deep = json!({"and": [deep]});
    }
    assert_eq!(refused(&under(deep)).fault, Fault::Limit);
    let values: Vec<usize> = (0..=OPERANDS_MAX).collect();
    assert_eq!(refused(&under(atom("recipient", "isAnyOf", json!(values)))).fault, Fault::Limit);
    assert_eq!(refused(&under(atom("recipient", "eq", json!("x".repeat(TEXT_BYTES_MAX + 1))))).fault, Fault::Limit);
    let bad: Vec<Value> = (0..RULES_MAX).map(|_| json!({"action": "fly"})).collect();
    assert_eq!(parse(&offer(json!(bad))).unwrap_err().len(), PROBLEMS_MAX);
}

fn digest(value: Value) -> String {
    terms_digest(&parse(&document(value)).unwrap())
}

/// S16, S18: a logical constraint of one is the one, however deep, and costs no more than that.
#[test]
fn a_condition_alone_under_many_operands_is_the_condition() {
    let plain: Vec<Value> = (1..=60).map(|n| atom("count", "lteq", json!(n))).collect();
    let chain = |one: &Value| {
        let operands = ["xone", "andSequence", "xone", "or", "and"];
        operands.iter().cycle().take(15).fold(one.clone(), |inner, operand| json!({*operand: [inner]}))
    };
    let chains: Vec<Value> = plain.iter().map(chain).collect();
    assert_eq!(digest(under(json!(chains)).to_value()), digest(under(json!(plain)).to_value()));
}

/// S16: a time at which something is to be done is none after which it may be done.
#[test]
fn what_is_to_be_done_at_a_time_is_not_what_is_to_be_done_after_it() {
    let delayed = |operator: &str| json!({"action": {"rdf:value": {"@id": "odrl:delete"}, "refinement": [atom("delayPeriod", operator, json!("P30D"))]}});
    let mut found = BTreeSet::new();
    for operator in ["eq", "gteq", "lteq"] {
        let obligation = json!({"permission": [{"action": "use"}], "obligation": [delayed(operator)]});
        found.insert(digest(obligation));
        found.insert(digest(json!({"permission": [{"action": "use", "duty": [delayed(operator)]}]})));
    }
    // As a duty both `eq` and `lteq` are a deadline.
    assert_eq!(found.len(), 5);
    // To wait is a burden, and `eq` is no less of it than `gteq`.
    let waits = |operator: &str| digest(under(json!([atom("delayPeriod", operator, json!("P30D"))])).to_value());
    assert_eq!(waits("eq"), waits("gteq"));
}

#[test]
fn policies_that_mean_the_same_have_one_digest() {
    let plain = json!({"@type": "Offer", "permission": [{"action": "use", "constraint": [
        atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))
    ]}]});
    for (name, same) in [
        (
            "order",
            json!({"permission": [{"constraint": [
            atom("count", "lteq", json!(3)), atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z"))], "action": "use"}]}),
        ),
        (
            "spelling of values",
            json!({"permission": [{"action": "use", "constraint": [
            atom("dateTime", "lteq", json!({"@value": "2030-01-01T01:00:00.000+01:00", "@type": "xsd:dateTime"})),
            atom("count", "lteq", json!({"@value": "3", "@type": "xsd:integer"}))]}]}),
        ),
        (
            "nesting of and",
            json!({"permission": [{"action": "use", "constraint": [{"and": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), {"or": [atom("count", "lteq", json!(3))]}]}]}]}),
        ),
        (
            "an agreement with parties",
            json!({"@type": "Agreement", "@id": "urn:a", "target": "urn:d", "assigner": "urn:p",
            "assignee": "urn:c", "timestamp": "2029-01-01T00:00:00Z", "permission": [{"action": "use", "constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}),
        ),
        (
            "parties in the rules",
            json!({"permission": [{"action": "use", "target": "urn:d", "assignee": "urn:c", "constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}),
        ),
        (
            "the action said once",
            json!({"action": "use", "permission": [{"constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}),
        ),
        (
            "prefixes, repetition and titles",
            json!({"dct:title": "x", "odrl:permission": [
            {"odrl:action": {"@id": "odrl:use"}, "odrl:constraint": [
                {"odrl:leftOperand": {"@id": "odrl:count"}, "odrl:operator": {"@id": "odrl:lteq"}, "odrl:rightOperand": 3},
                {"odrl:leftOperand": {"@id": "odrl:count"}, "odrl:operator": {"@id": "odrl:lteq"}, "odrl:rightOperand": 3},
                atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z"))]}]}),
        ),
    ] {
        assert_eq!(digest(plain.clone()), digest(same), "{name}");
    }
    for (name, other) in [
        (
            "a later end",
            json!({"permission": [{"action": "use", "constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:01Z")), atom("count", "lteq", json!(3))]}]}),
        ),
        ("no end", json!({"permission": [{"action": "use", "constraint": [atom("count", "lteq", json!(3))]}]})),
        (
            "or for and",
            json!({"permission": [{"action": "use", "constraint": [{"or": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}]}),
        ),
        (
            "a prohibition",
            json!({"prohibition": [{"action": "use", "constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}),
        ),
        (
            "for one of two",
            json!({"target": "urn:d", "permission": [{"action": "use", "target": "urn:e", "constraint": [
            atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}]}),
        ),
    ] {
        assert_ne!(digest(plain.clone()), digest(other), "{name}");
    }
    assert_eq!(digest(plain).len(), 64);
    // `count lteq 1` twice under xone never holds, once always may: repetition counts there.
    let xone = |of: Value| digest(json!({"permission": [{"action": "use", "constraint": [{"xone": of}]}]}));
    let one = atom("count", "lteq", json!(1));
    assert_ne!(xone(json!([one, one])), xone(json!([one])));
}

#[test]
fn a_number_that_travels_stays_what_it_is() {
    // Digits that a hasty reader rounds to the neighbouring number, which the next reader rounds back.
    let text = r#"{"permission":[{"action":"use","constraint":[{"leftOperand":"resolution","operator":"gt","rightOperand":12e99}]}]}"#;
    let mut document: PolicyDocument = serde_json::from_str(text).unwrap();
    let digest = terms_digest(&parse(&document).unwrap());
    for _ in 0..3 {
        document = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(terms_digest(&parse(&document).unwrap()), digest);
    }
}

#[test]
fn same_terms_names_the_first_difference() {
    let end = |day: u8| atom("dateTime", "lteq", json!(format!("2030-01-{day:02}T00:00:00Z")));
    let offer =
        document(json!({"@type": "Offer", "@id": "urn:o", "permission": [{"action": "use", "constraint": [end(1)]}]}));
    let agreement = |rules: Value| {
        let mut base =
            json!({"@type": "Agreement", "@id": "urn:a", "target": "urn:d", "assigner": "urn:p", "assignee": "urn:c"});
        base.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        document(base)
    };
    assert_eq!(
        same_terms(&offer, &agreement(json!({"permission": [{"action": "use", "constraint": [end(1)]}]}))),
        Ok(())
    );
    for (rules, field) in [
        (json!({"permission": [{"action": "use", "constraint": [end(2)]}]}), "permission[0].constraint[0]"),
        (json!({"permission": [{"action": "use"}]}), "permission[0]"),
        (json!({"permission": [{"action": "use", "constraint": [end(1)]}, {"action": "print"}]}), "permission[1]"),
        (json!({"prohibition": [{"action": "use", "constraint": [end(1)]}]}), "prohibition[0]"),
        (
            json!({"permission": [{"action": "use", "constraint": [end(1)], "duty": [{"action": "delete"}]}]}),
            "permission[0]",
        ),
        (json!({"profile": "urn:x", "permission": [{"action": "use", "constraint": [end(1)]}]}), "profile"),
        (json!({"permission": [{"action": "use", "constraint": [end(1)], "assignee": "urn:other"}]}), "permission[0]"),
    ] {
        let refusal = same_terms(&offer, &agreement(rules.clone())).unwrap_err();
        assert_eq!((refusal.fault, refusal.field.as_deref()), (Fault::Altered, Some(field)), "{rules}: {refusal:?}");
    }
    let two = document(json!({"permission": [{"action": "use"}, {"action": "print"}]}));
    let refusal = same_terms(&two, &agreement(json!({"permission": [{"action": "use"}]}))).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("permission"));
    // What an offer names in its rules, an agreement may name as a whole.
    let in_rules = document(
        json!({"permission": [{"action": "use", "target": "urn:d", "assignee": "urn:c"}, {"action": "print"}]}),
    );
    let whole = agreement(json!({"permission": [{"action": "use"}, {"action": "print"}]}));
    assert_eq!(same_terms(&in_rules, &whole), Ok(()));
}

#[test]
fn a_denial_says_what_would_have_passed() {
    let policy =
        under(json!([atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]));
    let decision = decide(&policy, &World { uses: Some(1), ..world("2031-01-01T00:00:00Z") });
    let said = decision.reasons.iter().find(|reason| reason.path == "permission[0].constraint[0]").unwrap();
    assert!(
        said.message.contains("2031-01-01T00:00:00Z") && said.message.contains("2030-01-01T00:00:00Z or earlier"),
        "{said:?}"
    );
    assert!(
        !decision.reasons.iter().any(|reason| reason.path == "permission[0].constraint[1]"),
        "what holds is not blamed"
    );
    let other = offer(json!([{"action": "use", "assignee": "did:web:other.example"}]));
    let decision = decide(&other, &world("2030-01-01T00:00:00Z"));
    assert!(decision.reasons.iter().any(|reason| reason.message.contains("did:web:other.example")), "{decision:?}");
}

#[test]
fn an_offer_of_the_past_could_not_allow_and_one_of_the_future_could() {
    let now = at("2030-01-01T00:00:00Z");
    for (policy, could, first) in [
        (under(atom("dateTime", "lt", json!("2029-01-01T00:00:00Z"))), false, None),
        (under(atom("dateTime", "gteq", json!("2031-01-01T00:00:00Z"))), true, Some("2031-01-01T00:00:00Z")),
        (under(atom("elapsedTime", "lteq", json!("P1D"))), true, None),
        (under(atom("count", "lteq", json!(1))), true, None),
        (offer(json!([{"action": "use"}])), true, Some("2030-01-01T00:00:00Z")),
        (offer(json!([{"action": "use", "assignee": "did:web:other.example"}])), false, None),
        (document(json!({"permission": [{"action": "use"}], "prohibition": [{"action": "use"}]})), false, None),
    ] {
        let parsed = parse(&policy).unwrap();
        let world = World { now, ..World::default() };
        assert_eq!(could_allow(&parsed, &request(), &world), could, "{policy:?}");
        assert_eq!(first_allowed(&parsed, &request(), &world), first.map(at), "{policy:?}");
    }
}

#[test]
fn the_examples_of_the_protocol_are_read_or_refused_by_name() {
    let offer = under(json!([atom("dateTime", "lteq", json!("2023-12-31T06:00Z"))]));
    assert!(enforceable(&offer, &Capabilities::default()).is_ok());
    let partner =
        under(json!([{"or": [atom("partner", "eq", json!("gold")), atom("partner", "eq", json!("silver"))]}]));
    assert!(refused(&partner).message.contains("partner"));
    let spatial = under(json!([atom("spatial", "eq", json!("http://example.org/EU"))]));
    let refusal = refused(&spatial);
    assert!(refusal.message.contains("`spatial` (the place of use) is understood, but not enforced"), "{refusal:?}");
}

#[test]
fn a_policy_nested_deeper_than_the_limit_is_refused_and_does_not_overflow() {
    // As deep as `serde_json` reads a text at all; deeper ones never become a document.
    let nest = |levels: usize| {
        let constraint = format!("{}{{}}{}", "{\"and\":[".repeat(levels), "]}".repeat(levels));
        format!("{{\"permission\":[{{\"action\":\"use\",\"constraint\":[{constraint}]}}]}}")
    };
    let deep: PolicyDocument = serde_json::from_str(&nest(60)).unwrap();
    assert_eq!(refused(&deep).fault, Fault::Limit);
    assert!(serde_json::from_str::<PolicyDocument>(&nest(10_000)).is_err());
}

#[test]
fn a_plan_names_the_phase_of_each_part_and_refuses_the_rest() {
    let policy = parse(&document(json!({"permission": [{"action": "use", "assignee": ME, "constraint": [
        {"or": [atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]},
        atom("purpose", "eq", json!("research"))
    ]}]})))
    .unwrap();
    let plan = plan(&policy, &Capabilities::default());
    let phases = |path: &str| -> Vec<Phase> {
        let step = plan.enforced.iter().find(|step| step.path == path).unwrap();
        step.phases.iter().map(|enforcement| enforcement.phase).collect()
    };
    assert_eq!(phases("permission[0].assignee"), [Phase::Catalogue, Phase::Negotiation, Phase::TransferStart]);
    assert!(phases("permission[0].constraint[0].or[0]").contains(&Phase::InStream));
    assert_eq!(phases("permission[0].constraint[0].or[1]"), [Phase::TransferStart]);
    assert_eq!(plan.refused.len(), 1);
    let text = serde_json::to_value(&plan).unwrap();
    assert_eq!(text["refused"][0]["path"], "permission[0].constraint[1].leftOperand");
    assert_eq!(serde_json::from_value::<Plan>(text).unwrap(), plan);
}

#[test]
fn a_policy_reads_as_plain_english() {
    let policy = parse(&document(json!({
        "permission": [{"action": "use", "assignee": "urn:c", "target": "urn:d", "constraint": [
            {"or": [atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z")), atom("count", "lteq", json!(3))]}],
            "duty": [{"action": "delete"}]}],
        "prohibition": [{"action": "sell"}]
    })))
    .unwrap();
    assert_eq!(
        explain(&policy),
        [
            "`urn:c` may use `urn:d`, on condition of: any of (2030-01-01T00:00:00Z or earlier; at most 3 uses). \
             After that: Whoever agrees must delete the data.",
            "Whoever agrees must not sell the data."
        ]
    );
    for (strategy, words) in [("perm", "the permission wins"), ("invalid", "the whole policy is void")] {
        let policy = meeting(Some(strategy), json!({"action": "use"}), json!({"action": "sell"}));
        let sentences = explain(&parse(&policy).unwrap());
        assert!(sentences.last().is_some_and(|last| last.contains(words)), "{sentences:?}");
    }
}

/// S27.
#[test]
fn what_is_to_be_done_before_or_after_a_use_is_held_to_or_refused_with_its_cure() {
    let with = |member: &str, duty: &Value| match member {
        "obligation" => json!({"permission": [{"action": "use"}], "obligation": [duty]}),
        _ => json!({"permission": [{"action": "use", "duty": [duty]}]}),
    };
    let when = |action: &str, when: &str| json!({"action": action, "constraint": [atom("event", when, json!({"@id": "odrl:policyUsage"}))]});
    let untracked = Capabilities { overdue_payments: false, ..Capabilities::all() };
    for (duty, capabilities, cure) in [
        (when("compensate", "gt"), untracked.clone(), Some("a payment before the use")),
        (when("compensate", "gt"), Capabilities::all(), None),
        (when("compensate", "lt"), untracked.clone(), None),
        (json!({"action": "compensate"}), untracked.clone(), None),
        (when("inform", "lt"), Capabilities::all(), Some("after the use, which is told as it begins")),
        (when("inform", "gt"), Capabilities::all(), None),
        (when("inform", "eq"), Capabilities::all(), None),
        (when("idsc:LOG", "lt"), Capabilities::all(), None),
    ] {
        for (member, path) in [("duty", "permission[0].duty[0]"), ("obligation", "obligation[0]")] {
            for role in [Role::Provider, Role::Consumer] {
                let capabilities = capabilities.clone().for_role(role);
                let problems = unenforceable(&parse(&document(with(member, &duty))).unwrap(), &capabilities);
                let found: Vec<_> =
                    problems.iter().map(|problem| (problem.path.as_str(), problem.cure.as_str())).collect();
                assert_eq!(found, cure.map(|cure| (path, cure)).into_iter().collect::<Vec<_>>(), "{duty} {problems:?}");
            }
        }
    }
    // A remedy follows no use, so that it is due after one says nothing of it.
    let infringed =
        json!({"action": "use", "remedy": [when("compensate", "gt")], "constraint": [atom("count", "gt", json!(9))]});
    let policy = document(json!({"permission": [{"action": "use"}], "prohibition": [infringed]}));
    assert_eq!(unenforceable(&parse(&policy).unwrap(), &untracked), vec![]);
    // What the plan says of a bill is what becomes of it.
    let how = |duty: &Value| {
        let plan = plan(&parse(&document(with("duty", duty))).unwrap(), &Capabilities::all());
        plan.enforced.into_iter().flat_map(|step| step.phases).map(|how| how.how).collect::<Vec<_>>()
    };
    assert!(how(&when("compensate", "gt")).iter().all(|how| how.contains("overdue")));
    assert!(how(&when("compensate", "lt")).iter().any(|how| how.contains("before the payment")));
    // A log before the use is the connector's to make, in the words of the IDS too.
    let before = document(json!({"@type": "ids:ContractOffer", "ids:permission": [
        {"ids:action": [{"@id": "idsc:USE"}], "ids:preDuty": [{"ids:action": [{"@id": "idsc:LOG"}]}]}]}));
    let decision = decide(&before, &world("2030-01-01T12:00:00Z"));
    let logs: Vec<_> = decision.duties.iter().map(|duty| (&duty.kind, duty.when)).collect();
    assert_eq!((decision.allowed, logs), (true, vec![(&DutyKind::Log { target: None }, When::Before)]));
}

/// S20 and S33.
#[test]
fn a_plan_promises_nothing_of_a_prohibition_that_decides_nothing() {
    let prohibition = json!({"action": "use", "assignee": "urn:other", "target": {"@type": "AssetCollection", "source": "urn:c"},
        "constraint": [atom("dateTime", "gt", json!("2031-01-01T00:00:00Z"))], "remedy": [{"action": "compensate"}]});
    for (strategy, steps) in [(None, 4), (Some("prohibit"), 4), (Some("perm"), 1)] {
        let policy = meeting(strategy, json!({"action": "use"}), prohibition.clone());
        let plan = plan(&parse(&policy).unwrap(), &Capabilities::all());
        let paths: Vec<&str> = plan.enforced.iter().map(|step| step.path.as_str()).collect();
        assert_eq!(paths.len(), steps, "{strategy:?}: {paths:?}");
        assert!(paths.contains(&"prohibition[0].remedy[0]"), "{strategy:?}: {paths:?}");
        assert_eq!(plan.refused, vec![], "{strategy:?}");
    }
}

#[test]
fn a_request_is_compared_with_its_offer() {
    let until = |day: u8| atom("dateTime", "lteq", json!(format!("2030-01-{day:02}T00:00:00Z")));
    let uses = |n: u64| atom("count", "lteq", json!(n));
    let may = |constraints: Value| json!({"permission": [{"action": "use", "constraint": constraints}]});
    let conflict = |path: &str| Relation::Conflict(path.to_owned());
    let wider = |path: &str| Relation::Wider(path.to_owned());
    let span = |text: &str| atom("elapsedTime", "lteq", json!(text));
    for (offered, requested, relation) in [
        (may(json!([until(10)])), may(json!([until(10)])), Relation::Equal),
        (may(json!([until(10)])), may(json!([until(9)])), Relation::Narrower),
        (may(json!([until(10)])), may(json!([until(10), uses(3)])), Relation::Narrower),
        (may(json!([until(10)])), may(json!([until(11)])), wider("permission[0].constraint[0]")),
        (may(json!([until(10)])), may(json!([])), wider("permission[0]")),
        (may(json!([until(10), uses(3)])), may(json!([until(9), uses(4)])), conflict("permission[0].constraint[1]")),
        (may(json!([{"or": [until(10), uses(3)]}])), may(json!([uses(2)])), Relation::Narrower),
        (may(json!([span("P1M")])), may(json!([span("P30D")])), conflict("permission[0].constraint[0]")),
        (may(json!([span("P1M1D")])), may(json!([span("P1M")])), Relation::Narrower),
        (may(json!([until(10)])), may(json!([atom("resolution", "eq", json!("x"))])), Relation::Unknown),
        (
            json!({"permission": [{"action": "use"}], "prohibition": [{"action": "use", "constraint": [uses(1)]}]}),
            json!({"permission": [{"action": "use"}]}),
            wider("prohibition"),
        ),
    ] {
        let (a, b) = (parse(&document(offered.clone())).unwrap(), parse(&document(requested.clone())).unwrap());
        assert_eq!(compare(&a, &b), relation, "{offered} then {requested}");
    }
}

/// S19.
#[test]
fn an_obligation_of_somebody_else_is_another_one() {
    use RelationKind::{Conflict, Equal, Narrower, Wider};
    let obliged = |permission: Value, more: Option<Value>| {
        let mut policy = json!({"permission": [{"action": "use"}]});
        permission.as_object().unwrap().iter().for_each(|(key, value)| policy["permission"][0][key] = value.clone());
        if let Some(more) = more {
            policy["obligation"] = json!([{"action": "idsc:LOG"}]);
            more.as_object().unwrap().iter().for_each(|(key, value)| policy["obligation"][0][key] = value.clone());
        }
        parse(&document(policy)).unwrap()
    };
    let (all, other) = (json!({}), json!({"target": "urn:other"}));
    let club = |id: &str| json!({"assignee": {"@type": "PartyCollection", "source": id}});
    for (offered, requested, relation) in [
        ((&all, Some(&all)), (&all, Some(&other)), Wider),
        ((&all, Some(&other)), (&all, Some(&all)), Narrower),
        ((&all, Some(&other)), (&all, Some(&other)), Equal),
        ((&all, Some(&other)), (&all, Some(&json!({"assignee": "urn:other"}))), Conflict),
        ((&all, Some(&other)), (&all, None), Wider),
        ((&all, None), (&all, Some(&other)), Narrower),
        ((&all, Some(&all)), (&all, Some(&json!({"assignee": ME}))), Wider),
        ((&all, Some(&club("urn:a"))), (&all, Some(&club("urn:b"))), Conflict),
        ((&all, Some(&club("urn:a"))), (&all, Some(&club("urn:a"))), Equal),
        // For whoever may still do anything it is kept.
        ((&all, Some(&all)), (&json!({"assignee": ME}), Some(&json!({"assignee": ME}))), Narrower),
        ((&all, Some(&all)), (&json!({"assignee": ME}), Some(&json!({"assignee": "urn:other"}))), Conflict),
        ((&all, Some(&other)), (&json!({"target": "urn:data:1"}), Some(&other)), Narrower),
    ] {
        let [ours, theirs] = [offered, requested].map(|(permission, more)| obliged(permission.clone(), more.cloned()));
        let found = compared(&ours, &theirs);
        assert_eq!(found.relation, relation, "{offered:?} {requested:?}: {found:?}");
        assert!(relation != Equal || terms_digest(&ours) == terms_digest(&theirs), "{offered:?} {requested:?}");
    }
    let terms = |policy: Value| document(policy);
    let offer = terms(json!({"permission": [{"action": "use"}], "obligation": [{"action": "idsc:LOG"}]}));
    let altered = terms(
        json!({"permission": [{"action": "use"}], "obligation": [{"action": "idsc:LOG", "target": "urn:other"}]}),
    );
    assert_eq!(same_terms(&offer, &altered).unwrap_err().field.as_deref(), Some("obligation[0]"));
}

/// S19, S29: of several permissions that hold each has its burdens borne, so that one less is lighter.
#[test]
fn a_permission_left_out_makes_those_that_stay_no_lighter() {
    let rate =
        |n: u64| json!({"leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": n, "unit": "By/s"});
    let fields = |name: &str| atom("idsc:PATH", "isAnyOf", json!([name]));
    let before = |second: u32| atom("dateTime", "lteq", json!(format!("2030-01-01T00:00:{second:02}Z")));
    let after = |second: u32| atom("dateTime", "gt", json!(format!("2030-01-01T00:00:{second:02}Z")));
    let may = |constraints: Value| json!({"action": "use", "constraint": constraints});
    let logged = json!({"action": "use", "duty": [{"action": "delete"}]});
    let policy = |rules: Value| parse(&document(json!({"permission": rules}))).unwrap();
    let (slow, few) = (may(json!([rate(10)])), may(json!([fields("$.a")])));
    for (name, offered, requested, narrower) in [
        ("the slower one is gone", json!([slow, few]), json!([few]), false),
        ("the fields are gone", json!([slow, few]), json!([slow]), false),
        ("a duty is gone", json!([slow, logged]), json!([slow]), false),
        ("it is for a shorter time", json!([slow, few]), json!([few, may(json!([rate(10), before(5)]))]), false),
        (
            "the other is asked for under it",
            json!([slow, may(json!([fields("$.a"), before(5)]))]),
            json!([slow]),
            false,
        ),
        ("both stay", json!([slow, few]), json!([few, slow, may(json!([rate(10), before(5)]))]), true),
        ("both are borne", json!([slow, few]), json!([may(json!([rate(10), fields("$.a")]))]), true),
        ("neither was demanded", json!([slow, few, may(json!([]))]), json!([few]), true),
        (
            "they never hold together",
            json!([may(json!([rate(10), before(5)])), may(json!([fields("$.a"), after(5)]))]),
            json!([may(json!([fields("$.a"), after(5)]))]),
            true,
        ),
        (
            "for somebody else",
            json!([slow, {"action": "use", "assignee": "urn:a", "constraint": [fields("$.a")]}]),
            json!([{"action": "use", "assignee": "urn:b", "constraint": [rate(10)]}]),
            true,
        ),
        ("only one was there", json!([slow]), json!([may(json!([rate(10), before(5)]))]), true),
    ] {
        let relation = compare(&policy(offered), &policy(requested));
        let found = matches!(relation, Relation::Narrower | Relation::Equal);
        assert_eq!(found, narrower, "{name}: {relation:?}");
    }
    // As many as a policy may have, each with others beside it.
    let many = |first: u64, extra: &Value| {
        let rules: Vec<Value> = (first..first + 254).map(|n| may(json!([rate(n), extra]))).collect();
        policy(json!(rules))
    };
    let (offered, requested) = (many(1, &fields("$.a")), many(1, &fields("$.a")));
    assert_eq!(compare(&offered, &requested), Relation::Equal);
    assert!(!matches!(compare(&offered, &many(2, &fields("$.a"))), Relation::Equal | Relation::Narrower));
    let narrowed: Vec<Value> = (1..255).map(|n| may(json!([rate(n), fields("$.a"), before(5)]))).collect();
    let _ = compare(&offered, &policy(json!(narrowed)));
    let told = compared(&policy(json!([slow, few])), &policy(json!([few]))).difference.unwrap();
    assert_eq!(told.path, "permission[0]");
    assert!(told.message.contains("the burdens of permission[0] beside it"), "{told}");
}

/// S18, S19: what nests is compared within bounds, and what lies beyond them is not taken for granted.
#[test]
fn conditions_that_nest_are_compared_within_bounds() {
    let nested = |operands: [&str; 2], depth: usize, uses: u64, beside: bool| {
        let mut condition = atom("count", "lteq", json!(uses));
        for n in 0..depth {
            let operand = operands[n % 2];
            let other =
                if operand == "and" { atom("count", "lteq", json!(100)) } else { atom("count", "eq", json!(1000 + n)) };
            let of: Vec<Value> = [condition].into_iter().chain(beside.then_some(other)).collect();
            condition = json!({operand: of});
        }
        parse(&under(json!([condition]))).unwrap()
    };
    for beside in [false, true] {
        for (operands, depth) in [(["and", "and"], 16), (["or", "or"], 3), (["and", "or"], 4), (["or", "and"], 4)] {
            let deep = |uses: u64| nested(operands, depth, uses, beside);
            assert_eq!(compare(&deep(3), &deep(2)), Relation::Narrower, "{operands:?} {beside}");
            assert_eq!(compare(&deep(3), &deep(3)), Relation::Equal, "{operands:?} {beside}");
            assert!(matches!(compare(&deep(3), &deep(5)), Relation::Wider(_)), "{operands:?} {beside}");
        }
        for operands in [["or", "or"], ["and", "or"], ["or", "and"]] {
            let deep = |uses: u64| nested(operands, 16, uses, beside);
            let relation = compare(&deep(3), &deep(5));
            assert!(
                matches!(relation, Relation::Wider(_) | Relation::Conflict(_)),
                "{operands:?} {beside} {relation:?}"
            );
        }
    }
}

/// S19.
#[test]
fn what_cannot_be_compared_is_named_by_its_member() {
    let plain = json!({"permission": [{"action": "use"}], "prohibition": [{"action": "use", "assignee": "urn:x"}]});
    let with = |member: &str, value: &str| {
        let mut policy = plain.clone();
        policy[member] = json!(value);
        parse(&document(policy)).unwrap()
    };
    let core = with("profile", "http://www.w3.org/ns/odrl/2/core");
    let (perm, prohibit) = (with("conflict", "perm"), with("conflict", "prohibit"));
    for (offered, requested, path) in
        [(&core, &prohibit, "profile"), (&prohibit, &core, "profile"), (&prohibit, &perm, "conflict")]
    {
        let Compared { relation, difference } = compared(offered, requested);
        assert_eq!((relation, difference.unwrap().path.as_str()), (RelationKind::Unknown, path));
    }
}

#[test]
fn a_difference_is_named_in_words() {
    let may = |constraints: Value| json!({"permission": [{"action": "use", "constraint": constraints}]});
    let uses = |n: u64| atom("count", "lteq", json!(n));
    let until = atom("dateTime", "lteq", json!("2030-01-01T00:00:00Z"));
    let for_alone = json!({"permission": [{"action": "use", "assignee": "urn:a"}]});
    for (offered, requested, relation, difference) in [
        (may(json!([uses(2)])), may(json!([uses(2)])), RelationKind::Equal, None),
        (
            may(json!([uses(2)])),
            may(json!([uses(1)])),
            RelationKind::Narrower,
            Some("permission[0].constraint[0]: the offer has `at most 2 uses`, and `at most 1 uses` is asked for"),
        ),
        (
            may(json!([uses(2)])),
            may(json!([uses(9)])),
            RelationKind::Wider,
            Some("permission[0].constraint[0]: `at most 9 uses` is asked for, and the offer has `at most 2 uses`"),
        ),
        (
            may(json!([uses(2)])),
            may(json!([until])),
            RelationKind::Conflict,
            Some("permission[0]: nothing of the kind is asked for, and the offer has `at most 2 uses`"),
        ),
        (
            for_alone,
            may(json!([])),
            RelationKind::Wider,
            Some("permission[0].assignee: nothing of the kind is asked for, and the offer has `the assignee urn:a`"),
        ),
        (
            json!({"prohibition": [{"action": "use"}]}),
            may(json!([])),
            RelationKind::Wider,
            Some("permission[0]: the offer has no such rule"),
        ),
        (
            may(json!([uses(2)])),
            may(json!([atom("resolution", "eq", json!("x"))])),
            RelationKind::Unknown,
            Some(
                "permission[0].constraint[0].leftOperand: `resolution` (the resolution of the asset) is understood, but not enforced by this connector",
            ),
        ),
    ] {
        let (a, b) = (parse(&document(offered.clone())).unwrap(), parse(&document(requested.clone())).unwrap());
        let found = compared(&a, &b);
        let words = found.difference.as_ref().map(ToString::to_string);
        assert_eq!((found.relation, words.as_deref()), (relation, difference), "{offered} then {requested}");
    }
}

#[test]
fn the_capability_document_says_what_a_plan_says() {
    let found = describe(&Capabilities::default());
    let operands: Vec<&str> = found.operands.iter().map(|operand| operand.term.as_str()).collect();
    for operand in OPERANDS_ENFORCED {
        assert!(operands.contains(operand), "{operand} is not in {operands:?}");
    }
    for operand in &found.operands {
        assert!(OPERANDS_ENFORCED.contains(&operand.term.as_str()), "{operand:?}");
        assert!(!operand.enforced.is_empty() && !operand.operators.is_empty(), "{operand:?}");
    }
    let actions: Vec<&str> = found.actions.iter().map(|action| action.term.as_str()).collect();
    assert_eq!(actions, ACTIONS_ENFORCED);
    assert_eq!(found.conflict, ["perm", "prohibit", "invalid"]);
    assert_eq!(found.logical, ["and", "or", "xone", "andSequence"]);
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<CapabilityDocument>(&text).unwrap(), found);
}

/// S37 and S21.
#[test]
fn a_remedy_is_planned_where_an_infringement_can_be_recorded_and_it_can_be_done() {
    let policy = |remedy: &str| {
        let prohibition =
            json!({"action": "use", "constraint": [atom("count", "gt", json!(5))], "remedy": [{"action": remedy}]});
        document(json!({"permission": [{"action": "use"}], "prohibition": [prohibition]}))
    };
    let all = Capabilities::all();
    for (remedy, held) in [
        ("compensate", true),
        ("obtainConsent", true),
        ("delete", false),
        ("idsc:INCREMENT_COUNTER", false),
        ("inform", false),
        ("nextPolicy", false),
        ("attribute", false),
    ] {
        let found = enforceable(&policy(remedy), &all);
        assert_eq!(found.is_ok(), held, "{remedy}: {found:?}");
        for capabilities in [Capabilities::default(), Capabilities { infringements: false, ..Capabilities::all() }] {
            let refusal = enforceable(&policy(remedy), &capabilities).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some("prohibition[0].remedy[0]"), "{remedy}");
            assert!(refusal.message.contains(remedy), "{refusal:?}");
        }
    }
    let plan = plan(&enforceable(&policy("compensate"), &all).unwrap(), &all);
    let step = plan.enforced.iter().find(|step| step.path == "prohibition[0].remedy[0]").unwrap();
    assert_eq!(step.term, "compensate, after an infringement");
    assert!(step.phases.iter().any(|how| how.phase == Phase::TransferStart));
    let terms = |capabilities: &Capabilities| -> Vec<String> {
        describe(capabilities).remedies.into_iter().map(|remedy| remedy.term).collect()
    };
    assert_eq!(terms(&all), ["compensate", "obtainConsent"]);
    assert!(terms(&Capabilities::default()).is_empty());
}

#[test]
fn what_only_one_side_can_enforce_is_looked_up_in_what_it_claims() {
    let duty = json!([{"action": "delete", "constraint": [atom("count", "lteq", json!(1))]}]);
    let parsed = parse(&document(json!({"permission": [{"action": "use", "duty": duty}]}))).unwrap();
    let how = |by| Enforcement { phase: Phase::AfterTransfer, by, how: "as it says".to_owned() };
    let step = |path: &str, phases| Step { path: path.to_owned(), term: String::new(), phases };
    let plan = Plan {
        enforced: vec![
            step("permission[0].duty[0]", vec![how(Role::Consumer)]),
            step("permission[0].duty[0].constraint[0]", vec![how(Role::Provider), how(Role::Consumer)]),
        ],
        refused: Vec::new(),
    };
    let found = needs(&parsed, &plan, Role::Consumer);
    assert_eq!(
        found,
        [Need { path: "permission[0].duty[0]".to_owned(), list: NeedList::Duties, term: "delete".to_owned() }]
    );
    assert_eq!(found[0].to_string(), "the duty to `delete` at permission[0].duty[0]");
    assert!(needs(&parsed, &plan, Role::Provider).is_empty());

    let mut claimed = describe(&Capabilities::default());
    claimed.duties =
        vec![Capability { term: "delete".to_owned(), operators: Vec::new(), enforced: vec![how(Role::Provider)] }];
    assert!(!claimed.claims(&found[0], Role::Consumer), "the other side's duty is no claim");
    claimed.duties[0].enforced.push(how(Role::Consumer));
    assert!(claimed.claims(&found[0], Role::Consumer));
}

#[test]
fn a_transfer_is_for_use_or_for_what_is_bound_onward() {
    let bound = json!({ "action": "distribute", "duty": [{ "action": "nextPolicy", "hasPolicy": "urn:next" }] });
    let free = json!({ "action": "distribute" });
    let use_it = json!({ "action": "use" });
    let mut all = Capabilities::all();
    for (permissions, action, held) in [
        (json!([use_it]), "use", true),
        (json!([bound]), "distribute", true),
        (json!([bound, use_it]), "use", true),
        (json!([free]), "use", false),
        (json!([bound, free]), "use", false),
    ] {
        let document = PolicyDocument::from_value(json!({ "permission": permissions })).unwrap();
        let policy = parse(&document).unwrap();
        assert_eq!(transfer_action(&policy), action, "{permissions}");
        assert_eq!(unenforceable(&policy, &all).is_empty(), held, "{permissions}");
    }
    all.next_policy = false;
    let document = PolicyDocument::from_value(json!({ "permission": [bound] })).unwrap();
    assert!(!unenforceable(&parse(&document).unwrap(), &all).is_empty());
}

#[test]
fn an_obligation_of_the_assigner_is_refused_since_no_use_would_bear_it() {
    let obliging = |assignee: &str| {
        let document = json!({
            "assigner": "urn:us", "permission": [{ "action": "use" }],
            "obligation": [{ "action": "delete", "assignee": assignee }],
        });
        unenforceable(&parse(&PolicyDocument::from_value(document).unwrap()).unwrap(), &Capabilities::all())
    };
    assert_eq!(obliging("urn:them"), []);
    assert_eq!(obliging("urn:us")[0].path, "obligation[0].assignee");
}
