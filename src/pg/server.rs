//! Facts about the server and the session.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys::{self, Oid};

use crate::error::{Error, Result, sqlstate};

/// This process.
pub fn pid() -> i32 {
    // SAFETY: set when the process begins, and never again.
    unsafe { pg_sys::MyProcPid }
}

/// Whether a transaction is in progress that has not failed: only then can catalogs be read.
pub fn in_transaction() -> bool {
    // SAFETY: reads a variable of this process, in whatever phase it is.
    unsafe { pg_sys::IsTransactionState() }
}

/// Raises an error outside of a transaction. PostgreSQL's functions that read catalogs, also by its
/// caches, take it for granted that there is one, and crash without.
pub(super) fn require_transaction() {
    if !in_transaction() {
        pgrx::error!("backfill: catalogs can be read within a transaction only");
    }
}

/// The role whose rights are in force.
pub fn current_user() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetUserId() }
}

/// The role that logged in.
pub fn session_user() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetSessionUserId() }
}

/// The role's name, quoted where need be; its OID outside of a transaction.
pub fn role_name(role: Oid) -> String {
    let unknown = || format!("with OID {role}");
    // Outside of a transaction the system caches would take the server down.
    if !in_transaction() {
        return unknown();
    }
    // SAFETY: within a transaction any OID will do: one of no role gives null. The name is a copy in
    // the current memory context, and so is its quoted form, or it is the same; `lossy` copies.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return unknown();
        }
        super::text::lossy(pg_sys::quote_identifier(name)).unwrap_or_default()
    }
}

/// The role's name as it is, in the server's encoding; `None` if there is no such role. Within a transaction.
pub fn name_of(role: Oid) -> Option<Vec<u8>> {
    // SAFETY: within a transaction, which the caches need. The name is a C string that lives in the current
    // memory context, and is copied.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name).to_bytes().to_vec())
    }
}

/// Whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: within a transaction, which the caches need.
    unsafe { pg_sys::superuser() }
}

/// Whether a script of an extension is being run.
pub fn is_creating_extension() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::creating_extension }
}

/// This database.
pub fn database() -> Oid {
    // SAFETY: set when the process connects; 0 before.
    unsafe { pg_sys::MyDatabaseId }
}

/// The cluster's identifier, the same on its standbys and in its base backups.
pub fn system_identifier() -> i64 {
    // SAFETY: reads the control file's copy in shared memory, which each process of the server has
    // been attached to before it runs code of an extension's functions.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// Whether this process is the session of a client, and not a background one.
pub fn is_client() -> bool {
    // SAFETY: a variable of this process, set before any code of an extension runs.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND }
}

/// Background workers that the server may have, by `max_worker_processes`.
pub fn most_background_workers() -> u32 {
    // SAFETY: a variable of this process that changes with a restart only.
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

/// Refuses a call that writes where nothing can be written, before PostgreSQL's general error does.
pub fn refuse_read_only(function: &str) -> Result<()> {
    let (place, hint) = if in_recovery() {
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

/// Runs `f`, a call that makes a job stand still, which writes to the extension's own tables also where transactions are
/// read only by default: that is how a server is kept from being written to, and what the call is for. Not where a
/// transaction was declared READ ONLY, or is serializable: that may count on nothing being written.
pub fn writing_despite_default<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: variables of this process.
    let by_default = unsafe {
        pg_sys::DefaultXactReadOnly && pg_sys::XactIsoLevel < pg_sys::XACT_SERIALIZABLE as i32
    };
    if in_recovery() || !is_read_only() || !by_default {
        return f();
    }
    // SAFETY: it belongs to the transaction; an abort of that, or of a subtransaction, sets it back.
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

/// Whether the library was loaded by `shared_preload_libraries`.
pub fn preloading() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Notes that the library is being loaded by `shared_preload_libraries`: processes that are forked later know it.
pub fn note_preload() {
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether the library was loaded by `shared_preload_libraries`, so that there is a launcher.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Whether the server was started by `pg_upgrade`, which nothing may change it under.
pub fn in_binary_upgrade() -> bool {
    // SAFETY: reads a variable of this process, set by a switch of the command line.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Makes a mistyped setting of ours an error instead of a placeholder that nobody reads.
pub fn reserve_settings() {
    // SAFETY: the prefix is a constant, of which PostgreSQL makes a copy.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"backfill".as_ptr()) };
}

/// Background workers of the whole server that run now, whoever they are of, and how many there may be.
pub fn background_workers() -> (i32, i32) {
    // SAFETY: the first call makes a copy of all entries, and the numbers are counted in it from 1 up
    // to what it gives. The copy stays until the transaction ends; each entry is only looked at here.
    // The rest reads variables of this process.
    unsafe {
        let all = 1..=pg_sys::pgstat_fetch_stat_numbackends();
        let workers = all.filter(|number| is_background_worker(*number)).count() as i32;
        (workers, pg_sys::max_worker_processes)
    }
}

/// # Safety
/// After `pgstat_fetch_stat_numbackends` in the same transaction. Any number will do: one of no
/// entry gives null.
unsafe fn is_background_worker(number: i32) -> bool {
    // SAFETY: the entry is null, which `as_ref` looks at, or one of the copy.
    unsafe {
        #[cfg(feature = "pg15")]
        let entry = pg_sys::pgstat_fetch_stat_local_beentry(number);
        #[cfg(not(feature = "pg15"))]
        let entry = pg_sys::pgstat_get_local_beentry_by_index(number);
        let kind = entry.as_ref().map(|e| e.backendStatus.st_backendType);
        kind == Some(pg_sys::BackendType::B_BG_WORKER)
    }
}
