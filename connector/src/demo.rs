//! `kontor demo`: a data space on one machine, from throw-away certificates to an enforced
//! contract, with three real processes. Each step says what it does and fails loudly.

mod sample;
mod space;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kontor_core::id::ParticipantId;
use kontor_wire::client::{ClientLimits, PeerClient};
use kontor_wire::egress::EgressFilter;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::space::{Program, Space};

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// Offer this file or folder instead of the generated table.
    pub data: Option<PathBuf>,
    /// Leave everything running until Ctrl-C.
    pub keep: bool,
    /// Where the broker's program is.
    pub broker: Option<PathBuf>,
}

const PROVIDER: &str = "urn:kontor:demo:provider";
const CONSUMER: &str = "urn:kontor:demo:consumer";
const BROKER: &str = "urn:kontor:demo:broker";
const OUTSIDER: &str = "urn:kontor:demo:outsider";
const TABLE: &str = "urn:kontor:demo:dataset:trades";
const STREAM: &str = "urn:kontor:demo:dataset:stream";
const MIB: f64 = 1024.0 * 1024.0;
/// How often the cut is tried: it must fall between the start and the end of a fast transfer.
const CUT_ATTEMPTS: u32 = 5;
/// How long the report of a flow may take after its end.
const REPORTED_MAX: Duration = Duration::from_secs(10);
/// How long the broker may take to learn of what is offered.
const FOUND_MAX: Duration = Duration::from_secs(30);

/// Runs the demo.
///
/// # Errors
/// The step that failed, with what it saw; or the signal that stopped it before its last step. Everything is cleaned up
/// either way.
pub fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(until_told(options));
    // A file that is still read or written for a step that was given up holds up nobody.
    runtime.shutdown_background();
    ended
}

/// The signals that ask a program to end: Ctrl-C, a terminal that closes, and `kill`.
struct Signals([(&'static str, Signal); 3]);

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |name, kind| signal(kind).with_context(|| format!("cannot listen for {name}"));
        let [int, term, hup] = ["SIGINT", "SIGTERM", "SIGHUP"];
        Ok(Self([
            (int, listen(int, SignalKind::interrupt())?),
            (term, listen(term, SignalKind::terminate())?),
            (hup, listen(hup, SignalKind::hangup())?),
        ]))
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        let [(int, interrupt), (term, terminate), (hup, hangup)] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => int,
            _ = terminate.recv() => term,
            _ = hangup.recv() => hup,
        }
    }
}

async fn until_told(options: Options) -> Result<()> {
    let mut signals = Signals::listen()?;
    let keep = options.keep;
    // What was begun goes with the steps that are given up: programs are killed, folders removed.
    let shown = tokio::select! {
        shown = show(options) => shown?,
        name = signals.next() => bail!("{name} came before the last step; everything is stopped and removed"),
    };
    if keep {
        shown.next_steps()?;
        signals.next().await;
        println!();
    }
    shown.space.clean_up();
    println!("Everything is stopped and removed.");
    Ok(())
}

/// Runs what reads or writes whole files on a thread for that, so that a signal is heard meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work on a file was aborted")?
}

fn step(number: u32, text: &str) {
    println!("\n[{number}/9] {text}");
}

fn say(text: impl AsRef<str>) {
    println!("      {}", text.as_ref());
}

/// A data space that has shown everything.
struct Shown {
    space: Space,
    broker: Program,
    provider: Program,
    consumer: Program,
}

