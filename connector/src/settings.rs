//! Typed settings, read once: built-in defaults → file → environment.
//!
//! The environment overrides with `KONTOR__SECTION__KEY`, as in `KONTOR__PROTOCOL__LISTEN`. A list of texts has commas
//! between them, as in `KONTOR__EGRESS__ALLOW_NETWORKS=10.0.0.0/8,127.0.0.0/8`. Tables in lists (`[[brokers]]`,
//! `policy.operands`, `policy.parts` and `policy.inform`) come from the file alone. `RUST_LOG` is another name of
//! `KONTOR__LOG_FILTER`, and wins over it.
//! An unknown key is an error with a suggestion; a wrong value names the key and what would pass.

pub mod vocabulary;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::Source as _;
use ipnet::IpNet;
use kontor_core::id::ParticipantId;
use kontor_core::negotiation::Role;
use kontor_core::policy::{Capabilities, FactSource, StageKind, Vocabulary};
use kontor_wire::egress::EgressFilter;
use secrecy::SecretString;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use url::Url;

/// Keys that are lists of texts: in the environment, with commas between.
const LISTS: [&str; 3] = ["egress.allow_networks", "data.source_roots", "policy.consumers_on_trust"];
/// Keys and sections of numbers. What else the environment holds is text, whatever it looks like.
const NUMBERS: [&str; 4] = ["tls.reload_seconds", "data.flows_max", "delivery.", "limits."];

/// Everything that an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Who we are: a URI, the same as in the certificate's subject alternative name.
    pub participant_id: String,
    /// A name for people, shown in the self-description. Default: the participant's URI.
    #[serde(default)]
    pub title: Option<String>,
    /// Where state is kept; created when missing.
    pub data_dir: PathBuf,
    /// How peers are recognised.
    #[serde(default)]
    pub profile: Profile,
    /// How log lines are written.
    #[serde(default)]
    pub log: LogFormat,
    /// Which log lines are written, such as `info` or `warn,kontor=debug`. Default `info`.
    #[serde(default = "log_filter_default")]
    pub log_filter: String,
    /// The port for other connectors: protocol and data, mutual TLS.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port for the operator.
    #[serde(default)]
    pub management: Management,
    /// Certificate, key and trust. Required unless the profile is `insecure`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Which addresses peers may make us call.
    #[serde(default)]
    pub egress: Egress,
    /// Where data comes from and goes to.
    #[serde(default)]
    pub data: Data,
    /// Brokers that we publish our self-description to.
    #[serde(default)]
    pub brokers: Vec<Broker>,
    /// What is decided without a person.
    #[serde(default)]
    pub automation: Automation,
    /// What policies may ask of us beyond the data.
    #[serde(default)]
    pub policy: Policy,
    /// How hard a message is tried.
    #[serde(default)]
    pub delivery: Delivery,
    /// Limits on what peers can take.
    #[serde(default)]
    pub limits: Limits,
    /// What the profile `insecure` alone may have.
    #[serde(default)]
    pub insecure: Option<Insecure>,
}

fn log_filter_default() -> String {
    "info".to_owned()
}

/// How peers are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Mutual TLS: a peer is the URI in its certificate.
    #[default]
    Standard,
    /// Plain HTTP and a header that anybody can forge, for conformance kits on loopback. Refuses
    /// to listen anywhere else.
    Insecure,
}

/// What the profile `insecure` alone may have, for conformance kits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Insecure {
    /// Where others may ask us to begin a negotiation or transfer; loopback only, port 0 takes a
    /// free one. Default: nowhere.
    pub initiation_listen: Option<SocketAddr>,
    /// Datasets, offers and agreements to begin with, JSON. Default: none.
    pub seed: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The port for other connectors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protocol {
    /// Address to listen on; port 0 takes a free one. Default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// How peers reach this port from outside, without a trailing slash. Default: `https://` and
    /// the address that we listen on.
    pub public_url: Option<Url>,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8443)), public_url: None }
    }
}

