//! The measurements.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kontor_core::id::ParticipantId;
use serde_json::{Value, json};

use crate::figures::{
    EDC, EDC_IDLE_MB, EDC_NEGOTIATION_DEFAULT_MS, EDC_NEGOTIATION_TUNED_MS, EDC_NEGOTIATIONS_PER_SECOND, Times,
    heading, line, ms, spread,
};
use crate::nginx::Nginx;
use crate::peer::Peer;
use crate::space::{BROKER, CONSUMER, NGINX, PROVIDER, Program, Programs, Space, cpu_seconds_of};

const DATASET: &str = "urn:kontor:load:dataset";
const OFFER: &str = "urn:kontor:load:offer";
const STARTS: usize = 11;
/// Negotiations before the first that counts: connections are made, statements prepared, caches filled.
const WARM_UP: usize = 50;
const IN_FLIGHT: usize = 16;
/// Datasets in the catalogue, each with one offer.
const DATASETS: usize = 50;
const REQUESTS: usize = 500;
/// After which a program that has done nothing is called idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);
const GIB: u64 = 1024 * 1024 * 1024;
/// From the negotiation's start: longer, and something is broken rather than slow.
const STUCK_MS: u64 = 30_000;

/// Start to addresses.
pub(crate) async fn start(programs: &Programs) -> Result<()> {
    heading("Start to ready: from spawn to addresses.json, listening and able to answer");
    let space = Space::create()?;
    let (mut fresh, mut again, mut broker_fresh, mut broker_again) = (vec![], vec![], vec![], vec![]);
    for _ in 0..STARTS {
        fresh.push(space.start_connector(programs, "provider", PROVIDER, None)?.ready);
        again.push(space.start_connector(programs, "provider", PROVIDER, None)?.ready);
        broker_fresh.push(space.start_broker(programs)?.ready);
        broker_again.push(space.start_broker(programs)?.ready);
        std::fs::remove_dir_all(space.folder("provider"))?;
        std::fs::remove_dir_all(space.folder("broker"))?;
    }
    line("kontor, new store", Times::new(fresh).words());
    line("kontor, existing store", Times::new(again).words());
    line("kontor-broker, new store", Times::new(broker_fresh).words());
    line("kontor-broker, existing store", Times::new(broker_again).words());
    Ok(())
}

struct Pair {
    space: Space,
    provider: Program,
    consumer: Program,
}

impl Pair {
    fn start(programs: &Programs) -> Result<Self> {
        let space = Space::create()?;
        let provider = space.start_connector(programs, "provider", PROVIDER, None)?;
        let consumer = space.start_connector(programs, "consumer", CONSUMER, None)?;
        Ok(Self { space, provider, consumer })
    }

    async fn negotiate(&self) -> Result<Value> {
        let new = json!({ "counterparty": PROVIDER, "address": self.provider.text("protocol")?, "dataset": DATASET });
        let begun = self.consumer.post("/negotiations", &new).await?;
        let id = begun["id"].as_str().context("the negotiation has no id")?;
        let wait = format!("wait=FINALIZED&timeout_ms={STUCK_MS}");
        let ours = self.consumer.get(&format!("/negotiations/{id}?{wait}")).await?;
        ensure!(ours["state"] == "FINALIZED", "the consumer's side ended as {ours}");
        let peer = ours["peer_pid"].as_str().context("the negotiation has no peer_pid")?;
        let theirs = self.provider.get(&format!("/negotiations/{peer}?{wait}")).await?;
        ensure!(theirs["state"] == "FINALIZED", "the provider's side ended as {theirs}");
        Ok(ours)
    }
}

async fn offer(provider: &Program, dataset: &str, offer: &str, path: &std::path::Path) -> Result<()> {
    let source = json!({ "type": "file", "path": path });
    let new = json!({
        "id": dataset, "title": "Data under load", "description": "Measured, not read", "keywords": ["load"],
        "source": source,
    });
    provider.post("/datasets", &new).await?;
    let policy = json!({ "permission": [{ "action": "use" }] });
    provider.post("/offers", &json!({ "id": offer, "dataset": dataset, "policy": policy })).await?;
    Ok(())
}

