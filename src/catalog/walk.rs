//! What the workers of a job have in common: which pass they are at, what phase, what there is to
//! be said. Only workers write here.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// The pass that the job is at, if it has begun.
pub fn pass(job: i64) -> Result<Option<i32>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pass FROM backfill.walk WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map(|row| Ok(row.number(0)? as i32)).transpose()
}

/// Begins the first pass over these tables.
pub fn begin(job: i64, tables: &[Oid]) -> Result<()> {
    let tables: Vec<String> = tables.iter().map(|oid| oid.to_u32().to_string()).collect();
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill.walk (job_id, pass, phase, tables, at)
             VALUES ($1, 1, 'walk', $2::pg_catalog.oid[]::pg_catalog.regclass[], pg_catalog.clock_timestamp())",
            &[Arg::Int8(job), Arg::Texts(&tables)],
        )
    })?;
    Ok(())
}

/// Begins another pass.
pub fn begin_again(job: i64, pass: i32) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill.walk SET pass = $2, at = pg_catalog.clock_timestamp() WHERE job_id = $1",
            &[Arg::Int8(job), Arg::Int4(pass)],
        )
    })?;
    set_phase(job, &format!("walk, pass {pass}"))
}

/// The tables that the first pass began with.
pub fn tables(job: i64) -> Result<Vec<Oid>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT pg_catalog.unnest(w.tables)::pg_catalog.oid::pg_catalog.int8 FROM backfill.walk w WHERE w.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| row.number(0).map(|n| Oid::from(n as u32)))
        .collect()
}

/// Shows what is being done after the last batch.
pub fn set_phase(job: i64, phase: &str) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill.walk SET phase = $2, at = pg_catalog.clock_timestamp() WHERE job_id = $1",
            &[Arg::Int8(job), Arg::Text(phase)],
        )
    })?;
    Ok(())
}

/// Adds what the owner should know, once.
pub fn add_note(job: i64, note: &str) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill.walk SET notes = pg_catalog.array_append(notes, $2)
             WHERE job_id = $1 AND NOT $2 = ANY (notes)",
            &[Arg::Int8(job), Arg::Text(note)],
        )
    })?;
    Ok(())
}
