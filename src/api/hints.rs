//! How a job goes on from the state it is in: hints, and the error for a call that the state does not allow.

use crate::error::{Error, sqlstate};
use crate::model::state::State;
use crate::quote::literal;
use crate::store::job::Job;

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
