//! The caller, and what the caller may do.

use pgrx::pg_sys::Oid;

use super::definition_lock;
use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::elevate::as_extension;
use crate::pg::{partition, read_only, server, spi};
use crate::store::job::{self, Job};
use crate::store::origin;

/// Returns the argument, which must not be NULL.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| {
        Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            format!("{name} must not be NULL"),
        )
        .hint(format!("Give a value for {name}."))
    })
}

/// Calls about a job that may not run as its row stands: they decide about it, and run nothing of it.
const WHATEVER_IT_IS: &[&str] = &[
    "backfill.pause()",
    "backfill.resume()",
    "backfill.cancel()",
    "backfill.alter()",
    "backfill.forget()",
];

/// Refuses a job that was not written by the functions, or whose owner is another role now. A copy is allowed, for
/// whoever may act for its owner.
pub fn refuse_unsound(job: &Job) -> Result<()> {
    match job.standing {
        Standing::Here | Standing::Copy => Ok(()),
        standing => Err(origin::refused("use", &job.shown(), job.id, standing)),
    }
}

/// Returns the job, locked against other calls, if the caller may act on it and the standing of its row allows the
/// call.
pub fn locked_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    locked(&found(job_id, function, |job| Ok(may_act(job)))?, function)
}

/// Returns the job, if the caller may act on it and its row is sound. Does not lock it: for calls that change nothing
/// of the job and may take long.
pub fn known_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    let job = found(job_id, function, |job| Ok(may_act(job)))?;
    refuse_unsound(&job)?;
    Ok(job)
}

/// Like [`locked_job`], for a call after which the job writes: takes also the lock under which overlap is checked. It
/// is taken first, as in `start`, since two calls that took the two locks in different order would wait for each other.
pub fn activated_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    let job = found(job_id, function, |job| Ok(may_act(job)))?;
    definition_lock::take(job.relation)?;
    locked(&job, function)
}

/// Like [`locked_job`], for a call that only makes the job stop: the owner of its table may make it, too.
pub fn attended_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    locked(&found(job_id, function, may_attend)?, function)
}

fn found(job_id: Option<i64>, function: &str, may: impl Fn(&Job) -> Result<bool>) -> Result<Job> {
    read_only::refuse(function)?;
    let id = required(job_id, "job_id")?;
    let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    if may(&job)? { Ok(job) } else { Err(denied(id)) }
}

fn locked(job: &Job, function: &str) -> Result<Job> {
    let job = job::lock(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    if !WHATEVER_IT_IS.contains(&function) {
        refuse_unsound(&job)?;
    }
    Ok(job)
}

fn may_act(job: &Job) -> bool {
    server::may_act_for(job.owner)
}

/// Like [`may_see`], for a job of this role's on this table.
pub fn may_see_of(owner: Oid, relation: Oid) -> Result<bool> {
    Ok(server::may_act_for(owner)
        || partition::may_act_for_owner(relation)?
        || server::may_act_for(monitor()?))
}

/// True if the caller may make a job stop, and see it: with the rights of its owner, or of the owner of its table.
pub fn may_attend(job: &Job) -> Result<bool> {
    Ok(may_act(job) || partition::may_act_for_owner(job.relation)?)
}

/// True if the caller may see a job: who may attend it, and members of pg_monitor.
pub fn may_see(job: &Job) -> Result<bool> {
    may_see_of(job.owner, job.relation)
}

/// Returns the role whose members may see all jobs.
fn monitor() -> Result<Oid> {
    let row = as_extension(|| {
        spi::first(
            "SELECT 'pg_monitor'::pg_catalog.regrole::pg_catalog.oid::bigint",
            &[],
        )
    })?;
    row.map_or(Ok(Oid::INVALID), |row| Ok(Oid::from(row.number(0)? as u32)))
}

/// Returns the error about a job of another role.
pub fn denied(id: i64) -> Error {
    Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, format!("permission denied for backfill job {id}"))
        .hint("It takes the rights of the role that defined the job: be a member of that role, or a superuser.")
}

/// Refuses a job that only reads, for calls about what a job changes.
pub fn refuse_read_only(job: &Job) -> Result<()> {
    if !job.definition.action.is_read_only() {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::WRONG_OBJECT_TYPE,
        format!("backfill {} changes nothing", job.shown()),
    )
    .hint("Name the job that does."))
}
