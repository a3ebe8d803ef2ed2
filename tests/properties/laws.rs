use jiff::{SignedDuration, Timestamp};
use kontor_core::policy::{Decision, Facts, Request, World, evaluate, parse, terms_digest};
use kontor_vocab::odrl::PolicyDocument;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value, json};

use super::generate::{self, Choices};
use super::reference;

/// A policy, what is asked of it, and the state of the world.
fn case() -> impl Strategy<Value = (Value, Request, World)> {
    prop::collection::vec(any::<u8>(), 0..220).prop_map(|bytes| generate::case(&bytes))
}

fn decide(policy: &Value, request: &Request, world: &World) -> Decision {
    evaluate(&parse(&document(policy)).unwrap(), request, world)
}

fn document(policy: &Value) -> PolicyDocument {
    PolicyDocument::from_value(policy.clone()).unwrap()
}

/// The same policy in another order, with other names for what needs none. Only a sequence has an order.
fn renamed(value: &Value, sequence: bool, choices: &mut Choices<'_>) -> Value {
    match value {
        Value::Array(all) => {
            let mut all: Vec<Value> = all.iter().map(|one| renamed(one, false, choices)).collect();
            (1..all.len()).for_each(|at| all.swap(at, if sequence { at } else { choices.below(at + 1) }));
            Value::Array(all)
        }
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members
                .iter()
                .map(|(name, value)| (name.clone(), renamed(value, name == "andSequence", choices)))
                .collect();
            (1..members.len()).for_each(|at| members.swap(at, choices.below(at + 1)));
            let mut node: Map<String, Value> = members.into_iter().collect();
            if choices.once_in(2) && !node.contains_key("@id") {
                node.insert("@id".to_owned(), json!(format!("_:b{}", choices.below(256))));
            }
            Value::Object(node)
        }
        other => other.clone(),
    }
}

/// The same policy with one action, target and assignee in each rule.
fn atomised(policy: &Value) -> Value {
    let mut whole = policy.clone();
    let common = |member: &str| policy.get(member).cloned();
    for member in ["permission", "prohibition", "obligation"] {
        let Some(rules) = policy.get(member).and_then(Value::as_array) else { continue };
        let mut rules: Vec<Value> = rules.clone();
        for part in ["action", "target", "assignee"] {
            rules = rules
                .into_iter()
                .flat_map(|rule| match rule.get(part).cloned().or_else(|| common(part)) {
                    None => vec![rule],
                    Some(Value::Array(all)) => all.into_iter().map(|one| with(&rule, part, one)).collect(),
                    Some(one) => vec![with(&rule, part, one)],
                })
                .collect();
        }
        whole[member] = json!(rules);
    }
    ["action", "target", "assignee"].iter().for_each(|part| drop(whole.as_object_mut().unwrap().shift_remove(*part)));
    whole
}

fn with(node: &Value, member: &str, value: Value) -> Value {
    let mut node = node.clone();
    node[member] = value;
    node
}

