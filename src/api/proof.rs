//! Reasons why a completed job may not have done what one UPDATE of all rows would have done.

use pgrx::pg_sys::Oid;

use super::{existing, reapply};
use crate::action::{Check, Look, Question};
use crate::error::{Error, Result, sqlstate};
use crate::model::state::State;
use crate::store::event::{self, Doubt};
use crate::store::job::Job;
use crate::store::left_out::{self, Left};
use crate::store::{failed_row, outcome, slice, trial, walk};

/// Returns why the completed job has not done all of its table, or may not have; `None` if it has.
pub fn lacking(job: &Job) -> Result<Option<Error>> {
    if let Some(undone) = undone(job)? {
        return Ok(Some(undone));
    }
    let Some(doubt) = event::doubt(job.id)? else {
        return Ok(None);
    };
    Ok(unverified(job)?.map(|error| doubted(job, doubt, error)))
}

/// Returns the error about a completed job that has to be verified before anybody relies on it. `error` says what the
/// verification lacks.
fn doubted(job: &Job, doubt: Doubt, mut error: Error) -> Error {
    let what = match doubt {
        Doubt::Redefined { .. } => {
            "its clauses or settings were changed after rows had been done or passed by others"
        }
        Doubt::MatchStill => "rows matched its where_clause still when it ended",
        Doubt::Lost => {
            "a partition was dropped before all of it was done, and its rows may have been moved"
        }
    };
    let lacks = format!("{}.", error.message);
    error.message = format!(
        "backfill {} has completed, but {what}",
        existing::with_owner(job)
    );
    error.detail(lacks)
}

/// Returns the error about rows of the table that the job has not done, if there are any.
fn undone(job: &Job) -> Result<Option<Error>> {
    let (id, shown) = (job.id, existing::with_owner(job));
    let but = |what: &str, hint: String| {
        let message = format!("backfill {shown} has completed, but {what}");
        let error = Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message);
        Ok(Some(error.hint(hint)))
    };
    let failed = failed_row::count(id)?;
    if failed > 0 {
        let rows = if failed == 1 { "row" } else { "rows" };
        return but(
            &format!("{failed} {rows} failed"),
            format!(
                "See backfill.failed_rows; once the cause is mended, SELECT backfill.retry_failed({id})."
            ),
        );
    }
    if let Some(bounds) = walk::bounds(id)? {
        return but(
            &format!("{} only", bounds.shown()),
            format!(
                "Start another job for the rest, or for all of it with a where_clause that leaves out the rows that are done; SELECT backfill.forget({id}) frees the name."
            ),
        );
    }
    if let Some(error) = came_during_the_run(job)? {
        return Ok(Some(error));
    }
    match job.definition.options.only() {
        true => alone(job),
        false => Ok(None),
    }
}

/// Returns the error that partitions were added during the run and nothing shows that their rows are done, if that is
/// so.
fn came_during_the_run(job: &Job) -> Result<Option<Error>> {
    let mut left = left_out::of(job)?;
    if !left.is_empty() {
        let verified = verified_tables(job)?;
        left.retain(|table| !verified.contains(&table.oid));
    }
    let Some(first) = left.first() else {
        return Ok(None);
    };
    let (id, shown) = (job.id, existing::with_owner(job));
    let (partition, rows) = match left.len() {
        1 => ("partition", "its rows are"),
        _ => ("partitions", "their rows are"),
    };
    Ok(Some(
        Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "backfill {shown} has completed, but {partition} {} came during the run, and {rows} not done",
                listed(&left)
            ),
        )
        .detail("Some of them may have been done where they were before, which the job can't tell.")
        .hint(format!(
            "If none was, start a job on {0} with the set_clause and where_clause of job {id}, and come back when it has completed. Else give it a where_clause that is true of rows that are not done, and have all looked at then: SELECT backfill.verify({id}, check_clause => '...').",
            first.shown
        )),
    ))
}

/// Returns the error that tables inheriting from the job's table, which was done alone, have rows that no job has done,
/// if that is so.
fn alone(job: &Job) -> Result<Option<Error>> {
    let left = left_out::below(job)?;
    let Some(first) = left.first() else {
        return Ok(None);
    };
    let table = &job.relation_name;
    let inherit = if left.len() == 1 {
        "inherits"
    } else {
        "inherit"
    };
    Ok(Some(
        Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "backfill {} has completed, but with \"only\": rows of {}, which {inherit} from {table}, are not done",
                existing::with_owner(job),
                listed(&left)
            ),
        )
        .detail(format!("An UPDATE of {table} does them, too."))
        .hint(format!(
            "Start a job on {} with the set_clause and where_clause of job {}, and come back when it has completed. One on {table} without the option does as well, if its rows may be done twice.",
            first.shown, job.id
        )),
    ))
}

