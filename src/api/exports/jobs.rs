//! Entry points that define, start and steer jobs.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use std::ffi::CStr;

use pgrx::datum::Internal;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

use super::arguments::{call, json, name, request, text};
use crate::action::Asked;
use crate::api::copy::CopyRequest;
use crate::api::{
    alter, approve, control, copy, define, delete, execute, forget, limits, redefine, require,
    retry_failed, set_not_null, start, wait,
};
use crate::error::Result;
use crate::pg::capture::capture;
use crate::pg::report::unwrap;
use crate::pg::text::from_bytes;
use crate::pg::typed;
use crate::store::extension;

#[pg_extern(sql = false)]
fn define(
    relation: Option<Oid>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
) -> i64 {
    call(|| define::define(request(relation, set_clause, where_clause, name, options)?))
}

#[pg_extern(sql = false)]
fn define_delete(
    relation: Option<Oid>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
) -> i64 {
    call(|| delete::define(request(relation, None, where_clause, name, options)?))
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn start(
    relation: Option<Oid>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> i64 {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "start") };
    call(|| {
        let request = request(relation, set_clause, where_clause, name, options)?;
        start::start(request, batch_size, sleep_ms, typed)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn delete(
    relation: Option<Oid>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> i64 {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "delete") };
    call(|| {
        let request = request(relation, None, where_clause, name, options)?;
        delete::start(request, batch_size, sleep_ms, typed)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn copy(
    source: Option<Oid>,
    target: Option<Oid>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    columns: Option<&[u8]>,
    select_list: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    on_conflict: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> i64 {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "copy") };
    call(|| {
        let request = request(source, None, where_clause, name, options)?;
        let copy = copy_request(target, columns, select_list, on_conflict)?;
        copy::start(request, copy, batch_size, sleep_ms, typed)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn define_copy(
    source: Option<Oid>,
    target: Option<Oid>,
    columns: Option<&[u8]>,
    select_list: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    on_conflict: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
) -> i64 {
    call(|| {
        let request = request(source, None, where_clause, name, options)?;
        let copy = copy_request(target, columns, select_list, on_conflict)?;
        copy::define(request, copy)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn execute(
    relation: Option<Oid>,
    statement: Option<&[u8]>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> i64 {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "execute") };
    call(|| {
        let request = request(relation, None, where_clause, name, options)?;
        let statement = text("statement", statement, limits::CLAUSE)?;
        execute::start(request, statement, batch_size, sleep_ms, typed)
    })
}

#[pg_extern(sql = false)]
fn define_execute(
    relation: Option<Oid>,
    statement: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
) -> i64 {
    call(|| {
        let request = request(relation, None, where_clause, name, options)?;
        execute::define(request, text("statement", statement, limits::CLAUSE)?)
    })
}

/// Reads the arguments that only a copy has.
fn copy_request(
    target: Option<Oid>,
    columns: Option<&[u8]>,
    select_list: Option<&[u8]>,
    on_conflict: Option<&[u8]>,
) -> Result<CopyRequest> {
    Ok(CopyRequest {
        target,
        asked: Asked {
            columns: text("columns", columns, limits::CLAUSE)?,
            select_list: text("select_list", select_list, limits::CLAUSE)?,
            on_conflict: text("on_conflict", on_conflict, limits::CLAUSE)?,
        },
    })
}

#[pg_extern(sql = false)]
fn approve(job_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "approve") };
    call(|| approve::approve(job_id, typed))
}

#[pg_extern(sql = false)]
fn pause(job_id: Option<i64>) -> String {
    call(|| control::pause(job_id, Some(false)))
}

#[pg_extern(sql = false)]
fn pause_now(job_id: Option<i64>, now: Option<bool>) -> String {
    call(|| control::pause(job_id, now))
}

#[pg_extern(sql = false)]
fn resume(job_id: Option<i64>) -> String {
    call(|| control::resume(job_id))
}

#[pg_extern(sql = false)]
fn cancel(job_id: Option<i64>, now: Option<bool>) -> String {
    call(|| control::cancel(job_id, now))
}

#[pg_extern(sql = false)]
fn pause_all() -> i64 {
    call(control::pause_all)
}

#[pg_extern(sql = false)]
fn resume_all() -> i64 {
    call(control::resume_all)
}

#[pg_extern(sql = false)]
fn alter(
    job_id: Option<i64>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "alter") };
    call(move || alter::alter(job_id, batch_size, sleep_ms, json(options)?, typed))
}

#[pg_extern(sql = false)]
fn redefine(job_id: Option<i64>, set_clause: Option<&[u8]>, where_clause: Option<&[u8]>) {
    call(|| {
        redefine::redefine(
            job_id,
            text("set_clause", set_clause, limits::CLAUSE)?,
            text("where_clause", where_clause, limits::CLAUSE)?,
        )
    })
}

#[pg_extern(sql = false)]
fn retry_failed(job_id: Option<i64>) -> i64 {
    call(|| retry_failed::retry_failed(job_id))
}

#[pg_extern(sql = false)]
fn forget(job_id: Option<i64>) {
    call(|| forget::forget(job_id))
}

#[pg_extern(sql = false)]
fn wait(job_id: Option<i64>, timeout_ms: Option<i32>, fcinfo: pg_sys::FunctionCallInfo) {
    // SAFETY: it is the one that this function was called with.
    let atomic = unsafe { wait::is_atomic(fcinfo) };
    unwrap(capture(|| {
        extension::check_version()?;
        wait::wait(job_id, timeout_ms, atomic)
    }))
}

/// Used by the previous version's SQL until it is updated: its `set_not_null` asks whether it may commit.
#[pg_extern(sql = false)]
fn outside_block(called: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) {
    // SAFETY: it is the one that this function was called with.
    let atomic = unsafe { wait::is_atomic(fcinfo) };
    call(|| require::outside_block(&self::name("called", called)?.unwrap_or_default(), atomic))
}

#[pg_extern(sql = false)]
fn set_not_null(
    relation: Option<Oid>,
    column_name: Option<&CStr>,
    lock_timeout_ms: Option<i32>,
    retries: Option<i32>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    // SAFETY: it is the one that this function was called with.
    let atomic = unsafe { wait::is_atomic(fcinfo) };
    unwrap(capture(|| {
        extension::check_version()?;
        require::outside_block("backfill.set_not_null", atomic)?;
        // A value of type name ends with a zero byte.
        let column = column_name.map(|name| from_bytes(name.to_bytes()));
        set_not_null::set_not_null(set_not_null::Wanted {
            relation,
            column: column.transpose()?,
            lock_timeout_ms,
            retries,
        })
    }))
}
