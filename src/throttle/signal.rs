//! The signals that make a job wait, and when they do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a job gives way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Transactions are to be read only by default.
    ReadOnly,
    /// The hours that it may run in.
    RunWindow,
    /// A standby or slot that is behind, in bytes.
    LagBytes,
    /// The same, in time.
    Lag,
    /// WAL that waits to be archived.
    ArchiveBacklog,
    /// Clients at work.
    ActiveBackends,
    /// VACUUM of the table.
    Autovacuum,
    /// Dead tuples of the table.
    DeadTuples,
    /// Growth of the table.
    Growth,
    /// The owner's query.
    Query,
    /// Backends that have waited for a batch.
    LockWaiters,
    /// The WAL that the job writes.
    WalRate,
    /// The rows that it updates.
    RowRate,
    /// What is in the way of a batch that failed: not a bound, but time all the same.
    Retry,
    /// Transactions of others, by which the rows that a pass over a region has left dead may not be removed yet.
    Horizon,
}

impl Signal {
    /// The option that bounds it; for a retry `retry`, for others' transactions `horizon`.
    pub fn name(self) -> &'static str {
        match self {
            Signal::ReadOnly => "default_transaction_read_only",
            Signal::RunWindow => "run_window",
            Signal::LagBytes => "max_lag_bytes",
            Signal::Lag => "max_lag",
            Signal::ArchiveBacklog => "max_archive_backlog",
            Signal::ActiveBackends => "max_active_backends",
            Signal::Autovacuum => "yield_to_autovacuum",
            Signal::DeadTuples => "max_dead_tuples",
            Signal::Growth => "max_growth",
            Signal::Query => "throttle_query",
            Signal::LockWaiters => "max_lock_waiters",
            Signal::WalRate => "max_wal_rate",
            Signal::RowRate => "max_rows_per_second",
            Signal::Retry => "retry",
            Signal::Horizon => "horizon",
        }
    }
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The signal.
    pub signal: Signal,
    /// Its value and its bound, for people. No row data.
    pub text: String,
}

impl Reason {
    /// A reason.
    pub fn new(signal: Signal, text: String) -> Reason {
        Reason { signal, text }
    }

    /// What the view shows of it.
    pub fn shown(&self) -> String {
        format!("{}: {}", self.signal.name(), self.text)
    }
}

/// A pause that a bound asks for after a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The bound.
    pub reason: Reason,
    /// How long.
    pub time: Duration,
}

/// What a signal that made a job wait has to come down to before the job goes on: else it would start
/// and stop with every batch.
const RELEASE: f64 = 0.8;

/// Which signals are over their bounds, and since when.
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

    /// Whether `value` is over its bound; where it was at the last look, over less than that.
    pub fn is_over(&self, signal: Signal, value: f64, bound: f64) -> bool {
        let holds = self.since.contains_key(&signal);
        value > if holds { bound * RELEASE } else { bound }
    }

    /// Notes that a signal is over its bound.
    pub fn hold(&mut self, signal: Signal, text: String) {
        self.reasons.push(Reason::new(signal, text));
    }

    /// Why to wait, as of the last look.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// The look is over: what did not come up holds no more. Gives why to wait, the first to begin
    /// first; nothing: go on.
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

/// How long a job waits after a batch that others had to wait for: as long as it held them up, and
/// longer each time in a row.
pub fn pause_after_waiters(batch: Duration, times: u32) -> Duration {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(30);
    let doubled = 2u32.saturating_pow(times.saturating_sub(1));
    batch.max(LEAST).saturating_mul(doubled).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(holds: &mut Holds, now: Instant, value: f64) -> usize {
        holds.look_again();
        if holds.is_over(Signal::LagBytes, value, 100.0) {
            holds.hold(Signal::LagBytes, format!("{value} of 100"));
        }
        holds.settle(now).len()
    }

    #[test]
    fn who_waits_goes_on_well_below_the_bound_only() {
        let now = Instant::now();
        let mut holds = Holds::default();
        assert_eq!(look(&mut holds, now, 100.0), 0);
        assert_eq!(look(&mut holds, now, 101.0), 1);
        assert_eq!(look(&mut holds, now, 99.0), 1);
        assert_eq!(look(&mut holds, now, 81.0), 1);
        assert_eq!(look(&mut holds, now, 80.0), 0);
        assert_eq!(look(&mut holds, now, 99.0), 0);
    }

    #[test]
    fn a_bound_of_nothing_can_be_kept() {
        let holds = Holds::default();
        assert!(!holds.is_over(Signal::LockWaiters, 0.0, 0.0));
        assert!(holds.is_over(Signal::LockWaiters, 1.0, 0.0));
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
