//! Functions behind the views: the state of a job, what it waits for, and who may see it.

use super::caller::{denied, may_see, required};
use super::crowd;
use crate::error::Result;
use crate::guc;
use crate::model::standing::Standing;
use crate::model::state::{Facts, Outcome, Wish, derive};
use crate::pg::{elevate, server};
use crate::store::{extension, job};

/// Returns the state of a job, from the columns that it is derived from.
pub fn state_of(
    wish: Option<&str>,
    attempt: Option<i32>,
    outcome: Option<&str>,
    outcome_attempt: Option<i32>,
    live: Option<bool>,
    here: bool,
) -> Option<String> {
    let facts = Facts {
        wish: Wish::parse(wish?)?,
        attempt: attempt?,
        outcome: outcome
            .zip(outcome_attempt)
            .and_then(|(name, at)| Outcome::parse(name, at)),
        live: live?,
        here,
    };
    Some(derive(facts).to_string())
}

/// Seconds after `start` or `resume` during which a missing worker is normal: it is starting.
const STARTING: f64 = 2.0;

/// The input of [`waiting_for`].
pub struct Waiting {
    /// The job's state.
    pub state: String,
    /// The job's id.
    pub job_id: i64,
    /// Workers that hold the job, or record its end.
    pub workers: i32,
    /// Worker slots of the server that are taken.
    pub slots_in_use: i32,
    /// Seconds since a user last asked for the job to run or to pause.
    pub wished_seconds_ago: f64,
    /// The standing of the job's row.
    pub standing: Standing,
}

/// Returns what a job waits for, and what to do about it; `None` if a worker runs it.
pub fn waiting_for(job: Waiting) -> Option<String> {
    let Waiting {
        job_id,
        slots_in_use,
        ..
    } = job;
    let limit = guc::MAX_WORKERS.get();
    if job.workers == 0
        && matches!(job.state.as_str(), "pending" | "running" | "paused")
        && let Err(error) = extension::check_version()
    {
        let hint = error.hint.as_deref().unwrap_or_default();
        return Some(format!("an update: {}: {hint}", error.message));
    }
    if job.workers == 0
        && job.state == "running"
        && let Err(error) = elevate::check_tables()
    {
        let hint = error.hint.as_deref().unwrap_or_default();
        return Some(format!("the extension's tables: {}: {hint}", error.message));
    }
    let unattended = job.state == "running" && job.workers == 0;
    let (processes, most) = match unattended {
        true => server::background_workers(),
        false => (0, 1),
    };
    let crowd = if unattended { crowd::of(job_id) } else { None };
    match job.state.as_str() {
        "pending" => Some(
            job.standing
                .keeps_from_start()
                .unwrap_or("backfill.start()")
                .to_owned(),
        ),
        "paused" if job.standing != Standing::Here => job.standing.waits_for(job_id),
        "running" if server::in_recovery() => {
            Some("nothing here: this server is a standby, the primary runs the job".to_owned())
        }
        "running" if !guc::ENABLED.get() => Some("backfill.enabled is off".to_owned()),
        "running" if job.workers > 0 => None,
        "running" if slots_in_use >= limit => Some(format!(
            "a worker to end: {slots_in_use} of {limit} (backfill.max_workers) are busy"
        )),
        "running" if crowd.is_some() => {
            crowd.map(|crowd| format!("a worker of its role to end: {crowd}"))
        }
        // A negative time means that the clock was set back since then.
        "running" if (0.0..STARTING).contains(&job.wished_seconds_ago) => {
            Some("its worker, which is starting".to_owned())
        }
        "running" if processes >= most => Some(format!(
            "a process for its worker: all {most} (max_worker_processes) are taken"
        )),
        "running" => Some(format!(
            "a worker: none is running this job; backfill.resume({job_id}) starts one"
        )),
        _ => None,
    }
}

/// Returns the id if the caller may see the job, or an error.
pub fn visible_job(job_id: Option<i64>) -> Result<i64> {
    let id = required(job_id, "job_id")?;
    let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    if may_see(&job)? {
        Ok(id)
    } else {
        Err(denied(id))
    }
}
