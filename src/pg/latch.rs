//! Waiting that ends when it has to: by a latch, a signal, or the time.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::capture::capture;

/// Waits until the latch is set, a signal arrives, or the time is over; true if it was the time.
///
/// A cancel is swallowed: there is no statement that it could be for. A terminate ends the process.
pub fn wait(time: Duration) -> bool {
    let deadline = Instant::now() + time;
    unsafe {
        let events =
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32;
        let milliseconds = time.as_millis().min(86_400_000) as i64;
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    let interrupted = capture(|| {
        pgrx::check_for_interrupts!();
        Ok(())
    });
    if interrupted.is_err() {
        unsafe { pg_sys::AbortOutOfAnyTransaction() };
    }
    Instant::now() >= deadline
}

/// The same inside a function call, where a cancel is an error like any other.
pub fn wait_in_call(time: Duration) {
    unsafe {
        let events =
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32;
        let milliseconds = time.as_millis() as i64;
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
