//! Where a slice stands, committed with each batch.
//!
//! A checkpoint is never updated in place: each inserts its successor and is deleted with it, so
//! that a snapshot held elsewhere can't make a chain of versions grow. The delete is also the
//! fence: who doesn't find the predecessor he wrote has lost the slice to somebody else.

use pgrx::pg_sys;

use super::slice::array;
use crate::error::{Error, Result, sqlstate};
use crate::job::progress::Progress;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Plan};

/// Where a slice stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The slice.
    pub slice: i32,
    /// Counts the checkpoints of the slice.
    pub seq: i32,
    /// Counts the workers that have held the slice.
    pub epoch: i64,
    /// Everything up to this key is done; `None` before the first batch.
    pub key: Option<Vec<String>>,
    /// How far it is.
    pub progress: Progress,
}

/// The statement that replaces a checkpoint by its successor.
pub const REPLACE: &str = "
WITH gone AS (
    DELETE FROM backfill.checkpoint
    WHERE slice_id = $1 AND seq = $2 AND epoch = $3 RETURNING 1
)
INSERT INTO backfill.checkpoint (slice_id, seq, epoch, key, rows_done, rows_updated,
                                 rows_total, percent, past_estimate, rows_per_second, at)
SELECT $1, $4, $5, $6, $7, $8, $9, $10, $11, $12, pg_catalog.clock_timestamp() FROM gone";

/// The types of its parameters.
const REPLACE_TYPES: [pg_sys::Oid; 12] = [
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::FLOAT8OID,
    pg_sys::BOOLOID,
    pg_sys::FLOAT8OID,
];

/// The last checkpoint of a slice.
pub fn load(slice: i32) -> Result<Option<Checkpoint>> {
    let found = as_extension(|| {
        spi::first(
            "SELECT seq, epoch, pg_catalog.to_json(key), rows_done, rows_updated, rows_total,
                    percent, past_estimate
             FROM backfill.checkpoint WHERE slice_id = $1 ORDER BY seq DESC LIMIT 1",
            &[Arg::Int4(slice)],
        )
    })?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(Checkpoint {
        slice,
        seq: row.number(0)? as i32,
        epoch: row.number(1)?,
        key: row.get(2).map(array).transpose()?,
        progress: Progress {
            rows_done: row.number(3)?,
            rows_updated: row.number(4)?,
            rows_total: row.parse(5)?,
            percent: row.parse(6)?,
            past_estimate: row.bool(7),
        },
    }))
}

/// Writes the first checkpoint of a slice.
pub fn insert(slice: i32, progress: &Progress) -> Result<()> {
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill.checkpoint
                 (slice_id, seq, epoch, rows_done, rows_updated, rows_total, past_estimate, at)
             VALUES ($1, 1, 1, 0, 0, $2, false, pg_catalog.clock_timestamp())",
            &[Arg::Int4(slice), Arg::int8(progress.rows_total)],
        )
    })?;
    Ok(())
}

/// Writes checkpoints with a plan that is kept.
#[derive(Debug)]
pub struct Writer(Plan);

impl Writer {
    /// Analyses the statement once.
    pub fn prepare() -> Result<Writer> {
        as_extension(|| Ok(Writer(Plan::prepare(REPLACE, &REPLACE_TYPES)?)))
    }

    /// Replaces `last` by `next`, which must follow it. An error if somebody else holds the slice.
    pub fn replace(&self, last: &Checkpoint, next: &Checkpoint, rate: Option<f64>) -> Result<()> {
        let progress = &next.progress;
        let written = as_extension(|| {
            self.0.run(&[
                Arg::Int4(last.slice),
                Arg::Int4(last.seq),
                Arg::Int8(last.epoch),
                Arg::Int4(next.seq),
                Arg::Int8(next.epoch),
                Arg::texts(next.key.as_deref()),
                Arg::Int8(progress.rows_done),
                Arg::Int8(progress.rows_updated),
                Arg::int8(progress.rows_total),
                Arg::float8(progress.percent.map(f64::from)),
                Arg::Bool(progress.past_estimate),
                Arg::float8(rate),
            ])
        })?;
        if written.processed == 1 {
            return Ok(());
        }
        Err(Error::new(sqlstate::OBJECT_IN_USE, FENCED).detail(format!(
            "Checkpoint {} of epoch {} is gone.",
            last.seq, last.epoch
        )))
    }
}

/// The message of the error that means: somebody else has taken the slice over.
pub const FENCED: &str = "another worker has taken over this job";
