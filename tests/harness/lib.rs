//! Data spaces of real processes for stories, suites and load: throw-away keys, port 0, loopback.
//!
//! * [`programs`]: finds the built programs, and builds them once where they are missing.
//! * [`space`]: a folder with an authority, a broker if wanted, and participants.
//! * [`participant`]: one running connector, with its management API as typed helpers.
//! * [`peer`]: a peer that the test plays itself, to say and to answer what no connector would.
//! * [`terms`]: policies and protocol messages.
//!
//! The harness panics where anything is not as a story says: its callers are tests.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails loudly")]

pub mod participant;
pub mod peer;
pub mod programs;
pub mod space;
pub mod terms;

pub use participant::{Answer, Participant};
pub use peer::{FakePeer, Recorded, Reply};
pub use space::{DataSpace, Options};
