//! Facts, duties, collections, burdens and the words of the IDS: the rules S22 and later of `SEMANTICS.md`.

use jiff::Timestamp;
use kontor_vocab::odrl::PolicyDocument;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::*;
use crate::id::{AgreementId, DatasetId, OfferId};
use crate::negotiation::{Offer, agreement_from};

const ME: &str = "did:web:consumer.example";

fn policy(value: Value) -> Policy {
    parse(&PolicyDocument::from_value(value).unwrap()).unwrap()
}

fn under(constraint: Value) -> Policy {
    policy(json!({"permission": [{"action": "use", "constraint": [constraint]}]}))
}

fn atom(left: &str, operator: &str, right: Value) -> Value {
    json!({"leftOperand": left, "operator": operator, "rightOperand": right})
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> World {
    World { now: at("2030-01-01T12:00:00Z"), agreed_at: Some(at("2030-01-01T00:00:00Z")), ..World::default() }
}

fn knowing(operand: &str, value: FactValue) -> World {
    World { facts: Facts::default().with(operand, value), ..noon() }
}

fn decide(policy: &Policy, world: &World) -> Decision {
    let request = Request {
        action: "use".to_owned(),
        assignee: ParticipantId::parse(ME).unwrap(),
        target: Some("urn:data:1".to_owned()),
    };
    evaluate(policy, &request, world)
}

fn used(value: Value) -> Policy {
    policy(json!({"permission": [value]}))
}

/// S22.
#[test]
fn a_fact_decides_and_what_is_unknown_does_not() {
    for (operand, operator, right, found, allowed) in [
        ("purpose", "eq", json!("research"), vec!["research"], true),
        ("purpose", "eq", json!("research"), vec!["marketing"], false),
        // A use for two purposes is for each of them.
        ("purpose", "eq", json!("research"), vec!["research", "marketing"], false),
        ("purpose", "isAnyOf", json!(["research", "marketing"]), vec!["research", "marketing"], true),
        ("purpose", "neq", json!("marketing"), vec!["research"], true),
        ("purpose", "neq", json!("marketing"), vec!["research", "marketing"], false),
        ("purpose", "eq", json!("research"), vec![], false),
        // One of several events is enough.
        ("event", "eq", json!("urn:fair"), vec!["urn:fair", "urn:other"], true),
        ("event", "neq", json!("urn:fair"), vec![], true),
        ("idsc:STATE", "eq", json!("emergency"), vec!["emergency"], true),
        ("idsc:CONNECTOR", "isAnyOf", json!(["urn:c:1", "urn:c:2"]), vec!["urn:c:2"], true),
        ("idsc:CONNECTOR", "isPartOf", json!(["urn:c:1"]), vec!["urn:c:2"], false),
        ("idsc:ARTIFACT_STATE", "isAllOf", json!(["idsc:encrypted", "idsc:ANONYMIZED"]), vec!["idsc:ENCRYPTED"], false),
        ("ids:artifact_state", "isAllOf", json!("idsc:encrypted"), vec!["idsc:ENCRYPTED", "idsc:COMBINED"], true),
        ("skos:concept", "isNoneOf", json!(["health"]), vec!["health", "automotive"], false),
    ] {
        let policy = under(atom(operand, operator, right.clone()));
        let world = knowing(operand, FactValue::names(&found));
        let decision = decide(&policy, &world);
        assert_eq!(decision.allowed, allowed, "{operand} {operator} {right} of {found:?}: {:?}", decision.reasons);
        assert!(!decide(&policy, &noon()).allowed, "{operand}: nobody said");
        let prohibited = parse(
            &PolicyDocument::from_value(json!({
                "permission": [{"action": "use"}],
                "prohibition": [{"action": "use", "constraint": [atom(operand, operator, right)]}]
            }))
            .unwrap(),
        )
        .unwrap();
        assert!(!decide(&prohibited, &noon()).allowed, "{operand}: a prohibition may hold");
        assert!(!(decide(&prohibited, &world).allowed && allowed), "{operand}: never both");
    }
    let wrong_kind = knowing("purpose", FactValue::Number(Decimal::ONE));
    assert!(!decide(&under(atom("purpose", "neq", json!("x"))), &wrong_kind).allowed);
    assert_eq!(
        decide(&under(atom("purpose", "eq", json!("x"))), &noon()).depends_on,
        BTreeSet::from(["purpose".to_owned()])
    );
}

/// S22.
#[test]
fn a_connector_is_excluded_only_by_names_that_it_could_have() {
    let print = |c: &str| format!("urn:sha256:{}", c.repeat(64));
    let (mine, other) = (print("a"), print("b"));
    let world = knowing("idsc:CONNECTOR", FactValue::names([ME, &mine]));
    for (names, is, is_not) in [
        (json!(ME), true, false),
        (json!(mine), true, false),
        (json!("did:web:other.example"), false, true),
        (json!(other), false, true),
        (json!(["did:web:other.example", other]), false, true),
        (json!("https://consumer.example/connector"), false, false),
        (json!("consumer.example"), false, false),
        (json!("did:key:z6Mk"), false, false),
        (json!("urn:connector:17"), false, false),
        (json!(["did:web:other.example", "https://consumer.example"]), false, false),
        (json!(["https://consumer.example", ME]), true, false),
    ] {
        let prohibited = |constraint: Value| {
            let prohibition = json!([{"action": "use", "constraint": [constraint]}]);
            policy(json!({"permission": [{"action": "use"}], "prohibition": prohibition}))
        };
        for (operator, holds, fails) in [("isAnyOf", is, is_not), ("isNoneOf", is_not, is)] {
            let condition = || atom("idsc:CONNECTOR", operator, names.clone());
            assert_eq!(decide(&under(condition()), &world).allowed, holds, "{operator} {names}");
            assert_eq!(decide(&prohibited(condition()), &world).allowed, fails, "prohibited: {operator} {names}");
        }
    }
    // Nobody showed a certificate.
    let nameless = knowing("idsc:CONNECTOR", FactValue::names::<&str>([]));
    assert!(!decide(&under(atom("idsc:CONNECTOR", "neq", json!(other))), &nameless).allowed);
}

/// S22.
#[test]
fn a_decision_ends_where_a_fact_ends() {
    let until = at("2030-01-02T00:00:00Z");
    let mut world = noon();
    world.facts.insert_until("purpose", FactValue::names(["research"]), until);
    let policy = under(atom("purpose", "eq", json!("research")));
    let decision = decide(&policy, &world);
    assert_eq!((decision.allowed, decision.valid_until), (true, Some(until)));
    assert!(!decide(&policy, &World { now: until, ..world }).allowed);
}

/// S22.
#[test]
fn a_fact_is_known_from_its_beginning_on() {
    let (since, until) = (at("2030-01-02T00:00:00Z"), at("2030-01-03T00:00:00Z"));
    let mut world = noon();
    world.facts.insert_since("purpose", FactValue::names(["research"]), since, Some(until));
    let policy = under(atom("purpose", "eq", json!("research")));
    for (now, allowed, turns) in [(noon().now, false, Some(since)), (since, true, Some(until)), (until, false, None)] {
        let decision = decide(&policy, &World { now, ..world.clone() });
        assert_eq!((decision.allowed, decision.valid_until), (allowed, turns), "{now}");
    }
    let text = serde_json::to_string(&world.facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), world.facts);
}

