//! Moves one file in segments to a peer, under a permit.
//!
//! Three parties share a flow. The *feeder*, a blocking task, reads and digests segments ahead of the peer and, when
//! the flow is over, writes its one report. The *body* hands segments to HTTP: one atomic load (the verdict) and one
//! atomic addition (the tally) for each. The *warden* waits for what ends a flow early: the verdict, the deadline, a
//! peer that takes nothing. Whoever closes the tally first decides how the flow ended; after that the body yields
//! nothing but an error, which HTTP turns into an aborted connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Returned, SyncSender as Return, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::DataLimits;
use super::gate::{Permit, Stop, expired, until_stopped};
use super::meter::{Meter, Tally};
use super::quota::{Amount, Quota};
use super::rate::Bucket;
use super::source::OpenedSource;
use super::stage::{Progress, Stage};
use crate::model::FlowOutcome;

/// A body was cut. The peer sees an aborted connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the flow was cut: {0}")]
pub struct FlowCut(pub String);

/// What a flow amounted to, as this side counted it.
#[derive(Debug)]
pub struct Measure {
    /// Bytes handed over.
    pub bytes: u64,
    /// BLAKE3 of them, lower-case hexadecimal.
    pub digest_blake3: String,
    /// How it ended.
    pub outcome: FlowOutcome,
    /// Buffers that were made for it, however long it was.
    pub buffers: usize,
    /// What it took of limited quantities, to be told to `control`.
    pub(crate) spent: Option<(Quota, Amount)>,
    /// Why the source cannot be changed as the terms say.
    pub(crate) unfit: Option<String>,
}

/// How a flow ended: decided once.
struct Flow {
    tally: Tally,
    /// Known at the start, or when the last one is made.
    segments_total: OnceLock<u64>,
    /// How it ends when every segment that was made is taken, where that is not the whole.
    last: OnceLock<FlowOutcome>,
    /// Until when it waits for its rate, in milliseconds since it began.
    held_until: AtomicU64,
    began: Instant,
    ending: OnceLock<(u64, FlowOutcome)>,
    over: CancellationToken,
}

impl Flow {
    /// Ends the flow, unless it is over already. A flow whose every segment was taken is whole, whatever came after.
    fn end(&self, outcome: FlowOutcome) {
        if let Some(taken) = self.tally.close() {
            let whole = self.segments_total.get() == Some(&taken);
            let cut = self.last.get().filter(|last| **last != FlowOutcome::Whole);
            let outcome = match cut {
                Some(last) if whole => last.clone(),
                None if whole => FlowOutcome::Whole,
                Some(_) | None => outcome,
            };
            let _ = self.ending.set((taken, outcome));
            self.over.cancel();
        }
    }

    fn reason(&self) -> FlowCut {
        FlowCut(match self.ending.get() {
            Some((_, FlowOutcome::Cut { reason } | FlowOutcome::Failed { reason })) => reason.clone(),
            Some((_, FlowOutcome::Whole)) | None => "it is over".to_owned(),
        })
    }
}

fn cut(stop: &Stop) -> FlowOutcome {
    FlowOutcome::Cut { reason: stop.to_string() }
}

fn failed(reason: impl Into<String>) -> FlowOutcome {
    FlowOutcome::Failed { reason: reason.into() }
}

/// The bytes of one flow as an HTTP body. Dropping it ends the flow.
pub struct Pump {
    permit: Arc<Permit>,
    flow: Arc<Flow>,
    segments: mpsc::Receiver<Bytes>,
    remaining: u64,
    /// How many bytes leave shows at the end only.
    open_ended: bool,
    throttle: Option<Throttle>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    finished: bool,
}

/// What stands between the source and the peer.
#[derive(Debug, Default)]
pub(crate) struct Through {
    pub(crate) stage: Option<Stage>,
    pub(crate) quota: Option<Quota>,
}