/// The port for the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Management {
    /// Address to listen on: loopback only, since it is plain HTTP. Default `127.0.0.1:8181`.
    pub listen: SocketAddr,
    /// The bearer token, in a file with nothing else. Default `<data_dir>/management.token`,
    /// made with a fresh token when missing.
    pub token_file: Option<PathBuf>,
    /// The bearer token itself, for the environment. Wins over the file.
    pub token: Option<SecretString>,
}

impl Default for Management {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8181)), token_file: None, token: None }
    }
}

/// Certificate, key and trust.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Our certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The certificate authorities that we trust for peers, PEM.
    pub trust: PathBuf,
    /// How often the files are looked at for a new certificate, in seconds. Default 30.
    #[serde(default = "reload_seconds_default")]
    pub reload_seconds: u64,
}

fn reload_seconds_default() -> u64 {
    30
}

/// Which addresses peers may make us call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Networks that are allowed although they are private, such as `127.0.0.0/8`. Default: none.
    pub allow_networks: Vec<IpNet>,
}

/// Where data comes from and goes to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Folders that datasets may name files in. Default: `<data_dir>/source`.
    pub source_roots: Vec<PathBuf>,
    /// Folder that received data is written to. Default: `<data_dir>/received`.
    pub sink_root: Option<PathBuf>,
    /// How many flows may run at once. Default 256.
    pub flows_max: Option<usize>,
}

/// A broker that we publish to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its registry's base address, `https://…`.
    pub url: Url,
    /// The participant in its certificate.
    pub participant_id: String,
    /// How long a publication should last, in seconds; renewed at half of it. Default 3600.
    #[serde(default = "lease_seconds_default")]
    pub lease_seconds: u64,
}

fn lease_seconds_default() -> u64 {
    3600
}

/// What is decided without a person.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Automation {
    /// `automatic` agrees to requests that mean the same as a published offer; `manual` asks a
    /// person for every agreement. Default `automatic`.
    pub approval: Approval,
    /// `automatic` agrees also to requests that are narrower than a published offer, which allow
    /// nothing that was not offered; `manual` asks a person. Default `manual`.
    pub narrower: Approval,
    /// A file with further rules, see the sample settings. Default: none.
    pub rules: Option<PathBuf>,
}

impl Default for Automation {
    fn default() -> Self {
        Self { approval: Approval::Automatic, narrower: Approval::Manual, rules: None }
    }
}

/// Who agrees to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// We, at once.
    #[default]
    Automatic,
    /// A person, through the management API.
    Manual,
}

/// What policies may ask of us beyond the data. What is not set here is refused before an agreement.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Participants whose connectors do not say what they enforce, and with whom we agree all the
    /// same on policies that leave a part, such as a deletion, to the consumer's connector alone.
    /// Nothing checks that they enforce it. Default: none, and such agreements are refused.
    pub consumers_on_trust: Vec<String>,
    /// Left operands of our own. Default: none.
    pub operands: Vec<vocabulary::Operand>,
    /// Which names are parts of which, for operands that compare places and purposes. Default: none.
    pub parts: Vec<vocabulary::Part>,
    /// Where uses are logged for agreements that require it: a file, one JSON object a line, synced for each; or an
    /// address, `http://…` or `https://…`, that takes one JSON object per POST and answers 2xx once it is kept. While
    /// no entry can be written, no byte of such data leaves. Default: nowhere, and such policies are refused.
    pub log: Option<LogTarget>,
    /// Which parties we can inform, each with its address. Default: none.
    pub inform: Vec<Inform>,
}

impl Policy {
    /// What a connector can hold to with these settings, and the operator's own terms.
    #[must_use]
    pub fn capabilities(&self, vocabulary: Vocabulary) -> Capabilities {
        let log_targets = match &self.log {
            Some(LogTarget::Url(url)) => [url.to_string()].into(),
            Some(LogTarget::File(_)) | None => std::collections::BTreeSet::new(),
        };
        Capabilities {
            role: Role::Provider,
            vocabulary,
            sources: FactSource::ALL.into(),
            // The registers know since when a fact is written down, not since when it holds.
            beginnings: std::collections::BTreeSet::new(),
            infringements: false,
            overdue_payments: false,
            stages: StageKind::ALL.into(),
            log_sink: self.log.is_some(),
            log_targets,
            inform_counterparty: true,
            inform_targets: self.inform.iter().map(|inform| inform.party.clone()).collect(),
            delete: true,
            next_policy: true,
        }
    }
}

