//! Why a worker stops, and how that is recorded.

use super::patience::patiently;
use crate::catalog::job::{self, Job};
use crate::catalog::{event, extension, failed_row, on_end, outcome};
use crate::error::{Error, Result, Signal, sqlstate};
use crate::job::state::{Outcome, State, Wish};
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, report, server};

/// How often a worker tries to record its end.
const TRIES: u32 = 2;

/// Why a worker stops.
#[derive(Debug)]
pub enum Ending {
    /// Everything is done.
    Completed,
    /// What is left to be done is in the hands of others.
    Left,
    /// The job waits for a signal, and another one could use its worker slot.
    Behind,
    /// Somebody wants it to stand still.
    Paused,
    /// Somebody wants it to end.
    Cancelled,
    /// `backfill.enabled` is off.
    Disabled,
    /// The job or the extension is gone, or another worker has ended the job: nothing to be said.
    Gone,
    /// A batch failed; with what it was about.
    Failed(Error, Option<String>),
}

/// Records it; false if that failed. Gives up the job's lock.
pub fn conclude(id: i64, ending: &Ending, attempt: i32) -> bool {
    // A cancel that was meant for the batch may hit the first try.
    let recorded = (0..TRIES).any(|_| try_to_conclude(id, ending, attempt));
    Lock::Job(id).release_session();
    recorded
}

/// The commit waits for the disk: with it, all batches before it are safe.
fn try_to_conclude(id: i64, ending: &Ending, attempt: i32) -> bool {
    let record = || {
        if matches!(ending, Ending::Gone) || !elevate::extension_exists() {
            return Ok(None);
        }
        // Not a fault of the job's: a worker with the right library is to go on with it.
        if let Err(error) = extension::check_version() {
            return Ok(Some(format!(
                "backfill job {id}: its worker stops: {error}"
            )));
        }
        // Of several workers, the last one to go speaks for all.
        Lock::Job(id).release_session();
        match job::load(id)? {
            Some(job) => self::record(&job, ending, attempt),
            None => Ok(None),
        }
    };
    let council = || Lock::Council(id).for_transaction();
    let recorded = patiently(&format!("the end of job {id} cannot be recorded"), || {
        txn::run_after(council, Durability::Immediate, record)
    });
    match recorded {
        Ok(Some(line)) => report::log(&line),
        Ok(None) => {}
        Err(error) => {
            report::log(&format!(
                "backfill job {id}: cannot record its end: {error}"
            ));
            return false;
        }
    }
    true
}

/// Writes outcome and event; gives the line for the server log.
fn record(job: &Job, ending: &Ending, attempt: i32) -> Result<Option<String>> {
    let last = job.workers.is_empty();
    let before = match job.state() {
        // This worker's lock is gone already.
        State::Paused => State::Pausing,
        State::Cancelled if job.outcome != Some(Outcome::Cancelled) => State::Cancelling,
        state => state,
    };
    let note = |event: &str, new: State| event::change(job.id, job.owner, event, Some(before), new);
    let store = |what, error, batch| {
        outcome::record(job.id, what, attempt, error, batch)?;
        on_end::owe(job, what, attempt)
    };
    let shown = job.logged();
    Ok(Some(match ending {
        Ending::Completed => {
            store(Outcome::Completed, None, None)?;
            note("completed", State::Completed)?;
            match failed_row::count(job.id)? {
                0 => format!("backfill {shown} completed"),
                1 => format!("backfill {shown} completed: 1 row failed, see backfill.failed_rows"),
                rows => format!(
                    "backfill {shown} completed: {rows} rows failed, see backfill.failed_rows"
                ),
            }
        }
        Ending::Failed(error, _) if error.signal == Some(Signal::Fenced) => {
            format!("backfill {shown}: {error}")
        }
        // The batch was interrupted because of the wish to cancel.
        // Whatever took the last worker away, what is wanted is the end.
        Ending::Cancelled
        | Ending::Failed(..)
        | Ending::Disabled
        | Ending::Left
        | Ending::Behind
            if job.wish == Wish::Cancel =>
        {
            if !last {
                return Ok(None);
            }
            store(Outcome::Cancelled, None, None)?;
            note("cancelled", State::Cancelled)?;
            format!("backfill {shown} cancelled")
        }
        Ending::Failed(error, batch) => {
            store(Outcome::Failed { attempt }, Some(error), batch.as_deref())?;
            note("failed", State::Failed)?;
            format!("backfill {shown} failed: {error}")
        }
        Ending::Paused | Ending::Disabled | Ending::Left | Ending::Behind
            if last && job.wish == Wish::Pause =>
        {
            note("paused", State::Paused)?;
            format!("backfill {shown} paused")
        }
        Ending::Disabled if last => {
            note("worker stopped", before)?;
            format!("backfill {shown} stops: backfill.enabled is off")
        }
        Ending::Behind => {
            note("worker left", before)?;
            format!("a worker of backfill {shown}, which waits, leaves its slot to another job")
        }
        Ending::Left => {
            note("worker left", before)?;
            match last {
                true => format!("the worker leaves backfill {shown}, which waits for another one"),
                false => format!("a worker leaves backfill {shown}: the others have what is left"),
            }
        }
        _ => return Ok(None),
    }))
}

