//! Typed settings: defaults, then the file, then the environment. An unknown key is refused with a suggestion.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use kontor_core::id::ParticipantId;
use kontor_wire::tls::TlsFiles;
use url::Url;

use crate::ingest::IngestLimits;
use crate::query::QueryLimits;
use crate::registry::LeaseLimits;
use crate::store::View;

/// Every key with its default (empty: none) and its meaning. The help text and the checks are made from it.
pub const KEYS: &[(&str, &str, &str)] = &[
    ("participant_id", "", "URI of this broker, the same as in its certificate"),
    ("data_dir", "broker-data", "folder of the store; relative to the settings file"),
    ("view", "memory", "where the graph is kept: `memory`, or `disk` in a build with the feature `rocksdb`"),
    ("registry.listen", "127.0.0.1:8443", "address of the mutual-TLS port; port 0 picks a free one"),
    ("registry.public_url", "", "how participants reach that port; default: https:// and the address"),
    ("browse.listen", "127.0.0.1:8080", "address of the plain, read-only port for people on this machine, or `off`"),
    ("tls.certificate", "", "certificate chain in PEM"),
    ("tls.key", "", "its private key in PEM"),
    ("tls.trust", "", "certificate authorities of the data space in PEM"),
    ("lease.min_seconds", "10", "shortest lease"),
    ("lease.default_seconds", "300", "lease of a publisher that names none"),
    ("lease.max_seconds", "86400", "longest lease"),
    ("limits.body_bytes", "1048576", "most bytes of a description or a query request"),
    ("limits.description_triples", "50000", "most triples of a description"),
    ("limits.expanded_bytes", "8388608", "most bytes of a description's terms, prefixes and contexts written out"),
    ("limits.nesting", "64", "deepest brackets of a description"),
    ("limits.query_text_bytes", "16384", "most bytes of a query"),
    ("limits.query_nesting", "24", "deepest brackets of a query"),
    ("limits.query_joints", "128", "most patterns, path steps and groups of a query"),
    ("limits.query_ms", "10000", "longest time of a query, in milliseconds"),
    ("limits.query_rows", "10000", "most rows of an answer"),
    ("limits.query_bytes", "8388608", "most bytes of an answer"),
    ("limits.query_made_bytes", "67108864", "most bytes of text that a query may make on the way"),
    ("limits.query_held_values", "4000000", "most values (rows times variables) that a query may hold on the way"),
    ("limits.concurrent_queries", "4", "most queries at once"),
    ("log", "text", "`text` or `json`, on standard error"),
    ("log_filter", "info", "which log lines, such as `info` or `kontor_broker=debug`"),
];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Everything that an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who this broker is.
    pub participant: ParticipantId,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// Where the graph is kept.
    pub view: View,
    /// The mutual-TLS port.
    pub registry_listen: SocketAddr,
    /// How participants reach it, where that differs.
    pub public_url: Option<Url>,
    /// The plain port on loopback, if any.
    pub browse_listen: Option<SocketAddr>,
    /// Certificate, key and trusted authorities.
    pub tls: TlsFiles,
    /// Leases.
    pub lease: LeaseLimits,
    /// Descriptions.
    pub ingest: IngestLimits,
    /// Queries.
    pub query: QueryLimits,
    /// How logs are written.
    pub log: LogFormat,
    /// Which lines are logged.
    pub log_filter: String,
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or is no TOML.
    #[error("the settings cannot be read: {0}")]
    Read(String),
    /// Nobody knows the key.
    #[error("`{key}` is no setting{}", .suggestion.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// The key.
        key: String,
        /// The nearest one that exists.
        suggestion: Option<String>,
    },
    /// A key that has no default is missing.
    #[error("`{key}` is missing ({rule}); set it in the file or as `{variable}`")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it means.
        rule: &'static str,
        /// The environment variable of the key.
        variable: String,
    },
    /// The value breaks the key's rule.
    #[error("`{key}` is `{value}`: {rule}; {cure} would have passed")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        rule: String,
        /// What would have passed.
        cure: String,
    },
}

impl Settings {
    /// Reads the file, if one is named, and the environment of the process.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(file, None)
    }

    /// As [`Settings::load`], with the environment handed in.
    ///
    /// # Errors
    /// [`SettingsError`], naming the key.
    pub fn read(file: Option<&Path>, environment: Option<HashMap<String, String>>) -> Result<Self, SettingsError> {
        let mut builder = Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(File::from(file).format(FileFormat::Toml));
        }
        // `log` and `log_filter` hold one underscore, so that two separate.
        let variables =
            Environment::with_prefix("KONTOR_BROKER").prefix_separator("__").separator("__").source(environment);
        let merged = builder
            .add_source(variables)
            .build()
            .and_then(Config::try_deserialize::<HashMap<String, Value>>)
            .map_err(|error| SettingsError::Read(error.to_string()))?;
        let mut flat = BTreeMap::new();
        flatten("", merged, &mut flat);
        if let Some(key) = flat.keys().find(|key| !KEYS.iter().any(|(known, _, _)| known == key)) {
            return Err(SettingsError::Unknown { key: key.clone(), suggestion: nearest(key) });
        }
        Keys { flat, base: file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned() }.settings()
    }
}

