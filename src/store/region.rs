//! The waves of an open region's rows, where they cannot be computed from the numbers in the checkpoint: one row per
//! slice, written once per region.

use crate::error::{Error, Result};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// Stores the waves of a region that is being opened.
pub fn store(slice: i32, waves: &[u8]) -> Result<()> {
    let digits: String = waves.iter().map(|wave| format!("{wave:02x}")).collect();
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.region AS r (slice_id, waves) VALUES ($1, pg_catalog.decode($2, 'hex'))
             ON CONFLICT (slice_id) DO UPDATE SET waves = excluded.waves",
            &[Arg::Int4(slice), Arg::Text(&digits)],
        )
    })?;
    Ok(())
}

/// Returns the waves of the region that was opened last, if they are stored.
pub fn load(slice: i32) -> Result<Option<Vec<u8>>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.encode(waves, 'hex') FROM backfill_internal.region WHERE slice_id = $1",
            &[Arg::Int4(slice)],
        )
    })?;
    row.map(|row| bytes(row.text(0)?)).transpose()
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let byte = |at: usize| {
        let pair = digits.get(at..at + 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| Error::internal("the waves of a region cannot be read"))
    };
    (0..digits.len()).step_by(2).map(byte).collect()
}
