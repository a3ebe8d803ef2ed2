//! Who may have bytes: grants in, permits out.
//!
//! `control` opens a grant when a transfer starts and moves its verdict when anything changes. A
//! peer that presents the grant's token *over the connection that the token is bound to* gets a
//! [`Permit`]; only this module makes one, and the pump takes nothing else.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use kontor_core::effect::StopReason;
use kontor_core::id::{AgreementId, ParticipantId, ProcessId};
use kontor_core::peer::VerifiedPeer;
use kontor_core::policy::StreamTerms;
use kontor_wire::token::{same_secret, token_digest};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::DataLimits;
use super::rate::Bucket;
use super::stage::PseudonymKey;
use crate::model::{SourceSpec, TokenBinding};

/// What `control` lets one peer have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSpec {
    /// The transfer, by the provider's identifier.
    pub transfer: ProcessId,
    /// The agreement that it is under.
    pub agreement: AgreementId,
    /// SHA-256 of the access token, lower-case hexadecimal.
    pub token_digest: String,
    /// Whom the token was made for.
    pub participant: ParticipantId,
    /// What the token is bound to.
    pub binding: TokenBinding,
    /// Where the bytes are; opened when they are asked for.
    pub source: SourceSpec,
    /// Media type of a file source; empty: guessed by the file's name.
    pub media_type: String,
    /// The first instant at which no byte may leave any more.
    pub valid_until: Option<Timestamp>,
    /// Whether the permission goes on from then, under other terms: whoever comes too early for those comes again.
    pub goes_on: bool,
    /// Under which burdens bytes may flow.
    pub terms: StreamTerms,
    /// What the agreement's pseudonyms are made with, where its terms ask for some.
    pub pseudonyms: Option<PseudonymKey>,
}

/// Why a grant lets nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopKind {
    /// Paused by either side; may go on.
    Suspended,
    /// Ended early by either side.
    Terminated,
    /// All data was moved.
    Completed,
    /// The time that the policy allows is over.
    Expired,
    /// The number of uses that the policy allows is taken.
    UsesExhausted,
    /// The quantity that the policy allows is taken.
    QuotaExhausted,
    /// The time from which the policy allows it has not come.
    NotYet,
    /// The agreement was taken back.
    Revoked,
    /// What the policy says cannot be found out for the moment.
    Undecided,
}

impl StopKind {
    /// The word, as in headers and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Terminated => "terminated",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::UsesExhausted => "uses-exhausted",
            Self::QuotaExhausted => "quota-exhausted",
            Self::NotYet => "not-yet",
            Self::Revoked => "revoked",
            Self::Undecided => "undecided",
        }
    }

    /// Whether the provider tells the consumer of it by a message of the protocol; what else is refused, the state of
    /// the transfer does not show.
    pub(crate) fn is_told(self) -> bool {
        match self {
            Self::Suspended | Self::Terminated | Self::Completed | Self::Expired | Self::Revoked => true,
            Self::UsesExhausted | Self::QuotaExhausted | Self::NotYet | Self::Undecided => false,
        }
    }

    /// The kind that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Suspended,
            Self::Terminated,
            Self::Completed,
            Self::Expired,
            Self::UsesExhausted,
            Self::QuotaExhausted,
            Self::NotYet,
            Self::Revoked,
            Self::Undecided,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

impl From<StopReason> for StopKind {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Suspended => Self::Suspended,
            StopReason::Terminated => Self::Terminated,
            StopReason::Completed => Self::Completed,
        }
    }
}

/// Why a flow stopped, in a word and in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The word.
    pub kind: StopKind,
    /// The words; may be empty.
    pub detail: String,
}

impl Stop {
    /// A reason to stop.
    #[must_use]
    pub fn new(kind: StopKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.kind {
            StopKind::Suspended => "the transfer is suspended",
            StopKind::Terminated => "the transfer was terminated",
            StopKind::Completed => "the transfer is completed",
            StopKind::Expired => "the time that the agreement allows is over",
            StopKind::UsesExhausted => "the uses that the agreement allows are taken",
            StopKind::QuotaExhausted => "the quantity that the agreement allows is taken",
            StopKind::NotYet => "the time from which the agreement allows it has not come",
            StopKind::Undecided => "what the policy says cannot be found out for the moment",
            StopKind::Revoked => "the agreement was revoked",
        };
        match self.detail.as_str() {
            "" => out.write_str(words),
            detail => write!(out, "{words}: {detail}"),
        }
    }
}

/// Whether bytes may flow now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    Open,
    /// They may not.
    Stopped(Stop),
}