fn flatten(prefix: &str, table: HashMap<String, Value>, flat: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) => flatten(&key, inner, flat),
            _ => {
                flat.insert(key, value.to_string());
            }
        }
    }
}

fn nearest(key: &str) -> Option<String> {
    let best = KEYS.iter().map(|(known, _, _)| (strsim::jaro_winkler(key, known), *known));
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let same_name = KEYS.iter().find(|(known, _, _)| last(known) == last(key)).map(|(known, _, _)| (*known).to_owned());
    same_name.or_else(|| {
        best.max_by(|left, right| left.0.total_cmp(&right.0))
            .filter(|(score, _)| *score > 0.75)
            .map(|(_, known)| known.to_owned())
    })
}

struct Keys {
    flat: BTreeMap<String, String>,
    base: PathBuf,
}

impl Keys {
    fn optional(&self, key: &'static str) -> Option<String> {
        let default = KEYS.iter().find(|(known, _, _)| *known == key).map(|(_, default, _)| *default);
        let set = self.flat.get(key).cloned();
        set.or_else(|| default.map(str::to_owned)).filter(|value| !value.is_empty())
    }

    fn text(&self, key: &'static str) -> Result<String, SettingsError> {
        self.optional(key).ok_or_else(|| SettingsError::Missing {
            key,
            rule: KEYS.iter().find(|(known, _, _)| *known == key).map_or("", |(_, _, meaning)| meaning),
            variable: format!("KONTOR_BROKER__{}", key.replace('.', "__").to_uppercase()),
        })
    }

    fn path(&self, key: &'static str) -> Result<PathBuf, SettingsError> {
        Ok(self.base.join(self.text(key)?))
    }

