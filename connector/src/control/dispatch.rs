//! Drains the outbox: woken at once by the commit that filled it, never polled; retries with
//! back-off; what remains after a crash is taken up at the next start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use kontor_core::id::{MessageId, ParticipantId, ProcessId};
use kontor_core::negotiation::{self, Failure};
use kontor_core::transfer;
use kontor_vocab::context::compact;
use serde_json::Value;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Control;
use super::error::ControlError;
use super::negotiation::published;
use super::wire_format;
use crate::model::{Machine, OutboxEntry};
use crate::store::{Batch, StoreError};

/// One participant's share of the messages that may be on their way at once.
const SHARE_OF_ONE: usize = 4;
/// How often a peer may answer that it does not know the process, before we believe it. A peer
/// may learn of a process a moment after its message arrives here.
const UNKNOWN_ATTEMPTS_MAX: u32 = 6;
/// After how many answers of 409 a peer is asked where its side stands: it may have taken the message without saying so.
const BUSY_ATTEMPTS_MAX: u32 = 3;
/// How long a receipt waits for the peer's answer, which mostly follows at once: then one commit takes up both. Meanwhile
/// the state is the one before; a crash repeats the message, which changes nothing at the peer.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
/// Attempts between which the outbox is updated in the store, after the first few.
const BOOKKEEPING_EVERY: u32 = 4;

/// Messages on their way.
#[derive(Debug)]
pub struct Outbox {
    in_flight: Arc<Semaphore>,
    /// How many of them may be to one participant, so that one that does not answer holds up its own messages alone.
    to_one_max: usize,
    to_one: Mutex<HashMap<ParticipantId, Weak<Semaphore>>>,
    running: Mutex<HashMap<MessageId, Running>>,
}

/// A message on its way, and what can happen to it meanwhile.
#[derive(Debug, Clone, Default)]
struct Running {
    /// It was superseded.
    cancelled: CancellationToken,
    /// What the peer said presupposes it, and that was committed: its receipt tells nothing new.
    arrived: CancellationToken,
}

