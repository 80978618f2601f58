//! A time limit for running code: in a worker, for which `statement_timeout` is not armed, and in a client's session in addition to the
//! timeout of its command.

use std::ffi::c_int;

use pgrx::pg_sys;

// From utils/timeout.h; pgrx leaves it out. The same in the headers of PostgreSQL 15, 16 and 18. None of these functions raises an
// ERROR: a failure in them is FATAL, and ends the process.
unsafe extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn get_timeout_indicator(id: c_int, reset_indicator: bool) -> bool;
    fn get_timeout_active(id: c_int) -> bool;
    fn get_timeout_finish_time(id: c_int) -> pg_sys::TimestampTz;
    fn enable_timeout_at(id: c_int, fin_time: pg_sys::TimestampTz);
}

/// Position of the statement timeout in `enum TimeoutId`, in all versions from 9.6 to 18: after the timeouts of the startup packet, of
/// deadlocks and of locks.
const STATEMENT_TIMEOUT: c_int = 3;

/// Runs `f`, and cancels it if it takes longer than the limit, as `statement_timeout` would and with that error. 0 means no limit.
/// However `f` ends, nothing that follows is cancelled.
pub fn limited<T>(milliseconds: i32, f: impl FnOnce() -> T) -> T {
    let _limit = (milliseconds > 0).then(|| Limit::of(milliseconds));
    f()
}

/// Guard: the limit is in force until this is dropped, also when an error passes through.
struct Limit {
    /// Time at which the surrounding timeout would fire, if there is one.
    around: Option<pg_sys::TimestampTz>,
}

impl Limit {
    fn of(milliseconds: c_int) -> Limit {
        // SAFETY: PostgreSQL registers this timeout in each process that connects to a database, before code of an extension runs
        // in it. When it fires, a signal handler sets flags that the next CHECK_FOR_INTERRUPTS checks.
        unsafe {
            let around = get_timeout_active(STATEMENT_TIMEOUT)
                .then(|| get_timeout_finish_time(STATEMENT_TIMEOUT));
            let mine = pg_sys::GetCurrentTimestamp() + i64::from(milliseconds) * 1000;
            if around.is_none_or(|around| mine < around) {
                enable_timeout_after(STATEMENT_TIMEOUT, milliseconds);
            }
            Limit { around }
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: as above; a timeout that has fired, or is no longer armed, may be disarmed, too.
        unsafe {
            disable_timeout(STATEMENT_TIMEOUT, true);
            if get_timeout_indicator(STATEMENT_TIMEOUT, true) {
                // The timeout may have fired too late for `f`, and is not meant for what follows.
                pg_sys::QueryCancelPending = 0;
            }
            if let Some(around) = self.around {
                // A time in the past fires at once.
                enable_timeout_at(STATEMENT_TIMEOUT, around);
            }
        }
    }
}
