//! A data space in a temporary folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kontor_core::id::ParticipantId;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::tls::TlsFiles;
use serde_json::Value;
use tempfile::TempDir;

use crate::participant::PATIENCE;
use crate::participant::Participant;
use crate::peer::{FakePeer, Recorded, Reply};
use crate::programs::{programs, wait_at_most};

/// How long a program may take until it listens; generous, since machines of CI are slow.
const START_MAX: Duration = Duration::from_secs(120);

/// How a connector is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Every decision is left to the test.
    pub manual: bool,
    /// Loopback is not on the list of networks that peers may make us call.
    pub no_egress: bool,
    /// Writing a file beyond so many KiB fails, as on a full disk.
    pub file_kib_max: Option<u64>,
    /// More keys of the section `automation`, TOML.
    pub automation: String,
    /// How long a message waits for its answer before it is said again; 10,000 where nothing is named.
    pub timeout_ms: Option<u64>,
    /// More keys of the section `delivery`, TOML.
    pub delivery: String,
    /// A file of rules, TOML; none where it is empty.
    pub rules: String,
    /// The lease that is asked of the broker, in seconds; 60 where none is named.
    pub lease_seconds: Option<u64>,
    /// More settings, TOML; top-level keys only in tables of their own.
    pub extra: String,
}

impl Options {
    /// Every decision is left to the test.
    #[must_use]
    pub fn manual() -> Self {
        Self { manual: true, ..Self::default() }
    }
}

/// A data space: an authority, a broker if wanted, and whoever is started in it.
pub struct DataSpace {
    dir: TempDir,
    authority: Authority,
    broker: Option<Broker>,
}

struct Broker {
    process: Process,
    addresses: Value,
}

impl DataSpace {
    /// An authority in a temporary folder; nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("kontor-story-").unwrap();
        Self { dir, authority: Authority::generate("Throw-away authority").unwrap(), broker: None }
    }

    /// A data space with a running broker.
    #[must_use]
    pub fn with_broker() -> Self {
        let mut space = Self::new();
        let files = space.issue("broker", &request("urn:story:broker"));
        let folder = space.dir.path().join("broker");
        std::fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "participant_id = \"urn:story:broker\"\ndata_dir = {:?}\n\
             [registry]\nlisten = \"127.0.0.1:0\"\n[browse]\nlisten = \"127.0.0.1:0\"\n\
             [lease]\nmin_seconds = 1\n{}",
            folder.join("state"),
            tls_section(&files)
        );
        std::fs::write(folder.join("settings.toml"), settings).unwrap();
        let mut process = Process::new("broker", programs().broker.clone(), &folder);
        let addresses = process.start();
        space.broker = Some(Broker { process, addresses });
        space
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The authority that everyone trusts.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The broker's plain HTTP address for reading.
    ///
    /// # Panics
    /// Without a broker.
    #[must_use]
    pub fn browse(&self) -> String {
        let broker = self.broker.as_ref().expect("a broker");
        broker.addresses["browse"].as_str().unwrap().to_owned()
    }

    /// The broker's log.
    ///
    /// # Panics
    /// Without a broker.
    #[must_use]
    pub fn broker_log(&self) -> String {
        self.broker.as_ref().expect("a broker").process.log()
    }

    /// The broker's registry for participants.
    ///
    /// # Panics
    /// Without a broker.
    #[must_use]
    pub fn registry(&self) -> String {
        let broker = self.broker.as_ref().expect("a broker");
        broker.addresses["registry"].as_str().unwrap().to_owned()
    }

    /// SIGKILL and a new start of the broker, on new ports.
    ///
    /// # Panics
    /// Without a broker.
    pub fn restart_broker(&mut self) {
        let broker = self.broker.as_mut().expect("a broker");
        broker.process.kill9();
        broker.addresses = broker.process.start();
    }

    /// SIGKILL of the broker and a new start over an empty folder, with the registry on its old port.
    ///
    /// # Panics
    /// Without a broker.
    pub fn forget_at_broker(&mut self) {
        let broker = self.broker.as_mut().expect("a broker");
        broker.process.kill9();
        std::fs::remove_dir_all(broker.process.state()).unwrap();
        let file = broker.process.folder().join("settings.toml");
        let address = broker.addresses["registry_address"].as_str().unwrap();
        let settings = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, settings.replacen("127.0.0.1:0", address, 1)).unwrap();
        broker.addresses = broker.process.start();
    }

    /// Replaces the certificate and key in a participant's files.
    pub fn reissue(&self, name: &str, request: &CertificateRequest) {
        for ending in ["pem", "key"] {
            std::fs::remove_file(self.dir.path().join("pki").join(format!("{name}.{ending}"))).unwrap();
        }
        let _ = self.issue(name, request);
    }

    /// A certificate and key of this authority, in files.
    #[must_use]
    pub fn issue(&self, name: &str, request: &CertificateRequest) -> TlsFiles {
        let folder = self.dir.path().join("pki");
        std::fs::create_dir_all(&folder).unwrap();
        self.authority.issue(request).unwrap().save(&folder, name, &self.authority).unwrap()
    }

    /// Starts a connector as `urn:story:NAME` with the usual settings.
    #[must_use]
    pub fn participant(&self, name: &str) -> Participant {
        self.participant_with(name, &Options::default())
    }

    /// Starts a connector as `urn:story:NAME`.
    #[must_use]
    pub fn participant_with(&self, name: &str, options: &Options) -> Participant {
        let id = format!("urn:story:{name}");
        let files = self.issue(name, &request(&id));
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(folder.join("state")).unwrap();
        let rules = if options.manual { hold_all() } else { options.rules.clone() };
        let mut automation = options.automation.clone();
        if !rules.is_empty() {
            std::fs::write(folder.join("rules.toml"), rules).unwrap();
            automation.push_str("\nrules = \"rules.toml\"\n");
        }
        let egress = if options.no_egress { "" } else { "[egress]\nallow_networks = [\"127.0.0.0/8\"]\n" };
        let brokers = match &self.broker {
            None => String::new(),
            Some(broker) => format!(
                "[[brokers]]\nurl = {}\nparticipant_id = \"urn:story:broker\"\nlease_seconds = {}\n",
                broker.addresses["registry"],
                options.lease_seconds.unwrap_or(60)
            ),
        };
        let settings = format!(
            "participant_id = \"{id}\"\ntitle = \"{name} of the story\"\ndata_dir = {:?}\n\
             [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
             [automation]\n{automation}\n[delivery]\nbackoff_ms = 50\nbackoff_ms_max = 400\ntimeout_ms = {}\n\
             {}\n{egress}{brokers}{}{}",
            folder.join("state"),
            options.timeout_ms.unwrap_or(10_000),
            options.delivery,
            // Looked at every second, so that a new certificate needs no restart of a test's patience.
            tls_section(&files) + "reload_seconds = 1\n",
            options.extra,
        );
        std::fs::write(folder.join("settings.toml"), settings).unwrap();
        let mut process = Process::new(name, programs().connector.clone(), &folder);
        process.file_kib_max = options.file_kib_max;
        Participant::start(&id, process)
    }

    /// A provider and a consumer that decide by themselves.
    #[must_use]
    pub fn pair(&self) -> (Participant, Participant) {
        self.pair_with(&Options::default())
    }

    /// A provider and a consumer.
    #[must_use]
    pub fn pair_with(&self, options: &Options) -> (Participant, Participant) {
        (self.participant_with("provider", options), self.participant_with("consumer", options))
    }

    /// A peer that the test plays, as `urn:story:NAME`.
    pub async fn fake(&self, name: &str, answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> FakePeer {
        let id = format!("urn:story:{name}");
        let files = self.issue(&format!("{name}-{}", uuid::Uuid::new_v4()), &request(&id));
        FakePeer::start(&id, &files, answer).await
    }
}

