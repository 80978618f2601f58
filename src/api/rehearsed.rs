//! `backfill.require_dry_run`: a job that changes rows must have had a dry run.

use crate::action::Look;
use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::store::job::Job;
use crate::store::{outcome, trial};

/// Refuses a job that has had no dry run, if the server requires one.
pub fn require_dry_run(job: &Job) -> Result<()> {
    if job.definition.action.is_read_only() {
        return Ok(());
    }
    let found = trial::dry_run_of(job)?;
    require(
        job,
        found,
        "Make the same call with options => '{\"dry_run\": true}', wait for its end, and look at its note in backfill.progress.",
    )
}

/// Like [`require_dry_run`], for a job that does rows of another job again: a dry run of that job will do, and so will
/// the verification that found the rows, if it computed their new values.
pub fn require_for_reapply(of: &Job, verification: &Job) -> Result<()> {
    let mut found = trial::dry_run_of(of)?;
    if verification
        .definition
        .action
        .look()
        .is_some_and(Look::evaluates)
        && let Some(age) = outcome::age(verification.id)?
    {
        found = Some(found.map_or(age, |found| found.min(age)));
    }
    require(
        of,
        found,
        &format!(
            "SELECT backfill.verify({0}, recompute => true) computes what the rows are to become; or make the call that has started job {0} with options => '{{\"dry_run\": true}}'. When it has completed, call this again.",
            of.id
        ),
    )
}

/// Refuses if the newest dry run, whose age is in seconds, is too old, or there is none.
fn require(job: &Job, found: Option<f64>, hint: &str) -> Result<()> {
    let most = guc::REQUIRE_DRY_RUN.get();
    if most == 0 || found.is_some_and(|age| age <= f64::from(most)) {
        return Ok(());
    }
    let within = duration(most);
    let detail = match found {
        None => match trial::nearest_dry_run(job)? {
            None => "No dry run of this table with this set_clause and where_clause has completed."
                .to_owned(),
            Some((id, names)) => format!("Dry run {id} was another one: {names}."),
        },
        Some(age) => format!("The last one was {} ago.", duration(age as i32)),
    };
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "backfill.require_dry_run wants a dry run within {within} before a backfill is started"
        ),
    )
    .detail(detail)
    .hint(hint))
}

/// Formats seconds for a person.
fn duration(seconds: i32) -> String {
    match seconds {
        0..=119 => format!("{seconds} seconds"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
