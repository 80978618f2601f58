//! How a worker ended a job. Only workers write here.

use crate::error::{Error, Result};
use crate::job::state::Outcome;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// Records the end of an attempt. `batch` is the range of keys that failed.
pub fn record(
    job: i64,
    outcome: Outcome,
    attempt: i32,
    error: Option<&Error>,
    batch: Option<&str>,
) -> Result<()> {
    let part = |f: fn(&Error) -> Option<&str>| Arg::text(error.and_then(f));
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill.outcome AS o
                 (job_id, outcome, attempt, at, sqlstate, message, detail, hint, context, batch)
             VALUES ($1, $2, $3, pg_catalog.clock_timestamp(), $4, $5, $6, $7, $8, $9)
             ON CONFLICT (job_id) DO UPDATE
             SET (outcome, attempt, at, sqlstate, message, detail, hint, context, batch)
                 = (excluded.outcome, excluded.attempt, excluded.at, excluded.sqlstate,
                    excluded.message, excluded.detail, excluded.hint, excluded.context, excluded.batch)
             WHERE o.outcome <> 'completed'
                OR o.attempt < (SELECT j.retry_attempt FROM backfill.job j WHERE j.id = $1)",
            &[
                Arg::Int8(job),
                Arg::Text(outcome.name()),
                Arg::Int4(attempt),
                part(|e| Some(&e.sqlstate)),
                part(|e| Some(&e.message)),
                part(|e| e.detail.as_deref()),
                part(|e| e.hint.as_deref()),
                part(|e| e.context.as_deref()),
                Arg::text(batch),
            ],
        )
    })?;
    Ok(())
}
