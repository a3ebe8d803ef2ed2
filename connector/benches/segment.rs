//! How long it takes to ask whether one more segment may leave: `cargo bench -p kontor`. It judges nothing: a figure
//! is no test.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use kontor::data::{DataLimits, GrantSpec, Grants, Permit};
use kontor::model::{SourceSpec, TokenBinding};
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::peer::{Binding, VerifiedPeer};
use kontor_core::policy::StreamTerms;
use kontor_wire::token::token_digest;

/// How often the whole is measured; the median counts.
const ROUNDS: usize = 101;
/// Checks in one round.
const CHECKS: u32 = 100_000;

fn main() -> Result<()> {
    println!("in the stream, for each segment:");
    figure("a grant without an end", &permit(None)?);
    figure("a grant that ends", &permit(Some(Timestamp::now() + SignedDuration::from_hours(1)))?);
    Ok(())
}

fn figure(name: &str, permit: &Permit) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CHECKS {
                black_box(black_box(permit).over());
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("  {name:<36} median {:>6.1} ns", rounds.get(ROUNDS / 2).copied().unwrap_or(f64::NAN));
}

fn permit(valid_until: Option<Timestamp>) -> Result<Permit> {
    let peer = VerifiedPeer::assert_verified(ParticipantId::parse("urn:consumer")?, Binding::Certificate([1; 32]));
    let transfer = ProcessId::parse("urn:uuid:transfer")?;
    let grants = Grants::new(DataLimits::default());
    grants.open(GrantSpec {
        transfer: transfer.clone(),
        agreement: AgreementId::parse("urn:uuid:agreement")?,
        token_digest: token_digest("token"),
        participant: peer.participant().clone(),
        binding: TokenBinding::from(peer.binding()),
        source: SourceSpec::File { path: "file".to_owned() },
        media_type: String::new(),
        valid_until,
        goes_on: false,
        terms: StreamTerms::default(),
        pseudonyms: None,
    });
    grants.admit(&transfer, Some("token"), Some(&peer), Timestamp::now()).ok().context("the grant is refused")
}
