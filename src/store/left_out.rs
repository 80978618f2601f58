//! Tables that came during a run, and whose rows the job has left as they are, since it can't tell which of them it has done.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::job::Job;

/// Records one.
pub fn add(job: i64, table: Oid) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk SET left_out = pg_catalog.array_append(left_out, $2::pg_catalog.regclass)
             WHERE job_id = $1 AND NOT $2::pg_catalog.regclass = ANY (left_out)",
            &[Arg::Int8(job), Arg::Oid(table)],
        )
    })?;
    Ok(())
}

/// All that were recorded.
pub fn all(job: i64) -> Result<Vec<Oid>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT pg_catalog.unnest(w.left_out)::pg_catalog.oid::pg_catalog.int8 FROM backfill_internal.walk w WHERE w.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?
    .rows;
    let oid = |row: &spi::Row| row.number(0).map(|n| Oid::from(n as u32));
    rows.iter().map(oid).collect()
}

/// The names of those that nobody has seen to: they belong to the job's table still, and no job of the same owner's, or of
/// the table's owner's, on these alone has set the same columns of all their rows since.
pub fn of(job: &Job) -> Result<Vec<String>> {
    let rows = as_extension(|| {
        spi::query(
            "WITH RECURSIVE above AS (
                 SELECT c.oid, c.oid AS up, c.relowner, n.nspname, c.relname
                 FROM backfill_internal.walk w CROSS JOIN LATERAL pg_catalog.unnest(w.left_out::pg_catalog.oid[]) AS t (oid)
                 JOIN pg_catalog.pg_class c ON c.oid = t.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE w.job_id = $1
                 UNION
                 SELECT a.oid, i.inhparent, a.relowner, a.nspname, a.relname
                 FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.up AND NOT i.inhdetachpending
             )
             SELECT DISTINCT pg_catalog.concat(pg_catalog.quote_ident(a.nspname), '.', pg_catalog.quote_ident(a.relname))
             FROM above a
             WHERE a.up = $2 AND NOT EXISTS (
                 SELECT FROM backfill_internal.job j
                 JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt AND o.outcome = 'completed'
                 JOIN backfill_internal.walk w ON w.job_id = j.id AND w.key_from IS NULL AND w.key_to IS NULL AND w.left_out = '{}'
                 WHERE j.relation::pg_catalog.oid = a.oid AND j.id > $1 AND j.action = 'update'
                   AND j.work -> 'set_columns' @> pg_catalog.to_jsonb($4::pg_catalog.text[])
                   AND (j.owner::pg_catalog.oid = $3 OR pg_catalog.pg_has_role(j.owner, a.relowner, 'USAGE'))
                   AND NOT EXISTS (SELECT FROM backfill_internal.failed_row f WHERE f.job_id = j.id))
             ORDER BY 1",
            &[
                Arg::Int8(job.id),
                Arg::Oid(job.relation),
                Arg::Oid(job.owner),
                Arg::Texts(&job.definition.action.update().set_columns),
            ],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| row.text(0).map(str::to_owned))
        .collect()
}
