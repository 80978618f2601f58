//! How many rows the next batch takes, so that it takes the time that it should.

use std::cell::Cell;
use std::time::Duration;

/// The first batch, of which nothing is known: enough to measure, too few to run away.
const FIRST: f64 = 100.0;
/// A batch may be this much larger than the last: what the next rows cost is not known.
const GROWTH: f64 = 1.25;
/// The same while batches take less than a quarter of their time.
const FAST_GROWTH: f64 = 1.5;
/// Within these bounds of the target, the size stays as it is.
const STEADY: std::ops::RangeInclusive<f64> = 0.9..=1.1;
/// How much of a batch that took longer, or less long, than expected goes into the expectation.
const WEIGHT_OF_SLOWER: f64 = 0.7;
const WEIGHT_OF_FASTER: f64 = 0.3;
/// A batch this many times slower than expected is the new expectation at once.
const SUDDEN: f64 = 2.0;

/// What the next size is measured by.
#[derive(Debug, Clone, Copy)]
struct Reference {
    /// Rows of the last batch that was as large as asked.
    rows: f64,
    /// Seconds that such a batch is expected to take.
    seconds: f64,
}

/// Chooses the size of batches by the time that the last ones took: quick to shrink, slow to grow.
///
/// A batch costs something before its first row. So sizes are not computed from a cost per row but
/// by proportion from the last size, which comes nearer to the target from one side with each step.
#[derive(Debug, Default)]
pub struct Sizer {
    last: Option<Reference>,
    /// What `size` gave last: whether a batch found as many rows as it looked for.
    asked: Cell<i32>,
}

impl Sizer {
    /// Rows of the next batch: `limit` where there is no target, else 1 to `limit`. All other
    /// bounds of the batch belong into `limit`.
    pub fn size(&self, limit: i32, target_ms: Option<i32>) -> i32 {
        let limit = limit.max(1);
        let size = match (target_ms, self.last) {
            (None, _) => limit,
            (Some(_), None) => limit.min(FIRST as i32),
            // A float beyond the integers becomes the greatest of them.
            (Some(ms), Some(last)) => {
                (last.next(f64::from(ms.max(1)) / 1000.0) as i32).clamp(1, limit)
            }
        };
        self.asked.set(size);
        size
    }

    /// Tells what the batch of the last `size` took. `rows` are those it found.
    pub fn measured(&mut self, rows: i64, elapsed: Duration) {
        let (rows, seconds) = (rows as f64, elapsed.as_secs_f64().max(1e-6));
        let few = rows * 2.0 < f64::from(self.asked.get());
        self.last = match self.last {
            None if rows < 1.0 => None,
            None => Some(Reference { rows, seconds }),
            // There were no more rows, or it read all it may: that says nothing of larger batches,
            // except that they take no less.
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
    /// The next size for a target in seconds.
    fn next(&self, target: f64) -> f64 {
        let ratio = target / self.seconds;
        if STEADY.contains(&ratio) {
            return self.rows;
        }
        let growth = if ratio > 4.0 { FAST_GROWTH } else { GROWTH };
        // One more than one row is a hundred percent.
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