/// Where uses are logged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogTarget {
    /// A file.
    File(PathBuf),
    /// An address.
    Url(Url),
}

impl TryFrom<String> for LogTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Url(url)),
            // Whoever wrote `ftp://…` did not mean a file.
            _ if text.contains("://") || text.is_empty() => {
                Err(format!("`{text}` is no log; a file, `http://…` or `https://…` would have passed"))
            }
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// A party that we can inform.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inform {
    /// The party as policies name it, a URI.
    pub party: String,
    /// An address that takes one JSON object per POST and answers 2xx.
    pub url: Url,
}

/// How hard a message is tried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// How long one attempt may take, in milliseconds. Default 5000.
    pub timeout_ms: u64,
    /// Wait before the second attempt, in milliseconds; doubled each time. Default 200.
    pub backoff_ms: u64,
    /// Longest wait between attempts, in milliseconds. Default 30000.
    pub backoff_ms_max: u64,
    /// When a message is given up, in seconds of trying; the time in which we were down does not count. Default 3600.
    pub give_up_seconds: u64,
    /// How many messages may be on their way at once; a quarter of them, and at least one, to one participant. Default 64.
    pub in_flight_max: usize,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { timeout_ms: 5_000, backoff_ms: 200, backoff_ms_max: 30_000, give_up_seconds: 3_600, in_flight_max: 64 }
    }
}

/// Limits on what peers can take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections on the protocol port at once. Default 1024.
    pub connections_max: usize,
    /// Bytes of a protocol or management message. Default 1 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all headers of a request. Default 32 KiB.
    pub header_bytes_max: usize,
    /// Seconds that the headers of a request may take. Default 10.
    pub header_seconds_max: u64,
    /// Seconds that a protocol request may take as a whole. Default 30.
    pub request_seconds_max: u64,
    /// Negotiations and transfers that one counterparty may have open. Default 10000.
    pub open_processes_max: usize,
    /// Seconds that running requests get at shutdown. Default 5.
    pub drain_seconds_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            body_bytes_max: 1024 * 1024,
            header_bytes_max: 32 * 1024,
            header_seconds_max: 10,
            request_seconds_max: 30,
            open_processes_max: 10_000,
            drain_seconds_max: 5,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or is no TOML.
    #[error("cannot read the settings: {0}")]
    Unreadable(String),
    /// A key that does not exist.
    #[error("unknown setting `{key}`{}; known here: {known}", .suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// The whole key.
        key: String,
        /// The nearest known one.
        suggestion: Option<String>,
        /// All known ones beside it.
        known: String,
    },
    /// A value of the wrong kind or outside its range.
    #[error("setting `{key}`: {rule}")]
    Value {
        /// The whole key.
        key: String,
        /// The rule and what would have passed.
        rule: String,
    },
}

impl SettingsError {
    fn value(key: &str, rule: impl Into<String>) -> Self {
        Self::Value { key: key.to_owned(), rule: rule.into() }
    }
}

