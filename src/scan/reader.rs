//! Decides how many rows a statement may read, so that none runs away, however expensive the predicate.

use std::time::Duration;

use crate::model::fate::Fate;

/// Milliseconds that a read-only statement may take if no target is given. It holds a snapshot.
const BUDGET_MS: i32 = 250;
/// Number of rows to begin with when nothing is known.
const FIRST: i64 = 5_000;
/// Minimum number of rows; fewer would not be worth a statement.
const FEWEST: i64 = 100;
/// Weight of a faster read in the expectation; a slower one replaces the expectation at once.
const WEIGHT_OF_FASTER: f64 = 0.3;
/// A faster read of at least this many times as many rows as the last one replaces the expectation at once, too: the time of the first
/// reads is mostly the overhead of a statement, and cold caches.
pub const MUCH_LONGER: i64 = 4;

/// Share of matching rows from which on rows that are removed, or stay as they are, are not read before they are done.
const MOST_MATCH: f64 = 0.5;

/// Whether rows are read before they are done, so that a batch is about those that match: where there is a WHERE clause, unless neighbours
/// in the walk are on different pages, which would be visited twice. Rows that get new versions are always read first, as their reading
/// also tells how they are placed. `share` is that of the rows that match.
pub fn reads_first(has_clause: bool, scattered: bool, share: f64, fate: Fate) -> bool {
    has_clause && !scattered && (fate == Fate::Changed || share < MOST_MATCH)
}

/// Measures the time to read a row, its predicate included.
#[derive(Debug, Default)]
pub struct Reader {
    last: Option<Reference>,
}

#[derive(Debug, Clone, Copy)]
struct Reference {
    seconds_per_row: f64,
    /// Number of rows of the read that was measured.
    rows: i64,
}

impl Reader {
    /// Returns the number of rows that a statement may read.
    pub fn most(&self, target_ms: Option<i32>) -> i64 {
        let Some(last) = self.last else {
            return FIRST;
        };
        let seconds = f64::from(target_ms.unwrap_or(BUDGET_MS)) / 1000.0;
        // A float beyond the range of the integer becomes its maximum.
        ((seconds / last.seconds_per_row.max(1e-9)) as i64).max(FEWEST)
    }

    /// Records the rows and the time of a statement.
    pub fn measured(&mut self, rows: i64, elapsed: Duration) {
        if rows <= 0 {
            return;
        }
        let cost = elapsed.as_secs_f64() / rows as f64;
        let faster = |last: &Reference| {
            cost < last.seconds_per_row && rows < last.rows.saturating_mul(MUCH_LONGER)
        };
        let seconds_per_row = match self.last.filter(faster) {
            Some(Reference {
                seconds_per_row: before,
                ..
            }) => before + (cost - before) * WEIGHT_OF_FASTER,
            None => cost,
        };
        self.last = Some(Reference {
            seconds_per_row,
            rows,
        });
    }
}

/// Number of rows to read under one snapshot. A snapshot keeps the waves of other workers waiting, so it should last as long as a batch
/// does, some milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion(pub i64);

/// Ideal time of a portion; half or twice of it is fine, too.
const MOMENT: Duration = Duration::from_millis(4);

impl Portion {
    /// The first portion, when nothing is known about the time per row.
    pub const FIRST: Portion = Portion(4_000);

    /// Returns the portion after this one, which took `elapsed`.
    pub fn next(self, elapsed: Duration) -> Portion {
        Portion(if elapsed < MOMENT / 2 {
            self.0.saturating_mul(2)
        } else if elapsed > MOMENT * 2 {
            (self.0 / 2).max(1)
        } else {
            self.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_take_some_milliseconds_each() {
        for (us_per_row, expected) in [(0.05, 64_000), (0.6, 4_000), (2.0, 4_000), (100.0, 62)] {
            let mut portion = Portion::FIRST;
            for _ in 0..20 {
                let seconds = portion.0 as f64 * us_per_row / 1e6;
                portion = portion.next(Duration::from_secs_f64(seconds));
            }
            assert_eq!(portion.0, expected, "{us_per_row}");
        }
        assert_eq!(Portion(1).next(Duration::from_secs(9)), Portion(1));
        assert_eq!(Portion(i64::MAX).next(Duration::ZERO), Portion(i64::MAX));
    }

    #[test]
    fn begins_modestly() {
        assert_eq!(Reader::default().most(None), FIRST);
        assert_eq!(Reader::default().most(Some(1)), FIRST);
    }

    #[test]
    fn keeps_to_the_budget_and_to_the_target() {
        let mut reader = Reader::default();
        reader.measured(1000, Duration::from_millis(10));
        assert!((24_999..=25_000).contains(&reader.most(None)));
        assert!((4_999..=5_000).contains(&reader.most(Some(50))));
    }

    #[test]
    fn a_slow_read_counts_at_once_and_a_fast_one_slowly() {
        let mut reader = Reader::default();
        reader.measured(1000, Duration::from_millis(1));
        reader.measured(1000, Duration::from_secs(10));
        assert_eq!(reader.most(Some(1000)), 100);
        reader.measured(1000, Duration::from_millis(1));
        assert!(reader.most(Some(1000)) < 1000);
        for _ in 0..100 {
            reader.measured(1000, Duration::from_millis(1));
        }
        assert!(reader.most(Some(1000)) > 100_000);
        reader.measured(0, Duration::from_secs(5));
        assert!(reader.most(Some(1000)) > 100_000);
    }

    #[test]
    fn a_long_read_counts_for_more_than_a_short_one() {
        let mut reader = Reader::default();
        reader.measured(50, Duration::from_millis(50));
        assert_eq!(reader.most(None), 250);
        reader.measured(200, Duration::from_millis(1));
        assert!(reader.most(None) >= 49_999);
    }
}
