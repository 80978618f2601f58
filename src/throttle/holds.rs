//! The signals that make a job wait, since when, and why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::throttle::kind::Value;
use crate::throttle::signals::{Entry, Signal, Waits};

/// The reason why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The signal.
    pub signal: Signal,
    /// The signal's value and bound, for people. Contains no row data.
    pub text: String,
}

impl Reason {
    /// Makes a reason.
    pub fn new(signal: Signal, text: String) -> Reason {
        Reason { signal, text }
    }

    /// Returns the reason as the view shows it.
    pub fn shown(&self) -> String {
        format!("{}: {}", self.signal.name(), self.text)
    }
}

/// A pause that a bound asks for after a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The bound that asks for it, as a reason.
    pub reason: Reason,
    /// Length of the pause.
    pub time: Duration,
}

/// The finding of a probe.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// There is nothing to wait for.
    Nothing,
    /// An amount in bytes or seconds, or a number. The text names what it was measured on, if anything in particular.
    Amount(f64, String),
    /// A reason why the job has to wait. Contains no row data.
    Reason(String),
}

impl Found {
    /// Returns an amount that was not measured on anything in particular.
    pub fn number(number: u64) -> Found {
        Found::Amount(number as f64, String::new())
    }
}

/// The signals that are over their bounds, and since when.
#[derive(Debug, Default)]
pub struct Holds {
    since: BTreeMap<Signal, Instant>,
    reasons: Vec<Reason>,
}

impl Holds {
    /// Begins a new look at the signals.
    pub fn look_again(&mut self) {
        self.reasons.clear();
    }

    /// Compares the finding of a probe with the bound of its signal.
    pub fn weigh(&mut self, entry: &Entry, found: Found, bound: Option<&Value>) {
        match (found, entry.waits, bound) {
            (Found::Reason(text), _, _) => self.hold(entry.signal, text),
            (Found::Amount(value, who), Waits::Over(release, _), Some(bound))
                if self.is_over(entry.signal, release, value, bound.limit()) =>
            {
                self.hold(entry.signal, entry.reason(value, bound, &who));
            }
            _ => {}
        }
    }

    /// True if `value` is over its bound; if the signal held at the last look, over the fraction `release` of the
    /// bound.
    fn is_over(&self, signal: Signal, release: f64, value: f64, bound: f64) -> bool {
        let holds = self.since.contains_key(&signal);
        value > if holds { bound * release } else { bound }
    }

    /// Notes that a signal is over its bound.
    pub fn hold(&mut self, signal: Signal, text: String) {
        self.reasons.push(Reason::new(signal, text));
    }

    /// Returns the reasons to wait, as of the last look.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Ends the look: signals that did not come up no longer hold. Returns the reasons to wait, the longest-standing
    /// first; if there are none, the job goes on.
    pub fn settle(&mut self, now: Instant) -> &[Reason] {
        let reasons = &mut self.reasons;
        self.since
            .retain(|signal, _| reasons.iter().any(|reason| reason.signal == *signal));
        for reason in reasons.iter() {
            self.since.entry(reason.signal).or_insert(now);
        }
        reasons.sort_by_key(|reason| (self.since[&reason.signal], reason.signal));
        reasons
    }
}

/// Returns the pause after a batch that other backends had to wait for: as long as the batch held them up, doubled each
/// further time in a row.
pub fn pause_after_waiters(batch: Duration, times: u32) -> Duration {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(30);
    let doubled = 2u32.saturating_pow(times.saturating_sub(1));
    batch.max(LEAST).saturating_mul(doubled).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::quantity::Span;

    fn look(holds: &mut Holds, signal: Signal, value: u64, bound: i64, now: Instant) -> usize {
        holds.look_again();
        let bound = Value::Number(bound);
        holds.weigh(signal.entry(), Found::number(value), Some(&bound));
        holds.settle(now).len()
    }

    #[test]
    fn who_waits_goes_on_well_below_the_bound_only() {
        let now = Instant::now();
        let mut holds = Holds::default();
        let mut look = |value| look(&mut holds, Signal::DeadTuples, value, 100, now);
        assert_eq!(look(100), 0);
        assert_eq!(look(101), 1);
        assert_eq!(look(99), 1);
        assert_eq!(look(81), 1);
        assert_eq!(look(80), 0);
        assert_eq!(look(99), 0);
    }

    #[test]
    fn growth_ends_at_the_bound() {
        let now = Instant::now();
        let mut holds = Holds::default();
        assert_eq!(look(&mut holds, Signal::Growth, 101, 100, now), 1);
        assert_eq!(look(&mut holds, Signal::Growth, 100, 100, now), 0);
    }

    #[test]
    fn a_bound_of_nothing_can_be_kept() {
        let now = Instant::now();
        let mut holds = Holds::default();
        assert_eq!(look(&mut holds, Signal::ActiveBackends, 0, 0, now), 0);
        assert_eq!(look(&mut holds, Signal::ActiveBackends, 1, 0, now), 1);
        let texts: Vec<String> = holds.reasons().iter().map(Reason::shown).collect();
        assert_eq!(texts, ["max_active_backends: 1 of 0 clients are at work"]);
    }

    #[test]
    fn a_time_is_held_against_a_bound_in_seconds() {
        let entry = Signal::Lag.entry();
        let bound = Value::Span(Span(Some(30_000)));
        for (seconds, waits) in [(30.0, 0), (30.5, 1)] {
            let mut holds = Holds::default();
            let found = Found::Amount(seconds, "slot a".to_owned());
            holds.weigh(entry, found, Some(&bound));
            assert_eq!(holds.settle(Instant::now()).len(), waits);
        }
    }

    #[test]
    fn what_a_probe_says_itself_is_a_reason() {
        let mut holds = Holds::default();
        holds.weigh(Signal::ReadOnly.entry(), Found::Nothing, None);
        assert_eq!(holds.reasons(), []);
        let found = Found::Reason("it is on".to_owned());
        holds.weigh(Signal::ReadOnly.entry(), found, None);
        assert_eq!(
            holds.reasons()[0].shown(),
            "default_transaction_read_only: it is on"
        );
    }

    #[test]
    fn the_first_to_begin_comes_first() {
        let start = Instant::now();
        let mut holds = Holds::default();
        holds.hold(Signal::Query, "first".to_owned());
        holds.settle(start);
        holds.look_again();
        holds.hold(Signal::RunWindow, "second".to_owned());
        holds.hold(Signal::Query, "first".to_owned());
        let reasons = holds.settle(start + Duration::from_secs(1));
        let texts: Vec<String> = reasons.iter().map(Reason::shown).collect();
        assert_eq!(texts, ["throttle_query: first", "run_window: second"]);
    }

    #[test]
    fn who_was_in_the_way_stays_away_longer_each_time() {
        let pause = |times| pause_after_waiters(Duration::from_millis(400), times);
        assert_eq!(pause(1), Duration::from_millis(400));
        assert_eq!(pause(2), Duration::from_millis(800));
        assert_eq!(pause(40), Duration::from_secs(30));
        assert_eq!(
            pause_after_waiters(Duration::ZERO, 1),
            Duration::from_millis(100)
        );
    }
}
