//! Facts about the server and the session.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys::{self, Oid};

/// Returns the PID of this process.
pub fn pid() -> i32 {
    // SAFETY: set when the process begins, and never again.
    unsafe { pg_sys::MyProcPid }
}

/// Whether a transaction is in progress that has not failed: only then can catalogs be read.
pub fn in_transaction() -> bool {
    // SAFETY: reads a variable of this process, in whatever phase it is.
    unsafe { pg_sys::IsTransactionState() }
}

/// Raises an error outside of a transaction. PostgreSQL's functions that read catalogs, even through its caches, take a transaction for
/// granted, and crash without one.
pub(super) fn require_transaction() {
    if !in_transaction() {
        pgrx::error!("backfill: catalogs can be read within a transaction only");
    }
}

/// Returns the role whose rights are in force.
pub fn current_user() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetUserId() }
}

/// Returns the current user and the security context in force.
pub(super) fn identity() -> (Oid, i32) {
    let (mut user, mut security) = (Oid::INVALID, 0);
    // SAFETY: writes two variables of this function.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut security) };
    (user, security)
}

/// Whether the caller is inside a SECURITY DEFINER function (or another change of user).
pub fn in_security_definer() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::InLocalUserIdChange() || pg_sys::InSecurityRestrictedOperation() }
}

/// Returns the session's user: the role that logged in.
pub fn session_user() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetSessionUserId() }
}

/// Whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: within a transaction, which the caches need.
    unsafe { pg_sys::superuser() }
}

/// Whether an extension's script is running.
pub fn is_creating_extension() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::creating_extension }
}

/// Returns the OID of this database.
pub fn database() -> Oid {
    // SAFETY: set when the process connects; 0 before.
    unsafe { pg_sys::MyDatabaseId }
}

/// Returns the cluster's identifier, which is the same on its standbys and in its base backups.
pub fn system_identifier() -> i64 {
    // SAFETY: reads the control file's copy in shared memory, which each process of the server has been attached to before it
    // runs code of an extension's functions.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// Whether this process is the session of a client, and not a background one.
pub fn is_client() -> bool {
    // SAFETY: a variable of this process, set before any code of an extension runs.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND }
}

/// Returns the number of background workers that the server may have (`max_worker_processes`).
pub fn most_background_workers() -> u32 {
    // SAFETY: a variable of this process that changes only with a restart.
    unsafe { pg_sys::max_worker_processes }
        .try_into()
        .unwrap_or_default()
}

/// Whether the server is a standby.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory, to which the process is attached.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the current user has the rights of `role`.
pub fn may_act_for(role: Oid) -> bool {
    require_transaction();
    // SAFETY: within a transaction any OID will do.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// Whether a role has the rights of another one.
pub fn has_rights_of(role: Oid, other: Oid) -> bool {
    require_transaction();
    // SAFETY: within a transaction any OIDs will do.
    unsafe { pg_sys::has_privs_of_role(role, other) }
}

/// Whether the library is being loaded by `shared_preload_libraries` now.
pub fn preloading() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Notes that the library is being loaded by `shared_preload_libraries`. Processes that are forked later inherit the note.
pub fn note_preload() {
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether the library was loaded by `shared_preload_libraries`, so that there is a launcher.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Whether the server was started by `pg_upgrade`, during which nothing may change it.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: reads a variable of this process, set by a switch of the command line.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Makes a mistyped setting of the extension's an error instead of a placeholder that nobody reads.
pub fn reserve_settings() {
    // SAFETY: the prefix is a constant, of which PostgreSQL makes a copy.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"backfill".as_ptr()) };
}

/// Returns the number of background workers running now in the whole server, whoever they belong to, and the maximum number.
pub fn background_workers() -> (i32, i32) {
    // SAFETY: the first call makes a copy of all entries, whose numbers count from 1 up to its result. The copy stays until the
    // transaction ends; each entry is only read here. The rest reads variables of this process.
    unsafe {
        let all = 1..=pg_sys::pgstat_fetch_stat_numbackends();
        let workers = all.filter(|number| is_background_worker(*number)).count() as i32;
        (workers, pg_sys::max_worker_processes)
    }
}

/// # Safety
/// After `pgstat_fetch_stat_numbackends` in the same transaction. Any number will do: one of no entry gives null.
unsafe fn is_background_worker(number: i32) -> bool {
    // SAFETY: the entry is null, which `as_ref` checks, or one of the copy.
    unsafe {
        #[cfg(feature = "pg15")]
        let entry = pg_sys::pgstat_fetch_stat_local_beentry(number);
        #[cfg(not(feature = "pg15"))]
        let entry = pg_sys::pgstat_get_local_beentry_by_index(number);
        let kind = entry.as_ref().map(|e| e.backendStatus.st_backendType);
        kind == Some(pg_sys::BackendType::B_BG_WORKER)
    }
}
