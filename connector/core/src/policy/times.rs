//! The instants at which something holds, as the points at which it turns. Conditions on the time alone become one
//! such set when a policy is settled, so that asking again, and asking until when, is one search.

use jiff::{SignedDuration, Timestamp};

use super::model::{Comparison, LogicalOperand};

/// A set of instants: whether it holds the first one, and every instant at which that turns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Times {
    from_the_start: bool,
    /// In ascending order, each once; from each on it is the other way round.
    turns: Vec<Timestamp>,
}

impl Times {
    /// The instants that compare so with one.
    pub(super) fn that(comparison: Comparison, at: Timestamp) -> Self {
        let next = at.checked_add(SignedDuration::from_nanos(1)).ok();
        let (from_the_start, turns) = match comparison {
            Comparison::Lt => (true, vec![at]),
            Comparison::Gteq => (false, vec![at]),
            Comparison::Lteq => (true, next.into_iter().collect()),
            Comparison::Gt => (false, next.into_iter().collect()),
            Comparison::Eq => (false, std::iter::once(at).chain(next).collect()),
            Comparison::Neq => (true, std::iter::once(at).chain(next).collect()),
        };
        Self { from_the_start, turns }.normal()
    }

    /// What is at or before the first instant that there is does not turn: it holds from the start.
    fn normal(mut self) -> Self {
        let early = self.turns.partition_point(|turn| *turn <= Timestamp::MIN);
        self.from_the_start ^= early % 2 == 1;
        self.turns.drain(..early);
        self
    }

    /// Several sets under an operand. `None` where their order in time would count.
    pub(super) fn under(operand: LogicalOperand, sets: &[&Self]) -> Option<Self> {
        let holds = |count: usize| match operand {
            LogicalOperand::And => Some(count == sets.len()),
            LogicalOperand::Or => Some(count > 0),
            LogicalOperand::Xone => Some(count == 1),
            LogicalOperand::AndSequence => None,
        };
        let mut turns: Vec<(Timestamp, bool)> = Vec::with_capacity(sets.iter().map(|set| set.turns.len()).sum());
        for set in sets {
            let mut inside = set.from_the_start;
            turns.extend(set.turns.iter().map(|turn| {
                inside = !inside;
                (*turn, inside)
            }));
        }
        turns.sort_unstable();
        let mut count = sets.iter().filter(|set| set.from_the_start).count();
        let mut whole = Self { from_the_start: holds(count)?, turns: Vec::new() };
        let mut inside = whole.from_the_start;
        for group in turns.chunk_by(|(a, _), (b, _)| a == b) {
            for (_, enters) in group {
                count = if *enters { count + 1 } else { count.saturating_sub(1) };
            }
            if holds(count)? != inside {
                inside = !inside;
                whole.turns.extend(group.first().map(|(turn, _)| *turn));
            }
        }
        Some(whole)
    }

    /// Whether it holds an instant.
    pub(super) fn holds(&self, at: Timestamp) -> bool {
        self.from_the_start ^ (self.turns.partition_point(|turn| *turn <= at) % 2 == 1)
    }

    /// The first instant after one at which it turns.
    pub(super) fn turns_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.turns.get(self.turns.partition_point(|turn| *turn <= at)).copied()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMPARISONS: [Comparison; 6] =
        [Comparison::Eq, Comparison::Neq, Comparison::Gt, Comparison::Gteq, Comparison::Lt, Comparison::Lteq];

    /// A few nanoseconds, at either end of the calendar and in its middle.
    fn instant(nanos: i64) -> Timestamp {
        let nano = SignedDuration::from_nanos(nanos % 8);
        match nanos / 8 {
            0 => Timestamp::MIN.checked_add(nano).unwrap(),
            1 => Timestamp::UNIX_EPOCH.checked_add(nano).unwrap(),
            _ => Timestamp::MAX.checked_sub(nano).unwrap(),
        }
    }

    fn all_instants() -> impl Iterator<Item = Timestamp> {
        (0..24).map(instant)
    }

    #[test]
    fn a_comparison_holds_what_compares_so() {
        for comparison in COMPARISONS {
            for at in all_instants() {
                let times = Times::that(comparison, at);
                for now in all_instants() {
                    assert_eq!(times.holds(now), comparison.holds(&now, &at), "{now} {comparison:?} {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn sets_under_an_operand_hold_what_the_operand_says(
            of in prop::collection::vec((prop::sample::select(COMPARISONS.to_vec()), 0..24_i64), 1..6),
            operand in prop::sample::select(vec![LogicalOperand::And, LogicalOperand::Or, LogicalOperand::Xone]),
        ) {
            let sets: Vec<Times> = of.iter().map(|(comparison, at)| Times::that(*comparison, instant(*at))).collect();
            let whole = Times::under(operand, &sets.iter().collect::<Vec<_>>()).unwrap();
            prop_assert!(whole.turns.windows(2).all(|pair| pair[0] < pair[1]));
            for now in all_instants() {
                let count = sets.iter().filter(|set| set.holds(now)).count();
                let holds = match operand {
                    LogicalOperand::And => count == sets.len(),
                    LogicalOperand::Or => count > 0,
                    LogicalOperand::Xone | LogicalOperand::AndSequence => count == 1,
                };
                prop_assert_eq!(whole.holds(now), holds);
                // Up to the next turn it stays, and there it turns.
                if let Some(turn) = whole.turns_after(now) {
                    prop_assert!(turn > now && whole.holds(turn) != holds);
                    prop_assert_eq!(whole.holds(turn.checked_sub(SignedDuration::from_nanos(1)).unwrap()), holds);
                }
            }
        }
    }
}