/// From the API call to FINALIZED on both sides.
pub(crate) async fn negotiation(programs: &Programs, count: usize) -> Result<()> {
    heading("Negotiation: POST /negotiations at the consumer until both sides' APIs say FINALIZED");
    println!("  (the offer is read from the provider first; each message is committed and synced to disk)");
    let pair = Arc::new(Pair::start(programs)?);
    let file = pair.space.source()?.join("small.csv");
    std::fs::write(&file, "a,b\n1,2\n")?;
    offer(&pair.provider, DATASET, OFFER, &file).await?;
    run(&pair, WARM_UP, IN_FLIGHT).await?;
    run(&pair, WARM_UP, 1).await?;
    for (in_flight, count) in [(1, count), (IN_FLIGHT, count * IN_FLIGHT / 3)] {
        let began = Instant::now();
        let times = run(&pair, count, in_flight).await?;
        let rate = count as f64 / began.elapsed().as_secs_f64();
        line(&format!("{in_flight} in flight"), format!("{}, {rate:.0} per second", times.words()));
    }
    line(
        &format!("beside it: {EDC}"),
        format!(
            "\n{:37}p50 {EDC_NEGOTIATION_DEFAULT_MS} ms by default, {EDC_NEGOTIATION_TUNED_MS} ms tuned, \
             {EDC_NEGOTIATIONS_PER_SECOND} per second",
            ""
        ),
    );
    let sync = sync_time(&pair.space)?;
    line("one synced write to this disk", format!("{} (4 KiB appended, fdatasync)", sync.words()));
    Ok(())
}

async fn run(pair: &Arc<Pair>, count: usize, in_flight: usize) -> Result<Times> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut workers = Vec::with_capacity(in_flight);
    for _ in 0..in_flight {
        let (pair, left) = (pair.clone(), left.clone());
        workers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let began = Instant::now();
                pair.negotiate().await?;
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::with_capacity(count);
    for worker in workers {
        times.extend(worker.await??);
    }
    Ok(Times::new(times))
}

/// What the disk charges for a commit, without which the times above cannot be read.
fn sync_time(space: &Space) -> Result<Times> {
    let mut file = std::fs::File::create(space.folder("sync"))?;
    let page = [7; 4096];
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(Times::new(times))
}

