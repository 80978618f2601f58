//! Notifications of our own, sent just before the transaction commits.
//!
//! Not earlier: a call to `NOTIFY` would make PREPARE TRANSACTION fail, and only here is it known how
//! full the server's queue is. Where that is full, PostgreSQL has the commit fail; a change of state
//! must not, so that then nobody is told.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Oid};

use super::report;

unsafe extern "C-unwind" {
    // commands/async.h, which pgrx leaves out. The same in the headers of 15, 16 and 18.
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
    // SAFETY: both texts end in zero, and are copied. An error (a payload that is too long) becomes a
    // panic at the boundary, so that it jumps over no Rust frame.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            Async_Notify(channel.as_ptr(), payload.as_ptr());
        });
    }
}

/// Which part of the queue is in use.
fn usage() -> f64 {
    let function = Oid::from(pg_sys::F_PG_NOTIFICATION_QUEUE_USAGE);
    // SAFETY: a built-in function without arguments, found without a catalog; never NULL, and a double
    // precision is passed by value on 64 bits.
    let part = unsafe { pg_sys::OidFunctionCall0Coll(function, Oid::INVALID) };
    f64::from_bits(part.value() as u64)
}
