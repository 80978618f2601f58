//! `backfill.forget`: removes an ended job.

use super::caller::locked_job;
use crate::error::{Error, Result, sqlstate};
use crate::pg::lock::Lock;
use crate::store::job;

/// Removes the job and everything recorded about it.
pub fn forget(job_id: Option<i64>) -> Result<()> {
    let found = locked_job(job_id, "backfill.forget()")?;
    // Waits for a worker that is just recording the end; a later one finds no job.
    if !Lock::Council(found.id).in_time()? {
        return Err(Error::new(
            sqlstate::LOCK_NOT_AVAILABLE,
            format!(
                "cannot forget backfill {}: a worker of it is busy",
                found.shown()
            ),
        )
        .hint("Try again in a moment."));
    }
    let found = job::load(found.id)?.ok_or_else(|| job::unknown(found.id))?;
    let state = found.state();
    if !state.ended() || !found.workers.is_empty() {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "cannot forget backfill {}: it {}",
                found.shown(),
                state.phrase(false)
            ),
        )
        .hint(format!(
            "Only an ended job can be forgotten. SELECT backfill.cancel({}) ends it.",
            found.id
        )));
    }
    job::delete(found.id)
}
