//! A background worker's session that belongs to the owner of a job.

use super::bgworker::{self, Start};
use super::txn::{self, Durability};
use super::{confine, report, role, server, spi, trusted};

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
        let given = txn::run(Durability::Deferred, || {
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

/// Runs statements that are part of this library. That they fail is logged.
pub fn run(statements: &[&'static str]) {
    let done = txn::run(Durability::Deferred, || {
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
