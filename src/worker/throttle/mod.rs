//! Gives way: looks between batches at what else the server has to do, and says for how long to wait.

pub mod probes;

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::timing::{Recent, Spent};
use crate::pg::txn::{self, Durability};
use crate::pg::{report, waiters, wal};
use crate::store::job::Job;
use crate::store::{setback, signals};
use crate::throttle::bucket::Bucket;
use crate::throttle::limits::Throttles;
use crate::throttle::quantity::Shown;
use crate::throttle::signal::{self, Holds, Pause, Reason, Signal};
use crate::worker::throttle::probes::Readings;

/// How long a look at the signals holds good, and how long to wait before another.
pub const LOOK: Duration = Duration::from_secs(1);
/// What the view shows of a signal may be as old as this.
const RETELL: Duration = Duration::from_secs(5);
/// How often the time of a long wait is counted.
pub const RECOUNT: Duration = Duration::from_secs(10);
/// After a wait of this length the worker slot is for a job that could run.
const LONG: Duration = Duration::from_secs(60);
/// A batch that takes no longer than this may hold others up, and need not get smaller.
const SHORT: Duration = Duration::from_millis(20);
/// Batches per second, at least, of a job whose rows per second are bounded: so it is a steady rate.
const STEADY: u64 = 8;

/// What a worker knows of the signals, and where its time has gone.
#[derive(Debug, Default)]
pub struct Throttle {
    /// The bounds in force.
    pub limits: Throttles,
    /// What the signals were at the last look.
    pub readings: Readings,
    holds: Holds,
    looked: Option<Instant>,
    told: Option<Told>,
    counted: Option<Instant>,
    rows: Bucket,
    wal: Bucket,
    /// WAL of this process that is counted already, or is not the job's.
    wal_counted: Option<u64>,
    /// Batches in a row that more backends waited for than may.
    waited_for: u32,
    /// Whether others waited for the last batch, which took long enough for them to notice.
    pub crowded: bool,
    /// What the pause after the last batch is for, if not for the pace.
    pub pausing: Option<Signal>,
    /// Time and WAL that no checkpoint has counted yet.
    pub spent: Spent,
    /// How long the last batches took.
    pub recent: Recent,
    /// Time spent waiting for signals, in all.
    pub waited: Duration,
}

/// What the view shows.
#[derive(Debug)]
struct Told {
    signals: Vec<Signal>,
    text: String,
    at: Instant,
    /// When the wait began.
    since: Instant,
}

impl Throttle {
    /// The last look holds good no more.
    pub fn look_again(&mut self) {
        self.looked = None;
    }

    /// Returns true while the last look holds good.
    pub fn is_fresh(&self) -> bool {
        self.looked.is_some_and(|at| at.elapsed() < LOOK)
    }

    /// Returns true if the time of a long wait is to be counted now, which it takes for done.
    pub fn is_count_due(&mut self) -> bool {
        let due = self.counted.is_none_or(|at| at.elapsed() >= RECOUNT);
        if due {
            self.counted = Some(Instant::now());
        }
        due
    }

    /// Counts time that was spent waiting for a signal.
    pub fn waited(&mut self, signal: Signal, time: Duration) {
        self.waited += time;
        self.spent.wait(signal, time);
    }

    /// Looks at the signals: the first one that is over its bound, if any is.
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
        self.readings
            .take(&self.limits, (job, table), &mut self.holds);
        self.holds.settle(now).first().map(|reason| reason.signal)
    }

    /// Whether the wait is one that another job need not sit out: outside of the hours, or long.
    pub fn may_leave(&self, first: Signal) -> bool {
        let begun = self.told.as_ref().map(|told| told.since);
        first == Signal::RunWindow || begun.is_some_and(|since| since.elapsed() >= LONG)
    }

    /// Lets the view show why the job waits. What it shows is no reason to fail.
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
        // Another signal is no other wait.
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

    /// The job waits no more.
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

    /// Rows of a batch, at most, so that a rate of rows is a steady one.
    pub fn most_rows(&self, workers: i32) -> i64 {
        let rate = |rate: u64| (rate / STEADY / workers.max(1) as u64).max(1);
        self.limits.rows_per_second().map_or(i64::MAX, |given| {
            i64::try_from(rate(given)).unwrap_or(i64::MAX)
        })
    }

    /// The pause that a batch has to be followed by, which is about to commit: it has updated `rows` of
    /// `table` since `begun`.
    pub fn after(
        &mut self,
        table: Oid,
        rows: i64,
        begun: Instant,
        workers: i32,
    ) -> Result<Option<Pause>> {
        let now = Instant::now();
        let workers = f64::from(workers.max(1));
        let wal = self.count_wal();
        let of_rows = self.limits.rows_per_second().map(|rate| Pause {
            reason: Reason::new(Signal::RowRate, format!("{rate} rows a second")),
            time: self.rows.take(now, rows as f64, rate as f64 / workers),
        });
        let of_wal = self.limits.wal_rate().map(|rate| Pause {
            reason: Reason::new(Signal::WalRate, format!("{} of WAL a second", Shown(rate))),
            time: self.wal.take(now, wal as f64, rate as f64 / workers),
        });
        let of_waiters = self.waiters(table, now.duration_since(begun))?;
        Ok([of_rows, of_wal, of_waiters]
            .into_iter()
            .flatten()
            .max_by_key(|pause| pause.time))
    }

    /// Counts the WAL that was written since the last call; gives it in bytes.
    pub fn count_wal(&mut self) -> u64 {
        let written = wal::written();
        let wal = written - self.wal_counted.replace(written).unwrap_or(written);
        self.spent.wal += wal;
        wal
    }

    fn waiters(&mut self, table: Oid, batch: Duration) -> Result<Option<Pause>> {
        let any = waiters::any();
        self.crowded = any && batch > SHORT;
        let bound = self.limits.lock_waiters().filter(|_| any);
        let found = bound.map(|_| signals::lock_waiters(table)).transpose()?;
        let Some((found, bound)) = found.zip(bound).filter(|(found, bound)| found > bound) else {
            self.waited_for = 0;
            return Ok(None);
        };
        self.waited_for += 1;
        let text = format!("{found} backends waited for a batch, {bound} may");
        Ok(Some(Pause {
            reason: Reason::new(Signal::LockWaiters, text),
            time: signal::pause_after_waiters(batch, self.waited_for),
        }))
    }

    /// Counts a pause that is over.
    pub fn paused(&mut self, time: Duration) {
        match self.pausing {
            Some(signal) => self.spent.wait(signal, time),
            None => self.spent.sleeping += time,
        }
    }
}
