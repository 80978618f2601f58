//! What the views ask: the state of a job, what it waits for, and who may see it.

use pgrx::pg_sys::Oid;

use super::caller::{denied, required};
use crate::catalog::job::{self, is_here};
use crate::error::Result;
use crate::guc;
use crate::job::state::{Facts, Outcome, Wish, derive};
use crate::pg::elevate::as_extension;
use crate::pg::server;
use crate::pg::spi;

/// The state of a job, from the columns that it is derived from.
pub fn state_of(
    wish: Option<&str>,
    attempt: Option<i32>,
    outcome: Option<&str>,
    outcome_attempt: Option<i32>,
    live: Option<bool>,
    origin: (Option<i64>, Option<i64>),
) -> Option<String> {
    let facts = Facts {
        wish: Wish::parse(wish?)?,
        attempt: attempt?,
        outcome: outcome
            .zip(outcome_attempt)
            .and_then(|(name, at)| Outcome::parse(name, at)),
        live: live?,
        here: is_here(origin.0, origin.1),
    };
    Some(derive(facts).to_string())
}

/// Seconds after `start` or `resume` in which a missing worker is nothing to worry about.
const STARTING: f64 = 2.0;

/// What a job waits for, and what to do about it; nothing where a worker runs it.
pub fn waiting_for(
    state: Option<&str>,
    job_id: Option<i64>,
    workers: Option<i32>,
    wished_seconds_ago: Option<f64>,
    origin: (Option<i64>, Option<i64>),
) -> Option<String> {
    let job_id = job_id?;
    match state? {
        "pending" => Some("backfill.start()".to_owned()),
        "paused" if !is_here(origin.0, origin.1) => Some(format!(
            "this database is a copy of the one the job was started in: backfill.resume({job_id}) runs it here"
        )),
        "running" if !guc::ENABLED.get() => Some("backfill.enabled is off".to_owned()),
        "running" if workers == Some(0) && wished_seconds_ago.is_some_and(|s| s < STARTING) => {
            Some("its worker, which is starting".to_owned())
        }
        "running" if workers == Some(0) => Some(format!(
            "a worker: none is running this job (backfill.max_workers is {}); backfill.resume({job_id}) starts one",
            guc::MAX_WORKERS.get()
        )),
        _ => None,
    }
}

/// The id, if the caller may see the job.
pub fn visible_job(job_id: Option<i64>) -> Result<i64> {
    let id = required(job_id, "job_id")?;
    let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    if server::may_act_for(job.owner) || server::may_act_for(monitor()?) {
        Ok(id)
    } else {
        Err(denied(id))
    }
}

fn monitor() -> Result<Oid> {
    let row = as_extension(|| {
        spi::first(
            "SELECT 'pg_monitor'::pg_catalog.regrole::pg_catalog.oid::bigint",
            &[],
        )
    })?;
    row.map_or(Ok(Oid::INVALID), |row| Ok(Oid::from(row.number(0)? as u32)))
}
