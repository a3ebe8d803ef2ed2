//! The demo's processes, certificates and folders.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kontor_core::id::ParticipantId;
use kontor_wire::http::{HttpLimits, client};
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::tls::{TlsFiles, TlsIdentity};
use serde_json::Value;

/// How long a program may take to say where it listens.
const START_MAX: Duration = Duration::from_secs(60);

/// The broker's program: named, beside ours, or built by the cargo that runs us.
pub(super) async fn broker_program(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "`{}` is not there (--broker)", path.display());
        return Ok(path.to_path_buf());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.with_file_name("kontor-broker");
    // `cargo demo` builds the connector alone: the broker is built beside it, or found fresh.
    #[expect(clippy::disallowed_methods, reason = "set by cargo, not a setting")]
    let cargo = std::env::var_os("CARGO");
    if let Some(cargo) = cargo {
        let mut build = tokio::process::Command::new(cargo);
        build.kill_on_drop(true);
        build.args(["build", "--quiet", "--package", "kontor-broker", "--bin", "kontor-broker"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if let Some(target) = own.parent().and_then(Path::parent) {
            build.arg("--target-dir").arg(target);
        }
        if own.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        println!("Building the broker (nothing to do when it is built already) …");
        let status = build.status().await.context("cannot run cargo")?;
        ensure!(status.success(), "the broker could not be built");
    }
    ensure!(
        beside.is_file(),
        "`{}` is not there; build it with `cargo build --release --package kontor-broker`, or name it with --broker",
        beside.display()
    );
    Ok(beside)
}

/// A folder with everything in it, removed at the end.
pub(super) struct Space {
    root: PathBuf,
    authority: Authority,
    children: std::sync::Mutex<Vec<(String, Child)>>,
}

/// A running program and how to talk to it.
pub(super) struct Program {
    addresses: Value,
    data_dir: PathBuf,
    http: Option<(reqwest_client::Client, String)>,
}

/// The client type comes from the wire, which alone depends on it.
mod reqwest_client {
    pub(super) use kontor_wire::http::Client;
}

impl Space {
    pub(super) fn create() -> Result<Self> {
        let root = std::env::temp_dir().join(format!("kontor-demo-{}", std::process::id()));
        std::fs::create_dir_all(root.join("pki")).with_context(|| format!("cannot make `{}`", root.display()))?;
        let authority = Authority::generate("Kontor demo authority")?;
        authority.save(&root.join("pki"))?;
        Ok(Self { root, authority, children: std::sync::Mutex::default() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder that a participant offers files from.
    pub(super) fn files(&self, name: &str) -> Result<PathBuf> {
        let files = self.folder(name).join("source");
        std::fs::create_dir_all(&files).with_context(|| format!("cannot make `{}`", files.display()))?;
        Ok(files)
    }

    pub(super) fn received(&self, name: &str) -> PathBuf {
        self.folder(name).join("received")
    }

    pub(super) fn issue(&mut self, name: &str, participant: &str) -> Result<()> {
        std::fs::create_dir_all(self.folder(name))?;
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let request = CertificateRequest::new(ParticipantId::parse(participant)?, hosts);
        self.authority.issue(&request)?.save(&self.root.join("pki"), name, &self.authority)?;
        Ok(())
    }

    fn tls_files(&self, name: &str) -> TlsFiles {
        let pki = self.root.join("pki");
        TlsFiles {
            certificate: pki.join(format!("{name}.pem")),
            key: pki.join(format!("{name}.key")),
            trust: pki.join("ca.pem"),
        }
    }

    pub(super) fn identity(&self, name: &str) -> Result<TlsIdentity> {
        Ok(TlsIdentity::load(&self.tls_files(name))?)
    }

    /// An identity of an authority that nobody here trusts.
    pub(super) fn stranger_identity(&self) -> Result<TlsIdentity> {
        let folder = self.root.join("stranger");
        std::fs::create_dir_all(&folder)?;
        let authority = Authority::generate("Somebody else's authority")?;
        let participant = ParticipantId::parse("urn:kontor:demo:stranger")?;
        let request = CertificateRequest::new(participant, vec!["localhost".to_owned()]);
        let mut files = authority.issue(&request)?.save(&folder, "stranger", &authority)?;
        files.trust = self.root.join("pki").join("ca.pem");
        Ok(TlsIdentity::load(&files)?)
    }

    fn tls_settings(&self, name: &str) -> String {
        let files = self.tls_files(name);
        format!(
            "[tls]\ncertificate = {:?}\nkey = {:?}\ntrust = {:?}\n",
            files.certificate.display().to_string(),
            files.key.display().to_string(),
            files.trust.display().to_string()
        )
    }

    pub(super) async fn start_broker(&self, program: &Path, participant: &str) -> Result<Program> {
        let settings = format!(
            "participant_id = \"{participant}\"\ndata_dir = {:?}\n[registry]\nlisten = \"127.0.0.1:0\"\n[browse]\nlisten = \"127.0.0.1:0\"\n{}",
            self.folder("broker").display().to_string(),
            self.tls_settings("broker")
        );
        self.start("broker", program, &settings).await
    }

    pub(super) async fn start_connector(
        &self,
        name: &str,
        participant: &str,
        broker: &Program,
        sources: &[&Path],
    ) -> Result<Program> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let sources: Vec<String> = sources.iter().map(|source| source.display().to_string()).collect();
        let settings = format!(
            "participant_id = \"{participant}\"\ntitle = \"The demo's {name}\"\ndata_dir = {:?}\n\
             [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
             [egress]\nallow_networks = [\"127.0.0.0/8\"]\n[data]\nsource_roots = {sources:?}\n\
             [[brokers]]\nurl = \"{}\"\nparticipant_id = \"{}\"\n{}",
            self.folder(name).display().to_string(),
            broker.text("registry")?,
            broker.text("participant")?,
            self.tls_settings(name)
        );
        let mut started = self.start(name, &program, &settings).await?;
        let token = std::fs::read_to_string(started.token_file()).context("the management token cannot be read")?;
        started.http = Some((client(&HttpLimits::default())?, token));
        Ok(started)
    }

    async fn start(&self, name: &str, program: &Path, settings: &str) -> Result<Program> {
        let file = self.root.join(format!("{name}.toml"));
        std::fs::write(&file, settings)?;
        let log = std::fs::File::create(self.root.join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        // They end with us, however we end: our end of the pipe is in `child`.
        command.arg("serve").arg("--config").arg(&file).arg("--stop-with-stdin").stdin(Stdio::piped());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?;
        self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((name.to_owned(), child));
        let data_dir = self.folder(name);
        let begun = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(data_dir.join("addresses.json"))
                && let Ok(addresses) = serde_json::from_str(&text)
            {
                return Ok(Program { addresses, data_dir, http: None });
            }
            if begun.elapsed() > START_MAX || self.ended(name) {
                let log = std::fs::read_to_string(self.root.join(format!("{name}.log"))).unwrap_or_default();
                bail!("{name} did not start:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn ended(&self, name: &str) -> bool {
        let mut children = self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        children.iter_mut().any(|(known, child)| known == name && !matches!(child.try_wait(), Ok(None)))
    }

    /// Stops the programs and removes the folder.
    pub(super) fn clean_up(&self) {
        for (_, child) in self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.clean_up();
    }
}

impl Program {
    /// One of the addresses that the program wrote down when it started.
    pub(super) fn text(&self, name: &str) -> Result<&str> {
        self.addresses[name].as_str().with_context(|| format!("the program did not say its `{name}`"))
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.data_dir.join("management.token")
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value> {
        self.call("DELETE", path, None).await
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
        let value: Value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        if !status.is_success() {
            let field = value["field"].as_str().map(|field| format!(" at `{field}`")).unwrap_or_default();
            bail!("{}{field}", value["detail"].as_str().unwrap_or(&text));
        }
        Ok(value)
    }
}
