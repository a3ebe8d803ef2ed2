//! The laws of the policy engine, over generated policies. Each cites its rule in `SEMANTICS.md`.

#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::{SignedDuration, Timestamp};
use kontor_core::id::ParticipantId;
use kontor_core::policy::model::RuleKind;
use kontor_core::policy::report::Activation;
use kontor_core::policy::{
    Capabilities, Decision, DutyKey, DutyState, FactValue, Facts, Policy, Prepared, Relation, Request, Standing,
    StreamTerms, When, World, compare, evaluate, inherit, parse, report, same_terms, terms_digest, unenforceable,
};
use kontor_vocab::odrl::PolicyDocument;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Instants of the tests are a few seconds apart, so that generated ones often meet.
fn instant(second: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + second).unwrap()
}

fn operator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["eq", "neq", "lt", "lteq", "gt", "gteq"])
}

fn atom() -> impl Strategy<Value = Value> {
    let constraint = |left: &str, operator: &str, right: Value| json!({"leftOperand": left, "operator": operator, "rightOperand": right});
    prop_oneof![
        4 => (operator(), 0..12_i64).prop_map(move |(op, s)| constraint("dateTime", op, json!(instant(s).to_string()))),
        2 => (operator(), 0..12_i64).prop_map(move |(op, s)| constraint("elapsedTime", op, json!(format!("PT{s}S")))),
        2 => (operator(), 0..5_u64).prop_map(move |(op, n)| constraint("count", op, json!(n))),
        1 => prop::sample::select(vec!["urn:me", "urn:other"]).prop_map(move |who| constraint("recipient", "eq", json!(who))),
        1 => Just(constraint("purpose", "eq", json!("research"))),
        2 => Just(constraint("event", "eq", json!("urn:fair"))),
        1 => Just(constraint("spatial", "eq", json!("urn:DE"))),
    ]
}

