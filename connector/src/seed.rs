//! What a connector of the profile `insecure` may be filled with when it starts: datasets, offers
//! and agreements that nobody negotiated. A connector that anybody may speak to has no others.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kontor_core::catalog::{Audience, PublishedOffer};
use kontor_core::id::{AgreementId, DatasetId, OfferId, ParticipantId, ProcessId};
use kontor_core::negotiation::{Offer, Role, agreement_from};
use kontor_vocab::odrl::PolicyDocument;
use serde::Deserialize;

use crate::control::Control;
use crate::model::{AgreementRecord, AgreementState, DatasetRecord, OfferRecord, SourceSpec};
use crate::store::Batch;

/// The file, JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    #[serde(default)]
    datasets: Vec<SeedDataset>,
    #[serde(default)]
    offers: Vec<SeedOffer>,
    #[serde(default)]
    agreements: Vec<SeedAgreement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedDataset {
    id: DatasetId,
    /// A file below one of the source folders.
    file: String,
    #[serde(default = "any_bytes")]
    media_type: String,
}

fn any_bytes() -> String {
    "application/octet-stream".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedOffer {
    id: OfferId,
    dataset: DatasetId,
    policy: PolicyDocument,
}

/// An agreement in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedAgreement {
    id: AgreementId,
    /// Our side of it.
    role: Role,
    counterparty: String,
    dataset: DatasetId,
    policy: PolicyDocument,
}

/// Puts a file's records into the store. What is there already stays as it is.
///
/// # Errors
/// When the file cannot be read, or a record would be refused from an operator too.
pub async fn plant(control: &Control, file: &Path) -> Result<()> {
    let text = tokio::fs::read(file)
        .await
        .with_context(|| format!("cannot read `{}` (setting `insecure.seed`)", file.display()))?;
    let mut reader = serde_json::Deserializer::from_slice(&text);
    let seed: Seed = serde_path_to_error::deserialize(&mut reader)
        .with_context(|| format!("`{}` is no seed (setting `insecure.seed`)", file.display()))?;
    let now = Timestamp::now();
    for SeedDataset { id, file, media_type } in seed.datasets {
        let source = SourceSpec::File { path: file };
        control.check_source(&source).with_context(|| format!("dataset `{id}`"))?;
        let record = DatasetRecord {
            title: id.to_string(),
            id,
            description: String::new(),
            keywords: Vec::new(),
            media_type,
            source,
            labels: Default::default(),
            created: now,
        };
        control.put_dataset(record).await?;
    }
    for SeedOffer { id, dataset, policy } in seed.offers {
        let offer = PublishedOffer { id, dataset, policy, audience: Audience::Everyone };
        control.put_offer(OfferRecord { offer, created: now }).await?;
    }
    for seeded in seed.agreements {
        agreement(control, seeded, now).await?;
    }
    Ok(())
}

async fn agreement(control: &Control, seeded: SeedAgreement, now: Timestamp) -> Result<()> {
    if control.store().agreement(&seeded.id).await?.is_some() {
        return Ok(());
    }
    let counterparty = ParticipantId::parse_insecure(seeded.counterparty)?;
    let own = control.participant();
    let (provider, consumer) = match seeded.role {
        Role::Provider => (own, &counterparty),
        Role::Consumer => (&counterparty, own),
    };
    let offer = Offer { id: OfferId::parse(seeded.id.as_str())?, target: seeded.dataset, policy: seeded.policy };
    let record = AgreementRecord {
        agreement: agreement_from(&offer, seeded.id.clone(), provider, consumer, now),
        role: seeded.role,
        negotiation: ProcessId::parse(format!("seed:{}", seeded.id))?,
        counterparty,
        state: AgreementState::InForce,
    };
    control.store().commit(Batch { now, agreement: Some(record), ..Batch::default() }).await?;
    Ok(())
}