/// Waits for the agreement's rate.
struct Throttle {
    bucket: Arc<Bucket>,
    timer: Pin<Box<Sleep>>,
    /// A segment whose time has not come.
    held: Option<Bytes>,
}

impl Throttle {
    /// Ready when so many bytes may leave.
    fn poll_take(&mut self, bytes: usize, flow: &Flow, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let Err(wait) = self.bucket.take(bytes as u64, now) else { return Poll::Ready(()) };
            // Far away, for the clock: it looks again after a day.
            let until = now + wait.min(Duration::from_secs(86_400));
            let until_ms = until.saturating_duration_since(flow.began).as_millis();
            flow.held_until.store(u64::try_from(until_ms).unwrap_or(u64::MAX), Ordering::Release);
            self.timer.as_mut().reset(until);
            ready!(self.timer.as_mut().poll(context));
        }
    }
}

/// Which part of a source, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

impl Pump {
    /// Starts a flow. `done` is called exactly once, on a blocking thread, when it is over, however it ended.
    /// `now` is the time that the permit's end is measured from.
    ///
    /// Must be called within a tokio runtime.
    pub(crate) fn start(
        permit: Permit,
        source: OpenedSource,
        extent: Extent,
        through: Through,
        limits: &DataLimits,
        now: Timestamp,
        done: impl FnOnce(Measure) + Send + 'static,
    ) -> Self {
        let segment_bytes = limits.segment_bytes.clamp(1, 1 << 24);
        let bucket = permit.bucket().cloned();
        let segment_bytes = bucket.as_ref().map_or(segment_bytes, |bucket| bucket.piece(segment_bytes));
        let open_ended = through.stage.is_some();
        let total = (!open_ended).then(|| extent.bytes.div_ceil(segment_bytes as u64));
        let flow = Arc::new(Flow {
            tally: Tally::default(),
            segments_total: total.map_or_else(OnceLock::new, OnceLock::from),
            last: OnceLock::new(),
            held_until: AtomicU64::new(0),
            began: Instant::now(),
            ending: OnceLock::new(),
            over: CancellationToken::new(),
        });
        let permit = Arc::new(permit);
        let ahead = limits.read_ahead_segments.max(1);
        let (sender, segments) = mpsc::channel(ahead);
        let finished = extent.bytes == 0 && !open_ended;
        if finished {
            flow.end(FlowOutcome::Whole);
        }
        tokio::spawn(warden(Arc::clone(&flow), Arc::clone(&permit), deadline(&permit, now), limits.stall_timeout));
        let feeder = Feeder {
            flow: Arc::clone(&flow),
            source,
            extent,
            segment_bytes,
            // Beyond what the body took: those in the channel, one that is being handed over, one that waits for its rate.
            meter: Meter::new(ahead + 2),
            buffers: Buffers::new(segment_bytes),
            sender,
            made: 0,
            through,
            records: VecDeque::from([(0, 0)]),
            records_kept: ahead + 3,
            unfit: None,
        };
        tokio::task::spawn_blocking(move || done(feeder.run()));
        let over = Box::pin(flow.over.clone().cancelled_owned());
        let throttle = bucket.map(|bucket| Throttle {
            bucket,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            held: None,
        });
        Self { permit, flow, segments, remaining: extent.bytes, open_ended, throttle, over, finished }
    }
}

fn deadline(permit: &Permit, now: Timestamp) -> Option<(Instant, Timestamp)> {
    let until = permit.grant().valid_until?;
    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    // Too far away for the clock: no deadline of this process's life.
    Instant::now().checked_add(left).map(|instant| (instant, until))
}

