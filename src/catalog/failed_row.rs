//! Rows that were stepped over because of an error.

use crate::catalog::job::Job;
use crate::catalog::slice::Slice;
use crate::error::{Error, Result};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// How many there are of a job.
pub fn count(job: i64) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM backfill.failed_row WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Records one, by its key.
pub fn record(
    job: &Job,
    slice: &Slice,
    columns: &[String],
    key: &[String],
    error: &Error,
) -> Result<()> {
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill.failed_row (job_id, relation, relation_name, key_columns, key, sqlstate, message,
                                              detail, hint, context, constraint_name)
             VALUES ($1, $2::pg_catalog.regclass, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            &[
                Arg::Int8(job.id),
                Arg::Oid(slice.relation),
                Arg::Text(&slice.relation_name),
                Arg::texts(Some(columns)),
                Arg::texts(Some(key)),
                Arg::Text(&error.sqlstate),
                Arg::Text(&error.message),
                Arg::text(error.detail.as_deref()),
                Arg::text(error.hint.as_deref()),
                Arg::text(error.context.as_deref()),
                Arg::text(error.constraint.as_deref()),
            ],
        )
    })?;
    Ok(())
}
