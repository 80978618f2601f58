//! Facts about the server and the session.

use pgrx::pg_sys::{self, Oid};

use crate::error::{Error, Result, sqlstate};

/// The role whose rights are in force.
pub fn current_user() -> Oid {
    unsafe { pg_sys::GetUserId() }
}

/// The role that logged in.
pub fn session_user() -> Oid {
    unsafe { pg_sys::GetSessionUserId() }
}

/// This database.
pub fn database() -> Oid {
    unsafe { pg_sys::MyDatabaseId }
}

/// The cluster's identifier, the same on its standbys and in its base backups.
pub fn system_identifier() -> i64 {
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// Whether the server is a standby.
pub fn in_recovery() -> bool {
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the current user has the rights of `role`.
pub fn may_act_for(role: Oid) -> bool {
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// Refuses a call that writes on a standby, before PostgreSQL's general error does.
pub fn refuse_on_standby(function: &str) -> Result<()> {
    if in_recovery() {
        return Err(Error::new(
            sqlstate::READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {function} on a standby"),
        )
        .hint("Call it on the primary server."));
    }
    Ok(())
}

/// Whether the library was loaded by `shared_preload_libraries`.
pub fn preloading() -> bool {
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Makes a mistyped setting of ours an error instead of a placeholder that nobody reads.
pub fn reserve_settings() {
    unsafe { pg_sys::MarkGUCPrefixReserved(c"backfill".as_ptr()) };
}
