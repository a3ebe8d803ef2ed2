//! `cargo conformance`: the public conformance kits, run against the built program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod dsp;

/// Runs a public conformance kit against the built `kontor`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    kit: Kit,
}

#[derive(Debug, Subcommand)]
enum Kit {
    /// The Eclipse DSP kit (Dataspace Protocol 2025-1), provider and consumer.
    Dsp(dsp::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { kit: Kit::Dsp(options) } = Cli::parse();
    match dsp::run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kontor-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}
