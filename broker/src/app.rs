//! The composition root: settings in, a running broker out.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kontor_wire::identity::TrustError;
use kontor_wire::serve::{ServeLimits, serve_mutual_tls, serve_plain};
use kontor_wire::tls::TlsIdentity;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::query::Queries;
use crate::registry::{Registry, now_ms};
use crate::settings::{KEYS, LogFormat, Settings};
use crate::store::{FolderState, Store, StoreError, Window};

/// How often certificate files are looked at for a change.
const CERTIFICATE_WATCH: Duration = Duration::from_secs(30);

/// Why the broker does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Certificate, key or authorities.
    #[error("the keys cannot be used: {0}")]
    Trust(#[from] TrustError),
    /// The settings name one participant and the certificate another.
    #[error("`participant_id` is `{settings}`, but the certificate is for `{certificate}`; both must be the same")]
    Identity {
        /// In the settings.
        settings: String,
        /// In the certificate.
        certificate: String,
    },
    /// The store.
    #[error("the store cannot be used: {0}")]
    Store(#[from] StoreError),
    /// An address that cannot be listened on.
    #[error("`{key}`: cannot listen on {address}: {source}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Something else that the system refused.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Every setting with its default and meaning.
#[must_use]
pub fn key_reference() -> String {
    let mut text = String::new();
    for (key, default, meaning) in KEYS {
        let default = if default.is_empty() { "(none)" } else { default };
        let _ = writeln!(text, "{key:<28} {default:<16} {meaning}");
    }
    text
}

fn identity(settings: &Settings) -> Result<TlsIdentity, AppError> {
    let identity = TlsIdentity::load(&settings.tls)?;
    if identity.participant() != settings.participant {
        return Err(AppError::Identity {
            settings: settings.participant.to_string(),
            certificate: identity.participant().to_string(),
        });
    }
    Ok(identity)
}

/// Reads keys, tries the folder, leaves everything as it was, and says what `serve` would do.
///
/// # Errors
/// [`AppError`], with what to mend.
pub fn check(settings: &Settings) -> Result<String, AppError> {
    let identity = identity(settings)?;
    let browse = settings.browse_listen.map_or("off".to_owned(), |address| format!("http://{address}"));
    let folder = match Store::probe(&settings.data_dir)? {
        FolderState::New => "will be made",
        FolderState::Free => "can be written",
        FolderState::InUse => "in use by a running kontor-broker: `serve` starts when that has ended",
    };
    Ok(format!(
        "good: {} · registry https://{} (mutual TLS) · browse {browse} · store {} ({folder}) · certificate until {}",
        settings.participant,
        settings.registry_listen,
        settings.data_dir.display(),
        identity.not_after(),
    ))
}

/// Sends log lines to standard error.
pub fn start_logging(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::new(&settings.log_filter);
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // A second start in one process, as tests do, keeps the first one's log.
    let _ = match settings.log {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Runs the broker until SIGINT or SIGTERM, or until standard input ends where that is asked for.
///
/// # Errors
/// [`AppError`] when it cannot start or a listener fails for good.
pub async fn serve(settings: Settings, stop_with_stdin: bool) -> Result<(), AppError> {
    let identity = identity(&settings)?;
    let (data_dir, view) = (settings.data_dir.clone(), settings.view);
    let (store, count) = tokio::task::spawn_blocking(move || {
        let store = Store::open_with(&data_dir, view, now_ms())?;
        let count = store.participants(Window { limit: 0, offset: 0 }, now_ms())?.total;
        Ok::<_, StoreError>((Arc::new(store), count))
    })
    .await
    .map_err(io::Error::other)??;
    let addresses = settings.data_dir.join("addresses.json");
    // A stale file would send a reader to somebody else's port.
    match std::fs::remove_file(&addresses) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let registry_listener = listen("registry.listen", settings.registry_listen).await?;
    let registry_address = registry_listener.local_addr()?;
    let browse_listener = match settings.browse_listen {
        Some(address) => Some(listen("browse.listen", address).await?),
        None => None,
    };
    let browse_address = browse_listener.as_ref().map(TcpListener::local_addr).transpose()?;

    let registry_url = match &settings.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("https://{registry_address}"),
    };
    let registry = Arc::new(Registry::new(Arc::clone(&store), settings.ingest, settings.lease));
    let queries = Arc::new(Queries::new(Arc::clone(&store), settings.query));
    let state = http::Broker {
        participant: settings.participant.to_string(),
        registry_url: registry_url.clone(),
        registry: Arc::clone(&registry),
        store,
        queries,
    };
    let shutdown = CancellationToken::new();
    let browse_url = browse_address.map(|address| format!("http://{address}"));
    write_addresses(&addresses, &settings, &registry_url, registry_address, browse_url.as_deref())?;
    println!(
        "kontor-broker {} · {} · registry {registry_url} (mutual TLS) · browse {} · store {} (SQLite, {count} {})",
        env!("CARGO_PKG_VERSION"),
        settings.participant,
        browse_url.as_deref().unwrap_or("off"),
        settings.data_dir.display(),
        if count == 1 { "description" } else { "descriptions" },
    );
    println!("certificate until {} · Ctrl-C ends", identity.not_after());
    io::stdout().flush()?;

    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(signals(identity.clone(), shutdown.clone())?);
    if stop_with_stdin {
        let (input, shutdown) = (kontor_wire::stdin::end()?, shutdown.clone());
        tokio::spawn(async move {
            input.await;
            shutdown.cancel();
        });
    }
    tasks.spawn({
        let (registry, shutdown) = (Arc::clone(&registry), shutdown.clone());
        async move { registry.expire_forever(shutdown).await }
    });
    tasks.spawn({
        let (identity, shutdown) = (identity.clone(), shutdown.clone());
        async move { identity.watch(CERTIFICATE_WATCH, shutdown).await }
    });
    let mutual = serve_mutual_tls(
        registry_listener,
        identity,
        http::router(state.clone()),
        ServeLimits::default(),
        shutdown.clone(),
    );
    let plain = {
        let shutdown = shutdown.clone();
        async move {
            match browse_listener {
                Some(listener) => {
                    serve_plain(listener, http::browse_router(state), ServeLimits::default(), shutdown).await
                }
                None => {
                    shutdown.cancelled().await;
                    Ok(())
                }
            }
        }
    };
    let outcome = tokio::try_join!(mutual, plain);
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    let _ = std::fs::remove_file(&addresses);
    outcome?;
    println!("kontor-broker ended");
    Ok(())
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { key, address, source })
}

/// Writes the real ports beside and renames, so that nobody reads half a file.
fn write_addresses(
    path: &Path,
    settings: &Settings,
    registry: &str,
    registry_address: SocketAddr,
    browse: Option<&str>,
) -> io::Result<()> {
    let text = serde_json::json!({
        "participant": settings.participant,
        "registry": registry,
        "registry_address": registry_address.to_string(),
        "browse": browse,
        "pid": std::process::id(),
    });
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, format!("{text:#}\n"))?;
    std::fs::rename(beside, path)
}

fn signals(identity: TlsIdentity, shutdown: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = shutdown.cancelled() => break,
                _ = hangup.recv() => match identity.reload() {
                    Ok(()) => tracing::info!("certificates were read again"),
                    Err(error) => tracing::error!(%error, "certificates could not be read again; the old ones stay"),
                },
            }
        }
        shutdown.cancel();
    })
}
