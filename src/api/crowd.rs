//! Roles that have all the worker slots they may have.

use pgrx::pg_sys::Oid;

use super::caller::may_see;
use crate::error::Result;
use crate::pg::{name, slots, spi};
use crate::store::job;

/// Returns how crowded the role of a job is, for a person; `None` if there is room, or if the caller may not read the
/// job.
pub fn of(job_id: i64) -> Option<String> {
    let look = || match job::load(job_id)? {
        Some(job) if may_see(&job)? => of_role(job.owner),
        _ => Ok(None),
    };
    spi::connect(look).ok().flatten()
}

/// Returns how crowded a role is; `None` if there is room. Within `spi::connect`.
pub fn of_role(owner: Oid) -> Result<Option<String>> {
    let limit = slots::limit();
    Ok(slots::crowded()?.contains(&owner).then(|| {
        let role = name::of_role(owner);
        format!("role {role} has {limit} of {limit} (backfill.max_workers_per_role)")
    }))
}