fn constraint() -> impl Strategy<Value = Value> {
    atom().prop_recursive(3, 12, 4, |inner| {
        (prop::sample::select(vec!["and", "or", "xone", "andSequence"]), prop::collection::vec(inner, 1..4))
            .prop_map(|(operand, of)| json!({operand: of}))
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let action = prop::sample::select(vec!["use", "use", "use", "print", "sell"]);
    let assignee = prop::option::of(prop::sample::select(vec!["urn:me", "urn:other"]));
    (action, assignee, prop::collection::vec(constraint(), 0..3)).prop_map(|(action, assignee, constraints)| {
        let mut rule = json!({"action": action, "constraint": constraints});
        if let Some(assignee) = assignee {
            rule["assignee"] = json!(assignee);
        }
        rule
    })
}

fn rules() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    (prop::collection::vec(rule(), 1..4), prop::collection::vec(rule(), 0..3))
}

fn world() -> impl Strategy<Value = World> {
    let known = || (any::<bool>(), prop::option::of(0..12_i64), prop::option::of(6..12_i64));
    (0..14_i64, prop::option::of(0..8_i64), prop::option::of(1..6_u64), known(), known()).prop_map(
        |(now, agreed, uses, event, place)| {
            let mut facts = Facts::default();
            for (operand, name, (known, since, until)) in [("event", "urn:fair", event), ("spatial", "urn:DE", place)] {
                let names = FactValue::names([name]);
                match (known, since, until) {
                    (false, ..) => {}
                    (true, Some(since), until) => {
                        facts.insert_since(operand, names, instant(since), until.map(instant));
                    }
                    (true, None, Some(until)) => facts.insert_until(operand, names, instant(until)),
                    (true, None, None) => facts.insert(operand, names),
                }
            }
            World { now: instant(now), agreed_at: agreed.map(instant), uses, facts, ..World::default() }
        },
    )
}

/// Duties that come before a use, with it and after it.
const DUTIES: [&str; 4] = [
    r#"{"action": "compensate"}"#,
    r#"{"action": "delete"}"#,
    r#"{"action": {"rdf:value": {"@id": "idsc:DROP"}, "refinement": [{"leftOperand": "idsc:PATH", "operator": "eq", "rightOperand": "$.a"}]}}"#,
    r#"{"action": "idsc:LOG", "consequence": [{"action": "obtainConsent"}]}"#,
];

fn duty() -> impl Strategy<Value = Value> {
    prop::sample::select(DUTIES.to_vec()).prop_map(|text| serde_json::from_str(text).unwrap())
}

/// A condition that the stream bears.
fn burden() -> impl Strategy<Value = Value> {
    let quantity = |(operator, n): (&str, u64)| json!({"leftOperand": "idsc:QUANTITY", "operator": operator, "rightOperand": n, "unit": "By"});
    prop_oneof![
        2 => (operator(), 0..5_u64).prop_map(quantity),
        1 => (operator(), 0..5_u64, atom()).prop_map(move |(op, n, other)| json!({"or": [quantity((op, n)), other]})),
        1 => (1..3_u64).prop_map(|n| json!({"leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": n, "unit": "By/s"})),
        1 => Just(json!({"leftOperand": "idsc:PATH", "operator": "isAnyOf", "rightOperand": ["$.a"]})),
    ]
}

/// A policy whose permissions have burdens, and that obliges; and a world in which duties are done, overdue or late.
fn burdened() -> impl Strategy<Value = (PolicyDocument, World)> {
    let more = (prop::option::of(duty()), prop::option::of(burden()));
    let permissions = prop::collection::vec((rule(), more), 1..4);
    let obligation = (duty(), prop::option::of(prop::sample::select(vec!["urn:me", "urn:other"])));
    let obligations = prop::collection::vec(obligation, 0..2);
    let states = prop::collection::vec((0..5_usize, prop::option::of(0..12_i64)), 6);
    let bytes = prop::option::of(0..4_u64);
    (permissions, prop::collection::vec(rule(), 0..2), obligations, world(), states, bytes).prop_map(
        |(permissions, prohibitions, obligations, mut world, states, bytes)| {
            let permissions: Vec<Value> = permissions
                .into_iter()
                .map(|(mut rule, (duty, burden))| {
                    rule["constraint"].as_array_mut().unwrap().extend(burden);
                    rule["duty"] = json!(duty.into_iter().collect::<Vec<_>>());
                    rule
                })
                .collect();
            let obligations: Vec<Value> = obligations
                .into_iter()
                .map(|(mut duty, assignee)| {
                    assignee.into_iter().for_each(|assignee| duty["assignee"] = json!(assignee));
                    duty
                })
                .collect();
            let mut document = document(&permissions, &prohibitions).to_value();
            document["obligation"] = json!(obligations);
            let document = PolicyDocument::from_value(document).unwrap();
            world.bytes = bytes;
            let policy = parse(&document).unwrap();
            let duties = policy.rules.iter().flat_map(|rule| std::iter::once(rule).chain(&rule.duties));
            let duties = duties.flat_map(|duty| std::iter::once(duty).chain(&duty.duties));
            let keys: std::collections::BTreeSet<_> =
                duties.filter_map(|duty| duty.term.as_ref().map(|term| term.key.clone())).collect();
            for (key, (state, until)) in keys.into_iter().zip(states) {
                let states = [DutyState::Fulfilled, DutyState::Pending, DutyState::Violated, DutyState::Late];
                // A duty of which nothing was recorded is as good as pending.
                let Some(state) = states.get(state) else { continue };
                world.duties.insert(key, Standing { state: *state, until: until.map(instant) });
            }
            (document, world)
        },
    )
}

fn unburdened() -> impl Strategy<Value = (PolicyDocument, World)> {
    (rules(), world()).prop_map(|((permissions, prohibitions), world)| (document(&permissions, &prohibitions), world))
}

/// What a decision says as a whole: whether, under which terms, and with which duties in which states.
fn said(decision: &Decision) -> (bool, Option<StreamTerms>, Vec<(DutyKey, DutyState)>) {
    let duties = decision.duties.iter().map(|due| (due.key.clone(), due.state)).collect();
    (decision.allowed, decision.allowed.then(|| decision.terms.clone()), duties)
}

fn document(permissions: &[Value], prohibitions: &[Value]) -> PolicyDocument {
    PolicyDocument::from_value(json!({"@type": "Offer", "permission": permissions, "prohibition": prohibitions}))
        .unwrap()
}

/// What is said of permissions and prohibitions that meet, if anything.
fn strategy() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("prohibit"), Some("perm"), Some("invalid")])
}

fn under(strategy: Option<&str>, document: PolicyDocument) -> PolicyDocument {
    match strategy {
        Some(strategy) => document.with("conflict", strategy),
        None => document,
    }
}

fn request() -> Request {
    Request { action: "use".to_owned(), assignee: ParticipantId::parse("urn:me").unwrap(), target: None }
}

