//! Waiting that ends when it has to: by a latch, a signal, or the time.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::capture::capture;

/// Waits until the latch is set, a signal arrives, or the time is over; true if it was the time.
///
/// A cancel is swallowed: there is no statement that it could be for. A terminate ends the process.
pub fn wait(time: Duration) -> bool {
    let deadline = Instant::now() + time;
    wait_on_latch(time);
    let interrupted = capture(|| {
        pgrx::check_for_interrupts!();
        Ok(())
    });
    if interrupted.is_err() {
        // SAFETY: nothing of a transaction is in use here: a worker calls this between transactions, and
        // the error has been caught as a value. It does nothing where there is none to abort.
        unsafe { pg_sys::AbortOutOfAnyTransaction() };
    }
    Instant::now() >= deadline
}

/// The same inside a function call, where a cancel is an error like any other.
pub fn wait_in_call(time: Duration) {
    wait_on_latch(time);
    pgrx::check_for_interrupts!();
}

fn wait_on_latch(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = time.as_micros().div_ceil(1000).min(86_400_000) as i64;
    // SAFETY: MyLatch is set when the process begins, and points to its own latch until it ends. When
    // the postmaster dies PostgreSQL ends the process in here.
    unsafe {
        let latch = pg_sys::MyLatch;
        pg_sys::WaitLatch(
            latch,
            events as i32,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(latch);
    }
}

/// Wakes another process. One that is gone does no harm.
pub fn set(pid: i32) {
    // SAFETY: the entry of a process is in shared memory, and stays there when the process is gone; a latch that is set for
    // nothing is only a short look.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}
