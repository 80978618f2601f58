//! Sends the extension's own notifications just before the transaction commits.
//!
//! Not earlier: a `NOTIFY` during the transaction would make PREPARE TRANSACTION fail, and only here is it known how full the server's
//! queue is. If the queue is full, PostgreSQL makes the commit fail; a change of state must not fail, so in that case no notification
//! is sent.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Oid};

use super::report;

unsafe extern "C-unwind" {
    // From commands/async.h; pgrx leaves it out. The same in the headers of PostgreSQL 15, 16 and 18.
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Fraction of the queue that may be in use, from 0 to 1; the rest is left for sessions that commit at the same time.
const FULL: f64 = 0.95;

/// Sends a notification, unless the queue is full. Only while the transaction is about to commit.
pub fn send(channel: &CStr, payload: &CStr) {
    let usage = usage();
    if usage >= FULL {
        report::log_in_callback(&format!(
            "backfill: a change of state is not announced: the NOTIFY queue is {:.0} % full, since a session that listens does not read",
            usage * 100.0
        ));
        return;
    }
    // SAFETY: both texts end with a zero, and are copied. An error (a payload that is too long) becomes a panic at the boundary,
    // so it jumps over no Rust frame.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            Async_Notify(channel.as_ptr(), payload.as_ptr());
        });
    }
}

/// Returns the fraction of the queue that is in use.
fn usage() -> f64 {
    let function = Oid::from(pg_sys::F_PG_NOTIFICATION_QUEUE_USAGE);
    // SAFETY: a built-in function without arguments, found without a catalog; it is never NULL, and a double precision is passed
    // by value on 64 bits.
    let part = unsafe { pg_sys::OidFunctionCall0Coll(function, Oid::INVALID) };
    f64::from_bits(part.value() as u64)
}
