//! Keeps functions that somebody else can change from running in a superuser's job.
//!
//! An UPDATE calls more functions than its clauses name: triggers, constraints, defaults, index expressions, types' input functions
//! and casts, and those in plans of referential checks on other tables. Whoever owns one of these functions could do anything with the
//! rights of the job. `define` and `start` look for such authors in the catalogs, to report the problem early
//! ([`partition::author_without_superuser`](super::partition::author_without_superuser)). This module is the wall behind that check:
//! for each function that PostgreSQL is about to call, it asks whether it may.
//!
//! - `needs_fmgr_hook` is asked when a function is looked up to be called, whatever calls it: expressions, triggers, types, indexes,
//!   languages. A function that is not trusted is marked, and not inlined; calling it raises an error (`fmgr_hook`).
//! - `object_access_hook` (`OAT_FUNCTION_EXECUTE`) is asked for each function of an expression, PostgreSQL's own included.
//!
//! Parallel workers have the rights of a superuser, and none of these hooks: nothing is planned for them meanwhile.
//!
//! A function is trusted if a superuser owns it. A function of PostgreSQL's own is trusted if everybody may call it and it runs no SQL
//! given as text.
//!
//! An expression names functions without owning them, and nothing tells who wrote the condition of a trigger: anybody who ever had the
//! right to. So a volatile function, or one that not everybody may call, is trusted only if something of the superuser's names it (see
//! [`named`]). Else a condition could call `set_config`, `pg_terminate_backend` or an administrator's own helper.
//!
//! Nor can code behind the wall take it down: no statement turns `backfill.allow_superuser_jobs` on meanwhile.

mod named;

use std::cell::Cell;
use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Datum, Oid};

use super::{elevate, name, object_access, planner, report, server, settings, superuser_jobs};
use crate::error::{Error, sqlstate};
use crate::guc;

thread_local! {
    /// Whether this whole process is a superuser's job.
    static FOR_GOOD: Cell<bool> = const { Cell::new(false) };
    /// Number of live [`Only`] guards that are on.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
    static NEEDS: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static CALLED: Cell<pg_sys::fmgr_hook_type> = const { Cell::new(None) };
    static ANALYSED: Cell<pg_sys::post_parse_analyze_hook_type> = const { Cell::new(None) };
}

/// PostgreSQL's own volatile functions that do no more than to compute, or to count.
const HARMLESS: &[&CStr] = &[
    c"clock_timestamp",
    c"timeofday",
    c"random",
    c"random_normal",
    c"gen_random_uuid",
    c"uuidv4",
    c"uuidv7",
    c"nextval",
    c"currval",
    c"lastval",
    c"current_query",
    c"pg_is_in_recovery",
    c"pg_current_wal_lsn",
    c"pg_current_wal_insert_lsn",
    c"pg_relation_size",
    c"pg_table_size",
    c"pg_indexes_size",
    c"pg_total_relation_size",
    c"pg_database_size",
    c"pg_partition_tree",
    c"pg_partition_ancestors",
    c"pg_xact_commit_timestamp",
    c"pg_xact_status",
    c"txid_status",
    c"pg_blocking_pids",
];

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

/// Allows only trusted functions from now on, if the current user is a superuser. For a process whose session is the owner's. Within a
/// transaction.
pub fn only_for_good() {
    if server::is_superuser() {
        install();
        FOR_GOOD.set(true);
    }
}

/// Guard: while it lives, only trusted functions may be called, if the current user is a superuser.
pub struct Only(bool);

impl Only {
    /// Begins the restriction. Within a transaction.
    pub fn begin() -> Only {
        let on = server::is_superuser();
        if on {
            install();
            if !is_up() {
                named::forget();
            }
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

/// Whether only trusted functions may be called now. The extension's own statements may call any function.
fn is_on() -> bool {
    is_up() && !elevate::is_elevated() && !guc::SUPERUSER_JOBS.get()
}

/// Whether the wall is up, or would be but for the setting.
fn is_up() -> bool {
    FOR_GOOD.get() || DEPTH.get() > 0
}

/// Whether the setting that takes the wall down stays as it is: only the extension itself sets it behind the wall, to what the
/// job was defined with.
fn keeps_setting() -> bool {
    is_up() && !settings::is_setting()
}

fn install() {
    if INSTALLED.replace(true) {
        return;
    }
    // SAFETY: the hooks are read and written by this process alone, which has one thread. The functions are this library's, which is
    // never unloaded, and they call the previous hooks.
    unsafe {
        NEEDS.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(on_lookup);
        CALLED.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(on_call);
        ANALYSED.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(on_analysed);
    }
    object_access::watch(on_access);
    planner::watch(on_plan);
    superuser_jobs::keep(keeps_setting);
}

/// The hook `needs_fmgr_hook`, called by PostgreSQL. Returns whether `on_call` must be called at each call of the function.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_lookup(function: Oid) -> bool {
    let wanted = NEEDS.get().is_some_and(|next| {
        // SAFETY: it is the previous hook, called with the same argument as this one.
        unsafe { next(function) }
    });
    wanted || is_on() && must_be_called(function)
}

/// Whether `on_call` must see the calls of a function: it is not trusted; or it is a superuser's, whose body PostgreSQL would else put
/// into the statement that calls it, unseen by [`named`].
fn must_be_called(function: Oid) -> bool {
    let distrusted = Facts::of(function).is_some_and(|facts| distrust(function, &facts).is_some());
    let own = !distrusted && !is_built_in(function);
    if own {
        named::by_function(function);
    }
    distrusted || own
}

fn is_built_in(function: Oid) -> bool {
    function.to_u32() < pg_sys::FirstNormalObjectId
}

/// The hook `post_parse_analyze_hook`, called by PostgreSQL for each statement.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_analysed(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if let Some(next) = ANALYSED.get() {
        // SAFETY: it is the previous hook, called with the same arguments as this one.
        unsafe { next(state, query, jumble) };
    }
    if is_on() {
        // SAFETY: PostgreSQL hands over the query that it has analysed.
        unsafe { named::by_statement(query) };
    }
}

