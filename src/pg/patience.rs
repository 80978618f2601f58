//! Limits how long the extension waits for locks: for those on its own tables, and for those that keep two calls apart.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use pgrx::{PgSqlErrorCode, pg_sys};

/// Milliseconds that a user's call waits for another session's call to end. Long enough for any call of the extension's, short enough
/// for a person, and for a migration that holds locks itself.
const IN_CALLS: i32 = 5000;
/// Milliseconds that a background worker waits, which may hold the row locks of a batch that the application waits for.
const IN_WORKERS: i32 = 1000;

/// Beginning of the error message of a wait for a lock that times out.
pub const WAITED_IN_VAIN: &str =
    "a table of the extension \"backfill\", or a row in it, is locked by somebody else";

/// Returns the `lock_timeout` to set for a statement on the extension's tables, in milliseconds; `None` if one at least as short is in
/// force.
pub fn bound() -> Option<i32> {
    // SAFETY: both are variables of this process, which PostgreSQL sets before any of this code runs.
    let (in_force, in_worker) =
        unsafe { (pg_sys::LockTimeout, !pg_sys::MyBgworkerEntry.is_null()) };
    let most = if in_worker { IN_WORKERS } else { IN_CALLS };
    (in_force == 0 || in_force > most).then_some(most)
}

unsafe extern "C-unwind" {
    fn errmsg(fmt: *const c_char, ...) -> c_int;
    fn errhint(fmt: *const c_char, ...) -> c_int;
}

/// Guard: while it lives, an error of a wait for a lock says that the lock is on a table of the extension's. Dropping it ends this,
/// also when an error passes through.
pub struct Explained {
    previous: *mut pg_sys::ErrorContextCallback,
    _callback: Box<pg_sys::ErrorContextCallback>,
}

impl Explained {
    /// Begins to explain such errors.
    pub fn begin() -> Explained {
        // SAFETY: the head of a list that belongs to this process. The new head is on the heap, and `drop`, which runs also when an
        // error unwinds, takes it off the list before it is freed.
        unsafe {
            let previous = pg_sys::error_context_stack;
            let mut callback = Box::new(pg_sys::ErrorContextCallback {
                previous,
                callback: Some(explain),
                arg: null_mut(),
            });
            pg_sys::error_context_stack = &raw mut *callback;
            Explained {
                previous,
                _callback: callback,
            }
        }
    }
}

impl Drop for Explained {
    fn drop(&mut self) {
        // SAFETY: puts back what `begin` found; frames above this one have ended, and with them their callbacks.
        unsafe { pg_sys::error_context_stack = self.previous };
    }
}

/// Error-context callback: called while an error (or a lesser message) is being raised.
unsafe extern "C-unwind" fn explain(_arg: *mut c_void) {
    const FORMAT: *const c_char = c"%s".as_ptr();
    const MESSAGE: *const c_char =
        c"a table of the extension \"backfill\", or a row in it, is locked by somebody else"
            .as_ptr();
    const HINT: *const c_char = c"Who: SELECT a.pid, a.usename, a.xact_start, l.mode, l.relation::regclass FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'backfill_internal'::regnamespace). Try again when it has ended.".as_ptr();
    // SAFETY: PostgreSQL calls this with a current error, which these functions read and complete; the texts are constants.
    unsafe {
        if pg_sys::geterrcode() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE as c_int {
            errmsg(FORMAT, MESSAGE);
            errhint(FORMAT, HINT);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_message_is_the_one_that_is_looked_for() {
        let source = include_str!("patience.rs");
        let quoted = format!("{:?}", super::WAITED_IN_VAIN);
        assert_eq!(source.matches(&quoted).count(), 2);
    }
}
