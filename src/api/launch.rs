//! Starts and wakes workers when the transaction commits.

use crate::catalog::job::Job;
use crate::error::Result;
use crate::guc;
use crate::pg::bgworker;
use crate::pg::report::notice;
use crate::pg::xact::{Action, at_commit};
use crate::pg::{role, slots};

/// Has a worker for the job started at commit. Refuses an owner that no worker can work for.
pub fn worker(job: &Job) -> Result<()> {
    let start = role::start_for(job.owner)?;
    if !guc::ENABLED.get() {
        notice(
            &format!("backfill {} waits: backfill.enabled is off", job.shown()),
            Some(
                "It is taken up when the setting is on again and, without preload, after SELECT backfill.resume().",
            ),
        );
        return Ok(());
    }
    announce_full_house(job)?;
    at_commit(Action::Register(
        job.id,
        bgworker::job_worker(job.id, start),
    ));
    Ok(())
}

/// Wakes the job's worker at commit, if it has one; with `interrupt` its batch is cancelled too.
pub fn wake(job: &Job, interrupt: bool) {
    if let Some(pid) = job.worker {
        at_commit(Action::Wake(pid));
        if interrupt {
            let role = role::login_of(job.owner).map_or(job.owner, role::process_role);
            at_commit(Action::Interrupt(pid, role));
        }
    }
}

/// Says so when all of the server's worker slots are taken.
fn announce_full_house(job: &Job) -> Result<()> {
    let used = slots::in_use()?;
    let limit = guc::MAX_WORKERS.get();
    if used >= i64::from(limit) {
        notice(
            &format!(
                "backfill {} waits for a worker: {used} of {limit} are busy",
                job.shown()
            ),
            Some(
                "It is taken up when one of this database ends. The limit is backfill.max_workers.",
            ),
        );
    }
    Ok(())
}
