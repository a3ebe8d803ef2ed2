//! The program `kontor`.

use std::process::ExitCode;

use clap::Parser;
use kontor::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Serve { config, stop_with_stdin } => kontor::app::serve(&config, stop_with_stdin).map(done),
        Command::Check { config } => kontor::app::check(&config).map(done),
        Command::Demo { data, keep, broker } => {
            kontor::demo::run(kontor::demo::Options { data, keep, broker }).map(done)
        }
        Command::Policy { command } => kontor::policy::command::run(command),
        Command::Pki { command } => kontor::app::pki(command).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kontor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
