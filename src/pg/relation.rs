//! Reads what the catalogs say about a relation. All of it within `spi::connect` and with the rights of the extension, so that
//! nobody's search_path matters.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg};
use super::{elsewhere, partition, schemas, server};
use crate::error::{Error, Result, sqlstate};
use crate::quote::{ident, qualified};

/// A relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// OID of the relation.
    pub oid: Oid,
    /// Name of the relation's schema.
    pub schema: String,
    /// Name of the relation.
    pub name: String,
    /// `relkind` of pg_class.
    pub kind: char,
    /// `relpersistence` of pg_class.
    pub persistence: char,
    /// Whether the relation is in one of the system's schemas or belongs to this extension.
    pub internal: bool,
    /// Schema and name for messages, quoted where needed, so that the text can be pasted into a statement.
    pub shown: String,
    /// Name of an enabled rule on the relation that rewrites UPDATEs, if there is one.
    pub rule: Option<String>,
    /// Columns of the relation, without dropped ones.
    pub columns: Vec<Attribute>,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name of the column.
    pub name: String,
    /// Number of the column, which stays the same when the column is renamed.
    pub number: i16,
    /// Whether the column is GENERATED … STORED or VIRTUAL.
    pub generated: bool,
    /// Whether the column is GENERATED ALWAYS AS IDENTITY.
    pub identity_always: bool,
}

impl Relation {
    /// Refuses a table on which a batch's UPDATE would not do what it seems to do: the table's rules turn it into something else, or its
    /// rows are elsewhere.
    pub fn refuse_deceptive(&self) -> Result<()> {
        let Some(rule) = &self.rule else {
            return elsewhere::refuse(self.oid, &self.shown);
        };
        Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "cannot backfill table {}: its rule {rule} rewrites UPDATEs",
                self.shown
            ),
        )
        .hint(format!(
            "ALTER TABLE {} DISABLE RULE {rule}, or replace it by a trigger.",
            self.shown
        )))
    }

    /// Returns the qualified and quoted name for use in a statement.
    pub fn quoted(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// Returns the text after UPDATE or FROM in a statement on this table alone. A partition gets the name of the partitioned table as an
    /// alias (`known_as`), so that clauses may use that.
    pub fn alone(&self, known_as: Option<&str>) -> String {
        let alias = known_as.map_or(String::new(), |name| format!(" AS {}", ident(name)));
        format!("ONLY {}{alias}", self.quoted())
    }
}

/// Returns the relation with this OID, if it exists. Its schema's name is remembered: until the call or the transaction ends, it must
/// stand for this schema, see `schemas`.
pub fn describe(oid: Oid) -> Result<Option<Relation>> {
    schemas::remember(oid);
    as_extension(|| {
        let found = spi::kept_first(
            "SELECT n.nspname, c.relname, c.relkind, c.relpersistence,
                    c.oid < 16384 OR n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast', 'backfill', 'backfill_internal'),
                    pg_catalog.concat(CASE WHEN c.relpersistence = 't' THEN 'pg_temp'
                                      ELSE pg_catalog.quote_ident(n.nspname) END,
                                      '.', pg_catalog.quote_ident(c.relname)),
                    (SELECT pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
                     WHERE r.ev_class = c.oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'
                     ORDER BY r.rulename LIMIT 1)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $1",
            &[Arg::Oid(oid)],
        )?;
        let Some(row) = found else { return Ok(None) };
        let columns = spi::kept(
            "SELECT attname, attgenerated <> '', attidentity = 'a', attnum FROM pg_catalog.pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[Arg::Oid(oid)],
        )?;
        let attribute = |row: &spi::Row| {
            Ok(Attribute {
                name: row.text(0)?.to_owned(),
                number: row.number(3)? as i16,
                generated: row.bool(1),
                identity_always: row.bool(2),
            })
        };
        Ok(Some(Relation {
            oid,
            schema: row.text(0)?.to_owned(),
            name: row.text(1)?.to_owned(),
            kind: row.text(2)?.chars().next().unwrap_or(' '),
            persistence: row.text(3)?.chars().next().unwrap_or(' '),
            internal: row.bool(4),
            shown: row.text(5)?.to_owned(),
            rule: row.get(6).map(str::to_owned),
            columns: columns.rows.iter().map(attribute).collect::<Result<_>>()?,
        }))
    })
}

