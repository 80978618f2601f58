//! Makes a job stop: pauses or cancels it.

use super::hints::refused;
use super::launch;
use crate::error::Result;
use crate::model::state::{Event, State, Wish, next};
use crate::pg::server;
use crate::store::job::{self, Job};
use crate::store::{event, on_end};

/// Pauses the job, or cancels it, as `event` says; its row must be locked. The batch in progress ends first or, with
/// `now`, is interrupted. Returns the state after it; refuses what the job's state does not allow.
pub fn stop(job: &Job, event: Event, now: bool) -> Result<String> {
    let old = job.state();
    let (wish, verb) = match event {
        Event::Pause => (Wish::Pause, "pause"),
        _ => (Wish::Cancel, "cancel"),
    };
    if next(old, event).is_none() {
        return Err(refused(job, old, verb));
    }
    job::set_wish(job.id, wish)?;
    let changed = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
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
