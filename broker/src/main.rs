//! `kontor-broker`: the metadata broker of a data space.

use std::process::ExitCode;

use clap::Parser;
use kontor_broker::app;
use kontor_broker::cli::{Arguments, Command};
use kontor_broker::settings::Settings;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kontor-broker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Check { keys: true, .. } => {
            print!("{}", app::key_reference());
            Ok(())
        }
        Command::Check { config, keys: false } => {
            println!("{}", app::check(&Settings::load(config.as_deref())?)?);
            Ok(())
        }
        Command::Serve { config, stop_with_stdin } => {
            let settings = Settings::load(config.as_deref())?;
            app::start_logging(&settings);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(app::serve(settings, stop_with_stdin))?;
            Ok(())
        }
    }
}
