//! Entry points that take a job by its name, or by a number as text.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use pgrx::datum::Internal;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::arguments::{call, json, text};
use super::looks::tried;
use crate::api::{
    alter, approve, control, forget, inspect, job_name, limits, reapply, redefine, rehearse,
    report, retry_failed, verify, wait,
};
use crate::error::Result;
use crate::pg::capture::capture;
use crate::pg::report::unwrap;
use crate::pg::spi::connect;
use crate::pg::text::to_server;
use crate::pg::typed;
use crate::store::extension;

/// Returns the id of the job of this name.
fn job(name: Option<&[u8]>) -> Result<Option<i64>> {
    job_name::id_of(super::arguments::name("name", name)?)
}

#[pg_extern(sql = false)]
fn approve_named(name: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "approve") };
    call(|| approve::approve(job(name)?, typed))
}

#[pg_extern(sql = false)]
fn pause_named(name: Option<&[u8]>, now: Option<bool>) -> String {
    call(|| control::pause(job(name)?, now))
}

#[pg_extern(sql = false)]
fn resume_named(name: Option<&[u8]>) -> String {
    call(|| control::resume(job(name)?))
}

#[pg_extern(sql = false)]
fn cancel_named(name: Option<&[u8]>, now: Option<bool>) -> String {
    call(|| control::cancel(job(name)?, now))
}

#[pg_extern(sql = false)]
fn alter_named(
    name: Option<&[u8]>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    options: Option<Internal>,
    fcinfo: pg_sys::FunctionCallInfo,
) {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "alter") };
    call(move || alter::alter(job(name)?, batch_size, sleep_ms, json(options)?, typed))
}

#[pg_extern(sql = false)]
fn redefine_named(name: Option<&[u8]>, set_clause: Option<&[u8]>, where_clause: Option<&[u8]>) {
    call(|| {
        redefine::redefine(
            job(name)?,
            text("set_clause", set_clause, limits::CLAUSE)?,
            text("where_clause", where_clause, limits::CLAUSE)?,
        )
    })
}

#[pg_extern(sql = false)]
fn retry_failed_named(name: Option<&[u8]>) -> i64 {
    call(|| retry_failed::retry_failed(job(name)?))
}

#[pg_extern(sql = false)]
fn forget_named(name: Option<&[u8]>) {
    call(|| forget::forget(job(name)?))
}

#[pg_extern(sql = false)]
fn wait_named(name: Option<&[u8]>, timeout_ms: Option<i32>, fcinfo: pg_sys::FunctionCallInfo) {
    // SAFETY: it is the one that this function was called with.
    let atomic = unsafe { wait::is_atomic(fcinfo) };
    unwrap(capture(|| {
        extension::check_version()?;
        let id = connect(|| job(name))?;
        wait::wait(id, timeout_ms, atomic)
    }))
}

#[pg_extern(sql = false)]
fn verify_named(
    name: Option<&[u8]>,
    check_clause: Option<&[u8]>,
    recompute: Option<bool>,
    options: Option<Internal>,
) -> i64 {
    call(move || {
        verify::verify(
            job(name)?,
            text("check_clause", check_clause, limits::CLAUSE)?,
            recompute,
            json(options)?,
        )
    })
}

#[pg_extern(sql = false)]
fn rehearse_named(
    name: Option<&[u8]>,
    rows: Option<i32>,
) -> TableIterator<
    'static,
    (
        name!(what, Vec<u8>),
        name!(rows, i64),
        name!(failed, i64),
        name!(ms_per_row, Option<f64>),
        name!(wal_bytes_per_row, Option<f64>),
        name!(dead_tuples, i64),
        name!(error, Option<Vec<u8>>),
    ),
> {
    TableIterator::new(call(|| tried(rehearse::rehearse(job(name)?, rows)?)))
}

/// Text is returned as bytes, see `preview`.
#[pg_extern(sql = false)]
fn report_named(name: Option<&[u8]>, format: Option<&[u8]>) -> Vec<u8> {
    call(|| {
        let format = super::arguments::name("format", format)?;
        Ok(to_server(&report::report(job(name)?, format)?)?.into_bytes())
    })
}

#[pg_extern(sql = false)]
fn reapply_named(name: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Option<i64> {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "reapply") };
    call(|| reapply::reapply(job(name)?, typed))
}

#[pg_extern(sql = false)]
fn visible_named(name: Option<&[u8]>) -> i64 {
    call(|| inspect::visible_job(job(name)?))
}
