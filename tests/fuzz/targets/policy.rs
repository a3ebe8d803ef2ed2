//! Any bytes as a policy document: reading, deciding, planning and comparing are total, and what was read once reads
//! the same again.

#![no_main]

use jiff::{SignedDuration, Timestamp};
use kontor_core::id::ParticipantId;
use kontor_core::policy::{
    Capabilities, Decision, Relation, Request, World, compare, could_allow, evaluate, explain, first_allowed, parse,
    plan, report, terms_digest, unenforceable,
};
use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice::<PolicyDocument>(bytes) else { return };
    let text = serde_json::to_string(&document).expect("JSON is written");
    let again: PolicyDocument = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(document, again, "a document that travels stays what it is");

    let short = compact(document.to_value());
    assert_eq!(compact(short.clone()), short, "compacting twice changes nothing more");

    let policy = match parse(&document) {
        Ok(policy) => policy,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            return;
        }
    };
    let short = PolicyDocument::from_value(short).expect("a policy is an object");
    let read_again = parse(&short).expect("the compact form is the same policy");
    assert_eq!(terms_digest(&policy), terms_digest(&read_again));
    assert_eq!(policy, read_again);

    let all = Capabilities::all();
    let _ = (plan(&policy, &all), explain(&policy), unenforceable(&policy, &all));
    assert!(!matches!(compare(&policy, &policy), Relation::Wider(_) | Relation::Narrower | Relation::Conflict(_)));

    let request = Request {
        action: "use".to_owned(),
        assignee: ParticipantId::parse("urn:me").expect("an identifier"),
        target: Some("urn:data:1".to_owned()),
    };
    let now = Timestamp::from_second(1_900_000_000).expect("a time");
    let world = World { now, agreed_at: Some(now), uses: Some(1), ..World::default() };
    let _ = (report(&policy, &request, &world), first_allowed(&policy, &request, &world));
    let _ = could_allow(&policy, &request, &world);
    let decision = evaluate(&policy, &request, &world);
    if let Some(until) = decision.valid_until {
        assert!(until > now, "a decision holds at least now");
        let said = |decision: &Decision| {
            let duties: Vec<_> = decision.duties.iter().map(|due| (due.key.clone(), due.state)).collect();
            (decision.allowed, decision.allowed.then(|| decision.terms.clone()), duties)
        };
        let at = |now: Timestamp| said(&evaluate(&policy, &request, &World { now, ..world.clone() }));
        // What has more burdens than are compared in good time may end where nothing turns.
        if policy.rules.len() < 8 {
            assert_ne!(at(until), said(&decision), "it turns at its end");
        }
        if let Ok(before) = until.checked_sub(SignedDuration::from_nanos(1)) {
            assert_eq!(at(before), said(&decision), "and not before");
        }
    }
});
