//! How much may leave: taken durably before it leaves, in parts, and given back exactly when a flow is over.
//!
//! `control` keeps the count, one for all transfers of an agreement. A flow asks for a part before it needs it; what it
//! was given and did not use is given back with its end. A crash gives nothing back.

use tokio::sync::{mpsc, oneshot};

use super::DataLimits;
use super::endpoint::FlowEvent;
use super::gate::{GrantSpec, Stop, StopKind};
use kontor_core::id::{AgreementId, ProcessId};
use kontor_core::refusal::Refusal;

/// Bytes and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// What is left could not be found out: nothing may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what the agreement leaves could not be counted now")]
pub struct Uncounted;

/// A flow's question for more.
#[derive(Debug)]
pub struct Reserve {
    /// The transfer, by the provider's identifier.
    pub transfer: ProcessId,
    /// The agreement that is counted for.
    pub agreement: AgreementId,
    /// The flow.
    pub flow: String,
    /// What it was given so far.
    pub held: Amount,
    /// What it asks for; 0 of what is not limited.
    pub more: Amount,
    /// Most bytes of the agreement.
    pub bytes_max: Option<u64>,
    /// Most records of the agreement.
    pub records_max: Option<u64>,
    /// What it is given: as much as is left, at most what it asked for. Durable by then.
    pub reply: oneshot::Sender<Result<Amount, Refusal>>,
}

/// What one flow may still send.
#[derive(Debug)]
pub(crate) struct Quota {
    events: mpsc::Sender<FlowEvent>,
    transfer: ProcessId,
    agreement: AgreementId,
    flow: String,
    bytes_max: Option<u64>,
    records_max: Option<u64>,
    chunk: Amount,
    held: Amount,
    left: Amount,
}

impl Quota {
    /// The quota of a flow, where its grant has one.
    pub(crate) fn of(
        grant: &GrantSpec,
        flow: &str,
        events: &mpsc::Sender<FlowEvent>,
        limits: &DataLimits,
    ) -> Option<Self> {
        let (bytes_max, records_max) = (grant.terms.bytes_max, grant.terms.records_max);
        (bytes_max.is_some() || records_max.is_some()).then(|| Self {
            events: events.clone(),
            transfer: grant.transfer.clone(),
            agreement: grant.agreement.clone(),
            flow: flow.to_owned(),
            bytes_max,
            records_max,
            chunk: Amount { bytes: limits.quota_chunk_bytes.max(1), records: limits.quota_chunk_records.max(1) },
            held: Amount::default(),
            left: Amount::default(),
        })
    }

    /// How many of so many bytes may leave now. Fewer: nothing more is left. `rest` is how many follow at most, these
    /// included, so that no more is taken than the flow can need.
    pub(crate) async fn bytes(&mut self, wanted: u64, rest: u64) -> Result<u64, Uncounted> {
        if self.bytes_max.is_none() {
            return Ok(wanted);
        }
        if self.left.bytes < wanted {
            let missing = wanted - self.left.bytes;
            let bytes = missing.max(self.chunk.bytes.min(rest.saturating_sub(self.left.bytes)));
            self.ask(Amount { bytes, records: 0 }).await?;
        }
        let given = wanted.min(self.left.bytes);
        self.left.bytes -= given;
        Ok(given)
    }

    /// Gets leave for more records; 0: nothing more is left.
    pub(crate) async fn records(&mut self) -> Result<u64, Uncounted> {
        if self.records_max.is_none() {
            return Ok(u64::MAX);
        }
        if self.left.records == 0 {
            self.ask(Amount { bytes: 0, records: self.chunk.records }).await?;
        }
        Ok(std::mem::take(&mut self.left.records))
    }

    /// Finds out whether anything is left, before the first byte.
    pub(crate) async fn begin(&mut self, bytes: u64) -> Result<bool, Uncounted> {
        let wanted = u64::from(bytes > 0);
        let left = self.bytes(wanted, bytes).await?;
        self.left.bytes += left;
        if self.records_max.is_some() {
            let records = self.records().await?;
            self.left.records = records;
            if records == 0 {
                return Ok(false);
            }
        }
        Ok(left == wanted)
    }

    /// Why nothing more may leave.
    pub(crate) fn exhausted(&self) -> Stop {
        let of = |max: Option<u64>, unit| max.map(|max| format!("{max} {unit}"));
        let most: Vec<_> =
            [of(self.bytes_max, "bytes"), of(self.records_max, "records")].into_iter().flatten().collect();
        Stop::new(StopKind::QuotaExhausted, format!("{} in all", most.join(" and ")))
    }

    /// What the flow took in the end, to be told to `control`. It is told also when it took nothing.
    pub(crate) fn settled(&self, taken: Amount) -> FlowEvent {
        let Self { agreement, flow, .. } = self;
        FlowEvent::Settled {
            agreement: agreement.clone(),
            flow: flow.clone(),
            bytes: self.bytes_max.map(|_| taken.bytes),
            records: self.records_max.map(|_| taken.records),
        }
    }

    async fn ask(&mut self, more: Amount) -> Result<(), Uncounted> {
        let (reply, replied) = oneshot::channel();
        let question = Reserve {
            transfer: self.transfer.clone(),
            agreement: self.agreement.clone(),
            flow: self.flow.clone(),
            held: self.held,
            more,
            bytes_max: self.bytes_max,
            records_max: self.records_max,
            reply,
        };
        self.events.send(FlowEvent::Reserve(question)).await.map_err(|_| Uncounted)?;
        let given = replied.await.map_err(|_| Uncounted)?.map_err(|refusal| {
            tracing::warn!(flow = self.flow, %refusal, "no part of a quantity was taken");
            Uncounted
        })?;
        for (held, given) in [
            (&mut self.held.bytes, given.bytes),
            (&mut self.held.records, given.records),
            (&mut self.left.bytes, given.bytes),
            (&mut self.left.records, given.records),
        ] {
            *held = held.saturating_add(given);
        }
        Ok(())
    }
}