/// S35.
#[test]
fn a_sequence_holds_where_its_conditions_came_to_hold_in_its_order() {
    let time = |operator: &str, day: u8| atom("dateTime", operator, json!(format!("2030-01-{day:02}T00:00:00Z")));
    let elapsed = |operator: &str, span: &str| atom("elapsedTime", operator, json!(span));
    let event = || atom("event", "eq", json!("urn:fair"));
    let claim = || atom("spatial", "eq", json!("urn:DE"));
    let me = || atom("recipient", "eq", json!(ME));
    let counted = || atom("count", "lteq", json!(9));
    let unsaid = || atom("idsc:STATE", "eq", json!("urn:calm"));
    // Now is the 20th, the agreement is of the 1st; the event goes on since the 5th, the claim is kept since the 8th.
    let mut world = World { now: at("2030-01-20T00:00:00Z"), uses: Some(1), ..noon() };
    world.facts.insert_since("event", FactValue::names(["urn:fair"]), at("2030-01-05T00:00:00Z"), None);
    world.facts.insert_since("spatial", FactValue::names(["urn:DE"]), at("2030-01-08T00:00:00Z"), None);
    world.facts.insert("idsc:STATE", FactValue::names(["urn:calm"]));
    let (yes, no, unknown) = (Some(true), Some(false), None);
    for (name, of, holds) in [
        ("in order", vec![time("gteq", 2), time("gteq", 3)], yes),
        ("at once", vec![time("gteq", 3), time("gteq", 3)], yes),
        ("a nanosecond late", vec![time("gt", 3), time("gteq", 3)], no),
        ("the wrong order", vec![time("gteq", 3), time("gteq", 2)], no),
        ("what has no beginning comes first", vec![time("lt", 30), time("gteq", 2)], yes),
        ("and not second", vec![time("gteq", 2), time("lt", 30)], no),
        ("who asks has no beginning", vec![me(), time("gteq", 2)], yes),
        ("since the agreement", vec![elapsed("gteq", "P1D"), time("gteq", 3)], yes),
        ("since the agreement, and too late", vec![elapsed("gteq", "P3D"), time("gteq", 3)], no),
        ("a fact in order", vec![time("gteq", 4), event(), claim()], yes),
        ("facts in the wrong order", vec![claim(), event()], no),
        ("an event after a day that came later", vec![time("gteq", 6), event()], no),
        ("a fact without a beginning", vec![time("gteq", 2), unsaid()], unknown),
        ("a count has none", vec![time("gteq", 2), counted()], unknown),
        ("the known order is wrong all the same", vec![claim(), unsaid(), event()], no),
        ("one does not hold", vec![time("gteq", 2), time("gteq", 25)], no),
        ("both hold since the last does", vec![json!({"and": [time("gteq", 2), claim()]}), event()], no),
        ("both hold since the last does, in order", vec![event(), json!({"and": [time("gteq", 2), claim()]})], yes),
        ("a day after which it held again", vec![time("gteq", 6), time("neq", 7)], yes),
        ("a day that is still to come", vec![time("gteq", 6), time("neq", 25)], no),
        ("alternatives", vec![json!({"or": [time("gteq", 2), event()]}), time("gteq", 6)], unknown),
        ("one alternative is none", vec![json!({"or": [event(), event()]}), time("gteq", 6)], yes),
        ("one alone has no order", vec![counted()], yes),
    ] {
        let sequence = json!({"andSequence": of});
        let allowed = decide(&under(sequence.clone()), &world);
        assert_eq!(allowed.allowed, holds == yes, "{name}: {:?}", allowed.reasons);
        // A prohibition is harmless only where it is known not to hold.
        let prohibited = policy(json!({"permission": [{"action": "use"}],
            "prohibition": [{"action": "use", "constraint": [sequence]}]}));
        assert_eq!(decide(&prohibited, &world).allowed, holds == no, "{name}, prohibited");
    }
    let denied = decide(&under(json!({"andSequence": [claim(), event()]})), &world);
    let said = denied.reasons.iter().find(|reason| reason.path == "permission[0].constraint[0]").unwrap();
    assert!(said.message.contains("2030-01-08T00:00:00Z, then since 2030-01-05T00:00:00Z"), "{said:?}");
}

/// S10 and S35.
#[test]
fn a_decision_on_a_sequence_ends_where_its_order_turns() {
    let time = |operator: &str, day: u8| atom("dateTime", operator, json!(format!("2030-01-{day:02}T00:00:00Z")));
    // Before the 7th the second condition held from the beginning; after it, it holds since then.
    let policy = under(json!({"andSequence": [time("gteq", 6), time("neq", 7)]}));
    for (now, allowed, turns) in [
        ("2030-01-05T00:00:00Z", false, Some("2030-01-07T00:00:00.000000001Z")),
        ("2030-01-06T00:00:00Z", false, Some("2030-01-07T00:00:00.000000001Z")),
        ("2030-01-08T00:00:00Z", true, None),
    ] {
        let decision = decide(&policy, &World { now: at(now), ..noon() });
        assert_eq!((decision.allowed, decision.valid_until), (allowed, turns.map(at)), "{now}");
    }
}

