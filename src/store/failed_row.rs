//! Rows that were stepped over because of an error.

use crate::error::{Error, Result};
use crate::model::progress::Progress;
use crate::model::stored::{cut, cut_if_any};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::scan::position::Position;
use crate::store::checkpoint;
use crate::store::job::Job;
use crate::store::slice::{Slice, array};

/// Returns the number of failed rows of a job.
pub fn count(job: i64) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM backfill_internal.failed_row WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Makes slices of the failed rows that are to be tried again; such a slice has no other rows. Returns true if there
/// are any. Under `Lock::Council`.
pub fn take_up(job: i64) -> Result<bool> {
    let slices = as_extension(|| {
        // Each failed row was met in a slice by key; its new slice takes the key columns and order from there.
        spi::query(
            "INSERT INTO backfill_internal.slice (job_id, no, pass, relation, relation_name, walk, weight, after_key, last_key,
                                         key_columns, key_order, attributes)
             SELECT s.job_id, (SELECT pg_catalog.max(o.no) FROM backfill_internal.slice o WHERE o.job_id = s.job_id)
                              + pg_catalog.row_number() OVER (),
                    s.pass, s.relation, s.relation_name, s.walk, 0, s.last_key, s.last_key, s.key_columns, s.key_order, s.attributes
             FROM (SELECT DISTINCT f.relation, f.key_columns FROM backfill_internal.failed_row f JOIN backfill_internal.job j ON j.id = f.job_id
                   WHERE f.job_id = $1 AND f.attempt < j.retry_attempt) AS f
             CROSS JOIN LATERAL (SELECT * FROM backfill_internal.slice o
                                 WHERE o.job_id = $1 AND o.walk = 'key' AND o.relation = f.relation
                                   AND o.key_columns = f.key_columns ORDER BY o.no DESC LIMIT 1) AS s
             RETURNING id, pg_catalog.to_json(last_key)",
            &[Arg::Int8(job)],
        )
    })?
    .rows;
    for slice in &slices {
        let id = slice.number(0)? as i32;
        let position = Position {
            key: Some(array(slice.text(1)?)?),
            ..Position::default()
        };
        checkpoint::insert(id, &position, &Progress::new(None))?;
        as_extension(|| {
            spi::query(
                "WITH gone AS (
                     DELETE FROM backfill_internal.failed_row f USING backfill_internal.slice s, backfill_internal.job j
                     WHERE s.id = $1 AND j.id = s.job_id AND f.job_id = j.id AND f.attempt < j.retry_attempt
                       AND f.relation = s.relation AND f.key_columns = s.key_columns
                     RETURNING f.id, f.key
                 )
                 INSERT INTO backfill_internal.leftover (slice_id, key) SELECT $1, g.key FROM gone g ORDER BY g.id",
                &[Arg::Int4(id)],
            )
        })?;
    }
    Ok(!slices.is_empty())
}

/// Records a failed row by its key. Columns have the names they had when the walk began.
pub fn record(job: &Job, slice: &Slice, key: &[String], error: &Error) -> Result<()> {
    let message = cut(&error.message);
    let [detail, hint, context] =
        [&error.detail, &error.hint, &error.context].map(|part| cut_if_any(part.as_deref()));
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.failed_row (job_id, attempt, relation, relation_name, key_columns, key, sqlstate, message,
                                              detail, hint, context, constraint_name)
             VALUES ($1, $2, $3::pg_catalog.regclass, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            &[
                Arg::Int8(job.id),
                Arg::Int4(job.attempt),
                Arg::Oid(slice.relation),
                Arg::Text(&slice.relation_name),
                Arg::texts(Some(slice.extent.columns())),
                Arg::texts(Some(key)),
                Arg::Text(&error.sqlstate),
                Arg::Text(&message),
                Arg::text(detail.as_deref()),
                Arg::text(hint.as_deref()),
                Arg::text(context.as_deref()),
                Arg::text(error.constraint.as_deref()),
            ],
        )
    })?;
    Ok(())
}
