//! Gives jobs without a worker one: those that waited for a slot, and those whose worker is gone.

use std::time::Duration;

use crate::catalog::job::{self, Job};
use crate::error::Result;
use crate::guc;
use crate::pg::bgworker::{self, Start};
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, latch, report, role, server, slots};

/// How often, and how long apart, a worker that ends tries to register a successor when the
/// server has no slot free: its own is only freed once it is gone.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Registers workers for as many waiting jobs of this database as there are free slots. Called
/// without any lock held, so that whoever gave up its place just before is found here.
///
/// Where the server has no process left, and `me` could run the job as well, gives its id. The job
/// `except` is left alone: its worker could not even record its end, so the next one could not
/// either; the launcher's next sweep or `backfill.resume` try again.
pub fn take_up_waiting(me: Option<Start>, except: Option<i64>) -> Option<i64> {
    if !guc::ENABLED.get() {
        return None;
    }
    let waiting = txn::run(Durability::Deferred, || {
        if !elevate::extension_exists() {
            return Ok(Vec::new());
        }
        let free = i64::from(guc::MAX_WORKERS.get()) - slots::in_use()?;
        let waiting = job::without_worker()?
            .into_iter()
            .filter(|job| Some(job.id) != except);
        let starts = waiting.filter_map(start_of);
        Ok(starts.take(free.max(0) as usize).collect::<Vec<_>>())
    });
    match waiting {
        Ok(starts) => starts
            .into_iter()
            .find_map(|(id, start)| register(id, start, me)),
        Err(error) => {
            report::log(&format!("backfill: cannot look for waiting jobs: {error}"));
            None
        }
    }
}

/// Where to start the job's worker; nowhere if its owner can't connect any more.
fn start_of(job: Job) -> Option<(i64, Start)> {
    let identity: Result<_> = role::identity(job.owner, job.login);
    match identity {
        Ok(identity) => Some((
            job.id,
            Start {
                database: server::database(),
                identity,
            },
        )),
        Err(error) => {
            report::log(&format!("backfill {}: {error}", job.shown()));
            None
        }
    }
}

/// Registers a worker; gives the job back if that can't be and `me` is to run it.
fn register(id: i64, start: Start, me: Option<Start>) -> Option<i64> {
    for _ in 0..TRIES {
        if bgworker::register_now(bgworker::job_worker(id, start)) {
            return None;
        }
        if me == Some(start) {
            return Some(id);
        }
        latch::wait(PAUSE);
    }
    report::log(&format!(
        "backfill job {id}: no background worker slot is free"
    ));
    None
}
