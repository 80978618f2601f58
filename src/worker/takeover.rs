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
pub fn take_up_waiting() {
    if !guc::ENABLED.get() {
        return;
    }
    let waiting = txn::run(Durability::Deferred, || {
        if !elevate::extension_exists() {
            return Ok(Vec::new());
        }
        let free = i64::from(guc::MAX_WORKERS.get()) - slots::in_use()?;
        let jobs = job::without_worker()?;
        Ok(jobs
            .into_iter()
            .take(free.max(0) as usize)
            .filter_map(start_of)
            .collect())
    });
    match waiting {
        Ok(starts) => starts
            .into_iter()
            .for_each(|(id, start)| register(id, start)),
        Err(error) => report::log(&format!("backfill: cannot look for waiting jobs: {error}")),
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

fn register(id: i64, start: Start) {
    for _ in 0..TRIES {
        if bgworker::register_now(bgworker::job_worker(id, start)) {
            return;
        }
        latch::wait(PAUSE);
    }
    report::log(&format!(
        "backfill job {id}: no background worker slot is free"
    ));
}
