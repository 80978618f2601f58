//! Outcomes: how a worker ended a job. Only workers write here, and calls that make an ended job go on.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::state::Outcome;
use crate::model::stored::cut_if_any;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::slice::{ROWS_DONE, STANDINGS};

/// Records the end of an attempt. `batch` is the range of keys that failed.
pub fn record(
    job: i64,
    outcome: Outcome,
    attempt: i32,
    error: Option<&Error>,
    batch: Option<&str>,
) -> Result<()> {
    let part = |f: fn(&Error) -> Option<&str>| cut_if_any(error.and_then(f));
    let message = part(|e| Some(&e.message));
    let detail = part(|e| e.detail.as_deref());
    let hint = part(|e| e.hint.as_deref());
    let context = part(|e| e.context.as_deref());
    let batch = cut_if_any(batch);
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.outcome AS o
                 (job_id, outcome, attempt, at, sqlstate, message, detail, hint, context, batch)
             VALUES ($1, $2, $3, pg_catalog.clock_timestamp(), $4, $5, $6, $7, $8, $9)
             ON CONFLICT (job_id) DO UPDATE
             SET (outcome, attempt, at, sqlstate, message, detail, hint, context, batch, on_end)
                 = (excluded.outcome, excluded.attempt, excluded.at, excluded.sqlstate,
                    excluded.message, excluded.detail, excluded.hint, excluded.context, excluded.batch,
                    CASE WHEN (o.outcome, o.attempt) = (excluded.outcome, excluded.attempt) THEN o.on_end END),
                 on_end_tries = CASE WHEN (o.outcome, o.attempt) = (excluded.outcome, excluded.attempt) THEN o.on_end_tries ELSE 0 END
             WHERE o.outcome <> 'completed'
                OR o.attempt < (SELECT j.retry_attempt FROM backfill_internal.job j WHERE j.id = $1)",
            &[
                Arg::Int8(job),
                Arg::Text(outcome.name()),
                Arg::Int4(attempt),
                Arg::text(error.map(|e| e.sqlstate.as_str())),
                Arg::text(message.as_deref()),
                Arg::text(detail.as_deref()),
                Arg::text(hint.as_deref()),
                Arg::text(context.as_deref()),
                Arg::text(batch.as_deref()),
            ],
        )
    })?;
    match outcome {
        Outcome::Failed { .. } => Ok(()),
        _ => sum_up(job),
    }
}

/// Records the sums over the slices of a job that has just ended for good; `backfill.progress` computes the same sums
/// while the job runs.
fn sum_up(job: i64) -> Result<()> {
    let sql = format!(
        "UPDATE backfill_internal.outcome o
         SET (percent, rows_done, rows_total, rows_updated, rows_hot, worked_ms, slept_ms, waited_ms, wal_bytes) = (
             SELECT pg_catalog.sum(sl.weight * COALESCE(c.percent, 0)) FILTER (WHERE sl.weight > 0)
                        / NULLIF(pg_catalog.sum(sl.weight), 0),
                    {ROWS_DONE},
                    pg_catalog.sum(CASE WHEN sl.done THEN c.rows_done ELSE c.rows_total END),
                    COALESCE(pg_catalog.sum(c.rows_updated), 0), COALESCE(pg_catalog.sum(c.rows_hot), 0),
                    COALESCE(pg_catalog.sum(c.worked_ms), 0), COALESCE(pg_catalog.sum(c.slept_ms), 0),
                    COALESCE(pg_catalog.sum((SELECT pg_catalog.sum(e.value::bigint) FROM pg_catalog.jsonb_each_text(c.waited_ms) e)), 0),
                    COALESCE(pg_catalog.sum(c.wal_bytes), 0)
             {STANDINGS})
         WHERE o.job_id = $1"
    );
    as_extension(|| spi::query(&sql, &[Arg::Int8(job)]))?;
    set_summed(job, true)
}

/// The result of a job that has ended.
pub struct CameTo {
    /// Rows updated.
    pub updated: i64,
    /// Seconds from the job's start to its end.
    pub seconds: f64,
    /// Rows stepped over because of an error.
    pub failed: i64,
}

