//! Rows that a verification has found to be wrong.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::progress::Progress;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::scan::position::{Key, Position};
use crate::store::{checkpoint, slice, walk};

/// Rows recorded per verification at most; if there are more, only their number is known.
pub const MOST: i64 = 100_000;

/// Returns the number of rows recorded for a verification.
pub fn count(job: i64) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM backfill_internal.verify_failure WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Records rows of a table, by their keys.
pub fn add(job: i64, table: (Oid, &str), columns: &[String], keys: &[Key]) -> Result<()> {
    let room = (MOST - count(job)?).max(0) as usize;
    for key in keys.iter().take(room) {
        as_extension(|| {
            spi::query(
                "INSERT INTO backfill_internal.verify_failure (job_id, relation, relation_name, key_columns, key)
                 VALUES ($1, $2::pg_catalog.regclass, $3, $4, $5)",
                &[
                    Arg::Int8(job),
                    Arg::Oid(table.0),
                    Arg::Text(table.1),
                    Arg::Texts(columns),
                    Arg::Texts(key),
                ],
            )
        })?;
    }
    Ok(())
}

/// True if the rows are known by key, and not only by their place.
pub fn have_keys(job: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT NOT EXISTS (SELECT FROM backfill_internal.slice s WHERE s.job_id = $1 AND s.walk <> 'key')",
            &[Arg::Int8(job)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Makes another job walk just the rows that a verification has recorded. The rows of each table become the leftovers
/// of one slice that has no other rows and takes key and order from the verification's.
pub fn take_up(verification: i64, job: i64) -> Result<()> {
    let tables = walk::tables(verification)?;
    walk::begin(job, &tables)?;
    let slices = as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.slice (job_id, no, pass, relation, relation_name, walk, weight, after_key, last_key,
                                         key_columns, key_order, attributes)
             SELECT $2, pg_catalog.row_number() OVER (ORDER BY s.no), 1, s.relation, s.relation_name, s.walk, f.rows,
                    s.last_key, s.last_key, s.key_columns, s.key_order, s.attributes
             FROM (SELECT f.relation, pg_catalog.count(*) AS rows FROM backfill_internal.verify_failure f
                   WHERE f.job_id = $1 GROUP BY f.relation) AS f
             CROSS JOIN LATERAL (SELECT * FROM backfill_internal.slice o
                                 WHERE o.job_id = $1 AND o.relation = f.relation ORDER BY o.no DESC LIMIT 1) AS s
             RETURNING id, pg_catalog.to_json(last_key), relation::pg_catalog.oid::pg_catalog.int8, weight::pg_catalog.int8",
            &[Arg::Int8(verification), Arg::Int8(job)],
        )
    })?
    .rows;
    for found in &slices {
        let id = found.number(0)? as i32;
        let position = Position {
            key: Some(slice::array(found.text(1)?)?),
            ..Position::default()
        };
        checkpoint::insert(id, &position, &Progress::new(Some(found.number(3)?)))?;
        as_extension(|| {
            spi::query(
                "INSERT INTO backfill_internal.leftover (slice_id, key)
                 SELECT $1, f.key FROM backfill_internal.verify_failure f
                 WHERE f.job_id = $2 AND f.relation::pg_catalog.oid = $3 ORDER BY f.id",
                &[
                    Arg::Int4(id),
                    Arg::Int8(verification),
                    Arg::Oid(pgrx::pg_sys::Oid::from(found.number(2)? as u32)),
                ],
            )
        })?;
    }
    Ok(())
}
