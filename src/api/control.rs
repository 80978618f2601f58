//! `backfill.pause`, `resume`, `cancel`, `pause_all` and `resume_all`.

use super::caller::{activated_job, attended_job, required};
use super::existing::refuse_overlap;
use super::hints::refused;
use super::stop::stop;
use super::{adopt, definition_lock, launch};
use crate::error::Result;
use crate::model::state::{Event, State, Wish, next};
use crate::pg::report::warning;
use crate::pg::{read_only, server};
use crate::store::event;
use crate::store::job::{self, Job};

/// Pauses the job after its batch, or at once.
pub fn pause(job_id: Option<i64>, now: Option<bool>) -> Result<String> {
    let now = required(now, "now")?;
    read_only::writing_despite_default(|| {
        let job = attended_job(job_id, "backfill.pause()")?;
        match job.state() {
            State::Paused => Ok(State::Paused.to_string()),
            State::Pausing => {
                launch::wake(&job, now);
                Ok(State::Pausing.to_string())
            }
            _ => stop(&job, Event::Pause, now),
        }
    })
}

/// Lets the job go on, or gives a new worker to a running job that has lost its own.
pub fn resume(job_id: Option<i64>) -> Result<String> {
    resume_job(&activated_job(job_id, "backfill.resume()")?)
}

fn resume_job(job: &Job) -> Result<String> {
    if next(job.state(), Event::Resume).is_some() && adopt::if_need_be(job)? {
        let adopted = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
        return resume_job(&adopted);
    }
    if is_orphan(job) {
        if !launch::has_room(job)? {
            // A worker that gives a slot back looks for the job; another process would only find no free slot.
            launch::announce_full_house(job)?;
            return Ok(State::Running.to_string());
        }
        let running = State::Running.name();
        event::record(
            job.id,
            server::current_user(),
            "resume",
            Some(running),
            Some(running),
        )?;
        launch::workers(job)?;
        return Ok(State::Running.to_string());
    }
    go_on(job)
}

/// Makes a job that stands still run again, or refuses.
fn go_on(job: &Job) -> Result<String> {
    let old = job.state();
    if next(old, Event::Resume).is_none() {
        return Err(refused(job, old, "resume"));
    }
    refuse_overlap(job.id)?;
    job::set_wish(job.id, Wish::Run)?;
    let changed = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    launch::workers(&changed)?;
    launch::wake(&changed, false);
    let new = changed.state();
    event::change(job.id, server::current_user(), "resume", Some(old), new)?;
    Ok(new.to_string())
}

/// True if the job should run and has no worker.
fn is_orphan(job: &Job) -> bool {
    job.state() == State::Running && job.workers.is_empty()
}

/// Cancels the job after its batch, or at once.
pub fn cancel(job_id: Option<i64>, now: Option<bool>) -> Result<String> {
    let now = required(now, "now")?;
    read_only::writing_despite_default(|| {
        let job = attended_job(job_id, "backfill.cancel()")?;
        match job.state() {
            State::Cancelled => Ok(State::Cancelled.to_string()),
            State::Cancelling => {
                launch::wake(&job, now);
                Ok(State::Cancelling.to_string())
            }
            _ => stop(&job, Event::Cancel, now),
        }
    })
}

/// Pauses every running job that the caller may act on.
pub fn pause_all() -> Result<i64> {
    let running = |job: &Job| job.state() == State::Running;
    let ready = |_: &Job| Ok(true);
    read_only::writing_despite_default(|| {
        all("backfill.pause_all()", running, ready, |job| {
            stop(job, Event::Pause, false)
        })
    })
}

/// Resumes every paused job that the caller may act on, and every running one that has lost its worker.
pub fn resume_all() -> Result<i64> {
    let idle = |job: &Job| matches!(job.state(), State::Paused | State::Pausing) || is_orphan(job);
    let ready = |job: &Job| definition_lock::try_take(job.relation);
    let resumed = all(
        "backfill.resume_all()",
        |job| idle(job) && job.here,
        ready,
        resume_job,
    )?;
    adopt::warn_of_left_out(idle)?;
    Ok(resumed)
}

fn all(
    function: &str,
    wanted: impl Fn(&Job) -> bool,
    ready: impl Fn(&Job) -> Result<bool>,
    act: impl Fn(&Job) -> Result<String>,
) -> Result<i64> {
    read_only::refuse(function)?;
    let mut count = 0;
    let mut busy = Vec::new();
    for id in job::unfinished(server::current_user())? {
        let Some(job) = job::load_readable(id)?.filter(&wanted) else {
            continue;
        };
        let free = if ready(&job)? {
            job::lock_if_free(job.id)?
        } else {
            None
        };
        match free {
            Some(job) if wanted(&job) => {
                act(&job)?;
                count += 1;
            }
            Some(_) => {}
            None => busy.push(job.id.to_string()),
        }
    }
    if !busy.is_empty() {
        warning(
            &format!(
                "left alone, since an open transaction is changing them, or their table's jobs: job {}",
                busy.join(", ")
            ),
            Some("Call it again, or set backfill.enabled to off, which stops every job."),
        );
    }
    Ok(count)
}
