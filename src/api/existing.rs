//! Jobs that exist already: under the same name, or on the same column.

use pgrx::pg_sys::Oid;

use super::call::{Call, Work};
use super::caller::may_attend;
use super::stop::stop;
use crate::action::Meeting;
use crate::error::{Error, Result, sqlstate};
use crate::model::state::{Event, State};
use crate::pg::relation::{self, Relation};
use crate::pg::report::notice;
use crate::pg::{name, partition, server};
use crate::store::job::{self, Job};
use crate::store::{event, rights};

/// Returns the job that an earlier call with this name left, if it has the same definition: the caller's own, or one on
/// the same table whose owner has the rights of the table's owner. Names belong to each owner, so another role's job of
/// this name proves nothing.
pub fn same_job(call: &Call, work: &Work) -> Result<Option<Job>> {
    let Some(name) = &call.name else {
        return Ok(None);
    };
    let me = server::current_user();
    let mut found = None;
    for job in named(name, call.options.dry_run())? {
        let here = job.relation == call.relation.oid;
        if job.owner == me || here && rights::are_the_tables_owners(&job)? {
            found = Some(job);
            break;
        }
    }
    let Some(known) = found else {
        return Ok(None);
    };
    refuse_recreated(&known, &call.relation)?;
    let definition = &known.definition;
    // With another `only`, the job is about other rows.
    let alone = definition.options.only() != call.options.only();
    let difference = if known.relation != call.relation.oid {
        Some(format!("It is on {}.", known.relation_name))
    } else if Work::of(&definition.action) != *work {
        Some(match Work::of(&definition.action) {
            Work::Set(set_clause) => format!("Its set_clause is: {set_clause}"),
            Work::Delete => "It deletes rows.".to_owned(),
            Work::Copy { target, .. } => format!(
                "It copies rows into {}.",
                relation::describe(Oid::from(target))?
                    .map_or("a table that is gone".to_owned(), |found| found.shown)
            ),
            Work::Execute(statement) => format!("Its statement is: {statement}"),
        })
    } else if definition.options.lock != call.options.lock {
        Some("Its option \"lock\" is another.".to_owned())
    } else if definition.options.archive_into != call.options.archive_into {
        let into = definition.options.archive_into.as_deref();
        Some(format!(
            "Its option \"archive_into\" is {}.",
            into.unwrap_or("not given")
        ))
    } else if definition.where_clause != call.where_clause {
        let clause = definition.where_clause.as_deref().unwrap_or("NULL");
        Some(format!("Its where_clause is: {clause}"))
    } else {
        alone.then(|| format!("Its option \"only\" is {}.", definition.options.only()))
    };
    match difference {
        None => Ok(Some(known)),
        Some(detail) => Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!(
                "backfill {} already exists with another definition",
                with_owner(&known)
            ),
        )
        .detail(detail)
        .hint(match known.state() {
            State::Failed | State::Paused if known.relation == call.relation.oid && !alone => format!(
                "To go on from its checkpoint with these clauses, SELECT backfill.redefine({0}, set_clause => '...', where_clause => '...'), then backfill.resume({0}): what is done is not done again. Else choose another name.",
                known.id
            ),
            _ => format!(
                "Choose another name, or SELECT backfill.forget({}) once it has ended.",
                known.id
            ),
        })),
    }
}

/// Returns the jobs with this name that the caller may act on; the caller's own come first. A dry run may have the name
/// of the run that it is for.
pub fn named(name: &str, dry_run: bool) -> Result<Vec<Job>> {
    let me = server::current_user();
    let mut known = job::named(name, me)?;
    known.retain(|job| job.definition.options.dry_run() == dry_run);
    known.sort_by_key(|job| job.owner != me);
    Ok(known)
}

/// Returns the job for a message; with its owner, unless that is the caller.
pub fn with_owner(job: &Job) -> String {
    if job.owner == server::current_user() {
        return job.shown();
    }
    format!("{} of role {}", job.shown(), name::of_role(job.owner))
}

/// Returns the error about another role's job that proves nothing, as that role could not do anything it likes to the
/// table.
pub fn no_proof(job: &Job) -> Result<Error> {
    let owner = name::of_role(job.owner);
    let tables = rights::tables_owner(job)?.unwrap_or_default();
    Ok(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "backfill {} is of role {owner}, which has not the rights of the owner of table {}",
            job.shown(),
            job.relation_name
        ),
    )
    .detail(format!(
        "The table's owner is {tables}. Names are each role's own, and what {owner} has done and undone under this one is no proof."
    ))
    .hint(format!(
        "Have it done by the table's owner: SET ROLE {tables}, then backfill.start() with a set_clause and the same name. Where {owner}'s job will do, SET ROLE {owner} before this call."
    )))
}