/// Returns the result of a job, if its end is recorded.
pub fn came_to(job: i64) -> Result<Option<CameTo>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT COALESCE(o.rows_updated, 0), COALESCE(EXTRACT(epoch FROM o.at - j.started_at), 0)::pg_catalog.float8,
                    (SELECT pg_catalog.count(*) FROM backfill_internal.failed_row f WHERE f.job_id = j.id)
             FROM backfill_internal.job j JOIN backfill_internal.outcome o ON o.job_id = j.id WHERE j.id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map(|row| {
        Ok(CameTo {
            updated: row.number(0)?,
            seconds: row.parse::<f64>(1)?.unwrap_or_default().max(0.0),
            failed: row.number(2)?,
        })
    })
    .transpose()
}

/// Returns the progress of a job and what it waits for, in sentences for a person; `None` if there is nothing to say.
pub fn how_far(job: i64) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT CASE WHEN p.rows_done > 0 THEN
                        pg_catalog.concat(COALESCE(p.percent || ' percent: ', ''), p.rows_done, ' of ', COALESCE(p.rows_total::text, 'an unknown number of'), ' rows.')
                    END,
                    'It waits for ' || p.waiting_for || '.'
             FROM backfill.progress p WHERE p.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    let sentences: Vec<&str> = [row.get(0), row.get(1)].into_iter().flatten().collect();
    Ok((!sentences.is_empty()).then(|| sentences.join(" ")))
}

/// Returns the number of seconds since a job ended.
pub fn age(job: i64) -> Result<Option<f64>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - o.at)::pg_catalog.float8
             FROM backfill_internal.outcome o WHERE o.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map_or(Ok(None), |row| row.parse(0))
}

/// Returns the hint that came with the error of a failed job.
pub fn hint(job: i64) -> Result<Option<String>> {
    let row = as_extension(|| {
        let sql = "SELECT o.hint FROM backfill_internal.outcome o WHERE o.job_id = $1 AND o.outcome = 'failed'";
        spi::first(sql, &[Arg::Int8(job)])
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Whether a job had ended before another one was started: what that one has seen is what the first has left.
pub fn ended_before_start_of(job: i64, other: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT o.at < v.started_at FROM backfill_internal.outcome o, backfill_internal.job v WHERE o.job_id = $1 AND v.id = $2",
            &[Arg::Int8(job), Arg::Int8(other)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Makes the progress of a job come from its slices again, because the job goes on.
pub fn reopen(job: i64) -> Result<()> {
    set_summed(job, false)
}

fn set_summed(job: i64, summed: bool) -> Result<()> {
    as_extension(|| {
        let sql = "UPDATE backfill_internal.walk SET summed = $2 WHERE job_id = $1";
        spi::query(sql, &[Arg::Int8(job), Arg::Bool(summed)])
    })?;
    Ok(())
}

/// Costs per row of a job that has completed.
#[derive(Debug, Clone)]
pub struct Took {
    /// The job.
    pub id: i64,
    /// Owner of the job.
    pub owner: Oid,
    /// Seconds of work per row updated.
    pub seconds_per_row: f64,
    /// Bytes of WAL per row updated.
    pub wal_per_row: f64,
}

/// Least work for a job's costs to be meaningful: seconds, or rows. Either is enough.
const TELLING: (i32, i32) = (1, 10_000);

/// Returns the costs of the newest completed job on a table that did the same work, given in its stored form, and enough of it to be
/// meaningful.
pub fn last_on(relation: Oid, work: &str) -> Result<Option<Took>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT j.id, j.owner::pg_catalog.oid::pg_catalog.int8, o.worked_ms / 1000.0 / o.rows_updated,
                    o.wal_bytes::pg_catalog.float8 / o.rows_updated
             FROM backfill_internal.job j JOIN backfill_internal.outcome o ON o.job_id = j.id
             WHERE j.relation::pg_catalog.oid = $1 AND j.work = $2::pg_catalog.jsonb AND o.outcome = 'completed'
               AND (o.rows_updated >= $4 OR o.rows_updated > 0 AND o.worked_ms >= 1000 * $3)
               AND j.action <> 'look'
             ORDER BY o.at DESC LIMIT 1",
            &[
                Arg::Oid(relation),
                Arg::Text(work),
                Arg::Int4(TELLING.0),
                Arg::Int4(TELLING.1),
            ],
        )
    })?;
    row.map(|row| {
        Ok(Took {
            id: row.number(0)?,
            owner: Oid::from(row.number(1)? as u32),
            seconds_per_row: row.parse(2)?.unwrap_or_default(),
            wal_per_row: row.parse(3)?.unwrap_or_default(),
        })
    })
    .transpose()
}
