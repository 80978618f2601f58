//! `backfill.require_completed`: raises an error unless what the next migration relies on is true.

use pgrx::pg_sys::Oid;

use super::caller::required;
use super::hints::{after_cancel, start_of};
use super::{existing, proof};
use crate::error::{Error, Result, sqlstate};
use crate::model::state::State;
use crate::pg::{name, relation, server};
use crate::quote::{ident, literal};
use crate::store::job::{self, Job};
use crate::store::{approval, outcome, rights};

/// Returns if the backfill with this name has completed on all rows of its table without a failed one, and, if
/// `verified`, was found right since. Never waits.
pub fn require_completed(
    name: Option<String>,
    verified: Option<bool>,
    relation: Option<Oid>,
) -> Result<()> {
    let name = required(name, "name")?;
    let verified = required(verified, "verified")?;
    let job = on_table(&name, relation)?;
    refuse_strangers(&job)?;
    if job.state() != State::Completed {
        return Err(unfinished(&job)?);
    }
    if let Some(lacking) = proof::lacking(&job)? {
        return Err(lacking);
    }
    let unverified = match verified {
        true => proof::unverified(&job)?,
        false => None,
    };
    unverified.map_or(Ok(()), Err)
}

/// Refuses a procedure that commits between its steps where it may not commit.
pub fn outside_block(called: &str, atomic: bool) -> Result<()> {
    if !atomic {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::ACTIVE_SQL_TRANSACTION,
        format!("CALL {called}() cannot run inside a transaction block"),
    )
    .hint("It commits after each of its steps, so that no lock is held for longer. CALL it by itself, with autocommit on; a migration tool has an option for one migration without a transaction."))
}

/// Returns the job with this name that the caller may act on; the caller's own comes first.
pub fn of_name(name: &str) -> Result<Job> {
    one(name, known(name)?)
}

fn known(name: &str) -> Result<Vec<Job>> {
    let mut jobs = existing::named(name, false)?;
    jobs.retain(|job| !job.definition.action.is_read_only());
    Ok(jobs)
}

/// Returns the caller's own job, which comes first, or else the only one.
fn one(name: &str, mut known: Vec<Job>) -> Result<Job> {
    let me = server::current_user();
    match known.len() {
        0 => Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("no backfill is called \"{name}\""),
        )
        .hint("The migration before this one has to define and start it, with that name. SELECT name, state FROM backfill.progress lists what there is.")),
        several if several > 1 && known[0].owner != me => {
            let owners: Vec<String> = known.iter().map(|job| name::of_role(job.owner)).collect();
            Err(refuse(format!(
                "{several} backfills are called \"{name}\", of different owners"
            ))
            .detail(format!("Their owners: {}.", owners.join(", ")))
            .hint("Call it as the owner of the one that is meant: SET ROLE."))
        }
        _ => Ok(known.swap_remove(0)),
    }
}

/// Returns the job with this name on the right table: the given one, or else the job's own, unless another table has
/// its name on the caller's search_path.
fn on_table(name: &str, relation: Option<Oid>) -> Result<Job> {
    let Some(oid) = relation else {
        let job = one(name, known(name)?)?;
        refuse_another_table(&job)?;
        return Ok(job);
    };
    let relation = relation::describe(oid)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {oid} does not exist"),
        )
        .hint("Give the name of the backfill's table.")
    })?;
    let (on_it, others): (Vec<Job>, Vec<Job>) = known(name)?
        .into_iter()
        .partition(|job| job.relation == oid);
    if !on_it.is_empty() || others.is_empty() {
        return one(name, on_it);
    }
    let job = one(name, others)?;
    existing::refuse_recreated(&job, &relation)?;
    Err(refuse(format!(
        "backfill {} is on {}, not on {}",
        existing::with_owner(&job),
        job.relation_name,
        relation.shown
    ))
    .hint(format!(
        "Start the backfill of {} with that name, and come back when it has completed.",
        relation.shown
    )))
}

/// Refuses a job whose table is gone, or is not the one that its name means to the caller.
fn refuse_another_table(job: &Job) -> Result<()> {
    let Some(table) = relation::describe(job.relation)? else {
        return Err(match relation::named(&job.relation_name)? {
            Some(_) => existing::recreated(job),
            None => Error::new(
                sqlstate::UNDEFINED_TABLE,
                format!(
                    "table {} of backfill {} no longer exists",
                    job.relation_name,
                    existing::with_owner(job)
                ),
            )
            .hint(format!(
                "If the table is there again, or has another name, start its backfill anew: SELECT backfill.forget({}) frees the name.",
                job.id
            )),
        });
    };
    let say_which = || {
        format!(
            "Say which table is meant: SELECT backfill.require_completed({}, relation => {}).",
            literal(job.name.as_deref().unwrap_or_default()),
            literal(&table.shown)
        )
    };
    let before = job::name_of_relation(job.id)?;
    if let Some(other) = relation::named(&before)?
        && other != job.relation
    {
        return Err(refuse(format!(
            "backfill {} is on {}, which was called {before} when it was defined: {before} is another table now",
            existing::with_owner(job),
            table.shown
        ))
        .hint(say_which()));
    }
    match relation::named(&ident(&table.name))? {
        Some(other) if other != job.relation => {
            let other = relation::describe(other)?.map_or(table.name.clone(), |found| found.shown);
            Err(refuse(format!(
                "backfill {} is on {}, but on this search_path {} is {other}",
                existing::with_owner(job),
                table.shown,
                ident(&table.name)
            ))
            .hint(say_which()))
        }
        _ => Ok(()),
    }
}

/// Refuses a job of a role that could not be trusted with the table.
fn refuse_strangers(job: &Job) -> Result<()> {
    if job.owner == server::current_user() || rights::are_the_tables_owners(job)? {
        return Ok(());
    }
    Err(existing::no_proof(job)?)
}

fn refuse(message: String) -> Error {
    Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
}

/// Returns the error that the job has not completed: its progress, and what to do.
fn unfinished(job: &Job) -> Result<Error> {
    let (id, state) = (job.id, job.state());
    // Some migration tools show only the message.
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
            "See last_error in backfill.progress, mend the cause (backfill.redefine gives it other clauses), SELECT backfill.resume({id}), and come back when it has completed."
        ),
        State::Cancelled | State::Cancelling => after_cancel(job),
        _ => format!("Come back when it has completed: CALL backfill.wait({id}) waits for that."),
    }))
}
