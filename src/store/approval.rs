//! The role that asked for a job to run, for jobs that someone else has to approve.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};

/// The role that started a job which needs an approval.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The role that made the call (the current user).
    pub by: Oid,
    /// The role that had logged in (the session user).
    pub session: Oid,
}

/// Returns the role that asked for this job to run, if one did; also after the job was approved.
pub fn asked(job: i64) -> Result<Option<Asked>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT asked_by::pg_catalog.oid::bigint, asked_session::pg_catalog.oid::bigint
             FROM backfill_internal.job WHERE id = $1 AND asked_by IS NOT NULL AND asked_session IS NOT NULL",
            &[Arg::Int8(job)],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    let oid = |column| row.number(column).map(|n| Oid::from(n as u32));
    Ok(Some(Asked {
        by: oid(0)?,
        session: oid(1)?,
    }))
}

/// Records the role that asks for the job to run.
pub fn ask(job: i64, who: Asked) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job SET asked_by = $2, asked_session = $3, version = version + 1 WHERE id = $1",
            &[Arg::Int8(job), Arg::Oid(who.by), Arg::Oid(who.session)],
        )
    })?;
    Ok(())
}