/// Resolves a name (quoted where needed) on the caller's search_path. Within `spi::connect`.
pub fn named(name: &str) -> Result<Option<Oid>> {
    let row = spi::fixed_on_path(
        "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8",
        &[Arg::Text(name)],
    )?;
    let oid = row.map_or(Ok(None), |row| row.parse::<u32>(0))?;
    Ok(oid.map(Oid::from))
}

/// Returns the planner's own estimate of a table's rows, which also works for tables never analysed.
pub fn estimate_rows(oid: Oid) -> Option<i64> {
    Open::shared(oid).map(|relation| relation.estimated_rows().clamp(0.0, MOST_ROWS) as i64)
}

/// More rows than any table has. The estimate is based on statistics, which from PostgreSQL 18 on the table's owner can set; sums over
/// all slices of all jobs must stay within a bigint.
const MOST_ROWS: f64 = 1e14;

/// Locks a table as an UPDATE does, so that its definition stays the same until the transaction ends. The tables that it is a
/// partition of are locked first: the UPDATE reads them, too, and DDL locks in this order.
pub fn lock_for_update(oid: Oid) {
    let lock = |oid, mode: u32| {
        // A look into the system caches may have left a snapshot, which would hold the horizon back for as long as this waits.
        // SAFETY: nobody can be using that snapshot: code that reads a catalog takes one each time, and registers it for as long
        // as it needs it. Any OID can be locked, and the transaction, which is in progress, releases the lock.
        unsafe {
            pg_sys::InvalidateCatalogSnapshot();
            pg_sys::LockRelationOid(oid, mode as i32);
        }
    };
    for ancestor in partition::ancestors(oid).into_iter().rev() {
        lock(ancestor, pg_sys::AccessShareLock);
    }
    lock(oid, pg_sys::RowExclusiveLock);
}

/// Locks a table so that nobody else alters or drops it until the transaction ends, while others can read and write it.
pub fn lock_for_alter(oid: Oid) {
    server::require_transaction();
    // SAFETY: within a transaction, which releases the lock. Any OID can be locked.
    unsafe { pg_sys::LockRelationOid(oid, pg_sys::ShareUpdateExclusiveLock as i32) };
}

/// Whether the relation still has this schema and name, according to the system caches.
pub fn is_named(oid: Oid, schema: &str, name: &str) -> bool {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do. Both functions return null or a copy that nobody else has, as `taken`
    // requires.
    let (is, of) = unsafe {
        let namespace = pg_sys::get_rel_namespace(oid);
        (
            taken(pg_sys::get_rel_name(oid)),
            taken(pg_sys::get_namespace_name(namespace)),
        )
    };
    is.as_deref() == Some(name) && of.as_deref() == Some(schema)
}

/// Copies the text and frees it; `None` for null.
///
/// # Safety
/// `text` must be null, or a string that was allocated by palloc and that nobody else has.
unsafe fn taken(text: *mut std::ffi::c_char) -> Option<String> {
    // SAFETY: as the caller promises; `lossy` makes a copy.
    unsafe {
        let copy = super::text::lossy(text)?;
        pg_sys::pfree(text.cast());
        Some(copy)
    }
}

/// Whether the current user may read the ctid of rows. Privileges on the table include this column.
pub fn may_read_places(oid: Oid) -> bool {
    let ctid = pg_sys::SelfItemPointerAttributeNumber as i16;
    server::require_transaction();
    // SAFETY: within a transaction any OID will do; one of no relation raises an error.
    unsafe {
        let (me, select) = (
            pg_sys::GetUserId(),
            pg_sys::AclMode::from(pg_sys::ACL_SELECT),
        );
        let granted = pg_sys::AclResult::ACLCHECK_OK;
        pg_sys::pg_class_aclcheck(oid, me, select) == granted
            || pg_sys::pg_attribute_aclcheck(oid, ctid, me, select) == granted
    }
}