    fn number(&self, key: &'static str, min: u64, max: u64) -> Result<u64, SettingsError> {
        let value = self.text(key)?;
        match value.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(SettingsError::Value {
                key,
                value,
                rule: "not a whole number within the limits".into(),
                cure: format!("{min} to {max}"),
            }),
        }
    }

    fn count(&self, key: &'static str, min: u64, max: u64) -> Result<usize, SettingsError> {
        Ok(usize::try_from(self.number(key, min, max)?).unwrap_or(usize::MAX))
    }

    fn seconds(&self, key: &'static str) -> Result<Duration, SettingsError> {
        Ok(Duration::from_secs(self.number(key, 1, 366 * 86_400)?))
    }

    fn address(&self, key: &'static str) -> Result<SocketAddr, SettingsError> {
        let value = self.text(key)?;
        value.parse().map_err(|_| SettingsError::Value {
            key,
            value,
            rule: "not an IP address with a port".into(),
            cure: "`127.0.0.1:8443`".into(),
        })
    }

    fn view(&self) -> Result<View, SettingsError> {
        match self.text("view")?.as_str() {
            "memory" => Ok(View::Memory),
            #[cfg(feature = "rocksdb")]
            "disk" => Ok(View::Disk),
            value => {
                let known = cfg!(feature = "rocksdb") || value != "disk";
                let rule = if known { "no place for the graph" } else { "this program was built without RocksDB" };
                let cure = if known {
                    "`memory` or `disk`"
                } else {
                    "`memory`, or `disk` with what `cargo build --release -p kontor-broker --features rocksdb` builds"
                };
                Err(SettingsError::Value { key: "view", value: value.into(), rule: rule.into(), cure: cure.into() })
            }
        }
    }

    fn settings(&self) -> Result<Settings, SettingsError> {
        let id = self.text("participant_id")?;
        let participant = ParticipantId::parse(id.clone()).map_err(|error| SettingsError::Value {
            key: "participant_id",
            value: id,
            rule: error.to_string(),
            cure: "`did:web:broker.example`".into(),
        })?;
        let browse_listen = match self.text("browse.listen")?.as_str() {
            "off" => None,
            value => {
                let address = self.address("browse.listen")?;
                if !address.ip().is_loopback() {
                    // It has no TLS and no log-in: beyond this machine, a proxy has to bring both.
                    return Err(SettingsError::Value {
                        key: "browse.listen",
                        value: value.to_owned(),
                        rule: "the browse port speaks plain HTTP and stays on this machine".into(),
                        cure: "`127.0.0.1:8080`, `[::1]:8080` or `off`".into(),
                    });
                }
                Some(address)
            }
        };
        let public_url = match self.optional("registry.public_url") {
            None => None,
            Some(value) => match Url::parse(&value) {
                Ok(url) if url.scheme() == "https" && url.has_host() => Some(url),
                _ => {
                    return Err(SettingsError::Value {
                        key: "registry.public_url",
                        value,
                        rule: "not an https URL".into(),
                        cure: "`https://broker.example:8443`".into(),
                    });
                }
            },
        };
        let lease = LeaseLimits {
            min: self.seconds("lease.min_seconds")?,
            default: self.seconds("lease.default_seconds")?,
            max: self.seconds("lease.max_seconds")?,
        };
        if lease.default < lease.min || lease.default > lease.max {
            return Err(SettingsError::Value {
                key: "lease.default_seconds",
                value: lease.default.as_secs().to_string(),
                rule: "outside `lease.min_seconds` and `lease.max_seconds`".into(),
                cure: format!("{} to {}", lease.min.as_secs(), lease.max.as_secs()),
            });
        }
        let log = match self.text("log")?.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            value => {
                return Err(SettingsError::Value {
                    key: "log",
                    value: value.to_owned(),
                    rule: "no log format".into(),
                    cure: "`text` or `json`".into(),
                });
            }
        };
        Ok(Settings {
            participant,
            data_dir: self.path("data_dir")?,
            view: self.view()?,
            registry_listen: self.address("registry.listen")?,
            public_url,
            browse_listen,
            tls: TlsFiles {
                certificate: self.path("tls.certificate")?,
                key: self.path("tls.key")?,
                trust: self.path("tls.trust")?,
            },
            lease,
            ingest: IngestLimits {
                bytes_max: self.count("limits.body_bytes", 1024, 256 << 20)?,
                triples_max: self.count("limits.description_triples", 1, 10_000_000)?,
                expanded_bytes_max: self.count("limits.expanded_bytes", 1024, 1 << 32)?,
                nesting_max: self.count("limits.nesting", 8, 100)?,
            },
            query: QueryLimits {
                text_bytes_max: self.count("limits.query_text_bytes", 64, 64 * 1024)?,
                nesting_max: self.count("limits.query_nesting", 4, 48)?,
                joints_max: self.count("limits.query_joints", 1, 4096)?,
                time_max: Duration::from_millis(self.number("limits.query_ms", 1, 600_000)?),
                rows_max: self.count("limits.query_rows", 1, 10_000_000)?,
                answer_bytes_max: self.count("limits.query_bytes", 1024, 1 << 30)?,
                made_bytes_max: self.count("limits.query_made_bytes", 1024, 1 << 32)?,
                held_values_max: self.count("limits.query_held_values", 1000, 1 << 32)?,
                concurrent_max: self.count("limits.concurrent_queries", 1, 256)?,
            },
            log,
            log_filter: self.text("log_filter")?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn settings(lines: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let mut all: HashMap<String, String> = [
            ("KONTOR_BROKER__PARTICIPANT_ID", "urn:b"),
            ("KONTOR_BROKER__TLS__CERTIFICATE", "c"),
            ("KONTOR_BROKER__TLS__KEY", "k"),
            ("KONTOR_BROKER__TLS__TRUST", "t"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        all.extend(lines.iter().map(|(key, value)| (format!("KONTOR_BROKER__{key}"), (*value).to_owned())));
        Settings::read(None, Some(all))
    }

    #[test]
    fn defaults_are_the_defaults_of_the_types() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.ingest, IngestLimits::default());
        assert_eq!(settings.query, QueryLimits::default());
        assert_eq!(settings.lease, LeaseLimits::default());
        assert!(settings.registry_listen.ip().is_loopback());
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        let error = settings(&[("LEASE__MIN_SECOND", "1")]).unwrap_err();
        assert_eq!(error.to_string(), "`lease.min_second` is no setting; did you mean `lease.min_seconds`?");
    }

    #[test]
    fn a_bad_value_names_key_rule_and_cure() {
        for (key, value, part) in [
            ("BROWSE__LISTEN", "0.0.0.0:80", "stays on this machine"),
            ("REGISTRY__LISTEN", "localhost", "`127.0.0.1:8443` would have passed"),
            ("LIMITS__QUERY_ROWS", "none", "1 to 10000000"),
            ("LEASE__DEFAULT_SECONDS", "5", "10 to 86400"),
            ("PARTICIPANT_ID", "broker", "not a URI"),
            ("LOG", "xml", "`text` or `json`"),
            ("VIEW", "cloud", "`memory` or `disk`"),
        ] {
            let error = settings(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_graph_is_kept_on_disk_only_by_a_program_that_can() {
        assert_eq!(settings(&[]).unwrap().view, View::Memory);
        #[cfg(feature = "rocksdb")]
        assert_eq!(settings(&[("VIEW", "disk")]).unwrap().view, View::Disk);
        #[cfg(not(feature = "rocksdb"))]
        {
            let error = settings(&[("VIEW", "disk")]).unwrap_err().to_string();
            assert!(error.contains("without RocksDB") && error.contains("--features rocksdb"), "{error}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_paths_are_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("broker.toml");
        let text = "participant_id = 'urn:b'\nlog = 'json'\n[registry]\nlisten = '127.0.0.1:1'\n[tls]\ncertificate = 'c.pem'\nkey = 'k'\ntrust = '/t'\n";
        std::fs::write(&file, text).unwrap();
        let variables = HashMap::from([("KONTOR_BROKER__REGISTRY__LISTEN".to_owned(), "127.0.0.1:2".to_owned())]);
        let settings = Settings::read(Some(&file), Some(variables)).unwrap();
        assert_eq!((settings.registry_listen.port(), settings.log), (2, LogFormat::Json));
        assert_eq!((settings.tls.certificate, settings.tls.trust), (folder.path().join("c.pem"), "/t".into()));
    }
}
