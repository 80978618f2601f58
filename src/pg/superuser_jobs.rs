//! The setting `backfill.allow_superuser_jobs`, and its check: it takes down the wall of `trusted`, so code behind that wall must not
//! turn it on.

use std::cell::Cell;
use std::ffi::{CStr, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, PgSqlErrorCode, pg_sys};

use crate::guc::SUPERUSER_JOBS;

thread_local! {
    /// Says when a statement may not turn the setting on.
    static KEPT: Cell<Option<fn() -> bool>> = const { Cell::new(None) };
}

const REFUSED: &CStr =
    c"permission denied to set parameter \"backfill.allow_superuser_jobs\" while a superuser's job or clause is run";

/// Declares the setting; called once when the library is loaded.
pub fn register() {
    // SAFETY: the check hook is guarded against panics, and is this library's, which is never unloaded.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            c"backfill.allow_superuser_jobs",
            c"Lets a superuser define, plan and preview a backfill of a table of a role that is no superuser.",
            c"Off: SET ROLE to the table's owner first. On: what that role wrote (triggers, constraints, index expressions) runs as a superuser.",
            &SUPERUSER_JOBS,
            GucContext::Suset,
            GucFlags::default(),
            Some(may_set),
            None,
            None,
        );
    }
}

/// From now on no statement of this session turns the setting on while `when` returns true. It must not raise an error.
pub(super) fn keep(when: fn() -> bool) {
    KEPT.set(Some(when));
}

/// PostgreSQL's check hook: returns whether the setting may take the value. What the server's files, a role or a database say is
/// their administrator's.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn may_set(
    value: *mut bool,
    _extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL hands over the value that is to be set.
    let on = unsafe { *value };
    let by_statement = source >= pg_sys::GucSource::PGC_S_INTERACTIVE;
    let refused = on && by_statement && KEPT.get().is_some_and(|when| when());
    if refused {
        // SAFETY: PostgreSQL reads these right after this returns, and frees neither.
        unsafe {
            pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32);
            pg_sys::GUC_check_errmsg_string = REFUSED.as_ptr().cast_mut();
        }
    }
    !refused
}
