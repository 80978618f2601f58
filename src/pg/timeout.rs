//! A time limit on what a worker runs. `statement_timeout` is armed for commands of clients only.

use std::ffi::c_int;

use pgrx::pg_sys;

// utils/timeout.h, which pgrx leaves out.
unsafe extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn get_timeout_indicator(id: c_int, reset_indicator: bool) -> bool;
}

/// Its place in `enum TimeoutId`, in all versions from 9.6 to 18: after the timeouts of the startup
/// packet, of deadlocks and of locks.
const STATEMENT_TIMEOUT: c_int = 3;

/// Runs `f`, and cancels it as `statement_timeout` would, with an error of its name, when it takes
/// longer. 0: no limit. `f` must give errors as values.
pub fn limited<T>(milliseconds: i32, f: impl FnOnce() -> T) -> T {
    if milliseconds <= 0 {
        return f();
    }
    unsafe {
        enable_timeout_after(STATEMENT_TIMEOUT, milliseconds);
        let value = f();
        disable_timeout(STATEMENT_TIMEOUT, true);
        if get_timeout_indicator(STATEMENT_TIMEOUT, true) {
            // It may have come too late for `f`, and is not for what follows.
            pg_sys::QueryCancelPending = 0;
        }
        value
    }
}
