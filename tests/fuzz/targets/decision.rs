//! The engine against the slow reference, over policies, requests and states of the world made from the bytes.

#![no_main]

use kontor_core::policy::{World, evaluate, parse};
use kontor_vocab::odrl::PolicyDocument;
use libfuzzer_sys::fuzz_target;

#[path = "../../properties/generate.rs"]
mod generate;
#[path = "../../properties/reference.rs"]
mod reference;

fuzz_target!(|bytes: &[u8]| {
    let (policy, request, world) = generate::case(bytes);
    let keys = generate::keys();
    let document = PolicyDocument::from_value(policy.clone()).expect("a policy is an object");
    let parsed = parse(&document).unwrap_or_else(|problems| panic!("{policy:#} {problems:#?}"));
    let decision = evaluate(&parsed, &request, &world);
    let context = || format!("{policy:#} {request:#?} {world:#?} {decision:#?}");
    assert_eq!(decision.allowed, reference::allowed(&policy, &request, &world, keys), "{}", context());
    let turns = reference::turns_at(&decision, |now| evaluate(&parsed, &request, &World { now, ..world.clone() }));
    assert_eq!(turns, Ok(reference::valid_until(&policy, &request, &world, keys)), "{}", context());
    let uses_max = reference::uses_max(&policy, &request, &world, keys);
    // What is denied whatever the count is not limited by it.
    let by_count = decision.allowed || uses_max != Some(0) || decision.uses_max.is_some();
    assert_eq!(decision.uses_max, uses_max.filter(|_| by_count), "{}", context());
});