async fn show(options: Options) -> Result<Shown> {
    let begun = Instant::now();
    println!("A data space on this machine: a broker, a provider and a consumer, three processes.");
    let broker_program = space::broker_program(options.broker.as_deref()).await?;

    step(1, "Certificates: a throw-away authority, and one certificate per participant");
    let mut space = Space::create()?;
    for (name, participant) in
        [("broker", BROKER), ("provider", PROVIDER), ("consumer", CONSUMER), ("outsider", OUTSIDER)]
    {
        space.issue(name, participant)?;
        say(format!("{participant} is a URI in the certificate {name}.pem"));
    }

    // The provider's own files lie in the demo's folder. Nothing is put beside the user's.
    let files = space.files("provider")?;
    let table = sample::prepare(&files, options.data.as_deref())?;
    step(2, "Three programs start, each with its own store, certificate and ports");
    let broker = space.start_broker(&broker_program, BROKER).await?;
    let provider = space.start_connector("provider", PROVIDER, &broker, &[&table.root, &files]).await?;
    let consumer = space.start_connector("consumer", CONSUMER, &broker, &[&space.folder("consumer")]).await?;
    say(format!("broker    {} (mutual TLS), page for people {}", broker.text("registry")?, broker.text("browse")?));
    say(format!("provider  {} (mutual TLS)", provider.text("protocol")?));
    say(format!("consumer  {} (mutual TLS)", consumer.text("protocol")?));

    step(3, "The provider offers data under a policy");
    say(&table.words);
    provider
        .post(
            "/datasets",
            &json!({
                "id": TABLE, "title": table.title, "description": table.words, "keywords": ["trade", "demo"],
                "media_type": table.media_type, "source": table.source,
            }),
        )
        .await?;
    provider
        .post(
            "/offers",
            &json!({
                "id": "urn:kontor:demo:offer:trades", "dataset": TABLE,
                "policy": { "permission": [{ "action": "use", "constraint": [
                    { "leftOperand": "count", "operator": "lteq", "rightOperand": "10" }
                ]}]},
            }),
        )
        .await?;
    say("policy: use it, at most 10 times under one contract");
    let refused = provider
        .post(
            "/offers",
            &json!({
                "dataset": TABLE,
                "policy": { "permission": [{ "action": "use", "constraint": [
                    { "leftOperand": "product", "operator": "eq", "rightOperand": "https://example.org/bread" }
                ]}]},
            }),
        )
        .await;
    match refused {
        Err(error) => say(format!("a policy that nobody here could enforce is not put up: {error}")),
        Ok(_) => bail!("an offer with a constraint that cannot be enforced was put up"),
    }

    step(4, "The provider publishes its self-description; the consumer finds it at the broker by SPARQL");
    let found = find(&consumer).await?;
    say(format!("found `{}` at {}", found.title, found.endpoint));
    ensure!(found.participant == PROVIDER, "the broker names {} as provider", found.participant);

    step(5, "The two connectors negotiate a contract");
    let began = Instant::now();
    let agreement = negotiate(&consumer, &found.endpoint, TABLE).await?;
    say(format!("FINALIZED on both sides after {} ms", began.elapsed().as_millis()));
    say(format!("agreement {agreement}"));

    step(6, "The data flows over mutual TLS, and both sides count and digest it");
    let transfer = transfer(&consumer, &agreement, &table.sink("trades")).await?;
    ensure!(transfer["state"] == "COMPLETED", "the transfer ended as {transfer}");
    compare(&provider, &consumer, &transfer, &table, &space).await?;

    step(7, "A larger stream, whole");
    let stream = files.join("stream.bin");
    let written = stream.clone();
    blocking(move || sample::stream(&written)).await?;
    provider
        .post(
            "/datasets",
            &json!({
                "id": STREAM, "title": "A stream of 256 MiB", "description": "Pseudo-random bytes from a fixed seed",
                "media_type": "application/octet-stream", "source": { "type": "file", "path": stream },
            }),
        )
        .await?;
    offer_stream(&provider, "open", &json!([{ "action": "use" }])).await?;
    let agreement = negotiate(&consumer, &found.endpoint, STREAM).await?;
    let began = Instant::now();
    let whole = self::transfer(&consumer, &agreement, &json!({ "type": "file", "path": "stream.bin" })).await?;
    ensure!(whole["state"] == "COMPLETED", "the stream ended as {whole}");
    let taken = began.elapsed();
    say(format!(
        "256 MiB in {} ms ({:.0} MiB/s, requested, streamed, digested, written, verified)",
        taken.as_millis(),
        256.0 / taken.as_secs_f64()
    ));

    step(8, "A contract whose time ends in the middle of the transfer is cut");
    provider.delete("/offers/urn:kontor:demo:offer:stream:open").await?;
    cut(&provider, &consumer, &found.endpoint, taken, &space).await?;

    step(9, "A third party asks");
    outsider(&space, &found.endpoint).await?;

    println!("\nAll nine steps passed in {:.1} s.", begun.elapsed().as_secs_f64());
    Ok(Shown { space, broker, provider, consumer })
}

