//! The launcher: finds jobs without a worker, in every database, after a start, a crash, a promotion, a reload, and
//! every `backfill.launcher_interval`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::Error;
use crate::guc;
use crate::pg::bgworker::{self, Registered};
use crate::pg::txn::{self, Durability};
use crate::pg::{databases, elevate, latch, report, settings, signal};
use crate::worker::{dispatch, session};

/// Time that the sweep of one database may take, including its connection. A sweep takes milliseconds; each of its
/// statements waits a second for a lock at most. If it takes longer, something holds the database up.
const SWEEP_WITHIN: Duration = Duration::from_secs(30);
/// Time the launcher waits for a sweeper that was told to end, before it starts the next one.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Time between two checks whether a sweeper has ended, in case the signal was lost.
const LOOK: Duration = Duration::from_secs(1);

/// Longest sleep of the launcher at a time.
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// Sweepers that were told to end and have not done so yet, by database: these databases are left alone.
type Stuck = HashMap<Oid, Registered>;

/// Runs the launcher.
pub fn main(pid: i32) {
    signal::install();
    bgworker::connect_to_no_database();
    let mut stuck = Stuck::new();
    let mut reloaded = false;
    loop {
        if guc::ENABLED.get() {
            reloaded = sweep_all(pid, &mut stuck);
        }
        report::idle();
        let slept = Instant::now();
        while !std::mem::take(&mut reloaded)
            && !is_due(guc::LAUNCHER_INTERVAL.get(), slept.elapsed())
        {
            latch::wait(nap(guc::LAUNCHER_INTERVAL.get(), slept.elapsed()));
            if signal::reload_if_asked() {
                break;
            }
        }
    }
}

/// True if the next sweep is due, `slept` after the last. With an interval of 0 seconds, only a start or a reload
/// causes a sweep.
fn is_due(interval: i32, slept: Duration) -> bool {
    interval > 0 && slept >= seconds(interval)
}

/// Returns how long to sleep until the next sweep is due.
fn nap(interval: i32, slept: Duration) -> Duration {
    match interval {
        0 => LONGEST_NAP,
        _ => seconds(interval).saturating_sub(slept).min(LONGEST_NAP),
    }
}

fn seconds(interval: i32) -> Duration {
    Duration::from_secs(u64::from(interval.unsigned_abs()))
}

/// Sweeps one database after another, so that sweeps take one worker slot at a time (not counting those that are
/// stuck). Returns whether a reload was asked for meanwhile.
fn sweep_all(pid: i32, stuck: &mut Stuck) -> bool {
    let found = txn::run_bare(|| {
        settings::set_for_transaction(c"lock_timeout", c"5s");
        Ok(databases::connectable())
    });
    let databases = found.unwrap_or_else(|error| {
        report::log(&format!("backfill launcher: {error}"));
        Vec::new()
    });
    stuck.retain(|_, sweeper| !sweeper.has_ended());
    let mut reloaded = false;
    for (database, name) in databases {
        if stuck.contains_key(&database) {
            report::log(&format!(
                "backfill launcher: the sweep of database \"{name}\" has not ended yet"
            ));
            continue;
        }
        let Some(sweeper) = bgworker::register(bgworker::sweeper(database, pid)) else {
            report::log("backfill launcher: no background worker slot is free, will look again");
            break;
        };
        if ends_within(SWEEP_WITHIN, &sweeper, &mut reloaded) {
            continue;
        }
        report::log(&format!(
            "backfill launcher: the sweep of database \"{name}\" has taken {} seconds and is ended: something there is locked, or the database is being renamed",
            SWEEP_WITHIN.as_secs()
        ));
        sweeper.terminate();
        if !ends_within(END_WITHIN, &sweeper, &mut reloaded) {
            stuck.insert(database, sweeper);
        }
    }
    reloaded
}

/// Waits for the end of a sweeper; false if it does not end in time. SIGTERM ends this process meanwhile.
fn ends_within(time: Duration, sweeper: &Registered, reloaded: &mut bool) -> bool {
    let deadline = Instant::now() + time;
    while !sweeper.has_ended() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        latch::wait(left.min(LOOK));
        *reloaded |= signal::reload_if_asked();
    }
    true
}

/// Runs a sweeper: it runs only statements of the extension's own, none of a user's.
pub fn sweep(database: Oid) {
    signal::install();
    bgworker::connect_to_sweep(database);
    session::limit_waits();
    let exists = txn::run(Durability::Deferred, || Ok(elevate::extension_exists()));
    if exists == Ok(true) {
        dispatch::sweep();
    } else if let Err(error) = exists {
        log(&error);
    }
}

fn log(error: &Error) {
    report::log(&format!("backfill sweeper: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_interval_of_zero_is_never_due() {
        assert!(!is_due(0, DAY * 1000));
        assert!(nap(0, DAY) > Duration::ZERO);
    }

    #[test]
    fn an_interval_is_due_once_it_is_over() {
        assert!(!is_due(60, Duration::from_secs(59)));
        assert!(is_due(60, Duration::from_secs(60)));
        assert_eq!(nap(60, Duration::from_secs(59)), Duration::from_secs(1));
        assert!(is_due(86_400, DAY));
    }
}