impl Outbox {
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(in_flight_max.max(1))),
            to_one_max: (in_flight_max / SHARE_OF_ONE).max(1),
            to_one: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Waits until one message more may be on its way to a participant.
    async fn turn(&self, to: &ParticipantId) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
        let own = {
            let mut all = self.to_one.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match all.get(to).and_then(Weak::upgrade) {
                Some(own) => own,
                None => {
                    all.retain(|_, own| own.strong_count() > 0);
                    let own = Arc::new(Semaphore::new(self.to_one_max));
                    all.insert(to.clone(), Arc::downgrade(&own));
                    own
                }
            }
        };
        Ok([own.acquire_owned().await?, self.in_flight.clone().acquire_owned().await?])
    }

    /// Stops trying messages that were superseded, once that is committed.
    pub(crate) fn cancel(&self, ids: &[MessageId]) {
        for id in ids {
            if let Some(running) = self.running().remove(id) {
                running.cancelled.cancel();
            }
        }
    }

    /// Stops trying messages of which the peer showed that it has them, once that is committed. What is on the wire
    /// runs to its end.
    pub(crate) fn arrived(&self, ids: &[MessageId]) {
        for id in ids {
            if let Some(running) = self.running().get(id) {
                running.arrived.cancel();
            }
        }
    }

    fn begin(&self, id: &MessageId) -> Option<Running> {
        let mut all = self.running();
        if all.contains_key(id) {
            return None;
        }
        let running = Running::default();
        all.insert(id.clone(), running.clone());
        Some(running)
    }

    fn end(&self, id: &MessageId) {
        self.running().remove(id);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<MessageId, Running>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What became of one attempt.
enum Attempt {
    Delivered { peer_pid: Option<ProcessId> },
    Again(String),
    Busy(String),
    Unknown(String),
    Refused(String),
}

impl Control {
    /// Takes up the messages that a previous run left.
    pub(crate) async fn resume_outbox(self: &Arc<Self>) -> Result<(), ControlError> {
        for entry in self.parts.store.outbox_all().await? {
            let wait = entry.next_attempt.duration_since(self.now());
            let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO).min(self.backoff(1));
            self.deliver(self.clone(), entry, wait);
        }
        Ok(())
    }

    /// Starts delivering a message, in its own task.
    pub(crate) fn deliver(&self, control: Arc<Self>, entry: OutboxEntry, wait: Duration) {
        let Some(Running { cancelled, arrived }) = self.outbox.begin(&entry.id) else { return };
        self.spawn(async move {
            let id = entry.id.clone();
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = control.clone().keep_trying(entry, wait, &arrived) => {}
            }
            control.outbox.end(&id);
        });
    }

    async fn keep_trying(self: Arc<Self>, mut entry: OutboxEntry, wait: Duration, arrived: &CancellationToken) {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let (mut unknown, mut busy) = (0, 0);
        // Not counted is the time in which we were down: nobody tried.
        let since = self.now();
        loop {
            let attempt = {
                let Ok(_turn) = self.outbox.turn(&entry.to).await else { return };
                self.attempt(&entry).await
            };
            if entry.awaits_answer && matches!(attempt, Attempt::Delivered { .. }) {
                let _ = tokio::time::timeout(ANSWER_WAIT, arrived.cancelled()).await;
            }
            if arrived.is_cancelled() {
                return;
            }
            let detail = match attempt {
                Attempt::Delivered { peer_pid } => return self.delivered(&entry, peer_pid).await,
                Attempt::Refused(detail) => return self.undelivered(&entry, true, detail).await,
                Attempt::Unknown(detail) => {
                    unknown += 1;
                    if unknown >= UNKNOWN_ATTEMPTS_MAX {
                        return self.undelivered(&entry, true, detail).await;
                    }
                    detail
                }
                Attempt::Busy(detail) => {
                    busy += 1;
                    let side = if busy < BUSY_ATTEMPTS_MAX { None } else { self.peers_side(&entry).await };
                    match side {
                        Some(PeersSide::Taken) => return self.delivered(&entry, None).await,
                        Some(PeersSide::Ended) => {
                            let detail = format!("{detail}; asked, it says that its side is TERMINATED");
                            return self.undelivered(&entry, true, detail).await;
                        }
                        Some(PeersSide::Elsewhere) | None => detail,
                    }
                }
                Attempt::Again(detail) => detail,
            };
            entry.attempts += 1;
            let age = self.now().duration_since(since);
            if age.as_secs() >= i64::try_from(self.parts.delivery.give_up_seconds).unwrap_or(i64::MAX) {
                return self
                    .undelivered(&entry, false, format!("given up after {} attempts: {detail}", entry.attempts))
                    .await;
            }
            let wait = self.backoff(entry.attempts);
            tracing::info!(message.id = %entry.id, to = %entry.to, url = entry.url, attempts = entry.attempts, detail, "a message waits for its next attempt");
            entry.last_error = Some(detail);
            entry.next_attempt = self
                .now()
                .saturating_add(jiff::SignedDuration::try_from(wait).unwrap_or_default())
                .unwrap_or(entry.queued);
            if entry.attempts == 1 || entry.attempts.is_multiple_of(BOOKKEEPING_EVERY) {
                let batch = Batch { outbox_retry: vec![entry.clone()], now: self.now(), ..Batch::default() };
                if let Err(error) = self.parts.store.commit(batch).await {
                    tracing::warn!(message.id = %entry.id, %error, "an attempt could not be noted");
                }
            }
            tokio::select! {
                () = arrived.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    pub(super) fn backoff(&self, attempts: u32) -> Duration {
        let delivery = &self.parts.delivery;
        let doubled = delivery.backoff_ms.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        Duration::from_millis(doubled.min(delivery.backoff_ms_max))
    }

    async fn attempt(&self, entry: &OutboxEntry) -> Attempt {
        let request = http::Request::builder()
            .method(http::Method::POST)
            .uri(&entry.url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Bytes::copy_from_slice(entry.body.as_bytes()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Attempt::Refused(format!("`{}` is no address: {error}", entry.url)),
        };
        match self.parts.client.send(&entry.to, request).await {
            Ok(response) => judge(entry, &response),
            Err(error) if error.is_retryable() => Attempt::Again(error.to_string()),
            Err(error) => Attempt::Refused(error.to_string()),
        }
    }

    /// Where the peer's side of the process stands, as the peer says it; `None` where it does not say.
    ///
    /// Spec: DSP 2025-1, the GET endpoints of both bindings.
    async fn peers_side(&self, entry: &OutboxEntry) -> Option<PeersSide> {
        let request = http::Request::get(process_url(&entry.url)?).header(http::header::ACCEPT, "application/json");
        let response = self.parts.client.send(&entry.to, request.body(Bytes::new()).ok()?).await.ok()?;
        let told = serde_json::from_slice::<Value>(response.body()).map(compact).ok()?;
        let told = told.get("state")?.as_str()?.to_owned();
        Some(match self.leads_to(entry).await {
            Some(state) if state == told => PeersSide::Taken,
            _ if told == "TERMINATED" => PeersSide::Ended,
            _ => PeersSide::Elsewhere,
        })
    }

    /// The state that a message of ours leads to; `None` where its process waits for it no longer, or cannot be asked.
    async fn leads_to(&self, entry: &OutboxEntry) -> Option<&'static str> {
        let store = &self.parts.store;
        let (pending, state) = match entry.machine {
            Machine::Negotiation => {
                let negotiation = store.negotiation(&entry.process).await.ok()??.value;
                let state = negotiation.pending_state()?.as_str();
                (negotiation.pending?.id, state)
            }
            Machine::Transfer => {
                let transfer = store.transfer(&entry.process).await.ok()??.value;
                let state = transfer.pending_state()?.as_str();
                (transfer.pending?.id, state)
            }
        };
        (pending == entry.id).then_some(state)
    }

    async fn delivered(&self, entry: &OutboxEntry, peer_pid: Option<ProcessId>) {
        let delivered = Outcome::Delivered { peer_pid };
        if let Err(ControlError::Store(StoreError::Duplicate { .. })) = self.take_up(entry, &delivered).await {
            // Two processes under one identifier could not be told apart in the peer's messages.
            let detail = "the peer gave an identifier that it uses for another process already".to_owned();
            self.undelivered(entry, true, detail).await;
        }
    }

    async fn undelivered(&self, entry: &OutboxEntry, refused: bool, detail: String) {
        tracing::warn!(message.id = %entry.id, to = %entry.to, url = entry.url, refused, detail, "a message was not taken");
        let _ = self.take_up(entry, &Outcome::Undelivered(Failure { refused, detail })).await;
    }

    /// Takes up what became of a message; it leaves the outbox in the same commit. Until then a crash repeats it, which
    /// changes nothing at the peer. Where the store fails, it is tried again: nobody else would.
    async fn take_up(&self, entry: &OutboxEntry, outcome: &Outcome) -> Result<(), ControlError> {
        match self.until_taken("the receipt of a message", || self.took_up(entry, outcome.clone())).await {
            Ok(outgoing) => {
                self.send(outgoing);
                Ok(())
            }
            Err(error @ ControlError::Store(StoreError::Duplicate { .. })) => Err(error),
            Err(error) => {
                tracing::error!(message.id = %entry.id, %error, "the receipt of a message could not be taken up");
                Err(error)
            }
        }
    }

    /// Does once more what the store does not take for the moment, until it does or the connector ends: what has happened
    /// must be written down, and nobody else would.
    pub(super) async fn until_taken<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T, ControlError>
    where
        F: Future<Output = Result<T, ControlError>>,
    {
        let mut attempts = 0;
        loop {
            match attempt().await {
                Err(error) if error.may_pass() => {
                    attempts += 1;
                    tracing::error!(%error, attempts, "{what} could not be taken up yet");
                    tokio::select! {
                        () = self.parts.shutdown.cancelled() => return Err(error),
                        () = tokio::time::sleep(self.backoff(attempts)) => {}
                    }
                }
                done => return done,
            }
        }
    }

    async fn took_up(&self, entry: &OutboxEntry, outcome: Outcome) -> Result<Vec<OutboxEntry>, ControlError> {
        let id = entry.id.clone();
        Ok(match entry.machine {
            Machine::Negotiation => {
                let input = match outcome {
                    Outcome::Delivered { peer_pid } => negotiation::Input::Delivered { id, peer_pid },
                    Outcome::Undelivered(failure) => negotiation::Input::Undelivered { id, failure },
                };
                self.advance_negotiation(&entry.process, input, &published, Some(&entry.id)).await?.outgoing
            }
            Machine::Transfer => {
                let input = match outcome {
                    Outcome::Delivered { peer_pid } => transfer::Input::Delivered { id, peer_pid },
                    Outcome::Undelivered(failure) => transfer::Input::Undelivered { id, failure },
                };
                self.advance_transfer(&entry.process, input, None, Some(&entry.id)).await?.outgoing
            }
        })
    }
}

/// What became of a message in the end.
#[derive(Debug, Clone)]
enum Outcome {
    /// The peer took it, and perhaps named its own identifier.
    Delivered { peer_pid: Option<ProcessId> },
    /// It did not, and will not.
    Undelivered(Failure),
}

/// Where the peer's side of a process stands, seen from a message of ours.
enum PeersSide {
    /// In the state that our message leads to.
    Taken,
    /// Ended early.
    Ended,
    /// Anywhere else.
    Elsewhere,
}

/// The address of the process that a message went to; `None` for a first message, which has none yet.
fn process_url(url: &str) -> Option<&str> {
    let begin = ["/negotiations/", "/transfers/"].into_iter().find_map(|path| Some(url.rfind(path)? + path.len()))?;
    let end = begin + url.get(begin..)?.find('/')?;
    url.get(..end)
}

fn judge(entry: &OutboxEntry, response: &http::Response<Bytes>) -> Attempt {
    let status = response.status();
    if status.is_success() {
        // The first message of a process is answered with the peer's identifier.
        let first = entry.url.ends_with("/negotiations/request")
            || entry.url.ends_with("/negotiations/offers")
            || entry.url.ends_with("/transfers/request");
        let wanted = if entry.url.ends_with("/negotiations/offers") { "consumerPid" } else { "providerPid" };
        let value = serde_json::from_slice::<Value>(response.body()).map(compact).unwrap_or(Value::Null);
        let peer_pid = value.get(wanted).and_then(Value::as_str).and_then(|pid| ProcessId::parse(pid).ok());
        if first && peer_pid.is_none() {
            return Attempt::Refused(format!("the peer answered {status} without a `{wanted}`"));
        }
        return Attempt::Delivered { peer_pid: if first { peer_pid } else { None } };
    }
    let detail = format!("the peer answered {status}{}", words(response.body()));
    match status {
        StatusCode::NOT_FOUND => Attempt::Unknown(detail),
        // The peer holds a lease on its side of the process; it is told again.
        StatusCode::CONFLICT => Attempt::Busy(detail),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Attempt::Again(detail),
        status if status.is_client_error() => Attempt::Refused(detail),
        _ => Attempt::Again(detail),
    }
}

/// What a peer's error body says, as far as it says anything.
fn words(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body).map(compact) else { return String::new() };
    let reasons = match value.get("reason") {
        Some(Value::Array(items)) => wire_format::reasons(items),
        Some(one) => wire_format::reasons(std::slice::from_ref(one)),
        None => Vec::new(),
    };
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}
