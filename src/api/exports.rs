//! The C entry points behind `sql/functions.sql`. They only convert arguments and errors.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use std::ffi::CStr;

use pgrx::datum::Internal;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

use super::call::Request;
use super::{
    alter, approve, control, define, forget, inspect, limits, plan, preview, procedure, redefine,
    rehearse, report, require, retry_failed, set_not_null, start, verify, wait,
};
use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::capture::capture;
use crate::pg::report::unwrap;
use crate::pg::spi::{self, connect};
use crate::pg::text::{from_bytes, to_server};
use crate::pg::{guard, schemas, typed, xact};
use crate::store::{extension, origin};

/// Runs a function within `spi::connect`, if this library and the extension have the same version. PostgreSQL's own
/// errors are raised again from here, since pgrx would drop their context and add a backtrace.
fn call<T>(f: impl FnOnce() -> Result<T>) -> T {
    unwrap(capture(|| {
        let _names = schemas::Scope::begin();
        xact::refuse_to_prepare();
        extension::check_version()?;
        connect(f)
    }))
}

/// Reads a text argument of `most` bytes at most. It is taken as bytes, since pgrx accepts only UTF-8 for text.
fn text(what: &str, argument: Option<&[u8]>, most: usize) -> Result<Option<String>> {
    let Some(bytes) = argument else {
        return Ok(None);
    };
    limits::check(what, bytes.len(), most)?;
    from_bytes(bytes).map(Some)
}

/// Reads an argument that is a name, or one of a few words.
fn name(what: &str, argument: Option<&[u8]>) -> Result<Option<String>> {
    text(what, argument, limits::NAME)
}

/// Reads a text that a view passes on, and that comes from one of our tables.
fn word(argument: Option<&[u8]>) -> Option<String> {
    argument
        .filter(|bytes| bytes.len() <= limits::NAME)
        .and_then(|bytes| from_bytes(bytes).ok())
}

/// Reads a jsonb argument. It is taken as a datum, since pgrx would panic on values that serde_json cannot hold.
fn json(argument: Option<Internal>) -> Result<Option<serde_json::Value>> {
    let Some(datum) = argument.and_then(Internal::unwrap) else {
        return Ok(None);
    };
    let check = |bytes| limits::check("options", bytes, limits::JSON);
    // SAFETY: `options` is declared as jsonb in each function that takes it, in sql/functions.sql, and is not NULL
    // here.
    let text = unsafe { spi::output_jsonb(datum, check) }?;
    serde_json::from_str(&text).map(Some).map_err(|e| {
        Error::invalid(format!("options cannot be read: {e}"))
            .hint("Options are a flat JSON object with small values.")
    })
}

/// Reads the arguments that `define`, `start`, `plan` and `preview` share.
fn request(
    relation: Option<Oid>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    named: Option<&[u8]>,
    options: Option<Internal>,
) -> Result<Request> {
    Ok(Request {
        relation,
        set_clause: text("set_clause", set_clause, limits::CLAUSE)?,
        where_clause: text("where_clause", where_clause, limits::CLAUSE)?,
        name: name("name", named)?,
        options: json(options)?,
    })
}

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
fn verify(
    job_id: Option<i64>,
    check_clause: Option<&[u8]>,
    recompute: Option<bool>,
    options: Option<Internal>,
) -> i64 {
    call(move || {
        verify::verify(
            job_id,
            text("check_clause", check_clause, limits::CLAUSE)?,
            recompute,
            json(options)?,
        )
    })
}

#[pg_extern(sql = false)]
fn reapply(job_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> Option<i64> {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "reapply") };
    call(|| verify::reapply(job_id, typed))
}

/// Text is returned as bytes, see `preview`.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn plan(
    relation: Option<Oid>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    format: Option<&[u8]>,
) -> TableIterator<
    'static,
    (
        name!(section, Vec<u8>),
        name!(item, Vec<u8>),
        name!(value, Vec<u8>),
        name!(advice, Option<Vec<u8>>),
    ),
