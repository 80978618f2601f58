//! Samples: the progress of a job over time, for a plot.

use crate::error::Result;
use crate::model::spacing;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::slice::{ROWS_DONE, STANDINGS};

/// True if it is time for the job's next sample.
pub fn is_due(job: i64) -> Result<bool> {
    let found = as_extension(|| {
        spi::first(
            "SELECT FROM backfill_internal.sample s WHERE s.job_id = $1
             AND s.at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => s.spacing) LIMIT 1",
            &[Arg::Int8(job)],
        )
    })?;
    Ok(found.is_none())
}

/// Takes a sample of the job's slices as they stand. If there are too many samples, every second one is deleted.
pub fn take(job: i64, lag_bytes: Option<u64>) -> Result<()> {
    let found = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*), COALESCE(pg_catalog.max(s.spacing), $2) FROM backfill_internal.sample s WHERE s.job_id = $1",
            &[Arg::Int8(job), Arg::Int4(spacing::LEAST)],
        )
    })?;
    let (count, last) = match &found {
        Some(row) => (row.number(0)?, row.number(1)? as i32),
        None => (0, spacing::LEAST),
    };
    let next = spacing::after(count, last);
    as_extension(|| {
        if next > last {
            spi::query(
                "DELETE FROM backfill_internal.sample s
                 USING (SELECT k.at, pg_catalog.row_number() OVER (ORDER BY k.at) AS no
                        FROM backfill_internal.sample k WHERE k.job_id = $1) n
                 WHERE s.job_id = $1 AND s.at = n.at AND n.no % 2 = 0",
                &[Arg::Int8(job)],
            )?;
        }
        spi::query(
            &insert(),
            &[
                Arg::Int8(job),
                Arg::Int4(next),
                Arg::int8(lag_bytes.map(|bytes| bytes as i64)),
            ],
        )
    })?;
    Ok(())
}

fn insert() -> String {
    format!(
        "INSERT INTO backfill_internal.sample (job_id, spacing, rows_done, rows_updated, wal_bytes, worked_ms, slept_ms, batch_ms, waited_ms, lag_bytes)
         SELECT $1, $2, {ROWS_DONE}, COALESCE(pg_catalog.sum(c.rows_updated), 0),
                COALESCE(pg_catalog.sum(c.wal_bytes), 0), COALESCE(pg_catalog.sum(c.worked_ms), 0),
                COALESCE(pg_catalog.sum(c.slept_ms), 0), pg_catalog.max(c.batch_ms) FILTER (WHERE NOT sl.done),
                (SELECT pg_catalog.jsonb_object_agg(w.key, w.ms)
                 FROM (SELECT e.key, pg_catalog.sum(e.value::bigint) AS ms
                       FROM (SELECT c.waited_ms {STANDINGS} AND c.waited_ms IS NOT NULL) waits
                       CROSS JOIN LATERAL pg_catalog.jsonb_each_text(waits.waited_ms) e
                       GROUP BY e.key) w),
                $3
         {STANDINGS}
         ON CONFLICT DO NOTHING"
    )
}