/// Every world of which less is known than of this one, by one fact. That a duty was violated is no knowledge that
/// allows, so duties stay.
fn blinder(world: &World) -> Vec<World> {
    let mut worlds = vec![
        World { agreed_at: None, ..world.clone() },
        World { uses: None, ..world.clone() },
        World { bytes: None, ..world.clone() },
        World { records: None, ..world.clone() },
    ];
    for (operand, _) in world.facts.iter() {
        let mut facts = Facts::default();
        for (name, fact) in world.facts.iter().filter(|(other, _)| *other != operand) {
            match (fact.since, fact.until) {
                (Some(since), until) => facts.insert_since(name, fact.value.clone(), since, until),
                (None, Some(until)) => facts.insert_until(name, fact.value.clone(), until),
                (None, None) => facts.insert(name, fact.value.clone()),
            }
        }
        worlds.push(World { facts, ..world.clone() });
    }
    worlds
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// S1 to S6, S8, S9, S11, S14, S33, S35.
    #[test]
    fn the_engine_decides_as_the_reference_does((policy, request, world) in case()) {
        let decision = decide(&policy, &request, &world);
        prop_assert_eq!(decision.allowed, reference::allowed(&policy, &request, &world, generate::keys()), "{:#}", policy);
    }

    /// S10.
    #[test]
    fn a_decision_ends_when_the_reference_changes_its_mind((policy, request, world) in case()) {
        let decision = decide(&policy, &request, &world);
        let turns = reference::turns_at(&decision, |now| decide(&policy, &request, &World { now, ..world.clone() }));
        let reference = reference::valid_until(&policy, &request, &world, generate::keys());
        prop_assert_eq!(turns, Ok(reference), "{:#}", policy);
    }

    /// S12.
    #[test]
    fn uses_end_when_the_reference_denies_one((policy, request, world) in case()) {
        let decision = decide(&policy, &request, &world);
        let uses_max = reference::uses_max(&policy, &request, &world, generate::keys());
        // What is denied whatever the count is not limited by it.
        let by_count = decision.allowed || uses_max != Some(0) || decision.uses_max.is_some();
        prop_assert_eq!(decision.uses_max, uses_max.filter(|_| by_count), "{:#}", policy);
    }

    /// S5 and S16: neither order nor names of nodes mean anything.
    #[test]
    fn renaming_and_reordering_change_nothing((policy, request, world) in case(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let other = renamed(&policy, false, &mut Choices(&bytes));
        let (a, b) = (decide(&policy, &request, &world), decide(&other, &request, &world));
        prop_assert_eq!((a.allowed, a.valid_until, a.uses_max), (b.allowed, b.valid_until, b.uses_max));
        let digest = |policy: &Value| terms_digest(&parse(&document(policy)).unwrap());
        prop_assert_eq!(digest(&policy), digest(&other));
    }

    /// S15.
    #[test]
    fn a_compact_policy_means_what_its_atoms_do((policy, request, world) in case()) {
        let (a, b) = (decide(&policy, &request, &world), decide(&atomised(&policy), &request, &world));
        prop_assert_eq!((a.allowed, a.valid_until, a.uses_max), (b.allowed, b.valid_until, b.uses_max));
    }

    /// S10: in the middle of a stream nothing is decided that was not decided at its start.
    #[test]
    fn a_decision_in_the_stream_is_the_one_at_its_start((policy, request, world) in case(), later in 1..20_000_i64) {
        let start = decide(&policy, &request, &world);
        let now = world.now.checked_add(SignedDuration::from_millis(later)).unwrap();
        if start.valid_until.is_none_or(|until| now < until) {
            let inside = decide(&policy, &request, &World { now, ..world });
            prop_assert_eq!((start.allowed, start.valid_until), (inside.allowed, inside.valid_until));
        }
    }

    /// S4.
    #[test]
    fn knowing_less_never_allows_more((policy, request, world) in case()) {
        let knowing = decide(&policy, &request, &world).allowed;
        for blind in blinder(&world) {
            prop_assert!(knowing || !decide(&policy, &request, &blind).allowed);
        }
    }
}

/// The generator reaches what it is for: without this, laws could hold because nothing is ever allowed.
#[test]
fn generated_cases_are_allowed_and_denied_and_end() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut allowed, mut ends, mut counted) = (0, 0, 0);
    for _ in 0..1_000 {
        let (policy, request, world) = case().new_tree(&mut runner).unwrap().current();
        let decision = decide(&policy, &request, &world);
        allowed += usize::from(decision.allowed);
        ends += usize::from(decision.valid_until.is_some_and(|until| until > Timestamp::UNIX_EPOCH));
        counted += usize::from(decision.uses_max.is_some_and(|uses| uses > 0));
    }
    assert!(
        allowed > 200 && allowed < 800 && ends > 30 && counted > 4,
        "{allowed} allowed, {ends} end, {counted} counted"
    );
}
