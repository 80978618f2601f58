//! Gives jobs without a worker one: those that waited for a slot, and those whose worker is gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::patience::patiently;
use crate::catalog::job::{self, Job};
use crate::catalog::{extension, on_end};
use crate::guc;
use crate::pg::bgworker::{self, MOST_LEFT_ALONE, Start};
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, latch, report, role, server, slots};

/// How often, and how long apart, a sweep tries to register a worker when the server has no process left: that of a worker
/// that ends is only freed once it is gone.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How long a worker that has ended its job waits for a process to hand over to, where no other worker could.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(60);

/// A job that wants workers, and as whom these have to connect.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: i64,
    start: Start,
    missing: usize,
    /// Whether its role may have so many slots only.
    is_bounded: bool,
}

/// The jobs of this database that want a worker, those without any first, then the longest
/// waiting; at last those that have ended, and whose `on_end` is due. Without those in `except`.
pub fn waiting(except: &[i64]) -> Vec<Waiting> {
    if !guc::ENABLED.get() {
        return Vec::new();
    }
    let look = || {
        if !elevate::extension_exists() {
            return Ok(Vec::new());
        }
        extension::check_version()?;
        let crowded = slots::crowded()?;
        let jobs = job::understaffed(&crowded)?.into_iter();
        let due = on_end::waiting()?;
        let due = due.into_iter().filter(|job| !crowded.contains(&job.owner));
        Ok(jobs
            .chain(due)
            .filter(|job| !except.contains(&job.id))
            .filter_map(start_of)
            .collect())
    };
    let found = patiently("waiting jobs cannot be looked for", || {
        txn::run(Durability::Deferred, look)
    });
    found.unwrap_or_else(|error| {
        report::log(&format!("backfill: cannot look for waiting jobs: {error}"));
        Vec::new()
    })
}

/// Where to start the job's worker; nowhere if its owner can't connect any more.
fn start_of(job: Job) -> Option<Waiting> {
    match role::start_for(job.owner) {
        Ok(start) => Some(Waiting {
            id: job.id,
            start,
            missing: job.missing_workers(),
            is_bounded: !slots::is_exempt(job.owner),
        }),
        Err(error) => {
            report::log(&format!("backfill {}: {error}", job.shown()));
            None
        }
    }
}

/// Once a worker has given its slot back: registers another one for the job of this database that has waited longest, which
/// finds the slot free. Not for those in `unsettled`.
///
/// Where the server has no process left, that of this worker will be free, but only when it has ended. So another worker
/// of this database is woken to see to it. If there is none, this one waits for a while; of several, one does.
pub fn hand_over(unsettled: &[i64]) {
    if unsettled.len() > MOST_LEFT_ALONE {
        report::log(
            "backfill: too many jobs whose end cannot be recorded, the launcher will look again",
        );
        return;
    }
    if is_updated() {
        // A new process loads the library anew, if it was not preloaded, and finds the jobs that are left.
        bgworker::register_now(bgworker::sweeper(server::database(), 0));
        return;
    }
    let begun = Instant::now();
    while let Some(first) = waiting(unsettled).first() {
        if bgworker::register_now(bgworker::job_worker(first.id, first.start, unsettled)) {
            return;
        }
        let others = others_at_work();
        others.iter().for_each(|pid| latch::set(*pid));
        if !others.is_empty() || !becomes_heir() {
            return;
        }
        if begun.elapsed() > HAND_OVER_WITHIN {
            log_no_process(first.id);
            return;
        }
        latch::wait(PAUSE);
    }
}

/// Whether the extension is not that of this library any more.
fn is_updated() -> bool {
    let look = || Ok(extension::check_version().is_err());
    txn::run(Durability::Deferred, look) == Ok(true)
}

/// The processes that work on jobs of this database.
fn others_at_work() -> Vec<i32> {
    txn::run(Durability::Deferred, job::workers_here).unwrap_or_default()
}

fn becomes_heir() -> bool {
    let try_lock = || Ok(Lock::Heir.is_held() || Lock::Heir.try_session());
    txn::run(Durability::Deferred, try_lock) == Ok(true)
}

fn log_no_process(id: i64) {
    report::log(&format!(
        "backfill job {id}: no background worker slot is free"
    ));
}

fn registered(id: i64, start: Start) -> bool {
    for _ in 0..TRIES {
        if bgworker::register_now(bgworker::job_worker(id, start, &[])) {
            return true;
        }
        latch::wait(PAUSE);
    }
    log_no_process(id);
    false
}

/// Registers as many workers for the jobs of this database that want some as there are free slots, of the server and of their
/// roles: one for each job that has none, then more.
pub fn sweep() {
    let free = txn::run(Durability::Deferred, || {
        let free = i64::from(guc::MAX_WORKERS.get()) - slots::in_use()?;
        Ok((free, slots::rooms()?.into_iter().collect::<HashMap<_, _>>()))
    });
    let (mut free, mut rooms) = free.unwrap_or_default();
    let waiting = waiting(&[]);
    let further = waiting
        .iter()
        .flat_map(|job| std::iter::repeat_n(job, job.missing.saturating_sub(1)));
    for job in waiting.iter().chain(further) {
        if free <= 0 {
            return;
        }
        let room = rooms
            .entry(job.start.owner)
            .or_insert_with(|| i64::from(slots::limit()));
        if job.is_bounded && *room <= 0 {
            continue;
        }
        if !registered(job.id, job.start) {
            return;
        }
        *room -= 1;
        free -= 1;
    }
}