/// S17, S30 and S35.
#[test]
fn a_sequence_is_agreed_to_where_the_beginnings_of_its_parts_are_known() {
    let day = atom("dateTime", "gteq", json!("2030-01-02T00:00:00Z"));
    let with = |left: &str| {
        let sequence = json!([{"andSequence": {"@list": [day, atom(left, "eq", json!("urn:x"))]}}]);
        PolicyDocument::from_value(json!({"permission": [{"action": "use", "constraint": sequence}]})).unwrap()
    };
    let all = Capabilities::all();
    let sources = Capabilities { sources: FactSource::ALL.into(), ..Capabilities::default() };
    for (left, held) in
        [("recipient", true), ("event", true), ("spatial", true), ("purpose", false), ("idsc:CONNECTOR", false)]
    {
        let found = enforceable(&with(left), &all);
        assert_eq!(found.is_ok(), held, "{left}: {found:?}");
        if let Err(refusal) = enforceable(&with(left), &sources) {
            assert_eq!(
                refusal.field.as_deref(),
                Some("permission[0].constraint[0].andSequence[1].leftOperand"),
                "{left}"
            );
            assert!(refusal.message.contains(left), "{refusal:?}");
        } else {
            assert_eq!(left, "recipient", "nobody says since when `{left}` holds");
        }
    }
    let plan = plan(&enforceable(&with("event"), &all).unwrap(), &all);
    let step = plan.enforced.iter().find(|step| step.path == "permission[0].constraint[0].andSequence").unwrap();
    assert!(step.term.contains("one after the other"), "{step:?}");
}

/// S16 and S35.
#[test]
fn the_order_of_a_sequence_is_a_term() {
    let parts = || [atom("event", "eq", json!("urn:x")), atom("dateTime", "gteq", json!("2030-01-02T00:00:00Z"))];
    let [first, second] = parts();
    let digest = |of: Value| terms_digest(&under(json!({"andSequence": of})));
    assert_eq!(digest(json!([first, second])), digest(json!(parts())));
    assert_ne!(digest(json!([first, second])), digest(json!([second, first])));
    assert_eq!(digest(json!([first])), terms_digest(&under(first.clone())));
    // A sequence that holds has conditions that hold, and not the other way round.
    let both = policy(json!({"permission": [{"action": "use", "constraint": parts()}]}));
    let sequence = under(json!({"andSequence": parts()}));
    assert_eq!(compare(&both, &sequence), Relation::Narrower);
    assert!(matches!(compare(&sequence, &both), Relation::Wider(_)));
}

/// S23.
#[test]
fn levels_have_an_order() {
    let level = |name: &str| knowing("idsc:SECURITY_LEVEL", FactValue::Level(name.to_owned()));
    for (operator, right, base, trust, plus) in [
        ("eq", json!("idsc:TRUST_SECURITY_PROFILE"), false, true, false),
        ("gteq", json!("idsc:TRUST_SECURITY_PROFILE"), false, true, true),
        ("lt", json!("idsc:TRUST_SECURITY_PROFILE"), true, false, false),
        ("isPartOf", json!(["idsc:TRUST_PLUS_SECURITY_PROFILE", "idsc:TRUST_SECURITY_PROFILE"]), false, true, true),
        ("isNoneOf", json!(["idsc:BASE_SECURITY_PROFILE"]), false, true, true),
    ] {
        let policy = under(atom("idsc:SECURITY_LEVEL", operator, right));
        for (name, allowed) in [("BASE", base), ("TRUST", trust), ("TRUST_PLUS", plus)] {
            let world = level(&format!("idsc:{name}_SECURITY_PROFILE"));
            assert_eq!(decide(&policy, &world).allowed, allowed, "{operator} {name}");
        }
        assert!(!decide(&policy, &level("idsc:SUPREME")).allowed);
    }
    let unknown =
        json!({"permission": [{"action": "use", "constraint": [atom("idsc:SECURITY_LEVEL", "eq", json!("gold"))]}]});
    let problems = parse(&PolicyDocument::from_value(unknown).unwrap()).unwrap_err();
    assert_eq!(problems[0].path, "permission[0].constraint[0].rightOperand");
}

/// S24.
#[test]
fn a_part_is_known_by_the_taxonomy_only() {
    let vocabulary = Vocabulary {
        parts: Taxonomy::new([("DE", "EU"), ("FR", "EU"), ("US", "America"), ("Bavaria", "DE")]),
        ..Vocabulary::default()
    };
    let of = |rules: Value| parse_with(&PolicyDocument::from_value(rules).unwrap(), &vocabulary).unwrap();
    let may = |operator: &str, right: &str| {
        of(json!({"permission": [{"action": "use", "constraint": [atom("spatial", operator, json!(right))]}]}))
    };
    for (operator, right, place, allowed) in [
        ("isPartOf", "EU", "Bavaria", true),
        ("isPartOf", "EU", "US", false),
        ("isPartOf", "DE", "EU", false),
        ("hasPart", "DE", "EU", true),
        ("neq", "US", "DE", true),
        // To be in Bavaria is to be in the EU: it is not something else.
        ("neq", "EU", "Bavaria", false),
    ] {
        let world = knowing("spatial", FactValue::names([place]));
        assert_eq!(decide(&may(operator, right), &world).allowed, allowed, "{place} {operator} {right}");
    }
    // What the taxonomy does not list may be anywhere: a prohibition is not known to be harmless.
    let outside = of(json!({"permission": [{"action": "use"}],
        "prohibition": [{"action": "use", "constraint": [atom("spatial", "isPartOf", json!("EU"))]}]}));
    assert!(!decide(&outside, &knowing("spatial", FactValue::names(["Atlantis"]))).allowed);
    assert!(decide(&outside, &knowing("spatial", FactValue::names(["US"]))).allowed);
    // Nothing has no part, which is known; that it is in no place does not make it be in another one.
    let nowhere = knowing("spatial", FactValue::names([""; 0]));
    let without = |operator: &str| {
        of(json!({"permission": [{"action": "use"}],
            "prohibition": [{"action": "use", "constraint": [atom("spatial", operator, json!("EU"))]}]}))
    };
    for (operator, allowed) in
        [("hasPart", true), ("isAllOf", true), ("isPartOf", false), ("eq", false), ("neq", false)]
    {
        assert_eq!(decide(&without(operator), &nowhere).allowed, allowed, "a prohibition by {operator}");
    }
    // The taxonomy is an operator's own, and no part of the terms.
    let plain = json!({"permission": [{"action": "use", "constraint": [atom("spatial", "isPartOf", json!("EU"))]}]});
    assert_eq!(terms_digest(&may("isPartOf", "EU")), terms_digest(&policy(plain)));
}

