//! Rules only: what a connector may say, show and let through, as pure functions.
//!
//! * [`negotiation`] and [`transfer`]: the two protocol machines of DSP 2025-1, both roles.
//! * [`policy`]: ODRL from document to decision.
//! * [`catalog`]: which offers a peer may see, and why.
//! * [`peer`], [`effect`], [`refusal`], [`id`]: the values that cross the border.
//!
//! There is no clock, no randomness, no file and no socket here: facts are handed in as values
//! and effects are handed back as values.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::panic, clippy::wildcard_enum_match_arm))]

pub mod catalog;
pub mod effect;
pub mod id;
pub mod negotiation;
pub mod peer;
pub mod policy;
pub mod refusal;
pub mod transfer;
