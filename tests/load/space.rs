//! The programs, started in a folder of their own with throw-away certificates, on ports of the
//! system's choice; killed and removed at the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kontor_core::id::ParticipantId;
use kontor_wire::http::{Client, HttpLimits, client};
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::tls::{TlsFiles, TlsIdentity};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROVIDER: &str = "urn:kontor:load:provider";
pub(crate) const CONSUMER: &str = "urn:kontor:load:consumer";
pub(crate) const BROKER: &str = "urn:kontor:load:broker";
/// This tool, where it speaks to peers itself.
pub(crate) const METER: &str = "urn:kontor:load:meter";
pub(crate) const NGINX: &str = "urn:kontor:load:nginx";

/// How long a program may take to say where it listens.
const START_MAX: Duration = Duration::from_secs(20);
/// How often we look whether it has; the error of a start's time.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// The built programs.
#[derive(Debug)]
pub(crate) struct Programs {
    connector: PathBuf,
    broker: PathBuf,
}

impl Programs {
    /// Builds both beside this program, with its own profile; without cargo they must be there.
    pub(crate) fn build() -> Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let folder = own.parent().context("this program is in no folder")?;
        #[expect(clippy::disallowed_methods, reason = "set by cargo, not a setting")]
        let cargo = std::env::var_os("CARGO");
        if let (Some(cargo), Some(target)) = (cargo, folder.parent()) {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--package", "kontor", "--package", "kontor-broker", "--bins"]);
            build.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                build.arg("--release");
            } else {
                println!("This is no release build: its figures mean little.");
            }
            ensure!(build.status().context("cannot run cargo")?.success(), "the programs could not be built");
        }
        let programs = Self { connector: folder.join("kontor"), broker: folder.join("kontor-broker") };
        for program in [&programs.connector, &programs.broker] {
            ensure!(
                program.is_file(),
                "`{}` is not there; `cargo build --release -p kontor -p kontor-broker --bins` builds it",
                program.display()
            );
        }
        Ok(programs)
    }
}

/// A folder with certificates, in which programs run.
pub(crate) struct Space {
    root: TempDir,
    authority: Authority,
}

impl Space {
    pub(crate) fn create() -> Result<Self> {
        let root = TempDir::with_prefix("kontor-load-")?;
        std::fs::create_dir(root.path().join("pki"))?;
        let authority = Authority::generate("Kontor load authority")?;
        let space = Self { root, authority };
        for (name, participant) in
            [("provider", PROVIDER), ("consumer", CONSUMER), ("broker", BROKER), ("meter", METER), ("nginx", NGINX)]
        {
            let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let request = CertificateRequest::new(ParticipantId::parse(participant)?, hosts);
            space.authority.issue(&request)?.save(&space.folder("pki"), name, &space.authority)?;
        }
        Ok(space)
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        let pki = self.folder("pki");
        TlsFiles {
            certificate: pki.join(format!("{name}.pem")),
            key: pki.join(format!("{name}.key")),
            trust: pki.join("ca.pem"),
        }
    }

    pub(crate) fn identity(&self, name: &str) -> Result<TlsIdentity> {
        Ok(TlsIdentity::load(&self.files(name))?)
    }

    /// The folder that the provider serves from.
    pub(crate) fn source(&self) -> Result<PathBuf> {
        let source = self.folder("source");
        std::fs::create_dir_all(&source)?;
        Ok(source)
    }

    pub(crate) fn start_broker(&self, programs: &Programs) -> Result<Program> {
        let settings = format!(
            "participant_id = \"{BROKER}\"\ndata_dir = {:?}\n[registry]\nlisten = \"127.0.0.1:0\"\n\
             [browse]\nlisten = \"127.0.0.1:0\"\n{}",
            self.folder("broker"),
            self.tls("broker")
        );
        self.start("broker", &programs.broker, &settings, None)
    }

