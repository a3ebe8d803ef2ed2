//! The connector as a library: what the program `kontor` is made of.
//!
//! * [`control`]: facts in, one step of a machine, one commit, effects out.
//! * [`data`]: bytes from a source to a peer under a permit, and from a peer into a sink.
//! * [`http`]: the Dataspace Protocol for peers, the management API for the operator.
//! * [`policy`]: policies for people: check, explanation, templates.
//! * [`store`], [`model`]: what is kept, and where.
//! * [`seed`]: what the profile `insecure` may be filled with.
//! * [`app`], [`cli`], [`settings`], [`demo`]: the composition root and what leads to it.
//!
//! The architecture tour with its walkthroughs is `connector/README.md`.

pub mod app;
pub mod cli;
pub mod control;
pub mod data;
pub mod demo;
pub mod http;
pub mod model;
pub mod policy;
pub mod seed;
pub mod settings;
pub mod store;