struct Found {
    title: String,
    participant: String,
    endpoint: String,
}

async fn find(consumer: &Program) -> Result<Found> {
    let query = "PREFIX dcat: <http://www.w3.org/ns/dcat#> PREFIX dct: <http://purl.org/dc/terms/> \
        PREFIX dspace: <https://w3id.org/dspace/2025/1/> \
        SELECT ?title ?participant ?endpoint WHERE { \
          ?catalog dcat:dataset ?dataset ; dspace:participantId ?participant ; dcat:service/dcat:endpointURL ?endpoint . \
          ?dataset dct:title ?title ; dcat:keyword \"trade\" }";
    say("SELECT the title, participant and endpoint of datasets WHERE the keyword is \"trade\"");
    // The provider publishes on its own, a moment after the offer was put up.
    let begun = Instant::now();
    while begun.elapsed() < FOUND_MAX {
        let answer = consumer.post("/brokers/query", &json!({ "sparql": query })).await?;
        if let Some(row) = answer["results"]["bindings"].get(0) {
            let text = |name: &str| row[name]["value"].as_str().unwrap_or_default().to_owned();
            return Ok(Found { title: text("title"), participant: text("participant"), endpoint: text("endpoint") });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the broker did not learn of the dataset within {FOUND_MAX:?}")
}

async fn negotiate(consumer: &Program, endpoint: &str, dataset: &str) -> Result<String> {
    let begun = consumer
        .post("/negotiations", &json!({ "counterparty": PROVIDER, "address": endpoint, "dataset": dataset }))
        .await?;
    let id = begun["id"].as_str().context("the negotiation has no id")?;
    let done = consumer.get(&format!("/negotiations/{id}?wait=FINALIZED&timeout_ms=30000")).await?;
    ensure!(done["state"] == "FINALIZED", "the negotiation ended as {done}");
    Ok(done["agreement"]["id"].as_str().context("the agreement has no id")?.to_owned())
}

async fn transfer(consumer: &Program, agreement: &str, sink: &Value) -> Result<Value> {
    let begun = consumer.post("/transfers", &json!({ "agreement": agreement, "sink": sink })).await?;
    let id = begun["id"].as_str().context("the transfer has no id")?;
    // Asked twice: one question waits for at most half a minute.
    for _ in 0..2 {
        let now = consumer.get(&format!("/transfers/{id}?wait=COMPLETED&timeout_ms=30000")).await?;
        if now["state"] == "COMPLETED" || now["state"] == "TERMINATED" {
            return Ok(now);
        }
    }
    consumer.get(&format!("/transfers/{id}")).await
}

async fn compare(
    provider: &Program,
    consumer: &Program,
    transfer: &Value,
    table: &sample::Table,
    space: &Space,
) -> Result<()> {
    let id = transfer["id"].as_str().unwrap_or_default();
    let peer = transfer["peer_pid"].as_str().unwrap_or_default();
    let received = consumer.get(&format!("/transfers/{id}/flows")).await?;
    let mut sent = Value::Null;
    // The provider's report is written when its side of the connection is done.
    for _ in 0..100 {
        sent = provider.get(&format!("/transfers/{peer}/flows")).await?;
        if sent["items"].as_array().map_or(0, Vec::len) >= received["items"].as_array().map_or(0, Vec::len) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let figures = |flows: &Value| -> Vec<(u64, String)> {
        let mut all: Vec<(u64, String)> = flows["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|flow| {
                (flow["bytes"].as_u64().unwrap_or(0), flow["digest_blake3"].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        all.sort();
        all
    };
    let (theirs, ours) = (figures(&sent), figures(&received));
    ensure!(!ours.is_empty() && theirs == ours, "the two sides disagree: {theirs:?} and {ours:?}");
    for (bytes, digest) in &ours {
        say(format!("{bytes} bytes, blake3 {}… on both sides", digest.get(..16).unwrap_or(digest)));
    }
    let (original, copy) = (table.path.clone(), space.received("consumer").join("trades"));
    let digests = blocking(move || Ok((sample::digest_of(&original)?, sample::digest_of(&copy)?)));
    let (original, copy) = digests.await?;
    ensure!(original == copy, "the received data differs from the offered data");
    say("what was received is what was offered, byte for byte");
    Ok(())
}

async fn offer_stream(provider: &Program, name: &str, permission: &Value) -> Result<()> {
    provider
        .post(
            "/offers",
            &json!({
                "id": format!("urn:kontor:demo:offer:stream:{name}"), "dataset": STREAM,
                "policy": { "permission": permission },
            }),
        )
        .await?;
    Ok(())
}

async fn cut(provider: &Program, consumer: &Program, endpoint: &str, whole: Duration, space: &Space) -> Result<()> {
    let mut whole = whole;
    for attempt in 1..=CUT_ATTEMPTS {
        // More time for the contract, where it was too short.
        let end = jiff::Timestamp::now() + Duration::from_millis(1500) * attempt;
        let permission = json!([{ "action": "use", "constraint": [
            { "leftOperand": "dateTime", "operator": "lt", "rightOperand": { "@value": end.to_string(), "@type": "xsd:dateTime" } }
        ]}]);
        let name = format!("until:{attempt}");
        offer_stream(provider, &name, &permission).await?;
        let agreement = negotiate(consumer, endpoint, STREAM).await?;
        // Half of a whole transfer before the end.
        let start = end - whole / 2;
        let wait = Duration::try_from(start.duration_since(jiff::Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait).await;
        let sink = json!({ "type": "file", "path": format!("cut-{attempt}.bin") });
        let begun = Instant::now();
        let outcome = transfer(consumer, &agreement, &sink).await;
        let took = begun.elapsed();
        provider.delete(&format!("/offers/urn:kontor:demo:offer:stream:{name}")).await?;
        let ended = match outcome {
            Ok(ended) => ended,
            Err(error) => {
                say(format!("too late to begin, trying again ({error})"));
                continue;
            }
        };
        let peer = ended["peer_pid"].as_str().unwrap_or_default().to_owned();
        let id = ended["id"].as_str().unwrap_or_default().to_owned();
        if ended["state"] == "COMPLETED" {
            say("the transfer was faster than its contract's end, trying again");
            whole = whole.min(took);
            continue;
        }
        // What came is synced to the disk before the report of it; the state is there before.
        let ended_at = Instant::now();
        let bytes = loop {
            let flows = consumer.get(&format!("/transfers/{id}/flows")).await?;
            let reports = flows["items"].as_array().into_iter().flatten();
            let bytes: u64 = reports.filter_map(|flow| flow["bytes"].as_u64()).sum();
            if bytes > 0 || ended_at.elapsed() > REPORTED_MAX {
                break bytes;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if bytes == 0 {
            say("the contract ended before the first byte, trying again");
            continue;
        }
        ensure!(ended["state"] == "TERMINATED", "the transfer should be cut and is {ended}");
        let other = provider.get(&format!("/transfers/{peer}?wait=TERMINATED&timeout_ms=30000")).await?;
        ensure!(other["state"] == "TERMINATED", "the provider shows {other}");
        let sunk = space.received("consumer").join(format!("cut-{attempt}.bin"));
        ensure!(!sunk.exists(), "a cut stream looks like a whole file: {}", sunk.display());
        say(format!("the contract ended at {end}"));
        say(format!(
            "the stream was cut after {:.1} of 256 MiB; no file was left that could be taken for a whole one",
            bytes as f64 / MIB
        ));
        let why = |value: &Value| {
            let reasons: Vec<&str> =
                value["why"]["reason"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            reasons.first().map_or_else(|| value["why"].to_string(), |first| (*first).to_owned())
        };
        say(format!("provider: TERMINATED, {}", why(&other)));
        say(format!("consumer: TERMINATED, {}", why(&ended)));
        return Ok(());
    }
    bail!("no transfer could be cut within {CUT_ATTEMPTS} attempts")
}

async fn outsider(space: &Space, endpoint: &str) -> Result<()> {
    let provider = ParticipantId::parse(PROVIDER)?;
    let egress = EgressFilter::new(vec!["127.0.0.0/8".parse()?]);
    let identity = space.identity("outsider")?;
    let client = PeerClient::mutual_tls(identity, egress.clone(), ClientLimits::default());
    let message = json!({
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "TransferRequestMessage",
        "consumerPid": "urn:uuid:00000000-0000-4000-8000-000000000001",
        "agreementId": "urn:kontor:demo:somebody-elses-agreement",
        "format": "HttpData-PULL",
        "callbackAddress": "https://127.0.0.1:9/dsp",
    });
    let request = http::Request::post(format!("{endpoint}/transfers/request"))
        .header("content-type", "application/json")
        .body(Bytes::from(message.to_string()))?;
    let answer = client.send(&provider, request).await?;
    let body: Value = serde_json::from_slice(answer.body())?;
    ensure!(answer.status().is_client_error(), "the outsider was answered {}", answer.status());
    say(format!("asks for data without a contract: {} {}", answer.status(), body["reason"][0].as_str().unwrap_or("")));

    let stranger = space.stranger_identity()?;
    let client = PeerClient::mutual_tls(stranger, egress, ClientLimits::default());
    let request = http::Request::post(format!("{endpoint}/catalog/request")).body(Bytes::new())?;
    match client.send(&provider, request).await {
        Err(error) => say(format!("with a certificate of another authority: {error}")),
        Ok(answer) => bail!("a certificate of another authority was answered {}", answer.status()),
    }
    Ok(())
}

impl Shown {
    /// Says how to go on with a data space that keeps running.
    fn next_steps(&self) -> Result<()> {
        let Self { space, broker, provider, consumer } = self;
        println!("\nEverything keeps running. Try:\n");
        println!("  export PROVIDER={}", provider.text("management")?);
        println!("  export CONSUMER={}", consumer.text("management")?);
        println!("  export PROVIDER_TOKEN=$(cat {})", provider.token_file().display());
        println!("  export CONSUMER_TOKEN=$(cat {})", consumer.token_file().display());
        println!("  export PROVIDER_ID={PROVIDER}");
        println!("  export PROVIDER_DSP={}", provider.text("protocol")?);
        println!("  export PROVIDER_FILES={}", space.files("provider")?.display());
        println!("  export BROKER={}", broker.text("browse")?);
        println!();
        println!("  curl -s -H \"Authorization: Bearer $PROVIDER_TOKEN\" $PROVIDER/offers");
        println!("  curl -s -H \"Authorization: Bearer $CONSUMER_TOKEN\" $CONSUMER/agreements");
        println!("  curl -s -H \"Authorization: Bearer $CONSUMER_TOKEN\" $CONSUMER/audit");
        println!("  curl -s \"$BROKER/v1/search?q=trade\"        # or open $BROKER in a browser");
        println!();
        println!("State and certificates are in {}. Ctrl-C stops and removes everything.", space.root().display());
        Ok(())
    }
}
