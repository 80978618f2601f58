//! Jobs that are there already: under the same name, or on the same column.

use pgrx::pg_sys::Oid;

use super::call::Call;
use crate::catalog::job::{self, Job};
use crate::error::{Error, Result, sqlstate};
use crate::job::state::State;
use crate::pg::lock::Lock;
use crate::pg::{partition, server};

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
/// with, until the transaction ends.
///
/// Only for those who may write there: code of theirs is run while the clauses are planned, and
/// must not hold up calls on somebody else's table. Others are refused by the checks that follow.
pub fn lock(relation: Oid) -> Result<()> {
    if partition::may_update_any(relation, server::current_user())? {
        let topmost = partition::topmost(relation);
        Lock::Definition(topmost.to_u32()).for_transaction();
    }
    Ok(())
}

/// Refuses another job that writes the same column of the same rows at the same time: of the same
/// table, or of one above or below it among partitions.
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
            return Err(Error::new(
                sqlstate::OBJECT_IN_USE,
                format!(
                    "column \"{column}\" of table {} is already being backfilled by job {}",
                    other.relation_name, other.id
                ),
            )
            .hint(match other.state() {
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
