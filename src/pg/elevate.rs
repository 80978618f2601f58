//! Runs trusted statements of the extension's own with the rights of the extension's owner.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::extension::{self, EXTENSION, INTERNAL};
use super::patience::{self, Explained};
use super::{intact, read_only, search_path, server, settings};
use crate::error::{Error, Result, sqlstate};

/// Guard: dropping it puts the user and the settings back, also when a panic passes through.
struct Guard {
    user: Oid,
    security: i32,
    nest: i32,
    firing: i32,
    read_only: bool,
    jit: bool,
    float_digits: i32,
}

/// Runs `f` as the owner of the extension, with a search_path that nobody else can write to.
///
/// Only for statements that are schema-qualified, bind values of built-in types and run no users' code. Never across a commit.
/// The statements wait for locks a few seconds at most, see [`patience`].
///
/// Among the triggers on the tables that `f` writes to, only those that are enabled ALWAYS or REPLICA fire. Only a table's owner can
/// enable a trigger that way: these are the extension's guards. A trigger created by a role with no more than the privilege
/// TRIGGER does not fire, nor does the check of a foreign key that refers to such a table.
pub fn as_extension<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = extension_owner()?;
    // SAFETY: these are plain variables and functions of this backend; the guard puts back everything changed here. The
    // variable is set without its setting's hook, which would throw away all kept plans: plans depend on the setting only
    // through rules, and `intact` has found none.
    let guard = unsafe {
        let (mut user, mut security) = (Oid::INVALID, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
        let elevated = security
            | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32
            | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        pg_sys::SetUserIdAndSecContext(owner, elevated);
        DEPTH.set(DEPTH.get() + 1);
        let firing = pg_sys::SessionReplicationRole;
        pg_sys::SessionReplicationRole = pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32;
        // A job that only looks still has to record what it has seen.
        let read_only = pg_sys::XactReadOnly;
        if read_only::only_looks() {
            pg_sys::XactReadOnly = false;
        }
        // The planner overestimates the cost of statements about the catalogs, and compiling them takes longer than running them.
        let jit = pg_sys::jit_enabled;
        pg_sys::jit_enabled = false;
        // Numbers are read as text, and decide: whoever calls may have chosen to see fewer digits.
        let float_digits = pg_sys::extra_float_digits;
        pg_sys::extra_float_digits = 1;
        Guard {
            jit,
            float_digits,
            read_only,
            user,
            security,
            nest: pg_sys::NewGUCNestLevel(),
            firing,
        }
    };
    settings::set_local(search_path::PINNED.0, search_path::PINNED.1);
    // Names of types and collations are stored, and compared later.
    if !settings::is(c"quote_all_identifiers", c"off") {
        settings::set_local(c"quote_all_identifiers", c"off");
    }
    if let Some(milliseconds) = patience::bound() {
        settings::set_text_local("lock_timeout", &milliseconds.to_string())?;
    }
    let explained = Explained::begin();
    let result = intact::check(owner).and_then(|()| f());
    drop(explained);
    drop(guard);
    result
}

thread_local! {
    /// Number of calls of [`as_extension`] in progress.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a statement of the extension's own is running with the rights of the extension's owner.
pub fn is_elevated() -> bool {
    DEPTH.get() > 0
}

impl Drop for Guard {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // SAFETY: puts back what was in force when the guard was made, in this process. Its level of settings is still there
        // unless an error is on its way, since every level begun after it has ended. The rest are variables, which an abort
        // sets to what was in force when its transaction began, and it does so after this.
        unsafe {
            // On an error, the abort of the transaction puts the settings back.
            if !std::thread::panicking() {
                pg_sys::AtEOXact_GUC(false, self.nest);
            }
            pg_sys::jit_enabled = self.jit;
            pg_sys::extra_float_digits = self.float_digits;
            pg_sys::XactReadOnly = self.read_only;
            pg_sys::SessionReplicationRole = self.firing;
            pg_sys::SetUserIdAndSecContext(self.user, self.security);
        }
    }
}

