//! Tables that were added during a run and whose rows the job leaves as they are, since it cannot tell which of them it
//! has already done.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::job::Job;
use crate::store::{event, slice};

/// Records a table that was left out.
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

/// Returns all tables that were recorded.
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

/// A table whose rows a job has not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The table.
    pub oid: Oid,
    /// Name of the table, for people.
    pub shown: String,
}

/// Returns the recorded tables that still belong to the job's table and that no later job has done instead.
pub fn of(job: &Job) -> Result<Vec<Left>> {
    read(
        job,
        "WITH RECURSIVE above AS (
             SELECT c.oid, c.oid AS up, c.relowner, n.nspname, c.relname
             FROM backfill_internal.walk w CROSS JOIN LATERAL pg_catalog.unnest(w.left_out::pg_catalog.oid[]) AS t (oid)
             JOIN pg_catalog.pg_class c ON c.oid = t.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE w.job_id = $1
             UNION
             SELECT a.oid, i.inhparent, a.relowner, a.nspname, a.relname
             FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.up AND NOT i.inhdetachpending
         ), candidate AS (SELECT a.oid, a.relowner, a.nspname, a.relname FROM above a WHERE a.up = $2)",
        // Rows may have moved into the table as long as the job had not ended.
        "j.started_at >= (SELECT pg_catalog.min(e.at) FROM backfill_internal.event e WHERE e.job_id = $1 AND e.event = 'completed')",
    )
}

/// Returns, for a job on its table alone, the tables that inherit from it, have rows, and were done by no other job
/// instead. Looks at the size of their files, since asking for the size of a table would wait for its lock.
pub fn below(job: &Job) -> Result<Vec<Left>> {
    read(
        job,
        "WITH RECURSIVE tree AS (
             SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $2
             UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid
         ), candidate AS (
             SELECT c.oid, c.relowner, n.nspname, c.relname
             FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'f'
                OR c.relkind = 'r' AND (pg_catalog.pg_stat_file(pg_catalog.pg_relation_filepath(c.oid), true)).size > 0
         )",
        "true",
    )
}

/// Returns the candidates that no other job has done instead of this one. Such a job belongs to the same owner, or to
/// one with the rights of the table's owner, has completed all rows of the table, and does the same with them.
fn read(job: &Job, candidates: &str, when: &str) -> Result<Vec<Left>> {
    let query = format!(
        "{candidates}
         SELECT DISTINCT a.oid::pg_catalog.int8,
                pg_catalog.concat(pg_catalog.quote_ident(a.nspname), '.', pg_catalog.quote_ident(a.relname)) AS shown
         FROM candidate a
         WHERE NOT EXISTS (
             SELECT FROM backfill_internal.job this
             JOIN backfill_internal.job j ON j.id <> this.id AND j.action = this.action AND j.work = this.work
                                AND j.where_clause IS NOT DISTINCT FROM this.where_clause
                                AND j.session = this.session
                                AND COALESCE(j.options -> 'settings', '{{}}') = COALESCE(this.options -> 'settings', '{{}}')
                                AND j.options -> 'triggers' IS NOT DISTINCT FROM this.options -> 'triggers'
             JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt AND o.outcome = 'completed'
             JOIN backfill_internal.walk w ON w.job_id = j.id AND w.key_from IS NULL AND w.key_to IS NULL
                                 AND a.oid = ANY (w.tables::pg_catalog.oid[])
             WHERE this.id = $1 AND j.action <> 'look' AND {when}
               AND (j.owner::pg_catalog.oid = $3 OR pg_catalog.pg_has_role(j.owner, a.relowner, 'USAGE'))
               AND NOT EXISTS (SELECT FROM backfill_internal.failed_row f WHERE f.job_id = j.id)
               AND NOT EXISTS (SELECT FROM backfill_internal.event e WHERE e.job_id = j.id AND e.event IN ($4, $5))
               -- One that does single rows again is about no others.
               AND (SELECT pg_catalog.bool_and({}) FROM backfill_internal.slice s WHERE s.job_id = j.id) IS NOT TRUE)
         ORDER BY shown",
        slice::IS_SINGLE_ROW
    );
    let rows = as_extension(|| {
        spi::query(
            &query,
            &[
                Arg::Int8(job.id),
                Arg::Oid(job.relation),
                Arg::Oid(job.owner),
                Arg::Text(event::MATCH_STILL),
                Arg::Text(event::CHANGED_MIDWAY),
            ],
        )
    })?
    .rows;
    let left = |row: &spi::Row| {
        Ok(Left {
            oid: Oid::from(row.number(0)? as u32),
            shown: row.text(1)?.to_owned(),
        })
    };
    rows.iter().map(left).collect()
}
