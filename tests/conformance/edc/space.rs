//! Both connectors, started on free ports, and a desk of the suite's own: the source of EDC's data, and the place where
//! EDC tells of its events.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::Edc;

/// Who EDC is.
pub(crate) const EDC: &str = "urn:conformance:edc";
/// Who we are.
pub(crate) const KONTOR: &str = "urn:conformance:kontor";
/// How EDC calls the protocol.
pub(crate) const PROTOCOL: &str = "dataspace-protocol-http:2025-1";
/// How long anything may take: machines of CI are slow and EDC polls. No check is about time.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long EDC may take to end what it has had all messages of, before it is said to have forgotten one. A slow EDC
/// that is counted here is counted as lost by EDC, which a run bears up to a half.
const FORGOTTEN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// The datasets that Kontor offers.
pub(crate) const DATASETS: [&str; 3] =
    ["urn:conformance:data:one", "urn:conformance:data:two", "urn:conformance:data:three"];
/// The asset that EDC offers under a permission.
pub(crate) const ASSET: &str = "urn:conformance:asset:open";
/// The asset that EDC offers under a policy without any rule.
pub(crate) const RULELESS: &str = "urn:conformance:asset:ruleless";

pub(crate) struct Space {
    pub(crate) http: reqwest::Client,
    edc: Child,
    edc_management: String,
    /// Where EDC speaks the protocol.
    pub(crate) edc_protocol: String,
    kontor: Child,
    kontor_management: String,
    /// Where Kontor speaks the protocol.
    pub(crate) kontor_protocol: String,
    token: String,
    folder: PathBuf,
    /// The base of the suite's own desk.
    pub(crate) desk: String,
    events: Arc<Mutex<Vec<Value>>>,
}