/// S25.
#[test]
fn an_operator_defines_operands_with_a_type_and_a_source() {
    let define = |kind: DefinedKind| OperandDefinition { about: "a score".to_owned(), kind, source: FactSource::Peer };
    let vocabulary = Vocabulary {
        operands: [("urn:my:score".to_owned(), define(DefinedKind::Number { unit: None }))].into(),
        ..Vocabulary::default()
    };
    vocabulary.check().unwrap();
    let document = PolicyDocument::from_value(json!({"permission": [{"action": "use",
        "constraint": [atom("urn:my:score", "gteq", json!("7.5"))]}]}))
    .unwrap();
    assert!(parse(&document).is_err(), "nobody else knows it");
    let policy = parse_with(&document, &vocabulary).unwrap();
    for (score, allowed) in [("7.50", true), ("7.4", false)] {
        let score = FactValue::Number(score.parse().unwrap());
        assert_eq!(decide(&policy, &knowing("urn:my:score", score)).allowed, allowed);
    }
    let mut capabilities = Capabilities { vocabulary, ..Capabilities::default() };
    assert!(enforceable(&document, &capabilities).is_err(), "no claims are asked");
    capabilities.sources.insert(FactSource::Peer);
    assert!(enforceable(&document, &capabilities).is_ok());
    let taken = Vocabulary {
        operands: [("dateTime".to_owned(), define(DefinedKind::Instant))].into(),
        ..Vocabulary::default()
    };
    assert_eq!(taken.check().unwrap_err().term, "dateTime");
}

/// S26.
#[test]
fn a_collection_has_the_members_that_facts_name() {
    let group = used(json!({"action": "use", "assignee": {"@type": "PartyCollection", "source": "urn:group",
        "refinement": [atom("vcard:hasGeo", "eq", json!("urn:DE"))]}}));
    let world = |groups: &[&str], place: &str| {
        let facts = Facts::default()
            .with(ASSIGNEE_COLLECTIONS, FactValue::names(groups))
            .with("vcard:hasGeo", FactValue::names([place]));
        World { facts, ..noon() }
    };
    assert!(decide(&group, &world(&["urn:group"], "urn:DE")).allowed);
    assert!(!decide(&group, &world(&["urn:group"], "urn:FR")).allowed);
    assert!(!decide(&group, &world(&["urn:other"], "urn:DE")).allowed);
    assert!(!decide(&group, &noon()).allowed);
    let dataset = |id: &str| {
        used(json!({"action": "use", "target": {"@type": "AssetCollection", "source": id,
        "refinement": [atom("skos:concept", "isNoneOf", json!(["confidential"]))]}}))
    };
    let labelled = |label: &str| knowing("skos:concept", FactValue::names([label]));
    assert!(decide(&dataset("urn:data:1"), &labelled("open")).allowed, "the dataset is the collection");
    assert!(!decide(&dataset("urn:data:1"), &labelled("confidential")).allowed);
    assert!(!decide(&dataset("urn:data:2"), &labelled("open")).allowed);
    let mut member = labelled("open");
    member.facts.insert(TARGET_COLLECTIONS, FactValue::names(["urn:data:2"]));
    assert!(decide(&dataset("urn:data:2"), &member).allowed);
}

/// S26.
#[test]
fn who_is_named_is_meant_and_not_the_collection_beside_it() {
    let used_by = |assignee: Value| json!({"permission": [{"action": "use", "assignee": assignee}]});
    let members = policy(used_by(json!({"partOf": "urn:club"})));
    let collection = json!({"@type": "PartyCollection", "source": "urn:club"});
    assert_eq!(terms_digest(&members), terms_digest(&policy(used_by(collection))));
    let member = knowing(ASSIGNEE_COLLECTIONS, FactValue::names(["urn:club"]));
    assert!(decide(&members, &member).allowed);
    assert!(!decide(&members, &noon()).allowed);
    for id in ["@id", "uid"] {
        assert!(decide(&policy(used_by(json!({id: ME, "@type": "Party"}))), &noon()).allowed, "{id}");
        let other = policy(used_by(json!({id: "did:web:alice.example", "@type": "Party"})));
        assert!(!decide(&other, &member).allowed, "{id}");
    }
    for both in [
        json!({"@id": "did:web:alice.example", "partOf": "urn:club"}),
        json!({"uid": "did:web:alice.example", "@type": "Party", "partOf": {"@id": "urn:club"}}),
        json!({"source": "urn:club", "partOf": "urn:other"}),
    ] {
        for (document, path) in [
            (used_by(both.clone()), "permission[0].assignee.partOf"),
            (json!({"permission": [{"action": "use", "target": both.clone()}]}), "permission[0].target.partOf"),
            (json!({"assignee": both.clone(), "permission": [{"action": "use"}]}), "assignee.partOf"),
        ] {
            let problems = parse(&PolicyDocument::from_value(document).unwrap()).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!((problems[0].path.as_str(), problems[0].kind), (path, ProblemKind::Unknown), "{both}");
        }
    }
}

fn agreed(offer: &Value) -> PolicyDocument {
    let offer = Offer {
        id: OfferId::parse("urn:offer:1").unwrap(),
        target: DatasetId::parse("urn:data:1").unwrap(),
        policy: PolicyDocument::from_value(offer.clone()).unwrap(),
    };
    let (id, provider) = (AgreementId::parse("urn:agreement:1").unwrap(), ParticipantId::parse("did:web:p.example"));
    agreement_from(&offer, id, &provider.unwrap(), &ParticipantId::parse(ME).unwrap(), noon().now).policy
}

