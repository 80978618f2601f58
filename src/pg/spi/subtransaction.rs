//! Subtransactions: what raises an error within one leaves the transaction usable.

use pgrx::pg_sys;

use super::super::capture::capture;
use super::super::server;
use crate::error::Result;

/// Runs `f` in a subtransaction of its own, which is rolled back if it gives an error, or raises one.
pub fn in_subtransaction<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(true, f)
}

/// The same, and it is rolled back in any case. For what only looks: a read-only transaction may still notify, and before
/// PostgreSQL 16 write large objects.
pub fn undone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(false, f)
}

fn subtransaction<T>(keep: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    server::require_transaction();
    // SAFETY: within a transaction. The memory context and the resource owner are the current ones, and so
    // belong to that transaction, or outlive it.
    let (context, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        // With debug messages a cancel would be seen in the midst of it, which leaves what can't be rolled back alone: the server
        // ends the session then. An error sets the count back.
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let result = capture(f);
    // SAFETY: `capture` lets neither an error nor a panic pass, and `f` ends no transaction: so the
    // subtransaction from above is the innermost, and what was current before it lives still. An error while it
    // is ended goes to whoever aborts the transaction around it, and that ends all of this.
    unsafe {
        match result {
            Ok(_) if keep => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result
}
