//! Giving way: looks between batches at the other load of the server, and says how long to wait.

pub mod probes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::timing::{Recent, Spent};
use crate::pg::txn::{self, Durability};
use crate::pg::{report, waiters, wal};
use crate::store::job::Job;
use crate::store::setback;
use crate::throttle::bucket::Bucket;
use crate::throttle::holds::{self, Holds, Pause, Reason};
use crate::throttle::limits::Throttles;
use crate::throttle::signals::{Entry, SIGNALS, Signal};
use crate::worker::throttle::probes::Probe;
use crate::worker::throttle::probes::batch::Batch;
use crate::worker::throttle::probes::look::{Look, Readings};

/// Time for which a look at the signals is used, and time until the next look while a job waits.
pub const LOOK: Duration = Duration::from_secs(1);
/// Greatest age of the text about a signal in the view.
const RETELL: Duration = Duration::from_secs(5);
/// Time between two counts during a long wait.
pub const RECOUNT: Duration = Duration::from_secs(10);
/// Length of a wait after which the worker slot is given to a job that could run.
const LONG: Duration = Duration::from_secs(60);
/// A batch that takes no longer than this may hold others up, and need not get smaller.
const SHORT: Duration = Duration::from_millis(20);
/// Least number of batches per second of a job whose rows per second are bounded, so that the rate is steady.
const STEADY: u64 = 8;

/// The worker's knowledge of the signals, and an account of its time.
#[derive(Debug, Default)]
pub struct Throttle {
    /// The bounds in force.
    pub limits: Throttles,
    /// Readings of the last look at the signals.
    pub readings: Readings,
    holds: Holds,
    looked: Option<Instant>,
    told: Option<Told>,
    counted: Option<Instant>,
    rates: BTreeMap<Signal, Bucket>,
    /// WAL of this process that is already counted, or is not the job's.
    wal_counted: Option<u64>,
    /// Number of consecutive batches that found more than a signal's bound.
    in_a_row: BTreeMap<Signal, u32>,
    /// Whether others waited for the last batch, and it took long enough for them to notice.
    pub crowded: bool,
    /// The signal that the pause after the last batch is for; `None`: it is for the pace.
    pub pausing: Option<Signal>,
    /// Time and WAL that no checkpoint has counted yet.
    pub spent: Spent,
    /// Durations of the last batches.
    pub recent: Recent,
    /// Time spent waiting for signals, in all.
    pub waited: Duration,
}

/// The reason for waiting that the view shows.
#[derive(Debug)]
struct Told {
    signals: Vec<Signal>,
    text: String,
    at: Instant,
    /// When the wait began.
    since: Instant,
}

impl Throttle {
    /// Makes the next call look at the signals again.
    pub fn look_again(&mut self) {
        self.looked = None;
    }

    /// True while the last look is recent enough.
    pub fn is_fresh(&self) -> bool {
        self.looked.is_some_and(|at| at.elapsed() < LOOK)
    }

    /// True if the time of a long wait should be counted now; the caller then does so.
    pub fn is_count_due(&mut self) -> bool {
        let due = self.counted.is_none_or(|at| at.elapsed() >= RECOUNT);
        if due {
            self.counted = Some(Instant::now());
        }
        due
    }

    /// Counts time spent waiting for a signal.
    pub fn waited(&mut self, signal: Signal, time: Duration) {
        self.waited += time;
        self.spent.wait(signal, time);
    }

    /// Looks at the signals; returns the first one that is over its bound, if any is.
    pub fn look(&mut self, job: &Job, table: Oid) -> Option<Signal> {
        let now = Instant::now();
        self.looked = Some(now);
        self.wal_counted.get_or_insert_with(wal::written);
        let (limits, unreadable) = probes::limits(&job.definition.options.throttles);
        self.limits = limits;
        self.holds.look_again();
        for reason in unreadable {
            self.holds.hold(reason.signal, reason.text);
        }
        let look = Look {
            job,
            table,
            limits: &self.limits,
            readings: &mut self.readings,
        };
        probes::take(look, &mut self.holds);
        self.holds.settle(now).first().map(|reason| reason.signal)
    }

    /// True if another job should get the slot during the wait: it is outside of the run window, or has lasted long.
    pub fn may_leave(&self, first: Signal) -> bool {
        let begun = self.told.as_ref().map(|told| told.since);
        first == Signal::RunWindow || begun.is_some_and(|since| since.elapsed() >= LONG)
    }

