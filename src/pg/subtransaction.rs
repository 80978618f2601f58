//! Subtransactions: an error raised within one leaves the transaction usable.

use pgrx::pg_sys;

use super::capture::capture;
use super::server;
use crate::error::Result;

/// Runs `f` in a subtransaction of its own, which is rolled back if `f` returns or raises an error.
pub fn in_subtransaction<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(true, f)
}

/// Runs `f` in a subtransaction that is rolled back in any case. For code that only reads: a read-only transaction would not suffice, as
/// it may still notify and, before PostgreSQL 16, write large objects.
pub fn undone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(false, f)
}

fn subtransaction<T>(keep: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    server::require_transaction();
    // SAFETY: within a transaction. The memory context and the resource owner are the current ones, and so belong to that
    // transaction, or outlive it.
    let (context, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        // With debug messages enabled, a cancel could be noticed in the middle of this call, and would leave a state that can't be
        // rolled back by itself: the server would end the session. An error resets the count.
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let result = capture(f);
    // SAFETY: `capture` lets neither an error nor a panic pass, and `f` ends no transaction: so the subtransaction from above is
    // the innermost, and what was current before it is still alive. An error while it is being ended goes to whoever aborts the
    // surrounding transaction, and that ends all of this.
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
