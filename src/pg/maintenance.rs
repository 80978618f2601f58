//! VACUUM and ANALYZE of one relation, from a background worker. Both outside of any transaction.
//!
//! VACUUM commits the transaction that it is given and opens others, so it can't go through SPI: it
//! is handed to PostgreSQL as a top-level utility statement, as a client's would be. The statement
//! bears the relation's OID beside its name: whoever renames the table meanwhile changes nothing,
//! one that is gone is passed over, and ANALYZE of a partitioned table takes that table's own
//! statistics without going through all of its partitions again.
//!
//! Both run as the session's user. The user code in them (expressions and predicates of indexes,
//! expressions of statistics, operators) is run by PostgreSQL as the table's owner in a
//! security-restricted operation, in which neither SET ROLE nor SET SESSION AUTHORIZATION is
//! possible and no setting outlives the statement: what also protects autovacuum, a superuser.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Oid};

use super::relation;
use super::report;
use super::text::to_server;
use super::txn::{self, Durability};
use crate::error::{Error, Result};

unsafe extern "C-unwind" {
    // pgrx has no binding of it.
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

/// VACUUM of the relation; of nothing if it is gone.
pub fn vacuum(relation: Oid) -> Result<()> {
    maintain("VACUUM", relation)
}

/// ANALYZE of the relation; of nothing if it is gone. Of a partitioned table, only what is known
/// of it as a whole.
pub fn analyze(relation: Oid) -> Result<()> {
    maintain("ANALYZE", relation)
}

/// Whether the current user may VACUUM and ANALYZE the relation, by the rules that these apply
/// themselves. Also true if it is gone. Within a transaction.
pub fn may_maintain(relation: Oid) -> Result<bool> {
    unsafe {
        let class = pg_sys::SysCacheIdentifier::RELOID as i32;
        if !pg_sys::SearchSysCacheExists(class, relation.into(), 0.into(), 0.into(), 0.into()) {
            return Ok(true);
        }
        let user = pg_sys::GetUserId();
        Ok(owns(relation, user) || granted(relation, user))
    }
}

#[cfg(feature = "pg15")]
unsafe fn owns(relation: Oid, user: Oid) -> bool {
    unsafe {
        pg_sys::pg_class_ownercheck(relation, user)
            || pg_sys::pg_database_ownercheck(pg_sys::MyDatabaseId, user)
    }
}

#[cfg(not(feature = "pg15"))]
unsafe fn owns(relation: Oid, user: Oid) -> bool {
    unsafe {
        pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, user)
            || pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, pg_sys::MyDatabaseId, user)
    }
}

/// The privilege MAINTAIN, since PostgreSQL 17.
#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn granted(relation: Oid, user: Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_MAINTAIN);
    unsafe { pg_sys::pg_class_aclcheck(relation, user, mode) == pg_sys::AclResult::ACLCHECK_OK }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
unsafe fn granted(_relation: Oid, _user: Oid) -> bool {
    false
}

/// Who may do it, beside the owner: for people.
pub const WHO_MAY: &str = if cfg!(any(feature = "pg17", feature = "pg18")) {
    "owner or MAINTAIN needed"
} else {
    "owner needed"
};

fn maintain(verb: &str, relation: Oid) -> Result<()> {
    let found = txn::run(Durability::Deferred, || relation::describe(relation))?;
    let Some(found) = found else { return Ok(()) };
    let memory = Memory::new();
    txn::run_committing(|| {
        let text = to_server(&format!("{verb} {}", found.shown))?;
        report::activity(&text);
        unsafe { memory.run(&text, relation) }
    })
}

/// What outlives the commits within the statement: the statement, and VACUUM's own state, which it
/// keeps where a portal would have its memory.
struct Memory {
    own: pg_sys::MemoryContext,
    before: pg_sys::MemoryContext,
}

impl Memory {
    fn new() -> Memory {
        unsafe {
            let own = pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"backfill maintenance".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let before = pg_sys::PortalContext;
            pg_sys::PortalContext = own;
            Memory { own, before }
        }
    }

    /// Runs the statement. Within a transaction that it may commit.
    unsafe fn run(&self, text: &CStr, relation: Oid) -> Result<()> {
        unsafe {
            // ProcessUtility frees at its end what it has put into the present memory context, too.
            pg_sys::MemoryContextSwitchTo(self.own);
            let text = pg_sys::pstrdup(text.as_ptr());
            let statement = statement(text, relation)?;
            let planned: *mut pg_sys::PlannedStmt =
                pg_sys::palloc0(size_of::<pg_sys::PlannedStmt>()).cast();
            (*planned).type_ = pg_sys::NodeTag::T_PlannedStmt;
            (*planned).commandType = pg_sys::CmdType::CMD_UTILITY;
            (*planned).canSetTag = true;
            (*planned).utilityStmt = statement.cast();
            let mut completion = pg_sys::QueryCompletion::default();
            // As for a client's: VACUUM lets go of it before it commits.
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

impl Drop for Memory {
    fn drop(&mut self) {
        unsafe {
            pg_sys::PortalContext = self.before;
            pg_sys::MemoryContextDelete(self.own);
        }
    }
}

/// The parsed statement, with the OID of the one relation that it names.
unsafe fn statement(text: *const c_char, relation: Oid) -> Result<*mut pg_sys::VacuumStmt> {
    unsafe {
        let parsed = pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let raw = only(parsed).cast::<pg_sys::RawStmt>();
        let statement = if raw.is_null() {
            raw.cast()
        } else {
            (*raw).stmt
        };
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_VacuumStmt {
            return Err(Error::internal("not a VACUUM or ANALYZE"));
        }
        let statement = statement.cast::<pg_sys::VacuumStmt>();
        let target = only((*statement).rels).cast::<pg_sys::VacuumRelation>();
        if target.is_null() {
            return Err(Error::internal("VACUUM or ANALYZE of no relation"));
        }
        (*target).oid = relation;
        Ok(statement)
    }
}

/// The one element of a list; null if there is not exactly one.
unsafe fn only(list: *mut pg_sys::List) -> *mut std::ffi::c_void {
    unsafe {
        if list.is_null() || (*list).length != 1 {
            std::ptr::null_mut()
        } else {
            (*(*list).elements).ptr_value
        }
    }
}
