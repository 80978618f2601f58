//! `backfill.retry_failed`: tries again rows that were stepped over because of an error.

use super::caller::activated_job;
use super::hints::refused;
use super::{existing, launch};
use crate::error::{Error, Result, sqlstate};
use crate::model::state::{Event, next};
use crate::pg::report::notice;
use crate::pg::server;
use crate::store::{event, failed_row, job};

/// Makes the job try its failed rows after all others; returns how many there are.
pub fn retry_failed(job_id: Option<i64>) -> Result<i64> {
    let found = activated_job(job_id, "backfill.retry_failed()")?;
    if found.definition.action.is_read_only() {
        let message = format!(
            "backfill {} only reads: no row of it can be tried again",
            found.shown()
        );
        return Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
            .hint("Start another one; backfill.failed_rows has the rows that failed."));
    }
    let old = found.state();
    let Some(new) = next(old, Event::Retry) else {
        return Err(refused(&found, old, "retry the failed rows of"));
    };
    let rows = failed_row::count(found.id)?;
    if rows == 0 {
        notice(
            &format!("backfill {} has no failed rows", found.shown()),
            None,
        );
        return Ok(0);
    }
    existing::refuse_overlap(found.id)?;
    job::begin_retry(found.id)?;
    let changed = job::load(found.id)?.ok_or_else(|| job::unknown(found.id))?;
    launch::workers(&changed)?;
    launch::wake(&changed, false);
    let me = server::current_user();
    event::change(found.id, me, "retry failed rows", Some(old), new)?;
    Ok(rows)
}