impl Settings {
    /// Reads defaults → file → environment, and checks what can be checked without I/O.
    ///
    /// # Errors
    /// [`SettingsError`] that names the key, the rule and what would have passed.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        Self::read(file, None)
    }

    /// As [`Settings::load`], with the environment handed in.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn read(file: &Path, environment: Option<HashMap<String, String>>) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::Unreadable(format!("{}: {error}", file.display())))?;
        let settings = Self::from_sources(&text, environment)?;
        Ok(settings.relative_to(file.parent().unwrap_or(Path::new("."))))
    }

    /// Parses settings from TOML text alone, as the sample settings' test does.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        Self::from_sources(text, Some(HashMap::new()))
    }

    fn from_sources(text: &str, environment: Option<HashMap<String, String>>) -> Result<Self, SettingsError> {
        let unreadable = |error: config::ConfigError| SettingsError::Unreadable(error.to_string());
        let rust_log = match &environment {
            Some(variables) => variables.get("RUST_LOG").cloned(),
            #[expect(clippy::disallowed_methods, reason = "here settings are read")]
            None => std::env::var("RUST_LOG").ok(),
        };
        let variables =
            config::Environment::with_prefix("KONTOR").prefix_separator("__").separator("__").source(environment);
        let mut builder = config::Config::builder().add_source(config::File::from_str(text, config::FileFormat::Toml));
        for (key, value) in variables.collect().map_err(unreadable)? {
            let value = typed(&key, value.into_string().map_err(unreadable)?);
            builder = builder.set_override(key, value).map_err(unreadable)?;
        }
        if let Some(filter) = rust_log.filter(|filter| !filter.is_empty()) {
            builder = builder.set_override("log_filter", filter).map_err(unreadable)?;
        }
        let tree: serde_json::Value = builder.build().and_then(config::Config::try_deserialize).map_err(unreadable)?;
        let settings: Self = serde_path_to_error::deserialize(tree).map_err(|error| explain(&error))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        self.participant()?;
        self.consumers_on_trust()?;
        self.vocabulary()?;
        let value = |key: &str, rule: String| SettingsError::value(key, rule);
        if !self.management.listen.ip().is_loopback() {
            return Err(value(
                "management.listen",
                format!(
                    "`{}` is not loopback; the management port is plain HTTP, `127.0.0.1:8181` would have passed (put a TLS proxy in front to reach it from afar)",
                    self.management.listen
                ),
            ));
        }
        match self.profile {
            Profile::Standard if self.tls.is_none() => {
                return Err(value(
                    "tls",
                    "certificate, key and trust are required; `kontor pki` makes throw-away ones".to_owned(),
                ));
            }
            Profile::Insecure if !self.protocol.listen.ip().is_loopback() => {
                return Err(value(
                    "protocol.listen",
                    format!(
                        "`{}` is not loopback; the profile `insecure` listens on loopback only",
                        self.protocol.listen
                    ),
                ));
            }
            Profile::Standard | Profile::Insecure => {}
        }
        if let Some(insecure) = &self.insecure {
            if self.profile != Profile::Insecure {
                return Err(value(
                    "insecure",
                    "this section lets anybody begin transfers and is for the profile `insecure` alone; settings without it would have passed".to_owned(),
                ));
            }
            if let Some(listen) = insecure.initiation_listen.filter(|listen| !listen.ip().is_loopback()) {
                return Err(value(
                    "insecure.initiation_listen",
                    format!("`{listen}` is not loopback; `127.0.0.1:0` would have passed"),
                ));
            }
        }
        if self.automation.approval == Approval::Manual && self.automation.narrower == Approval::Automatic {
            return Err(value(
                "automation.narrower",
                "`automatic` would agree to less than what `approval` leaves to a person; `manual` would have passed"
                    .to_owned(),
            ));
        }
        for (index, broker) in self.brokers.iter().enumerate() {
            ParticipantId::parse(broker.participant_id.as_str())
                .map_err(|error| value(&format!("brokers[{index}].participant_id"), error.to_string()))?;
            if broker.url.scheme() != "https" && self.profile == Profile::Standard {
                return Err(value(
                    &format!("brokers[{index}].url"),
                    format!("`{}` is not https; brokers are reached over mutual TLS", broker.url),
                ));
            }
            if self.profile == Profile::Standard {
                let egress = EgressFilter::new(self.egress.allow_networks.clone());
                egress
                    .check_url(&broker.url)
                    .map_err(|error| value(&format!("brokers[{index}].url"), error.to_string()))?;
            }
            if broker.lease_seconds == 0 {
                return Err(value(
                    &format!("brokers[{index}].lease_seconds"),
                    "0 is no lease; 60 would have passed".to_owned(),
                ));
            }
        }
        self.check_policy()?;
        self.check_log_filter()?;
        self.check_limits()
    }

    fn check_log_filter(&self) -> Result<(), SettingsError> {
        EnvFilter::try_new(&self.log_filter).map(drop).map_err(|error| {
            let rule = format!(
                "`{}` is no filter: {error}; `info` or `warn,kontor=debug` would have passed (`RUST_LOG` wins over this setting)",
                self.log_filter
            );
            SettingsError::value("log_filter", rule)
        })
    }

    /// A limit of 0 allows nothing. `limits.drain_seconds_max` is none of them: 0 waits for nobody.
    fn check_limits(&self) -> Result<(), SettingsError> {
        let (limits, delivery) = (&self.limits, &self.delivery);
        let reload = self.tls.as_ref().map(|tls| tls.reload_seconds);
        for (key, zero, would, passes) in [
            ("limits.connections_max", limits.connections_max == 0, "let nobody in", "1024"),
            ("limits.body_bytes_max", limits.body_bytes_max == 0, "refuse every message", "1048576"),
            ("limits.header_seconds_max", limits.header_seconds_max == 0, "end every request before it is read", "10"),
            ("limits.request_seconds_max", limits.request_seconds_max == 0, "end every request at once", "30"),
            ("limits.open_processes_max", limits.open_processes_max == 0, "refuse every negotiation", "10000"),
            ("delivery.timeout_ms", delivery.timeout_ms == 0, "give up every attempt at once", "5000"),
            ("delivery.backoff_ms", delivery.backoff_ms == 0, "try again without a pause", "200"),
            ("delivery.backoff_ms_max", delivery.backoff_ms_max == 0, "try again without a pause", "30000"),
            ("delivery.give_up_seconds", delivery.give_up_seconds == 0, "give up every message at once", "3600"),
            ("delivery.in_flight_max", delivery.in_flight_max == 0, "send nothing", "64"),
            ("data.flows_max", self.data.flows_max == Some(0), "let no data flow", "256"),
            ("tls.reload_seconds", reload == Some(0), "look for new certificates without a pause", "30"),
        ] {
            if zero {
                return Err(SettingsError::value(key, format!("0 would {would}; {passes} would have passed")));
            }
        }
        if limits.header_bytes_max < 8192 {
            return Err(SettingsError::value(
                "limits.header_bytes_max",
                format!(
                    "{} is less than HTTP servers can work with; 8192 or more would have passed",
                    limits.header_bytes_max
                ),
            ));
        }
        Ok(())
    }

    fn check_policy(&self) -> Result<(), SettingsError> {
        for (index, inform) in self.policy.inform.iter().enumerate() {
            if !matches!(inform.url.scheme(), "http" | "https") {
                let rule = format!("`{}` is no address; `https://…` would have passed", inform.url);
                return Err(SettingsError::value(&format!("policy.inform[{index}].url"), rule));
            }
            if !inform.party.contains(':') {
                let rule = format!("`{}` is no URI; `urn:…` or `https://…` would have passed", inform.party);
                return Err(SettingsError::value(&format!("policy.inform[{index}].party"), rule));
            }
        }
        Ok(())
    }

    /// Our own participant.
    ///
    /// # Errors
    /// [`SettingsError::Value`] when it is no URI.
    pub fn participant(&self) -> Result<ParticipantId, SettingsError> {
        let parsed = match self.profile {
            Profile::Standard => ParticipantId::parse(self.participant_id.as_str()),
            Profile::Insecure => ParticipantId::parse_insecure(self.participant_id.as_str()),
        };
        parsed.map_err(|error| SettingsError::value("participant_id", error.to_string()))
    }

    /// Paths in a file are relative to the file's folder.
    fn relative_to(mut self, folder: &Path) -> Self {
        let join = |path: &mut PathBuf| *path = folder.join(&*path);
        join(&mut self.data_dir);
        if let Some(tls) = &mut self.tls {
            join(&mut tls.certificate);
            join(&mut tls.key);
            join(&mut tls.trust);
        }
        self.data.source_roots.iter_mut().for_each(join);
        self.data.sink_root.iter_mut().for_each(join);
        self.management.token_file.iter_mut().for_each(join);
        self.automation.rules.iter_mut().for_each(join);
        if let Some(LogTarget::File(file)) = &mut self.policy.log {
            join(file);
        }
        self.insecure.iter_mut().flat_map(|insecure| &mut insecure.seed).for_each(join);
        self
    }

    /// The folders that datasets may name files in.
    #[must_use]
    pub fn source_roots(&self) -> Vec<PathBuf> {
        if self.data.source_roots.is_empty() {
            return vec![self.data_dir.join("source")];
        }
        self.data.source_roots.clone()
    }

    /// The folder that received data is written to.
    #[must_use]
    pub fn sink_root(&self) -> PathBuf {
        self.data.sink_root.clone().unwrap_or_else(|| self.data_dir.join("received"))
    }

    /// What a connector with these settings can hold to. A part is named here once a story holds it
    /// to it, end to end; until then what asks for it is refused before an agreement. A new part of
    /// [`Capabilities`] stops the build here.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        // That it is one was checked when the settings were read.
        self.policy.capabilities(self.vocabulary().unwrap_or_default())
    }

    fn vocabulary(&self) -> Result<Vocabulary, SettingsError> {
        vocabulary::vocabulary(&self.policy.operands, &self.policy.parts)
    }

    /// Consumers that say nothing of what they enforce, and are trusted to.
    ///
    /// # Errors
    /// [`SettingsError::Value`] when one of them is no URI.
    pub fn consumers_on_trust(&self) -> Result<Vec<ParticipantId>, SettingsError> {
        let named = self.policy.consumers_on_trust.iter().enumerate();
        let participants = named.map(|(index, name)| {
            ParticipantId::parse(name.as_str()).map_err(|error| {
                SettingsError::value(&format!("policy.consumers_on_trust[{index}]"), error.to_string())
            })
        });
        participants.collect()
    }

    /// How long one delivery attempt may take.
    #[must_use]
    pub fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery.timeout_ms)
    }
}

