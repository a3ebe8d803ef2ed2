//! The command line, as documentation.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

/// Kontor: a data-space connector. It offers data under usage policies, negotiates contracts with
/// other connectors (Dataspace Protocol 2025-1), and enforces them in the byte stream.
///
/// New here? `kontor demo` shows a whole data space on this machine in under a minute.
#[derive(Debug, Parser)]
#[command(
    name = "kontor",
    version,
    max_term_width = 100,
    after_help = "\
A connector of your own needs keys and a few settings; everything else has a default:

  kontor pki authority --dir pki
  kontor pki participant --dir pki --participant urn:example:alice --name alice

  participant_id = \"urn:example:alice\"
  data_dir = \"alice\"
  [tls]
  certificate = \"pki/alice.pem\"
  key = \"pki/alice.key\"
  trust = \"pki/ca.pem\"
  [egress]
  allow_networks = [\"127.0.0.0/8\"]    # only to try it out on one machine

  kontor check --config alice.toml    are settings, keys and folders good?
  kontor serve --config alice.toml    run until Ctrl-C"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the connector until it is told to stop (Ctrl-C or SIGTERM). SIGHUP reads the certificates again, which are
    /// also looked at every `tls.reload_seconds`.
    Serve {
        /// The settings, TOML. The environment overrides single keys: KONTOR__PROTOCOL__LISTEN.
        #[arg(long, short, value_name = "FILE", default_value = "kontor.toml")]
        config: PathBuf,
        /// Stop also when the standard input ends: for programs that start this one and must not leave it behind.
        #[arg(long)]
        stop_with_stdin: bool,
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
    /// Check and explain usage policies, and write them from templates. Needs no running connector.
    Policy {
        /// What to do.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Make throw-away certificates: an authority, and participants under it.
    Pki {
        /// What to make.
        #[command(subcommand)]
        command: Pki,
    },
}

/// Usage policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether this connector can hold to a policy: each problem with its line, and what is
    /// enforced when. Exit code 0 where all of it is enforced, 1 where it would be refused.
    Check {
        /// The policy, JSON; `-` reads the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The settings of the connector that is meant, TOML. Default: one with default settings.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// How the answer is written.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Say in plain English what a policy means. With `--assignee` also decide a request under it,
    /// with the reasons; then the exit code is 0 for yes and 1 for no.
    Explain {
        /// The policy, JSON; `-` reads the standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The request to decide.
        #[command(flatten)]
        ask: Ask,
        /// The settings of the connector that is meant, TOML. Default: one with default settings.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// How the answer is written.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// List the templates, or print one of them as a policy.
    Templates {
        /// Which; absent: list all of them with their parameters.
        name: Option<String>,
        /// The value of a parameter; repeat for several. What is not set has the value of its
        /// example, and a note says so.
        #[arg(long, value_name = "PARAMETER=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// The settings of the connector that is meant, TOML. Default: one with default settings.
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// How the answer is written.
        #[arg(long, default_value = "text")]
        format: Format,
    },
}

/// A request that a policy is asked to decide. What is not said is not known, and what is not
/// known never allows.
#[derive(Debug, Clone, Args)]
pub struct Ask {
    /// Who asks: a participant's URI.
    #[arg(long, value_name = "URI")]
    pub assignee: Option<String>,
    /// When, such as `2030-01-31T12:00:00Z`. Default: now.
    #[arg(long, value_name = "TIME", requires = "assignee")]
    pub at: Option<Timestamp>,
    /// When the agreement was made. Default: what the policy says itself.
    #[arg(long, value_name = "TIME", requires = "assignee")]
    pub agreed_at: Option<Timestamp>,
    /// Which use it would be, from 1.
    #[arg(long, value_name = "N", requires = "assignee")]
    pub uses: Option<u64>,
    /// On what. Default: what the policy is about.
    #[arg(long, value_name = "IRI", requires = "assignee")]
    pub target: Option<String>,
    /// What for. Default: `use`.
    #[arg(long, value_name = "ACTION", requires = "assignee")]
    pub action: Option<String>,
    /// What is known, such as `spatial=urn:example:de`, with commas between several values; `consent=yes` and
    /// `payment=yes` for duties. Repeat for several. What is not stated is not known.
    #[arg(long = "fact", value_name = "NAME=VALUE", value_parser = pair, requires = "assignee")]
    pub facts: Vec<(String, String)>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: as the management API answers it.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("is no parameter with its value; `count=10` would have passed".to_owned()),
    }
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
