//! Hints: what the errors of batches tell a person to do.

use crate::error::{Error, sqlstate};
use crate::model::fate::Fate;
use crate::pg::name;
use crate::pg::txn::{self, Durability};
use crate::store::job::Job;

/// Returns the error of a batch with a hint, and without what a person does not need.
pub fn explained(error: Error, job: &Job) -> Error {
    let mut error = with_rights_hint(with_policy_hint(without_statement(error)), job);
    let several = job.definition.options.workers() > 1;
    let limit = job.definition.options.statement_timeout_ms();
    if error.sqlstate == sqlstate::QUERY_CANCELED && limit > 0 && error.hint.is_none() {
        error.hint = Some(format!(
            "The option \"statement_timeout_ms\" is {limit}: raise it with backfill.alter({0}, options => '{{\"statement_timeout_ms\": {1}}}'), then backfill.resume({0}).",
            job.id,
            i64::from(limit) * 10
        ));
    }
    if error.sqlstate == sqlstate::UNDEFINED_OBJECT
        && error.hint.is_none()
        && error.message.contains("configuration parameter")
    {
        error.hint = Some(format!(
            "A worker has the settings of its own session. Give it this one: SELECT backfill.alter({0}, options => '{{\"settings\": {{\"app.name\": \"value\"}}}}'), backfill.resume({0}).",
            job.id
        ));
    }
    let kept = job.definition.action.as_action().fate() == Fate::Kept;
    if error.sqlstate == sqlstate::UNIQUE_VIOLATION && error.hint.is_none() && kept {
        error.hint = Some(format!(
            "A row like it is there already. If it may stay, cancel the job and start one with on_conflict => 'nothing', or what follows ON CONFLICT; else mend it, then SELECT backfill.resume({}).",
            job.id
        ));
    }
    if error.sqlstate == sqlstate::UNIQUE_VIOLATION && error.hint.is_none() {
        error.hint = Some(format!(
            "Each batch has to be free of duplicates, beside the rows that are still to come. Where values are shifted or swapped among rows, cancel the job and take two steps: first to values that no row has, then from there to those wanted. Where the duplicate is a real one, mend it, then SELECT backfill.resume({}).",
            job.id
        ));
    }
    if error.sqlstate == sqlstate::CARDINALITY_VIOLATION && job.definition.options.from.is_some() {
        error.hint = Some(format!(
            "A row has more than one partner in the option \"from\". Mend that, or choose one of them there: '(SELECT DISTINCT ON (id) * FROM ... ORDER BY id, ...) AS r'. Then SELECT backfill.resume({}).",
            job.id
        ));
    }
    if error.sqlstate == sqlstate::DEADLOCK_DETECTED && several {
        error.hint = Some(format!(
            "Its workers may have met in rows that a trigger writes: SELECT backfill.alter({0}, options => '{{\"workers\": 1}}'), then backfill.resume({0}).",
            job.id
        ));
    }
    error
}

/// Drops the outermost context, which quotes the statement that the worker ran: the view shows the job's clauses, and
/// the range of keys says more than the statement's parameters.
fn without_statement(mut error: Error) -> Error {
    const QUOTED: &str = "SQL statement \"";
    let Some(context) = error.context.take() else {
        return error;
    };
    let start = match context.rfind(&format!("\n{QUOTED}")) {
        Some(start) => Some(start),
        None => context.starts_with(QUOTED).then_some(0),
    };
    let rest = match start {
        Some(start) if context.ends_with('"') => &context[..start],
        _ => &context,
    };
    error.context = (!rest.is_empty()).then(|| rest.to_owned());
    error
}

/// Adds a hint that names the role whose rights are missing.
fn with_rights_hint(error: Error, job: &Job) -> Error {
    let denied = error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE
        && error.message.starts_with("permission denied");
    if !denied || error.hint.is_some() {
        return error;
    }
    // The batch's transaction has ended, and names are read within a transaction.
    let owner = txn::run(Durability::Deferred, || Ok(name::of_role(job.owner)));
    let owner = owner.unwrap_or_else(|_| format!("with OID {}", job.owner));
    error.hint(whose_rights(&owner, job.id))
}

/// Returns the hint for missing rights.
pub fn whose_rights(owner: &str, job: i64) -> String {
    format!(
        "The batches run with the rights of role {owner}, which defined the job: GRANT it what is missing, then SELECT backfill.resume({job})."
    )
}

/// Explains the error that a policy of row security causes in a worker. PostgreSQL's own hint, if there is one, only
/// says how to stop forcing a policy on the table's owner.
fn with_policy_hint(error: Error) -> Error {
    const HINT: &str = "Batches run with row_security = off, so that no policy hides rows quietly. Let the job be defined by a role with BYPASSRLS, or by the owner of the table with the policy, unless it is forced on him.";
    let policy = error.sqlstate == sqlstate::INSUFFICIENT_PRIVILEGE
        && error.message.contains("row-level security");
    if !policy {
        return error;
    }
    let hint = match &error.hint {
        Some(given) => format!("{HINT} {given}"),
        None => HINT.to_owned(),
    };
    error.hint(hint)
}
