//! Runs the statement that an owner wants to run when the job has ended.
//!
//! The statement runs in a transaction of its own, with the settings and rights of a batch. A failure is recorded, and
//! changes nothing about how the job has ended.

use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::pg::bgworker::Start;
use crate::pg::settings::set_text_for_transaction;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, owner_session, report, slots, spi, timeout};
use crate::store::job::{self, Job};
use crate::store::{event, extension, on_end, walk as walks};
use crate::worker::patience::patiently;
use crate::worker::session;

/// Milliseconds the statement may take if the job's batches have no limit: it holds a worker slot, which other jobs
/// wait for.
const LIMIT: i32 = 60_000;
/// Number of times the statement is started if no worker survives it: it may crash the server.
const TRIES: i32 = 3;

/// A statement that is due: the job, how it ended, and in which attempt.
struct Due {
    job: Job,
    ended: String,
    attempt: i32,
}

/// The result for the statement of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// There is no statement, or it is not due. Nothing was run.
    NotDue,
    /// It was run, or it is recorded why not.
    Done,
    /// It is still due.
    StillDue,
}

/// Runs the job's statement if it is due.
pub fn run(id: i64, start: Start) -> OnEnd {
    if !guc::ENABLED.get() {
        return OnEnd::NotDue;
    }
    // Code of a batch may have released the slot, and another worker may have taken it: only a worker with a slot does
    // this.
    if !slots::are_held() {
        return OnEnd::StillDue;
    }
    session::keep_identity(start);
    let due = patiently(&format!("on_end of job {id} cannot be looked for"), || {
        txn::run(Durability::Deferred, || find(id, start))
    });
    let done = match due {
        Ok(None) => return OnEnd::NotDue,
        Ok(Some(due)) => settle(&due, start),
        Err(error) => Err(error),
    };
    if let Err(error) = &done {
        report::log(&format!(
            "backfill job {id}: cannot record its on_end: {error}"
        ));
    }
    if done.is_ok() {
        OnEnd::Done
    } else {
        OnEnd::StillDue
    }
}

fn find(id: i64, start: Start) -> Result<Option<Due>> {
    if !elevate::extension_exists() {
        return Ok(None);
    }
    extension::check_version()?;
    let Some((ended, attempt)) = on_end::due(id)? else {
        return Ok(None);
    };
    let job = job::load(id)?.filter(|job| job.owner == start.owner && job.here);
    Ok(job.map(|job| Due {
        job,
        ended,
        attempt,
    }))
}

fn settle(due: &Due, start: Start) -> Result<()> {
    let Due { job, attempt, .. } = due;
    let Some(statement) = &job.definition.options.on_end else {
        let settled = || on_end::settle(job.id, *attempt, "done");
        return txn::run(Durability::Deferred, settled).map(|_| ());
    };
    let begin = || on_end::begin(job.id, *attempt);
    match txn::run(Durability::Immediate, begin)? {
        None => return Ok(()),
        Some(1..=TRIES) => {}
        Some(_) => {
            let message = format!("no worker came back from it in {TRIES} tries");
            return failed(due, &Error::new(sqlstate::CRASH_SHUTDOWN, message));
        }
    }
    let done = pin(job).and_then(|()| {
        let limit = match job.definition.options.statement_timeout_ms() {
            0 => LIMIT,
            given => given,
        };
        timeout::limited(limit, || {
            txn::run(Durability::Immediate, || perform(due, statement))
        })
    });
    report::idle();
    session::keep_identity(start);
    match done {
        Ok(true) => {
            report::log(&format!("backfill {}: on_end is done", job.logged()));
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) => failed(due, &error),
    }
}

/// Pins the settings of a batch, except that triggers fire: `triggers` is about the rows of the job's table only.
fn pin(job: &Job) -> Result<()> {
    let mut firing = job.clone();
    firing.definition.options.triggers = None;
    owner_session::clear(false)?;
    txn::run_setting(|| {
        session::pins(&firing)?.apply();
        Ok(())
    })
}

/// Runs the statement, after recording that it is done: a second worker waits for that record, and finds nothing due.
fn perform(due: &Due, statement: &str) -> Result<bool> {
    if !on_end::settle(due.job.id, due.attempt, "done")? {
        return Ok(false);
    }
    record(due, "done")?;
    // The extension's own prefix is reserved for settings that it has declared.
    for (name, value) in [
        (c"backfill_job.id", due.job.id.to_string().as_str()),
        (c"backfill_job.name", due.job.name.as_deref().unwrap_or("")),
        (c"backfill_job.state", due.ended.as_str()),
    ] {
        set_text_for_transaction(name, value);
    }
    spi::run_for_effect(statement)?;
    Ok(true)
}

fn record(due: &Due, result: &str) -> Result<()> {
    let job = &due.job;
    event::record(job.id, job.owner, "on_end", Some(&due.ended), Some(result))
}

/// Records that the statement failed. Note and event omit the message, which may contain row data: everyone who may see
/// the job can read them.
fn failed(due: &Due, error: &Error) -> Result<()> {
    let job = &due.job;
    report::log(&format!(
        "backfill {}: on_end failed: {error}",
        job.logged()
    ));
    let result = format!("failed with SQLSTATE {}", error.sqlstate);
    txn::run(Durability::Immediate, || {
        if !elevate::extension_exists() || !on_end::settle(job.id, due.attempt, "failed")? {
            return Ok(());
        }
        record(due, &result)?;
        walks::add_note(
            job.id,
            &format!("on_end ({}) {result}, see the server log", due.ended),
        )
    })
}