/// Whether the relation has triggers that would notice if a batch were two statements: statement triggers, and those before each row,
/// which may suppress its update. The relation must be locked.
pub fn has_triggers_per_try(oid: Oid) -> bool {
    let relation = Open::locked(oid);
    // SAFETY: the relation is open, and its triggers stay as they are under the lock. They are null or PostgreSQL's own struct,
    // and are not read beyond this expression.
    unsafe {
        (*relation.as_ptr())
            .trigdesc
            .as_ref()
            .is_some_and(|triggers| {
                triggers.trig_update_before_row
                    || triggers.trig_update_before_statement
                    || triggers.trig_update_after_statement
            })
    }
}

/// Whether the relation's table access method is heap. The relation must be locked.
pub fn is_heap(oid: Oid) -> bool {
    let relation = Open::locked(oid);
    // SAFETY: the relation is open; only two addresses are compared.
    unsafe {
        std::ptr::eq(
            (*relation.as_ptr()).rd_tableam,
            pg_sys::GetHeapamTableAmRoutine(),
        )
    }
}

/// Raises PostgreSQL's error if a policy of row security applies to the current user and `row_security` is off. PostgreSQL itself
/// checks this when it plans a statement, but a kept plan outlives the BYPASSRLS, or the membership in the table's owner, that let it
/// through.
pub fn refuse_policies(oid: Oid) {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do.
    unsafe { pg_sys::check_enable_rls(oid, Oid::INVALID, false) };
}

/// Whether a policy of row security applies to the role.
pub fn has_policies_for(oid: Oid, role: Oid) -> bool {
    let enabled = pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
    server::require_transaction();
    // SAFETY: within a transaction any OIDs will do.
    unsafe { pg_sys::check_enable_rls(oid, role, true) == enabled }
}

thread_local! {
    static WATCHED: std::cell::Cell<Oid> = const { std::cell::Cell::new(Oid::INVALID) };
    static WATCHED_TOO: std::cell::Cell<Oid> = const { std::cell::Cell::new(Oid::INVALID) };
    static CHANGED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Watches the relation: from now on, [`take_changed`] tells whether its definition may have changed.
pub fn watch(oid: Oid) {
    if WATCHED.replace(oid) == Oid::INVALID {
        // SAFETY: the callbacks are functions of this library, which is never unloaded, and are registered once: the relation is
        // valid from then on. They only set a flag.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(invalidated), pg_sys::Datum::from(0));
            let labels = pg_sys::SysCacheIdentifier::ENUMOID as i32;
            pg_sys::CacheRegisterSyscacheCallback(labels, Some(relabelled), pg_sys::Datum::from(0));
        }
    }
}

/// Watches a second relation beside the one that is watched.
pub fn watch_too(oid: Oid) {
    WATCHED_TOO.set(oid);
}

/// Whether the watched relation may have changed since the last call. Clears the flag.
pub fn take_changed() -> bool {
    CHANGED.replace(false)
}

/// Sets the flag, so that the next [`take_changed`] returns true.
pub fn mark_changed() {
    CHANGED.set(true);
}

/// Guard: unless `done()` is called, dropping it flags the watched relation as changed. So after an error of any kind, the next caller
/// of [`take_changed`] deals with the change.
#[derive(Debug)]
pub struct ChangedUnlessDone(bool);

impl ChangedUnlessDone {
    /// Begins to deal with a change.
    pub fn begin() -> ChangedUnlessDone {
        ChangedUnlessDone(false)
    }

    /// States that everything is done, also for changes that came up meanwhile.
    pub fn done(mut self) {
        self.0 = true;
        take_changed();
    }
}

impl Drop for ChangedUnlessDone {
    fn drop(&mut self) {
        if !self.0 {
            mark_changed();
        }
    }
}

/// # Safety
/// Called by PostgreSQL, with two values. It may be called whenever invalidations are accepted, also in an abort: it must not
/// raise errors, allocate, or read caches.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn invalidated(_arg: pg_sys::Datum, relation: Oid) {
    let watched = [WATCHED.get(), WATCHED_TOO.get()];
    if relation == Oid::INVALID || watched.contains(&relation) {
        CHANGED.set(true);
    }
}

/// Syscache callback: a label of an enum has changed, maybe one of the key's.
///
/// # Safety
/// As for [`invalidated`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relabelled(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGED.set(true);
}
