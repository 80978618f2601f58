//! Jobs that are there already: under the same name, or on the same column.

use super::call::Call;
use crate::catalog::job::{self, Job};
use crate::error::{Error, Result, sqlstate};
use crate::pg::server;

/// The job that an earlier call with this name left, if it was for the same thing.
pub fn same_job(call: &Call, set_clause: &str) -> Result<Option<Job>> {
    let Some(name) = &call.name else {
        return Ok(None);
    };
    let Some(known) = by_name(name)? else {
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

/// The job with this name that the caller may act on; his own before others'.
pub fn by_name(name: &str) -> Result<Option<Job>> {
    let me = server::current_user();
    let mut known: Vec<Job> = job::named(name)?
        .into_iter()
        .filter(|job| server::may_act_for(job.owner))
        .collect();
    known.sort_by_key(|job| job.owner != me);
    Ok(known.into_iter().next())
}

/// Refuses another job that writes the same column of the same table at the same time.
pub fn refuse_overlap(id: i64) -> Result<()> {
    let Some(this) = job::load(id)? else {
        return Ok(());
    };
    for other in job::on(this.relation)? {
        if other.id == id || !other.state().active() {
            continue;
        }
        let common = |column: &&String| other.definition.set_columns.contains(column);
        if let Some(column) = this.definition.set_columns.iter().find(common) {
            return Err(Error::new(
                sqlstate::OBJECT_IN_USE,
                format!(
                    "column \"{column}\" of table {} is already being backfilled by job {}",
                    this.relation_name, other.id
                ),
            )
            .hint(format!(
                "Wait for job {0} (CALL backfill.wait({0})), or SELECT backfill.cancel({0}).",
                other.id
            )));
        }
    }
    Ok(())
}
