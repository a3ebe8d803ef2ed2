//! The provider's HTTP face: whole files, ranges, directory members, listings and receipts.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use jiff::Timestamp;
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::negotiation::Role;
use kontor_core::peer::VerifiedPeer;
use kontor_core::policy::StreamTerms;
use kontor_core::refusal::{Fault, Refusal};
use kontor_wire::problem::Problem;
use kontor_wire::token::{same_secret, token_digest};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::gate::{GateRefusal, Grants, Permit, StopKind, check_holder};
use super::pump::{Extent, Measure, Pump, Through};
use super::quota::{Amount, Quota, Reserve};
use super::source::{OpenedSource, Source, SourceError, SourceRoots};
use super::stage::{PseudonymKey, Stage, entity_tag};
use super::{DataLimits, FLOW_HEADER, INDEX_MEDIA_TYPE, OTHER_CERTIFICATE, STOP_HEADER};
use crate::model::{FlowOutcome, FlowReport, SourceSpec, TokenBinding};

/// What the data plane tells `control`.
#[derive(Debug)]
pub enum FlowEvent {
    /// A peer asks for bytes. None leaves before the reply; a use that the policy counts must be durable by then.
    Opening {
        /// The transfer, by the provider's identifier.
        transfer: ProcessId,
        /// The flow that would begin.
        flow: String,
        /// For a directory: which member.
        member: Option<String>,
        /// Where in the file it would begin.
        offset: u64,
        /// The entity tag of what it would read.
        version: String,
        /// Leave, or why not.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Who asked to begin a flow was gone before the leave reached it.
    NeverWas {
        /// The transfer, by the provider's identifier.
        transfer: ProcessId,
        /// The flow that did not begin.
        flow: String,
    },
    /// A flow asks for more of a limited quantity. None of it leaves before the reply; it is durable by then.
    Reserve(Reserve),
    /// What a flow took of limited quantities in the end, in place of what it was given.
    Settled {
        /// The agreement that is counted for.
        agreement: AgreementId,
        /// The flow.
        flow: String,
        /// Bytes; `None`: not limited.
        bytes: Option<u64>,
        /// Records; `None`: not limited.
        records: Option<u64>,
    },
    /// A flow is over. Exactly one for each that was let through, however it ended.
    Ended(FlowReport),
}

/// What the provider counted of a flow, for the peer to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The flow.
    pub flow: String,
    /// The transfer, by the provider's identifier.
    pub transfer: ProcessId,
    /// Where in the file it began.
    pub offset: u64,
    /// How many bytes were handed over.
    pub bytes: u64,
    /// BLAKE3 of those bytes, lower-case hexadecimal.
    pub digest_blake3: String,
    /// How it ended.
    pub outcome: FlowOutcome,
    /// When it was asked for.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
}

/// Everything that the provider's routes share.
#[derive(Debug)]
pub struct ProviderPlane {
    grants: Arc<Grants>,
    roots: SourceRoots,
    limits: DataLimits,
    events: mpsc::Sender<FlowEvent>,
    flows: Arc<Semaphore>,
    receipts: Receipts,
}

impl ProviderPlane {
    /// A plane that serves what the grants name below the roots, and tells `control` of every flow.
    #[must_use]
    pub fn new(
        grants: Arc<Grants>,
        source_roots: Vec<PathBuf>,
        limits: DataLimits,
        events: mpsc::Sender<FlowEvent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            grants,
            roots: SourceRoots::lenient(source_roots),
            flows: Arc::new(Semaphore::new(limits.flows_max)),
            receipts: Receipts::new(limits.receipts_max),
            limits,
            events,
        })
    }

    /// Finds out whether a source could be opened now, for the one who describes a dataset. Blocks.
    ///
    /// # Errors
    /// [`SourceError`] with what would have passed.
    pub fn check_source(&self, spec: &SourceSpec) -> Result<(), SourceError> {
        self.roots.check(spec)
    }
}

/// The routes `/data/{transfer}`, `/data/{transfer}/{*member}` and `/flows/{flow}`. They expect
/// `Extension<VerifiedPeer>` on every request; without it only tokens of the profile `insecure` are good for anything.
pub fn router(plane: Arc<ProviderPlane>) -> Router {
    Router::new()
        .route("/data/{transfer}", get(whole))
        .route("/data/{transfer}/{*member}", get(member))
        .route("/flows/{flow}", get(receipt))
        .with_state(plane)
}

