//! Read-only transactions: those of a job that only looks, and those of a caller who asks for something that writes.

use std::cell::Cell;

use pgrx::pg_sys;

use super::server;
use crate::error::{Error, Result, sqlstate};

thread_local! {
    static ONLY_LOOKS: Cell<bool> = const { Cell::new(false) };
}

/// Makes the transactions of this process read-only from now on (except for the extension's own statements), or writable again.
/// Read-only is for a job that only looks: its owner's text runs wherever it is analysed, and at the commit.
pub fn only_look(looks: bool) {
    ONLY_LOOKS.set(looks);
}

/// Whether [`only_look`] is in force.
pub(super) fn only_looks() -> bool {
    ONLY_LOOKS.get()
}

/// Refuses a call that writes where nothing can be written, with a more specific error than PostgreSQL's general one.
pub fn refuse(function: &str) -> Result<()> {
    let (place, hint) = if server::in_recovery() {
        ("on a standby", "Call it on the primary server.")
    } else if is_read_only() {
        (
            "in a read-only transaction",
            "Call it in a transaction that is READ WRITE: BEGIN READ WRITE, where default_transaction_read_only is on.",
        )
    } else {
        return Ok(());
    };
    let message = format!("cannot execute {function} {place}");
    Err(Error::new(sqlstate::READ_ONLY_SQL_TRANSACTION, message).hint(hint))
}

/// Runs `f`, a call that stops a job and therefore writes to the extension's own tables, even if transactions are read-only by
/// default: that default is a means to keep a server from being written to, and so is the call. An exception is not made for a
/// transaction that was declared READ ONLY or is serializable, since such a transaction may rely on nothing being written.
pub fn writing_despite_default<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: variables of this process.
    let by_default = unsafe {
        pg_sys::DefaultXactReadOnly && pg_sys::XactIsoLevel < pg_sys::XACT_SERIALIZABLE as i32
    };
    if server::in_recovery() || !is_read_only() || !by_default {
        return f();
    }
    // SAFETY: the variable belongs to the transaction; an abort of the (sub)transaction resets it.
    unsafe { pg_sys::XactReadOnly = false };
    let result = f();
    // SAFETY: as above.
    unsafe { pg_sys::XactReadOnly = true };
    result
}

fn is_read_only() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::XactReadOnly }
}
