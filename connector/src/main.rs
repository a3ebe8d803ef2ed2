//! The program `kontor`.

use std::process::ExitCode;

use clap::Parser;
use kontor::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve { config } => kontor::app::serve(&config),
        Command::Check { config } => kontor::app::check(&config),
        Command::Demo { data, keep, broker } => kontor::demo::run(kontor::demo::Options { data, keep, broker }),
        Command::Pki { command } => kontor::app::pki(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kontor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
