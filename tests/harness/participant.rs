//! A running connector, driven through its management API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::programs::programs;
use crate::space::Process;

/// How long a story waits for anything before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer of an API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as JSON; a string where it is none.
    pub body: Value,
    /// The addresses of its `Link` headers, by relation.
    pub links: BTreeMap<String, String>,
}

/// The addresses of links, by relation, as our programs write them.
pub(crate) fn links(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let link = |header: &http::HeaderValue| {
        let (address, relation) = header.to_str().ok()?.strip_prefix('<')?.split_once(">; rel=\"")?;
        Some((relation.trim_end_matches('"').to_owned(), address.to_owned()))
    };
    headers.get_all("link").iter().filter_map(link).collect()
}

impl Answer {
    /// The body of a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "refused: {self:?}");
        self.body
    }

    /// Checks that it is a refusal with this status that contains these words; returns its text.
    ///
    /// # Panics
    /// When it is not.
    pub fn refused(&self, status: u16, words: &[&str]) -> String {
        let text = self.body.to_string();
        assert_eq!(self.status, status, "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in {text}");
        }
        text
    }
}

/// A running connector.
pub struct Participant {
    /// Its URI.
    pub id: String,
    process: Process,
    addresses: Value,
    token: String,
    http: reqwest::Client,
}

impl Participant {
    pub(crate) fn start(id: &str, mut process: Process) -> Self {
        let addresses = process.start();
        let token = read_token(&process);
        // Later starts listen where peers know it.
        let file = process.folder().join("settings.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let protocol = addresses["protocol_address"].as_str().unwrap();
        std::fs::write(&file, text.replacen("127.0.0.1:0", protocol, 1)).unwrap();
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(2 * PATIENCE).build().unwrap();
        Self { id: id.to_owned(), process, addresses, token, http }
    }

    /// Starts a connector of the profile `insecure` over a folder that holds its `settings.toml` and its `state`.
    #[must_use]
    pub fn insecure(id: &str, folder: &Path) -> Self {
        Self::start(id, Process::new(id, programs().connector.clone(), folder))
    }

    /// Where the profile `insecure` lets others say "begin now".
    ///
    /// # Panics
    /// Where its settings open no such port.
    #[must_use]
    pub fn initiation(&self) -> &str {
        self.addresses["initiation"].as_str().unwrap()
    }

    /// The base of its protocol, for peers.
    #[must_use]
    pub fn address(&self) -> String {
        self.addresses["protocol"].as_str().unwrap().to_owned()
    }

    /// The base of its protocol port.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://{}", self.addresses["protocol_address"].as_str().unwrap())
    }

    /// The base of its management API.
    #[must_use]
    pub fn management(&self) -> &str {
        self.addresses["management"].as_str().unwrap()
    }

