//! Progress of a walk: rows done, rows per second, percentage.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time that the rate looks back.
const WINDOW: Duration = Duration::from_secs(60);
/// Least time between two samples; a sample that follows sooner is not kept.
const SPACING: Duration = Duration::from_millis(500);
/// Highest percentage shown for a slice that has not ended.
const ALMOST: f32 = 99.9;

/// Rows done and an estimate of all rows, kept so that a reader is never misled: the percentage neither passes 100 nor
/// decreases, and an estimate that proves too low is corrected.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Rows passed by the walk.
    pub rows_done: i64,
    /// Rows changed.
    pub rows_updated: i64,
    /// Rows changed by heap-only tuples, that is, without a new entry in any index.
    pub rows_hot: i64,
    /// In physical order: rows found to match.
    pub rows_found: i64,
    /// Estimate of the rows the slice will pass; `None`: no estimate yet.
    pub rows_total: Option<i64>,
    /// Highest percentage shown so far.
    pub percent: Option<f32>,
    /// Whether more rows were passed than estimated, so that nothing can be said about the end.
    pub past_estimate: bool,
}

impl Progress {
    /// Returns the progress of a walk that has not begun.
    pub fn new(estimate: Option<i64>) -> Self {
        Progress {
            rows_done: 0,
            rows_updated: 0,
            rows_hot: 0,
            rows_found: 0,
            rows_total: estimate.filter(|rows| *rows > 0),
            percent: None,
            past_estimate: false,
        }
    }

    /// Counts a batch: `scanned` rows passed, `updated` of them changed.
    pub fn advance(&mut self, scanned: i64, updated: i64) {
        self.rows_done += scanned;
        self.rows_updated += updated;
        let Some(total) = self.rows_total else { return };
        if self.rows_done > total {
            self.rows_total = Some(self.rows_done);
            self.past_estimate = true;
        }
        let total = self.rows_total.unwrap_or(total).max(1);
        let share = (self.rows_done as f64 * 100.0 / total as f64) as f32;
        let shown = share.min(ALMOST).max(self.percent.unwrap_or(0.0));
        self.percent = Some(shown);
    }

    /// Rows still to be passed, by the estimate.
    pub fn left(&self) -> Option<i64> {
        Some((self.rows_total? - self.rows_done).max(0))
    }

    /// Marks the slice as passed completely.
    pub fn finish(&mut self) {
        self.rows_total = Some(self.rows_done);
        self.percent = Some(100.0);
        self.past_estimate = false;
    }
}

/// Rows per second over the last minute of running.
#[derive(Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, i64)>,
}

impl Rate {
    /// Notes that `rows` are done at `now`, and returns the rate if there is one yet. The first call starts the
    /// measurement.
    pub fn measure(&mut self, now: Instant, rows: i64) -> Option<f64> {
        if self
            .samples
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= SPACING)
        {
            self.samples.push_back((now, rows));
        }
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
        let (at, before) = *self.samples.front()?;
        let seconds = now.duration_since(at).as_secs_f64();
        (seconds > 0.0).then(|| (rows - before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_nothing_without_an_estimate() {
        let mut progress = Progress::new(None);
        progress.advance(1000, 10);
        assert_eq!((progress.percent, progress.rows_total), (None, None));
        assert_eq!((progress.rows_done, progress.rows_updated), (1000, 10));
    }

    #[test]
    fn an_estimate_of_nothing_is_none() {
        assert_eq!(Progress::new(Some(0)).rows_total, None);
        assert_eq!(Progress::new(Some(-1)).rows_total, None);
    }

    #[test]
    fn a_low_estimate_is_corrected_and_the_percentage_stays() {
        let mut progress = Progress::new(Some(100));
        let mut last = 0.0;
        for _ in 0..50 {
            progress.advance(10, 10);
            let percent = progress.percent.unwrap();
            assert!(percent >= last && percent < 100.0);
            last = percent;
        }
        assert!(progress.past_estimate);
        assert_eq!(progress.rows_total, Some(500));
    }

    #[test]
    fn the_share_is_of_the_estimate() {
        let mut progress = Progress::new(Some(1000));
        progress.advance(250, 250);
        assert_eq!(progress.percent, Some(25.0));
        progress.advance(750, 750);
        assert_eq!(progress.percent, Some(99.9));
        assert!(!progress.past_estimate);
    }

    #[test]
    fn the_rate_looks_back_one_minute() {
        let start = Instant::now();
        let mut rate = Rate::default();
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(rate.measure(start, 0), None);
        for second in 1..=100 {
            rate.measure(at(second), second as i64 * 100);
        }
        let mut last = 0.0;
        for second in 101..=161 {
            let rows = 10_000 + (second as i64 - 100) * 10;
            last = rate.measure(at(second), rows).unwrap();
        }
        assert!((last - 10.0).abs() < 2.0, "{last}");
        assert!(rate.samples.len() < 130);
    }
}