/// S15, S16: what an agreement names for the whole is set beside the terms, not in their place.
#[test]
fn an_agreement_keeps_what_its_offer_says_of_target_and_assignee() {
    let german = json!([atom("vcard:hasGeo", "eq", json!("urn:DE"))]);
    let club = json!({"@type": "PartyCollection", "source": "urn:club", "refinement": german});
    let open = json!([atom("skos:concept", "isNoneOf", json!(["confidential"]))]);
    let whole = |member: &str, value: Value| {
        let mut offer = json!({"@type": "Offer", "permission": [{"action": "use"}], "prohibition": [
            {"action": "use", "assignee": "did:web:nobody.example", "target": "urn:data:0"}]});
        offer[member] = value;
        offer
    };
    let member = || {
        let facts = Facts::default().with(ASSIGNEE_COLLECTIONS, FactValue::names(["urn:club"]));
        World { facts: facts.with("vcard:hasGeo", FactValue::names(["urn:DE"])), ..noon() }
    };
    let labelled = |label: &str| knowing("skos:concept", FactValue::names([label]));
    let refined = json!({"@id": "urn:data:1", "refinement": open});
    for (offer, allowed, denied) in [
        (whole("assignee", club.clone()), member(), noon()),
        (whole("assignee", json!([club, "did:web:other.example"])), member(), noon()),
        (whole("target", refined), labelled("open"), labelled("confidential")),
        (
            whole("target", json!({"@type": "AssetCollection", "source": "urn:data:1", "refinement": open})),
            labelled("open"),
            noon(),
        ),
    ] {
        let agreement = agreed(&offer);
        let document = PolicyDocument::from_value(offer.clone()).unwrap();
        assert_eq!(same_terms(&document, &agreement), Ok(()), "{offer}");
        assert_eq!((agreement.target(), agreement.assignee()), (Some("urn:data:1"), Some(ME)));
        let agreement = parse(&agreement).unwrap();
        assert!(decide(&agreement, &allowed).allowed, "{offer}");
        assert!(!decide(&agreement, &denied).allowed, "{offer}");
    }
    for assignees in [json!([ME, "did:web:other.example"]), json!(["did:web:other.example", "did:web:third.example"])] {
        let offer = whole("assignee", assignees.clone());
        let agreement = agreed(&offer);
        assert_eq!(same_terms(&PolicyDocument::from_value(offer).unwrap(), &agreement), Ok(()), "{assignees}");
        assert_eq!(decide(&parse(&agreement).unwrap(), &noon()).allowed, assignees[0] == ME, "{assignees}");
    }
    // One plain party or target is no term.
    for plain in [json!("did:web:other.example"), json!({"@id": "did:web:other.example", "@type": "Party"})] {
        let agreement = agreed(&whole("assignee", plain));
        assert!(decide(&parse(&agreement).unwrap(), &noon()).allowed);
    }
}

fn paid(rule: &Policy, standing: Option<Standing>) -> Decision {
    let key = rule.rules[0].duties[0].term.clone().unwrap().key;
    let mut world = noon();
    if let Some(standing) = standing {
        world.duties.insert(key, standing);
    }
    decide(rule, &world)
}

/// S27.
#[test]
fn a_duty_before_a_use_forbids_it_until_it_is_done() {
    let pay = json!({"action": {"rdf:value": {"@id": "odrl:compensate"}, "refinement": [
        {"leftOperand": "payAmount", "operator": "eq", "rightOperand": "500.00", "unit": "urn:euro"}]}});
    let rule = used(json!({"action": "use", "duty": [pay]}));
    let denied = paid(&rule, None);
    assert!(!denied.allowed);
    assert_eq!(denied.duties.len(), 1, "{denied:?}");
    assert_eq!((denied.duties[0].when, denied.duties[0].state), (When::Before, DutyState::Pending));
    assert!(denied.reasons.iter().any(|reason| reason.message.contains("is not yet done")), "{denied:?}");
    let until = at("2031-01-01T00:00:00Z");
    let allowed = paid(&rule, Some(Standing { state: DutyState::Fulfilled, until: Some(until) }));
    assert_eq!((allowed.allowed, allowed.valid_until), (true, Some(until)));
    assert!(!paid(&rule, Some(Standing { state: DutyState::Violated, until: None })).allowed);
}

fn key_of(duty: &Rule) -> DutyKey {
    duty.term.clone().unwrap().key
}

/// S27: of every kind, as if each permission had it.
#[test]
fn an_obligation_is_borne_by_every_permission_that_it_is_about() {
    let refined = |action: &str, left: &str, right: &str| json!({"action": {"rdf:value": {"@id": action}, "refinement": [atom(left, "eq", json!(right))]}});
    let first = |when: &str| json!([atom("event", when, json!({"@id": "odrl:policyUsage"}))]);
    let with = |member: &str, duty: &Value| match member {
        "obligation" => policy(json!({"permission": [{"action": "use"}], "obligation": [duty]})),
        _ => used(json!({"action": "use", member: [duty]})),
    };
    for (duty, pending, borne) in [
        (json!({"action": "compensate"}), false, true),
        (json!({"action": "compensate", "constraint": first("gt")}), true, true),
        (json!({"action": "obtainConsent"}), false, true),
        (json!({"action": "idsc:LOG"}), true, true),
        (json!({"action": "idsc:LOG", "constraint": first("lt")}), true, true),
        (json!({"action": "inform"}), true, true),
        (json!({"action": "inform", "constraint": first("lt")}), false, true),
        (json!({"action": "delete"}), true, true),
        (refined("nextPolicy", "idsc:TARGET_POLICY", "urn:next"), true, true),
        (refined("idsc:DROP", "idsc:PATH", "$.name"), true, false),
        (json!({"action": "delete", "consequence": [{"action": "compensate"}]}), true, true),
    ] {
        let (obliged, permitted) = (with("obligation", &duty), with("duty", &duty));
        let (one, other) = (obliged.rules[1].clone(), permitted.rules[0].duties[0].clone());
        let consequence = one.duties.first().map(key_of).zip(other.duties.first().map(key_of));
        for state in [None, Some(DutyState::Fulfilled), Some(DutyState::Violated), Some(DutyState::Late)] {
            let until = at("2030-01-02T00:00:00Z");
            let mut world = noon();
            if let Some(state) = state {
                world.duties.insert(key_of(&one), Standing { state, until: Some(until) });
                world.duties.insert(key_of(&other), Standing { state, until: Some(until) });
                for key in consequence.iter().flat_map(|(one, other)| [one, other]) {
                    world.duties.insert(key.clone(), Standing { state: DutyState::Pending, until: None });
                }
            }
            let (a, b) = (decide(&obliged, &world), decide(&permitted, &world));
            let said = |decision: &Decision| -> Vec<(DutyKind, When, DutyState)> {
                let mut said: Vec<_> =
                    decision.duties.iter().map(|duty| (duty.kind.clone(), duty.when, duty.state)).collect();
                said.sort();
                said
            };
            assert_eq!(
                (a.allowed, a.valid_until, &a.terms, said(&a)),
                (b.allowed, b.valid_until, &b.terms, said(&b)),
                "{duty} {state:?}: {:?}",
                a.reasons
            );
            assert!(a.allowed || a.reasons.iter().any(|reason| reason.path.starts_with("obligation[0]")), "{duty}");
            if state.is_none() {
                assert_eq!(a.allowed, pending, "{duty}: {:?}", a.reasons);
                assert_eq!(a.duties.len(), usize::from(borne), "{duty}");
                assert_eq!(a.terms.is_unrestricted(), borne, "{duty}");
            }
            assert!(a.allowed || state != Some(DutyState::Fulfilled), "{duty}");
            assert!(!a.allowed || state != Some(DutyState::Violated), "{duty}");
            let reported = &report(&obliged, &me(), &world).rules[1];
            assert_eq!(reported.activation, report::Activation::Active);
            assert_eq!(reported.state, Some(state.unwrap_or_default()));
        }
    }
}

