//! Starts and wakes workers when the transaction commits.

use super::crowd;
use crate::error::Result;
use crate::guc;
use crate::model::state::State;
use crate::pg::bgworker::{self, Errand};
use crate::pg::report::notice;
use crate::pg::xact::{Action, at_commit};
use crate::pg::{role, slots};
use crate::store::job::{self, Job};

/// Starts, at commit, the workers that the job wants. Refuses an owner as whom no worker can connect.
pub fn workers(job: &Job) -> Result<()> {
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
    let held_by = job::held_by(job.id)?;
    if !held_by.is_empty() {
        notice(
            &format!(
                "backfill {} comes after \"{}\"",
                job.shown(),
                held_by.join("\", \"")
            ),
            Some("It is taken up when that has completed. backfill.queue shows what waits."),
        );
        return Ok(());
    }
    announce_full_house(job)?;
    for _ in 0..job.missing_workers().max(1) {
        at_commit(Action::Register(
            job.id,
            bgworker::job_worker(&Errand::new(job.id, job.attempt, start, &[])),
        ));
    }
    Ok(())
}

/// Starts a worker at commit that runs the owner's statement for the end of a job that no worker holds. If no worker
/// can be started now, the end is not refused: a later worker runs the statement.
pub fn finisher(job: &Job) {
    if guc::ENABLED.get()
        && let Ok(start) = role::start_for(job.owner)
    {
        at_commit(Action::Register(
            job.id,
            bgworker::job_worker(&Errand::new(job.id, job.attempt, start, &[])),
        ));
    }
}

/// Writes a line to the server log, at commit, about a change that no worker reports.
pub fn say(job: &Job, state: State) {
    at_commit(Action::Log(format!("backfill {} {state}", job.logged())));
}

/// Wakes the job's workers at commit; with `interrupt`, their batches are cancelled, too.
pub fn wake(job: &Job, interrupt: bool) {
    for pid in job.workers.iter().copied() {
        at_commit(Action::Wake(pid));
        if interrupt {
            let role = role::login_of(job.owner).map_or(job.owner, role::process_role);
            at_commit(Action::Interrupt(pid, role));
        }
    }
}

/// True if a worker of the job would find a slot, of the server and of its role.
pub fn has_room(job: &Job) -> Result<bool> {
    let free = slots::in_use()? < i64::from(guc::MAX_WORKERS.get());
    Ok(free && !slots::crowded()?.contains(&job.owner))
}

/// Sends a notice if there are fewer free worker slots than the job wants.
pub fn announce_full_house(job: &Job) -> Result<()> {
    let used = slots::in_use()?;
    let limit = i64::from(guc::MAX_WORKERS.get());
    let missing = job.missing_workers().max(1) as i64;
    let free = (limit - used).max(0);
    let (shown, hint) = (job.shown(), "The limit is backfill.max_workers.");
    if free == 0 && job.workers.is_empty() {
        notice(
            &format!("backfill {shown} waits for a worker: {used} of {limit} are busy"),
            Some(&format!(
                "It is taken up when one of this database ends. {hint}"
            )),
        );
    } else if let Some(crowd) = crowd::of_role(job.owner)?
        && job.workers.is_empty()
    {
        notice(
            &format!("backfill {shown} waits for a worker: {crowd} are busy"),
            Some(
                "It is taken up when one of the role's ends. The limit is backfill.max_workers_per_role.",
            ),
        );
    } else if free < missing {
        let has = job.workers.len() as i64 + free;
        let wanted = job.definition.options.workers();
        notice(
            &format!("backfill {shown} has {has} of {wanted} workers for now"),
            Some(&format!("{used} of {limit} are busy. {hint}")),
        );
    }
    Ok(())
}
