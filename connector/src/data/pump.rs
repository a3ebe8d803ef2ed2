//! Moves one file in segments to a peer, under a permit.
//!
//! Three parties share a flow. The *feeder*, a blocking task, reads and digests segments ahead of the peer and, when
//! the flow is over, writes its one report. The *body* hands segments to HTTP: one atomic load (the verdict) and one
//! atomic addition (the tally) for each. The *warden* waits for what ends a flow early: the verdict, the deadline, a
//! peer that takes nothing. Whoever closes the tally first decides how the flow ended; after that the body yields
//! nothing but an error, which HTTP turns into an aborted connection.

use std::pin::Pin;
use std::sync::mpsc::{Receiver as Returned, SyncSender as Return, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::DataLimits;
use super::gate::{Permit, Stop, expired, until_stopped};
use super::meter::{Meter, Tally};
use super::source::OpenedSource;
use crate::model::FlowOutcome;

/// A body was cut. The peer sees an aborted connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the flow was cut: {0}")]
pub struct FlowCut(pub String);

/// What a flow amounted to, as this side counted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Bytes handed over.
    pub bytes: u64,
    /// BLAKE3 of them, lower-case hexadecimal.
    pub digest_blake3: String,
    /// How it ended.
    pub outcome: FlowOutcome,
    /// Buffers that were made for it, however long it was.
    pub buffers: usize,
}

/// How a flow ended: decided once.
struct Flow {
    tally: Tally,
    segments_total: u64,
    ending: OnceLock<(u64, FlowOutcome)>,
    over: CancellationToken,
}

impl Flow {
    /// Ends the flow, unless it is over already. A flow whose every segment was taken is whole, whatever came after.
    fn end(&self, outcome: FlowOutcome) {
        if let Some(taken) = self.tally.close() {
            let outcome = if taken == self.segments_total { FlowOutcome::Whole } else { outcome };
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
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    finished: bool,
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
    pub fn start(
        permit: Permit,
        source: OpenedSource,
        extent: Extent,
        limits: &DataLimits,
        now: Timestamp,
        done: impl FnOnce(Measure) + Send + 'static,
    ) -> Self {
        let segment_bytes = limits.segment_bytes.clamp(1, 1 << 24);
        let flow = Arc::new(Flow {
            tally: Tally::default(),
            segments_total: extent.bytes.div_ceil(segment_bytes as u64),
            ending: OnceLock::new(),
            over: CancellationToken::new(),
        });
        let permit = Arc::new(permit);
        let ahead = limits.read_ahead_segments.max(1);
        let (sender, segments) = mpsc::channel(ahead);
        if extent.bytes == 0 {
            flow.end(FlowOutcome::Whole);
        }
        tokio::spawn(warden(Arc::clone(&flow), Arc::clone(&permit), deadline(&permit, now), limits.stall_timeout));
        let feeder = Feeder {
            flow: Arc::clone(&flow),
            source,
            extent,
            segment_bytes,
            meter: Meter::new(ahead + 1),
            buffers: Buffers::new(segment_bytes),
            sender,
        };
        tokio::task::spawn_blocking(move || done(feeder.run()));
        let over = Box::pin(flow.over.clone().cancelled_owned());
        Self { permit, flow, segments, remaining: extent.bytes, over, finished: extent.bytes == 0 }
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
            if std::mem::replace(&mut taken, flow.tally.taken()) == taken {
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
        let segment = match this.segments.poll_recv(context) {
            Poll::Ready(segment) => segment,
            Poll::Pending => {
                // Woken by the next segment or by the end of the flow, even while a disk hangs.
                ready!(this.over.as_mut().poll(context));
                None
            }
        };
        match segment {
            Some(segment) if this.flow.tally.take() => {
                this.remaining = this.remaining.saturating_sub(segment.len() as u64);
                if this.remaining == 0 {
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
                Poll::Ready(Some(Err(this.flow.reason())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.finished && self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
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
}

impl Feeder {
    fn run(mut self) -> Measure {
        let runtime = Handle::current();
        let end = self.extent.offset.saturating_add(self.extent.bytes);
        let mut offset = self.extent.offset;
        while offset < end && !self.flow.tally.is_closed() {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(self.segment_bytes);
            let mut buffer = self.buffers.take();
            if let Some(space) = buffer.bytes.get_mut(..wanted)
                && let Err(error) = self.source.read_at(space, offset)
            {
                self.flow.end(failed(error.to_string()));
                break;
            }
            let segment = buffer.into_segment(wanted);
            offset += wanted as u64;
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
                Some(room) => room.send(segment.clone()),
                None => break,
            }
            // Digested while it is on its way. What is taken was handed over, and so it is digested by the end.
            self.meter.add(&segment);
        }
        // Everything was read; the peer takes the rest, or something ends the flow before.
        runtime.block_on(self.flow.over.cancelled());
        let (taken, outcome) =
            self.flow.ending.get().cloned().unwrap_or_else(|| (0, failed("the flow ended without a reason")));
        let (bytes, digest) = self.meter.at(taken).unwrap_or_else(|| {
            tracing::error!(segments = taken, "a flow was counted further back than its meter reaches");
            (0, blake3::hash(b""))
        });
        Measure { bytes, digest_blake3: digest.to_hex().to_string(), outcome, buffers: self.buffers.made }
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