> {
    let lines = call(|| {
        let request = request(relation, set_clause, where_clause, name, options)?;
        let lines = plan::plan(request, batch_size, sleep_ms, self::name("format", format)?)?;
        lines
            .into_iter()
            .map(|line| {
                let advice = line.advice.as_deref().map(to_server).transpose()?;
                Ok((
                    line.section.as_bytes().to_vec(),
                    to_server(&line.item)?.into_bytes(),
                    to_server(&line.value)?.into_bytes(),
                    advice.map(|advice| advice.into_bytes()),
                ))
            })
            .collect::<Result<Vec<_>>>()
    });
    TableIterator::new(lines)
}

/// Text is returned as bytes, see `preview`.
#[pg_extern(sql = false)]
fn rehearse(
    job_id: Option<i64>,
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
    let tried = call(|| {
        let tried = rehearse::rehearse(job_id, rows)?.into_iter();
        tried
            .map(|one| {
                let error = one.error.as_deref().map(to_server).transpose()?;
                Ok((
                    to_server(&one.what)?.into_bytes(),
                    one.rows,
                    one.failed,
                    one.ms_per_row,
                    one.wal_bytes_per_row,
                    one.dead_tuples,
                    error.map(|error| error.into_bytes()),
                ))
            })
            .collect::<Result<Vec<_>>>()
    });
    TableIterator::new(tried)
}

type Sample = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// Text is returned as bytes, which have the same form, since pgrx returns only UTF-8 for text.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn preview(
    relation: Option<Oid>,
    _batch_size: Option<i32>,
    _sleep_ms: Option<i32>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    name: Option<&[u8]>,
    options: Option<Internal>,
    limit: Option<i32>,
) -> TableIterator<
    'static,
    (
        name!(key, Option<Vec<u8>>),
        name!(before, Option<Vec<u8>>),
        name!(after, Option<Vec<u8>>),
        name!(error, Option<Vec<u8>>),
    ),
> {
    let rows: Vec<Sample> = call(|| {
        let request = request(relation, set_clause, where_clause, name, options)?;
        let server = |text: Option<String>| -> Result<Option<Vec<u8>>> {
            text.map(|text| Ok(to_server(&text)?.into_bytes()))
                .transpose()
        };
        let rows = preview::preview(request, limit)?.into_iter();
        rows.map(|row| {
            Ok((
                server(row.key)?,
                server(row.before)?,
                server(row.after)?,
                server(row.error)?,
            ))
        })
        .collect()
    });
    TableIterator::new(rows)
}

/// Used by the previous version's SQL until it is updated.
#[pg_extern(sql = false)]
fn require_completed(name: Option<&[u8]>, verified: Option<bool>) {
    call(|| require::require_completed(self::name("name", name)?, verified, None))
}

#[pg_extern(sql = false)]
fn require_completed_of(name: Option<&[u8]>, verified: Option<bool>, relation: Option<Oid>) {
    call(|| require::require_completed(self::name("name", name)?, verified, relation))
}

#[pg_extern(sql = false)]
fn report(job_id: Option<i64>, format: Option<&[u8]>) -> Vec<u8> {
    call(|| {
        let report = report::report(job_id, self::name("format", format)?)?;
        Ok(to_server(&report)?.into_bytes())
    })
}

#[pg_extern(sql = false)]
fn procedure(job_id: Option<i64>, style: Option<&[u8]>, install: Option<bool>) -> Vec<u8> {
    call(|| {
        let script = procedure::of_job(job_id, self::name("style", style)?, install)?;
        Ok(to_server(&script)?.into_bytes())
    })
}

#[pg_extern(sql = false)]
fn procedure_named(name: Option<&[u8]>, style: Option<&[u8]>, install: Option<bool>) -> Vec<u8> {
    call(|| {
        let script = procedure::of_name(
            self::name("name", name)?,
            self::name("style", style)?,
            install,
        )?;
        Ok(to_server(&script)?.into_bytes())
    })
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

#[pg_extern(sql = false)]
fn library_version() -> &'static str {
    extension::LIBRARY
}

