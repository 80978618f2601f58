//! A rate limiter: keeps a mean rate by means of pauses.

use std::time::{Duration, Instant};

/// Time over which unused capacity can be saved and used at once later; short, since a steady rate has no bursts.
const DEPTH: Duration = Duration::from_millis(250);

/// Longest single pause, in seconds.
const LONGEST: f64 = 86_400.0;

/// A token bucket (Turner, New directions in communications, 1986) that may go into debt: what a batch takes is known
/// only after it has been taken, and the pause pays for it. The debt is an amount and not a time, so that it takes
/// another time to pay at another rate.
#[derive(Debug, Default)]
pub struct Bucket {
    /// The amount not yet paid for; negative: the amount saved.
    owed: f64,
    /// The time at which `owed` was computed.
    at: Option<Instant>,
}

impl Bucket {
    /// Returns the pause after `amount` was taken at `now`, for a mean rate of `per_second`.
    pub fn take(&mut self, now: Instant, amount: f64, per_second: f64) -> Duration {
        let per_second = per_second.max(1e-9);
        let passed = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let saved = -DEPTH.as_secs_f64() * per_second;
        self.owed = (self.owed - passed * per_second).max(saved) + amount;
        self.at = Some(now);
        Duration::from_secs_f64((self.owed / per_second).clamp(0.0, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_rate() {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = Bucket::default();
        let mut rows = 0.0;
        for batch in 0..200 {
            now += Duration::from_millis(if batch % 2 == 0 { 2 } else { 30 });
            let amount = if batch % 3 == 0 { 100.0 } else { 40.0 };
            rows += amount;
            now += bucket.take(now, amount, 500.0);
        }
        let rate = rows / now.duration_since(start).as_secs_f64();
        assert!((rate - 500.0).abs() < 10.0, "{rate}");
    }

    #[test]
    fn who_was_idle_may_not_make_up_for_all_of_it() {
        let start = Instant::now();
        let mut bucket = Bucket::default();
        bucket.take(start, 1.0, 100.0);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(later, 25.0, 100.0), Duration::ZERO);
        assert_eq!(bucket.take(later, 50.0, 100.0), Duration::from_millis(500));
    }

    #[test]
    fn a_debt_takes_its_time_at_the_rate_that_is_in_force() {
        let now = Instant::now();
        let mut bucket = Bucket::default();
        let hour = bucket.take(now, 3_600_000.0, 1000.0);
        assert_eq!(hour, Duration::from_secs(3600));
        let soon = now + Duration::from_secs(1);
        let rest = bucket.take(soon, 1000.0, 1_000_000.0);
        assert!(rest < Duration::from_secs(4), "{rest:?}");
    }

    #[test]
    fn slower_than_the_rate_it_never_pauses() {
        let mut now = Instant::now();
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            now += Duration::from_secs(1);
            // The first use has nothing saved.
            let pause = bucket.take(now, 20.0, 100.0);
            assert!(pause <= Duration::from_millis(200));
        }
        assert_eq!(
            bucket.take(now + Duration::from_secs(1), 20.0, 100.0),
            Duration::ZERO
        );
    }
}
