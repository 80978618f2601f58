//! Accounting of a worker's time, and of the duration of its batches.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::throttle::signals::Signal;

/// Number of recent batches that are remembered.
const RECENT: usize = 200;

/// Time and WAL spent on a slice in all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spent {
    /// Time in batches, including those that failed and were rolled back.
    pub working: Duration,
    /// Time in the pauses that the pace asks for.
    pub sleeping: Duration,
    /// Time spent waiting, by the signal that caused the wait.
    pub waiting: BTreeMap<String, Duration>,
    /// WAL written, in bytes.
    pub wal: u64,
}

impl Spent {
    /// Adds time spent waiting for a signal.
    pub fn wait(&mut self, signal: Signal, time: Duration) {
        *self.waiting.entry(signal.name().to_owned()).or_default() += time;
    }

    /// True if nothing was spent.
    pub fn is_empty(&self) -> bool {
        *self == Spent::default()
    }

    /// Adds `more` to the totals.
    pub fn add(&mut self, more: &Spent) {
        self.working += more.working;
        self.sleeping += more.sleeping;
        self.wal += more.wal;
        for (signal, time) in &more.waiting {
            *self.waiting.entry(signal.clone()).or_default() += *time;
        }
    }

    /// Returns the waiting times, in milliseconds, as JSON; `None` if there was no wait.
    pub fn waiting_json(&self) -> Option<String> {
        let milliseconds = |time: &Duration| time.as_millis() as u64;
        let map: BTreeMap<&str, u64> = self
            .waiting
            .iter()
            .map(|(signal, time)| (signal.as_str(), milliseconds(time)))
            .collect();
        (!map.is_empty()).then(|| serde_json::json!(map).to_string())
    }

    /// Reads the JSON of [`Self::waiting_json`]; what cannot be read counts as no time.
    pub fn waiting_from(json: Option<&str>) -> BTreeMap<String, Duration> {
        let map: BTreeMap<String, u64> = json
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        map.into_iter()
            .map(|(signal, time)| (signal, Duration::from_millis(time)))
            .collect()
    }
}

/// Durations of the last batches.
#[derive(Debug, Default)]
pub struct Recent {
    times: VecDeque<Duration>,
}

impl Recent {
    /// Adds the duration of a batch.
    pub fn note(&mut self, time: Duration) {
        if self.times.len() == RECENT {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }

    /// Duration of the last batch.
    pub fn last(&self) -> Option<Duration> {
        self.times.back().copied()
    }

    /// The 95th percentile of the durations (nearest rank).
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        let rank = (sorted.len() * 95).div_ceil(100);
        let place = rank.checked_sub(1)?;
        Some(*sorted.select_nth_unstable(place).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p95_is_of_the_last_batches() {
        let mut recent = Recent::default();
        assert_eq!((recent.last(), recent.p95()), (None, None));
        recent.note(Duration::from_secs(1000));
        assert_eq!(recent.p95(), Some(Duration::from_secs(1000)));
        for ms in 1..=200 {
            recent.note(Duration::from_millis(ms));
        }
        assert_eq!(recent.last(), Some(Duration::from_millis(200)));
        assert_eq!(recent.p95(), Some(Duration::from_millis(190)));
        assert_eq!(recent.times.len(), RECENT);
    }

    #[test]
    fn waits_add_up_by_signal() {
        let mut spent = Spent::default();
        assert_eq!(spent.waiting_json(), None);
        spent.wait(Signal::Lag, Duration::from_millis(1500));
        let mut more = Spent::default();
        more.wait(Signal::Lag, Duration::from_millis(500));
        more.wait(Signal::RunWindow, Duration::from_millis(20));
        spent.add(&more);
        let json = spent.waiting_json().unwrap();
        assert_eq!(json, r#"{"max_lag":2000,"run_window":20}"#);
        assert_eq!(Spent::waiting_from(Some(&json)), spent.waiting);
        assert!(Spent::waiting_from(Some("nonsense")).is_empty());
    }
}
