//! What the shell must do after a step. Values only: no closures, no handles.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::negotiation::Agreement;

/// One thing to do, in the order given, committed together with the state it belongs to.
/// `M` is the alphabet of the machine that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<M> {
    /// Put the message into the outbox. The move is *made* when it is delivered.
    Send(Outgoing<M>),
    /// Take a superseded message out of the outbox, if it still waits there.
    Cancel(MessageId),
    /// The message arrived, whether or not the peer's answer to it did: what the peer said presupposes it. Take it out of
    /// the outbox; its receipt, if it comes, changes nothing.
    Arrived(MessageId),
    /// Keep the agreement. Repeated for the same agreement: changes nothing.
    StoreAgreement(Box<Agreement>),
    /// Let bytes flow for this transfer: open the grant (provider) or start the pull (consumer).
    StartFlow,
    /// Stop the flow at once, visibly, for this reason.
    StopFlow(StopReason),
    /// Call again with `Input::Due` at this time. A later one replaces an earlier one.
    WakeAt(Timestamp),
    /// Append to the audit log.
    Record(Record),
}

/// A message on its way to the counterparty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<M> {
    /// Its identifier; retries carry the same one.
    pub id: MessageId,
    /// What it says.
    pub message: M,
}

/// Why a flow stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Suspended by either side; may resume.
    Suspended,
    /// Terminated by either side.
    Terminated,
    /// The transfer completed.
    Completed,
}

/// A line of the audit log: what happened, in words that an operator understands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Stable name, such as `negotiation.agreed`.
    pub event: String,
    /// One sentence.
    pub detail: String,
}

impl Record {
    /// A line.
    #[must_use]
    pub fn new(event: &str, detail: impl Into<String>) -> Self {
        Self { event: event.to_owned(), detail: detail.into() }
    }
}
