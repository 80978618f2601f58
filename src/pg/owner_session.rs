//! A background worker's session that belongs to the owner of a job.

use super::bgworker::{self, Start};
use pgrx::pg_sys::{self, Datum, Oid};

use super::capture::capture;
use super::txn::{self, Durability};
use super::{confine, report, role, server, spi, trusted};
use crate::error::{Error, Result};

/// Connects to the database; the transactions that follow act for the job's owner.
///
/// Where the owner can't log in, the session is opened by the server and given to the owner before
/// anything else is done; and since a session so opened could be taken back (SET SESSION
/// AUTHORIZATION), every transaction runs in a security context that forbids it.
pub fn connect(start: Start) {
    bgworker::connect(start.database, start.login);
    if start.login == start.owner {
        // ALTER ROLE ... SET role may have made it another one at once.
        keep_identity(start);
    } else {
        let given = txn::run_setting(|| {
            role::give_session_to(start.owner);
            Ok(())
        });
        given.unwrap_or_else(|error| report::fatal(&error));
        txn::act_as(start.owner);
    }
    confine::process_is_the_owners();
    let armed = txn::run(Durability::Deferred, || {
        trusted::only_for_good();
        Ok(())
    });
    armed.unwrap_or_else(|error| report::fatal(&error));
}

/// Takes back what a trigger's SET ROLE or SET SESSION AUTHORIZATION left behind: the next
/// transaction begins as the owner again.
pub fn keep_identity(start: Start) {
    let owner = start.owner;
    if server::session_user() == owner && server::current_user() == owner {
        return;
    }
    // Not RESET ROLE: that goes back to what ALTER ROLE ... SET role says.
    run(&["SET SESSION AUTHORIZATION DEFAULT", "SET ROLE NONE"]);
}

/// Takes back what else code of users' has left in the session, not only the owner's own: what PostgreSQL runs as the owner of an
/// index on another table, to check a foreign key, runs in it, too. Prepared statements, cursors that were held, temporary
/// objects, and the seed of random(), unless that is `seeded` by the job's settings. Settings are put back by
/// [`txn::run`]. Between transactions.
pub fn clear(seeded: bool) -> Result<()> {
    // SAFETY: no transaction is in progress, so that nothing of what goes is in use. An error is given back, and nothing
    // that it has left is used before the next transaction.
    capture(|| unsafe {
        pg_sys::DropAllPreparedStatements();
        pg_sys::PortalHashTableDeleteAll();
        if !seeded {
            seed()?;
        }
        Ok(())
    })?;
    if !has_temporary_objects() {
        return Ok(());
    }
    txn::run(txn::Durability::Deferred, || {
        // SAFETY: within a transaction, in which nothing else is done.
        unsafe { pg_sys::ResetTempTableNamespace() };
        Ok(())
    })
}

/// Whether there may be some: the session has a schema for them.
fn has_temporary_objects() -> bool {
    let (mut schema, mut toast) = (Oid::INVALID, Oid::INVALID);
    // SAFETY: writes two variables of this function.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    schema != Oid::INVALID
}

/// The function setseed: one that is built in, which is found without a catalog.
const SETSEED: Oid = Oid::from_u32(pg_sys::F_SETSEED);

/// Has random() go on from where nobody can foretell.
///
/// # Safety
/// No code of PostgreSQL's that uses it may be in progress.
unsafe fn seed() -> Result<()> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is of that length. The function takes a float8 between -1 and 1, passed by value, and reads nothing else.
    unsafe {
        if !pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) {
            return Err(Error::internal("the server has no random bytes"));
        }
        let fraction = (u64::from_ne_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64;
        let argument = Datum::from((fraction * 2.0 - 1.0).to_bits());
        pg_sys::OidFunctionCall1Coll(SETSEED, Oid::INVALID, argument);
    }
    Ok(())
}

/// Runs statements that are part of this library. That they fail is logged.
pub fn run(statements: &[&'static str]) {
    let done = txn::run_setting(|| {
        statements
            .iter()
            .try_for_each(|sql| spi::fixed(sql, &[]).map(|_| ()))
    });
    if let Err(error) = done {
        report::log(&format!(
            "backfill: cannot clear the worker's session: {error}"
        ));
    }
}