/// Where a peer finds a transfer, given where [`router`] is mounted.
#[must_use]
pub fn endpoint_url(base: &Url, transfer: &ProcessId) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("data").push(transfer.as_str());
    }
    url
}

type Peer = Option<Extension<VerifiedPeer>>;

async fn whole(
    State(plane): State<Arc<ProviderPlane>>,
    Path(transfer): Path<String>,
    peer: Peer,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(plane, transfer, None, peer, method, headers).await
}

async fn member(
    State(plane): State<Arc<ProviderPlane>>,
    Path((transfer, member)): Path<(String, String)>,
    peer: Peer,
    method: Method,
    headers: HeaderMap,
) -> Response {
    answer(plane, transfer, Some(member), peer, method, headers).await
}

async fn answer(
    plane: Arc<ProviderPlane>,
    transfer: String,
    member: Option<String>,
    peer: Peer,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    // A task of its own: it comes to its end even if the peer is gone in between, so that a flow that `control` let
    // through is always reported.
    let request = Request { plane, transfer, member, peer, head_only: method == Method::HEAD, headers };
    match tokio::spawn(request.serve()).await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => *refused,
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the flow could not be opened"),
    }
}

fn refuse(status: StatusCode, kind: &str, detail: impl Into<String>) -> Response {
    Problem::new(status, kind, detail).into_response()
}

fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

impl IntoResponse for GateRefusal {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::NoToken | Self::UnknownToken => {
                with(refuse(StatusCode::UNAUTHORIZED, "unknown-token", detail), header::WWW_AUTHENTICATE, "Bearer")
            }
            Self::NoPeer { .. } => refuse(StatusCode::UNAUTHORIZED, "no-identity", detail),
            Self::OtherParticipant { .. } => refuse(StatusCode::FORBIDDEN, "other-participant", detail),
            Self::OtherCertificate { .. } => Problem::new(StatusCode::FORBIDDEN, OTHER_CERTIFICATE, detail)
                .cure("suspend the transfer and start it again: that binds the token to the certificate in use")
                .into_response(),
            // The same request may pass a moment later.
            Self::Stopped(stop) if stop.kind == StopKind::Undecided => {
                with(refuse(StatusCode::SERVICE_UNAVAILABLE, "transfer-undecided", detail), header::RETRY_AFTER, "1")
            }
            Self::Stopped(stop) => {
                let refused = refuse(StatusCode::FORBIDDEN, &format!("transfer-{}", stop.kind.as_str()), detail);
                with(refused, HeaderName::from_static(STOP_HEADER), stop.kind.as_str())
            }
            Self::NotYet { seconds, .. } => {
                let refused = refuse(StatusCode::SERVICE_UNAVAILABLE, "transfer-not-yet", detail);
                let refused = with(refused, HeaderName::from_static(STOP_HEADER), StopKind::NotYet.as_str());
                with(refused, header::RETRY_AFTER, &seconds.to_string())
            }
            Self::Turning { .. } => {
                with(refuse(StatusCode::SERVICE_UNAVAILABLE, "terms-turning", detail), header::RETRY_AFTER, "1")
            }
            Self::TooManyFlows { .. } => {
                with(refuse(StatusCode::SERVICE_UNAVAILABLE, "too-many-flows", detail), header::RETRY_AFTER, "1")
            }
        }
    }
}

fn source_refusal(error: &SourceError) -> Response {
    match error {
        SourceError::Traversal(_) => refuse(StatusCode::BAD_REQUEST, "bad-member", error.to_string()),
        // The provider's paths are not the peer's business; they are in the log.
        SourceError::NotFound(_) | SourceError::WrongKind { .. } | SourceError::Outside { .. } => {
            tracing::warn!(%error, "a source cannot be opened");
            refuse(StatusCode::NOT_FOUND, "no-such-data", "there is no such file under this transfer now")
        }
        SourceError::TooMany { .. } => refuse(StatusCode::INTERNAL_SERVER_ERROR, "too-many-files", error.to_string()),
        SourceError::Unnamed(_) => {
            tracing::error!(%error, "a directory cannot be listed whole");
            let words = "a file of the directory has a name that cannot be told; the provider's log says which";
            refuse(StatusCode::UNPROCESSABLE_ENTITY, "unnamed-file", words)
        }
        SourceError::Shrunk { .. } | SourceError::Vanished | SourceError::Changed | SourceError::Io { .. } => {
            tracing::warn!(%error, "a source cannot be read");
            let refused = refuse(StatusCode::SERVICE_UNAVAILABLE, "source-unreadable", "the source cannot be read now");
            with(refused, header::RETRY_AFTER, "1")
        }
    }
}

