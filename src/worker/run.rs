//! The life of a worker: take the slice, lock it, loop { wait for permission, one batch, pace },
//! finish.

use std::time::{Duration, Instant};

use super::batch::{self, Step};
use super::walk::{self, Walk};
use super::{session, takeover};
use crate::catalog::checkpoint::{self, FENCED};
use crate::catalog::job::{self, Job};
use crate::catalog::{event, outcome};
use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::job::state::{Outcome, State, Wish};
use crate::pg::bgworker::{self, Start};
use crate::pg::lock::Lock;
use crate::pg::settings::Pins;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, latch, report, signal, slots};

/// A sleeping worker is woken by a latch; this is how long it would sleep if one were lost.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// How often a worker tries to record its end.
const TRIES_TO_CONCLUDE: u32 = 2;

/// Why a worker stops.
#[derive(Debug)]
enum Ending {
    /// The walk has come to its end.
    Completed,
    /// Somebody wants it to stand still.
    Paused,
    /// Somebody wants it to end.
    Cancelled,
    /// `backfill.enabled` is off.
    Disabled,
    /// The job, its slice or the extension is somebody else's or gone: nothing to be said.
    Gone,
    /// A batch failed; with the range of keys it was about.
    Failed(Error, Option<String>),
}

/// Runs the job with this id, and then others of the same owner's that wait for a worker.
///
/// No job is forgotten: one that found no free slot is seen by whoever holds the slots, since each
/// looks once more after it has given its own back.
pub fn main(id: i64) {
    signal::install();
    let start = bgworker::my_start();
    session::connect(start);
    let mut job = Some(id);
    let mut unsettled = Vec::new();
    let mut me = Some(start);
    while let Some(slot) = take_slot() {
        while let Some(id) = job {
            if !hold_and_run(id, start) {
                unsettled.push(id);
            }
            me = me.filter(|_| takeover::may_go_on_after(id));
            job = me.and_then(|me| takeover::next(me, &unsettled));
            session::clear();
        }
        slot.release_session();
        job = takeover::hand_over(me, &unsettled);
        if job.is_none() {
            return;
        }
    }
}

fn take_slot() -> Option<Lock> {
    if !guc::ENABLED.get() {
        return None;
    }
    txn::run(Durability::Deferred, || Ok(slots::take()))
        .ok()
        .flatten()
}

/// Runs the job, if it is there, is to run, and nobody else runs it. False if it may still be
/// waiting for a worker afterwards, and this one should leave it alone.
fn hold_and_run(id: i64, start: Start) -> bool {
    let lock = Lock::Job(id);
    if txn::run(Durability::Deferred, || Ok(lock.try_session())) != Ok(true) {
        return true;
    }
    let (ending, attempt) = run(id, start);
    session::keep_identity(start);
    // A cancel that was meant for the batch may hit the first try.
    let recorded = (0..TRIES_TO_CONCLUDE).any(|_| conclude(id, &ending, attempt));
    lock.release_session();
    recorded && !matches!(ending, Ending::Gone | Ending::Disabled)
}

/// From the job's row to its ending; with the attempt that it ends.
fn run(id: i64, start: Start) -> (Ending, i32) {
    let mut job = match txn::run(Durability::Deferred, || job::load(id)) {
        Ok(Some(job)) if job.owner == start.owner => job,
        Ok(_) => return (Ending::Gone, 0),
        Err(error) => {
            report::log(&format!("backfill job {id}: cannot be read: {error}"));
            return (Ending::Gone, 0);
        }
    };
    let ending = unwanted(&job).unwrap_or_else(|| batches(&mut job, start));
    (ending, job.attempt)
}

/// The batches of a job, from claiming its slice on.
fn batches(job: &mut Job, start: Start) -> Ending {
    let (mut pins, mut walk) = match begin(job) {
        Ok((pins, Some(walk))) => (pins, walk),
        Ok((_, None)) => return Ending::Completed,
        Err(error) => return Ending::Failed(error, None),
    };
    let mut changed = false;
    loop {
        session::keep_identity(start);
        if !keep_lock(job.id) {
            return Ending::Gone;
        }
        match permission(job, &mut pins, changed) {
            Ok(None) => changed = false,
            Ok(Some(ending)) => return ending,
            Err(error) => return Ending::Failed(error, None),
        }
        match batch::run(&mut walk, job) {
            Ok(Step::Last) => return Ending::Completed,
            Ok(Step::Changed) => changed = true,
            Ok(Step::More) => pace(job, &walk),
            Err(error) => {
                return Ending::Failed(
                    with_policy_hint(without_statement(error, &walk)),
                    Some(walk.attempted_range()),
                );
            }
        }
    }
}

/// Takes the job's lock again if user code let it go; false if somebody else was quicker.
fn keep_lock(id: i64) -> bool {
    let lock = Lock::Job(id);
    lock.is_held() || txn::run(Durability::Deferred, || Ok(lock.try_session())) == Ok(true)
}

