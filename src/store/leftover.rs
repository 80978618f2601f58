//! Rows that a slice has passed and takes up at its end: others had them locked, or they failed and are tried again.

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::scan::position::Key;
use crate::store::slice::array;

/// A row that was left over, by its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Leftover {
    /// Numbers the rows in the order in which they were left.
    pub id: i64,
    /// The row's key.
    pub key: Key,
}

/// Leaves rows for the end of the slice.
pub fn add(slice: i32, keys: &[Key]) -> Result<()> {
    for key in keys {
        as_extension(|| {
            spi::query(
                "INSERT INTO backfill_internal.leftover (slice_id, key) VALUES ($1, $2)",
                &[Arg::Int4(slice), Arg::texts(Some(key))],
            )
        })?;
    }
    Ok(())
}

/// Returns the next rows after the one with this id, `most` at most.
pub fn after(slice: i32, id: i64, most: i64) -> Result<Vec<Leftover>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT l.id, pg_catalog.to_json(l.key) FROM backfill_internal.leftover l
             WHERE l.slice_id = $1 AND l.id > $2 ORDER BY l.id LIMIT $3",
            &[Arg::Int4(slice), Arg::Int8(id), Arg::Int8(most)],
        )
    })?
    .rows;
    let read = |row: &spi::Row| {
        Ok(Leftover {
            id: row.number(0)?,
            key: array(row.text(1)?)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Returns the number of rows the slice has left over.
pub fn count(slice: i32) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM backfill_internal.leftover l WHERE l.slice_id = $1",
            &[Arg::Int4(slice)],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Removes a row that is done, is gone, or has failed.
pub fn remove(slice: i32, id: i64) -> Result<()> {
    as_extension(|| {
        spi::query(
            "DELETE FROM backfill_internal.leftover WHERE slice_id = $1 AND id = $2",
            &[Arg::Int4(slice), Arg::Int8(id)],
        )
    })?;
    Ok(())
}