/// The token of `Authorization: Bearer <token>`, or of `Authorization: <token>`, as the applications behind Eclipse EDC
/// present what is called `authorization` in a data address.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    match headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ') {
        Some((scheme, token)) => scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()),
        None => headers.get(header::AUTHORIZATION)?.to_str().ok().filter(|token| !token.starts_with('{')),
    }
}

struct Request {
    plane: Arc<ProviderPlane>,
    transfer: String,
    member: Option<String>,
    peer: Option<VerifiedPeer>,
    head_only: bool,
    headers: HeaderMap,
}

impl Request {
    async fn serve(self) -> Result<Response, Box<Response>> {
        let unknown = || Box::new(GateRefusal::UnknownToken.into_response());
        let transfer = ProcessId::parse(self.transfer.as_str()).map_err(|_| unknown())?;
        let permit = self
            .plane
            .grants
            .admit(&transfer, bearer(&self.headers), self.peer.as_ref(), Timestamp::now())
            .map_err(|refusal| Box::new(refusal.into_response()))?;
        let source = self.open(&permit).await?;
        match source {
            Opened::Index(json) => Ok(self.index(json)),
            Opened::File(_) if self.member.is_none() && self.wants_index() => Err(Box::new(refuse(
                StatusCode::NOT_ACCEPTABLE,
                "not-a-directory",
                "the source is one file and has no listing; a sink of type `file` would have passed",
            ))),
            Opened::File(source) => self.file(permit, source).await,
        }
    }

    fn wants_index(&self) -> bool {
        self.headers.get(header::ACCEPT).is_some_and(|accept| accept == INDEX_MEDIA_TYPE)
    }

    async fn open(&self, permit: &Permit) -> Result<Opened, Box<Response>> {
        let (plane, spec, member) = (Arc::clone(&self.plane), permit.grant().source.clone(), self.member.clone());
        let (terms, pseudonyms) = (permit.grant().terms.clone(), permit.grant().pseudonyms.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let source = plane.roots.resolve(&spec)?;
            match (&source, &member) {
                (Source::Directory(_), None) => source.index(&plane.limits).map(|mut index| {
                    for entry in &mut index.entries {
                        entry.etag = version(&entry.etag, &terms, pseudonyms.as_ref());
                    }
                    // Strings and numbers always serialise.
                    Opened::Index(serde_json::to_vec(&index).unwrap_or_default())
                }),
                _ => source.open(member.as_deref()).map(Opened::File),
            }
        });
        match opened.await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(Box::new(source_refusal(&error))),
            Err(_) => Err(Box::new(refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the source did not open"))),
        }
    }

    /// A listing is no flow: no byte of the data leaves, so no use is taken.
    fn index(&self, json: Vec<u8>) -> Response {
        let length = json.len().to_string();
        let body = if self.head_only { Body::empty() } else { Body::from(json) };
        let response = with(Response::new(body), header::CONTENT_TYPE, INDEX_MEDIA_TYPE);
        with(response, header::CONTENT_LENGTH, &length)
    }