/// Catalogue requests and SPARQL.
pub(crate) async fn catalog(programs: &Programs) -> Result<()> {
    heading(&format!("Catalogue and SPARQL: {DATASETS} datasets with an offer each, one request at a time"));
    let space = Space::create()?;
    let broker = space.start_broker(programs)?;
    let provider = space.start_connector(programs, "provider", PROVIDER, Some(&broker))?;
    let consumer = space.start_connector(programs, "consumer", CONSUMER, Some(&broker))?;
    let file = space.source()?.join("small.csv");
    std::fs::write(&file, "a,b\n1,2\n")?;
    for number in 0..DATASETS {
        offer(&provider, &format!("{DATASET}:{number}"), &format!("{OFFER}:{number}"), &file).await?;
    }
    let endpoint = provider.text("protocol")?.to_owned();
    let peer = Peer::listen(&space, &endpoint).await?;

    let ask = json!({ "counterparty": PROVIDER, "address": endpoint });
    let times = repeat(async || consumer.post("/catalog/request", &ask).await.map(drop)).await?;
    line("catalogue, consumer's API", times.words());
    let times =
        repeat(async || peer.say("/catalog/request", "CatalogRequestMessage", json!({})).await.map(drop)).await?;
    line("catalogue, peer to peer", times.words());
    let one = json!({ "counterparty": PROVIDER, "address": endpoint, "dataset": format!("{DATASET}:7") });
    let times = repeat(async || consumer.post("/catalog/dataset", &one).await.map(drop)).await?;
    line("one dataset, consumer's API", times.words());

    let query = "PREFIX dcat: <http://www.w3.org/ns/dcat#> PREFIX dct: <http://purl.org/dc/terms/> \
        PREFIX dspace: <https://w3id.org/dspace/2025/1/> \
        SELECT ?dataset ?title ?participant ?endpoint WHERE { \
          ?catalog dcat:dataset ?dataset ; dspace:participantId ?participant ; dcat:service/dcat:endpointURL ?endpoint . \
          ?dataset dct:title ?title ; dcat:keyword \"load\" }";
    let ask = json!({ "sparql": query });
    let began = Instant::now();
    loop {
        let answer = consumer.post("/brokers/query", &ask).await?;
        if answer["results"]["bindings"].as_array().is_some_and(|rows| rows.len() == DATASETS) {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(15), "the broker did not learn of all datasets: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let times = repeat(async || consumer.post("/brokers/query", &ask).await.map(drop)).await?;
    line(&format!("SPARQL, {DATASETS} rows, consumer's API"), times.words());
    let (url, participant) = (format!("{}/sparql", broker.text("registry")?), ParticipantId::parse(BROKER)?);
    let times = repeat(async || {
        let request = http::Request::post(&url)
            .header("content-type", "application/sparql-query")
            .header("accept", "application/sparql-results+json")
            .body(Bytes::from_static(query.as_bytes()))?;
        let answer = peer.client.send(&participant, request).await?;
        ensure!(answer.status().is_success(), "the broker answered {}", answer.status());
        Ok(())
    })
    .await?;
    line(&format!("SPARQL, {DATASETS} rows, mutual TLS"), times.words());
    Ok(())
}

async fn repeat(request: impl AsyncFn() -> Result<()>) -> Result<Times> {
    let mut times = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS + WARM_UP {
        let began = Instant::now();
        request().await?;
        if number >= WARM_UP {
            times.push(began.elapsed());
        }
    }
    Ok(Times::new(times))
}

/// Resident memory.
pub(crate) async fn memory(programs: &Programs) -> Result<()> {
    heading("Resident memory, in MB of 10⁶ bytes (VmRSS idle, VmHWM at the peak)");
    let space = Space::create()?;
    let broker = space.start_broker(programs)?;
    let pair = Pair {
        provider: space.start_connector(programs, "provider", PROVIDER, Some(&broker))?,
        consumer: space.start_connector(programs, "consumer", CONSUMER, Some(&broker))?,
        space,
    };
    tokio::time::sleep(IDLE_AFTER).await;
    for (name, program) in [("provider", &pair.provider), ("consumer", &pair.consumer), ("broker", &broker)] {
        line(&format!("{name}, idle"), format!("{:.1} MB", program.memory("VmRSS")?));
    }
    line(&format!("beside it: {EDC}"), format!("\n{:37}{EDC_IDLE_MB} MB", ""));

    let file = pair.space.source()?.join("sparse.bin");
    std::fs::File::create(&file)?.set_len(2 * GIB)?;
    offer(&pair.provider, DATASET, OFFER, &file).await?;
    let negotiation = pair.negotiate().await?;
    let agreement = negotiation["agreement"]["id"].as_str().context("the agreement has no id")?;
    pair.provider.forget_peak();
    pair.consumer.forget_peak();
    let began = Instant::now();
    let sink = json!({ "type": "file", "path": "sparse.bin" });
    let begun = pair.consumer.post("/transfers", &json!({ "agreement": agreement, "sink": sink })).await?;
    let id = begun["id"].as_str().context("the transfer has no id")?;
    let done = loop {
        let now = pair.consumer.get(&format!("/transfers/{id}?wait=COMPLETED&timeout_ms=30000")).await?;
        if now["state"] != "STARTED" && now["state"] != "REQUESTED" {
            break now;
        }
    };
    ensure!(done["state"] == "COMPLETED", "the transfer ended as {done}");
    let taken = began.elapsed();
    line("provider, 2 GiB pull, peak", format!("{:.1} MB", pair.provider.memory("VmHWM")?));
    line("consumer, 2 GiB pull, peak", format!("{:.1} MB", pair.consumer.memory("VmHWM")?));
    line(
        "that pull, into a file",
        format!(
            "{} ({:.2} GiB/s: negotiated before, streamed, digested on both sides, written, synced)",
            ms(taken),
            2.0 / taken.as_secs_f64()
        ),
    );
    let began = Instant::now();
    let mut plain = std::fs::File::create(pair.space.folder("plain.bin"))?;
    let piece = vec![0; 256 * 1024];
    for _ in 0..2 * GIB / piece.len() as u64 {
        plain.write_all(&piece)?;
    }
    plain.sync_all()?;
    let taken = began.elapsed();
    line(
        "beside it: this disk alone",
        format!(
            "{} ({:.2} GiB/s: as many bytes written in pieces of 256 KiB, synced once)",
            ms(taken),
            2.0 / taken.as_secs_f64()
        ),
    );
    Ok(())
}

/// A pull of 1 GiB beside nginx.
pub(crate) async fn throughput(programs: &Programs, rounds: usize) -> Result<()> {
    heading("Throughput: 1 GiB from the page cache over TLS 1.3 with client certificates, one connection,");
    println!("to the same client, which reads and discards; ours checks the contract and digests (BLAKE3) on the way");
    let pair = Pair::start(programs)?;
    let source = pair.space.source()?;
    let file = source.join("large.bin");
    fill(&file)?;
    offer(&pair.provider, DATASET, OFFER, &file).await?;
    let peer = Peer::listen(&pair.space, pair.provider.text("protocol")?).await?;
    let published = pair.provider.get(&format!("/offers/{OFFER}")).await?;
    let mut asked = published["policy"].clone();
    asked["target"] = json!(DATASET);
    let agreement = peer.agree(&asked).await?;
    let nginx = Nginx::start(&pair.space, &source).await?;
    match &nginx {
        Some(nginx) => line("beside it", format!("{}, one worker, sendfile", nginx.words)),
        None => line("nginx", "not measured: it is not installed (apt-get install nginx-light)"),
    }
    let (mut ours, mut theirs) = (Streams::default(), Streams::default());
    // The first pair warms up and does not count.
    for round in 0..=rounds {
        let (url, token) = peer.data_address(&agreement).await?;
        let cpu = || pair.provider.cpu_seconds();
        ours.measure(cpu, peer.drain(PROVIDER, &url, Some(&token))).await?;
        if let Some(nginx) = &nginx {
            let url = format!("{}/large.bin", nginx.base);
            theirs.measure(|| nginx.process.cpu_seconds(), peer.drain(NGINX, &url, None)).await?;
        }
        if round == 0 {
            (ours, theirs) = (Streams::default(), Streams::default());
        }
    }
    ours.print("kontor");
    if nginx.is_some() {
        theirs.print("nginx");
        let pairs =
            |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        line("kontor × nginx, pair by pair", in_words(pairs(&ours.rates, &theirs.rates), ""));
        line("its processor time, × nginx", in_words(pairs(&ours.server_seconds, &theirs.server_seconds), ""));
    }
    Ok(())
}

/// Streams of 1 GiB from one server.
#[derive(Default)]
struct Streams {
    /// GiB/s.
    rates: Vec<f64>,
    /// Processor seconds of the server.
    server_seconds: Vec<f64>,
    /// Processor seconds of this program, the client.
    client_seconds: Vec<f64>,
}

impl Streams {
    async fn measure(
        &mut self,
        cpu_seconds: impl Fn() -> Result<f64>,
        stream: impl Future<Output = Result<(u64, Duration)>>,
    ) -> Result<()> {
        let before = (cpu_seconds()?, cpu_seconds_of("self")?);
        let (bytes, time) = stream.await?;
        ensure!(bytes == GIB, "the server sent {bytes} bytes");
        self.rates.push(1.0 / time.as_secs_f64());
        self.server_seconds.push(cpu_seconds()? - before.0);
        self.client_seconds.push(cpu_seconds_of("self")? - before.1);
        Ok(())
    }

    fn print(&self, name: &str) {
        line(name, in_words(self.rates.clone(), " GiB/s"));
        line(&format!("{name}, processor time"), in_words(self.server_seconds.clone(), " s/GiB"));
        line("its client, processor time", in_words(self.client_seconds.clone(), " s/GiB"));
    }
}

fn in_words(values: Vec<f64>, unit: &str) -> String {
    let (median, least, most) = spread(values);
    format!("median {median:.2}{unit}, {least:.2} to {most:.2}")
}

/// Writes 1 GiB that does not compress, and leaves it in the page cache.
fn fill(path: &std::path::Path) -> Result<()> {
    const PIECE: usize = 1024 * 1024;
    let mut file = std::fs::File::create(path)?;
    let mut piece = vec![0; PIECE];
    let mut digest = blake3::Hasher::new().update(b"load").finalize_xof();
    for _ in 0..GIB / PIECE as u64 {
        digest.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(())
}
