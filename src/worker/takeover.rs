//! Gives jobs without a worker one: those that waited for a slot, and those whose worker is gone.

use std::time::Duration;

use crate::catalog::job::{self, Job};
use crate::catalog::{extension, on_end};
use crate::guc;
use crate::pg::bgworker::{self, Start};
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, latch, report, role, server, slots};

/// How often, and how long apart, a worker that ends tries to register one for another role's job
/// when the server has no process left: its own is only freed once it is gone.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// A job that wants workers, and as whom these have to connect.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: i64,
    start: Start,
    missing: usize,
}

/// The jobs of this database that want a worker, those without any first, then the longest
/// waiting; at last those that have ended, and whose `on_end` is due. Without those in `except`.
pub fn waiting(except: &[i64]) -> Vec<Waiting> {
    if !guc::ENABLED.get() {
        return Vec::new();
    }
    let found = txn::run(Durability::Deferred, || {
        if !elevate::extension_exists() {
            return Ok(Vec::new());
        }
        extension::check_version()?;
        let jobs = job::understaffed()?.into_iter().chain(on_end::waiting()?);
        Ok(jobs
            .filter(|job| !except.contains(&job.id))
            .filter_map(start_of)
            .collect())
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
        }),
        Err(error) => {
            report::log(&format!("backfill {}: {error}", job.shown()));
            None
        }
    }
}

/// Whether this process may run another job after this one: not if an open transaction is changing
/// it, which may interrupt the process it knows when it commits.
pub fn may_go_on_after(id: i64) -> bool {
    txn::run(Durability::Deferred, || job::is_free(id)) == Ok(true)
}

/// What a worker that holds its slot is to do next: the job that has waited longest, if it can run
/// it itself.
pub fn next(me: Start, except: &[i64]) -> Option<i64> {
    let first = *waiting(except).first()?;
    (first.start == me).then_some(first.id)
}

/// The same once it has given its slot back: a job that it can't run gets another process, which
/// finds the slot free. If there is no process, this one goes on with what it can run.
pub fn hand_over(me: Option<Start>, except: &[i64]) -> Option<i64> {
    if txn::run(Durability::Deferred, || {
        Ok(extension::check_version().is_err())
    }) == Ok(true)
    {
        // The extension was updated meanwhile. A new process loads the library anew, if it was not
        // preloaded, and finds the jobs that this one has left.
        bgworker::register_now(bgworker::sweeper(server::database(), 0));
        return None;
    }
    let waiting = waiting(except);
    let first = *waiting.first()?;
    if Some(first.start) != me && registered(first.id, first.start) {
        return None;
    }
    waiting
        .iter()
        .find(|job| Some(job.start) == me)
        .map(|job| job.id)
}

fn registered(id: i64, start: Start) -> bool {
    for _ in 0..TRIES {
        if bgworker::register_now(bgworker::job_worker(id, start)) {
            return true;
        }
        latch::wait(PAUSE);
    }
    report::log(&format!(
        "backfill job {id}: no background worker slot is free"
    ));
    false
}

/// Registers as many workers for the jobs of this database that want some as there are free slots:
/// one for each job that has none, then more.
pub fn sweep() {
    let free = txn::run(Durability::Deferred, || {
        Ok(i64::from(guc::MAX_WORKERS.get()) - slots::in_use()?)
    });
    let free = free.unwrap_or(0).max(0) as usize;
    let waiting = waiting(&[]);
    let further = waiting
        .iter()
        .flat_map(|job| std::iter::repeat_n(job, job.missing.saturating_sub(1)));
    for job in waiting.iter().chain(further).take(free) {
        if !registered(job.id, job.start) {
            return;
        }
    }
}
