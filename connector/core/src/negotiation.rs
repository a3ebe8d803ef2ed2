//! The contract negotiation of DSP 2025-1: both roles, as one pure machine.
//!
//! [`Negotiation::step`] takes an [`Input`] and [`Facts`] and gives the next state with its
//! effects, or a refusal with its reason. Our own moves are first *intended* (the message is in
//! the outbox, the state unchanged) and *made* when the message was delivered.
//!
//! Spec: DSP 2025-1, Contract Negotiation Protocol.

pub mod message;
pub mod state;
mod step;
mod table;

pub use message::{Agreement, Message, Offer, OfferKind, Related};
pub use state::{Ended, Negotiation, Pending, ROUNDS_MAX, Role, State, StateName};
pub use step::{Command, Facts, Failure, Input, Outcome, Received, agreement_from};
pub use table::{MessageName, next_state};
