//! A rate that is kept by pauses.

use std::time::{Duration, Instant};

/// What was not used in this time may be used at once later: a steady rate has no bursts.
const DEPTH: Duration = Duration::from_millis(250);

/// A token bucket (Turner, New directions in communications, 1986), which may go into debt: what a
/// batch takes is known when it has taken it. Its pause pays.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Up to when what was taken is paid for.
    paid: Option<Instant>,
}

impl Bucket {
    /// How long to pause after `amount` was taken at `now`, for a mean of `per_second`.
    pub fn take(&mut self, now: Instant, amount: f64, per_second: f64) -> Duration {
        let oldest = now.checked_sub(DEPTH).unwrap_or(now);
        let paid = self.paid.map_or(now, |paid| paid.max(oldest));
        let seconds = (amount / per_second.max(1e-9)).clamp(0.0, 86_400.0);
        let paid = paid + Duration::from_secs_f64(seconds);
        self.paid = Some(paid);
        paid.saturating_duration_since(now)
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
    fn slower_than_the_rate_it_never_pauses() {
        let mut now = Instant::now();
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            now += Duration::from_secs(1);
            // The first one has nothing saved.
            let pause = bucket.take(now, 20.0, 100.0);
            assert!(pause <= Duration::from_millis(200));
        }
        assert_eq!(
            bucket.take(now + Duration::from_secs(1), 20.0, 100.0),
            Duration::ZERO
        );
    }
}
