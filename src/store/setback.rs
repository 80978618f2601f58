//! Waits of workers between batches: for a signal, or, while they hold no slice, for a table that somebody has locked.
//! The wait after a failed batch is in its slice's checkpoint instead.

use std::time::Duration;

use crate::error::Result;
use crate::model::stored::cut;
use crate::pg::elevate::as_extension;
use crate::pg::server;
use crate::pg::spi::{self, Arg};

/// Makes the view show what this worker waits for, and until when.
pub fn tell(job: i64, what: &str, pause: Duration) -> Result<()> {
    let what = cut(what);
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.setback AS s (job_id, pid, waits_for, waits_until)
             VALUES ($1, $2, $3, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4))
             ON CONFLICT (job_id, pid) DO UPDATE SET waits_for = excluded.waits_for, waits_until = excluded.waits_until",
            &[
                Arg::Int8(job),
                Arg::Int4(server::pid()),
                Arg::Text(&what),
                Arg::float8(Some(pause.as_secs_f64())),
            ],
        )
    })?;
    Ok(())
}

/// Makes the view show what this worker waits for, with no known end. `begins`: whether the wait starts now.
pub fn hold(job: i64, what: &str, begins: bool) -> Result<()> {
    let what = cut(what);
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.setback AS s (job_id, pid, waits_for) VALUES ($1, $2, $3)
             ON CONFLICT (job_id, pid) DO UPDATE SET waits_for = excluded.waits_for, waits_until = NULL,
                                                        since = CASE WHEN $4 THEN excluded.since ELSE s.since END",
            &[
                Arg::Int8(job),
                Arg::Int4(server::pid()),
                Arg::Text(&what),
                Arg::Bool(begins),
            ],
        )
    })?;
    Ok(())
}

/// Removes the note that this worker waits.
pub fn go_on(job: i64) -> Result<()> {
    as_extension(|| {
        spi::query(
            "DELETE FROM backfill_internal.setback WHERE job_id = $1 AND pid = $2",
            &[Arg::Int8(job), Arg::Int4(server::pid())],
        )
    })?;
    Ok(())
}

/// Removes the notes of this worker and of workers that are gone; `workers` are those that are left.
pub fn clear(job: i64, workers: &[i32]) -> Result<()> {
    let others: Vec<String> = workers
        .iter()
        .filter(|pid| **pid != server::pid())
        .map(i32::to_string)
        .collect();
    as_extension(|| {
        spi::query(
            "DELETE FROM backfill_internal.setback WHERE job_id = $1 AND NOT pid = ANY ($2::pg_catalog.int4[])",
            &[Arg::Int8(job), Arg::Texts(&others)],
        )
    })?;
    Ok(())
}
