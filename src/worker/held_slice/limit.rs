//! Limits of a job: it pauses by itself when it has done as much as is wanted (a small first run, for example).

use std::time::Duration;

use crate::error::Result;
use crate::model::state::{State, Wish};
use crate::pg::txn::{self, Durability};
use crate::pg::{latch, report, server};
use crate::store::job::{self, Job};
use crate::store::walk::{self, FOR_THE_REST, PAUSED_AT};
use crate::store::{event, slice};

/// Length of the wait for a call that is changing the job.
const MOMENT: Duration = Duration::from_millis(200);

/// Returns the number of rows that may still be updated; `None` if there is no limit.
pub fn rows_left(job: &Job) -> Result<Option<i64>> {
    let Some(limit) = job.definition.options.limit_rows else {
        return Ok(None);
    };
    Ok(Some((limit - slice::updated(job.id)?).max(0)))
}

/// Returns the option and the text for a job that has updated as many rows as it may.
pub fn of_rows(job: &Job) -> (&'static str, String) {
    let limit = job.definition.options.limit_rows.unwrap_or_default();
    ("limit_rows", format!("limit_rows ({limit})"))
}

/// Returns the option and the text for a job that has walked as far as it may.
pub fn of_keys(job: &Job) -> (&'static str, String) {
    let bounds = job.definition.options.bounds().unwrap_or_default();
    match (bounds.from, bounds.to) {
        (_, Some(to)) => ("key_to", format!("key_to ({})", to.join(", "))),
        (from, None) => {
            let from = from.unwrap_or_default().join(", ");
            (
                "key_from",
                format!("the last key, from key_from ({from}) on"),
            )
        }
    }
}

/// Makes the job pause, on the owner's behalf. `at` is the option that asks for it, and the text that says why. If a
/// call is just changing the job, only waits a moment, and the caller tries again.
pub fn pause(job: &Job, (option, at): (&str, String)) -> Result<()> {
    let paused = txn::run(Durability::Deferred, || {
        let Some(now) = job::lock_if_free(job.id)? else {
            return Ok(false);
        };
        if now.state() != State::Running || now.version != job.version {
            return Ok(true);
        }
        job::set_wish(job.id, Wish::Pause)?;
        let id = job.id;
        walk::add_note(
            id,
            &format!(
                "{PAUSED_AT}{at}{FOR_THE_REST}SELECT backfill.alter({id}, options => '{{\"{option}\": null}}'), backfill.resume({id})"
            ),
        )?;
        let me = server::current_user();
        event::change(id, me, "pause", Some(State::Running), State::Pausing)?;
        Ok(true)
    })?;
    if paused {
        report::log(&format!("backfill {} pauses at {at}", job.logged()));
    } else {
        latch::wait(MOMENT);
    }
    Ok(())
}
