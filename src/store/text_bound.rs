//! The limit on the text that the jobs of one role may hold: any query of all jobs reads or hashes all of it.

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// Bytes of clauses and options that a role's jobs may hold; jobs that have ended do not count.
const MOST: i64 = 16 << 20;
/// Bytes that are not checked: a job with less text is not measured against the limit, so that small jobs do not pay
/// for the sum.
const SMALL: usize = 16 << 10;

/// Refuses the job that was just written, with `bytes` bytes of text, if it is large and makes its owner's jobs exceed
/// the limit. Jobs that have ended do not count: nothing reads them.
pub fn check(id: i64, bytes: usize) -> Result<()> {
    if bytes <= SMALL {
        return Ok(());
    }
    let row = as_extension(|| {
        spi::first(
            "SELECT COALESCE(pg_catalog.sum(pg_catalog.octet_length(j.work::text) + pg_catalog.octet_length(j.options::text)
                                            + COALESCE(pg_catalog.octet_length(j.where_clause), 0)), 0)::pg_catalog.int8,
                    pg_catalog.max(j.owner::text)
             FROM backfill_internal.job j LEFT JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt
             WHERE j.owner = (SELECT k.owner FROM backfill_internal.job k WHERE k.id = $1) AND (j.id = $1 OR j.wish <> 'cancel' AND o.outcome IS DISTINCT FROM 'completed')",
            &[Arg::Int8(id)],
        )
    })?;
    let Some(row) = row else { return Ok(()) };
    let all = row.number(0)?;
    if all <= MOST {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "the jobs of role {} would hold {all} bytes of clauses and options",
            row.text(1)?
        ),
    )
    .detail(format!("{MOST} bytes is the most that the jobs of one role may hold which have not ended."))
    .hint("Put long lists of values into a table, and name that; or SELECT backfill.cancel(...) what is not wanted any more."))
}