fn me() -> Request {
    let assignee = ParticipantId::parse(ME).unwrap();
    Request { action: "use".to_owned(), assignee, target: Some("urn:data:1".to_owned()) }
}

/// S27: whom and what it names.
#[test]
fn an_obligation_is_about_its_target_and_assignee_alone() {
    let day = at("2030-01-02T00:00:00Z");
    let mut member = noon();
    member.facts.insert_since(ASSIGNEE_COLLECTIONS, FactValue::names(["urn:club"]), day, None);
    member.facts.insert(TARGET_COLLECTIONS, FactValue::names(["urn:shelf"]));
    let club = json!({"@type": "PartyCollection", "source": "urn:club"});
    let shelf = |id: &str| json!({"@type": "AssetCollection", "source": id});
    for (more, blind, known, later) in [
        (json!({}), false, false, false),
        (json!({"target": "urn:data:1"}), false, false, false),
        (json!({"assignee": ME}), false, false, false),
        (json!({"assignee": ME, "target": "urn:data:1"}), false, false, false),
        (json!({"target": "urn:data:2"}), true, true, true),
        (json!({"assignee": "did:web:other.example"}), true, true, true),
        (json!({"assignee": ME, "target": "urn:data:2"}), true, true, true),
        // What is not known obliges.
        (json!({"assignee": club}), false, false, false),
        (json!({"target": shelf("urn:shelf")}), false, false, false),
        (json!({"target": shelf("urn:cellar")}), false, true, true),
    ] {
        for kind in ["obtainConsent", "delete"] {
            let mut duty = json!({"action": kind});
            more.as_object().unwrap().iter().for_each(|(key, value)| duty[key] = value.clone());
            let policy = policy(json!({"permission": [{"action": "use"}], "obligation": [duty]}));
            for (world, free) in
                [(noon(), blind), (member.clone(), known), (World { now: day, ..member.clone() }, later)]
            {
                let decision = decide(&policy, &world);
                assert_eq!(decision.allowed, free || kind == "delete", "{duty}: {:?}", decision.reasons);
                assert_eq!(decision.duties.is_empty(), free, "{duty}");
                assert!(could_allow(&policy, &me(), &world), "{duty}: it may be done yet");
                let first = (free || kind == "delete").then_some(world.now);
                assert_eq!(first_allowed(&policy, &me(), &world), first, "{duty}");
                let active = report(&policy, &me(), &world).rules[1].activation;
                assert_eq!(active == report::Activation::Inactive, free, "{duty}");
            }
        }
    }
    // A rent that ends, and one that nobody need pay any more.
    let policy = policy(json!({"permission": [{"action": "use"}], "obligation": [{"action": "compensate"}]}));
    let mut paid = noon();
    paid.duties.insert(key_of(&policy.rules[1]), Standing { state: DutyState::Fulfilled, until: Some(day) });
    let decision = decide(&policy, &paid);
    assert_eq!((decision.allowed, decision.valid_until), (true, Some(day)));
    paid.duties.insert(key_of(&policy.rules[1]), Standing { state: DutyState::Violated, until: None });
    assert!(!could_allow(&policy, &me(), &paid), "it was not paid in time, and time does not change that");
}

/// S28.
#[test]
fn a_duty_done_late_needs_its_consequences() {
    let rule =
        used(json!({"action": "use", "duty": [{"action": "delete", "consequence": [{"action": "compensate"}]}]}));
    let duty = rule.rules[0].duties[0].clone();
    let (key, consequence) = (duty.term.unwrap().key, duty.duties[0].term.clone().unwrap().key);
    let with = |states: DutyStates| decide(&rule, &World { duties: states, ..noon() });
    let first = with(DutyStates::default());
    assert!(first.allowed, "what comes after does not forbid");
    assert_eq!((first.duties.len(), first.duties[0].when), (1, When::After));
    assert!(!with(DutyStates::default().with(key.clone(), DutyState::Violated)).allowed);
    let late = DutyStates::default().with(key, DutyState::Late);
    assert!(!with(late.clone()).allowed);
    assert!(with(late.with(consequence, DutyState::Fulfilled)).allowed);
}