    pub(crate) fn start_connector(
        &self,
        programs: &Programs,
        name: &str,
        participant: &str,
        broker: Option<&Program>,
    ) -> Result<Program> {
        let publish = match broker {
            None => String::new(),
            Some(broker) => {
                format!("[[brokers]]\nurl = \"{}\"\nparticipant_id = \"{BROKER}\"\n", broker.text("registry")?)
            }
        };
        let settings = format!(
            "participant_id = \"{participant}\"\ntitle = \"The {name} under load\"\ndata_dir = {:?}\n\
             [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
             [egress]\nallow_networks = [\"127.0.0.0/8\"]\n[data]\nsource_roots = [{:?}]\n{publish}{}",
            self.folder(name),
            self.source()?,
            self.tls(name)
        );
        let http = client(&HttpLimits::default())?;
        self.start(name, &programs.connector, &settings, Some(http))
    }

    fn tls(&self, name: &str) -> String {
        let files = self.files(name);
        format!("[tls]\ncertificate = {:?}\nkey = {:?}\ntrust = {:?}\n", files.certificate, files.key, files.trust)
    }

    fn start(&self, name: &str, program: &Path, settings: &str, http: Option<Client>) -> Result<Program> {
        let file = self.folder(&format!("{name}.toml"));
        std::fs::write(&file, settings)?;
        let data_dir = self.folder(name);
        let addresses = data_dir.join("addresses.json");
        // A file of an earlier start would be taken for this one's.
        let _ = std::fs::remove_file(&addresses);
        let log_file = self.folder(&format!("{name}.log"));
        let log = std::fs::File::create(&log_file)?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&file).stdin(Stdio::null());
        // The log of each step is what an operator turns off under load; warnings stay.
        command.env("RUST_LOG", "warn").stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        let mut process = Process(command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?);
        loop {
            if addresses.exists() {
                let ready = begun.elapsed();
                let addresses = serde_json::from_slice(&std::fs::read(&addresses)?)?;
                let http = match http {
                    None => None,
                    Some(http) => Some((http, std::fs::read_to_string(data_dir.join("management.token"))?)),
                };
                return Ok(Program { process, ready, addresses, http });
            }
            if begun.elapsed() > START_MAX || !matches!(process.0.try_wait(), Ok(None)) {
                bail!("{name} did not start:\n{}", std::fs::read_to_string(&log_file).unwrap_or_default());
            }
            #[expect(clippy::disallowed_methods, reason = "nothing else runs meanwhile, and timers are too coarse")]
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Processor seconds of the process and its children so far, from `/proc/PID/stat` in steps of 10 ms.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let own = self.0.id().to_string();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own.as_str()).chain(children.split_whitespace()).map(cpu_seconds_of).sum()
    }
}

/// Processor seconds of one process, user and system; `self` is this one.
pub(crate) fn cpu_seconds_of(process: &str) -> Result<f64> {
    /// `USER_HZ`, the same on every Linux that Rust runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in brackets may hold anything; the twelfth and thirteenth fields after it are the times.
    let (_, fields) = stat.rsplit_once(')').context("/proc has no such line")?;
    let times: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(times.iter().sum::<f64>() / TICKS_PER_SECOND)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running program.
pub(crate) struct Program {
    process: Process,
    /// From its start to its addresses.
    pub(crate) ready: Duration,
    addresses: Value,
    http: Option<(Client, String)>,
}

impl Program {
    /// One of the addresses that the program wrote down.
    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.addresses[name].as_str().with_context(|| format!("the program did not say its `{name}`"))
    }

    /// Processor seconds so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.process.cpu_seconds()
    }

    /// A line of `/proc/PID/status` in MB (10⁶ bytes): `VmRSS` now, `VmHWM` at its peak.
    pub(crate) fn memory(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: f64 = kib.context("/proc has no such line")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Forgets the peak so far. Kernels that do not allow it leave the peak of the whole life.
    pub(crate) fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.process.0.id()), "5");
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, Some(body)).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (http, token) = self.http.as_ref().context("this program has no management API")?;
        let url = format!("{}{path}", self.text("management")?);
        let mut request = http.request(http::Method::from_bytes(method.as_bytes())?, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{method} {path} was answered {status}: {text}");
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }
}
