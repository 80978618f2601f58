//! How long ago a place in the WAL was written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples that are kept; of more, every second one goes.
const MOST: usize = 1024;

/// Remembers when the server's WAL had come to which place. A standby that stops to answer leaves its
/// last `replay_lag` in `pg_stat_replication` as it was; this goes on to count.
#[derive(Debug, Default)]
pub struct LagClock {
    samples: VecDeque<(Instant, u64)>,
}

impl LagClock {
    /// Notes that the WAL has come to `end` (bytes) at `now`.
    pub fn note(&mut self, now: Instant, end: u64) {
        if self.samples.back().is_none_or(|(_, last)| *last < end) {
            self.samples.push_back((now, end));
        }
        if self.samples.len() > MOST {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// How long ago, at least, the WAL behind `at` was written; nothing if there is none behind it.
    pub fn since(&mut self, now: Instant, at: u64) -> Duration {
        // Who has come that far needs none of what was before, and others are asked for first.
        let behind = self.samples.iter().find(|(_, end)| *end > at);
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
        assert_eq!(clock.since(at(10), 1000), Duration::ZERO);
        assert_eq!(clock.since(at(10), 999), Duration::from_secs(1));
        assert_eq!(clock.since(at(10), 450), Duration::from_secs(6));
        assert_eq!(clock.since(at(10), 0), Duration::from_secs(10));
    }

    #[test]
    fn a_server_that_writes_nothing_is_not_behind() {
        let start = Instant::now();
        let mut clock = LagClock::default();
        clock.note(start, 100);
        clock.note(start + Duration::from_secs(60), 100);
        assert_eq!(
            clock.since(start + Duration::from_secs(61), 100),
            Duration::ZERO
        );
        assert_eq!(
            clock.since(start + Duration::from_secs(61), 99),
            Duration::from_secs(61)
        );
    }

    #[test]
    fn it_does_not_grow_for_ever_and_keeps_the_ends() {
        let start = Instant::now();
        let mut clock = LagClock::default();
        for second in 0..100_000 {
            clock.note(start + Duration::from_secs(second), second);
        }
        assert!(clock.samples.len() <= MOST);
        let now = start + Duration::from_secs(100_000);
        assert!(clock.since(now, 50_000) >= Duration::from_secs(49_000));
        assert!(clock.since(now, 50_000) < Duration::from_secs(50_001));
    }
}