/// Called for each statement that is planned. Returns whether parallel workers are forbidden.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_plan(query: *mut pg_sys::Query) -> bool {
    if !is_on() {
        return false;
    }
    // SAFETY: PostgreSQL hands over the query that it is about to plan.
    unsafe { named::by_relations_of(query) };
    true
}

/// The hook `fmgr_hook`, called by PostgreSQL before and after calls of functions that were marked.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_call(
    event: pg_sys::FmgrHookEventType::Type,
    info: *mut pg_sys::FmgrInfo,
    argument: *mut Datum,
) {
    if let Some(next) = CALLED.get() {
        // SAFETY: it is the previous hook, called with the same arguments as this one.
        unsafe { next(event, info, argument) };
    }
    if event == pg_sys::FmgrHookEventType::FHET_START {
        // SAFETY: PostgreSQL hands over the function that it is about to call.
        refuse(unsafe { (*info).fn_oid }, distrust);
    }
}

/// Watcher for accesses: checks each function of an expression before the expression is evaluated.
fn on_access(access: pg_sys::ObjectAccessType::Type, class: Oid, object: Oid) {
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE
        && class == pg_sys::ProcedureRelationId
    {
        refuse(object, |function, facts| {
            distrust(function, facts).or_else(|| effect(function, facts))
        });
    }
}

/// Raises an error if the function may not be called now, as `why` says.
fn refuse(function: Oid, why: impl Fn(Oid, &Facts) -> Option<String>) {
    if !is_on() {
        return;
    }
    let Some(why) = Facts::of(function).and_then(|facts| why(function, &facts)) else {
        return;
    };
    let message = format!("{why}, and would run with the rights of a superuser");
    report::unwrap::<()>(Err(Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
        .detail("Triggers, constraints, defaults, types and expressions of indexes run with the rights of the role that defines a job, and so does what they call.")
        .hint("Let the job be defined by a role with no more rights than it takes: SET ROLE before the call. Where you trust all of it, SET backfill.allow_superuser_jobs = on.")));
}

/// Returns why the function is not trusted, whatever calls it; `None` if it is.
fn distrust(function: Oid, facts: &Facts) -> Option<String> {
    let shown = facts.name.to_string_lossy();
    if !is_built_in(function) {
        // SAFETY: within a transaction, as `Facts::of` has made sure; any OID will do.
        let superuser = unsafe { pg_sys::superuser_arg(facts.owner) };
        return (!superuser).then(|| {
            let role = name::of_role(facts.owner);
            format!("function {shown} belongs to role {role}, which is no superuser")
        });
    }
    if RUN_TEXT.contains(&facts.name.as_c_str()) {
        return Some(format!("function {shown} runs SQL that is given as a text"));
    }
    not_for_everybody(function, &shown)
}

/// Returns why the function, which is trusted otherwise, must not be called by an expression that nobody is known to have written.
fn effect(function: Oid, facts: &Facts) -> Option<String> {
    if named::contains(function) {
        return None;
    }
    let (shown, built_in) = (facts.name.to_string_lossy(), is_built_in(function));
    if facts.volatile && !(built_in && HARMLESS.contains(&facts.name.as_c_str())) {
        return Some(format!(
            "function {shown} is volatile, and nothing of a superuser's names it"
        ));
    }
    // Of built-in ones this was asked before.
    (!built_in).then(|| not_for_everybody(function, &shown))?
}

/// Facts about a function that decide whether it is trusted.
struct Facts {
    name: CString,
    owner: Oid,
    /// Whether it is volatile, and no trigger function.
    volatile: bool,
}

impl Facts {
    /// Returns `None` if there is no such function. Within a transaction.
    fn of(function: Oid) -> Option<Facts> {
        server::require_transaction();
        // SAFETY: within a transaction. An entry of this cache is a row of pg_proc, which begins with that struct, and stays while it
        // is held; its name ends with a zero byte, and is copied. If an error leaves this function, the abort releases the entry.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::PROCOID as i32,
                Datum::from(function),
            );
            if tuple.is_null() {
                return None;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            let facts = Facts {
                name: CStr::from_ptr(form.proname.data.as_ptr()).to_owned(),
                owner: form.proowner,
                volatile: form.provolatile as u8 == pg_sys::PROVOLATILE_VOLATILE
                    && form.prorettype != pg_sys::TRIGGEROID,
            };
            pg_sys::ReleaseSysCache(tuple);
            Some(facts)
        }
    }
}

/// Returns that not everybody may call the function, if so.
fn not_for_everybody(function: Oid, shown: &str) -> Option<String> {
    (!may_everybody_call(function)).then(|| format!("not everybody may call function {shown}"))
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
    // SAFETY: as the caller promises.
    unsafe { pg_sys::pg_proc_aclcheck(function, Oid::from(pg_sys::ACL_ID_PUBLIC), mode) }
}

#[cfg(not(feature = "pg15"))]
unsafe fn execute_check(function: Oid, mode: pg_sys::AclMode) -> pg_sys::AclResult::Type {
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::object_aclcheck(
            pg_sys::ProcedureRelationId,
            function,
            Oid::from(pg_sys::ACL_ID_PUBLIC),
            mode,
        )
    }
}
