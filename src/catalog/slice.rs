//! The parts of a walk, and where they end.

use crate::error::{Error, Result};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// The number of the slice of a job that has only one.
const WHOLE: i32 = 0;

/// A part of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Names it in its checkpoints.
    pub id: i32,
    /// Its last key, in text form.
    pub last_key: Vec<String>,
    /// The columns that the key consists of.
    pub key_columns: Vec<String>,
    /// What made the order of each column when the walk began.
    pub key_order: Vec<String>,
}

/// The slice, if the walk has begun.
pub fn load(job: i64) -> Result<Option<Slice>> {
    let found = as_extension(|| {
        spi::first(
            "SELECT id, pg_catalog.to_json(last_key), pg_catalog.to_json(key_columns),
                    pg_catalog.to_json(key_order)
             FROM backfill.slice WHERE job_id = $1 AND no = $2",
            &[Arg::Int8(job), Arg::Int4(WHOLE)],
        )
    })?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(Slice {
        id: row.number(0)? as i32,
        last_key: array(row.text(1)?)?,
        key_columns: array(row.text(2)?)?,
        key_order: array(row.text(3)?)?,
    }))
}

/// Records where the walk ends.
pub fn insert(
    job: i64,
    last_key: Vec<String>,
    key_columns: Vec<String>,
    key_order: Vec<String>,
) -> Result<Slice> {
    let row = as_extension(|| {
        spi::first(
            "INSERT INTO backfill.slice (job_id, no, last_key, key_columns, key_order)
             VALUES ($1, $2, $3, $4, $5) RETURNING id",
            &[
                Arg::Int8(job),
                Arg::Int4(WHOLE),
                Arg::Texts(&last_key),
                Arg::Texts(&key_columns),
                Arg::Texts(&key_order),
            ],
        )
    })?;
    let row = row.ok_or_else(|| Error::internal("INSERT returned no row"))?;
    Ok(Slice {
        id: row.number(0)? as i32,
        last_key,
        key_columns,
        key_order,
    })
}

/// An array of texts that came as JSON.
pub fn array(json: &str) -> Result<Vec<String>> {
    serde_json::from_str(json).map_err(|e| Error::internal(format!("not an array of texts: {e}")))
}
