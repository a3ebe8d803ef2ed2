//! Counts and digests, so that both sides can compare what flowed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::{Hash, Hasher};

const CLOSED: u64 = 1 << 63;

/// How many segments left, and whether the flow is over: one word, so that the two can never disagree.
///
/// Whoever closes it first decides how the flow ended, and learns the exact count at that moment: nothing is taken
/// after it, and so there is exactly one report.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Takes one segment, unless the flow is over: one atomic addition.
    #[inline]
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel) & CLOSED == 0
    }

    /// Ends the flow. The number of segments taken, for the first caller only.
    #[must_use]
    pub fn close(&self) -> Option<u64> {
        let before = self.0.fetch_or(CLOSED, Ordering::AcqRel);
        (before & CLOSED == 0).then_some(before)
    }

    /// Whether the flow is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many segments were taken so far, to see whether anything moves.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !CLOSED
    }
}

/// The digest of what was read ahead, with the marks to go back to what was taken.
#[derive(Debug)]
pub struct Meter {
    hasher: Hasher,
    bytes: u64,
    segments: u64,
    marks: VecDeque<Mark>,
    marks_max: usize,
}

#[derive(Debug)]
struct Mark {
    segments: u64,
    bytes: u64,
    hasher: Hasher,
}

impl Meter {
    /// A meter that can go back by so many segments.
    #[must_use]
    pub fn new(back_segments: usize) -> Self {
        let start = Mark { segments: 0, bytes: 0, hasher: Hasher::new() };
        Self {
            hasher: Hasher::new(),
            bytes: 0,
            segments: 0,
            marks: VecDeque::from([start]),
            marks_max: back_segments + 1,
        }
    }

    /// Counts and digests one segment.
    pub fn add(&mut self, segment: &[u8]) {
        self.hasher.update(segment);
        self.bytes += segment.len() as u64;
        self.segments += 1;
        if self.marks.len() == self.marks_max {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { segments: self.segments, bytes: self.bytes, hasher: self.hasher.clone() });
    }

    /// Bytes and digest of the first so many segments; `None` if that is further back than the marks reach.
    #[must_use]
    pub fn at(&self, segments: u64) -> Option<(u64, Hash)> {
        let mark = self.marks.iter().rev().find(|mark| mark.segments == segments)?;
        Some((mark.bytes, mark.hasher.finalize()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_closed_tally_lets_nothing_more_through() {
        let tally = Tally::default();
        assert!(tally.take() && tally.take());
        assert_eq!(tally.close(), Some(2));
        assert!(!tally.take());
        assert_eq!(tally.close(), None, "only the first learns how it ended");
    }

    #[test]
    fn the_count_at_the_close_is_exact_under_contention() {
        for _ in 0..200 {
            let tally = Tally::default();
            let (taken, closed) = std::thread::scope(|scope| {
                let taker = scope.spawn(|| (0..1000).filter(|_| tally.take()).count() as u64);
                let closer = scope.spawn(|| tally.close());
                (taker.join().unwrap(), closer.join().unwrap())
            });
            assert_eq!(closed, Some(taken));
        }
    }

    #[test]
    fn the_meter_goes_back_to_what_was_taken() {
        let mut meter = Meter::new(2);
        for segment in [b"ab", b"cd", b"ef"] {
            meter.add(segment);
        }
        assert_eq!(meter.at(3), Some((6, blake3::hash(b"abcdef"))));
        assert_eq!(meter.at(1), Some((2, blake3::hash(b"ab"))));
        assert_eq!(meter.at(0), None, "further back than the marks");
        assert_eq!(Meter::new(2).at(0), Some((0, blake3::hash(b""))));
    }
}