/// Pins the session and takes the slice, in the worker's first transaction but one.
fn begin(job: &Job) -> Result<(Pins, Option<Walk>)> {
    let pins = txn::run(Durability::Deferred, || {
        let mut pins = session::pins(job)?;
        pins.apply();
        Ok(pins)
    })?;
    let walk = txn::run(Durability::Deferred, || {
        let walk = walk::claim(job)?;
        event::record(
            job.id,
            job.owner,
            "worker started",
            None,
            Some(State::Running.name()),
        )?;
        Ok(walk)
    })?;
    report::log(&format!(
        "backfill {} on {} runs",
        job.shown(),
        job.relation_name
    ));
    Ok((pins, walk))
}

/// Looks, between two batches, whether the job may go on, and with which pace and settings.
fn permission(job: &mut Job, pins: &mut Pins, changed: bool) -> Result<Option<Ending>> {
    signal::reload_if_asked();
    if !guc::ENABLED.get() {
        return Ok(Some(Ending::Disabled));
    }
    if changed {
        let Some(now) = txn::run(Durability::Deferred, || job::load(job.id))? else {
            return Ok(Some(Ending::Gone));
        };
        if let Some(ending) = unwanted(&now) {
            return Ok(Some(ending));
        }
        *pins = txn::run(Durability::Deferred, || session::pins(&now))?;
        *job = now;
    }
    if !pins.hold() {
        txn::run(Durability::Deferred, || {
            pins.apply();
            Ok(())
        })?;
    }
    Ok(None)
}

/// The ending that the job's state asks for, if it is not to run. Under the job's lock a state of
/// running means that nobody has ended it meanwhile.
fn unwanted(job: &Job) -> Option<Ending> {
    match job.state() {
        State::Running => None,
        State::Pausing => Some(Ending::Paused),
        State::Cancelling => Some(Ending::Cancelled),
        _ => Some(Ending::Gone),
    }
}

/// Sleeps between two batches; ends at once when the job's row has changed.
fn pace(job: &Job, walk: &Walk) {
    if job.sleep_ms == 0 {
        return;
    }
    report::idle();
    let deadline = Instant::now() + Duration::from_millis(job.sleep_ms as u64);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        latch::wait(left.min(LONGEST_NAP));
        if Instant::now() >= deadline || signal::reload_if_asked() {
            return;
        }
        let version = txn::run(Durability::Deferred, || walk.versions.read(job.id));
        if version != Ok(Some(job.version)) {
            return;
        }
    }
}

/// Drops the context line that quotes a statement of the walk: the view shows its clauses, and the
/// range of keys says more than its parameters.
fn without_statement(mut error: Error, walk: &Walk) -> Error {
    let Some(context) = error.context.take() else {
        return error;
    };
    let texts = walk.plans.texts().map(|text| text.to_string_lossy());
    let bookkeeping = [checkpoint::REPLACE.into(), job::VersionReader::TEXT.into()];
    let own = texts
        .into_iter()
        .chain(bookkeeping)
        .map(|text| format!("SQL statement \"{text}\""));
    let rest = own
        .filter_map(|line| context.strip_suffix(line.as_str()).map(str::to_owned))
        .next();
    let rest = rest.unwrap_or(context).trim_end().to_owned();
    error.context = (!rest.is_empty()).then_some(rest);
    error
}

/// Explains the error that a policy of row security causes in a worker.
fn with_policy_hint(error: Error) -> Error {
    let policy = error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE
        && error.message.contains("row-level security");
    if !policy || error.hint.is_some() {
        return error;
    }
    error.hint("Batches run with row_security = off, so that no policy hides rows quietly. Let the job be defined by a role with BYPASSRLS, or by the owner of the table with the policy.")
}

/// Records how it ended; false if that failed. The commit waits for the disk: with it, all batches before it are safe.
fn conclude(id: i64, ending: &Ending, attempt: i32) -> bool {
    let recorded = txn::run(Durability::Immediate, || {
        if matches!(ending, Ending::Gone) || !elevate::extension_exists() {
            return Ok(None);
        }
        match job::load(id)? {
            Some(job) => record(&job, ending, attempt),
            None => Ok(None),
        }
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
    let before = job.state();
    let note = |event: &str, new: State| {
        event::record(
            job.id,
            job.owner,
            event,
            Some(before.name()),
            Some(new.name()),
        )
    };
    let store = |what, error, batch| outcome::record(job.id, what, attempt, error, batch);
    let shown = job.shown();
    Ok(Some(match ending {
        Ending::Completed => {
            store(Outcome::Completed, None, None)?;
            note("completed", State::Completed)?;
            format!("backfill {shown} completed")
        }
        Ending::Failed(error, _) if error.message == FENCED => {
            format!("backfill {shown}: {error}")
        }
        // The batch was interrupted because of the wish to cancel.
        Ending::Cancelled | Ending::Failed(..) if job.wish == Wish::Cancel => {
            store(Outcome::Cancelled, None, None)?;
            note("cancelled", State::Cancelled)?;
            format!("backfill {shown} cancelled")
        }
        Ending::Failed(error, batch) => {
            store(Outcome::Failed { attempt }, Some(error), batch.as_deref())?;
            note("failed", State::Failed)?;
            format!("backfill {shown} failed: {error}")
        }
        Ending::Paused => {
            note("paused", State::Paused)?;
            format!("backfill {shown} paused")
        }
        Ending::Disabled => {
            note("worker stopped", before)?;
            format!("backfill {shown} stops: backfill.enabled is off")
        }
        Ending::Gone | Ending::Cancelled => return Ok(None),
    }))
}
