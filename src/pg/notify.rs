//! Notifications of our own, sent just before the transaction commits.
//!
//! Not earlier: a call to `NOTIFY` would make PREPARE TRANSACTION fail, and only here is it known how
//! full the server's queue is. Where that is full, PostgreSQL has the commit fail; a change of state
//! must not, so that then nobody is told.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use super::report;

unsafe extern "C-unwind" {
    // commands/async.h, which pgrx leaves out.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// How full the queue may be, from 0 to 1: what is left is for those who commit at the same time.
const FULL: f64 = 0.95;

/// Sends one, unless the queue is full. Only while the transaction is about to commit.
pub fn send(channel: &CStr, payload: &CStr) {
    let usage = usage();
    if usage >= FULL {
        report::log_in_callback(&format!(
            "backfill: a change of state is not announced: the NOTIFY queue is {:.0} % full, since a session that listens does not read",
            usage * 100.0
        ));
        return;
    }
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            Async_Notify(channel.as_ptr(), payload.as_ptr());
        });
    }
}

/// Which part of the queue is in use.
fn usage() -> f64 {
    // It takes no argument, and looks at none.
    let part = unsafe { pg_sys::pg_notification_queue_usage(std::ptr::null_mut()) };
    f64::from_bits(part.value() as u64)
}