    /// Makes the view show why the job waits. Errors are logged and otherwise ignored.
    pub fn tell(&mut self, job: &Job) {
        let reasons = self.holds.reasons();
        let signals: Vec<Signal> = reasons.iter().map(|reason| reason.signal).collect();
        let texts: Vec<String> = reasons.iter().map(Reason::shown).collect();
        let text = texts.join("; ");
        let known = self.told.as_ref().filter(|told| told.signals == signals);
        let fresh = |told: &Told| told.text == text || told.at.elapsed() < RETELL;
        if known.is_some_and(fresh) {
            return;
        }
        // A change of signal does not begin a new wait.
        let begins = self.told.is_none();
        let told = txn::run(Durability::Deferred, || {
            setback::hold(job.id, &text, begins)
        });
        if let Err(error) = told {
            report::log(&format!("backfill {}: {error}", job.logged()));
        }
        if begins {
            report::log(&format!("backfill {} waits: {text}", job.logged()));
        }
        let at = Instant::now();
        let since = self.told.as_ref().map_or(at, |told| told.since);
        self.told = Some(Told {
            signals,
            text,
            at,
            since,
        });
    }

    /// Makes the view show that the job no longer waits.
    pub fn go_on(&mut self, job: &Job) {
        if self.told.take().is_none() {
            return;
        }
        let cleared = txn::run(Durability::Deferred, || setback::go_on(job.id));
        if let Err(error) = cleared {
            report::log(&format!("backfill {}: {error}", job.logged()));
        }
        report::log(&format!("backfill {} goes on", job.logged()));
    }

    /// Returns the largest number of rows of a batch that keeps a rate of rows steady.
    pub fn most_rows(&self, workers: i32) -> i64 {
        let rate = |rate: u64| (rate / STEADY / workers.max(1) as u64).max(1);
        self.limits.rate(Signal::RowRate).map_or(i64::MAX, |given| {
            i64::try_from(rate(given)).unwrap_or(i64::MAX)
        })
    }

    /// Returns the pause after a batch that is about to commit, and has updated `rows` rows of `table` since `begun`.
    pub fn after(
        &mut self,
        table: Oid,
        rows: i64,
        begun: Instant,
        workers: i32,
    ) -> Result<Option<Pause>> {
        let now = Instant::now();
        let took = now.duration_since(begun);
        self.crowded = waiters::any() && took > SHORT;
        let batch = Batch {
            table,
            rows: rows.unsigned_abs(),
            wal: self.count_wal(),
        };
        let mut pauses: Vec<Pause> = Vec::new();
        for entry in SIGNALS {
            match probes::of(entry.signal) {
                Probe::Taken(probe) => pauses.extend(self.pace(entry, probe(&batch), workers)),
                Probe::Batch(probe) => {
                    pauses.extend(self.stay_away(entry, || probe(&batch), took)?);
                }
                Probe::Look(_) | Probe::Alone(_) | Probe::None => {}
            }
        }
        Ok(pauses.into_iter().max_by_key(|pause| pause.time))
    }

    /// Returns the pause that keeps a rate, if one is in force, after a batch has taken the amount `taken` of it.
    fn pace(&mut self, entry: &Entry, taken: u64, workers: i32) -> Option<Pause> {
        let rate = self.limits.rate(entry.signal)?;
        let bound = self.limits.bound(entry.signal)?;
        let per_second = rate as f64 / f64::from(workers.max(1));
        let bucket = self.rates.entry(entry.signal).or_default();
        Some(Pause {
            reason: Reason::new(entry.signal, entry.reason(0.0, bound, "")),
            time: bucket.take(Instant::now(), taken as f64, per_second),
        })
    }

    /// Returns the pause after a batch that has found more than the bound; it is longer each time in a row.
    fn stay_away(
        &mut self,
        entry: &Entry,
        probe: impl FnOnce() -> Result<u64>,
        took: Duration,
    ) -> Result<Option<Pause>> {
        let bound = self.limits.bound(entry.signal);
        let found = bound.map(|_| probe()).transpose()?;
        let over = found
            .zip(bound)
            .filter(|(found, bound)| *found as f64 > bound.limit());
        let Some((found, bound)) = over else {
            self.in_a_row.remove(&entry.signal);
            return Ok(None);
        };
        let times = self.in_a_row.entry(entry.signal).or_default();
        *times += 1;
        Ok(Some(Pause {
            reason: Reason::new(entry.signal, entry.reason(found as f64, bound, "")),
            time: holds::pause_after_waiters(took, *times),
        }))
    }

    /// Counts the WAL written since the last call; returns it in bytes.
    pub fn count_wal(&mut self) -> u64 {
        let written = wal::written();
        let wal = written - self.wal_counted.replace(written).unwrap_or(written);
        self.spent.wal += wal;
        wal
    }

    /// Counts a pause that is over.
    pub fn paused(&mut self, time: Duration) {
        match self.pausing {
            Some(signal) => self.spent.wait(signal, time),
            None => self.spent.sleeping += time,
        }
    }
}
