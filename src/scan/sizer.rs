//! Chooses the number of rows of the next batch, so that it takes the time it should.

use std::cell::Cell;
use std::time::Duration;

/// Rows of the first batch, before anything is known: enough to measure, too few to run away.
const FIRST: f64 = 100.0;
/// Maximum growth from one batch to the next, since the cost of the next rows is not known.
const GROWTH: f64 = 1.25;
/// Maximum growth while batches take less than a quarter of their target.
const FAST_GROWTH: f64 = 1.5;
/// Range of target time / expected time in which the size stays the same.
const STEADY: std::ops::RangeInclusive<f64> = 0.9..=1.1;
/// Weight, in the expectation, of a batch that took longer than expected; below, of one that took less.
const WEIGHT_OF_SLOWER: f64 = 0.7;
const WEIGHT_OF_FASTER: f64 = 0.3;
/// A batch that takes more than this many times the expected time is the new expectation at once.
const SUDDEN: f64 = 2.0;

/// Basis for the next size.
#[derive(Debug, Clone, Copy)]
struct Reference {
    /// Rows of the last batch that was as large as requested.
    rows: f64,
    /// Seconds that such a batch is expected to take.
    seconds: f64,
}

/// Chooses the size of batches by the time that the last ones took: it shrinks quickly and grows slowly.
///
/// A batch has a cost before its first row. So sizes are not computed from a cost per row, but in proportion to the last size, which
/// approaches the target from one side with each step.
#[derive(Debug, Default)]
pub struct Sizer {
    last: Option<Reference>,
    /// Last result of `size`, to tell whether a batch found as many rows as it looked for.
    asked: Cell<i32>,
}

impl Sizer {
    /// Returns the number of rows of the next batch: `limit` if there is no target, otherwise 1 to `limit`. All other bounds of the batch
    /// must be part of `limit`.
    pub fn size(&self, limit: i32, target_ms: Option<i32>) -> i32 {
        let limit = limit.max(1);
        let size = match (target_ms, self.last) {
            (None, _) => limit,
            (Some(_), None) => limit.min(FIRST as i32),
            // A float beyond the range of the integer becomes its maximum.
            (Some(ms), Some(last)) => {
                (last.next(f64::from(ms.max(1)) / 1000.0) as i32).clamp(1, limit)
            }
        };
        self.asked.set(size);
        size
    }

    /// Records the time of the batch of the last `size`. `rows` is the number of rows that it found.
    pub fn measured(&mut self, rows: i64, elapsed: Duration) {
        let (rows, seconds) = (rows as f64, elapsed.as_secs_f64().max(1e-6));
        let few = rows * 2.0 < f64::from(self.asked.get());
        self.last = match self.last {
            None if rows < 1.0 => None,
            None => Some(Reference { rows, seconds }),
            // There were no more rows, or the batch has read all it may: this tells nothing about larger batches, except that they do
            // not take less.
            Some(last) if few => Some(Reference {
                seconds: last.seconds.max(seconds),
                ..last
            }),
            Some(last) => {
                let expected = last.seconds * rows / last.rows;
                Some(Reference {
                    rows,
                    seconds: blend(expected, seconds),
                })
            }
        };
    }
}

impl Reference {
    /// Returns the next size for a target in seconds.
    fn next(&self, target: f64) -> f64 {
        let ratio = target / self.seconds;
        if STEADY.contains(&ratio) {
            return self.rows;
        }
        let growth = if ratio > 4.0 { FAST_GROWTH } else { GROWTH };
        // At one row, one more row is a growth of a hundred percent.
        let most = (self.rows * growth).max(self.rows + 1.0);
        (self.rows * ratio).min(most).floor()
    }
}

fn blend(expected: f64, seconds: f64) -> f64 {
    if seconds > expected * SUDDEN {
        return seconds;
    }
    let weight = if seconds > expected {
        WEIGHT_OF_SLOWER
    } else {
        WEIGHT_OF_FASTER
    };
    expected + weight * (seconds - expected)
}

#[cfg(test)]
#[path = "sizer_tests.rs"]
mod tests;