    async fn file(&self, permit: Permit, source: OpenedSource) -> Result<Response, Box<Response>> {
        let bytes = source.bytes();
        let media_type = match permit.grant().media_type.as_str() {
            "" => source.media_type().to_owned(),
            _ if self.member.is_some() => source.media_type().to_owned(),
            named => named.to_owned(),
        };
        let stage = self.stage(&permit, &media_type)?;
        let etag = version(&source.etag(), &permit.grant().terms, permit.grant().pseudonyms.as_ref());
        if let Some(reason) = permit.unfit(&etag) {
            return Err(Box::new(refuse(StatusCode::UNPROCESSABLE_ENTITY, "terms-not-applicable", reason)));
        }
        let Selected { extent, partial } = match &stage {
            None => select(&self.headers, &etag, bytes)?,
            // How long the changed records are shows at their end, so that no range of them can be named.
            Some(_) => {
                let headers = self.headers.iter().filter(|(name, _)| *name != header::RANGE);
                select(&headers.map(|(name, value)| (name.clone(), value.clone())).collect(), &etag, bytes)?
            }
        };
        let staged = stage.is_some();
        let describe = |body: Body, extent: Extent| {
            let response = with(Response::new(body), header::CONTENT_TYPE, &media_type);
            let response = with(response, header::ETAG, &etag);
            let response = with(response, header::CACHE_CONTROL, "no-store");
            if staged {
                return with(response, header::ACCEPT_RANGES, "none");
            }
            let response = with(response, header::ACCEPT_RANGES, "bytes");
            with(response, header::CONTENT_LENGTH, &extent.bytes.to_string())
        };
        if self.head_only {
            // An empty body would say that there are 0 bytes.
            let unknown = futures_util::stream::empty::<Result<bytes::Bytes, std::convert::Infallible>>();
            let body = if staged { Body::from_stream(unknown) } else { Body::empty() };
            return Ok(describe(body, Extent { offset: 0, bytes }));
        }
        let Ok(slot) = Arc::clone(&self.plane.flows).try_acquire_owned() else {
            let limit = self.plane.limits.flows_max;
            return Err(Box::new(GateRefusal::TooManyFlows { running: limit, limit }.into_response()));
        };
        let flow = uuid::Uuid::new_v4().to_string();
        let started = Timestamp::now();
        let quota = self.reserve(&permit, &flow, extent, staged).await?;
        if let Err(refused) = self.ask(&permit, &flow, extent.offset, &etag).await {
            if let Some(quota) = quota {
                // The flow never was: it gives back what it was given.
                let _ = self.plane.events.send(quota.settled(Amount::default())).await;
            }
            return Err(refused);
        }
        let through = Through { stage, quota };
        let pump = self.start(permit, source, extent, through, etag.clone(), flow.clone(), started, slot);
        let response = with(describe(Body::new(pump), extent), HeaderName::from_static(FLOW_HEADER), &flow);
        if !partial {
            return Ok(response);
        }
        let last = extent.offset + extent.bytes.saturating_sub(1);
        let mut response = with(response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{bytes}", extent.offset));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        Ok(response)
    }

    /// What changes the records, where the terms say so.
    fn stage(&self, permit: &Permit, media_type: &str) -> Result<Option<Stage>, Box<Response>> {
        let grant = permit.grant();
        if !grant.terms.needs_records() {
            return Ok(None);
        }
        let limit = self.plane.limits.record_bytes_max;
        match Stage::new(&grant.terms, media_type, grant.pseudonyms.clone(), limit) {
            Ok(stage) => Ok(Some(stage)),
            Err(error) => {
                let (status, detail) = (StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
                Err(Box::new(refuse(status, "terms-not-applicable", detail)))
            }
        }
    }

    /// Takes a first part of a limited quantity, so that a flow for which nothing is left does not begin.
    async fn reserve(
        &self,
        permit: &Permit,
        flow: &str,
        extent: Extent,
        staged: bool,
    ) -> Result<Option<Quota>, Box<Response>> {
        let Some(mut quota) = Quota::of(permit.grant(), flow, &self.plane.events, &self.plane.limits) else {
            return Ok(None);
        };
        let bytes = if staged { u64::MAX } else { extent.bytes };
        match timeout(self.plane.limits.opening_timeout, quota.begin(bytes)).await {
            Ok(Ok(true)) => Ok(Some(quota)),
            Ok(Ok(false)) => {
                let _ = self.plane.events.send(quota.settled(Amount::default())).await;
                Err(Box::new(GateRefusal::Stopped(quota.exhausted()).into_response()))
            }
            Ok(Err(_)) | Err(_) => Err(Box::new(no_leave())),
        }
    }

    /// Asks `control` for leave.
    async fn ask(&self, permit: &Permit, flow: &str, offset: u64, version: &str) -> Result<(), Box<Response>> {
        let (reply, replied) = oneshot::channel();
        let opening = FlowEvent::Opening {
            transfer: permit.grant().transfer.clone(),
            flow: flow.to_owned(),
            member: self.member.clone(),
            offset,
            version: version.to_owned(),
            reply,
        };
        let mut waiting = Waiting { events: &self.plane.events, begins: Some((permit.grant().transfer.clone(), flow)) };
        let asked = async {
            self.plane.events.send(opening).await.ok()?;
            replied.await.ok()
        };
        match timeout(self.plane.limits.opening_timeout, asked).await {
            Ok(Some(Ok(()))) => {
                waiting.begins = None;
                Ok(())
            }
            Ok(Some(Err(refusal))) => {
                // What cannot be decided or written down now may be later: the peer comes again. All else is refused.
                let status = match refusal.fault {
                    Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::FORBIDDEN,
                };
                Err(Box::new(Problem { status, ..Problem::from_refusal(&refusal) }.into_response()))
            }
            Ok(None) | Err(_) => Err(Box::new(no_leave())),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that the flow is made of")]
    fn start(
        &self,
        permit: Permit,
        source: OpenedSource,
        extent: Extent,
        through: Through,
        etag: String,
        flow: String,
        started: Timestamp,
        slot: OwnedSemaphorePermit,
    ) -> Pump {
        let grant = permit.grant();
        let holder = Holder {
            token_digest: grant.token_digest.clone(),
            participant: grant.participant.clone(),
            binding: grant.binding.clone(),
        };
        self.plane.receipts.begin(flow.clone(), holder);
        let (transfer, agreement) = (grant.transfer.clone(), grant.agreement.clone());
        let (plane, path) = (Arc::clone(&self.plane), self.member.clone());
        let done = move |measure: Measure| {
            let Measure { bytes, digest_blake3, outcome, spent, unfit, .. } = measure;
            if let Some(reason) = unfit {
                plane.grants.unfit(&transfer, etag, reason);
            }
            if let Some((quota, taken)) = spent
                && plane.events.blocking_send(quota.settled(taken)).is_err()
            {
                tracing::warn!("a flow ended after control was gone; what it did not use is not given back");
            }
            let report = FlowReport {
                id: flow,
                transfer,
                agreement,
                role: Role::Provider,
                path,
                offset: extent.offset,
                bytes,
                digest_blake3,
                started,
                ended: Timestamp::now(),
                outcome,
                peer_bytes: None,
                peer_digest: None,
            };
            plane.receipts.end(&report);
            if plane.events.blocking_send(FlowEvent::Ended(report)).is_err() {
                tracing::warn!("a flow ended after control was gone; its report is lost");
            }
            drop(slot);
        };
        Pump::start(permit, source, extent, through, &self.plane.limits, started, done)
    }
}

/// Waits for leave. Dropped before that came, it tells that the flow never was: leave may be on its way.
struct Waiting<'a> {
    events: &'a mpsc::Sender<FlowEvent>,
    begins: Option<(ProcessId, &'a str)>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((transfer, flow)) = self.begins.take() {
            let told = FlowEvent::NeverWas { transfer, flow: flow.to_owned() };
            if let Err(mpsc::error::TrySendError::Full(told)) = self.events.try_send(told)
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                let events = self.events.clone();
                runtime.spawn(async move { drop(events.send(told).await) });
            }
        }
    }
}

/// The entity tag of what is sent.
fn version(source: &str, terms: &StreamTerms, pseudonyms: Option<&PseudonymKey>) -> String {
    if terms.needs_records() { entity_tag(source, terms, pseudonyms) } else { source.to_owned() }
}

fn no_leave() -> Response {
    let refused = refuse(StatusCode::SERVICE_UNAVAILABLE, "no-leave", "the flow could not be counted now");
    with(refused, header::RETRY_AFTER, "1")
}

enum Opened {
    File(OpenedSource),
    Index(Vec<u8>),
}

#[derive(Debug, PartialEq, Eq)]
struct Selected {
    extent: Extent,
    partial: bool,
}

/// Which bytes the request's conditions and range select (RFC 9110, sections 13 and 14).
fn select(headers: &HeaderMap, etag: &str, bytes: u64) -> Result<Selected, Box<Response>> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(wanted) = text(header::IF_MATCH)
        && wanted.trim() != "*"
        && !wanted.split(',').any(|tag| tag.trim() == etag)
    {
        let detail = format!("the data is now of version {etag}; a request without `If-Match` would have passed");
        return Err(Box::new(refuse(StatusCode::PRECONDITION_FAILED, "other-version", detail)));
    }
    let all = Selected { extent: Extent { offset: 0, bytes }, partial: false };
    // A date, a weak tag or another version: the whole of it.
    let same_version = text(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let Some(range) = text(header::RANGE).filter(|_| same_version).and_then(parse_range) else { return Ok(all) };
    let (offset, end) = match range {
        Range::From(first) => (first, bytes),
        Range::Between(first, last) => (first, last.saturating_add(1).min(bytes)),
        Range::Last(count) => (bytes.saturating_sub(count), bytes),
    };
    if offset >= end {
        let refused = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "no-such-range", format!("the data has {bytes} bytes"));
        return Err(Box::new(with(refused, header::CONTENT_RANGE, &format!("bytes */{bytes}"))));
    }
    Ok(Selected { extent: Extent { offset, bytes: end - offset }, partial: true })
}

