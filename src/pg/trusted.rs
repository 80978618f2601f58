//! In a superuser's job no function runs that somebody else can change.
//!
//! What an UPDATE calls is more than its clauses name: triggers, constraints, defaults, index expressions, types' input
//! functions and casts, and what referential checks plan on other tables. Whoever owns one of these functions could have
//! anything done with the rights of the job. `define` and `start` look for such authors in the catalogs, to say early what
//! is wrong ([`partition::author_without_superuser`](super::partition::author_without_superuser)). This is the wall behind
//! that: PostgreSQL asks, for each function that it is about to call, whether it may.
//!
//! - `needs_fmgr_hook` is asked when a function is looked up to be called, whatever calls it: expressions, triggers, types,
//!   indexes, languages. A function that is not trusted is marked, and not inlined; its call raises an error (`fmgr_hook`).
//! - `object_access_hook` (`OAT_FUNCTION_EXECUTE`) is asked for each function of an expression, those of PostgreSQL's own
//!   as well.
//!
//! Trusted is a function of a superuser's; of PostgreSQL's own one that everybody may call and that runs no SQL text.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::{elevate, object_access, report, server};
use crate::error::{Error, sqlstate};
use crate::guc;

thread_local! {
    /// Whether all of this process is a superuser's job.
    static FOR_GOOD: Cell<bool> = const { Cell::new(false) };
    /// How many [`Only`] there are.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
    static NEEDS: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static CALLED: Cell<pg_sys::fmgr_hook_type> = const { Cell::new(None) };
}

/// PostgreSQL's own functions that everybody may call, and that run SQL given as a text.
const RUN_TEXT: &[&CStr] = &[
    c"query_to_xml",
    c"query_to_xmlschema",
    c"query_to_xml_and_xmlschema",
    c"cursor_to_xml",
    c"cursor_to_xmlschema",
    c"table_to_xml",
    c"table_to_xmlschema",
    c"table_to_xml_and_xmlschema",
    c"schema_to_xml",
    c"schema_to_xmlschema",
    c"schema_to_xml_and_xmlschema",
    c"database_to_xml",
    c"database_to_xmlschema",
    c"database_to_xml_and_xmlschema",
    c"ts_stat",
    c"ts_rewrite",
];

/// From now on, in a process whose session is a superuser's: only trusted functions. Within a transaction.
pub fn only_for_good() {
    if server::is_superuser() {
        install();
        FOR_GOOD.set(true);
    }
}

/// A time in which only trusted functions are called, if the current user is a superuser.
pub struct Only(bool);

impl Only {
    /// Begins it. Within a transaction.
    pub fn begin() -> Only {
        let on = server::is_superuser();
        if on {
            install();
            DEPTH.set(DEPTH.get() + 1);
        }
        Only(on)
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        if self.0 {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
}

/// Whether only trusted functions may be called now. Statements of the extension's own call what they have to.
fn is_on() -> bool {
    (FOR_GOOD.get() || DEPTH.get() > 0) && !elevate::is_elevated() && !guc::SUPERUSER_JOBS.get()
}

fn install() {
    if INSTALLED.replace(true) {
        return;
    }
    // SAFETY: the hooks are read and written by this process alone, which has one thread. The functions are this library's,
    // which is never unloaded, and call those that were there before.
    unsafe {
        NEEDS.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(on_lookup);
        CALLED.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(on_call);
    }
    object_access::watch(on_access);
}

/// Called by PostgreSQL as its hook `needs_fmgr_hook`: whether `on_call` is to be asked at each call of the function.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_lookup(function: Oid) -> bool {
    let wanted = NEEDS.get().is_some_and(|next| {
        // SAFETY: it is the hook that was there before, called with what this one was.
        unsafe { next(function) }
    });
    wanted || is_on() && distrust(function).is_some()
}

/// Called by PostgreSQL as its hook `fmgr_hook`, before and after calls of functions that were marked.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_call(
    event: pg_sys::FmgrHookEventType::Type,
    info: *mut pg_sys::FmgrInfo,
    argument: *mut Datum,
) {
    if let Some(next) = CALLED.get() {
        // SAFETY: it is the hook that was there before, called with what this one was.
        unsafe { next(event, info, argument) };
    }
    if event == pg_sys::FmgrHookEventType::FHET_START {
        // SAFETY: PostgreSQL hands over the function that it is about to call.
        refuse(unsafe { (*info).fn_oid });
    }
}

/// Called for each access: here for a function of an expression, before that is evaluated.
fn on_access(access: pg_sys::ObjectAccessType::Type, class: Oid, object: Oid) {
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE
        && class == pg_sys::ProcedureRelationId
    {
        refuse(object);
    }
}

/// Raises an error if the function may not be called now.
fn refuse(function: Oid) {
    if !is_on() {
        return;
    }
    let Some(why) = distrust(function) else {
        return;
    };
    let message = format!("{why}, and would run with the rights of a superuser");
    report::unwrap::<()>(Err(Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
        .detail("Triggers, constraints, defaults, types and expressions of indexes run with the rights of the role that defines a job, and so does what they call.")
        .hint("Let the job be defined by a role with no more rights than it takes: SET ROLE before the call. Where you trust all of it, SET backfill.allow_superuser_jobs = on.")));
}

/// Why the function is not trusted, if so.
fn distrust(function: Oid) -> Option<String> {
    server::require_transaction();
    // SAFETY: within a transaction. An entry of this cache is a row of pg_proc, which begins with that struct, and stays
    // while it is held; its name ends with a zero byte. Where an error leaves this, the abort lets the entry go.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            Datum::from(function),
        );
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let name = CStr::from_ptr((*form).proname.data.as_ptr());
        let shown = name.to_string_lossy().into_owned();
        let runs_text = RUN_TEXT.contains(&name);
        let owner = (*form).proowner;
        pg_sys::ReleaseSysCache(tuple);
        if function.to_u32() >= pg_sys::FirstNormalObjectId {
            return (!pg_sys::superuser_arg(owner)).then(|| {
                let role = server::role_name(owner);
                format!("function {shown} belongs to role {role}, which is no superuser")
            });
        }
        if runs_text {
            return Some(format!("function {shown} runs SQL that is given as a text"));
        }
        (!may_everybody_call(function)).then(|| format!("not everybody may call function {shown}"))
    }
}

/// Whether PUBLIC may EXECUTE the function.
fn may_everybody_call(function: Oid) -> bool {
    let mode = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: within a transaction any OID will do. The role is that of PUBLIC, which has no rights of its own.
    let found = unsafe { execute_check(function, mode) };
    found == pg_sys::AclResult::ACLCHECK_OK
}

#[cfg(feature = "pg15")]
unsafe fn execute_check(function: Oid, mode: pg_sys::AclMode) -> pg_sys::AclResult::Type {
    // SAFETY: as the caller says.
    unsafe { pg_sys::pg_proc_aclcheck(function, Oid::from(pg_sys::ACL_ID_PUBLIC), mode) }
}

#[cfg(not(feature = "pg15"))]
unsafe fn execute_check(function: Oid, mode: pg_sys::AclMode) -> pg_sys::AclResult::Type {
    // SAFETY: as the caller says.
    unsafe {
        pg_sys::object_aclcheck(
            pg_sys::ProcedureRelationId,
            function,
            Oid::from(pg_sys::ACL_ID_PUBLIC),
            mode,
        )
    }
}