/// Why the gate stays shut. What it says goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateRefusal {
    /// No `Authorization: Bearer …`.
    #[error(
        "the request has no access token; `Authorization: Bearer <token>` with the token of the transfer's start message would have passed"
    )]
    NoToken,
    /// No grant of this transfer has this token. An unknown transfer reads the same.
    #[error("the access token opens no such transfer; the one in its latest start message would have passed")]
    UnknownToken,
    /// The connection proves no participant, and the token is bound to one's certificate.
    #[error("this connection proves no participant, and the access token is bound to {bound}")]
    NoPeer {
        /// What the token is bound to.
        bound: String,
    },
    /// The token is another participant's.
    #[error(
        "the access token was made for another participant than `{participant}`: it is bound to {bound}, this connection presents {presented}; a token of a transfer of `{participant}` would have passed"
    )]
    OtherParticipant {
        /// Who asks.
        participant: ParticipantId,
        /// What the token is bound to.
        bound: String,
        /// What the connection showed.
        presented: String,
    },
    /// The token is bound to another certificate of the same participant.
    #[error(
        "the token is bound to {bound}; this connection presents {presented}; a renewed certificate needs a resumed transfer: suspend it and start it again, which binds the token to the certificate in use"
    )]
    OtherCertificate {
        /// What the token is bound to.
        bound: String,
        /// What the connection showed.
        presented: String,
    },
    /// The grant lets nothing through, now or any more.
    #[error("{0}")]
    Stopped(Stop),
    /// The time has not come.
    #[error("the agreement lets nothing through before {until}; the same request after that would have passed")]
    NotYet {
        /// From when on.
        until: Timestamp,
        /// Seconds until then, at least one.
        seconds: u64,
    },
    /// The terms are other ones from now on, and are about to be asked.
    #[error("from {until} on other terms of the agreement hold; the same request a moment later would have passed")]
    Turning {
        /// Since when.
        until: Timestamp,
    },
    /// Too many flows under this grant.
    #[error("{running} flows run under this transfer; {limit} are allowed at once")]
    TooManyFlows {
        /// How many run.
        running: usize,
        /// How many may.
        limit: usize,
    },
}

/// A grant with its verdict: the thing that a permit keeps looking at.
#[derive(Debug)]
struct Gatepost {
    grant: GrantSpec,
    /// The verdict in one word, for the check in the stream. INVARIANT: set after `verdict` says why.
    shut: AtomicBool,
    verdict: watch::Sender<Verdict>,
    running: AtomicUsize,
    /// What all flows of the agreement share.
    bucket: Option<Arc<Bucket>>,
    /// The version of the source that cannot be changed as the terms say, and why.
    unfit: Mutex<Option<(String, String)>>,
}

impl Gatepost {
    fn move_to(&self, verdict: Verdict) {
        let shut = matches!(verdict, Verdict::Stopped(_));
        self.verdict.send_replace(verdict);
        self.shut.store(shut, Ordering::Release);
    }

    fn stopped(&self) -> Option<Stop> {
        match &*self.verdict.borrow() {
            Verdict::Open => None,
            Verdict::Stopped(stop) => Some(stop.clone()),
        }
    }
}

/// The grants that are open or were, by transfer. Cheap to share behind an `Arc`; never on the path of a segment.
#[derive(Debug)]
pub struct Grants {
    posts: RwLock<HashMap<ProcessId, Arc<Gatepost>>>,
    buckets: Mutex<HashMap<AgreementId, Arc<Bucket>>>,
    /// Transfers that ended, the oldest first: what is kept only to say why.
    ended: Mutex<VecDeque<ProcessId>>,
    ended_max: usize,
    flows_per_transfer_max: usize,
}

impl Default for Grants {
    fn default() -> Self {
        Self::new(DataLimits::default())
    }
}

impl Grants {
    /// No grants; each that comes may have [`DataLimits::flows_per_transfer_max`] flows at once.
    #[must_use]
    pub fn new(limits: DataLimits) -> Self {
        Self {
            posts: RwLock::default(),
            buckets: Mutex::default(),
            ended: Mutex::default(),
            ended_max: limits.ended_grants_max,
            flows_per_transfer_max: limits.flows_per_transfer_max,
        }
    }

    fn post(&self, transfer: &ProcessId) -> Option<Arc<Gatepost>> {
        self.posts.read().unwrap_or_else(PoisonError::into_inner).get(transfer).cloned()
    }

