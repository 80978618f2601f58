//! Samples: how far a job was at a time, for a plot.

use crate::error::Result;
use crate::job::spacing;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// Whether it is time for the job's next sample.
pub fn is_due(job: i64) -> Result<bool> {
    let found = as_extension(|| {
        spi::first(
            "SELECT FROM backfill.sample s WHERE s.job_id = $1
             AND s.at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => s.spacing) LIMIT 1",
            &[Arg::Int8(job)],
        )
    })?;
    Ok(found.is_none())
}

/// Takes a sample of the job's slices as they stand. If there are many, every second one goes.
pub fn take(job: i64, lag_bytes: Option<u64>) -> Result<()> {
    let found = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*), COALESCE(pg_catalog.max(s.spacing), $2) FROM backfill.sample s WHERE s.job_id = $1",
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
                "DELETE FROM backfill.sample s
                 USING (SELECT k.at, pg_catalog.row_number() OVER (ORDER BY k.at) AS no
                        FROM backfill.sample k WHERE k.job_id = $1) n
                 WHERE s.job_id = $1 AND s.at = n.at AND n.no % 2 = 0",
                &[Arg::Int8(job)],
            )?;
        }
        spi::query(
            INSERT,
            &[
                Arg::Int8(job),
                Arg::Int4(next),
                Arg::int8(lag_bytes.map(|b| b as i64)),
            ],
        )
    })?;
    Ok(())
}

/// Sums over the last checkpoints of the job's slices.
const INSERT: &str = "
INSERT INTO backfill.sample (job_id, spacing, rows_done, rows_updated, wal_bytes, worked_ms, slept_ms, waited_ms, batch_ms, lag_bytes)
SELECT $1, $2, COALESCE(pg_catalog.sum(c.rows_done), 0), COALESCE(pg_catalog.sum(c.rows_updated), 0),
       COALESCE(pg_catalog.sum(c.wal_bytes), 0), COALESCE(pg_catalog.sum(c.worked_ms), 0), COALESCE(pg_catalog.sum(c.slept_ms), 0),
       (SELECT pg_catalog.jsonb_object_agg(w.key, w.ms)
        FROM (SELECT e.key, pg_catalog.sum(e.value::bigint) AS ms
              FROM backfill.slice sl
              JOIN backfill.checkpoint k ON k.slice_id = sl.id
              CROSS JOIN LATERAL pg_catalog.jsonb_each_text(k.waited_ms) e
              WHERE sl.job_id = $1 GROUP BY e.key) w),
       (SELECT pg_catalog.max(k.batch_ms) FROM backfill.slice sl JOIN backfill.checkpoint k ON k.slice_id = sl.id
        WHERE sl.job_id = $1 AND NOT sl.done), $3
FROM backfill.slice sl
CROSS JOIN LATERAL (
    SELECT k.rows_done, k.rows_updated, k.wal_bytes, k.worked_ms, k.slept_ms
    FROM backfill.checkpoint k WHERE k.slice_id = sl.id ORDER BY k.seq DESC LIMIT 1
) c
WHERE sl.job_id = $1
ON CONFLICT DO NOTHING";
