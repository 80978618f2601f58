//! The session of a background worker, which belongs to the owner of a job.

use super::bgworker::{self, Start};
use pgrx::pg_sys::{self, Datum, Oid};

use super::capture::capture;
use super::txn::{self, Durability};
use super::{confine, report, role, server, spi, trusted};
use crate::error::{Error, Result};

/// Connects to the database; the transactions that follow act for the job's owner.
///
/// If the owner can't log in, the server opens the session and gives it to the owner before anything else is done; and since SET
/// SESSION AUTHORIZATION could take back such a session, every transaction runs in a security context that forbids it.
pub fn connect(start: Start) {
    bgworker::connect(start.database, start.login);
    if start.login == start.owner {
        // ALTER ROLE ... SET role may have changed the current user at once.
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

/// Undoes a trigger's SET ROLE or SET SESSION AUTHORIZATION: the next transaction begins as the owner again.
pub fn keep_identity(start: Start) {
    let owner = start.owner;
    if server::session_user() == owner && server::current_user() == owner {
        return;
    }
    // Not RESET ROLE: that would go back to the role of ALTER ROLE ... SET role.
    run(&["SET SESSION AUTHORIZATION DEFAULT", "SET ROLE NONE"]);
}

/// Removes everything else that users' code has left in the session: prepared statements, holdable cursors, temporary objects, and the
/// seed of random(), unless the job's settings have set the seed (`seeded`). Not only the owner's code can leave such things: what
/// PostgreSQL runs as the owner of an index on another table, to check a foreign key, runs in this session, too. Settings are put
/// back by [`txn::run`]. Between transactions.
pub fn clear(seeded: bool) -> Result<()> {
    // SAFETY: no transaction is in progress, so nothing that is removed is in use. An error is returned, and nothing that it has
    // left is used before the next transaction.
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
        // SAFETY: within a transaction, which does nothing else.
        unsafe { pg_sys::ResetTempTableNamespace() };
        Ok(())
    })
}

/// Whether there may be temporary objects: true if the session has a schema for them.
fn has_temporary_objects() -> bool {
    let (mut schema, mut toast) = (Oid::INVALID, Oid::INVALID);
    // SAFETY: writes two variables of this function.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    schema != Oid::INVALID
}

/// OID of the built-in function setseed, which is found without a catalog.
const SETSEED: Oid = Oid::from_u32(pg_sys::F_SETSEED);

/// Makes random() continue from an unpredictable seed.
///
/// # Safety
/// No PostgreSQL code that uses random() may be in progress.
unsafe fn seed() -> Result<()> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer has that length. The function takes a float8 between -1 and 1, passed by value, and reads nothing else.
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

/// Runs statements that are part of this library. Errors are logged and ignored.
pub fn run(statements: &[&'static str]) {
    let done = txn::run_setting(|| {
        statements
            .iter()
            .try_for_each(|sql| spi::fixed_on_path(sql, &[]).map(|_| ()))
    });
    if let Err(error) = done {
        report::log(&format!(
            "backfill: cannot clear the worker's session: {error}"
        ));
    }
}
