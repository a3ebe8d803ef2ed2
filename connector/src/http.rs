//! The HTTP faces: parse, call control, answer. No business rules.
//!
//! * [`dsp`]: the Dataspace Protocol for other connectors, with its own error bodies.
//! * [`initiation`]: "begin now" for conformance kits, in the profile `insecure` alone.
//! * [`management`]: the operator's API, errors as RFC 9457 problems.

pub mod dsp;
pub mod initiation;
pub mod management;
