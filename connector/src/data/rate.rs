//! How fast bytes may leave: one bucket for all flows of an agreement.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kontor_core::policy::Rate;
use tokio::time::Instant;

/// A bucket that is full at first, and is filled again at the rate. Exact: it counts in byte-nanoseconds.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    held: i128,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        let level = Level { held: cost(rate, rate.burst()), at: now };
        Self { rate, level: Mutex::new(level) }
    }

    /// What it is filled at.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes so many bytes, at most [`Rate::burst`], or says how long to wait before it is worth asking again.
    ///
    /// # Errors
    /// The time until they would be there if nobody else took any.
    pub fn take(&self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let wanted = cost(self.rate, bytes);
        let mut level = self.filled(now);
        if level.held >= wanted {
            level.held -= wanted;
            return Ok(());
        }
        let nanos = (wanted - level.held).div_ceil_by(i128::from(self.rate.bytes()));
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Whether it holds all that it can.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.filled(now).held == cost(self.rate, self.rate.burst())
    }

    /// The level at an instant.
    fn filled(&self, now: Instant) -> MutexGuard<'_, Level> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(level.at).as_nanos();
        let filled = i128::try_from(passed).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate.bytes()));
        level.held = level.held.saturating_add(filled).min(cost(self.rate, self.rate.burst()));
        level.at = level.at.max(now);
        level
    }

    /// The largest piece that is taken at once, where pieces have so many bytes at most: a second's worth, so that a
    /// slow flow moves steadily, and never more than the bucket holds.
    #[must_use]
    pub fn piece(&self, most: usize) -> usize {
        let second = 1_000_000_000_i128.saturating_mul(i128::from(self.rate.bytes())) / self.rate.per().as_nanos();
        let second = u64::try_from(second).unwrap_or(u64::MAX);
        usize::try_from(second.min(self.rate.burst())).unwrap_or(most).clamp(1, most.max(1))
    }
}

/// What so many bytes cost: the time they take, times the bytes that come in it.
fn cost(rate: Rate, bytes: u64) -> i128 {
    rate.per().as_nanos().saturating_mul(i128::from(bytes))
}

trait DivCeil {
    fn div_ceil_by(self, by: Self) -> Self;
}

impl DivCeil for i128 {
    fn div_ceil_by(self, by: Self) -> Self {
        self / by + Self::from(self % by != 0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn rate(bytes: u64, seconds: i64) -> Rate {
        Rate::new(bytes, SignedDuration::from_secs(seconds)).unwrap()
    }

    /// Takes pieces as often as the bucket lets, waiting as it says: how much by then.
    fn taken(bucket: &Bucket, start: Instant, piece: u64, seconds: u64) -> u64 {
        let (end, mut now, mut bytes) = (start + Duration::from_secs(seconds), start, 0);
        while now <= end {
            match bucket.take(piece, now) {
                Ok(()) => bytes += piece,
                Err(wait) => now += wait,
            }
        }
        bytes
    }

    #[test]
    fn never_more_than_the_burst_and_what_came_since() {
        for (bytes, per, piece) in [(1_000, 1, 10), (1_000, 60, 7), (7, 3, 7), (1 << 40, 1, 1 << 34), (60, 60, 1)] {
            let (start, rate) = (Instant::now(), rate(bytes, per));
            for seconds in [0, 1, 59, 60, 61] {
                let most = rate.burst() + rate.burst() * seconds / u64::try_from(per).unwrap();
                let moved = taken(&Bucket::new(rate, start), start, piece, seconds);
                assert!(moved <= most && moved + piece > most, "{moved} of {most} in {seconds} s at {rate}");
            }
        }
    }

    #[test]
    fn a_bucket_holds_no_more_than_its_burst_and_time_does_not_run_back() {
        let (start, bucket) = (Instant::now(), Bucket::new(rate(10, 1), Instant::now()));
        assert_eq!(bucket.take(10, start), Ok(()));
        let late = start + Duration::from_secs(3_600);
        assert_eq!(bucket.take(10, late), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(1, late), Err(Duration::from_millis(100)));
    }

    #[test]
    fn pieces_are_a_seconds_worth() {
        let piece = |bytes, seconds| Bucket::new(rate(bytes, seconds), Instant::now()).piece(4_096);
        assert_eq!((piece(1 << 30, 1), piece(6_000, 60), piece(1, 3_600)), (4_096, 100, 1));
    }
}
