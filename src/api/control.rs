//! `backfill.pause`, `resume`, `cancel`, `pause_all` and `resume_all`.

use super::caller::{activated_job, attended_job, required};
use super::existing::{refuse_overlap, try_lock};
use super::{adopt, launch};
use crate::error::{Error, Result, sqlstate};
use crate::model::state::{Event, State, Wish, next};
use crate::pg::report::warning;
use crate::pg::{read_only, server};
use crate::quote::literal;
use crate::store::job::{self, Job};
use crate::store::{event, on_end};

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
            _ => change(&job, Event::Pause, now),
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
    change(job, Event::Resume, false)
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
            _ => change(&job, Event::Cancel, now),
        }
    })
}

/// Pauses every running job that the caller may act on.
pub fn pause_all() -> Result<i64> {
    let running = |job: &Job| job.state() == State::Running;
    let ready = |_: &Job| Ok(true);
    read_only::writing_despite_default(|| {
        all("backfill.pause_all()", running, ready, |job| {
            change(job, Event::Pause, false)
        })
    })
}

/// Resumes every paused job that the caller may act on, and every running one that has lost its worker.
pub fn resume_all() -> Result<i64> {
    let idle = |job: &Job| matches!(job.state(), State::Paused | State::Pausing) || is_orphan(job);
    let ready = |job: &Job| try_lock(job.relation);
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

/// Cancels a job whose columns another job needs, and interrupts its batch. The job's row must be locked.
pub fn end(job: &Job) -> Result<String> {
    change(job, Event::Cancel, true)
}

/// Takes the edge of the state machine for `event`, or refuses.
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
        launch::workers(&changed)?;
    }
    launch::wake(&changed, now);
    let new = changed.state();
    event::change(job.id, server::current_user(), verb, Some(old), new)?;
    if matches!(new, State::Paused | State::Cancelled) {
        // No worker is there to report this, or to run the owner's statement for the end.
        launch::say(&changed, new);
        if new == State::Cancelled && on_end::is_owed(&changed) {
            launch::finisher(&changed);
        }
    }
    Ok(new.to_string())
}

/// Returns the error for a call that the job's state does not allow.
pub fn refused(job: &Job, state: State, verb: &str) -> Error {
    let id = job.id;
    let hint = match (state, verb) {
        (State::Pending, _) => format!("Start it first: {}", start_of(job)),
        (State::Completed, _) => {
            format!(
                "Its work is done. Rows that failed: SELECT backfill.retry_failed({id}). SELECT backfill.forget({id}) removes it."
            )
        }
        (State::Cancelled, _) => {
            format!("It stays so. {}", after_cancel(job))
        }
        (State::Failed, _) => format!(
            "See last_error in backfill.progress; SELECT backfill.resume({id}) or backfill.cancel({id})."
        ),
        (State::Paused | State::Pausing, _) => {
            format!("It stands still: SELECT backfill.resume({id}) first.")
        }
        (State::Running, "resume" | "approve") => "A worker is running it.".to_owned(),
        _ => "It ends with the batch it is in; see backfill.progress.".to_owned(),
    };
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "cannot {verb} backfill {}: it {}",
            job.shown(),
            state.phrase(false)
        ),
    )
    .hint(hint)
}

/// Returns the hint on how a failed job goes on.
pub fn after_failure(job: &Job) -> String {
    let id = job.id;
    // The error names the row by its key, so the row can be stepped over.
    let one_row = job.last_error.as_deref();
    let past = match one_row
        .is_some_and(|error| error.contains(" in batch (") && error.contains(") = ("))
    {
        true => {
            let most = job
                .definition
                .options
                .max_failed_rows()
                .saturating_mul(10)
                .clamp(100, 1_000_000);
            format!(
                "; past rows that fail, after SELECT backfill.alter({id}, options => '{{\"max_failed_rows\": {most}}}')"
            )
        }
        false => String::new(),
    };
    format!(
        "Once the cause is mended, SELECT backfill.resume({id}) lets it go on from its checkpoint; with other clauses, after SELECT backfill.redefine({id}, set_clause => '...'){past}."
    )
}

/// Returns the hint on what is left of a cancelled job and how to go on: repeating the job would do rows twice.
pub fn after_cancel(job: &Job) -> String {
    let id = job.id;
    let name = match job.name {
        Some(_) => {
            format!(", under another name, or under this one after SELECT backfill.forget({id})")
        }
        None => String::new(),
    };
    match job.attempt {
        0 => format!("It never ran. For its work start another job{name}."),
        _ => format!(
            "Its committed batches stay. For the rest start another job{name}, with a where_clause that leaves out the rows that are done."
        ),
    }
}

/// Returns the call that starts a pending job.
pub fn start_of(job: &Job) -> String {
    let table = literal(&job.relation_name);
    match &job.name {
        Some(name) => format!("SELECT backfill.start({table}, name => {}).", literal(name)),
        None => format!("SELECT backfill.start({table})."),
    }
}
