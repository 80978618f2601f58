//! The reasons why a worker stops, and how they are recorded.

use crate::error::{Error, Result, Signal};
use crate::model::state::{Outcome, State, Wish};
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, report};
use crate::store::job::{self, Job};
use crate::store::{event, extension, failed_row, on_end, outcome};
use crate::worker::patience::patiently;

/// Number of times a worker tries to record its end.
const TRIES: u32 = 2;

/// Why a worker stops.
#[derive(Debug)]
pub enum Ending {
    /// Everything is done.
    Completed,
    /// Others hold what is left to be done.
    Left,
    /// The job waits for a signal, and another job could use its worker slot.
    Behind,
    /// A user wants the job to pause.
    Paused,
    /// A user wants the job to end.
    Cancelled,
    /// `backfill.enabled` is off.
    Disabled,
    /// The job or the extension is gone, or another worker has ended the job: nothing is recorded.
    Gone,
    /// A batch failed, with this error; the text describes its rows.
    Failed(Error, Option<String>),
}

/// Records the end and releases the job's lock; returns false if the end could not be recorded.
pub fn conclude(id: i64, ending: &Ending, attempt: i32) -> bool {
    // A cancel that was meant for the batch may hit the first try.
    let recorded = (0..TRIES).any(|_| try_to_conclude(id, ending, attempt));
    Lock::Job(id).release_session();
    recorded
}

/// Tries to record the end. The commit waits for the disk, which makes all batches before it safe.
fn try_to_conclude(id: i64, ending: &Ending, attempt: i32) -> bool {
    let record = || {
        if matches!(ending, Ending::Gone) || !elevate::extension_exists() {
            return Ok(None);
        }
        // Not the job's fault: a worker with the right library will go on with it.
        if let Err(error) = extension::check_version() {
            return Ok(Some(format!(
                "backfill job {id}: its worker stops: {error}"
            )));
        }
        // Of several workers, the last one to go records the end for all.
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

/// Writes outcome and event; returns the line for the server log.
fn record(job: &Job, ending: &Ending, attempt: i32) -> Result<Option<String>> {
    let last = job.workers.is_empty();
    let before = match job.state() {
        // This worker's lock is already released.
        State::Paused => State::Pausing,
        State::Cancelled if job.outcome != Some(Outcome::Cancelled) => State::Cancelling,
        state => state,
    };
    let note = |event: &str, new: State| event::change(job.id, job.owner, event, Some(before), new);
    let store = |what, error, batch| {
        outcome::record(job.id, what, attempt, error, batch)?;
        on_end::owe(job, what, attempt)
    };
    // A worker that was asked for before may come after the last one has gone, and goes, too.
    let is_told = |event| event::is_recorded_since_wish(job.id, event);
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
        // The batch was interrupted because of the wish to cancel. Whatever made the last worker stop, the users want
        // the job to end.
        Ending::Cancelled
        | Ending::Failed(..)
        | Ending::Disabled
        | Ending::Left
        | Ending::Behind
            if job.wish == Wish::Cancel =>
        {
            if !last || is_told("cancelled")? {
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
            if is_told("paused")? {
                return Ok(None);
            }
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
