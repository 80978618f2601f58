//! The progress of a job in one line, for the server log.

use crate::error::Result;
use crate::model::heartbeat::Beat;
use crate::pg::spi::{self, Arg};

/// Returns the line, made of what the view shows to the job's owner: it has no row data.
pub fn line(job: i64) -> Result<Option<String>> {
    let row = spi::first(
        "SELECT p.percent, p.rows_done, p.rows_total, p.rows_failed, p.rows_per_second, p.eta, p.eta_state,
                p.workers, p.waiting_for
         FROM backfill.progress p WHERE p.job_id OPERATOR(pg_catalog.=) $1",
        &[Arg::Int8(job)],
    )?;
    let Some(row) = row else { return Ok(None) };
    let beat = Beat {
        percent: row.get(0),
        rows_done: row.get(1),
        rows_total: row.get(2),
        rows_failed: row.get(3),
        rows_per_second: row.get(4),
        eta: row.get(5),
        eta_state: row.get(6),
        workers: row.get(7),
        waiting_for: row.get(8),
    };
    Ok(Some(beat.line()))
}