enum Range {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

/// One range of bytes. Several, another unit, or nonsense: `None`, and the whole is sent, as the standard allows.
fn parse_range(text: &str) -> Option<Range> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first, last) {
        ("", last) => number(last).map(Range::Last),
        (first, "") => number(first).map(Range::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Range::Between(first, last))
        }
    }
}

#[derive(Debug, Clone)]
struct Holder {
    token_digest: String,
    participant: ParticipantId,
    binding: TokenBinding,
}

/// Receipts of the latest flows. Bounded; the oldest go first.
#[derive(Debug)]
struct Receipts {
    kept: Mutex<Kept>,
    /// Goes up with every flow that ends.
    ended: watch::Sender<u64>,
    max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    by_flow: HashMap<String, (Holder, Option<Receipt>)>,
    order: VecDeque<String>,
}

impl Receipts {
    fn new(max: usize) -> Self {
        Self { kept: Mutex::default(), ended: watch::Sender::new(0), max: max.max(1) }
    }

    fn begin(&self, flow: String, holder: Holder) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.order.len() >= self.max
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_flow.remove(&oldest);
        }
        kept.order.push_back(flow.clone());
        kept.by_flow.insert(flow, (holder, None));
    }

    fn end(&self, report: &FlowReport) {
        let receipt = Receipt {
            flow: report.id.clone(),
            transfer: report.transfer.clone(),
            offset: report.offset,
            bytes: report.bytes,
            digest_blake3: report.digest_blake3.clone(),
            outcome: report.outcome.clone(),
            started: report.started,
            ended: report.ended,
        };
        if let Some((_, slot)) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).by_flow.get_mut(&report.id) {
            *slot = Some(receipt);
        }
        self.ended.send_modify(|count| *count += 1);
    }

    fn get(&self, flow: &str) -> Option<(Holder, Option<Receipt>)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).by_flow.get(flow).cloned()
    }
}

