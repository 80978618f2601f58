//! Reads the signals, and holds them against their bounds. What was asked for and can't be read counts as
//! over its bound.

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::guc::throttles as defaults;
use crate::pg::txn::{self, Durability};
use crate::pg::{evaluate, spi, timeout};
use crate::store::job::Job;
use crate::store::signals::{self, Follower};
use crate::store::walk;
use crate::throttle::lag::LagClock;
use crate::throttle::limits::Throttles;
use crate::throttle::quantity::{Bytes, Lasting, Shown, Span};
use crate::throttle::signal::{Holds, Reason, Signal};
use crate::throttle::window::{Hours, RunWindow};

/// What the view shows where transactions are to be read only by default.
const READ_ONLY: &str = "it is on, for the server, the database or the job's owner";

/// How long the owner's query may take, in milliseconds.
const QUERY_LIMIT: i32 = 1000;

/// What was read, as far as it is of use to the next look, or to others.
#[derive(Debug, Default)]
pub struct Readings {
    clock: LagClock,
    /// See [`signals::is_read_only`].
    overridden: bool,
    /// Bytes that the furthest-behind standby or slot lags, if that was looked at and there is one.
    pub lag_bytes: Option<u64>,
}

/// The bounds in force: those of the job, and the server's for those that it does not have. Then why it
/// waits if one of these makes no sense.
pub fn limits(own: &Throttles) -> (Throttles, Vec<Reason>) {
    let window = text(&defaults::RUN_WINDOW);
    let parsed = RunWindow::parse(&window);
    let wrong = own.run_window.is_none() && parsed.is_none();
    let unreadable = wrong.then(|| {
        let text = format!("the setting backfill.run_window cannot be read: \"{window}\"");
        Reason::new(Signal::RunWindow, text)
    });
    let server = Throttles {
        max_lag_bytes: Some(Bytes(kilobytes(&defaults::MAX_LAG_BYTES))),
        max_lag: Some(Span(u64::try_from(defaults::MAX_LAG.get()).ok())),
        lag_include: Some(names(&defaults::LAG_INCLUDE)),
        lag_exclude: Some(names(&defaults::LAG_EXCLUDE)),
        max_wal_rate: Some(Bytes(kilobytes(&defaults::MAX_WAL_RATE))),
        max_archive_backlog: Some(defaults::MAX_ARCHIVE_BACKLOG.get().into()),
        max_lock_waiters: Some(defaults::MAX_LOCK_WAITERS.get().into()),
        max_active_backends: Some(defaults::MAX_ACTIVE_BACKENDS.get().into()),
        yield_to_autovacuum: Some(defaults::YIELD_TO_AUTOVACUUM.get()),
        max_dead_tuples: Some(defaults::MAX_DEAD_TUPLES.get().into()),
        max_growth: Some(defaults::MAX_GROWTH.get().into()),
        max_rows_per_second: Some(defaults::MAX_ROWS_PER_SECOND.get().into()),
        throttle_query: Some(text(&defaults::THROTTLE_QUERY)),
        run_window: parsed,
    };
    (own.or(&server), unreadable.into_iter().collect())
}

fn kilobytes(setting: &defaults::Number) -> Option<u64> {
    u64::try_from(setting.get()).ok().map(|kilo| kilo * 1024)
}

fn text(setting: &defaults::Text) -> String {
    let value = setting.get();
    value.map_or(String::new(), |text| text.to_string_lossy().into_owned())
}

fn names(setting: &defaults::Text) -> Vec<String> {
    let trimmed = |name: &str| name.trim().to_owned();
    let list = text(setting);
    let names = list.split(',').map(trimmed);
    names.filter(|name| !name.is_empty()).collect()
}

/// The reading of one signal, in a transaction of its own.
fn read<T>(holds: &mut Holds, signal: Signal, f: impl FnOnce() -> Result<T>) -> Option<T> {
    let unreadable = |error: Error| holds.hold(signal, format!("cannot be read: {error}"));
    txn::run(Durability::Deferred, f).map_err(unreadable).ok()
}

impl Readings {
    /// Reads what has a bound, of the server and of the table, and holds it against that.
    pub fn take(&mut self, limits: &Throttles, (job, table): (&Job, Oid), holds: &mut Holds) {
        let overridden = &mut self.overridden;
        let role = job.owner;
        if read(holds, Signal::ReadOnly, || {
            signals::is_read_only(role, overridden)
        }) == Some(true)
        {
            holds.hold(Signal::ReadOnly, READ_ONLY.to_owned());
        }
        for signal in limits.at_rest() {
            holds.hold(signal, "the bound is 0".to_owned());
        }
        if let Some(hours) = limits.hours() {
            window(hours, holds);
        }
        self.lag_bytes = None;
        if limits.watches_lag() {
            self.lag(limits, holds);
        }
        counts(limits, table, holds);
        if limits.yields_to_autovacuum() {
            vacuum(table, holds);
        }
        if let Some(bound) = limits.growth() {
            growth(bound, job.id, table, holds);
        }
        if let Some(query) = limits.query() {
            ask(query, holds);
        }
    }

