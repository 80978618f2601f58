//! `backfill.require_completed`: what the next migration relies on, as an error if it is not so.

use super::caller::required;
use super::control::{after_cancel, start_of};
use super::verify;
use crate::catalog::job::{self, Job};
use crate::catalog::{approval, failed_row, outcome, slice, trial};
use crate::error::{Error, Result, sqlstate};
use crate::job::state::State;
use crate::pg::server;

/// Returns if the backfill of this name has completed without a failed row, and, if that is asked, was found to
/// be right since. Never waits.
pub fn require_completed(name: Option<String>, verified: Option<bool>) -> Result<()> {
    let name = required(name, "name")?;
    let verified = required(verified, "verified")?;
    let job = of_name(&name)?;
    if job.state() != State::Completed {
        return Err(unfinished(&job)?);
    }
    let failed = failed_row::count(job.id)?;
    if failed > 0 {
        let rows = if failed == 1 { "row" } else { "rows" };
        return Err(refuse(format!(
            "backfill {} has completed, but {failed} {rows} failed",
            job.shown()
        ))
        .hint(format!(
            "See backfill.failed_rows; once the cause is mended, SELECT backfill.retry_failed({}).",
            job.id
        )));
    }
    if verified {
        require_verified(&job)?;
    }
    Ok(())
}

/// Refuses what commits between its steps where it may not commit.
pub fn outside_block(called: Option<String>, atomic: bool) -> Result<()> {
    let called = required(called, "called")?;
    if !atomic {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::ACTIVE_SQL_TRANSACTION,
        format!("CALL {called}() cannot run inside a transaction block"),
    )
    .hint("It commits after each of its steps, so that no lock is held for longer. CALL it by itself, with autocommit on; a migration tool has an option for one migration without a transaction."))
}

/// The job of this name that the caller may act on; his own before others'.
pub fn of_name(name: &str) -> Result<Job> {
    let me = server::current_user();
    let mut known: Vec<Job> = job::named(name)?
        .into_iter()
        .filter(|job| !job.definition.purpose.is_read_only() && server::may_act_for(job.owner))
        .collect();
    if let Some(own) = known.iter().position(|job| job.owner == me) {
        return Ok(known.swap_remove(own));
    }
    match known.len() {
        0 => Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("no backfill is called \"{name}\""),
        )
        .hint("The migration before this one has to define and start it, with that name. SELECT name, state FROM backfill.progress lists what there is.")),
        1 => Ok(known.swap_remove(0)),
        several => {
            let owners: Vec<String> = known.iter().map(|job| server::role_name(job.owner)).collect();
            Err(refuse(format!(
                "{several} backfills are called \"{name}\", of different owners"
            ))
            .detail(format!("Their owners: {}.", owners.join(", ")))
            .hint("Call it as the owner of the one that is meant: SET ROLE."))
        }
    }
}

fn refuse(message: String) -> Error {
    Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
}

/// That it has not completed: how far it is, and what to do.
fn unfinished(job: &Job) -> Result<Error> {
    let (id, state) = (job.id, job.state());
    // Some migration tools show the message alone.
    let error = refuse(format!(
        "backfill {} has not completed: it {}",
        job.shown(),
        state.phrase(false)
    ));
    let error = match outcome::how_far(id)? {
        Some(detail) => error.detail(detail),
        None => error,
    };
    Ok(error.hint(match state {
        State::Pending if approval::asked(id)?.is_some() => format!(
            "Have it approved by another person, and come back when it has completed: SELECT backfill.approve({id})."
        ),
        State::Pending => format!("Start it, and come back when it has completed: {}", start_of(job)),
        State::Paused | State::Pausing => {
            format!("SELECT backfill.resume({id}), and come back when it has completed.")
        }
        State::Failed => format!(
            "See last_error in backfill.progress, mend the cause, SELECT backfill.resume({id}), and come back when it has completed."
        ),
        State::Cancelled | State::Cancelling => after_cancel(id),
        _ => format!("Come back when it has completed: CALL backfill.wait({id}) waits for that."),
    }))
}

fn require_verified(job: &Job) -> Result<()> {
    let id = job.id;
    let again = format!("SELECT backfill.verify({id}), and come back when that has completed.");
    let shown = job.shown();
    let Some(last) = trial::last_verification(id)? else {
        return Err(refuse(format!("backfill {shown} was not verified")).hint(again));
    };
    if last.state() != State::Completed {
        return Err(refuse(format!(
            "backfill {shown} is not verified yet: {} {}",
            last.shown(),
            last.state().phrase(false)
        ))
        .hint(format!(
            "Come back when it has completed: CALL backfill.wait({}).",
            last.id
        )));
    }
    let wrong = slice::found(last.id)?;
    if wrong.found == 0 && wrong.failed > 0 {
        return Err(verify::unseen(job, &last, wrong.failed));
    }
    if wrong.found > 0 {
        return Err(refuse(format!(
            "backfill {shown} was found to be wrong: {} of {} rows",
            wrong.found, wrong.passed
        ))
        .hint(format!(
            "See backfill.verify_failures. SELECT backfill.reapply({id}) does these rows again; then verify it once more."
        )));
    }
    if !outcome::ended_before(id, last.id)? {
        return Err(refuse(format!("backfill {shown} went on after it was verified")).hint(again));
    }
    Ok(())
}