/// Ends the flow early when the grant, the time or the peer say so.
async fn warden(flow: Arc<Flow>, permit: Arc<Permit>, deadline: Option<(Instant, Timestamp)>, stall: Duration) {
    let mut verdict = permit.watch();
    let timed_out = async {
        match deadline {
            Some((instant, until)) => {
                tokio::time::sleep_until(instant).await;
                until
            }
            None => std::future::pending().await,
        }
    };
    let stalled = async {
        let mut taken = flow.tally.taken();
        loop {
            tokio::time::sleep(stall).await;
            let held = Duration::from_millis(flow.held_until.load(Ordering::Acquire));
            if std::mem::replace(&mut taken, flow.tally.taken()) == taken && flow.began.elapsed() >= held + stall {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = flow.over.cancelled() => {}
        stop = until_stopped(&mut verdict) => flow.end(cut(&stop)),
        until = timed_out => flow.end(cut(&expired(until))),
        () = stalled => flow.end(failed(format!("the peer took no byte for {stall:?}"))),
    }
}

impl Body for Pump {
    type Data = Bytes;
    type Error = FlowCut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FlowCut>>> {
        let this = &mut *self;
        if this.finished {
            return Poll::Ready(None);
        }
        if let Some(stop) = this.permit.over() {
            this.flow.end(cut(&stop));
        }
        let held = this.throttle.as_mut().and_then(|throttle| throttle.held.take());
        let mut received = match held {
            Some(segment) => Poll::Ready(Some(segment)),
            None => this.segments.poll_recv(context),
        };
        if let (Poll::Ready(Some(segment)), Some(throttle)) = (&received, &mut this.throttle)
            && throttle.poll_take(segment.len(), &this.flow, context).is_pending()
        {
            throttle.held = Some(segment.clone());
            received = Poll::Pending;
        }
        let segment = match received {
            Poll::Ready(segment) => segment,
            Poll::Pending => {
                // Woken by the next segment or by the end of the flow, even while a disk hangs.
                ready!(this.over.as_mut().poll(context));
                None
            }
        };
        if segment.is_none()
            && let Some(last) = this.flow.last.get()
        {
            // Every segment that was made is taken.
            this.flow.end(last.clone());
        }
        match segment {
            Some(segment) if this.flow.tally.take() => {
                this.remaining = this.remaining.saturating_sub(segment.len() as u64);
                if this.remaining == 0 && !this.open_ended {
                    this.finished = true;
                    this.flow.end(FlowOutcome::Whole);
                }
                Poll::Ready(Some(Ok(Frame::data(segment))))
            }
            Some(_) | None => {
                // Whoever closed the tally may still be writing down why.
                ready!(this.over.as_mut().poll(context));
                this.finished = true;
                this.segments.close();
                if this.open_ended && matches!(this.flow.ending.get(), Some((_, FlowOutcome::Whole))) {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(this.flow.reason())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.finished && self.remaining == 0 && !self.open_ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.open_ended { SizeHint::default() } else { SizeHint::with_exact(self.remaining) }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // A consumer that keeps the agreement hangs up when its time is over, maybe before our own timer fires.
        let outcome = match self.permit.grant().valid_until {
            Some(until) if until <= Timestamp::now() => cut(&expired(until)),
            Some(_) | None => failed("the peer closed the connection"),
        };
        self.flow.end(outcome);
    }
}

/// Reads ahead of the peer.
struct Feeder {
    flow: Arc<Flow>,
    source: OpenedSource,
    extent: Extent,
    segment_bytes: usize,
    meter: Meter,
    buffers: Buffers,
    sender: mpsc::Sender<Bytes>,
    /// Segments that were handed to the body.
    made: u64,
    through: Through,
    /// How many records were within so many segments, the latest few.
    records: VecDeque<(u64, u64)>,
    records_kept: usize,
    unfit: Option<String>,
}

impl Feeder {
    fn run(mut self) -> Measure {
        let runtime = Handle::current();
        match self.through.stage.take() {
            Some(stage) => self.staged(stage, &runtime),
            None => self.plain(&runtime),
        }
        // The body sees that no more segments come.
        drop(self.sender);
        // Everything was read; the peer takes the rest, or something ends the flow before.
        runtime.block_on(self.flow.over.cancelled());
        let (taken, outcome) =
            self.flow.ending.get().cloned().unwrap_or_else(|| (0, failed("the flow ended without a reason")));
        let (bytes, digest) = self.meter.at(taken).unwrap_or_else(|| {
            tracing::error!(segments = taken, "a flow was counted further back than its meter reaches");
            (0, blake3::hash(b""))
        });
        let records =
            self.records.iter().rev().find(|(segments, _)| *segments <= taken).map_or(0, |(_, records)| *records);
        let spent = self.through.quota.map(|quota| (quota, Amount { bytes, records }));
        let (digest_blake3, buffers) = (digest.to_hex().to_string(), self.buffers.made);
        Measure { bytes, digest_blake3, outcome, buffers, spent, unfit: self.unfit }
    }

    /// The bytes as they lie.
    fn plain(&mut self, runtime: &Handle) {
        let end = self.extent.offset.saturating_add(self.extent.bytes);
        let mut offset = self.extent.offset;
        while offset < end && !self.flow.tally.is_closed() {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(self.segment_bytes);
            let Some(given) = self.given(wanted, end - offset, runtime) else { return };
            let mut buffer = self.buffers.take();
            if let Some(space) = buffer.bytes.get_mut(..given)
                && let Err(error) = self.source.read_at(space, offset)
            {
                self.flow.end(failed(error.to_string()));
                return;
            }
            let segment = buffer.into_segment(given);
            offset += given as u64;
            if !self.hand_over(segment, runtime) || given < wanted {
                return;
            }
        }
    }

    /// The records, changed. How many bytes they are shows at the end.
    fn staged(&mut self, mut stage: Stage, runtime: &Handle) {
        let end = self.extent.offset.saturating_add(self.extent.bytes);
        let mut offset = self.extent.offset;
        let mut input = vec![0; self.segment_bytes];
        let (mut at, mut filled) = (0, 0);
        let mut out = Vec::with_capacity(self.segment_bytes);
        while !self.flow.tally.is_closed() {
            let reading = at < filled || offset < end;
            if at == filled && offset < end {
                filled = usize::try_from(end - offset).unwrap_or(usize::MAX).min(input.len());
                if let Some(space) = input.get_mut(..filled)
                    && let Err(error) = self.source.read_at(space, offset)
                {
                    return self.flow.end(failed(error.to_string()));
                }
                offset += filled as u64;
                at = 0;
            }
            let moved = if reading {
                let piece = input.get(at..filled).unwrap_or_default();
                stage.push(piece, &mut out, self.segment_bytes)
            } else {
                stage.finish(&mut out).map(|progress| (0, progress))
            };
            let progress = match moved {
                Ok((taken, progress)) => {
                    at += taken;
                    progress
                }
                Err(error) => {
                    self.unfit = Some(error.to_string());
                    return self.flow.end(failed(error.to_string()));
                }
            };
            match progress {
                Progress::Done if reading => continue,
                Progress::Done | Progress::Full | Progress::NoRecordsLeft => {}
            }
            if !self.hand_over_all(&mut out, stage.records(), runtime) {
                return;
            }
            if progress == Progress::NoRecordsLeft {
                match self.more_records(runtime) {
                    Some(records) => stage.allow(records),
                    None => return,
                }
            }
            if progress == Progress::Done {
                // Also of nothing: then the body is empty, and whole.
                let _ = self.flow.segments_total.set(self.made);
                let _ = self.flow.last.set(FlowOutcome::Whole);
                return;
            }
        }
    }

    /// How many of so many bytes the quantity lets through; fewer: the flow ends after them. `None`: it ends here.
    fn given(&mut self, wanted: usize, rest: u64, runtime: &Handle) -> Option<usize> {
        let Some(quota) = &mut self.through.quota else { return Some(wanted) };
        let flow = Arc::clone(&self.flow);
        let answer = runtime.block_on(async {
            tokio::select! {
                biased;
                () = flow.over.cancelled() => None,
                given = quota.bytes(wanted as u64, rest) => Some(given),
            }
        });
        match answer? {
            Ok(given) => {
                if given < wanted as u64 {
                    let _ = flow.last.set(cut(&quota.exhausted()));
                }
                (given > 0).then(|| usize::try_from(given).unwrap_or(wanted))
            }
            Err(uncounted) => {
                flow.end(failed(uncounted.to_string()));
                None
            }
        }
    }

    /// Leave for more records. `None`: the flow ends here.
    fn more_records(&mut self, runtime: &Handle) -> Option<u64> {
        let quota = self.through.quota.as_mut()?;
        let flow = Arc::clone(&self.flow);
        let answer = runtime.block_on(async {
            tokio::select! {
                biased;
                () = flow.over.cancelled() => None,
                given = quota.records() => Some(given),
            }
        });
        match answer? {
            Ok(0) => {
                let _ = flow.last.set(cut(&quota.exhausted()));
                None
            }
            Ok(given) => Some(given),
            Err(uncounted) => {
                flow.end(failed(uncounted.to_string()));
                None
            }
        }
    }

    /// Hands over what a stage gave out, in segments. Whether the flow goes on.
    fn hand_over_all(&mut self, out: &mut Vec<u8>, records: u64, runtime: &Handle) -> bool {
        let mut rest = Bytes::from(std::mem::replace(out, Vec::with_capacity(self.segment_bytes)));
        let mut marked = false;
        while !rest.is_empty() {
            let wanted = rest.len().min(self.segment_bytes);
            let Some(given) = self.given(wanted, u64::MAX, runtime) else { return false };
            let segment = rest.split_to(given);
            // With its first byte a record counts.
            if !std::mem::replace(&mut marked, true) {
                if self.records.len() == self.records_kept {
                    self.records.pop_front();
                }
                self.records.push_back((self.made + 1, records));
            }
            if !self.hand_over(segment, runtime) || given < wanted {
                return false;
            }
        }
        true
    }

    /// Hands one segment to the body, when it has room. Whether the flow goes on.
    fn hand_over(&mut self, segment: Bytes, runtime: &Handle) -> bool {
        let room = self.sender.try_reserve().ok().or_else(|| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = self.flow.over.cancelled() => None,
                    room = self.sender.reserve() => room.ok(),
                }
            })
        });
        match room {
            Some(room) => {
                room.send(segment.clone());
                self.made += 1;
                // Digested while it is on its way. What is taken was handed over, and so it is digested by the end.
                self.meter.add(&segment);
                true
            }
            None => false,
        }
    }
}

/// Buffers that come back when HTTP has sent them: made once, zeroed once.
struct Buffers {
    segment_bytes: usize,
    made: usize,
    give_back: Return<Box<[u8]>>,
    returned: Returned<Box<[u8]>>,
}

/// More than are ever out at once; one that finds no place is freed.
const BUFFERS_KEPT_MAX: usize = 64;

impl Buffers {
    fn new(segment_bytes: usize) -> Self {
        let (give_back, returned) = sync_channel(BUFFERS_KEPT_MAX);
        Self { segment_bytes, made: 0, give_back, returned }
    }

    fn take(&mut self) -> Buffer {
        let bytes = self.returned.try_recv().unwrap_or_else(|_| {
            self.made += 1;
            vec![0; self.segment_bytes].into_boxed_slice()
        });
        Buffer { bytes, filled: 0, give_back: self.give_back.clone() }
    }
}

/// One buffer, on its way to the socket and back.
struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    give_back: Return<Box<[u8]>>,
}

impl Buffer {
    fn into_segment(mut self, filled: usize) -> Bytes {
        self.filled = filled;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.give_back.try_send(std::mem::take(&mut self.bytes));
    }
}
