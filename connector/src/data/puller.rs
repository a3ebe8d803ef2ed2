//! The consumer's side: asks, resumes after a cut, compares the provider's receipt with what it wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::Role;
use kontor_wire::client::{PeerClient, PeerError};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use url::Url;

use super::endpoint::Receipt;
use super::gate::StopKind;
use super::sink::{PartFile, Received, SinkError, Target, sync_directory};
use super::source::Index;
use super::{DataLimits, FLOW_HEADER, INDEX_MEDIA_TYPE, OTHER_CERTIFICATE, STOP_HEADER};
use crate::model::{FlowOutcome, FlowReport, SinkSpec};

/// What to fetch, from whom, and where to put it.
#[derive(Debug, Clone)]
pub struct PullJob {
    /// The transfer, by our own identifier.
    pub transfer: ProcessId,
    /// The agreement that it is under.
    pub agreement: AgreementId,
    /// Who must be at the other end.
    pub provider: ParticipantId,
    /// The address in the start message.
    pub endpoint: Url,
    /// The token in the start message.
    pub token: SecretString,
    /// Where the bytes go.
    pub sink: SinkSpec,
    /// The directory that no byte is put outside of.
    pub sink_root: PathBuf,
    /// Limits.
    pub limits: DataLimits,
}

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullResult {
    /// All is there, verified and under its name.
    Done {
        /// How many bytes, all files together.
        bytes: u64,
        /// BLAKE3 of the file; for a directory, of one line `path NUL bytes NUL digest LF` for each file in order.
        digest_blake3: String,
    },
    /// We were told to stop, or the provider lets nothing through. The part is kept.
    Stopped {
        /// Why, in words.
        reason: String,
    },
    /// The provider wants another certificate than the one that we have by now.
    OtherCertificate {
        /// Its words.
        reason: String,
    },
    /// What came could not be put down.
    Unwritable {
        /// There is no room for it. The part is kept.
        full: bool,
        /// Whether the same pull may work later without anyone changing anything.
        retryable: bool,
        /// Why, in words that name our own paths.
        reason: String,
    },
    /// It did not work.
    Failed {
        /// Whether the same pull may work later without anyone changing anything.
        retryable: bool,
        /// Why, in words.
        reason: String,
    },
}

/// How a pull ended, and what flowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    /// One for each flow, in order.
    pub reports: Vec<FlowReport>,
    /// How it ended.
    pub result: PullResult,
}

/// Fetches until all is there, it is stopped, or it fails. A later pull of the same transfer goes on from the part
/// that is kept. `Some(reason)` in the watch stops it at once.
pub async fn pull(job: PullJob, client: PeerClient, stop: watch::Receiver<Option<String>>) -> PullOutcome {
    let mut puller = Puller { job, client, stop, reports: Vec::new() };
    let ended = match puller.job.sink.clone() {
        SinkSpec::File { path } => puller.one(&path).await,
        SinkSpec::Directory { path } => puller.many(&path).await,
    };
    let result = match ended {
        Ok((bytes, digest_blake3)) => PullResult::Done { bytes, digest_blake3 },
        Err(End::Stopped(reason)) => PullResult::Stopped { reason },
        Err(End::OtherCertificate(reason)) => PullResult::OtherCertificate { reason },
        Err(End::Unwritable { full, retryable, reason }) => PullResult::Unwritable { full, retryable, reason },
        Err(End::Failed { retryable, reason }) => PullResult::Failed { retryable, reason },
    };
    PullOutcome { reports: puller.reports, result }
}

/// Removes what a transfer left unfinished, for one that will not go on. Within a runtime it returns at once and goes
/// on in the background, since a pull that was just told to stop is waited for, up to two seconds.
pub fn discard_parts(sink_root: &Path, sink: &SinkSpec, transfer: &ProcessId) {
    let (SinkSpec::File { path } | SinkSpec::Directory { path }) = sink;
    let (root, path, transfer) = (sink_root.to_path_buf(), path.clone(), transfer.clone());
    let discard = move || {
        if let Ok(target) = Target::find(&root, &path, &transfer) {
            target.discard_when_idle();
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(discard)),
        Err(_) => discard(),
    }
}