/// What the environment says of a key, as the kind that the key has.
fn typed(key: &str, text: String) -> config::ValueKind {
    if LISTS.contains(&key) {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(str::to_owned).collect::<Vec<String>>().into();
    }
    let number = NUMBERS.iter().any(|name| key == *name || (name.ends_with('.') && key.starts_with(name)));
    match text.trim().parse::<i64>() {
        Ok(parsed) if number => parsed.into(),
        _ => text.into(),
    }
}

/// Turns serde's words into ours: the key, the rule, the nearest known key.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> SettingsError {
    let path = error.path().to_string();
    let text = error.inner().to_string();
    if let Some(rest) = text.strip_prefix("unknown field `") {
        let field = rest.split('`').next().unwrap_or_default();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        let suggestion = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(field, candidate), *candidate))
            .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 2)
            .min()
            .map(|(_, candidate)| candidate.to_owned());
        return SettingsError::UnknownKey {
            key: if path == "." || path.is_empty() { field.to_owned() } else { key_of(&path, field) },
            suggestion,
            known: known.join(", "),
        };
    }
    // serde's words for what people write most.
    let rule = [
        ("invalid socket address syntax", "not an IP address with a port; `127.0.0.1:8443` would have passed"),
        ("invalid IP address syntax", "not a network; `10.0.0.0/8` would have passed"),
        ("relative URL without a base", "not an address; `https://host.example:8443` would have passed"),
        ("expected usize", "not a whole number; `100` would have passed"),
        ("expected u64", "not a whole number; `100` would have passed"),
    ];
    let rule = rule.iter().find(|(serde, _)| text.contains(serde)).map(|(_, ours)| (*ours).to_owned());
    SettingsError::Value { key: path, rule: rule.unwrap_or(text) }
}