/// Used by the previous version's view until its SQL is updated.
#[pg_extern(sql = false)]
fn state_of(
    wish: Option<&[u8]>,
    attempt: Option<i32>,
    outcome: Option<&[u8]>,
    outcome_attempt: Option<i32>,
    live: Option<bool>,
    system_identifier: Option<i64>,
    database_oid: Option<i64>,
) -> Option<String> {
    let here = origin::is_here(system_identifier, database_oid);
    let (wish, outcome) = (word(wish), word(outcome));
    let (wish, outcome) = (wish.as_deref(), outcome.as_deref());
    inspect::state_of(wish, attempt, outcome, outcome_attempt, live, here)
}

#[pg_extern(sql = false)]
fn state_of_job(
    wish: Option<&[u8]>,
    attempt: Option<i32>,
    outcome: Option<&[u8]>,
    outcome_attempt: Option<i32>,
    live: Option<bool>,
    standing: Option<&[u8]>,
) -> Option<String> {
    let here = Standing::parse(&word(standing)?) == Standing::Here;
    let (wish, outcome) = (word(wish), word(outcome));
    let (wish, outcome) = (wish.as_deref(), outcome.as_deref());
    inspect::state_of(wish, attempt, outcome, outcome_attempt, live, here)
}

/// Used by the previous version's view until its SQL is updated.
#[pg_extern(sql = false)]
fn waiting_for(
    state: Option<&[u8]>,
    job_id: Option<i64>,
    workers: Option<i32>,
    slots_in_use: Option<i32>,
    wished_seconds_ago: Option<f64>,
    system_identifier: Option<i64>,
    database_oid: Option<i64>,
) -> Option<String> {
    let standing = if origin::is_here(system_identifier, database_oid) {
        Standing::Here
    } else {
        Standing::Copy
    };
    inspect::waiting_for(inspect::Waiting {
        state: word(state)?,
        job_id: job_id?,
        workers: workers?,
        slots_in_use: slots_in_use?,
        wished_seconds_ago: wished_seconds_ago?,
        standing,
    })
}

#[pg_extern(sql = false)]
fn waiting_for_job(
    state: Option<&[u8]>,
    job_id: Option<i64>,
    workers: Option<i32>,
    slots_in_use: Option<i32>,
    wished_seconds_ago: Option<f64>,
    standing: Option<&[u8]>,
) -> Option<String> {
    inspect::waiting_for(inspect::Waiting {
        state: word(state)?,
        job_id: job_id?,
        workers: workers?,
        slots_in_use: slots_in_use?,
        wished_seconds_ago: wished_seconds_ago?,
        standing: Standing::parse(&word(standing)?),
    })
}

/// Tells whether a seal is valid; never makes one.
#[pg_extern(sql = false)]
fn standing(
    owner: Option<Oid>,
    owner_name: Option<&[u8]>,
    system_identifier: Option<i64>,
    database_oid: Option<i64>,
    digest: Option<&[u8]>,
    seal: Option<&[u8]>,
) -> Option<&'static str> {
    let (owner, digest) = (owner?, digest?);
    let row = origin::Row {
        owner,
        owner_name,
        system_identifier,
        database: database_oid,
        digest,
        seal,
    };
    Some(unwrap(capture(|| origin::standing(&row))).name())
}

/// Seals all jobs, for an upgrade script, which creates the SQL function and drops it again.
#[pg_extern(sql = false)]
fn seal_all() {
    unwrap(capture(|| connect(origin::seal_all)));
}

#[pg_extern(sql = false)]
fn guard(fcinfo: pg_sys::FunctionCallInfo) -> Internal {
    // SAFETY: it is the one that this function was called with.
    let fired = unsafe { guard::fired(fcinfo) };
    // Works with SQL of any version, since an update writes to these tables, too. The row is passed on unchanged.
    let row = unwrap(capture(|| match fired {
        Some(fired) => guard::pass(fired),
        None => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "function backfill_internal.guard() was not called as a trigger",
        )
        .hint("The triggers on the extension's own tables call it.")),
    }));
    Internal::from(Some(row))
}

#[pg_extern(sql = false)]
fn visible_job(job_id: Option<i64>) -> i64 {
    call(|| inspect::visible_job(job_id))
}
