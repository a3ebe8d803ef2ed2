//! The command line, as documentation.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Kontor: a data-space connector. It offers data under usage policies, negotiates contracts with
/// other connectors (Dataspace Protocol 2025-1), and enforces them in the byte stream.
///
/// New here? `kontor demo` shows a whole data space on this machine in under a minute.
#[derive(Debug, Parser)]
#[command(name = "kontor", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the connector until it is told to stop (Ctrl-C or SIGTERM).
    Serve {
        /// The settings, TOML. The environment overrides single keys: KONTOR__PROTOCOL__LISTEN.
        #[arg(long, short, value_name = "FILE", default_value = "kontor.toml")]
        config: PathBuf,
    },
    /// Check settings, certificates, folders and store without listening; print what was found.
    Check {
        /// The settings, TOML.
        #[arg(long, short, value_name = "FILE", default_value = "kontor.toml")]
        config: PathBuf,
    },
    /// Run a data space on this machine: broker, provider and consumer, real data, real
    /// certificates; then show that the policy is enforced. Everything is thrown away after.
    Demo {
        /// Offer this file or folder instead of the generated sample data.
        #[arg(long, value_name = "PATH")]
        data: Option<PathBuf>,
        /// Leave everything running, with addresses, credentials and next commands to try.
        #[arg(long)]
        keep: bool,
        /// Where the broker's program is. Default: beside this program, built if missing.
        #[arg(long, value_name = "FILE")]
        broker: Option<PathBuf>,
    },
    /// Make throw-away certificates: an authority, and participants under it.
    Pki {
        /// What to make.
        #[command(subcommand)]
        command: Pki,
    },
}

/// Throw-away certificates.
#[derive(Debug, Subcommand)]
pub enum Pki {
    /// Make a certificate authority: `ca.pem` and `ca.key`.
    Authority {
        /// Folder to write to; created when missing.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The authority's name.
        #[arg(long, default_value = "Kontor throw-away authority")]
        name: String,
    },
    /// Make a participant's certificate and key under the authority in the same folder.
    Participant {
        /// Folder with `ca.pem` and `ca.key`.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The participant's URI, such as `did:web:provider.example` or `urn:example:provider`.
        #[arg(long, value_name = "URI")]
        participant: String,
        /// File name without ending: NAME.pem and NAME.key.
        #[arg(long)]
        name: String,
        /// Host names and addresses that the certificate is for. Repeat for several.
        #[arg(long = "host", default_values_t = [String::from("localhost"), String::from("127.0.0.1")])]
        hosts: Vec<String>,
        /// How long it is valid, in days.
        #[arg(long, default_value_t = 90)]
        days: i64,
    },
}
