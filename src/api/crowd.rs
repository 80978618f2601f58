//! Roles that have as many worker slots as they may have.

use pgrx::pg_sys::Oid;

use super::caller::may_attend;
use super::inspect;
use crate::error::Result;
use crate::pg::{server, slots, spi};
use crate::store::job;

/// How crowded the role is that a job belongs to, for a person; nothing if there is room. Not for who can't read the job.
pub fn of(job_id: i64) -> Option<String> {
    let look = || match job::load(job_id)? {
        Some(job) if may_attend(&job)? || server::may_act_for(inspect::monitor()?) => {
            of_role(job.owner)
        }
        _ => Ok(None),
    };
    spi::connect(look).ok().flatten()
}

/// The same of a role. Within `spi::connect`.
pub fn of_role(owner: Oid) -> Result<Option<String>> {
    let limit = slots::limit();
    Ok(slots::crowded()?.contains(&owner).then(|| {
        let role = server::role_name(owner);
        format!("role {role} has {limit} of {limit} (backfill.max_workers_per_role)")
    }))
}
