//! `kontor-load`: the load figures, taken over real processes, sockets, certificates and disks,
//! and printed with the settings that they were taken with. It judges nothing: a figure is no test.

mod figures;
mod measure;
mod nginx;
mod peer;
mod space;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures the built programs and prints the figures.
#[derive(Debug, Parser)]
#[command(name = "kontor-load")]
struct Cli {
    /// What to measure.
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// Negotiations with one in flight; with sixteen in flight it is five and a third times as many.
    #[arg(long, default_value_t = 300)]
    negotiations: usize,
    /// Pairs of pulls, ours and nginx's.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything below, one after the other.
    All,
    /// From the API call to FINALIZED on both sides.
    Negotiation,
    /// Catalogue requests, and SPARQL at the broker.
    Catalog,
    /// From the start of a program to its addresses.
    Start,
    /// Resident memory, idle and while 2 GiB flow.
    Memory,
    /// A pull of 1 GiB, beside nginx.
    Throughput,
}

impl What {
    fn covers(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let programs = space::Programs::build()?;
    figures::settings();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(&cli, &programs))
}

async fn run(cli: &Cli, programs: &space::Programs) -> Result<()> {
    // Memory before there was load, and of fresh processes: what other measurements leave behind is not idle memory.
    if cli.what.covers(What::Start) {
        measure::start(programs).await?;
    }
    if cli.what.covers(What::Memory) {
        measure::memory(programs).await?;
    }
    if cli.what.covers(What::Negotiation) {
        measure::negotiation(programs, cli.negotiations).await?;
    }
    if cli.what.covers(What::Catalog) {
        measure::catalog(programs).await?;
    }
    if cli.what.covers(What::Throughput) {
        measure::throughput(programs, cli.rounds).await?;
    }
    Ok(())
}