    /// Lets bytes flow. A grant of the same transfer is replaced: its token opens nothing any more and its flows are
    /// cut. The same grant opened again, still open, changes nothing.
    pub fn open(&self, grant: GrantSpec) {
        let transfer = grant.transfer.clone();
        // The intention to start opens the grant, and so does the receipt of the start message: by then the peer may
        // already be reading.
        if self.post(&transfer).is_some_and(|post| post.grant == grant && !post.shut.load(Ordering::Acquire)) {
            return;
        }
        let bucket = self.bucket(&grant);
        let post = Arc::new(Gatepost {
            bucket,
            unfit: Mutex::default(),
            grant,
            shut: AtomicBool::new(false),
            verdict: watch::Sender::new(Verdict::Open),
            running: AtomicUsize::new(0),
        });
        let replaced = self.posts.write().unwrap_or_else(PoisonError::into_inner).insert(transfer, post);
        if let Some(old) = replaced {
            old.move_to(Verdict::Stopped(Stop::new(StopKind::Suspended, "a newer access token replaced this one")));
        }
    }

    /// The bucket of the grant's agreement. A restart of the process fills it again, nothing else does.
    fn bucket(&self, grant: &GrantSpec) -> Option<Arc<Bucket>> {
        let rate = grant.terms.rate?;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tokio::time::Instant::now();
        // One that is full again is as good as a new one.
        buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        let held = buckets.get(&grant.agreement).filter(|bucket| bucket.rate() == rate).cloned();
        let bucket = held.unwrap_or_else(|| Arc::new(Bucket::new(rate, now)));
        buckets.insert(grant.agreement.clone(), Arc::clone(&bucket));
        Some(bucket)
    }

    /// Remembers that this version of the source cannot be changed as the terms say, so that asking again is refused.
    pub(crate) fn unfit(&self, transfer: &ProcessId, etag: String, reason: String) {
        if let Some(post) = self.post(transfer) {
            *post.unfit.lock().unwrap_or_else(PoisonError::into_inner) = Some((etag, reason));
        }
    }

    /// Stops every flow of a transfer: once this returns, none takes another segment. The grant stays known, so that
    /// its holder is told why; of the transfers that ended, the latest [`DataLimits::ended_grants_max`] do. Whether
    /// there was a grant.
    pub fn stop(&self, transfer: &ProcessId, kind: StopKind, detail: &str) -> bool {
        let post = self.post(transfer);
        if let Some(post) = &post {
            post.move_to(Verdict::Stopped(Stop::new(kind, detail)));
            if kind != StopKind::Suspended {
                self.ended(transfer);
            }
        }
        post.is_some()
    }

    fn ended(&self, transfer: &ProcessId) {
        let forgotten = {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if !ended.contains(transfer) {
                ended.push_back(transfer.clone());
            }
            if ended.len() > self.ended_max { ended.pop_front() } else { None }
        };
        // One that was opened again meanwhile is not over.
        if let Some(transfer) = forgotten
            && self.post(&transfer).is_some_and(|post| post.shut.load(Ordering::Acquire))
        {
            self.forget(&transfer);
        }
    }

    /// Forgets the grant and cuts what still flows. From now on its token is unknown; [`Grants::stop`] keeps telling
    /// the peer why. Whether there was a grant.
    pub fn forget(&self, transfer: &ProcessId) -> bool {
        let post = self.posts.write().unwrap_or_else(PoisonError::into_inner).remove(transfer);
        if let Some(post) = &post {
            post.move_to(Verdict::Stopped(Stop::new(StopKind::Terminated, "")));
        }
        post.is_some()
    }

    /// How many flows run under the transfer's grant.
    #[must_use]
    pub fn running(&self, transfer: &ProcessId) -> usize {
        self.post(transfer).map_or(0, |post| post.running.load(Ordering::Acquire))
    }

    /// The verdict about a transfer, if it has a grant.
    #[must_use]
    pub fn verdict(&self, transfer: &ProcessId) -> Option<Verdict> {
        self.post(transfer).map(|post| post.verdict.borrow().clone())
    }

