//! Who calls, and what he may do.

use super::existing;
use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::{partition, server};
use crate::store::job::{self, Job};
use crate::store::origin;

/// The argument, which must not be NULL.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| {
        Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            format!("{name} must not be NULL"),
        )
        .hint(format!("Give a value for {name}."))
    })
}

/// Calls about a job that may not be run as it stands, which decide about it and run nothing of it.
const WHATEVER_IT_IS: &[&str] = &[
    "backfill.pause()",
    "backfill.resume()",
    "backfill.cancel()",
    "backfill.alter()",
    "backfill.forget()",
];

/// Refuses a job that was not written by the functions, or whose owner is another role now. One of a copy
/// is for whoever may act for its owner.
pub fn refuse_unsound(job: &Job) -> Result<()> {
    match job.standing {
        Standing::Here | Standing::Copy => Ok(()),
        standing => Err(origin::refused("use", &job.shown(), job.id, standing)),
    }
}

/// The job, locked against other calls, if the caller may act on it, and may do so as it stands.
pub fn locked_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    locked(&found(job_id, function, |job| Ok(may_act(job)))?, function)
}

/// The job, if the caller may act on it, and may do so as it stands. Not locked: for a call that changes nothing of it, and
/// may take long.
pub fn known_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    let job = found(job_id, function, |job| Ok(may_act(job)))?;
    refuse_unsound(&job)?;
    Ok(job)
}

/// The same for a call that makes the job one that writes: with the lock under which overlap is looked for. It comes first,
/// as in `start`: two calls that took the two in different order would wait for each other.
pub fn activated_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    let job = found(job_id, function, |job| Ok(may_act(job)))?;
    existing::lock(job.relation)?;
    locked(&job, function)
}

/// The same for a call that only makes the job stand still: the owner of its table may, too.
pub fn attended_job(job_id: Option<i64>, function: &str) -> Result<Job> {
    locked(&found(job_id, function, may_attend)?, function)
}

fn found(job_id: Option<i64>, function: &str, may: impl Fn(&Job) -> Result<bool>) -> Result<Job> {
    server::refuse_read_only(function)?;
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

/// Whether the caller may see a job, and make it stand still: with the rights of its owner, or of the owner of its table.
pub fn may_attend(job: &Job) -> Result<bool> {
    Ok(may_act(job) || partition::may_act_for_owner(job.relation)?)
}

/// The error for a job of somebody else's.
pub fn denied(id: i64) -> Error {
    Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, format!("permission denied for backfill job {id}"))
        .hint("It takes the rights of the role that defined the job: be a member of that role, or a superuser.")
}

/// Refuses a job that only reads, where it is about what a job changes.
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