/// Where a transfer's data is put: the absolute path. Blocks.
///
/// # Errors
/// Why there is no such place, in words.
pub fn place(sink_root: &Path, sink: &SinkSpec, transfer: &ProcessId) -> Result<PathBuf, String> {
    let (SinkSpec::File { path } | SinkSpec::Directory { path }) = sink;
    Target::make(sink_root, path, transfer).map(|target| target.path).map_err(|error| error.to_string())
}

/// Where a transfer's data would be put, if the folders on the way are there: nothing is yet. Blocks.
///
/// # Errors
/// Why it cannot be put there.
pub fn free(sink_root: &Path, sink: &SinkSpec, transfer: &ProcessId) -> Result<Option<PathBuf>, SinkError> {
    let (SinkSpec::File { path } | SinkSpec::Directory { path }) = sink;
    match Target::find(sink_root, path, transfer) {
        Ok(target) if target.exists() => Err(SinkError::Exists(target.path.display().to_string())),
        Ok(target) => Ok(Some(target.path)),
        Err(SinkError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a transfer brought whole, as long as nobody has committed that it is done: bytes and digest. Blocks.
#[must_use]
pub fn arrived(sink_root: &Path, sink: &SinkSpec, transfer: &ProcessId) -> Option<(u64, String)> {
    let (SinkSpec::File { path } | SinkSpec::Directory { path }) = sink;
    let received = Target::find(sink_root, path, transfer).ok()?.received().ok()??;
    Some((received.bytes, received.digest))
}

/// Forgets what was kept for the case that a pull that is done dies before anyone knows. Blocks. For the one who has
/// committed that it is done.
pub fn forget_received(sink_root: &Path, sink: &SinkSpec, transfer: &ProcessId) {
    let (SinkSpec::File { path } | SinkSpec::Directory { path }) = sink;
    if let Ok(target) = Target::find(sink_root, path, transfer) {
        target.forget_received();
    }
}

/// Bytes gathered before they are written.
const GATHER_BYTES: usize = 128 * 1024;
/// Frames gathered before they are written, so that one-byte frames gather no more bookkeeping than data.
const GATHER_FRAMES: usize = 512;
/// Gathered writes on their way to the disk.
const WRITES_AHEAD: usize = 2;
/// How long a receipt of a broken flow is waited for.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(4);

/// A request that is worth another try.
struct Retry {
    reason: String,
    /// When, if the provider said that the time has not come. No failure, however often it says so.
    after: Option<Duration>,
}

enum End {
    Stopped(String),
    OtherCertificate(String),
    Unwritable { full: bool, retryable: bool, reason: String },
    Failed { retryable: bool, reason: String },
}

impl End {
    fn fail(retryable: bool, reason: impl Into<String>) -> Self {
        Self::Failed { retryable, reason: reason.into() }
    }
}

impl From<SinkError> for End {
    fn from(error: SinkError) -> Self {
        let (full, retryable) = (matches!(error, SinkError::DiskFull { .. }), matches!(error, SinkError::Busy(_)));
        Self::Unwritable { full, retryable, reason: error.to_string() }
    }
}

type Whole = Result<(u64, String), End>;

struct Puller {
    job: PullJob,
    client: PeerClient,
    stop: watch::Receiver<Option<String>>,
    reports: Vec<FlowReport>,
}

/// Runs blocking work. A panic in it is a bug of ours, told as a failure.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await.map_err(|_| End::fail(false, "the sink's work was aborted"))
}

/// Waits for the word to stop; for ever, if nobody can say it any more.
async fn told_to_stop(mut stop: watch::Receiver<Option<String>>) -> String {
    loop {
        if let Some(reason) = stop.borrow_and_update().clone() {
            return reason;
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How the body of one response ended.
enum BodyEnd {
    Whole,
    Broken(String),
    Stopped(String),
    Unwritable(SinkError),
}

/// Where the bytes of a pull go, or went.
enum Place {
    Free(Target),
    Received(Received),
}

/// What to do after one flow.
enum Next {
    Finish,
    Again { reason: String, progress: bool },
    Now,
}

impl Puller {
    async fn one(&mut self, path: &str) -> Whole {
        match self.place(path, false).await? {
            Place::Received(received) => Ok(self.received(received)),
            Place::Free(target) => self.fetch(None, target, true).await,
        }
    }

    /// What a pull brought that was killed before it could say so.
    fn received(&mut self, received: Received) -> (u64, String) {
        self.reports = received.reports;
        (received.bytes, received.digest)
    }

    /// Finds the place for what will come.
    async fn place(&self, path: &str, directory: bool) -> Result<Place, End> {
        let (root, path, transfer) = (self.job.sink_root.clone(), path.to_owned(), self.job.transfer.clone());
        let place = blocking(move || {
            let target = Target::make(&root, &path, &transfer)?;
            if let Some(received) = target.received()? {
                return Ok(Place::Received(received));
            }
            if target.exists() {
                return Err(SinkError::Exists(target.path.display().to_string()));
            }
            if directory {
                std::fs::create_dir_all(&target.part)
                    .map_err(|source| SinkError::Io { path: target.part.display().to_string(), source })?;
            }
            Ok(Place::Free(target))
        });
        Ok(place.await??)
    }

    async fn many(&mut self, path: &str) -> Whole {
        let target = match self.place(path, true).await? {
            Place::Received(received) => return Ok(self.received(received)),
            Place::Free(target) => target,
        };
        let index = self.index().await?;
        let mut bytes = 0_u64;
        let mut digest = blake3::Hasher::new();
        let mut members = Vec::new();
        for entry in &index.entries {
            let (root, path, transfer) = (target.part.clone(), entry.path.clone(), self.job.transfer.clone());
            let etag = entry.etag.clone();
            let (member, kept) = blocking(move || {
                let member = Target::make(&root, &path, &transfer)?;
                // A member that an earlier pull brought is kept if it is still of the same version.
                let kept = member.state().filter(|state| member.exists() && state.etag.as_deref() == Some(&etag));
                if kept.is_none() && member.exists() {
                    std::fs::remove_file(&member.path)
                        .map_err(|source| SinkError::Io { path: member.path.display().to_string(), source })?;
                }
                Ok::<_, SinkError>((member, kept.and_then(|state| Some((state.bytes, state.digest?)))))
            })
            .await??;
            let (member_bytes, member_digest) = match kept {
                Some(kept) => kept,
                None => self.fetch(Some(&entry.path), member.clone(), false).await?,
            };
            bytes += member_bytes;
            digest.update(format!("{}\0{member_bytes}\0{member_digest}\n", entry.path).as_bytes());
            members.push(member);
        }
        let digest = digest.finalize().to_hex().to_string();
        let received = Received { bytes, digest: digest.clone(), reports: self.reports.clone() };
        blocking(move || {
            let mut directories = BTreeSet::from([target.part.clone()]);
            for member in &members {
                let _ = std::fs::remove_file(&member.state);
                directories.extend(member.path.parent().map(Path::to_path_buf));
            }
            directories.iter().try_for_each(|directory| sync_directory(directory))?;
            target.save_received(None, received)?;
            target.publish()
        })
        .await??;
        Ok((bytes, digest))
    }

    async fn index(&mut self) -> Result<Index, End> {
        let mut failures = 0;
        loop {
            let builder = self.request(&self.job.endpoint).header(header::ACCEPT, INDEX_MEDIA_TYPE);
            let broken = match self.ask(builder).await? {
                Err(Retry { after: Some(after), reason }) => {
                    self.hold(after, &reason).await?;
                    continue;
                }
                Err(Retry { reason, .. }) => reason,
                Ok(response)
                    if response.headers().get(header::CONTENT_TYPE).is_none_or(|is| is != INDEX_MEDIA_TYPE) =>
                {
                    return Err(End::fail(
                        false,
                        "the provider sent no listing: its source is one file; a sink of type `file` would have passed",
                    ));
                }
                Ok(response) => match self.document(response).await {
                    Ok(json) => {
                        let index: Index = serde_json::from_slice(&json).map_err(|error| {
                            End::fail(false, format!("the provider's listing is unreadable: {error}"))
                        })?;
                        let limit = self.job.limits.directory_entries_max;
                        if index.entries.len() > limit {
                            let reason = format!("the directory has {} files; {limit} are taken", index.entries.len());
                            return Err(End::fail(false, reason));
                        }
                        return Ok(index);
                    }
                    Err(reason) => reason,
                },
            };
            self.pause(&mut failures, &broken).await?;
        }
    }

    /// One file, in as many flows as it takes. `alone`: it is the whole pull.
    async fn fetch(&mut self, member: Option<&str>, target: Target, alone: bool) -> Whole {
        let url = self.url(member);
        let checkpoint_bytes = self.job.limits.checkpoint_bytes;
        let mut failures = 0;
        let mut part = loop {
            let target = target.clone();
            match blocking(move || PartFile::open(target, checkpoint_bytes)).await? {
                Ok(part) => break part,
                // A pull of the same transfer that was told to stop is about to leave.
                Err(error @ SinkError::Busy(_)) => self.pause(&mut failures, &error.to_string()).await?,
                Err(error) => return Err(error.into()),
            }
        };
        let mut failures = 0;
        loop {
            let next;
            (part, next) = self.flow(member, &url, part).await?;
            match next {
                Next::Finish => {
                    let reports = if alone { self.reports.clone() } else { Vec::new() };
                    return Ok(blocking(move || part.finish(reports)).await??);
                }
                Next::Now => {}
                Next::Again { reason, progress } => {
                    if progress {
                        failures = 0;
                    }
                    self.pause(&mut failures, &reason).await?;
                }
            }
        }
    }

    /// One request, and what it brings.
    async fn flow(&mut self, member: Option<&str>, url: &Url, mut part: PartFile) -> Result<(PartFile, Next), End> {
        let started = Timestamp::now();
        let mut request = self.request(url);
        if let (bytes @ 1.., Some(etag)) = (part.bytes(), part.etag()) {
            request = request.header(header::RANGE, format!("bytes={bytes}-")).header(header::IF_RANGE, etag);
        }
        let response = match self.ask(request).await? {
            Ok(response) => response,
            Err(Retry { after: Some(after), reason }) => {
                self.hold(after, &reason).await?;
                return Ok((part, Next::Now));
            }
            Err(Retry { reason, .. }) => return Ok((part, Next::Again { reason, progress: false })),
        };
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // All bytes were there but never verified, or the part is of no known version: from the start.
            part = blocking(move || part.restart(None).map(|()| part)).await??;
            return Ok((part, Next::Again { reason: "the provider has no such range".to_owned(), progress: false }));
        }
        let headers = response.headers().clone();
        if headers.get(header::CONTENT_TYPE).is_some_and(|is| is == INDEX_MEDIA_TYPE) {
            let reason = "the provider's source is a directory; a sink of type `directory` would have passed";
            return Err(End::fail(false, reason));
        }
        let etag = text(&headers, header::ETAG).filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let range = if response.status() == StatusCode::PARTIAL_CONTENT {
            // Nothing but a part that was asked for: the rest of what is there.
            let range = ContentRange::parse(&headers).filter(|range| (1..).contains(&range.first));
            let Some(range) = range.filter(|range| range.first == part.bytes()) else {
                return Err(End::fail(false, format!("the provider sent another range than from {}", part.bytes())));
            };
            // A server that takes no notice of `If-Range` sends a part of whatever it has now.
            let unfit = if etag.is_none() || etag.as_deref() != part.etag() {
                Some("the provider sent a part of another version")
            } else if range.total.is_none() {
                Some("the provider sent a part and does not say of how much")
            } else {
                None
            };
            if let Some(reason) = unfit {
                part = blocking(move || part.restart(None).map(|()| part)).await??;
                return Ok((part, Next::Again { reason: reason.to_owned(), progress: false }));
            }
            Some(range)
        } else {
            part = blocking(move || part.restart(etag).map(|()| part)).await??;
            None
        };
        let offset = part.bytes();
        part.begin_flow();
        let named = text(&headers, HeaderName::from_static(FLOW_HEADER)).filter(|id| plain(id)).map(str::to_owned);
        let expected = match &range {
            Some(range) => Some(range.bytes()),
            None => text(&headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        };
        let (mut part, ending) = self.receive(response, expected, part).await?;
        let bytes = part.bytes() - offset;
        let mut report = FlowReport {
            id: named.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            transfer: self.job.transfer.clone(),
            agreement: self.job.agreement.clone(),
            role: Role::Consumer,
            path: member.map(str::to_owned),
            offset,
            bytes,
            digest_blake3: part.flow_digest(),
            started,
            ended: Timestamp::now(),
            outcome: FlowOutcome::Whole,
            peer_bytes: None,
            peer_digest: None,
        };
        // Without an entity tag what came is of no use to the next request.
        let progress = bytes >= self.job.limits.segment_bytes as u64 && part.etag().is_some();
        let next = match ending {
            BodyEnd::Whole => match self.verify(&mut report, named.as_deref(), progress).await {
                // "A server might want to send only a subset of the data requested for reasons of its own" (RFC 9110,
                // 15.3.7). Parts that are smaller than a segment are no progress: a file of them would take for ever.
                Ok(Next::Finish) if range.is_some_and(|range| range.leaves_some()) => Ok(match progress {
                    true => Next::Now,
                    false => Next::Again { reason: "the provider sent less than was asked for".to_owned(), progress },
                }),
                verified => verified,
            },
            BodyEnd::Broken(reason) => {
                report.outcome = FlowOutcome::Failed { reason: reason.clone() };
                if let Some(flow) = &named
                    && let Ok(Some(receipt)) = timeout(RECEIPT_PATIENCE, self.receipt(flow)).await
                {
                    // The provider knows better why it was cut.
                    if let FlowOutcome::Cut { .. } = receipt.outcome {
                        report.outcome = receipt.outcome.clone();
                    }
                    (report.peer_bytes, report.peer_digest) = (Some(receipt.bytes), Some(receipt.digest_blake3));
                }
                Ok(Next::Again { reason, progress })
            }
            BodyEnd::Stopped(reason) => {
                report.outcome = FlowOutcome::Cut { reason: reason.clone() };
                Err((End::Stopped(reason), false))
            }
            BodyEnd::Unwritable(error) => {
                report.outcome = FlowOutcome::Failed { reason: error.to_string() };
                let full = matches!(error, SinkError::DiskFull { .. });
                Err((End::from(error), !full))
            }
        };
        self.reports.push(report);
        match next {
            Ok(next) => Ok((part, next)),
            Err((end, discard)) => {
                if discard {
                    blocking(move || part.discard()).await?;
                } else {
                    part = blocking(move || part.checkpoint().map(|()| part)).await??;
                    drop(part);
                }
                Err(end)
            }
        }
    }

    /// Compares what was written with the provider's receipt. A provider that names no flow gives none.
    async fn verify(&self, report: &mut FlowReport, named: Option<&str>, progress: bool) -> Result<Next, (End, bool)> {
        let Some(flow) = named else { return Ok(Next::Finish) };
        let mut pause = self.job.limits.resume_backoff;
        let mut found = None;
        for _ in 0..self.job.limits.resume_attempts_max.max(1) {
            found = tokio::select! {
                biased;
                reason = told_to_stop(self.stop.clone()) => return Err((End::Stopped(reason), false)),
                receipt = self.receipt(flow) => receipt,
            };
            if found.is_some() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.job.limits.resume_backoff_max);
        }
        let Some(receipt) = found else {
            let reason = format!("all bytes came, but the provider gave no receipt for the flow `{flow}`");
            report.outcome = FlowOutcome::Failed { reason: reason.clone() };
            return Err((End::fail(true, reason), false));
        };
        let same = (receipt.bytes, receipt.digest_blake3.as_str()) == (report.bytes, report.digest_blake3.as_str());
        let reason = format!(
            "the provider's receipt says {} bytes with BLAKE3 {}, what came is {} bytes with BLAKE3 {}",
            receipt.bytes, receipt.digest_blake3, report.bytes, report.digest_blake3
        );
        (report.peer_bytes, report.peer_digest) = (Some(receipt.bytes), Some(receipt.digest_blake3));
        if same {
            return Ok(Next::Finish);
        }
        tracing::warn!(flow, progress, reason, "a receipt differs");
        report.outcome = FlowOutcome::Failed { reason: reason.clone() };
        Err((End::fail(true, reason), true))
    }

    /// The provider's receipt, if it can be had now.
    async fn receipt(&self, flow: &str) -> Option<Receipt> {
        let mut url = self.job.endpoint.clone();
        url.set_query(None);
        url.path_segments_mut().ok()?.pop_if_empty().pop().pop().push("flows").push(flow);
        let request = self.request(&url).body(Bytes::new()).ok()?;
        let response = self.client.send(&self.job.provider, request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        serde_json::from_slice(response.body()).ok()
    }

    /// Reads a body into the part: of so many bytes, where that is known.
    async fn receive<B>(
        &self,
        response: Response<B>,
        expected: Option<u64>,
        mut part: PartFile,
    ) -> Result<(PartFile, BodyEnd), End>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut body = response.into_body();
        let (sender, mut writes) = mpsc::channel::<Vec<Bytes>>(WRITES_AHEAD);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(buffers) = writes.blocking_recv() {
                if let Err(error) = part.write(&buffers) {
                    return (part, Err(error));
                }
            }
            // Also when the whole pull was dropped: what came is there for the next one.
            let kept = part.checkpoint();
            (part, kept)
        });
        let idle = self.job.limits.idle_timeout;
        let (mut received, mut gathered, mut gathered_bytes) = (0_u64, Vec::new(), 0);
        let stopped = told_to_stop(self.stop.clone());
        tokio::pin!(stopped);
        let mut ending = loop {
            let frame = tokio::select! {
                biased;
                reason = &mut stopped => break BodyEnd::Stopped(reason),
                frame = timeout(idle, body.frame()) => frame,
            };
            match frame {
                Err(_) => break BodyEnd::Broken(format!("the provider sent nothing for {idle:?}")),
                Ok(Some(Err(error))) => break BodyEnd::Broken(format!("the provider broke off: {error}")),
                Ok(None) if expected.is_some_and(|expected| expected != received) => {
                    break BodyEnd::Broken(format!("{received} bytes came of {}", expected.unwrap_or_default()));
                }
                Ok(None) => break BodyEnd::Whole,
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    received += data.len() as u64;
                    if let Some(expected) = expected.filter(|expected| received > *expected) {
                        break BodyEnd::Broken(format!("more than the {expected} bytes came that were told"));
                    }
                    gathered_bytes += data.len();
                    gathered.push(data);
                    if gathered_bytes < GATHER_BYTES && gathered.len() < GATHER_FRAMES {
                        continue;
                    }
                    gathered_bytes = 0;
                    tokio::select! {
                        biased;
                        reason = &mut stopped => break BodyEnd::Stopped(reason),
                        // It fails when the writer did; the writer says how.
                        sent = sender.send(std::mem::take(&mut gathered)) => if sent.is_err() {
                            break BodyEnd::Whole;
                        },
                    }
                }
            }
        };
        drop(body);
        if !gathered.is_empty() {
            let _ = sender.send(gathered).await;
        }
        drop(sender);
        let (part, written) = writer.await.map_err(|_| End::fail(false, "the sink's work was aborted"))?;
        if let Err(error) = written {
            ending = BodyEnd::Unwritable(error);
        }
        Ok((part, ending))
    }

    /// Sends a request. The outer error ends the pull; the inner one is worth another try.
    async fn ask(
        &self,
        builder: http::request::Builder,
    ) -> Result<
        Result<Response<impl Body<Data = Bytes, Error: std::fmt::Display + Send> + Send + Unpin + use<>>, Retry>,
        End,
    > {
        let request = builder.body(Bytes::new()).map_err(|error| End::fail(false, error.to_string()))?;
        let opened = tokio::select! {
            biased;
            reason = told_to_stop(self.stop.clone()) => return Err(End::Stopped(reason)),
            opened = self.client.open(&self.job.provider, request) => opened,
        };
        let response = match opened {
            Ok(response) => response,
            Err(error) => return unreached(&error),
        };
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) {
            return Ok(Ok(response));
        }
        let word = text(response.headers(), HeaderName::from_static(STOP_HEADER)).and_then(StopKind::parse);
        let not_yet = word == Some(StopKind::NotYet);
        let after = text(response.headers(), header::RETRY_AFTER).and_then(|text| text.parse().ok());
        let document = self.document(response).await.unwrap_or_default();
        let said = reason_of(&document);
        let reason = said.unwrap_or_else(|| format!("the provider answered {status}"));
        if let Some(seconds) = after.filter(|_| not_yet) {
            return Ok(Err(Retry { reason, after: Some(Duration::from_secs(seconds)) }));
        }
        let again = |reason| Ok(Err(Retry { reason, after: None }));
        match status {
            StatusCode::FORBIDDEN if is_other_certificate(&document) => Err(End::OtherCertificate(reason)),
            // What stops a transfer is told by a message, which the provider's connector sends.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if word.is_some_and(StopKind::is_told) => {
                Err(End::Stopped(reason))
            }
            // No message will come of it, or of this provider it is not known: nothing else would end the transfer.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let told = timeout(self.job.limits.refusal_wait, told_to_stop(self.stop.clone())).await;
                Err(told.map_or_else(|_| End::fail(false, reason), End::Stopped))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => again(reason),
            status if status.is_server_error() => again(reason),
            _ => Err(End::fail(false, format!("{reason} ({status})"))),
        }
    }

    /// A short body, whole.
    async fn document<B>(&self, response: Response<B>) -> Result<Bytes, String>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let (limit, idle) = (self.job.limits.document_bytes_max, self.job.limits.idle_timeout);
        let body = response.into_body();
        let limited = Limited::new(body.map_err(|error| error.to_string()), limit);
        let collected = tokio::select! {
            biased;
            reason = told_to_stop(self.stop.clone()) => return Err(reason),
            collected = timeout(idle, limited.collect()) => collected,
        };
        match collected {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) => Err(format!("the provider's document did not come: {error}")),
            Err(_) => Err(format!("the provider's document did not come within {idle:?}")),
        }
    }

    /// Waits until the provider's time has come.
    async fn hold(&self, after: Duration, reason: &str) -> Result<(), End> {
        let wait = after.clamp(Duration::from_secs(1), self.job.limits.not_before_wait_max.max(Duration::from_secs(1)));
        tracing::info!(transfer.id = %self.job.transfer, reason, ?wait, "a pull waits for its time");
        tokio::select! {
            biased;
            reason = told_to_stop(self.stop.clone()) => Err(End::Stopped(reason)),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Waits before another try; ends the pull when there were too many.
    async fn pause(&self, failures: &mut u32, reason: &str) -> Result<(), End> {
        *failures += 1;
        let limits = &self.job.limits;
        if *failures >= limits.resume_attempts_max {
            return Err(End::fail(true, format!("gave up after {failures} attempts: {reason}")));
        }
        let factor = 1_u32 << failures.saturating_sub(1).min(16);
        let pause = limits.resume_backoff.saturating_mul(factor).min(limits.resume_backoff_max);
        tracing::debug!(reason, ?pause, attempt = *failures, "a pull tries again");
        tokio::select! {
            biased;
            reason = told_to_stop(self.stop.clone()) => Err(End::Stopped(reason)),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    fn url(&self, member: Option<&str>) -> Url {
        let mut url = self.job.endpoint.clone();
        if let (Some(member), Ok(mut segments)) = (member, url.path_segments_mut()) {
            segments.pop_if_empty().extend(member.split('/'));
        }
        url
    }

    fn request(&self, url: &Url) -> http::request::Builder {
        Request::get(url.as_str()).header(header::AUTHORIZATION, format!("Bearer {}", self.job.token.expose_secret()))
    }
}

fn unreached<T>(error: &PeerError) -> Result<Result<T, Retry>, End> {
    if error.is_retryable() {
        Ok(Err(Retry { reason: error.to_string(), after: None }))
    } else {
        Err(End::fail(false, error.to_string()))
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether an identifier of the peer may become ours.
fn plain(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte))
}

/// Which part of how much a response brings.
///
/// Spec: RFC 9110, 14.4, Content-Range
struct ContentRange {
    first: u64,
    last: u64,
    /// `None`: the server does not know, or does not say.
    total: Option<u64>,
}

impl ContentRange {
    /// Reads it; `None` where there is none that makes sense.
    fn parse(headers: &HeaderMap) -> Option<Self> {
        let (range, total) = text(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let total = if total.trim() == "*" { None } else { Some(number(total)?) };
        let range = Self { first: number(first)?, last: number(last)?, total };
        (range.first <= range.last && range.last < range.total.unwrap_or(u64::MAX)).then_some(range)
    }

    fn bytes(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Whether something comes after it.
    fn leaves_some(&self) -> bool {
        self.total.is_none_or(|total| self.last + 1 < total)
    }
}

/// Whether a problem document says that the token is bound to another certificate.
fn is_other_certificate(document: &[u8]) -> bool {
    let problem: Option<serde_json::Value> = serde_json::from_slice(document).ok();
    problem.is_some_and(|problem| problem["type"] == format!("urn:kontor:problem:{OTHER_CERTIFICATE}"))
}

/// The `detail` of a problem document.
fn reason_of(document: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(document).ok()?;
    problem.get("detail").and_then(serde_json::Value::as_str).map(str::to_owned)
}
