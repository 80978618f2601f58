//! The jobs that a job comes after, option `after`.

use crate::error::{Error, Result, sqlstate};
use crate::pg::server;
use crate::store::job;

/// Refuses names of jobs that the caller does not have: the job would wait for ever.
pub fn check(after: &[String], name: Option<&str>) -> Result<()> {
    let me = server::current_user();
    for one in after {
        if name == Some(one.as_str()) {
            return Err(Error::invalid(format!(
                "option \"after\" has the name of the job itself: \"{one}\""
            ))
            .hint("Name other jobs."));
        }
        let jobs = job::called(one)?;
        if !jobs
            .iter()
            .any(|job| job.name == *one && job.owner == me && !job.dry_run)
        {
            return Err(Error::new(
                sqlstate::UNDEFINED_OBJECT,
                format!("option \"after\": you have no backfill job named \"{one}\""),
            )
            .hint("Names are each role's own. Define or start the jobs in their order."));
        }
    }
    Ok(())
}
