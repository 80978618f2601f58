//! Runs VACUUM and ANALYZE of one relation from a background worker, outside of any transaction.
//!
//! VACUUM commits the transaction that it is given and opens others, so it can't go through SPI: it is handed to PostgreSQL as a
//! top-level utility statement, as a client's would be. The statement carries the relation's OID beside its name, so a rename in the
//! meantime changes nothing, a relation that is gone is skipped, and ANALYZE of a partitioned table computes that table's own
//! statistics without going through all of its partitions again.
//!
//! Both run as the session's user. PostgreSQL runs the user code in them (expressions and predicates of indexes, expressions of
//! statistics, operators) as the table's owner in a security-restricted operation, in which neither SET ROLE nor SET SESSION
//! AUTHORIZATION is possible and no setting outlives the statement. The same protects autovacuum, which runs as a superuser.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Oid};

use super::memory::Memory;
use super::text::to_server;
use super::txn::{self, Durability};
use super::{list, relation, report, server};
use crate::error::{Error, Result};

unsafe extern "C-unwind" {
    // From tcop/utility.h; pgrx has no binding. The same in the headers of PostgreSQL 15, 16 and 18.
    fn ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query_string: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        query_env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Runs VACUUM of the relation. Does nothing if the relation is gone.
pub fn vacuum(relation: Oid) -> Result<()> {
    maintain("VACUUM", relation)
}

/// Runs ANALYZE of the relation. Does nothing if the relation is gone. For a partitioned table, only the statistics of the table as a
/// whole are computed.
pub fn analyze(relation: Oid) -> Result<()> {
    maintain("ANALYZE", relation)
}

/// Whether the current user may VACUUM and ANALYZE the relation, by the rules that these commands apply themselves. Also true if the
/// relation is gone. Within a transaction.
pub fn may_maintain(relation: Oid) -> Result<bool> {
    server::require_transaction();
    let class = pg_sys::SysCacheIdentifier::RELOID as i32;
    let none = || pg_sys::Datum::from(0);
    // SAFETY: within a transaction any OID will do; this cache has one key.
    let exists =
        unsafe { pg_sys::SearchSysCacheExists(class, relation.into(), none(), none(), none()) };
    let user = server::current_user();
    Ok(!exists || owns(relation, user) || granted(relation, user))
}

/// Whether the user owns the relation or the database. Within a transaction.
fn owns(relation: Oid, user: Oid) -> bool {
    let database = server::database();
    // SAFETY: within a transaction any OIDs will do: one of no relation or database raises an error.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::pg_class_ownercheck(relation, user)
            || pg_sys::pg_database_ownercheck(database, user)
    }
    // SAFETY: as above; the classes are those of the two objects.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, user)
            || pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, user)
    }
}

/// Whether the user has the privilege MAINTAIN, which exists since PostgreSQL 17. Within a transaction.
#[cfg(any(feature = "pg17", feature = "pg18"))]
fn granted(relation: Oid, user: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_MAINTAIN);
    // SAFETY: within a transaction any OIDs will do: one of no relation raises an error.
    unsafe { pg_sys::pg_class_aclcheck(relation, user, mode) == pg_sys::AclResult::ACLCHECK_OK }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn granted(_relation: Oid, _user: Oid) -> bool {
    false
}

/// Text for messages about who may VACUUM and ANALYZE a relation.
pub const WHO_MAY: &str = if cfg!(any(feature = "pg17", feature = "pg18")) {
    "owner or MAINTAIN needed"
} else {
    "owner needed"
};

fn maintain(verb: &str, relation: Oid) -> Result<()> {
    let found = txn::run(Durability::Deferred, || relation::describe(relation))?;
    let Some(found) = found else { return Ok(()) };
    let place = Place::new();
    txn::run_committing(|| {
        let text = to_server(&format!("{verb} {}", found.shown))?;
        report::activity(&text);
        // SAFETY: within the transaction that run_committing has begun, which accepts that `run` leaves it committed. `place`
        // outlives it.
        unsafe { place.run(&text, relation) }
    })
}

/// State that outlives the commits within the statement: the statement itself, and VACUUM's own state, which it keeps in the memory of
/// its portal.
struct Place {
    /// Set as PortalContext while this lives.
    memory: Memory,
    before: pg_sys::MemoryContext,
}

impl Place {
    fn new() -> Place {
        let memory = Memory::new(c"backfill maintenance");
        // SAFETY: a worker has no portal, so nobody else uses PortalContext; `drop` puts it back before the memory goes.
        unsafe {
            let before = pg_sys::PortalContext;
            pg_sys::PortalContext = memory.as_ptr();
            Place { memory, before }
        }
    }

    /// Runs the statement.
    ///
    /// # Safety
    /// Within a transaction, which the statement may commit: nothing that belongs to the transaction may be used afterwards.
    /// Without an active snapshot.
    unsafe fn run(&self, text: &CStr, relation: Oid) -> Result<()> {
        // SAFETY: everything handed over is allocated in the memory of this place, which outlives the statement and each of its
        // transactions, and stays the current context until the last of them ends. An error becomes a panic at the boundary, so
        // it jumps over no Rust frame. The call only writes to `completion`.
        unsafe {
            // At its end, ProcessUtility also frees what it has put into the current memory context.
            pg_sys::MemoryContextSwitchTo(self.memory.as_ptr());
            let text = pg_sys::pstrdup(text.as_ptr());
            let statement = statement(text, relation)?;
            let planned: *mut pg_sys::PlannedStmt =
                pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast();
            (*planned).type_ = pg_sys::NodeTag::T_PlannedStmt;
            (*planned).commandType = pg_sys::CmdType::CMD_UTILITY;
            (*planned).canSetTag = true;
            (*planned).utilityStmt = statement.cast();
            let mut completion = pg_sys::QueryCompletion::default();
            // As for a client's statement: VACUUM releases the snapshot before it commits.
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                ProcessUtility(
                    planned,
                    text,
                    false,
                    pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    pg_sys::None_Receiver,
                    &raw mut completion,
                );
            });
            if pg_sys::ActiveSnapshotSet() {
                pg_sys::PopActiveSnapshot();
            }
            Ok(())
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: the previous context outlives this value: in a worker it is null.
        unsafe { pg_sys::PortalContext = self.before };
    }
}

/// Parses the statement and sets the OID of the only relation that it names. In the current memory context.
///
/// # Safety
/// `text` must point to a zero-terminated string that lives as long as the result is used.
unsafe fn statement(text: *const c_char, relation: Oid) -> Result<*mut pg_sys::VacuumStmt> {
    // SAFETY: the parser returns a list of RawStmt nodes, and each node is treated as what its tag says. The relations of a
    // VacuumStmt are VacuumRelation nodes. Nobody else has the tree.
    unsafe {
        let parsed = pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let node = list::only::<pg_sys::RawStmt>(parsed).map(|raw| (*raw).stmt);
        let statement = node
            .filter(|node| !node.is_null() && (**node).type_ == pg_sys::NodeTag::T_VacuumStmt)
            .ok_or_else(|| Error::internal("not a VACUUM or ANALYZE"))?
            .cast::<pg_sys::VacuumStmt>();
        let target = list::only::<pg_sys::VacuumRelation>((*statement).rels)
            .ok_or_else(|| Error::internal("VACUUM or ANALYZE of no relation"))?;
        (*target).oid = relation;
        Ok(statement)
    }
}