    /// Token + verified peer + grant → permit. Without a peer only a token of the profile `insecure` opens anything,
    /// where a request has one header for the token and for who asks.
    ///
    /// # Errors
    /// [`GateRefusal`], in this order: the token, its holder, the certificate, the verdict, the time, the number of
    /// flows. Only the holder learns anything of the transfer.
    pub fn admit(
        &self,
        transfer: &ProcessId,
        token: Option<&str>,
        peer: Option<&VerifiedPeer>,
        now: Timestamp,
    ) -> Result<Permit, GateRefusal> {
        let token = token.ok_or(GateRefusal::NoToken)?;
        let digest = token_digest(token);
        let post = self.post(transfer).ok_or(GateRefusal::UnknownToken)?;
        if !same_secret(&digest, &post.grant.token_digest) {
            return Err(GateRefusal::UnknownToken);
        }
        check_holder(&post.grant.participant, &post.grant.binding, peer)?;
        if let Some(stop) = post.stopped() {
            return Err(GateRefusal::Stopped(stop));
        }
        if let Some(until) = post.grant.valid_until.filter(|until| *until <= now) {
            return Err(match post.grant.goes_on {
                true => GateRefusal::Turning { until },
                false => GateRefusal::Stopped(expired(until)),
            });
        }
        if let Some(until) = post.grant.terms.not_before.filter(|until| *until > now) {
            let seconds = u64::try_from(until.duration_since(now).as_secs()).unwrap_or(0) + 1;
            return Err(GateRefusal::NotYet { until, seconds });
        }
        let before = post.running.fetch_add(1, Ordering::AcqRel);
        let permit = Permit { post };
        if before >= self.flows_per_transfer_max {
            return Err(GateRefusal::TooManyFlows { running: before, limit: self.flows_per_transfer_max });
        }
        Ok(permit)
    }
}

/// Whether the peer is whom a token was made for.
pub(crate) fn check_holder(
    participant: &ParticipantId,
    binding: &TokenBinding,
    peer: Option<&VerifiedPeer>,
) -> Result<(), GateRefusal> {
    let Some(peer) = peer else {
        return match binding {
            TokenBinding::InsecureHeader => Ok(()),
            TokenBinding::Certificate { .. } => Err(GateRefusal::NoPeer { bound: fingerprint(binding) }),
        };
    };
    let fingerprints = || (fingerprint(binding), fingerprint(&TokenBinding::from(peer.binding())));
    if participant != peer.participant() {
        let (bound, presented) = fingerprints();
        return Err(GateRefusal::OtherParticipant { participant: peer.participant().clone(), bound, presented });
    }
    if !binding.matches(peer) {
        let (bound, presented) = fingerprints();
        return Err(GateRefusal::OtherCertificate { bound, presented });
    }
    Ok(())
}

fn fingerprint(binding: &TokenBinding) -> String {
    match binding {
        TokenBinding::Certificate { sha256 } => format!("certificate sha256:{sha256}"),
        TokenBinding::InsecureHeader => "no certificate (insecure header)".to_owned(),
    }
}

/// Leave to move the bytes of one flow. Only [`Grants::admit`] makes one; while it lives the flow counts as running.
#[derive(Debug)]
pub struct Permit {
    post: Arc<Gatepost>,
}

impl Permit {
    /// The grant that it is of.
    #[must_use]
    pub fn grant(&self) -> &GrantSpec {
        &self.post.grant
    }

    /// Whether bytes may flow at this moment: one atomic load.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.post.shut.load(Ordering::Acquire)
    }

    /// Why no further segment may leave, if none may: one atomic load, and a look at the wall clock where the grant
    /// ends. The timers of this process stand still while the machine sleeps; that clock does not. It is the coarse
    /// one, a few milliseconds late at worst, because this is asked for every segment: the exact end is a timer's.
    #[must_use]
    #[inline]
    pub fn over(&self) -> Option<Stop> {
        if !self.is_open() {
            return self.stopped();
        }
        let until = self.post.grant.valid_until?;
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let now = (now.tv_sec, now.tv_nsec);
        (now >= (until.as_second(), until.subsec_nanosecond().into())).then(|| expired(until))
    }

    /// What the agreement's flows share to keep to its rate.
    pub(crate) fn bucket(&self) -> Option<&Arc<Bucket>> {
        self.post.bucket.as_ref()
    }

    /// Why this version of the source cannot be changed as the terms say, if that was found out.
    pub(crate) fn unfit(&self, etag: &str) -> Option<String> {
        let unfit = self.post.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        unfit.as_ref().filter(|(version, _)| version == etag).map(|(_, reason)| reason.clone())
    }

    /// Why they may not, if they may not.
    #[must_use]
    pub fn stopped(&self) -> Option<Stop> {
        self.post.stopped()
    }

    /// Follows the verdict.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Verdict> {
        self.post.verdict.subscribe()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.post.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The stop of a grant whose time is over.
pub(crate) fn expired(until: Timestamp) -> Stop {
    Stop::new(StopKind::Expired, format!("it ended at {until}"))
}

/// Waits until the verdict is a stop. Pends for ever if nobody can say so any more.
pub(crate) async fn until_stopped(verdict: &mut watch::Receiver<Verdict>) -> Stop {
    loop {
        if let Verdict::Stopped(stop) = &*verdict.borrow_and_update() {
            return stop.clone();
        }
        if verdict.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