/// Refuses a job whose table was dropped, when it is asked about another table that has the name now.
pub fn refuse_recreated(job: &Job, relation: &Relation) -> Result<()> {
    let again = job.relation != relation.oid && job.relation_name == relation.shown;
    if !again || relation::describe(job.relation)?.is_some() {
        return Ok(());
    }
    Err(recreated(job))
}

/// Returns the error about a job whose table is gone while another one has its name.
pub fn recreated(job: &Job) -> Error {
    Error::new(
        sqlstate::UNDEFINED_TABLE,
        format!(
            "table {} was dropped and created again since backfill {}",
            job.relation_name,
            with_owner(job)
        ),
    )
    .detail("What the job has done is gone with the table that it was done in.")
    .hint(format!(
        "SELECT {}backfill.forget({1}) frees the name, and the same call of backfill.start() does the new table.",
        match job.state() {
            state if state.ended() => String::new(),
            _ => format!("backfill.cancel({}), ", job.id),
        },
        job.id
    ))
}

/// Refuses to let the job write the same column of the same rows as another active job: on the same table, or on one
/// above or below it among partitions. A job whose owner may not write there any more is cancelled instead. Only under
/// [`definition_lock`](super::definition_lock).
pub fn refuse_overlap(id: i64) -> Result<()> {
    let Some(this) = job::load(id)? else {
        return Ok(());
    };
    if this.definition.action.is_read_only() {
        return Ok(());
    }
    let mut others = job::started_on(this.relation)?;
    for relation in partition::relatives(this.relation)? {
        others.extend(job::started_on(relation)?);
    }
    others.retain(|other| *other != id);
    for other in others {
        // Loaded one by one, since their text may be long.
        let Some(other) = job::load_latest(other)? else {
            continue;
        };
        if !other.state().active() || apart(&this, &other)? {
            continue;
        }
        if let Some(meeting) = this.definition.action.meets(&other.definition.action) {
            if let Some(lost) = rights::lost(&other)? {
                end_without_rights(&other, &lost)?;
                continue;
            }
            return Err(Error::new(
                sqlstate::OBJECT_IN_USE,
                match meeting {
                    Meeting::Column(column) => format!(
                        "column \"{column}\" of table {} is already being backfilled by job {}",
                        other.relation_name, other.id
                    ),
                    Meeting::Target => format!(
                        "rows of table {} are already being copied into that table by job {}",
                        other.relation_name, other.id
                    ),
                },
            )
            .hint(match other.state() {
                _ if !may_attend(&other)? => format!(
                    "Wait for its end, or ask the owner of the table, who may SELECT backfill.cancel({}).",
                    other.id
                ),
                State::Failed | State::Paused => format!(
                    "It {}: SELECT backfill.resume({1}), or backfill.cancel({1}).",
                    other.state().phrase(false),
                    other.id
                ),
                _ => format!(
                    "Wait for job {0} (CALL backfill.wait({0})), or SELECT backfill.cancel({0}).",
                    other.id
                ),
            }));
        }
    }
    Ok(())
}

/// True if jobs on two tables have no rows in common, since one of them leaves out the tables that inherit from its
/// own.
fn apart(one: &Job, other: &Job) -> Result<bool> {
    let walks = |job: &Job, table: Oid| -> Result<bool> {
        let tables = partition::leaves(job.relation, job.definition.options.only())?;
        Ok(tables.iter().any(|leaf| leaf.oid == table))
    };
    let alone = |job: &Job, other: &Job| -> Result<bool> {
        Ok(job.definition.options.only() && !walks(other, job.relation)?)
    };
    Ok(one.relation != other.relation && (alone(one, other)? || alone(other, one)?))
}

/// Cancels a job that could not do another batch, on behalf of the job that needs its columns.
fn end_without_rights(job: &Job, lost: &str) -> Result<()> {
    let Some(job) = job::lock(job.id)?.filter(|job| job.state().active()) else {
        return Ok(());
    };
    event::record(
        job.id,
        server::current_user(),
        "owner lost rights",
        None,
        Some(lost),
    )?;
    if job.state() != State::Cancelling {
        stop(&job, Event::Cancel, true)?;
    }
    notice(
        &format!(
            "backfill {} was in the way and is cancelled: its owner has lost {lost}",
            job.shown()
        ),
        Some("See backfill.events. Its committed batches stay."),
    );
    Ok(())
}
