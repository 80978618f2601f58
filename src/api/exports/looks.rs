//! Entry points that look, before a run or after it.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use pgrx::datum::Internal;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

use super::arguments::{call, json, name, request, text};
use crate::api::{limits, plan, preview, procedure, reapply, rehearse, report, require, verify};
use crate::error::Result;
use crate::pg::text::to_server;
use crate::pg::typed;

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
    TableIterator::new(call(|| tried(rehearse::rehearse(job_id, rows)?)))
}

/// A line of `rehearse`, as it is returned.
pub(super) type Rehearsed = (
    Vec<u8>,
    i64,
    i64,
    Option<f64>,
    Option<f64>,
    i64,
    Option<Vec<u8>>,
);

/// Converts the lines of `rehearse`.
pub(super) fn tried(lines: Vec<rehearse::Tried>) -> Result<Vec<Rehearsed>> {
    let line = |one: rehearse::Tried| {
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
    };
    lines.into_iter().map(line).collect()
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
fn reapply(job_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> Option<i64> {
    // SAFETY: it is the one that this function was called with.
    let typed = unsafe { typed::is_typed(fcinfo, "reapply") };
    call(|| reapply::reapply(job_id, typed))
}