fn listed(tables: &[Left]) -> String {
    let names: Vec<&str> = tables.iter().map(|table| table.shown.as_str()).collect();
    names.join(", ")
}

/// Returns the tables in which the job's last verification has looked at all rows and found none wrong.
fn verified_tables(job: &Job) -> Result<Vec<Oid>> {
    if unverified(job)?.is_some() {
        return Ok(Vec::new());
    }
    match trial::last_verification(job.id)? {
        Some(last) if walk::bounds(last.id)?.is_none() => walk::tables(last.id),
        _ => Ok(Vec::new()),
    }
}

/// Returns why the rows of the job are not known to be right; `None` if its last verification says they are.
pub fn unverified(job: &Job) -> Result<Option<Error>> {
    let id = job.id;
    let again = format!("SELECT backfill.verify({id}), and come back when that has completed.");
    let shown = existing::with_owner(job);
    let refused = |message: String, hint: String| {
        let error = Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message);
        Ok(Some(error.hint(hint)))
    };
    let values = matches!(event::doubt(id)?, Some(Doubt::Redefined { values: true }));
    let by_value = format!(
        "SELECT backfill.verify({id}, recompute => true), or with a check_clause that is true of each row as it is to be, and come back when that has completed."
    );
    let once_more = if values { by_value.clone() } else { again };
    let Some(last) = trial::last_verification(id)? else {
        return refused(format!("backfill {shown} was not verified"), once_more);
    };
    if last.state() != State::Completed {
        return refused(
            format!(
                "backfill {shown} is not verified yet: {} {}",
                last.shown(),
                last.state().phrase(false)
            ),
            format!(
                "Come back when it has completed: CALL backfill.wait({}).",
                last.id
            ),
        );
    }
    let wrong = slice::found(last.id)?;
    if wrong.found == 0 && wrong.failed > 0 {
        return Ok(Some(reapply::unseen(job, &last, wrong.failed)));
    }
    if wrong.found > 0 {
        let hint = match last.definition.action.look().is_some_and(Look::evaluates) {
            true => format!(
                "See the note of job {} in backfill.progress. If it says that the rows are undecided, SELECT backfill.verify({id}, check_clause => '...') with what is to be true of each row; else SELECT backfill.reapply({id}) does them again, and then verify it once more.",
                last.id
            ),
            false => format!(
                "See backfill.verify_failures. SELECT backfill.reapply({id}) does these rows again; then verify it once more."
            ),
        };
        let message = format!(
            "backfill {shown} was found to be wrong: {} of {} rows",
            wrong.found, wrong.passed
        );
        return refused(message, hint);
    }
    if let Some(forgotten) = event::forgotten_verdict(id, last.id)? {
        let message = format!(
            "backfill {shown} was verified again since, by job {forgotten}, which was forgotten: see backfill.events"
        );
        return refused(message, once_more);
    }
    if walk::bounds(last.id)?.is_some() && walk::bounds(id)?.is_none() {
        let message =
            format!("the verification of backfill {shown} has looked at a part of the rows");
        return refused(message, once_more);
    }
    if !outcome::ended_before_start_of(id, last.id)? {
        let message = format!("backfill {shown} went on after it was verified");
        return refused(message, once_more);
    }
    let (its, ours) = (&last.definition, &job.definition);
    if (&its.session, &its.options.settings) != (&ours.session, &ours.options.settings) {
        let message = format!("backfill {shown} was verified under other settings than it has");
        return refused(message, once_more);
    }
    if let Some(unseen) = trial::out_of_sight(&last)? {
        let message = format!("the verification of backfill {shown} does not tell: {unseen}");
        return refused(
            message,
            format!(
                "SELECT backfill.verify({id}, check_clause => '...') with what is to be true of each row, and come back when that has completed."
            ),
        );
    }
    let by_clause = matches!(
        last.definition.action.question(),
        Some(Question::Verify {
            check: Check::Pending,
            ..
        })
    );
    if values && by_clause {
        let message = format!(
            "the verification of backfill {shown} looked for rows that match its where_clause, not at what the others have"
        );
        return refused(message, by_value);
    }
    Ok(None)
}