/// S37.
#[test]
fn an_infringed_prohibition_denies_every_use_until_its_remedies_are_fulfilled() {
    let until = at("2030-01-02T00:00:00Z");
    let with = |strategy: &str, remedies: Value| {
        policy(json!({"conflict": strategy, "permission": [{"action": "use"}],
            // About another dataset: an infringement stands in the way of this one too.
            "prohibition": [{"action": "use", "target": "urn:data:2", "remedy": remedies}]}))
    };
    for strategy in ["prohibit", "perm"] {
        let rule = with(strategy, json!([{"action": "compensate"}, {"action": "obtainConsent"}]));
        let prohibition = rule.rules.iter().find(|rule| rule.kind == RuleKind::Prohibition).unwrap();
        let key = prohibition.infringement.clone().unwrap();
        let remedies: Vec<DutyKey> = prohibition.duties.iter().map(|remedy| remedy.term.clone().unwrap().key).collect();
        let decided = |states: DutyStates| decide(&rule, &World { duties: states, ..noon() });
        assert!(decided(DutyStates::default()).allowed, "nothing infringes it by itself");
        for state in [DutyState::Pending, DutyState::Fulfilled, DutyState::Late] {
            assert!(decided(DutyStates::default().with(key.clone(), state)).allowed, "{state:?} is no infringement");
        }
        let infringed = DutyStates::default().with(key.clone(), DutyState::Violated);
        let denied = decided(infringed.clone());
        assert_eq!((denied.allowed, denied.valid_until), (false, None));
        assert_eq!(
            denied.duties.iter().map(|duty| duty.path.as_str()).collect::<BTreeSet<_>>(),
            BTreeSet::from(["prohibition[0].remedy[0]", "prohibition[0].remedy[1]"])
        );
        let said = denied.reasons.iter().find(|reason| reason.path == "prohibition[0]").unwrap();
        assert!(said.message.contains("was infringed"), "{said:?}");
        assert!(denied.reasons.iter().any(|reason| reason.path == "prohibition[0].remedy[1]"));
        let half = infringed.clone().with(remedies[0].clone(), DutyState::Fulfilled);
        assert!(!decided(half.clone()).allowed);
        assert!(!decided(half.clone().with(remedies[1].clone(), DutyState::Violated)).allowed);
        let mut whole = half.clone();
        whole.insert(remedies[1].clone(), Standing { state: DutyState::Fulfilled, until: Some(until) });
        let good = decided(whole);
        assert_eq!((good.allowed, good.valid_until), (true, Some(until)));
        // An infringement that was recorded for a time.
        let mut lapses = DutyStates::default();
        lapses.insert(key, Standing { state: DutyState::Violated, until: Some(until) });
        let denied = decided(lapses);
        assert_eq!((denied.allowed, denied.valid_until), (false, Some(until)));
    }
    for remedies in [json!([]), json!([{"action": "attribute"}]), json!([{"action": "delete"}])] {
        let rule = with("prohibit", remedies.clone());
        let prohibition = rule.rules[1].clone();
        let mut states = DutyStates::default().with(prohibition.infringement.unwrap(), DutyState::Violated);
        for remedy in prohibition.duties {
            states.insert(remedy.term.unwrap().key, Standing { state: DutyState::Fulfilled, until: None });
        }
        assert!(!decide(&rule, &World { duties: states, ..noon() }).allowed, "nothing makes it good: {remedies}");
    }
}

/// S16, S19 and S37.
#[test]
fn a_remedy_is_a_term_of_its_prohibition() {
    let with = |strategy: &str, remedy: Value| {
        policy(json!({"conflict": strategy, "permission": [{"action": "use"}],
            "prohibition": [{"action": "use", "constraint": [atom("count", "gt", json!(5))], "remedy": remedy}]}))
    };
    let (none, pay) = (json!([]), json!([{"action": "compensate"}]));
    for strategy in ["prohibit", "perm"] {
        assert_ne!(terms_digest(&with(strategy, none.clone())), terms_digest(&with(strategy, pay.clone())));
        let key = |policy: &Policy| policy.rules[1].infringement.clone();
        assert_ne!(key(&with(strategy, none.clone())), key(&with(strategy, pay.clone())));
        assert!(matches!(
            compare(&with(strategy, pay.clone()), &with(strategy, none.clone())),
            Relation::Conflict(_) | Relation::Wider(_)
        ));
    }
    // A prohibition more with a remedy takes something away, even where a permission wins.
    let free = policy(json!({"permission": [{"action": "use"}]}));
    assert_eq!(compare(&free, &with("perm", pay)), Relation::Narrower);
    assert_eq!(compare(&free, &with("perm", none)), Relation::Equal);
}

/// S29.
#[test]
fn burdens_are_borne_unless_a_permission_has_none() {
    let rate =
        json!({"leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": "10", "unit": "kBy/s"});
    let quantity = json!({"leftOperand": "idsc:QUANTITY", "operator": "lteq", "rightOperand": "5", "unit": "MBy"});
    let fields = atom("idsc:PATH", "isAnyOf", json!(["$.a", "$.b"]));
    let hash = json!({"action": {"rdf:value": {"@id": "idsc:HASH"}, "refinement": [atom("idsc:JSON_PATH", "eq", json!("$.a"))]}});
    let burdened = json!({"action": "use", "constraint": [rate, fields, atom("delayPeriod", "eq", json!("PT1H"))], "duty": [hash]});
    let decision = decide(&used(burdened.clone()), &noon());
    assert!(decision.allowed, "{:?}", decision.reasons);
    assert_eq!(decision.terms.rate, Rate::new(10_000, jiff::SignedDuration::from_secs(1)));
    assert_eq!(decision.terms.not_before, Some(at("2030-01-01T01:00:00Z")));
    assert_eq!(decision.terms.transforms.len(), 2);
    let free = policy(json!({"permission": [burdened, {"action": "use"}]}));
    assert!(decide(&free, &noon()).terms.is_unrestricted());
    let limited = used(json!({"action": "use", "constraint": [quantity]}));
    assert!(!decide(&limited, &noon()).allowed, "nobody counted");
    let moved = |bytes| decide(&limited, &World { bytes: Some(bytes), ..noon() });
    assert_eq!((moved(0).allowed, moved(0).terms.bytes_max), (true, Some(5_000_000)));
    assert!(moved(5_000_000).allowed && !moved(5_000_001).allowed);
    // Under `or` nobody could say whether a burden is borne.
    let rate =
        json!({"leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": "10", "unit": "kBy/s"});
    assert!(!decide(&under(json!({"or": [rate]})), &noon()).allowed);
}

/// S28: what is overdue though another duty is what a use waits for.
#[test]
fn every_duty_that_a_decision_asks_for_is_listed() {
    let log = json!({"action": "idsc:LOG", "consequence": [{"action": "obtainConsent"}]});
    let policy = policy(json!({
        "permission": [{"action": "use", "duty": [{"action": "compensate"}, log]}, {"action": "use", "duty": [log]}],
        "prohibition": [{"action": "use", "target": "urn:data:2", "remedy": [{"action": "compensate"}]}],
        "obligation": [{"action": "delete"}]}));
    let all = duties(&policy);
    let mut paths: Vec<&str> = all.iter().map(|due| due.path.as_str()).collect();
    paths.sort_unstable();
    let first = "permission[0].duty[1]";
    let consequence = format!("{first}.consequence[0]");
    assert_eq!(paths, ["obligation[0]", "permission[0].duty[0]", first, &consequence, "prohibition[0].remedy[0]"]);
    // One of them alone keeps the use from beginning, and a denial for want of another does not bring it.
    let state = |due: &DueDuty, state: DutyState| (due.key.clone(), Standing { state, until: None });
    let mut world = noon();
    for (key, standing) in all.iter().map(|due| state(due, DutyState::Fulfilled)) {
        world.duties.insert(key, standing);
    }
    assert!(decide(&policy, &world).allowed);
    let overdue = all.iter().find(|due| due.path == "obligation[0]").unwrap();
    let (key, standing) = state(overdue, DutyState::Violated);
    world.duties.insert(key, standing);
    assert!(!decide(&policy, &world).allowed);
}

