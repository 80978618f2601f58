//! Decides whether users' text may be parsed, analysed, planned, converted or run here and now.
//!
//! Text is code: the planner calls IMMUTABLE functions, a type's input function evaluates the CHECK constraints of a domain, and
//! the parser looks names up on a search_path. So a clause may be handed to PostgreSQL in two places only:
//!
//! - in a **process of its owner's**: a worker that is connected as the role that wrote the clause, see
//!   [`process_is_the_owners`]. The worker has no rights beyond that role's, and ends.
//! - in the **caller's session, if the caller wrote it**: within [`own_text`], which undoes everything. Within a SECURITY
//!   DEFINER function the session is not the caller's.
//!
//! Every function of `pg` that hands such text to PostgreSQL (`spi::query`, `spi::Plan`, `clauses`, `evaluate`, input functions
//! in `arg`) calls [`require`] first, so that a caller who forgets the rule gets an error instead of a hole. The extension's own
//! statements run within `elevate::as_extension`, or are `'static` (`spi::fixed`), which no user's text is.

use std::cell::Cell;

use pgrx::pg_sys::{self, Oid};

use super::{elevate, server, subtransaction, trusted};
use crate::error::{Error, Result, sqlstate};

thread_local! {
    /// Whether this process is a worker that belongs to the owner of all text it handles.
    static OWNERS_PROCESS: Cell<bool> = const { Cell::new(false) };
    /// Number of calls of [`own_text`] and [`own_script`] in progress.
    static OWN: Cell<u32> = const { Cell::new(0) };
}

/// Declares that this process is a worker whose session is the owner's: it runs nobody else's text.
pub fn process_is_the_owners() {
    OWNERS_PROCESS.set(true);
}

/// Whether this process is such a worker.
pub fn is_owners_process() -> bool {
    OWNERS_PROCESS.get()
}

/// Returns an error unless users' text may be handed to PostgreSQL now.
pub fn require() -> Result<()> {
    let place = OWNERS_PROCESS.get() || OWN.get() > 0;
    if place && !elevate::is_elevated() {
        return Ok(());
    }
    Err(Error::internal(
        "text of a user's was about to be looked at outside of its owner's session",
    ))
}

/// Runs `f`, which may hand text of `owner`'s to PostgreSQL, in the session of the caller, who must be `owner`.
///
/// `f` runs as a security-restricted operation (no cursor that outlives it, no prepared statement, no LISTEN, no temporary
/// table, no deferred trigger, no SET ROLE), and everything is rolled back at its end, settings included. Temporary tables come
/// last in the search_path. An error of any kind is returned. Within `spi::connect`, and never within a SECURITY DEFINER
/// function: there the session, with its temporary tables and settings, is somebody else's.
pub fn own_text<T>(owner: Oid, f: impl FnOnce() -> Result<T>) -> Result<T> {
    restricted(owner, || subtransaction::undone(f))
}

/// Like [`own_text`], but the effects of `f` stay: for a script that the caller wants to run.
pub fn own_script<T>(owner: Oid, f: impl FnOnce() -> Result<T>) -> Result<T> {
    restricted(owner, || subtransaction::in_subtransaction(f))
}

/// Counts one call in `OWN` while it lives. An error that passes through, such as one at the begin of the subtransaction, ends it, too.
struct Own;

impl Own {
    fn begin() -> Own {
        OWN.set(OWN.get() + 1);
        Own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN.set(OWN.get() - 1);
    }
}

fn restricted<T>(owner: Oid, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if owner != server::current_user() {
        return Err(Error::internal(
            "text of another role was about to be looked at in the caller's session",
        ));
    }
    if OWN.get() == 0 && server::in_security_definer() {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "a SECURITY DEFINER function's text was about to be looked at in the session of who calls it",
        )
        .hint("Call it directly, or declare the function SECURITY INVOKER."));
    }
    let (user, security) = server::identity();
    let restricted = security
        | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32
        | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
    server::require_transaction();
    // SAFETY: within a transaction. `f` runs in a subtransaction that returns every error as a value, so the calls below,
    // which put back what these change, are reached. An error while that subtransaction is begun or ended passes through
    // and ends the transaction, whose abort puts back both the identity and the settings. If the process exits instead
    // (FATAL), nothing is left to be put back.
    let nest = unsafe {
        pg_sys::SetUserIdAndSecContext(user, restricted);
        pg_sys::NewGUCNestLevel()
    };
    let (own, only) = (Own::begin(), trusted::Only::begin());
    let result = f();
    drop((own, only));
    // SAFETY: as above; `nest` is the level begun there, and the identity is the one read there.
    unsafe {
        pg_sys::AtEOXact_GUC(false, nest);
        pg_sys::SetUserIdAndSecContext(user, security);
    }
    result
}
