//! The version of a job, which tells whether anything about it has changed.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{Arg, Plan};

/// Expression for the version of the job `j`. Both parts only ever grow: the version with each user's call, the attempt
/// of the outcome when another worker has ended the job.
pub const OF_JOB: &str = "j.version + COALESCE((SELECT o.attempt + 1 FROM backfill_internal.outcome o WHERE o.job_id = j.id), 0)";

/// Reads a job's version between two batches, with a plan that is kept.
#[derive(Debug)]
pub struct VersionReader(Plan);

impl VersionReader {
    /// Returns the statement.
    pub fn text() -> String {
        format!("\nSELECT {OF_JOB}\nFROM backfill_internal.job j WHERE j.id = $1")
    }

    /// Prepares the statement, once.
    pub fn prepare() -> Result<VersionReader> {
        as_extension(|| {
            Ok(VersionReader(Plan::prepare(
                &Self::text(),
                &[pg_sys::INT8OID],
            )?))
        })
    }

    /// Returns the version of the job; `None` if the job was forgotten.
    pub fn read(&self, id: i64) -> Result<Option<i64>> {
        let output = as_extension(|| self.0.run(&[Arg::Int8(id)]))?;
        output.rows.first().map(|row| row.number(0)).transpose()
    }
}