    /// Its management token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until its log contains some words.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait_log(&self, words: &str) {
        let found = eventually(|| async { self.log().contains(words).then_some(()) }).await;
        assert!(found.is_some(), "`{words}` is not in the log of {}:\n{}", self.id, self.log());
    }

    /// Where its sources are.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.process.state().join("source")
    }

    /// Where its received data is.
    #[must_use]
    pub fn received(&self) -> PathBuf {
        self.process.state().join("received")
    }

    /// Its state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.process.state()
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it over the same state, on the same protocol port.
    pub fn start_again(&mut self) {
        self.addresses = self.process.start();
        self.token = read_token(&self.process);
    }

    /// SIGKILL and a new start.
    pub fn restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// Takes every broker out of its settings; from the next start on.
    ///
    /// # Panics
    /// When its settings cannot be written.
    pub fn drop_brokers(&self) {
        let file = self.process.folder().join("settings.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut in_broker = false;
        let kept = text.lines().filter(|line| {
            if line.starts_with('[') {
                in_broker = *line == "[[brokers]]";
            }
            !in_broker
        });
        std::fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
    }

    /// Any request to the management API.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.management())).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(&body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// Writes a source file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.source().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Makes a source file of zeros that takes no room on the disk.
    pub fn write_sparse(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.source().join(name);
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// Describes a dataset `urn:story:dataset:NAME` over a file.
    pub async fn add_dataset(&self, name: &str, file: &Path) -> String {
        let id = format!("urn:story:dataset:{name}");
        let dataset = json!({
            "id": id, "title": format!("{name} of the story"), "keywords": ["story"], "media_type": "text/csv",
            "source": { "type": "file", "path": file },
        });
        self.post("/datasets", dataset).await.ok();
        id
    }

    /// Puts up an offer `urn:story:offer:NAME`.
    pub async fn add_offer(&self, name: &str, dataset: &str, policy: &Value) -> String {
        let id = format!("urn:story:offer:{name}");
        self.post("/offers", json!({ "id": id, "dataset": dataset, "policy": policy })).await.ok();
        id
    }

    /// Publishes a small file under a policy; returns the dataset.
    pub async fn publish(&self, name: &str, policy: &Value) -> String {
        let file = self.write(name, format!("fair,place\n{name},Leipzig\n").repeat(1000).as_bytes());
        let dataset = self.add_dataset(name, &file).await;
        self.add_offer(name, &dataset, policy).await;
        dataset
    }

    /// Publishes a stream of zeros under a policy; returns the dataset.
    pub async fn publish_sparse(&self, name: &str, bytes: u64, policy: &Value) -> String {
        let file = self.write_sparse(name, bytes);
        let dataset = self.add_dataset(name, &file).await;
        self.add_offer(name, &dataset, policy).await;
        dataset
    }

    /// Asks for a negotiation over a dataset's first offer, as consumer.
    pub async fn try_negotiate(&self, provider: &Self, dataset: &str) -> Answer {
        let body = json!({ "counterparty": provider.id, "address": provider.address(), "dataset": dataset });
        self.post("/negotiations", body).await
    }

    /// Begins a negotiation over a dataset's first offer; returns its identifier here.
    pub async fn negotiate(&self, provider: &Self, dataset: &str) -> String {
        id_of(&self.try_negotiate(provider, dataset).await.ok())
    }

    /// A negotiation as it stands.
    pub async fn negotiation(&self, id: &str) -> Value {
        self.get(&format!("/negotiations/{id}")).await.ok()
    }

    /// A transfer as it stands.
    pub async fn transfer_state(&self, id: &str) -> Value {
        self.get(&format!("/transfers/{id}")).await.ok()
    }

    /// Waits until a negotiation is in a state, with nothing of ours on its way.
    pub async fn wait_negotiation(&self, id: &str, state: &str) -> Value {
        self.wait_state("negotiations", id, state).await
    }

    /// Waits until a transfer is in a state, with nothing of ours on its way.
    pub async fn wait_transfer(&self, id: &str, state: &str) -> Value {
        self.wait_state("transfers", id, state).await
    }

    async fn wait_state(&self, kind: &str, id: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let value = self.get(&format!("/{kind}/{id}?wait={state}&timeout_ms=2000")).await.ok();
            if value["state"] == state && value.get("pending").is_none_or(Value::is_null) {
                return value;
            }
            let over = matches!(value["state"].as_str(), Some("FINALIZED" | "TERMINATED" | "COMPLETED"));
            assert!(!over || value["state"] == state, "{} wanted {state}: {value:#}", self.id);
            assert!(began.elapsed() < PATIENCE, "{} waited for {state}: {value:#}", self.id);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Our negotiation or transfer that a peer knows under this identifier.
    pub async fn counterpart(&self, kind: &str, peer_pid: &str) -> String {
        let found = eventually(|| async {
            let items = self.list(kind).await;
            items.iter().find(|item| item["peer_pid"] == peer_pid).map(id_of)
        })
        .await;
        found.unwrap_or_else(|| panic!("{} knows no {kind} with the peer's {peer_pid}", self.id))
    }

    /// All negotiations, transfers, agreements, datasets or offers.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        self.get(&format!("/{kind}?limit=500")).await.ok()["items"].as_array().unwrap().clone()
    }

    /// Carries out an action on a negotiation.
    pub async fn act(&self, id: &str, action: &str, body: Value) -> Answer {
        self.post(&format!("/negotiations/{id}/{action}"), body).await
    }

    /// Carries out an action on a transfer.
    pub async fn act_transfer(&self, id: &str, action: &str, body: Value) -> Answer {
        self.post(&format!("/transfers/{id}/{action}"), body).await
    }

    /// Negotiates until both sides have an agreement in force; returns it.
    pub async fn agree(&self, provider: &Self, dataset: &str) -> String {
        let id = self.negotiate(provider, dataset).await;
        let here = self.wait_negotiation(&id, "FINALIZED").await;
        let there = provider.counterpart("negotiations", &id).await;
        provider.wait_negotiation(&there, "FINALIZED").await;
        here["agreement"]["id"].as_str().unwrap().to_owned()
    }

    /// Requests a transfer; with a file name the data is pulled there, without the token is left alone.
    pub async fn try_transfer(&self, agreement: &str, file: Option<&str>) -> Answer {
        let mut body = json!({ "agreement": agreement });
        if let Some(file) = file {
            body["sink"] = json!({ "type": "file", "path": file });
        }
        self.post("/transfers", body).await
    }

    /// As [`Self::try_transfer`]; returns its identifier here.
    pub async fn transfer(&self, agreement: &str, file: Option<&str>) -> String {
        id_of(&self.try_transfer(agreement, file).await.ok())
    }

    /// The reports of a transfer's flows.
    pub async fn flows(&self, transfer: &str) -> Vec<Value> {
        self.get(&format!("/transfers/{transfer}/flows")).await.ok()["items"].as_array().unwrap().clone()
    }

    /// Waits until so many flow reports are there.
    pub async fn wait_flows(&self, transfer: &str, count: usize) -> Vec<Value> {
        let flows = eventually(|| async {
            let flows = self.flows(transfer).await;
            (flows.len() >= count).then_some(flows)
        })
        .await;
        match flows {
            Some(flows) => flows,
            None => panic!("{} has not {count} flow reports of {transfer}: {:?}", self.id, self.flows(transfer).await),
        }
    }

    /// Waits until a flow of a transfer runs.
    pub async fn wait_running(&self, transfer: &str) {
        let running = eventually(|| async {
            let flows = self.get(&format!("/transfers/{transfer}/flows")).await.ok();
            (flows["running"].as_u64() > Some(0)).then_some(())
        })
        .await;
        assert!(running.is_some(), "{}: nothing of {transfer} flows", self.id);
    }

    /// The audit log of a process.
    pub async fn audit(&self, process: &str) -> Vec<Value> {
        self.get(&format!("/audit?process={process}&limit=500")).await.ok()["items"].as_array().unwrap().clone()
    }

    /// Messages that wait to be delivered.
    pub async fn outbox(&self) -> Vec<Value> {
        self.get("/outbox").await.ok()["items"].as_array().unwrap().clone()
    }
}

fn read_token(process: &Process) -> String {
    std::fs::read_to_string(process.state().join("management.token")).unwrap().trim().to_owned()
}

/// The `id` of a process.
#[must_use]
pub fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned()
}

/// Sends a request and reads the answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
    let status = response.status().as_u16();
    let links = links(response.headers());
    let text = response.text().await.unwrap_or_default();
    Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)), links }
}

/// Asks again until there is an answer, or patience is over.
pub async fn eventually<T, F>(look: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if began.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
