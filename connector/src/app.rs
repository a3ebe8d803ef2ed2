//! The composition root: settings in, a running connector out. No logic of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Body;
use http_body_util::Limited;
use kontor_core::id::ParticipantId;
use kontor_wire::client::{ClientLimits, PeerClient};
use kontor_wire::egress::EgressFilter;
use kontor_wire::http::HttpLimits;
use kontor_wire::pki::{Authority, CertificateRequest};
use kontor_wire::serve::{ServeLimits, require_peer, serve_insecure_headers, serve_mutual_tls, serve_plain};
use kontor_wire::tls::{TlsFiles, TlsIdentity};
use kontor_wire::token::{random_token, require_bearer};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::timeout::TimeoutLayer;
use url::Url;

use crate::cli::Pki;
use crate::control::automation::Rules;
use crate::control::duty::{Executors, LogSink};
use crate::control::publish::BrokerAddress;
use crate::control::{Control, Parts};
use crate::data::gate::Grants;
use crate::data::{self, DataLimits, ProviderPlane};
use crate::http::{dsp, initiation, management, uncancelled};
use crate::seed;
use crate::settings::{Insecure, LogFormat, LogTarget, Profile, Settings};
use crate::store::Store;

/// How long the end waits for what flows that were cut have to tell.
const FLOW_ENDS_WAIT: Duration = Duration::from_secs(5);
/// How many flow events may wait for the control plane.
const FLOW_EVENTS_MAX: usize = 256;
/// Threads of the runtime; blocking reads of sources have their own.
const WORKER_THREADS: usize = 2;

/// Runs the connector until SIGTERM or Ctrl-C, or until standard input ends where that is asked for.
///
/// # Errors
/// What keeps it from starting, in words that name the setting or file.
pub fn serve(config: &Path, stop_with_stdin: bool) -> Result<()> {
    let settings = Settings::load(config)?;
    logging(settings.log, &settings.log_filter);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run(settings, stop_with_stdin))
}

/// Checks settings, certificates, folders and store, and prints what was found.
///
/// # Errors
/// The first thing that would keep the connector from starting.
pub fn check(config: &Path) -> Result<()> {
    let settings = Settings::load(config)?;
    let participant = settings.participant()?;
    println!("settings     {} are in order", config.display());
    println!("participant  {participant}");
    if let Some(identity) = identity(&settings, &participant)? {
        println!("certificate  names {participant}, valid until {}", identity.not_after());
    } else {
        println!("certificate  none: the profile is `insecure`");
    }
    match kept_token(&settings)? {
        Some((_, Some(file))) => println!("token        is in {}", file.display()),
        Some((_, None)) => println!("token        is in the settings"),
        None => println!("token        is not there yet; `serve` makes one"),
    }
    for (setting, root) in folders(&settings) {
        let here = root.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
        // A source that is there is only read.
        if here != root || setting != SOURCE_ROOTS || !here.is_dir() {
            probe(here).with_context(|| format!("cannot write to `{}` (setting `{setting}`)", here.display()))?;
        }
        let what = if setting == SOURCE_ROOTS { "source" } else { "sink" };
        let state = if here == root { "is there" } else { "is not there yet; `serve` makes it" };
        println!("{what:<12} {} {state}", root.display());
    }
    if let Some(rules) = &settings.automation.rules {
        Rules::load(settings.automation.approval, rules)?;
        println!("rules        {} are in order", rules.display());
    }
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make the folder `{}` (setting `data_dir`)", settings.data_dir.display()))?;
    let store = Store::open(&settings.data_dir)?;
    println!("store        {}", store.describe());
    println!("everything is in order");
    Ok(())
}

/// Makes throw-away certificates.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn pki(command: Pki) -> Result<()> {
    match command {
        Pki::Authority { dir, name } => {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
            Authority::generate(&name)?.save(&dir)?;
            println!("{} and {} written", dir.join("ca.pem").display(), dir.join("ca.key").display());
        }
        Pki::Participant { dir, participant, name, hosts, days } => {
            let authority = Authority::load(&dir)
                .with_context(|| format!("no authority in `{}`; `kontor pki authority` makes one", dir.display()))?;
            if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
                bail!("`--name {name}`: the files are in `{}`; a name without `/` would have passed", dir.display());
            }
            if days < 1 {
                bail!("`--days {days}`: nobody would be let in by it; 1 or more would have passed");
            }
            let mut request = CertificateRequest::new(ParticipantId::parse(participant)?, hosts);
            request.days = days;
            let files = authority.issue(&request)?.save(&dir, &name, &authority)?;
            println!("{} and {} written", files.certificate.display(), files.key.display());
        }
    }
    Ok(())
}

