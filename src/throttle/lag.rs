//! The age of a position in the WAL.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples that are kept at most; if there are more, every second one is deleted.
const MOST: usize = 1024;

/// Remembers when the server's WAL reached which position, as far back as any standby or slot lacks it. A standby that
/// stops responding leaves its last `replay_lag` unchanged in `pg_stat_replication`; this clock goes on counting.
#[derive(Debug, Default)]
pub struct LagClock {
    samples: VecDeque<(Instant, u64)>,
    /// Least time between two samples; longer when the lag is longer.
    spacing: Duration,
}

impl LagClock {
    /// Notes that the WAL has reached position `end` (in bytes) at `now`.
    pub fn note(&mut self, now: Instant, end: u64) {
        let is_new =
            |(at, last): &(Instant, u64)| *last < end && now.duration_since(*at) >= self.spacing;
        if self.samples.back().is_none_or(is_new) {
            self.samples.push_back((now, end));
        }
        if self.samples.len() > MOST {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.spacing = (self.spacing * 2).max(Duration::from_secs(2));
        }
    }

    /// Returns for how long, at least, the WAL after `at` has existed; zero if there is none. `at` must be the position
    /// of the standby or slot that is furthest behind, since samples before it are dropped.
    pub fn since(&mut self, now: Instant, at: u64) -> Duration {
        while self.samples.front().is_some_and(|(_, end)| *end <= at) {
            self.samples.pop_front();
        }
        if self.samples.len() < MOST / 4 {
            self.spacing = Duration::ZERO;
        }
        let behind = self.samples.front();
        behind.map_or(Duration::ZERO, |(then, _)| now.duration_since(*then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_first_wal_that_is_not_there_yet() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut clock = LagClock::default();
        for second in 0..10 {
            clock.note(at(second), 100 * (second + 1));
        }
        assert_eq!(clock.since(at(10), 0), Duration::from_secs(10));
        assert_eq!(clock.since(at(10), 450), Duration::from_secs(6));
        assert_eq!(clock.since(at(10), 999), Duration::from_secs(1));
        assert_eq!(clock.since(at(10), 1000), Duration::ZERO);
        assert!(clock.samples.is_empty());
    }

    #[test]
    fn a_server_that_writes_nothing_is_not_behind() {
        let start = Instant::now();
        let mut clock = LagClock::default();
        clock.note(start, 100);
        clock.note(start + Duration::from_secs(60), 100);
        let later = start + Duration::from_secs(61);
        assert_eq!(clock.since(later, 99), Duration::from_secs(61));
        assert_eq!(clock.since(later, 100), Duration::ZERO);
    }

    #[test]
    fn a_long_lag_is_measured_and_takes_no_more_room() {
        let start = Instant::now();
        let mut clock = LagClock::default();
        for second in 1..=100_000 {
            let now = start + Duration::from_secs(second);
            clock.note(now, second);
            assert!(clock.samples.len() <= MOST);
            assert_eq!(clock.since(now, 0), Duration::from_secs(second - 1));
        }
        let now = start + Duration::from_secs(100_000);
        let half = clock.since(now, 50_000).as_secs();
        assert!((49_500..50_000).contains(&half), "{half}");
        assert_eq!(clock.since(now, 100_000), Duration::ZERO);
        // Short lags can be told apart again.
        for second in 100_001..=100_010 {
            clock.note(start + Duration::from_secs(second), second);
        }
        let now = start + Duration::from_secs(100_010);
        assert_eq!(clock.since(now, 100_005), Duration::from_secs(4));
    }
}