/// Returns an error if the extension's tables carry anything that the extension did not put there; nothing is written then.
pub fn check_tables() -> Result<()> {
    intact::check(extension_owner()?)
}

/// Whether the extension exists in this database (and has not been replaced by a new one), in schemas of these names.
pub fn extension_exists() -> bool {
    let table = job_table();
    table != Oid::INVALID && is_mine(table) && is_ours(table)
}

thread_local! {
    /// OID of the job table that this process is bound to: `None` if to none, `INVALID` until it first meets one.
    static MINE: Cell<Option<Oid>> = const { Cell::new(None) };
}

/// Binds this process to the extension that it meets first. If the extension is dropped and created again, the new one has other
/// jobs under the same ids.
pub fn stay_with_one_extension() {
    MINE.set(Some(Oid::INVALID));
}

fn is_mine(table: Oid) -> bool {
    match MINE.get() {
        Some(Oid::INVALID) => {
            MINE.set(Some(table));
            true
        }
        Some(mine) => mine == table,
        None => true,
    }
}

/// Returns the OID of the job table, or `INVALID` if there is none. An extension that was created again has a new table.
pub fn job_table() -> Oid {
    server::require_transaction();
    let found = job_table_in(INTERNAL);
    // Until the extension is updated to 0.3.0, the table is in the schema of the functions.
    if found == Oid::INVALID {
        return job_table_in(EXTENSION);
    }
    found
}

fn job_table_in(schema: &CStr) -> Oid {
    // SAFETY: within a transaction; the names end with a zero. A schema that does not exist (OID 0) holds no table.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        pg_sys::get_relname_relid(c"job".as_ptr(), schema)
    }
}

thread_local! {
    /// The table that was last found to belong to the extension.
    static OURS: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// The schema of that extension. It never changes.
    static SCHEMA: Cell<Oid> = const { Cell::new(Oid::INVALID) };
}

/// Whether the table is the extension's, and not another one of that name: if the extension's schema was renamed, anyone who may
/// create schemas could create such a table. Also whether the schema `backfill` is the extension's, since the extension's own
/// statements name views and functions in it.
fn is_ours(table: Oid) -> bool {
    if OURS.get() != table {
        // SAFETY: within a transaction, in which `table` was looked up; catalogs are read.
        let found = unsafe {
            let extension = pg_sys::get_extension_oid(EXTENSION.as_ptr(), true);
            extension != Oid::INVALID
                && pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table) == extension
        };
        if !found {
            return false;
        }
        SCHEMA.set(extension::schema().unwrap_or(Oid::INVALID));
        OURS.set(table);
    }
    // SAFETY: as above; the name ends with a zero.
    SCHEMA.get() == unsafe { pg_sys::get_namespace_oid(EXTENSION.as_ptr(), true) }
}

/// Returns the owner of the extension's tables. Reads the system caches: no SQL runs under somebody's search_path, and the call is
/// cheap enough for every batch.
pub(super) fn extension_owner() -> Result<Oid> {
    let table = job_table();
    if table != Oid::INVALID && !is_mine(table) {
        return Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            "extension \"backfill\" was dropped, and created again",
        )
        .hint("Its jobs went with it: start them again."));
    }
    // SAFETY: within a transaction, as `job_table` makes sure. An entry of this cache is a row of pg_class, which begins with
    // that struct, and stays while it is held; if an error leaves this function, the abort releases it.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, table.into());
        if tuple.is_null() {
            return Err(Error::new(
                sqlstate::UNDEFINED_OBJECT,
                "extension \"backfill\" does not exist in this database",
            )
            .hint("CREATE EXTENSION backfill;"));
        }
        if !is_ours(table) {
            pg_sys::ReleaseSysCache(tuple);
            return Err(Error::new(
                sqlstate::NOT_IN_PREREQUISITE_STATE,
                "the schema \"backfill\" or \"backfill_internal\" is not the one of the extension \"backfill\"",
            )
            .hint("Its schemas have to be called so: rename the ones that are, then ALTER SCHEMA ... RENAME TO backfill, or TO backfill_internal."));
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*form).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Ok(owner)
    }
}