fn logging(format: LogFormat, filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let done = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    // A second initialisation, in tests, keeps the first.
    drop(done);
}

fn identity(settings: &Settings, participant: &ParticipantId) -> Result<Option<TlsIdentity>> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    if settings.profile == Profile::Insecure {
        return Ok(None);
    }
    let files = TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), trust: tls.trust.clone() };
    let identity = TlsIdentity::load(&files)?;
    if identity.participant() != *participant {
        bail!(
            "setting `participant_id` is `{participant}` and the certificate `{}` names `{}`; both must be the same",
            tls.certificate.display(),
            identity.participant()
        );
    }
    Ok(Some(identity))
}

/// The management token: the setting, the file, or a fresh one written to the file.
const SOURCE_ROOTS: &str = "data.source_roots";

/// The folders that data comes from and goes to, each with its setting.
fn folders(settings: &Settings) -> Vec<(&'static str, PathBuf)> {
    let sources = settings.source_roots().into_iter().map(|root| (SOURCE_ROOTS, root));
    sources.chain([("data.sink_root", settings.sink_root())]).collect()
}

/// Whether something can be made in a folder; it is gone again.
fn probe(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".kontor-check-{}", std::process::id()));
    std::fs::create_dir(&probe)?;
    std::fs::remove_dir(&probe)
}

fn token_file(settings: &Settings) -> PathBuf {
    settings.management.token_file.clone().unwrap_or_else(|| settings.data_dir.join("management.token"))
}

/// The token of the settings or of its file, where there is one.
fn kept_token(settings: &Settings) -> Result<Option<(SecretString, Option<PathBuf>)>> {
    if let Some(token) = &settings.management.token {
        return Ok(Some((token.clone(), None)));
    }
    let file = token_file(settings);
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() >= 16 => Ok(Some((SecretString::from(text.trim()), Some(file)))),
        Ok(_) => {
            bail!("`{}` holds no token of at least 16 characters (setting `management.token_file`)", file.display())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", file.display())),
    }
}

fn management_token(settings: &Settings) -> Result<(SecretString, Option<PathBuf>)> {
    if let Some(kept) = kept_token(settings)? {
        return Ok(kept);
    }
    let file = token_file(settings);
    let token = random_token();
    write_private(&file, token.expose_secret()).with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok((token, Some(file)))
}

/// What pseudonyms are made from: a file of its own, so that it is the same after a restart.
fn pseudonym_secret(settings: &Settings) -> Result<SecretString> {
    let file = settings.data_dir.join("pseudonym.key");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() >= 32 => return Ok(SecretString::from(text.trim())),
        Ok(_) => bail!(
            "`{}` holds no secret of at least 32 characters; without the file a new one is made, and pseudonyms change",
            file.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", file.display())),
    }
    let secret = random_token();
    write_private(&file, secret.expose_secret()).with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(secret)
}

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())
}

fn executors(settings: &Settings) -> Result<Executors> {
    let log = settings.policy.log.clone().map(|log| match log {
        LogTarget::File(path) => LogSink::File(path),
        LogTarget::Url(url) => LogSink::Http(url),
    });
    let inform = settings.policy.inform.iter().map(|inform| (inform.party.clone(), inform.url.clone())).collect();
    let limits = HttpLimits { request_timeout: Some(settings.delivery_timeout()), ..HttpLimits::default() };
    let http = Executors::need_http(log.as_ref(), &inform).then(|| kontor_wire::http::client(&limits)).transpose()?;
    Ok(Executors::new(log, inform, http))
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (setting `{key}`)"))
}