/// serde_path_to_error already ends the path in the unknown field.
fn key_of(path: &str, field: &str) -> String {
    if path.ends_with(field) { path.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        participant_id = "urn:kontor:alpha"
        data_dir = "state"
        [tls]
        certificate = "a.pem"
        key = "a.key"
        trust = "ca.pem"
    "#;

    #[test]
    fn minimal_settings_have_safe_defaults() {
        let settings = Settings::parse(MINIMAL).unwrap();
        assert!(settings.protocol.listen.ip().is_loopback());
        assert!(settings.egress.allow_networks.is_empty());
        assert_eq!(settings.profile, Profile::Standard);
    }

    #[test]
    fn unknown_key_is_refused_with_a_suggestion() {
        let error =
            Settings::parse(&format!("{MINIMAL}\n[protocol]\nlisen = \"127.0.0.1:1\"")).unwrap_err().to_string();
        assert!(error.contains("`protocol.lisen`") && error.contains("did you mean `listen`"), "{error}");
        let error = Settings::parse(&MINIMAL.replace("data_dir", "datadir")).unwrap_err().to_string();
        assert!(error.contains("`datadir`") && error.contains("did you mean `data_dir`"), "{error}");
    }

    fn with(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kontor.toml");
        std::fs::write(&file, MINIMAL).unwrap();
        let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Settings::read(&file, Some(variables.collect()))
    }

    #[test]
    fn lists_come_from_the_environment_with_commas_between() {
        let settings = with(&[
            ("KONTOR__EGRESS__ALLOW_NETWORKS", "10.0.0.0/8, 127.0.0.0/8"),
            ("KONTOR__DATA__SOURCE_ROOTS", "/2026,/more"),
            ("KONTOR__POLICY__CONSUMERS_ON_TRUST", "urn:a:b"),
        ])
        .unwrap();
        assert_eq!(settings.egress.allow_networks.len(), 2);
        assert_eq!(settings.source_roots(), [PathBuf::from("/2026"), PathBuf::from("/more")]);
        assert_eq!(settings.consumers_on_trust().unwrap().len(), 1);
        // One that looks like a number is a list of one all the same, and none is none.
        let settings = with(&[("KONTOR__DATA__SOURCE_ROOTS", "2026"), ("KONTOR__EGRESS__ALLOW_NETWORKS", "")]).unwrap();
        assert!(settings.source_roots()[0].ends_with("2026") && settings.egress.allow_networks.is_empty());
        let error = with(&[("KONTOR__EGRESS__ALLOW_NETWORKS", "10.0.0.0/8,home")]).unwrap_err().to_string();
        assert!(error.contains("egress.allow_networks[1]"), "{error}");
        // Lists of tables are for the file.
        assert!(with(&[("KONTOR__BROKERS", "https://b.example")]).unwrap_err().to_string().contains("`brokers`"));
    }

    #[test]
    fn text_from_the_environment_stays_text_and_numbers_are_numbers() {
        use secrecy::ExposeSecret;
        for text in ["1234567890123456", "1e5", "true", "0.5"] {
            let settings = with(&[("KONTOR__MANAGEMENT__TOKEN", text), ("KONTOR__TITLE", text)]).unwrap();
            assert_eq!(settings.management.token.unwrap().expose_secret(), text);
            assert_eq!(settings.title.as_deref(), Some(text));
        }
        let settings = with(&[
            ("KONTOR__LIMITS__CONNECTIONS_MAX", "7"),
            ("KONTOR__DELIVERY__TIMEOUT_MS", "70"),
            ("KONTOR__DATA__FLOWS_MAX", "700"),
            ("KONTOR__TLS__RELOAD_SECONDS", "7000"),
            ("KONTOR__PROTOCOL__LISTEN", "127.0.0.1:7"),
        ])
        .unwrap();
        assert_eq!((settings.limits.connections_max, settings.delivery.timeout_ms), (7, 70));
        assert_eq!((settings.data.flows_max, settings.tls.unwrap().reload_seconds), (Some(700), 7000));
        assert_eq!(settings.protocol.listen.port(), 7);
        let error = with(&[("KONTOR__LIMITS__CONNECTIONS_MAX", "many")]).unwrap_err().to_string();
        assert!(error.contains("`limits.connections_max`"), "{error}");
        let error = with(&[("KONTOR__PROTOCOL__LISEN", "127.0.0.1:7")]).unwrap_err().to_string();
        assert!(error.contains("did you mean `listen`"), "{error}");
    }

    #[test]
    fn log_lines_are_chosen_by_a_setting_and_rust_log_wins() {
        let filter = |variables: &[(&str, &str)]| with(variables).map(|settings| settings.log_filter);
        assert_eq!(filter(&[]).unwrap(), "info");
        assert_eq!(filter(&[("KONTOR__LOG_FILTER", "kontor=debug")]).unwrap(), "kontor=debug");
        assert_eq!(filter(&[("KONTOR__LOG_FILTER", "debug"), ("RUST_LOG", "warn")]).unwrap(), "warn");
        assert_eq!(filter(&[("KONTOR__LOG_FILTER", "debug"), ("RUST_LOG", "")]).unwrap(), "debug");
        for name in ["KONTOR__LOG_FILTER", "RUST_LOG"] {
            let error = filter(&[(name, "kontor=loud")]).unwrap_err().to_string();
            assert!(error.contains("`log_filter`") && error.contains("would have passed"), "{error}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_refused_with_what_would_have_passed() {
        for key in [
            "limits.connections_max",
            "limits.body_bytes_max",
            "limits.header_bytes_max",
            "limits.header_seconds_max",
            "limits.request_seconds_max",
            "limits.open_processes_max",
            "delivery.timeout_ms",
            "delivery.backoff_ms",
            "delivery.backoff_ms_max",
            "delivery.give_up_seconds",
            "delivery.in_flight_max",
            "data.flows_max",
        ] {
            let error = Settings::parse(&format!("{key} = 0\n{MINIMAL}")).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`: 0 ")) && error.contains("would have passed"), "{error}");
        }
        assert!(Settings::parse(&format!("limits.drain_seconds_max = 0\n{MINIMAL}")).is_ok());
    }

    #[test]
    fn wrong_values_name_key_and_rule() {
        for (text, expected) in [
            (MINIMAL.replace("urn:kontor:alpha", "alpha"), "participant_id"),
            (format!("{MINIMAL}\n[management]\nlisten = \"0.0.0.0:1\""), "management.listen"),
            (format!("{MINIMAL}\n[limits]\nconnections_max = 0"), "limits.connections_max"),
            (format!("{MINIMAL}\n[limits]\nconnections_max = \"many\""), "limits.connections_max"),
            (format!("{MINIMAL}\nreload_seconds = 0"), "tls.reload_seconds"),
            (format!("{MINIMAL}\nreload_seconds = \"soon\""), "not a whole number"),
            (format!("{MINIMAL}\n[protocol]\nlisten = \"localhost:1\""), "`127.0.0.1:8443` would have passed"),
            (format!("{MINIMAL}\n[egress]\nallow_networks = [\"home\"]"), "`10.0.0.0/8` would have passed"),
            (format!("{MINIMAL}\n[protocol]\npublic_url = \"host\""), "`https://host.example:8443` would have passed"),
            (
                format!("{MINIMAL}\n[[brokers]]\nurl = \"https://127.0.0.1:1\"\nparticipant_id = \"urn:b\""),
                "egress.allow_networks",
            ),
            (
                format!("{MINIMAL}\n[[brokers]]\nurl = \"http://b.example\"\nparticipant_id = \"urn:b\""),
                "brokers[0].url",
            ),
            ("participant_id = \"urn:a\"\ndata_dir = \"x\"".to_owned(), "tls"),
            (
                "profile = \"insecure\"\nparticipant_id = \"a\"\ndata_dir = \"x\"\n[protocol]\nlisten = \"0.0.0.0:1\""
                    .to_owned(),
                "protocol.listen",
            ),
            (format!("{MINIMAL}\n[policy]\nconsumers_on_trust = [\"us\"]"), "policy.consumers_on_trust[0]"),
            (format!("{MINIMAL}\n[insecure]\ninitiation_listen = \"127.0.0.1:0\""), "`insecure`"),
            (format!("{MINIMAL}\n[policy]\nlog = \"ftp://log.example\""), "policy.log"),
            (format!("{MINIMAL}\n[[policy.inform]]\nparty = \"them\"\nurl = \"http://a.example\""), "inform[0].party"),
            ("profile = \"insecure\"\nparticipant_id = \"a\"\ndata_dir = \"x\"\n[insecure]\ninitiation_listen = \"0.0.0.0:1\"".to_owned(), "insecure.initiation_listen"),
        ] {
            let error = Settings::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
