//! Any bytes as a message of the Dataspace Protocol: reading is total, and what was read once reads the same again.

#![no_main]

use kontor_vocab::context::compact;
use kontor_vocab::dsp::Message;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let short = compact(value);
    assert_eq!(compact(short.clone()), short, "compacting twice changes nothing more");
    let Ok(message) = serde_json::from_value::<Message>(short) else { return };
    let text = serde_json::to_string(&message).expect("a message is written");
    let again = serde_json::from_str::<Value>(&text).map(compact).expect("what was written is read");
    let again: Message = serde_json::from_value(again).expect("what was written is a message");
    assert_eq!(message, again);
});
