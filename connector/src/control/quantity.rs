//! Quantities that an agreement limits: taken durably in parts, before the bytes and records leave.

use kontor_core::id::AgreementId;
use kontor_core::refusal::Refusal;

use super::Control;
use super::error::ControlError;
use crate::data::quota::{Amount, Reserve};
use crate::store::{Batch, StoreError, TakeQuantity, Unit};

/// How often a part is asked for anew because another flow was faster.
const RACES_MAX: usize = 64;

impl Control {
    /// Answers a flow that asks for more of what its agreement limits.
    pub(super) async fn quantity_asked(&self, question: Reserve) {
        let answer = self.take_quantity(&question).await.map_err(|error| -> Refusal { error.refusal() });
        let _ = question.reply.send(answer);
    }

    /// As much as is left, at most what is asked for: on disk when this answers.
    async fn take_quantity(&self, question: &Reserve) -> Result<Amount, ControlError> {
        for _ in 0..RACES_MAX {
            let bytes = self.left(&question.agreement, Unit::Bytes, question.bytes_max, question.more.bytes).await?;
            let records =
                self.left(&question.agreement, Unit::Records, question.records_max, question.more.records).await?;
            let take = |unit, held: u64, given: u64, max| {
                (given > 0).then(|| TakeQuantity {
                    agreement: question.agreement.clone(),
                    unit,
                    name: question.flow.clone(),
                    amount: held.saturating_add(given),
                    max,
                })
            };
            let takes = [
                take(Unit::Bytes, question.held.bytes, bytes, question.bytes_max),
                take(Unit::Records, question.held.records, records, question.records_max),
            ];
            let take_quantities: Vec<_> = takes.into_iter().flatten().collect();
            if take_quantities.is_empty() {
                return Ok(Amount::default());
            }
            match self.parts.store.commit(Batch { now: self.now(), take_quantities, ..Batch::default() }).await {
                Ok(_) => return Ok(Amount { bytes, records }),
                Err(StoreError::QuantityExhausted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ControlError::Busy)
    }

    async fn left(
        &self,
        agreement: &AgreementId,
        unit: Unit,
        max: Option<u64>,
        more: u64,
    ) -> Result<u64, ControlError> {
        let Some(max) = max.filter(|_| more > 0) else { return Ok(0) };
        let taken = self.parts.store.quantity_taken(agreement, unit).await?;
        Ok(max.saturating_sub(taken).min(more))
    }

    /// A flow is over: what it took in the end stands in place of what it was given.
    pub(super) async fn quantity_settled(
        &self,
        agreement: AgreementId,
        flow: String,
        bytes: Option<u64>,
        records: Option<u64>,
    ) {
        let settle = |unit, amount: Option<u64>| {
            amount.map(|amount| TakeQuantity {
                agreement: agreement.clone(),
                unit,
                name: flow.clone(),
                amount,
                max: None,
            })
        };
        let settles = [settle(Unit::Bytes, bytes), settle(Unit::Records, records)];
        let batch =
            Batch { now: self.now(), take_quantities: settles.into_iter().flatten().collect(), ..Batch::default() };
        let settled = self.until_taken("what a flow did not use of a quantity", || async {
            self.parts.store.commit(batch.clone()).await.map_err(ControlError::from)
        });
        if let Err(error) = settled.await {
            tracing::error!(flow, %error, "what a flow did not use of a quantity is not given back");
        }
    }
}
