//! The lock under which jobs on a table are defined and started, one call at a time.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::lock::Lock;
use crate::pg::{partition, relation, server};
use crate::store::holder;

/// Lets one call at a time define or start a job on the relation, or on a relation with common rows, until the
/// transaction ends. Waits a few seconds for another holder of the lock; then the error names it. Every call that takes
/// both takes this lock before the row of a job.
///
/// Takes the lock only for callers who may write to the table: their code is run while the clauses are planned, and
/// must not hold up calls on another role's table. The checks that follow refuse other callers.
pub fn take(relation: Oid) -> Result<()> {
    if partition::may_update_any(relation, server::current_user())? {
        let lock = Lock::Definition(partition::representative(relation)?.to_u32());
        if !lock.in_time()? {
            let shown = shown(partition::topmost(relation))?;
            return Err(holder::of_definition(lock, &shown));
        }
    }
    Ok(())
}

/// Like [`take`], without waiting; returns false if another session holds the lock.
pub fn try_take(relation: Oid) -> Result<bool> {
    if !partition::may_update_any(relation, server::current_user())? {
        return Ok(true);
    }
    let lock = Lock::Definition(partition::representative(relation)?.to_u32());
    Ok(lock.try_for_transaction())
}

fn shown(table: Oid) -> Result<String> {
    Ok(relation::describe(table)?.map_or_else(|| format!("with OID {table}"), |found| found.shown))
}