async fn receipt(
    State(plane): State<Arc<ProviderPlane>>,
    Path(flow): Path<String>,
    peer: Peer,
    headers: HeaderMap,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    let Some(token) = bearer(&headers) else { return GateRefusal::NoToken.into_response() };
    let unknown = || refuse(StatusCode::NOT_FOUND, "no-receipt", "no such flow is known any more");
    let mut ended = plane.receipts.ended.subscribe();
    let until = Instant::now() + plane.limits.receipt_wait;
    let mut checked = false;
    loop {
        let Some((holder, receipt)) = plane.receipts.get(&flow) else { return unknown() };
        if !checked {
            if !same_secret(&token_digest(token), &holder.token_digest) {
                return GateRefusal::UnknownToken.into_response();
            }
            if let Err(refusal) = check_holder(&holder.participant, &holder.binding, peer.as_ref()) {
                return refusal.into_response();
            }
            checked = true;
        }
        if let Some(receipt) = receipt {
            return axum::Json(receipt).into_response();
        }
        if !matches!(timeout_at(until, ended.changed()).await, Ok(Ok(()))) {
            let running = refuse(StatusCode::NOT_FOUND, "no-receipt-yet", "the flow is not over yet");
            return with(running, header::RETRY_AFTER, "1");
        }
    }
}
