//! Checks that the extension's tables are as the extension made them: one owner, and nobody else's triggers, rules or policies.
//!
//! A GRANT by mistake (`GRANT ALL ON ALL TABLES IN SCHEMA backfill_internal TO app`) lets others put triggers on them.
//! `elevate::as_extension` keeps such triggers from firing, but a superuser's own statement would run them, so the extension stops
//! until they are gone. The check is repeated whenever the server reports that some table has changed.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::extension::{EXTENSION, INTERNAL};
use super::text;
use crate::error::{Error, Result, sqlstate};

/// The extension's tables.
const TABLES: &[&CStr] = &[
    c"job",
    c"walk",
    c"slice",
    c"checkpoint",
    c"region",
    c"leftover",
    c"setback",
    c"outcome",
    c"failed_row",
    c"verify_failure",
    c"sample",
    c"event",
];

thread_local! {
    /// Number of changes of tables that the server has reported.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// Value of `CHANGES` before the last check that found the tables intact.
    static INTACT_AT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Whether the server reports changes of tables to this process.
    static TOLD: Cell<bool> = const { Cell::new(false) };
    /// The function that the guard triggers call, once it was found to be the extension's.
    static GUARD: Cell<Oid> = const { Cell::new(Oid::INVALID) };
}

/// Returns an error if one of the tables carries anything that the extension did not put there. Within a transaction.
pub fn check(owner: Oid) -> Result<()> {
    if INTACT_AT.get() == Some(CHANGES.get()) {
        return Ok(());
    }
    if !TOLD.replace(true) {
        // SAFETY: registers a function that lives as long as the process, once in it.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_change), Datum::from(0)) };
    }
    // Read before the check: a change during it is checked the next time. An error raised in it leaves everything as it was.
    let changes = CHANGES.get();
    look_at_all(owner)?;
    INTACT_AT.set(Some(changes));
    Ok(())
}

/// Relcache callback: some table, or possibly any, has changed.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_change(_argument: Datum, _table: Oid) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

fn look_at_all(owner: Oid) -> Result<()> {
    // SAFETY: within a transaction, which the caches need; the name is a C string.
    let schema = unsafe { pg_sys::get_namespace_oid(INTERNAL.as_ptr(), true) };
    for name in TABLES {
        // SAFETY: as above.
        let table = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
        // An older version may lack a table; the update of the extension comes first.
        if table != Oid::INVALID {
            let shown = format!("backfill_internal.{}", name.to_string_lossy());
            look_at(table, &shown, owner)?;
        }
    }
    Ok(())
}

fn look_at(table: Oid, shown: &str, owner: Oid) -> Result<()> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: the relation is open and locked for as long as its entry in the cache is read, and everything taken from it is
    // copied.
    let found = unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return Ok(());
        }
        let found = strange(relation, shown, owner);
        pg_sys::relation_close(relation, lock);
        found
    };
    match found {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// Returns what is wrong with the table, if anything.
///
/// # Safety
/// The relation must be open, and locked.
unsafe fn strange(relation: pg_sys::Relation, shown: &str, owner: Oid) -> Option<Error> {
    // SAFETY: the caller's promise; an open relation has its row of pg_class, and an array of exactly as many triggers as it
    // says.
    unsafe {
        let class = &*(*relation).rd_rel;
        if class.relowner != owner {
            return Some(refuse(
                format!("table {shown} belongs to another role than backfill_internal.job"),
                "ALTER TABLE ... OWNER TO the owner of backfill_internal.job.".to_owned(),
            ));
        }
        if class.relhasrules && !(*relation).rd_rules.is_null() {
            return Some(refuse(
                format!("table {shown} has a rule, which is not the extension's"),
                format!("\\d {shown} shows it: DROP RULE ... ON {shown};"),
            ));
        }
        if class.relrowsecurity {
            return Some(refuse(
                format!("table {shown} has row-level security, which is not the extension's"),
                format!("ALTER TABLE {shown} DISABLE ROW LEVEL SECURITY;"),
            ));
        }
        let triggers = (*relation).trigdesc;
        if triggers.is_null() {
            return None;
        }
        let count = usize::try_from((*triggers).numtriggers).unwrap_or(0);
        for trigger in std::slice::from_raw_parts((*triggers).triggers, count) {
            // Only the table's owner can have enabled it in another way than CREATE TRIGGER does, and they know about it.
            let by_default = trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ON_ORIGIN;
            if by_default && !trigger.tgisinternal && !is_guard(trigger.tgfoid) {
                let name =
                    text::lossy(pg_sys::quote_identifier(trigger.tgname)).unwrap_or_default();
                return Some(refuse(
                    format!("table {shown} has a trigger {name}, which is not the extension's"),
                    format!(
                        "DROP TRIGGER {name} ON {shown}; and take back what let somebody create it: REVOKE ALL ON ALL TABLES IN SCHEMA backfill_internal FROM that role."
                    ),
                ));
            }
        }
    }
    None
}

fn is_guard(function: Oid) -> bool {
    if GUARD.get() != function {
        // SAFETY: within a transaction, which the caches need; the name is a C string.
        let member = unsafe {
            let extension = pg_sys::get_extension_oid(EXTENSION.as_ptr(), true);
            extension != Oid::INVALID
                && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) == extension
        };
        if !member {
            return false;
        }
        GUARD.set(function);
    }
    true
}

fn refuse(message: String, hint: String) -> Error {
    Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message).hint(hint)
}
