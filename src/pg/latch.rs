//! Waits that end with a set latch, a signal, or a timeout.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::capture::capture;

/// Waits until the latch is set, a signal arrives, or `time` is over. Returns true if it was the time.
///
/// A cancel is swallowed, as there is no statement that it could be meant for. A terminate ends the process.
pub fn wait(time: Duration) -> bool {
    let deadline = Instant::now() + time;
    wait_on_latch(time);
    let interrupted = capture(|| {
        pgrx::check_for_interrupts!();
        Ok(())
    });
    if interrupted.is_err() {
        // SAFETY: nothing of a transaction is in use here: a worker calls this between transactions, and the error has been
        // caught as a value. The call does nothing if there is no transaction to abort.
        unsafe { pg_sys::AbortOutOfAnyTransaction() };
    }
    Instant::now() >= deadline
}

/// Waits like [`wait`], but inside a function call, where a cancel is raised as an error.
pub fn wait_in_call(time: Duration) {
    wait_on_latch(time);
    pgrx::check_for_interrupts!();
}

fn wait_on_latch(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = time.as_micros().div_ceil(1000).min(86_400_000) as i64;
    // SAFETY: MyLatch is set when the process begins, and points to its own latch until the process ends. If the postmaster
    // dies, PostgreSQL ends the process in here.
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

/// Wakes another process. Does no harm if the process is gone.
pub fn set(pid: i32) {
    // SAFETY: the entry of a process is in shared memory, and stays there when the process is gone; a latch that is set in vain
    // costs only a short look.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}