/// S10.
#[test]
fn a_decision_turns_where_its_terms_and_duties_do() {
    let day = |day: u8| at(&format!("2030-01-{day:02}T00:00:00Z"));
    let time = |operator: &str, on: u8| atom("dateTime", operator, json!(day(on).to_string()));
    let fields = || atom("idsc:PATH", "isAnyOf", json!(["$.id"]));
    let log = || json!([{"action": "idsc:LOG"}]);
    let turns = |value: Value, world: &World| {
        let (policy, mut world) = (policy(value), world.clone());
        let mut turns = Vec::new();
        loop {
            let decision = decide(&policy, &world);
            turns.extend(decision.valid_until);
            let verdict = Prepared::new(policy.clone()).decide(&me(), &world);
            assert_eq!((verdict.allowed, verdict.valid_until), (decision.allowed, decision.valid_until));
            let Some(until) = decision.valid_until else { return turns };
            world.now = until;
        }
    };
    let free = |constraint: Value| json!({"action": "use", "constraint": constraint});
    let bound = json!({"action": "use", "constraint": [fields()], "duty": log()});
    // One without burdens lifts those of the other, and no longer from its end on.
    let lifted = json!({"permission": [free(json!([time("lt", 3)])), bound]});
    assert_eq!(turns(lifted.clone(), &noon()), vec![day(3)]);
    let (before, after) = (decide(&policy(lifted.clone()), &noon()), World { now: day(3), ..noon() });
    assert!(before.allowed && before.terms.is_unrestricted() && before.duties.is_empty());
    let after = decide(&policy(lifted), &after);
    assert!(after.allowed && !after.terms.is_unrestricted() && after.duties.len() == 1);
    // What is borne anyway, by whichever permission, does not turn; nor does what nobody bears.
    let twice = |more: Value| json!({"permission": [{"action": "use", "constraint": [time("lt", 3), fields()], "duty": log()}, bound, more]});
    assert_eq!(turns(twice(bound.clone()), &noon()), vec![]);
    assert_eq!(turns(json!({"permission": [free(json!([time("lt", 3)])), free(json!([]))]}), &noon()), vec![]);
    // One that begins, and one by a fact that ends.
    assert_eq!(
        turns(json!({"permission": [free(json!([time("gteq", 3), time("lt", 5)])), bound]}), &noon()),
        vec![day(3), day(5)]
    );
    let mut fair = noon();
    fair.facts.insert_until("event", FactValue::names(["urn:fair"]), day(4));
    let event = free(json!([atom("event", "eq", json!("urn:fair"))]));
    assert_eq!(turns(json!({"permission": [event, bound]}), &fair), vec![day(4)]);
    // How much is left, and a state of a duty: a log that was late until then.
    let bytes = atom("idsc:QUANTITY", "lteq", json!("5"));
    let until = json!({"or": [bytes, time("lt", 3)]});
    assert_eq!(turns(json!({"permission": [free(json!([until]))]}), &World { bytes: Some(1), ..noon() }), vec![day(3)]);
    let logged = policy(json!({"permission": [{"action": "use", "duty": log()}], "obligation": log()}));
    let mut known = noon();
    let standing = Standing { state: DutyState::Fulfilled, until: Some(day(6)) };
    known.duties.insert(key_of(&logged.rules[0].duties[0]), standing);
    known.duties.insert(key_of(&logged.rules[1]), standing);
    assert_eq!(turns(json!({"permission": [{"action": "use", "duty": log()}]}), &known), vec![day(6)]);
    assert_eq!(turns(json!({"permission": [{"action": "use"}], "obligation": log()}), &known), vec![day(6)]);
    // What a use waits for.
    let pay = json!({"action": "use", "constraint": [time("gteq", 3)], "duty": [{"action": "compensate"}]});
    assert_eq!(turns(json!({"permission": [pay]}), &noon()), vec![day(3)]);
}

/// S10: what is too much to compare may turn, and is found out soon.
#[test]
fn a_turn_of_burdens_is_sought_within_bounds() {
    let many = |count: i64| {
        let or: Vec<Value> = (1..=count)
            .map(|n| {
                let later = Timestamp::from_second(noon().now.as_second() + n).unwrap();
                let bytes = atom("idsc:QUANTITY", "neq", json!(n.to_string()));
                json!({"and": [bytes, atom("dateTime", "neq", json!(later.to_string()))]})
            })
            .collect();
        let bytes = atom("idsc:QUANTITY", "lteq", json!("1000000"));
        let permission = json!({"action": "use", "constraint": [bytes, {"or": or}]});
        let decision = decide(&policy(json!({"permission": [permission]})), &World { bytes: Some(0), ..noon() });
        assert_eq!((decision.allowed, decision.terms.bytes_max), (true, Some(1_000_000)));
        decision.valid_until
    };
    assert_eq!(many(10), None);
    let until = many(300).unwrap();
    assert!(until > noon().now, "a turn that is none is still to come");
}

/// S30.
#[test]
fn what_no_part_of_the_connector_can_do_is_refused_by_name() {
    let log = json!({"action": "idsc:LOG"});
    let document = PolicyDocument::from_value(json!({"permission": [{"action": "use", "duty": [log]}]})).unwrap();
    let refusal = enforceable(&document, &Capabilities::default()).unwrap_err();
    assert!(refusal.message.contains("uses are not recorded"), "{refusal:?}");
    let capabilities = Capabilities { log_sink: true, ..Capabilities::default() };
    let policy = enforceable(&document, &capabilities).unwrap();
    let plan = plan(&policy, &capabilities);
    assert_eq!(plan.enforced[0].path, "permission[0].duty[0]");
    assert!(plan.enforced[0].phases.iter().any(|phase| phase.phase == Phase::TransferStart));
}
