//! Jobs that are there already: under the same name, or on the same column.

use pgrx::pg_sys::Oid;

use super::call::Call;
use super::caller::may_attend;
use super::control;
use crate::catalog::job::{self, Job};
use crate::catalog::{event, holder, rights};
use crate::error::{Error, Result, sqlstate};
use crate::job::state::State;
use crate::pg::lock::Lock;
use crate::pg::report::notice;
use crate::pg::{partition, relation, server};

/// The job that an earlier call with this name left, if it was for the same thing.
pub fn same_job(call: &Call, set_clause: &str) -> Result<Option<Job>> {
    let Some(name) = &call.name else {
        return Ok(None);
    };
    let Some(known) = by_name(name, call.options.dry_run())? else {
        return Ok(None);
    };
    let definition = &known.definition;
    let difference = if known.relation != call.relation.oid {
        Some(format!("It is on {}.", known.relation_name))
    } else if definition.set_clause != set_clause {
        Some(format!("Its set_clause is: {}", definition.set_clause))
    } else if definition.where_clause != call.where_clause {
        let clause = definition.where_clause.as_deref().unwrap_or("NULL");
        Some(format!("Its where_clause is: {clause}"))
    } else {
        None
    };
    match difference {
        None => Ok(Some(known)),
        Some(detail) => Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!(
                "backfill {} already exists with another definition",
                known.shown()
            ),
        )
        .detail(detail)
        .hint(format!(
            "Choose another name, or SELECT backfill.forget({}) once it has ended.",
            known.id
        ))),
    }
}

/// The job with this name that the caller may act on; his own before others'. A dry run may have the name
/// of the run that it is for.
pub fn by_name(name: &str, dry_run: bool) -> Result<Option<Job>> {
    let me = server::current_user();
    let mut known: Vec<Job> = job::named(name)?
        .into_iter()
        .filter(|job| job.definition.options.dry_run() == dry_run)
        .filter(|job| server::may_act_for(job.owner))
        .collect();
    known.sort_by_key(|job| job.owner != me);
    Ok(known.into_iter().next())
}

/// Lets one call at a time define or start a job on the relation, or on what it has rows in common
/// with, until the transaction ends. Whoever else holds that is waited for a few seconds; then the error
/// says who it is. Taken before the row of a job, by all who take both.
///
/// Only for those who may write there: code of theirs is run while the clauses are planned, and
/// must not hold up calls on somebody else's table. Others are refused by the checks that follow.
pub fn lock(relation: Oid) -> Result<()> {
    if partition::may_update_any(relation, server::current_user())? {
        let topmost = partition::topmost(relation);
        let lock = Lock::Definition(topmost.to_u32());
        if !lock.in_time()? {
            return Err(holder::of_definition(lock, &shown(topmost)?));
        }
    }
    Ok(())
}

/// The same without waiting: false if somebody else holds it.
pub fn try_lock(relation: Oid) -> Result<bool> {
    Ok(
        !partition::may_update_any(relation, server::current_user())?
            || Lock::Definition(partition::topmost(relation).to_u32()).try_for_transaction(),
    )
}

fn shown(table: Oid) -> Result<String> {
    Ok(relation::describe(table)?.map_or_else(|| format!("with OID {table}"), |found| found.shown))
}

/// Refuses another job that writes the same column of the same rows at the same time: of the same
/// table, or of one above or below it among partitions. One whose owner may not write there any more is
/// ended instead. Only under [`lock`].
pub fn refuse_overlap(id: i64) -> Result<()> {
    let Some(this) = job::load(id)? else {
        return Ok(());
    };
    if this.definition.purpose.is_read_only() {
        return Ok(());
    }
    let mut others = job::on(this.relation)?;
    for relation in partition::relatives(this.relation)? {
        others.extend(job::on(relation)?);
    }
    for other in others {
        let reads = other.definition.purpose.is_read_only();
        if other.id == id || reads || !other.state().active() {
            continue;
        }
        let common = |column: &&String| other.definition.set_columns.contains(column);
        if let Some(column) = this.definition.set_columns.iter().find(common) {
            if let Some(lost) = rights::lost(&other)? {
                end_without_rights(&other, &lost)?;
                continue;
            }
            return Err(Error::new(
                sqlstate::OBJECT_IN_USE,
                format!(
                    "column \"{column}\" of table {} is already being backfilled by job {}",
                    other.relation_name, other.id
                ),
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

/// Cancels a job that could not do another batch, in the name of who needs its columns.
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
        control::end(&job)?;
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
