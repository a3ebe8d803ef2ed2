//! The transfer process of DSP 2025-1: both roles, as one pure machine.
//!
//! The shape is that of [`crate::negotiation`]: [`Transfer::step`] takes an input and facts, and
//! gives the next state with its effects, or a refusal.
//!
//! Both sides may move while data flows, so messages cross. Both order them alike: termination
//! before completion before the provider's suspension before the consumer's. The side whose
//! message wins asks the other to wait (`Fault::Unavailable`: try again), the side whose message
//! loses takes the other's and cancels its own. DSP numbers no messages, so a *cancelled*
//! suspension that arrives after the transfer was resumed reads like a new one: whoever carries
//! messages must close the connection that carries what was cancelled.
//!
//! Spec: DSP 2025-1, Transfer Process Protocol.

pub mod message;
pub mod state;
mod step;
mod table;

pub use message::{DataAddress, Message};
pub use state::{Pending, State, StateName, Transfer};
pub use step::{Begin, Command, Facts, Failure, Input, Outcome, Received, SEEN_MAX};
pub use table::{MessageName, next_state};
