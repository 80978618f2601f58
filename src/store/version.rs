//! Whether something about a job has changed.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{Arg, Plan};

/// The version of the job `j`. Both parts only ever grow: the version with each call of a user's, the
/// attempt of the outcome when another worker has ended the job.
pub const OF_JOB: &str = "j.version + COALESCE((SELECT o.attempt + 1 FROM backfill_internal.outcome o WHERE o.job_id = j.id), 0)";

/// Looks between two batches whether something about the job has changed, with a plan that is kept.
#[derive(Debug)]
pub struct VersionReader(Plan);

impl VersionReader {
    /// The statement.
    pub fn text() -> String {
        format!("\nSELECT {OF_JOB}\nFROM backfill_internal.job j WHERE j.id = $1")
    }

    /// Analyses the statement once.
    pub fn prepare() -> Result<VersionReader> {
        as_extension(|| {
            Ok(VersionReader(Plan::prepare(
                &Self::text(),
                &[pg_sys::INT8OID],
            )?))
        })
    }

    /// The version of the job; `None` if the job was forgotten.
    pub fn read(&self, id: i64) -> Result<Option<i64>> {
        let output = as_extension(|| self.0.run(&[Arg::Int8(id)]))?;
        output.rows.first().map(|row| row.number(0)).transpose()
    }
}