fn decide(document: &PolicyDocument, world: &World) -> Decision {
    evaluate(&parse(document).unwrap(), &request(), world)
}

/// The same policy with everything turned round whose order does not matter.
fn reversed(value: Value) -> Value {
    let member = |(key, value): (String, Value)| match value {
        Value::Array(items) if key == "andSequence" => (key, items.into_iter().map(reversed).collect()),
        value => (key, reversed(value)),
    };
    match value {
        Value::Array(items) => Value::Array(items.into_iter().rev().map(reversed).collect()),
        Value::Object(map) => Value::Object(map.into_iter().rev().map(member).collect()),
        other => other,
    }
}

/// The same policy as a JSON-LD processor would expand it.
fn prefixed(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(prefixed).collect()),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| match key.as_str() {
                    "@type" => (key, value),
                    "action" | "leftOperand" | "operator" => {
                        let term = format!("http://www.w3.org/ns/odrl/2/{}", value.as_str().unwrap());
                        (format!("http://www.w3.org/ns/odrl/2/{key}"), json!([{"@id": term}]))
                    }
                    "rightOperand" => (format!("odrl:{key}"), json!([{"@value": value}])),
                    "assignee" => (format!("odrl:{key}"), json!({"@id": value})),
                    _ => (format!("odrl:{key}"), prefixed(value)),
                })
                .collect(),
        ),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// S1.
    #[test]
    fn without_a_permission_everything_is_denied(prohibitions in prop::collection::vec(rule(), 1..4), world in world()) {
        prop_assert!(!decide(&document(&[], &prohibitions), &world).allowed);
    }

    /// S2 and S33: whatever the policy says of conflicts.
    #[test]
    fn adding_a_prohibition_never_turns_deny_into_allow((permissions, prohibitions) in rules(), more in rule(), world in world(), strategy in strategy()) {
        let before = decide(&under(strategy, document(&permissions, &prohibitions)), &world);
        let mut prohibitions = prohibitions;
        prohibitions.push(more);
        prop_assert!(before.allowed || !decide(&under(strategy, document(&permissions, &prohibitions)), &world).allowed);
    }

    /// S33: from the strictest to the most generous, and the silent one is as strict as the one that prohibits.
    #[test]
    fn a_strategy_is_as_generous_as_its_place((permissions, prohibitions) in rules(), world in world()) {
        let allowed = |strategy| decide(&under(strategy, document(&permissions, &prohibitions)), &world).allowed;
        prop_assert_eq!(allowed(None), allowed(Some("prohibit")));
        prop_assert!(!allowed(Some("invalid")) || allowed(Some("prohibit")));
        prop_assert!(!allowed(Some("prohibit")) || allowed(Some("perm")));
    }

    /// S33: what is void is void at every time, for every use and for whoever asks.
    #[test]
    fn a_policy_is_void_only_where_a_permission_and_a_prohibition_can_hold_together((permissions, prohibitions) in rules(), world in world()) {
        let policy = parse(&under(Some("invalid"), document(&permissions, &prohibitions))).unwrap();
        let void = unenforceable(&policy, &Capabilities::all()).iter().any(|problem| problem.path == "conflict");
        let rules = report(&policy, &request(), &world).rules;
        let active = |kind: RuleKind| rules.iter().any(|rule| rule.kind == kind && rule.activation == Activation::Active);
        prop_assert!(void || !(active(RuleKind::Permission) && active(RuleKind::Prohibition)));
    }

    /// S3.
    #[test]
    fn narrowing_a_permission_never_widens((permissions, prohibitions) in rules(), more in constraint(), world in world()) {
        let before = decide(&document(&permissions, &prohibitions), &world);
        let narrowed: Vec<Value> = permissions
            .into_iter()
            .map(|mut rule| {
                rule["constraint"].as_array_mut().unwrap().push(more.clone());
                rule
            })
            .collect();
        prop_assert!(before.allowed || !decide(&document(&narrowed, &prohibitions), &world).allowed);
    }

    /// S4.
    #[test]
    fn knowing_less_never_allows_more((permissions, _) in rules(), world in world()) {
        let document = document(&permissions, &[]);
        let blind = World { agreed_at: None, uses: None, facts: Facts::default(), ..world.clone() };
        prop_assert!(!decide(&document, &blind).allowed || decide(&document, &world).allowed);
    }

    /// S35.
    #[test]
    fn a_sequence_asks_for_all_of_its_conditions_and_more(of in prop::collection::vec(constraint(), 1..4), world in world()) {
        let under = |operand: &str| document(&[json!({"action": "use", "constraint": [{operand: of}]})], &[]);
        prop_assert!(!decide(&under("andSequence"), &world).allowed || decide(&under("and"), &world).allowed);
        // Known not to be all is known to be no sequence.
        let unless = |operand: &str| document(&[json!({"action": "use"})], &[json!({"action": "use", "constraint": [{operand: of}]})]);
        prop_assert!(!decide(&unless("and"), &world).allowed || decide(&unless("andSequence"), &world).allowed);
    }

    /// S37: an infringement allows nothing, and remedies that are done take away no more than it did; against brute force.
    #[test]
    fn an_infringement_never_turns_deny_into_allow((permissions, mut prohibitions) in rules(), world in world(), strategy in strategy(), ends in prop::option::of(0..12_i64), done in prop::option::of(prop::option::of(0..12_i64))) {
        for rule in &mut prohibitions {
            rule["remedy"] = json!([{"action": "compensate"}]);
        }
        let policy = parse(&under(strategy, document(&permissions, &prohibitions))).unwrap();
        let mut infringed = world.clone();
        for rule in &policy.rules {
            for remedy in rule.duties.iter().filter_map(|remedy| remedy.term.as_ref()) {
                if let Some(until) = done {
                    let until = until.map(instant);
                    infringed.duties.insert(remedy.key.clone(), Standing { state: DutyState::Fulfilled, until });
                }
            }
            if let Some(key) = &rule.infringement {
                infringed.duties.insert(key.clone(), Standing { state: DutyState::Violated, until: ends.map(instant) });
            }
        }
        let at = |world: &World, now: Timestamp| evaluate(&policy, &request(), &World { now, ..world.clone() }).allowed;
        let stands = |now: Timestamp| {
            let lapsed = ends.is_some_and(|ends| instant(ends) <= now);
            let good = done.is_some_and(|until| until.is_none_or(|until| now < instant(until)));
            !prohibitions.is_empty() && !lapsed && !good
        };
        let decision = evaluate(&policy, &request(), &infringed);
        prop_assert_eq!(decision.allowed, at(&world, world.now) && !stands(world.now));
        let nano = SignedDuration::from_nanos(1);
        let mut probes: Vec<Timestamp> =
            (0..30).flat_map(|second| [instant(second) - nano, instant(second), instant(second) + nano]).collect();
        probes.retain(|probe| *probe > world.now);
        let whole = |now: Timestamp| said(&evaluate(&policy, &request(), &World { now, ..infringed.clone() }));
        let turned = probes.into_iter().find(|probe| whole(*probe) != said(&decision));
        prop_assert_eq!(decision.valid_until, turned);
    }

    /// S5 and S16.
    #[test]
    fn order_and_spelling_change_nothing((permissions, prohibitions) in rules(), world in world()) {
        let plain = document(&permissions, &prohibitions);
        for other in [reversed(plain.to_value()), prefixed(plain.to_value()), json!([prefixed(reversed(plain.to_value()))])] {
            let other = match other {
                Value::Array(mut nodes) => nodes.pop().unwrap(),
                other => other,
            };
            let other = PolicyDocument::from_value(other).unwrap();
            let (a, b) = (decide(&plain, &world), decide(&other, &world));
            prop_assert_eq!((a.allowed, a.valid_until, a.uses_max), (b.allowed, b.valid_until, b.uses_max));
            prop_assert_eq!(terms_digest(&parse(&plain).unwrap()), terms_digest(&parse(&other).unwrap()));
            prop_assert_eq!(same_terms(&plain, &other), Ok(()));
        }
    }

    /// S10: against brute force, half a second at a time, and at the nanoseconds on either side.
    #[test]
    fn a_decision_holds_exactly_until_valid_until((document, world) in prop_oneof![unburdened(), burdened()], strategy in strategy()) {
        let document = under(strategy, document);
        let decision = decide(&document, &world);
        let at = |now: Timestamp| said(&decide(&document, &World { now, ..world.clone() }));
        let nano = SignedDuration::from_nanos(1);
        let mut probes: Vec<Timestamp> = (0..60)
            .flat_map(|half| {
                let probe = instant(0) + SignedDuration::from_millis(half * 500);
                [probe - nano, probe, probe + nano]
            })
            .filter(|probe| *probe > world.now)
            .collect();
        probes.sort();
        let turned = probes.into_iter().find(|probe| at(*probe) != said(&decision));
        prop_assert_eq!(decision.valid_until, turned);
    }

    /// S12: against brute force.
    #[test]
    fn uses_max_is_the_last_use_before_a_gap((permissions, prohibitions) in rules(), world in world(), strategy in strategy()) {
        let document = under(strategy, document(&permissions, &prohibitions));
        let decision = decide(&document, &world);
        let at = |uses: u64| decide(&document, &World { uses: Some(uses), ..world.clone() }).allowed;
        let from = if decision.allowed { world.uses.unwrap_or(1) } else { 1 };
        let denied = (from..20).find(|uses| !at(*uses));
        match decision.uses_max {
            Some(max) => prop_assert_eq!(Some(max + 1), denied),
            // No limit: every further use has the answer of the first one.
            None => prop_assert!(denied.is_none() || denied == Some(from)),
        }
    }

    /// S13.
    #[test]
    fn a_decision_always_gives_its_reasons((permissions, prohibitions) in rules(), world in world(), strategy in strategy()) {
        prop_assert!(!decide(&under(strategy, document(&permissions, &prohibitions)), &world).reasons.is_empty());
    }

    /// S13: the report and the decision are of one mind.
    #[test]
    fn what_is_reported_active_is_what_decides((permissions, prohibitions) in rules(), world in world(), strategy in strategy()) {
        let policy = parse(&under(strategy, document(&permissions, &prohibitions))).unwrap();
        let rules = report(&policy, &request(), &world).rules;
        let all = |kind: RuleKind| rules.iter().filter(move |rule| rule.kind == kind).map(|rule| rule.activation);
        let void = unenforceable(&policy, &Capabilities::all()).iter().any(|problem| problem.path == "conflict");
        let prohibited = all(RuleKind::Prohibition).any(|activation| activation != Activation::Inactive);
        let allowed = all(RuleKind::Permission).any(|activation| activation == Activation::Active)
            && (!prohibited || strategy == Some("perm"))
            && !void;
        let decision = evaluate(&policy, &request(), &world);
        prop_assert_eq!(decision.allowed, allowed);
        let verdict = Prepared::new(policy).decide(&request(), &world);
        prop_assert_eq!((verdict.allowed, verdict.valid_until, verdict.uses_max), (decision.allowed, decision.valid_until, decision.uses_max));
    }

    /// S27: an obligation takes away, and is reported where it is borne; it and the decision are of one mind.
    #[test]
    fn an_obligation_never_turns_deny_into_allow((document, world) in burdened()) {
        let policy = parse(&document).unwrap();
        let (free, bound): (Vec<_>, Vec<_>) = policy.rules.iter().cloned().partition(|rule| rule.kind != RuleKind::Obligation);
        let without = evaluate(&Policy { rules: free, ..policy.clone() }, &request(), &world);
        let with = evaluate(&policy, &request(), &world);
        let rules = report(&policy, &request(), &world).rules;
        let reported = rules.iter().filter(|rule| rule.kind == RuleKind::Obligation);
        let mut borne = bound.iter().zip(reported).filter(|(_, reported)| reported.activation != Activation::Inactive);
        let stands = borne.clone().all(|(duty, reported)| {
            let consequences = duty.duties.iter().all(|duty| {
                let standing = world.duties.get(&duty.term.as_ref().unwrap().key);
                let standing = standing.filter(|standing| standing.until.is_none_or(|until| world.now < until));
                standing.is_some_and(|standing| matches!(standing.state, DutyState::Fulfilled | DutyState::Late))
            });
            match reported.state.unwrap() {
                DutyState::Fulfilled => true,
                DutyState::Pending => duty.term.as_ref().unwrap().when != When::Before,
                DutyState::Late => consequences,
                DutyState::Violated => false,
            }
        });
        prop_assert_eq!(with.allowed, without.allowed && stands);
        let told = borne.all(|(duty, _)| {
            let key = &duty.term.as_ref().unwrap().key;
            !with.allowed || duty.action != "delete" || with.duties.iter().any(|due| due.key == *key)
        });
        prop_assert!(told);
    }

    /// S34: what is inherited is what would have been written.
    #[test]
    fn inheriting_is_writing_the_rules_down((permissions, prohibitions) in rules(), (more, less) in rules(), strategy in strategy()) {
        let parent = under(strategy, document(&more, &less));
        let child = under(strategy, document(&permissions, &prohibitions)).with("inheritFrom", "urn:parent");
        let found = inherit(&child, &|id| (id == "urn:parent").then(|| parent.clone())).unwrap();
        let whole = under(strategy, document(&[permissions, more].concat(), &[prohibitions, less].concat()));
        prop_assert_eq!(same_terms(&whole, &found), Ok(()));
    }

    /// S34: it is total.
    #[test]
    fn inheriting_is_total(text in "\\PC{0,20}", key in prop::sample::select(vec!["permission", "action", "inheritFrom", "target", "profile", "conflict", "@context"])) {
        for value in [json!(text), json!([text]), json!({text.as_str(): text}), json!({"@id": text}), json!(null), json!(1.5)] {
            let parent = PolicyDocument::from_value(json!({"permission": [{"action": "use"}], key: value})).unwrap();
            let child = parent.clone().with("inheritFrom", "urn:parent");
            let _ = inherit(&child, &|_| Some(parent.clone())).map(|found| parse(&found));
        }
    }

    /// S18.
    #[test]
    fn parsing_is_total(text in "\\PC{0,40}", key in prop::sample::select(vec!["permission", "action", "@type", "target", "profile"])) {
        for value in [json!(text), json!([text]), json!({text.as_str(): text}), json!({"@id": text}), json!(null), json!(1.5)] {
            let document = PolicyDocument::from_value(json!({"permission": [{"action": "use"}], key: value})).unwrap();
            let _ = parse(&document).map(|policy| terms_digest(&policy));
        }
    }

    /// S19.
    #[test]
    fn what_is_compared_as_narrower_allows_nothing_more((permissions, prohibitions) in rules(), more in rule(), world in world(), ours in strategy(), theirs in strategy()) {
        let offered = under(ours, document(&permissions, &prohibitions));
        let mut fewer = permissions.clone();
        fewer.truncate(1);
        fewer[0]["constraint"].as_array_mut().unwrap().extend(more["constraint"].as_array().unwrap().clone());
        let requests = [
            (ours, document(&fewer, &prohibitions)),
            (ours, document(std::slice::from_ref(&more), &prohibitions)),
            (ours, document(&permissions, &[more])),
            (theirs, document(&permissions, &prohibitions)),
            (theirs, document(&permissions, &[])),
        ];
        for (strategy, requested) in requests {
            let requested = under(strategy, requested);
            let relation = compare(&parse(&offered).unwrap(), &parse(&requested).unwrap());
            if matches!(relation, Relation::Equal | Relation::Narrower) {
                prop_assert!(!decide(&requested, &world).allowed || decide(&offered, &world).allowed);
            }
            if matches!(relation, Relation::Equal | Relation::Wider(_)) {
                prop_assert!(!decide(&offered, &world).allowed || decide(&requested, &world).allowed);
            }
        }
    }

    /// S19, S29: nor does it ask to bear less, or to do less.
    #[test]
    fn what_is_compared_as_narrower_is_borne_no_lighter((offered, world) in burdened(), kept in prop::collection::vec(any::<bool>(), 4), more in rule()) {
        let permissions = offered.to_value()["permission"].as_array().unwrap().clone();
        let mut fewer: Vec<Value> = permissions.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(rule, _)| rule.clone()).collect();
        let mut requests = vec![fewer.clone()];
        if let Some(first) = fewer.first_mut() {
            first["constraint"].as_array_mut().unwrap().extend(more["constraint"].as_array().unwrap().clone());
            requests.push(fewer);
        }
        for permissions in requests {
            let mut requested = offered.to_value();
            requested["permission"] = json!(permissions);
            let requested = PolicyDocument::from_value(requested).unwrap();
            let Ok(policy) = parse(&requested) else { continue };
            if !matches!(compare(&parse(&offered).unwrap(), &policy), Relation::Equal | Relation::Narrower) {
                continue;
            }
            let (ours, theirs) = (decide(&offered, &world), decide(&requested, &world));
            prop_assert!(!theirs.allowed || ours.allowed);
            if theirs.allowed {
                prop_assert_eq!(&theirs.terms.clone().stricter(ours.terms), &theirs.terms);
                let has = |key: &DutyKey| theirs.duties.iter().any(|due| due.key == *key);
                prop_assert!(ours.duties.iter().all(|due| has(&due.key)));
            }
        }
    }
}
