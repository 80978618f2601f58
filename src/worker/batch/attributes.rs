//! The columns of a walk's key and of its clauses, which must stay the same columns to the end of the walk.

use pgrx::pg_sys::Oid;

use crate::action::statement::reading;
use crate::error::{Error, Result, sqlstate};
use crate::pg::enums::{self, Enums};
use crate::pg::{clauses, relation, server};
use crate::scan::attributes::{Attributes, Label};
use crate::scan::key::Column;
use crate::scan::sql;
use crate::store::job::Job;
use crate::store::slice::{self, Slice};

/// Returns what to record about a table that is being cut into slices: the columns that the clauses used when the walk
/// of the table began, and the key of the new slices.
pub fn of(job: &Job, table: Oid, key: &[Column]) -> Result<Attributes> {
    let labels = labels(&enums::lock(key.iter().map(|column| column.type_oid))?);
    let key = key.iter().map(|column| column.number).collect();
    let of = whose(table);
    if let Some(begun) = slice::begun_with(job.id, table)?.filter(|begun| begun.of == of) {
        return Ok(Attributes { key, ..begun });
    }
    let Some(found) = relation::describe(table)? else {
        return Ok(Attributes::default());
    };
    let alias = known_as(job, table)?;
    let from = found.alone(alias.as_deref());
    let definition = &job.definition;
    let clause = definition.where_clause.as_deref();
    let question = definition.action.question();
    let wrong = question.and_then(|question| question.wrong(clause));
    let condition = wrong.as_deref().or(clause).unwrap_or("true");
    let changes = definition.action.changes();
    let action = changes.as_action();
    let name = sql::name_of(&found.schema, &found.name, alias.as_deref());
    let used = clauses::columns_used(&reading(action, &from, &name, Some(condition)))?;
    let columns = found.columns.into_iter();
    let used = columns.filter(|column| used.contains(&column.number));
    Ok(Attributes {
        of,
        clauses: used.map(|column| (column.name, column.number)).collect(),
        key,
        labels,
    })
}

/// Fails if the clauses would now mean other columns than when the walk of the slice's table began, or if a column of
/// its key has been dropped. The table must be locked.
pub fn check(slice: &Slice, key: &[String]) -> Result<()> {
    let begun = &slice.attributes;
    let Some(found) = relation::describe(slice.relation)? else {
        return Ok(());
    };
    if !hold(slice) {
        return Ok(());
    }
    let numbered = found.columns.iter().map(|c| (c.number, c.name.as_str()));
    let now: Vec<_> = numbered.collect();
    if let Some(error) = begun.changed(&found.shown, &now) {
        return Err(error);
    }
    match begun.dropped_key(key, &now) {
        None => Ok(()),
        Some(column) => Err(Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("key column \"{column}\" of table {} was dropped", found.shown),
        )
        .hint("Nothing tells any more where the walk stands. Cancel this job and start another; with a where_clause that tells done rows, only the rest is done.")),
    }
}

/// Returns the enums of the key, and locks their labels until the transaction ends. Fails if keys stored as labels
/// would now mean other values than when the walk of the slice's table began.
pub fn check_labels(slice: &Slice, key: &[Column]) -> Result<Enums> {
    let enums = enums::lock(key.iter().map(|column| column.type_oid))?;
    match slice.attributes.relabelled(&labels(&enums), hold(slice)) {
        None => Ok(enums),
        Some(error) => Err(error),
    }
}

fn labels(enums: &Enums) -> Vec<Label> {
    let label = |(oid, label): &(Oid, String)| Label {
        oid: oid.to_u32(),
        label: label.clone(),
    };
    enums.labels.iter().map(label).collect()
}

/// True if the recorded column numbers are those of this table. They are not in a copy of the database, where columns
/// are known only by name.
pub fn hold(slice: &Slice) -> bool {
    slice.attributes.of == whose(slice.relation)
}

fn whose(table: Oid) -> String {
    format!(
        "{}/{}/{}",
        server::system_identifier(),
        server::database().to_u32(),
        table.to_u32()
    )
}

/// Returns the name by which the clauses call the table, if it is not its own: that of the partitioned table.
pub fn known_as(job: &Job, table: Oid) -> Result<Option<String>> {
    if table == job.relation {
        return Ok(None);
    }
    Ok(relation::describe(job.relation)?.map(|root| root.name))
}