/// What both offer: large enough for several segments.
pub(crate) fn data(whose: &str) -> String {
    let mut text = String::from("whose,line\n");
    for line in 0..40_000 {
        text.push_str(&format!("{whose},{line}\n"));
    }
    text
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Space {
    pub(crate) async fn start(edc: &Edc, suite: &Path, program: &Path, folder: &Path) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let (desk, events) = desk().await?;
        let (edc, edc_management, edc_protocol) = start_edc(edc, suite, folder).await?;
        let (kontor, addresses) = start_kontor(program, folder).await?;
        let address = |name: &str| addresses[name].as_str().map(str::to_owned).context("an address is missing");
        let space = Self {
            http,
            edc,
            edc_management,
            edc_protocol,
            kontor,
            kontor_management: address("management")?,
            kontor_protocol: address("protocol")?,
            token: fs::read_to_string(folder.join("kontor/management.token"))?.trim().to_owned(),
            folder: folder.to_path_buf(),
            desk,
            events,
        };
        // Its data plane tells the control plane of itself last.
        let is_ready = async || {
            let planes = space.edc("GET", "/dataplanes", Value::Null).await.unwrap_or_default();
            Ok((planes[0]["state"] == "AVAILABLE").then_some(()))
        };
        space.until("EDC is ready", is_ready).await?;
        space.seed().await?;
        Ok(space)
    }

    async fn seed(&self) -> Result<()> {
        fs::write(self.folder.join("kontor/source/sample.csv"), data("kontor"))?;
        for id in DATASETS {
            let dataset = json!({ "id": id, "title": id, "media_type": "text/csv",
                "source": { "type": "file", "path": "sample.csv" } });
            self.kontor("POST", "/datasets", Some(dataset)).await?;
            let offer = json!({ "id": offer_of(id), "dataset": id, "policy": { "permission": [{ "action": "use" }] } });
            self.kontor("POST", "/offers", Some(offer)).await?;
        }
        for (policy, rules) in [("use", json!([{ "action": "use" }])), ("nothing", json!([]))] {
            let policy = json!({ "@id": policy, "policy": {
                "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set", "permission": rules,
            } });
            self.edc("POST", "/policydefinitions", policy).await?;
        }
        for (asset, policy) in [(ASSET, "use"), (RULELESS, "nothing")] {
            let source = json!({ "type": "HttpData", "baseUrl": format!("{}/source", self.desk) });
            let described = json!({ "@id": asset, "properties": { "name": asset }, "dataAddress": source });
            self.edc("POST", "/assets", described).await?;
            let this =
                json!([{ "operandLeft": "https://w3id.org/edc/v0.0.1/ns/id", "operator": "=", "operandRight": asset }]);
            let definition = json!({ "@id": format!("definition-{policy}"), "accessPolicyId": "use",
                "contractPolicyId": policy, "assetsSelector": this });
            self.edc("POST", "/contractdefinitions", definition).await?;
        }
        Ok(())
    }

    /// Calls EDC's management interface.
    pub(crate) async fn edc(&self, method: &str, path: &str, mut body: Value) -> Result<Value> {
        let mut request = self.http.request(method.parse()?, format!("{}{path}", self.edc_management));
        if let Some(map) = body.as_object_mut() {
            map.insert("@context".to_owned(), json!({ "@vocab": "https://w3id.org/edc/v0.0.1/ns/" }));
            request = request.json(&body);
        }
        answer("EDC", request).await
    }

    /// Calls Kontor's management interface.
    pub(crate) async fn kontor(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method.parse()?, format!("{}{path}", self.kontor_management));
        request = request.bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer("Kontor", request).await
    }

    /// Looks until there is something; what was looked at last is told when there never is.
    pub(crate) async fn until<T, F>(&self, what: &str, look: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            ensure!(began.elapsed() < PATIENCE, "waited for {PATIENCE:?} until {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A process of Kontor's, once it is in one of the states with nothing of ours on its way.
    pub(crate) async fn kontor_in(&self, kind: &str, id: &str, states: &[&str]) -> Result<Value> {
        self.until(&format!("Kontor's {kind} `{id}` is one of {states:?}"), async || {
            let now = self.kontor("GET", &format!("/{kind}/{id}"), None).await?;
            let settled = now["pending"].is_null() && states.iter().any(|state| now["state"] == *state);
            Ok(settled.then_some(now))
        })
        .await
    }

    /// A process of EDC's, once it is in one of the states.
    pub(crate) async fn edc_in(&self, kind: &str, id: &str, states: &[&str]) -> Result<Value> {
        self.until(&format!("EDC's {kind} `{id}` is one of {states:?}"), async || {
            let now = self.edc("GET", &format!("/{kind}/{id}"), Value::Null).await?;
            Ok(states.iter().any(|state| now["state"] == *state).then_some(now))
        })
        .await
    }

    /// A negotiation of Kontor's, once it is in one of the states. The error is how EDC left it alone: it ended without
    /// telling, or it took every message of Kontor's and says nothing more.
    pub(crate) async fn kontor_unless_edc_left(
        &self,
        here: &str,
        there: &str,
        states: &[&str],
    ) -> Result<std::result::Result<Value, String>> {
        let still = std::cell::RefCell::new((Instant::now(), String::new()));
        self.until(&format!("Kontor's negotiation `{here}` is one of {states:?}"), async || {
            let ours = self.kontor("GET", &format!("/negotiations/{here}"), None).await?;
            let waiting = ours["pending"].is_null();
            if waiting && states.iter().any(|state| ours["state"] == *state) {
                return Ok(Some(Ok(ours)));
            }
            let theirs = self.edc("GET", &format!("/contractnegotiations/{there}"), Value::Null).await?;
            let now = format!("{} {} {waiting}", ours["state"], theirs["state"]);
            let mut still = still.borrow_mut();
            if still.1 != now {
                *still = (Instant::now(), now);
            }
            if still.0.elapsed() < FORGOTTEN {
                return Ok(None);
            }
            let state = theirs["state"].as_str().unwrap_or_default();
            Ok(match (waiting, state) {
                (_, "TERMINATED") => Some(Err("ended without telling, Kontor goes on trying to reach it".to_owned())),
                (true, _) => Some(Err(format!("took Kontor's last message and forgot it, stays {state}"))),
                // Ours is on its way.
                (false, _) => None,
            })
        })
        .await
    }

    /// As [`Self::edc_in`], for a process that has ended for Kontor: EDC has had all messages, and some time. The error is
    /// the state that it stays in.
    pub(crate) async fn edc_soon_in(
        &self,
        kind: &str,
        id: &str,
        states: &[&str],
    ) -> Result<std::result::Result<Value, String>> {
        let began = Instant::now();
        loop {
            let now = self.edc("GET", &format!("/{kind}/{id}"), Value::Null).await?;
            if states.iter().any(|state| now["state"] == *state) {
                return Ok(Ok(now));
            }
            if began.elapsed() >= FORGOTTEN {
                return Ok(Err(now["state"].as_str().unwrap_or_default().to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Kontor's process that EDC knows under an identifier of its own.
    pub(crate) async fn kontor_of(&self, kind: &str, edc_id: &str) -> Result<String> {
        self.until(&format!("Kontor has a {kind} that is `{edc_id}` to EDC"), async || {
            let list = self.kontor("GET", &format!("/{kind}?limit=500"), None).await?;
            let found = list["items"].as_array().into_iter().flatten().find(|item| item["peer_pid"] == edc_id);
            Ok(found.and_then(|item| item["id"].as_str()).map(str::to_owned))
        })
        .await
    }

    /// EDC's word that a transfer of its was started, so many times; the latest.
    pub(crate) async fn started(&self, transfer: &str, times: usize) -> Result<Value> {
        self.until(&format!("EDC tells that `{transfer}` started"), async || {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let of_it: Vec<&Value> =
                events.iter().filter(|event| event["payload"]["transferProcessId"] == transfer).collect();
            Ok((of_it.len() >= times).then(|| of_it.last().map(|event| (*event).clone())).flatten())
        })
        .await
    }

    /// Where Kontor puts what it received.
    pub(crate) fn received(&self, name: &str) -> PathBuf {
        self.folder.join("kontor/received").join(name)
    }

    /// Kontor's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("kontor.log")).unwrap_or_default()
    }

    /// Ends both; an error if one of them was gone before.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        for (name, child) in [("EDC", &mut self.edc), ("Kontor", &mut self.kontor)] {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended during the run ({status})");
            }
            child.kill().await?;
        }
        Ok(())
    }
}

/// The one offer of a dataset of Kontor's.
pub(crate) fn offer_of(dataset: &str) -> String {
    dataset.replace(":data:", ":offer:")
}

async fn answer(whose: &str, request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await.with_context(|| format!("{whose} did not answer"))?;
    let (status, url) = (response.status(), response.url().path().to_owned());
    let text = response.text().await?;
    ensure!(status.is_success(), "{whose} answered {status} to {url}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn desk() -> Result<(String, Arc<Mutex<Vec<Value>>>)> {
    let events = Arc::<Mutex<Vec<Value>>>::default();
    let router = Router::new()
        .route("/source", get(|| async { data("edc") }))
        .route(
            "/events",
            post(|State(events): State<Arc<Mutex<Vec<Value>>>>, axum::Json(event): axum::Json<Value>| async move {
                events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }),
        )
        .with_state(events.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((base, events))
}

async fn start_edc(edc: &Edc, suite: &Path, folder: &Path) -> Result<(Child, String, String)> {
    let class_path = edc.class_path(suite, folder).await?;
    let mut settings = fs::read_to_string(suite.join("edc.properties"))?;
    // EDC cannot take a port by itself; these were free a moment ago.
    let (management, protocol) = (free_port()?, free_port()?);
    for (key, port) in [
        ("web.http.port", free_port()?),
        ("web.http.management.port", management),
        ("web.http.protocol.port", protocol),
        ("web.http.control.port", free_port()?),
        ("kontor.conformance.public.port", free_port()?),
    ] {
        settings.push_str(&format!("{key}={port}\n"));
    }
    settings.push_str(&format!("edc.dsp.callback.address=http://127.0.0.1:{protocol}/protocol\n"));
    let file = folder.join("edc.properties");
    fs::write(&file, settings)?;
    let log = fs::File::create(folder.join("edc.log"))?;
    let child = Command::new("java")
        .args(["-Xmx512m", &format!("-Dedc.fs.config={}", file.display()), "-cp", &class_path])
        .args(["org.eclipse.edc.boot.system.runtime.BaseRuntime", "--no-color"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start java")?;
    let management = format!("http://127.0.0.1:{management}/management/v3");
    Ok((child, management, format!("http://127.0.0.1:{protocol}/protocol/2025-1")))
}

async fn start_kontor(program: &Path, folder: &Path) -> Result<(Child, Value)> {
    let state = folder.join("kontor");
    fs::create_dir_all(state.join("source"))?;
    fs::write(
        folder.join("kontor.toml"),
        format!(
            "participant_id = \"{KONTOR}\"\ndata_dir = \"kontor\"\nprofile = \"insecure\"\n\
             [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n"
        ),
    )?;
    let log = fs::File::create(folder.join("kontor.log"))?;
    let mut child = Command::new(program)
        .args(["serve", "--config"])
        .arg(folder.join("kontor.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    let began = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(state.join("addresses.json")) {
            return Ok((child, serde_json::from_str(&text)?));
        }
        if let Some(status) = child.try_wait()? {
            bail!("Kontor did not start ({status}): {}", fs::read_to_string(folder.join("kontor.log"))?);
        }
        ensure!(began.elapsed() < PATIENCE, "Kontor does not listen after {PATIENCE:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
