//! Entry points behind views, triggers and the installation.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use pgrx::datum::Internal;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

use super::arguments::{call, word};
use crate::api::inspect;
use crate::error::{Error, sqlstate};
use crate::model::standing::Standing;
use crate::pg::capture::capture;
use crate::pg::guard;
use crate::pg::report::unwrap;
use crate::pg::spi::connect;
use crate::store::{extension, origin};

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
