//! Locks of what concerns a whole job: its tables first, then the council.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{relation, settings};
use crate::store::job::Job;

/// Locks tables as a batch does, and gives way as it does: who waits for the second of them while he
/// holds the first would hold up DDL on that, and all who queue behind it.
pub fn lock_tables(job: &Job, tables: &[Oid]) {
    let limit = job.definition.options.lock_timeout_ms();
    settings::set_text_for_transaction(c"lock_timeout", &limit.to_string());
    tables
        .iter()
        .for_each(|table| relation::lock_for_update(*table));
    // What follows waits for workers of the same job only, who don't wait for others.
    settings::set_for_transaction(c"lock_timeout", c"0");
}

/// Decides for all workers of a job about one of its tables. The locks are taken in the order in
/// which all take them.
pub fn decide(table: Oid, job: &Job, decision: impl FnOnce() -> Result<()>) -> Result<()> {
    let lock = || {
        lock_tables(job, &[table]);
        Lock::Council(job.id).for_transaction();
    };
    txn::run_after(lock, Durability::Deferred, decision)
}

/// Takes the locks again if user code let them go; false if somebody else was quicker.
pub fn keep_locks(job: i64, slice: i32) -> bool {
    let keep = |lock: Lock| {
        lock.is_held() || txn::run(Durability::Deferred, || Ok(lock.try_session())) == Ok(true)
    };
    keep(Lock::Job(job)) && keep(Lock::Slice(slice))
}
