//! The transfer process of DSP 2025-1: both roles, as one pure machine.
//!
//! The shape is that of [`crate::negotiation`]: [`Transfer::step`] takes an input and facts, and
//! gives the next state with its effects, or a refusal.
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
