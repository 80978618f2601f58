//! Locks on what concerns a whole job: first its tables, then the coordination lock (`Lock::Council`).

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{relation, settings};
use crate::store::job::Job;

/// Locks tables as a batch does, and gives way as a batch does: a worker that waited for the second table while holding
/// the first would hold up DDL on the first, and everyone who queues behind that.
pub fn lock_tables(job: &Job, tables: &[Oid]) {
    let limit = job.definition.options.lock_timeout_ms();
    settings::set_text_for_transaction(c"lock_timeout", &limit.to_string());
    tables
        .iter()
        .for_each(|table| relation::lock_for_update(*table));
    // The next lock waits only for workers of the same job, which don't wait for others.
    settings::set_for_transaction(c"lock_timeout", c"0");
}

/// Runs a decision about one of a job's tables that holds for all its workers. Takes the locks in the order in which
/// everyone takes them.
pub fn decide(table: Oid, job: &Job, decision: impl FnOnce() -> Result<()>) -> Result<()> {
    let lock = || {
        lock_tables(job, &[table]);
        Lock::Council(job.id).for_transaction();
    };
    txn::run_after(lock, Durability::Deferred, decision)
}

/// Takes the locks again if user code released them; returns false if somebody else was faster.
pub fn keep_locks(job: i64, slice: i32) -> bool {
    let keep = |lock: Lock| {
        lock.is_held() || txn::run(Durability::Deferred, || Ok(lock.try_session())) == Ok(true)
    };
    keep(Lock::Job(job)) && keep(Lock::Slice(slice))
}
