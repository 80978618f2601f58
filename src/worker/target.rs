//! What the statements of a walk are aimed at: a table as the catalogs have it now, and the index
//! that orders the walk.

use pgrx::pg_sys::Oid;

use crate::catalog::job::Job;
use crate::catalog::slice::{KeyRange, Slice};
use crate::error::{Error, Result, Signal, sqlstate};
use crate::pg::{hot, index, physical, relation, triggers};
use crate::plan::key::{self, Candidate, Column};
use crate::plan::sql::Target;

/// The target, with this key.
///
/// The table is found by its OID, and stays locked until the transaction ends, so that the names
/// that go into the statements are right.
pub fn of(job: &Job, table: Oid, key: Vec<Column>) -> Result<Target> {
    let gone = || {
        let message = format!("table {} no longer exists", job.relation_name);
        Error::new(sqlstate::UNDEFINED_TABLE, message)
            .hint(format!("SELECT backfill.cancel({}) ends the job.", job.id))
    };
    relation::lock_for_update(table);
    let relation = relation::describe(table)?.ok_or_else(gone)?;
    relation.refuse_rules()?;
    if job.definition.options.skips_triggers() {
        triggers::refuse_unchecked(table, &job.definition.set_columns)?;
    }
    Ok(Target {
        schema: relation.schema,
        relation: relation.name,
        alias: known_as(job, table)?,
        key,
        set_clause: job.definition.set_clause.clone(),
        where_clause: job.definition.where_clause.clone(),
        writes_key: hot::writes_key(table, &job.definition.set_columns)?,
    })
}

/// What the clauses call the table, if it is not its own name: that of the partitioned table.
pub fn known_as(job: &Job, table: Oid) -> Result<Option<String>> {
    if table == job.relation {
        return Ok(None);
    }
    Ok(relation::describe(job.relation)?.map(|root| root.name))
}

/// Why the table can't be walked in physical order, if so.
pub fn unsound(job: &Job, table: Oid) -> Result<Option<String>> {
    let known_as = known_as(job, table)?;
    let clause = job.definition.where_clause.as_deref();
    physical::unsound(
        table,
        known_as.as_deref(),
        clause,
        job.definition.options.skips_triggers(),
    )
}

/// An error if the table can't be walked in physical order any more.
pub fn refuse_unsound(job: &Job, table: Oid) -> Result<()> {
    match unsound(job, table)? {
        None => Ok(()),
        Some(why) => Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, why)
            .hint("Undo that, or give the table a key to walk by, and resume the job.")
            .signal(Signal::Disproved)),
    }
}

/// The target of a slice in key order, and the index to go by: in the order that was begun.
pub fn by_key(job: &Job, slice: &Slice, begun: &KeyRange) -> Result<(Target, Candidate)> {
    let mut target = of(job, slice.relation, Vec::new())?;
    let index = index(job, slice.relation, &begun.columns, Some(begun))?;
    target.key.clone_from(&index.columns);
    Ok((target, index))
}

/// The index to go by: of those on the key's columns, in the order that was begun, the one that
/// was asked for, else the best.
pub fn index(
    job: &Job,
    table: Oid,
    wanted: &[String],
    begun: Option<&KeyRange>,
) -> Result<Candidate> {
    let shown = relation::describe(table)?.map_or_else(String::new, |r| r.shown);
    let mut candidates = index::candidates(table)?;
    candidates.retain(|c| c.column_names() == *wanted && c.unusable().is_none());
    let same_order = |c: &Candidate| begun.is_none_or(|range| c.order() == range.order);
    if candidates.iter().any(same_order) {
        candidates.retain(same_order);
    }
    let named = job.definition.options.key.as_deref();
    let named = named.filter(|name| candidates.iter().any(|c| c.name == *name));
    let found = key::choose(candidates, named, &shown).map_err(|mut error| {
        error.message = format!(
            "table {shown} has no usable unique index on ({}) any more",
            wanted.join(", ")
        );
        error.detail = None;
        error
    })?;
    begun.map_or(Ok(()), |range| check_order(range, &found))?;
    Ok(found)
}

/// Refuses to go on in another order than the one that was begun: rows would be skipped.
fn check_order(begun: &KeyRange, index: &Candidate) -> Result<()> {
    let now = index.order();
    if begun.order == now {
        return Ok(());
    }
    let both = begun.order.iter().zip(&now).zip(&begun.columns);
    let changed = both
        .filter(|((before, after), _)| before != after)
        .map(|((before, after), column)| format!("\"{column}\": {before} before; {after} now"));
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        "the key has another type or collation, or another version of it, than when the job began",
    )
    .detail(changed.collect::<Vec<_>>().join(". "))
    .hint("Its order may differ, and rows would be skipped. After a change of version, REINDEX the key's index. Cancel this job and start another; with a where_clause that tells done rows, only the rest is done."))
}