async fn run(settings: Settings, stop_with_stdin: bool) -> Result<()> {
    let participant = settings.participant()?;
    let identity = identity(&settings, &participant)?;
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot make the folder `{}` (setting `data_dir`)", settings.data_dir.display()))?;
    let addresses_file = settings.data_dir.join("addresses.json");
    match std::fs::remove_file(&addresses_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove the old `{}`", addresses_file.display()));
        }
        _ => {}
    }
    for (setting, folder) in folders(&settings) {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder `{}` (setting `{setting}`)", folder.display()))?;
    }
    let source_roots = settings.source_roots();
    let (token, token_file) = management_token(&settings)?;
    let data_dir = settings.data_dir.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&data_dir)).await??;
    let store_words = store.describe();

    let protocol = bind(settings.protocol.listen, "protocol.listen").await?;
    let operator = bind(settings.management.listen, "management.listen").await?;
    let insecure = match settings.profile {
        Profile::Standard => Insecure::default(),
        Profile::Insecure => settings.insecure.clone().unwrap_or_default(),
    };
    let initiation = match insecure.initiation_listen {
        Some(listen) => Some(bind(listen, "insecure.initiation_listen").await?),
        None => None,
    };
    let initiation_address = initiation.as_ref().map(TcpListener::local_addr).transpose()?;
    let protocol_address = protocol.local_addr()?;
    let operator_address = operator.local_addr()?;
    let scheme = if identity.is_some() { "https" } else { "http" };
    let public_url = match &settings.protocol.public_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("{scheme}://{protocol_address}"))?,
    };

    let shutdown = CancellationToken::new();
    let egress = match settings.profile {
        Profile::Standard => EgressFilter::new(settings.egress.allow_networks.clone()),
        Profile::Insecure => EgressFilter::insecure(),
    };
    let client_limits = ClientLimits { request_timeout: settings.delivery_timeout(), ..ClientLimits::default() };
    let client = match &identity {
        Some(identity) => PeerClient::mutual_tls(identity.clone(), egress.clone(), client_limits),
        None => PeerClient::insecure(participant.clone(), egress.clone(), client_limits),
    };
    let rules = match &settings.automation.rules {
        Some(file) => Rules::load(settings.automation.approval, file)?,
        None => Rules::built_in(settings.automation.approval),
    };
    let rules = rules.narrower(settings.automation.narrower);
    let data_limits = DataLimits {
        flows_max: settings.data.flows_max.unwrap_or(DataLimits::default().flows_max),
        ..DataLimits::default()
    };
    let grants = Arc::new(Grants::new(data_limits.clone()));
    let brokers = settings
        .brokers
        .iter()
        .map(|broker| {
            Ok(BrokerAddress {
                participant: ParticipantId::parse(broker.participant_id.as_str())?,
                url: broker.url.clone(),
                lease_seconds: broker.lease_seconds,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let control = Control::new(Parts {
        title: settings.title.clone().unwrap_or_else(|| participant.to_string()),
        participant: participant.clone(),
        public_url: public_url.clone(),
        store,
        client,
        egress,
        rules,
        capabilities: settings.capabilities(),
        consumers_on_trust: settings.consumers_on_trust()?,
        duties: executors(&settings)?,
        delivery: settings.delivery.clone(),
        grants: grants.clone(),
        data_limits: data_limits.clone(),
        pseudonym_secret: pseudonym_secret(&settings)?,
        sink_root: settings.sink_root(),
        source_roots: source_roots.clone(),
        brokers,
        open_processes_max: settings.limits.open_processes_max,
        shutdown: shutdown.clone(),
    });
    let (events, flow_events) = mpsc::channel(FLOW_EVENTS_MAX);
    let plane = ProviderPlane::new(grants, source_roots, data_limits, events);
    if let Some(file) = &insecure.seed {
        seed::plant(&control, file).await?;
    }
    control.start().await?;
    let events_task = tokio::spawn(control.clone().serve_flow_events(flow_events));

    let limits = &settings.limits;
    let serve_limits = ServeLimits {
        connections_max: limits.connections_max,
        header_bytes_max: limits.header_bytes_max,
        header_timeout: Duration::from_secs(limits.header_seconds_max),
        drain_timeout: Duration::from_secs(limits.drain_seconds_max),
        ..ServeLimits::default()
    };
    let request_time = Duration::from_secs(limits.request_seconds_max);
    let body_bytes_max = limits.body_bytes_max;
    // The limit counts what a message unpacks to, and what it is packed in. The handlers refuse in the protocol's words.
    let dsp_router = uncancelled(dsp::router(control.clone()))
        .layer(axum::extract::DefaultBodyLimit::max(body_bytes_max))
        .layer(RequestDecompressionLayer::new())
        .layer(MapRequestBodyLayer::new(move |body: Body| Limited::new(body, body_bytes_max)))
        .layer(TimeoutLayer::with_status_code(http_status_timeout(), request_time))
        .layer(axum::middleware::from_fn(dsp::fallback::in_words))
        .layer(CompressionLayer::new().gzip(true));
    // The data routes are outside of the time limit and the compression: a flow takes as long as
    // it takes, and its bytes are counted as they are.
    let protocol_router = kontor_wire::trace::traced(dsp_router.merge(data::router(plane)));
    let management_router =
        uncancelled(management::router(control.clone())).layer(axum::extract::DefaultBodyLimit::max(body_bytes_max));
    let management_router = require_bearer(management_router, token);

    let protocol_task = {
        let (limits, shutdown) = (serve_limits.clone(), shutdown.clone());
        match identity.clone() {
            Some(identity) => tokio::spawn(serve_mutual_tls(protocol, identity, protocol_router, limits, shutdown)),
            None => tokio::spawn(serve_insecure_headers(protocol, protocol_router, limits, shutdown)),
        }
    };
    if let Some(listener) = initiation {
        let router = initiation::router(control.clone()).layer(RequestBodyLimitLayer::new(limits.body_bytes_max));
        let router = require_peer(router);
        tokio::spawn(serve_insecure_headers(listener, router, serve_limits.clone(), shutdown.clone()));
    }
    let management_task = tokio::spawn(serve_plain(operator, management_router, serve_limits, shutdown.clone()));
    if let (Some(identity), Some(tls)) = (&identity, &settings.tls) {
        let (identity, shutdown) = (identity.clone(), shutdown.clone());
        let every = Duration::from_secs(tls.reload_seconds);
        tokio::spawn(async move { identity.watch(every, shutdown).await });
    }

    let addresses = json!({
        "participant": participant,
        "protocol": control.protocol_base(),
        "protocol_address": protocol_address,
        "management": format!("http://{operator_address}/management/v1"),
        "initiation": initiation_address.map(|address| format!("http://{address}")),
        "pid": std::process::id(),
    });
    let beside = addresses_file.with_extension("json.new");
    std::fs::write(&beside, addresses.to_string())
        .and_then(|()| std::fs::rename(&beside, &addresses_file))
        .with_context(|| format!("cannot write `{}`", addresses_file.display()))?;
    println!("kontor {} · {participant}", env!("CARGO_PKG_VERSION"));
    match &identity {
        Some(identity) => println!(
            "protocol    {} (mutual TLS, certificate valid until {})",
            control.protocol_base(),
            identity.not_after()
        ),
        None => println!("protocol    {} (INSECURE: plain HTTP, header identity)", control.protocol_base()),
    }
    match &token_file {
        Some(file) => println!("management  http://{operator_address}/management/v1 (token in {})", file.display()),
        None => println!("management  http://{operator_address}/management/v1 (token from the settings)"),
    }
    println!("store       {store_words}");

    told_to_stop(stop_with_stdin, identity.as_ref()).await?;
    tracing::info!("stopping: running requests get {} s", limits.drain_seconds_max);
    shutdown.cancel();
    let (protocol_end, management_end) = tokio::join!(protocol_task, management_task);
    protocol_end??;
    management_end??;
    // Flows that the end cut off still tell how far they came; after the last of them nobody is left to tell anything.
    let telling = events_task.abort_handle();
    if tokio::time::timeout(FLOW_ENDS_WAIT, events_task).await.is_err() {
        tracing::warn!("some flows did not say how far they came");
        telling.abort();
    }
    control.stopped().await;
    Ok(())
}

fn http_status_timeout() -> ::http::StatusCode {
    ::http::StatusCode::REQUEST_TIMEOUT
}

/// Waits until it is told to stop; reads the certificates again as often as SIGHUP asks for it.
async fn told_to_stop(with_stdin: bool, identity: Option<&TlsIdentity>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let input = with_stdin.then(kontor_wire::stdin::end).transpose().context("cannot listen to standard input")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let mut input = std::pin::pin!(async {
        match input {
            Some(input) => input.await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = &mut input => return Ok(()),
            _ = hangup.recv() => match identity.map(TlsIdentity::reload) {
                Some(Err(error)) => tracing::error!(%error, "certificates could not be read again; the old ones stay"),
                Some(Ok(())) => tracing::info!("certificates were read again"),
                None => {}
            },
        }
    }
}
