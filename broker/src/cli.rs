//! Arguments, as documentation.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The metadata broker of a data space: connectors register what they offer, everybody finds it.
#[derive(Debug, Parser)]
#[command(
    name = "kontor-broker",
    version,
    about,
    after_help = "\
Start here:
  kontor-broker check --config broker.toml    are the settings, keys and folders good?
  kontor-broker serve --config broker.toml    run until Ctrl-C

A settings file needs `participant_id` and the three files under [tls]; everything else has a default:

  participant_id = \"urn:example:broker\"
  data_dir = \"broker-data\"
  [registry]
  listen = \"127.0.0.1:8443\"
  [browse]
  listen = \"127.0.0.1:8080\"
  [tls]
  certificate = \"broker.pem\"
  key = \"broker.key\"
  trust = \"ca.pem\"

`kontor pki` makes keys for trying out. `kontor-broker check --keys` lists every setting."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker until Ctrl-C or SIGTERM; SIGHUP reads the certificates again.
    Serve {
        /// Settings file (TOML). Every key can also be set as KONTOR_BROKER__SECTION__KEY.
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Stop also when the standard input ends: for programs that start this one and must not leave it behind.
        #[arg(long)]
        stop_with_stdin: bool,
    },
    /// Read settings and keys, try the store's folder, say what `serve` would do, and leave everything as it was.
    Check {
        /// Settings file (TOML). Every key can also be set as KONTOR_BROKER__SECTION__KEY.
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// List every setting with its default instead.
        #[arg(long)]
        keys: bool,
    },
}
