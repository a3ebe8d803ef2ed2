//! The Dataspace Protocol on the wire, message by message, against the built program in the profile `insecure`.
//!
//! * [`kit`]: every test of the conformance kit, played from the kit's side.
//! * [`messages`]: all that we send, in both roles, and every example of the specification.
//! * [`shape`]: what the kit demands of a body, and more: no member that the message does not have.
//! * [`schemas`]: the specification's own JSON Schemas and examples, where they are at hand.
//! * [`tolerance`]: what peers may do, and do.
//! * [`peer`]: a peer as the kit is one, with handlers that serve once.
#![expect(clippy::unwrap_used, reason = "tests")]

mod kit;
mod messages;
mod peer;
mod schemas;
#[path = "../conformance/dsp/seed.rs"]
mod seed;
mod shape;
mod tolerance;

use std::path::Path;

use kontor_tests::Participant;
use tempfile::TempDir;

/// A connector over the conformance suite's own data and rules. The folder lives as long as it does.
struct Subject {
    kontor: Participant,
    _folder: TempDir,
}

impl Subject {
    fn start() -> Self {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/dsp/rules.toml");
        let folder = TempDir::with_prefix("kontor-protocol-").unwrap();
        seed::prepare(folder.path(), &rules).unwrap();
        Self { kontor: Participant::insecure(seed::OWN, folder.path()), _folder: folder }
    }
}
