//! The contracts of the IDS, each class of usage control with any bytes of its template replaced: reading, deciding and
//! planning are total, and what is understood reads the same however often it is written.

#![no_main]

use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::class::CLASSES;
use kontor_core::policy::{Capabilities, Request, World, evaluate, explain, parse, plan, terms_digest};
use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, edits)) = bytes.split_first() else { return };
    let class = CLASSES[usize::from(*which) % CLASSES.len()];
    let mut text = class.ids.as_bytes().to_vec();
    if text.is_empty() {
        return;
    }
    // Three bytes an edit: where, and what instead.
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % text.len();
        text[at] = edit[2];
    }
    let Ok(document) = serde_json::from_slice::<PolicyDocument>(&text) else { return };
    let Ok(policy) = parse(&document) else {
        assert!(edits.len() >= 3, "the template of class {} is not read", class.number);
        return;
    };
    let short = PolicyDocument::from_value(compact(document.to_value())).expect("a policy is an object");
    assert_eq!(terms_digest(&policy), terms_digest(&parse(&short).expect("the compact form is the same policy")));
    if edits.len() < 3 {
        let odrl = parse(&class.document().expect("a template")).expect("a template");
        assert_eq!(terms_digest(&policy), terms_digest(&odrl), "class {} means two things", class.number);
    }
    let request = Request {
        action: "use".to_owned(),
        assignee: ParticipantId::parse("did:web:consumer.example").expect("an identifier"),
        target: None,
    };
    let now = Timestamp::from_second(1_900_000_000).expect("a time");
    let world = World { now, agreed_at: Some(now), uses: Some(1), ..World::default() };
    let _ = (evaluate(&policy, &request, &world), plan(&policy, &Capabilities::all()), explain(&policy));
});