    fn lag(&mut self, limits: &Throttles, holds: &mut Holds) {
        let (include, exclude) = limits.names();
        let signal = match limits.lag_bytes() {
            Some(_) => Signal::LagBytes,
            None => Signal::Lag,
        };
        let Some(lag) = read(holds, signal, || signals::lag(include, exclude)) else {
            return;
        };
        let now = Instant::now();
        self.clock.note(now, lag.end);
        let Some(Follower { shown, at, seconds }) = lag.last else {
            return;
        };
        let bytes = lag.end.saturating_sub(at);
        self.lag_bytes = Some(bytes);
        if let Some(bound) = limits.lag_bytes()
            && holds.is_over(Signal::LagBytes, bytes as f64, bound as f64)
        {
            let what = format!("{shown} lags {} of {}", Shown(bytes), Shown(bound));
            holds.hold(Signal::LagBytes, what);
        }
        let time = self.clock.since(now, at).as_secs_f64();
        // Its own answer is old where there is nothing that it lacks.
        let time = if bytes > 0 { time.max(seconds) } else { time };
        if let Some(bound) = limits.lag()
            && holds.is_over(Signal::Lag, time, bound.as_secs_f64())
        {
            let time = Lasting(Duration::from_secs_f64(time));
            let what = format!("{shown} lags {time} of {}", Lasting(bound));
            holds.hold(Signal::Lag, what);
        }
    }
}

/// The growth of the table since it was vacuumed, as far as that is known: since the job began.
fn growth(bound: u64, job: i64, table: Oid, holds: &mut Holds) {
    let signal = Signal::Growth;
    let Some((size, base)) = read(holds, signal, || {
        let (size, vacuums) = signals::size_of(table)?;
        let known = walk::size_at(job, table)?.filter(|(_, then)| *then == vacuums);
        if let Some((base, _)) = known {
            return Ok((size, base));
        }
        walk::set_size_at(job, table, size, vacuums)?;
        Ok((size, size))
    }) else {
        return;
    };
    // A table of a few pages doubles with the first batch.
    let base = base.max(1 << 20);
    let grown = size.saturating_sub(base) as f64 * 100.0 / base as f64;
    if grown > bound as f64 {
        holds.hold(
            signal,
            format!("the table has grown by {grown:.0} % of {bound} % since the job began or it was vacuumed; it waits for VACUUM"),
        );
    }
}

fn window(hours: &Hours, holds: &mut Holds) {
    let signal = Signal::RunWindow;
    let Some(now) = read(holds, signal, || signals::minute_of_week(hours.zone())) else {
        return;
    };
    if hours.closed_for(now).is_some() {
        holds.hold(signal, format!("opens at {}", hours.opening(now)));
    }
}

/// Signals that are a number each.
fn counts(limits: &Throttles, table: Oid, holds: &mut Holds) {
    type Read = Box<dyn Fn() -> Result<u64>>;
    let all: [(Signal, Option<u64>, &str, Read); 3] = [
        (
            Signal::ArchiveBacklog,
            limits.archive_backlog(),
            "segments of WAL wait to be archived",
            Box::new(signals::archive_backlog),
        ),
        (
            Signal::ActiveBackends,
            limits.active_backends(),
            "clients are at work",
            Box::new(signals::active_backends),
        ),
        (
            Signal::DeadTuples,
            limits.dead_tuples(),
            "dead tuples in the table; it waits for VACUUM",
            Box::new(move || signals::dead_tuples(table)),
        ),
    ];
    for (signal, bound, what, value) in all {
        let Some(bound) = bound else { continue };
        let Some(found) = read(holds, signal, value) else {
            continue;
        };
        if holds.is_over(signal, found as f64, bound as f64) {
            holds.hold(signal, format!("{found} of {bound} {what}"));
        }
    }
}

fn vacuum(table: Oid, holds: &mut Holds) {
    let signal = Signal::Autovacuum;
    let read = read(holds, signal, || {
        Ok((signals::vacuum_of(table)?, signals::age_of(table)?))
    });
    match read {
        Some((Some(phase), _)) => holds.hold(signal, format!("VACUUM of the table is {phase}")),
        Some((None, Some((age, most)))) if age > most => holds.hold(
            signal,
            format!("the table's oldest transaction is {age} old, of {most}: it waits for VACUUM"),
        ),
        _ => {}
    }
}

/// Asks the owner's query. What is wrong with it may hold row data: the view shows its SQLSTATE.
fn ask(query: &str, holds: &mut Holds) {
    let signal = Signal::Query;
    let begun = Instant::now();
    let answer = timeout::limited(QUERY_LIMIT, || {
        // Rolled back: what it leaves for the commit (a cursor WITH HOLD, a deferred trigger) would run where writing is allowed.
        txn::run_undone(
            || {},
            || evaluate::read_only(|| spi::read_only(&format!("SELECT (\n{query}\n)"))),
        )
    });
    let late = begun.elapsed() > Duration::from_millis(QUERY_LIMIT as u64);
    match answer {
        // It may have caught the cancel.
        Ok(_) if late => holds.hold(
            signal,
            format!("the query takes longer than {QUERY_LIMIT} ms"),
        ),
        Ok(row) => match row.as_ref().and_then(|row| row.get(0)) {
            Some("f" | "false") => {}
            Some(_) => holds.hold(signal, "the query gives true".to_owned()),
            None => holds.hold(signal, "the query gives NULL".to_owned()),
        },
        Err(error) if error.sqlstate == sqlstate::QUERY_CANCELED => holds.hold(
            signal,
            format!("the query takes longer than {QUERY_LIMIT} ms"),
        ),
        Err(error) => holds.hold(
            signal,
            format!("the query fails (SQLSTATE {})", error.sqlstate),
        ),
    }
}
