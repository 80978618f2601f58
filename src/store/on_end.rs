//! The statement that an owner wants to run when the job has ended. That it is due is recorded with the end, and that
//! it is done is recorded in the transaction that runs it: so it runs once, whatever happens to the worker.

use crate::error::Result;
use crate::model::standing::Standing;
use crate::model::state::{Outcome, State};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::{job, origin, outcome};

/// Records, with the end of an attempt, that the job's statement is due, if it has one.
pub fn owe(job: &job::Job, ended: Outcome, attempt: i32) -> Result<()> {
    if job.definition.options.on_end.is_none() || job.definition.action.is_read_only() {
        return Ok(());
    }
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.outcome SET on_end = 'due'
             WHERE job_id = $1 AND attempt = $2 AND outcome = $3 AND on_end IS NULL",
            &[
                Arg::Int8(job.id),
                Arg::Int4(attempt),
                Arg::Text(ended.name()),
            ],
        )
    })?;
    Ok(())
}

/// True if the job was cancelled without a worker to record that, and has a statement to run. A job that was never
/// started has no end.
pub fn is_owed(job: &job::Job) -> bool {
    job.definition.options.on_end.is_some()
        && !job.definition.action.is_read_only()
        && job.attempt > 0
        && job.here
        && job.outcome != Some(Outcome::Cancelled)
        && job.state() == State::Cancelled
}

/// Records the end of a job that was cancelled while no worker held it.
pub fn settle_cancel(job: &job::Job) -> Result<()> {
    outcome::record(job.id, Outcome::Cancelled, job.attempt, None, None)?;
    owe(job, Outcome::Cancelled, job.attempt)
}

/// Returns the end (outcome and attempt) whose statement is due.
pub fn due(job: i64) -> Result<Option<(String, i32)>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT o.outcome, o.attempt FROM backfill_internal.outcome o WHERE o.job_id = $1 AND o.on_end = 'due'",
            &[Arg::Int8(job)],
        )
    })?;
    row.map(|row| Ok((row.text(0)?.to_owned(), row.number(1)? as i32)))
        .transpose()
}

/// Counts a try that begins; returns the number of tries including this one, or `None` if the statement is no longer
/// due.
pub fn begin(job: i64, attempt: i32) -> Result<Option<i32>> {
    let row = as_extension(|| {
        spi::first(
            "UPDATE backfill_internal.outcome SET on_end_tries = on_end_tries + 1
             WHERE job_id = $1 AND attempt = $2 AND on_end = 'due' RETURNING on_end_tries",
            &[Arg::Int8(job), Arg::Int4(attempt)],
        )
    })?;
    row.map(|row| Ok(row.number(0)? as i32)).transpose()
}

/// Records the result of the statement: done or failed. Returns false if it is no longer due; waits for a worker that
/// is running it.
pub fn settle(job: i64, attempt: i32, result: &str) -> Result<bool> {
    let found = as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.outcome SET on_end = $3
             WHERE job_id = $1 AND attempt = $2 AND on_end = 'due'",
            &[Arg::Int8(job), Arg::Int4(attempt), Arg::Text(result)],
        )
    })?;
    Ok(found.processed > 0)
}

/// Returns the jobs without a worker whose statement is due, including those that were cancelled without a worker; the
/// first hundred.
pub fn waiting() -> Result<Vec<job::Job>> {
    let found = job::list(&format!(
        "WHERE j.options ? 'on_end' AND NOT EXISTS (SELECT FROM live l WHERE l.job_id = j.id)
           AND (o.on_end = 'due' OR j.wish = 'cancel' AND j.attempt > 0
                AND (o.outcome IS NULL OR o.outcome = 'failed'))
           AND {} = '{}'
         ORDER BY NOT {}, pg_catalog.row_number() OVER (PARTITION BY j.owner ORDER BY j.id), j.id LIMIT 100",
        origin::STANDING,
        Standing::Here.name(),
        job::CAN_CONNECT
    ))?;
    Ok(found.into_iter().filter(|job| job.here).collect())
}