/// The error of a batch, as a person wants to see it.
pub fn explained(error: Error, job: &Job) -> Error {
    let mut error = with_rights_hint(with_policy_hint(without_statement(error)), job);
    let several = job.definition.options.workers() > 1;
    let limit = job.definition.options.statement_timeout_ms();
    if error.sqlstate == sqlstate::QUERY_CANCELED && limit > 0 && error.hint.is_none() {
        error.hint = Some(format!(
            "The option \"statement_timeout_ms\" is {limit}: raise it with backfill.alter({0}, options => '{{\"statement_timeout_ms\": {1}}}'), then backfill.resume({0}).",
            job.id,
            i64::from(limit) * 10
        ));
    }
    if error.sqlstate == sqlstate::UNDEFINED_OBJECT
        && error.hint.is_none()
        && error.message.contains("configuration parameter")
    {
        error.hint = Some(format!(
            "A worker has the settings of its own session. Give it this one: SELECT backfill.alter({0}, options => '{{\"settings\": {{\"app.name\": \"value\"}}}}'), backfill.resume({0}).",
            job.id
        ));
    }
    if error.sqlstate == sqlstate::UNIQUE_VIOLATION && error.hint.is_none() {
        error.hint = Some(format!(
            "Each batch has to be free of duplicates, beside the rows that are still to come. Where values are shifted or swapped among rows, cancel the job and take two steps: first to values that no row has, then from there to those wanted. Where the duplicate is a real one, mend it, then SELECT backfill.resume({}).",
            job.id
        ));
    }
    if error.sqlstate == sqlstate::DEADLOCK_DETECTED && several {
        error.hint = Some(format!(
            "Its workers may have met in rows that a trigger writes: SELECT backfill.alter({0}, options => '{{\"workers\": 1}}'), then backfill.resume({0}).",
            job.id
        ));
    }
    error
}

/// Drops the outermost context, which quotes the statement that the worker ran: the view shows its
/// clauses, and the range of keys says more than its parameters.
fn without_statement(mut error: Error) -> Error {
    const QUOTED: &str = "SQL statement \"";
    let Some(context) = error.context.take() else {
        return error;
    };
    let start = match context.rfind(&format!("\n{QUOTED}")) {
        Some(start) => Some(start),
        None => context.starts_with(QUOTED).then_some(0),
    };
    let rest = match start {
        Some(start) if context.ends_with('"') => &context[..start],
        _ => &context,
    };
    error.context = (!rest.is_empty()).then(|| rest.to_owned());
    error
}

/// Says whose rights are missing.
fn with_rights_hint(error: Error, job: &Job) -> Error {
    let denied = error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE
        && error.message.starts_with("permission denied");
    if !denied || error.hint.is_some() {
        return error;
    }
    // The batch's transaction has ended, and names are read within one.
    let owner = txn::run(Durability::Deferred, || Ok(server::role_name(job.owner)));
    let owner = owner.unwrap_or_else(|_| format!("with OID {}", job.owner));
    error.hint(whose_rights(&owner, job.id))
}

/// What to do where rights are missing.
pub fn whose_rights(owner: &str, job: i64) -> String {
    format!(
        "The batches run with the rights of role {owner}, which defined the job: GRANT it what is missing, then SELECT backfill.resume({job})."
    )
}

/// Explains the error that a policy of row security causes in a worker. PostgreSQL's own hint, if
/// there is one, only says how a policy is no longer forced on the table's owner.
fn with_policy_hint(error: Error) -> Error {
    const HINT: &str = "Batches run with row_security = off, so that no policy hides rows quietly. Let the job be defined by a role with BYPASSRLS, or by the owner of the table with the policy, unless it is forced on him.";
    let policy = error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE
        && error.message.contains("row-level security");
    if !policy {
        return error;
    }
    let hint = match &error.hint {
        Some(given) => format!("{HINT} {given}"),
        None => HINT.to_owned(),
    };
    error.hint(hint)
}
