//! `cargo conformance`: the public conformance kits and suites, run against what was built.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod dsp;
mod edc;
mod odrl;
mod tools;

/// Runs a public conformance kit or suite against the built `kontor`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    kit: Kit,
}

#[derive(Debug, Subcommand)]
enum Kit {
    /// The Eclipse DSP kit (Dataspace Protocol 2025-1), provider and consumer.
    Dsp(dsp::Options),
    /// A real Eclipse EDC, provider and consumer, control plane and data plane.
    Edc(edc::Options),
    /// The public ODRL test suite, decisions and reports.
    Odrl(odrl::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().kit {
        Kit::Dsp(options) => dsp::run(&options).await,
        Kit::Edc(options) => edc::run(&options).await,
        Kit::Odrl(options) => odrl::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kontor-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}
