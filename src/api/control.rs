//! `backfill.pause`, `resume`, `cancel`, and the two for all jobs.

use super::caller::{locked_job, required};
use super::define::refuse_overlap;
use super::launch;
use crate::catalog::event;
use crate::catalog::job::{self, Job};
use crate::error::{Error, Result, sqlstate};
use crate::job::state::{Event, State, Wish, next};
use crate::pg::server;

/// Holds the job after its batch.
pub fn pause(job_id: Option<i64>) -> Result<String> {
    let job = locked_job(job_id, "backfill.pause()")?;
    match job.state() {
        state @ (State::Pausing | State::Paused) => Ok(state.to_string()),
        _ => change(&job, Event::Pause, false),
    }
}

/// Lets the job go on, or gives a running one that has lost its worker a new one.
pub fn resume(job_id: Option<i64>) -> Result<String> {
    let job = locked_job(job_id, "backfill.resume()")?;
    let orphan = job.state() == State::Running && job.worker.is_none();
    if orphan {
        launch::worker(&job)?;
        return Ok(State::Running.to_string());
    }
    change(&job, Event::Resume, false)
}

/// Ends the job after its batch, or at once.
pub fn cancel(job_id: Option<i64>, now: Option<bool>) -> Result<String> {
    let now = required(now, "now")?;
    let job = locked_job(job_id, "backfill.cancel()")?;
    match job.state() {
        State::Cancelled => Ok(State::Cancelled.to_string()),
        State::Cancelling => {
            launch::wake(&job, now);
            Ok(State::Cancelling.to_string())
        }
        _ => change(&job, Event::Cancel, now),
    }
}

/// Pauses every running job of the caller's.
pub fn pause_all() -> Result<i64> {
    all("backfill.pause_all()", Event::Pause, |state| {
        state == State::Running
    })
}

/// Resumes every paused job of the caller's.
pub fn resume_all() -> Result<i64> {
    all("backfill.resume_all()", Event::Resume, |state| {
        matches!(state, State::Paused | State::Pausing)
    })
}

fn all(function: &str, event: Event, wanted: fn(State) -> bool) -> Result<i64> {
    server::refuse_on_standby(function)?;
    let mut count = 0;
    for job in job::unfinished()? {
        if !server::may_act_for(job.owner) || !wanted(job.state()) {
            continue;
        }
        let Some(job) = job::lock(job.id)? else {
            continue;
        };
        if wanted(job.state()) {
            change(&job, event, false)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Takes the one edge of the state machine that `event` stands for, or refuses.
fn change(job: &Job, event: Event, now: bool) -> Result<String> {
    let old = job.state();
    let (wish, verb) = match event {
        Event::Pause => (Wish::Pause, "pause"),
        Event::Resume => (Wish::Run, "resume"),
        _ => (Wish::Cancel, "cancel"),
    };
    if next(old, event).is_none() {
        return Err(refused(job, old, verb));
    }
    if event == Event::Resume {
        refuse_overlap(job.id)?;
    }
    job::set_wish(job.id, wish)?;
    let changed = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    if event == Event::Resume {
        launch::worker(&changed)?;
    }
    launch::wake(&changed, now);
    let new = changed.state();
    event::record(
        job.id,
        server::current_user(),
        verb,
        Some(old.name()),
        Some(new.name()),
    )?;
    Ok(new.to_string())
}

fn refused(job: &Job, state: State, verb: &str) -> Error {
    let hint = match (state, verb) {
        (State::Pending, "cancel") => "",
        (State::Pending, _) => "Start it first: SELECT backfill.start('table', name => '…').",
        (State::Completed, _) => "It has done its work. SELECT backfill.forget(job_id) removes it.",
        (State::Cancelled, _) => {
            "A cancelled job stays so. SELECT backfill.forget(job_id), then start it again."
        }
        (State::Cancelling, _) => "It is being cancelled.",
        (State::Failed, _) => {
            "See last_error in backfill.progress; backfill.resume() or backfill.cancel() it."
        }
        (State::Running, "resume") => "A worker is running it already.",
        _ => "See backfill.progress.",
    };
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!("cannot {verb} backfill {}: it is {state}", job.shown()),
    )
    .hint(hint)
}