impl Default for DataSpace {
    fn default() -> Self {
        Self::new()
    }
}

/// A usual certificate: one participant, loopback, both directions.
#[must_use]
pub fn request(participant: &str) -> CertificateRequest {
    let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    CertificateRequest::new(ParticipantId::parse(participant).unwrap(), hosts)
}

fn tls_section(files: &TlsFiles) -> String {
    format!("[tls]\ncertificate = {:?}\nkey = {:?}\ntrust = {:?}\n", files.certificate, files.key, files.trust)
}

/// Rules that leave every decision to a person.
fn hold_all() -> String {
    let states = [
        ("negotiation", "provider", "REQUESTED"),
        ("negotiation", "provider", "ACCEPTED"),
        ("negotiation", "provider", "VERIFIED"),
        ("negotiation", "consumer", "OFFERED"),
        ("negotiation", "consumer", "AGREED"),
        ("transfer", "provider", "REQUESTED"),
    ];
    let rule = |(machine, role, state): &(&str, &str, &str)| {
        format!("[[rule]]\nmachine = \"{machine}\"\nrole = \"{role}\"\nstate = \"{state}\"\naction = \"hold\"\n")
    };
    states.iter().map(rule).collect()
}

/// A program of the house, started, killed and started again over the same folder.
pub(crate) struct Process {
    name: String,
    program: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
    file_kib_max: Option<u64>,
}

impl Process {
    pub(crate) fn new(name: &str, program: PathBuf, folder: &Path) -> Self {
        Self { name: name.to_owned(), program, folder: folder.to_owned(), child: None, file_kib_max: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Starts it and waits until it says where it listens.
    #[expect(clippy::disallowed_methods, reason = "a child inherits no setting, and there is no event to wait for")]
    pub(crate) fn start(&mut self) -> Value {
        let file = self.state().join("addresses.json");
        let _ = std::fs::remove_file(&file);
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = match self.file_kib_max {
            None => Command::new(&self.program),
            Some(kib) => {
                // Ignored, the signal becomes an error of the write. The shell counts in 512 bytes.
                let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2);
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(limit).arg(&self.program);
                shell
            }
        };
        // A test that is killed leaves no program behind.
        command.arg("serve").arg("--config").arg(self.folder.join("settings.toml")).arg("--stop-with-stdin");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KONTOR")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display())));
        let began = Instant::now();
        loop {
            if let Some(addresses) = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return addresses;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("{} ended at once, {status}:\n{}", self.name, self.log());
            }
            assert!(began.elapsed() < START_MAX, "{} does not listen:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: nothing is written any more.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let told = Command::new("sh").args(["-c", "kill -TERM $0", &child.id().to_string()]).status();
            assert!(told.is_ok_and(|status| status.success()), "the signal could not be sent");
            assert!(wait_at_most(&mut child, PATIENCE).is_some(), "{} does not stop:\n{}", self.name, self.log());
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("──── log of {} ────\n{}", self.name, self.log());
        }
    }
}
