//! Which rows a verification is about, and which of them may be done again: none that the job was not about.
//!
//! Of a row that is done the WHERE clause may be true no more (`new IS NULL`), so that it can't tell. Its conditions
//! that no update of the job changes (`country = 'DE'`) can.

use super::tables;
use crate::catalog::job::Job;
use crate::error::Result;
use crate::job::purpose::all_of;
use crate::pg::relation::Relation;
use crate::pg::{clauses, conjuncts, physical};

/// What is as true of each row as it was before the job: conditions on its other columns, and on nothing that may
/// have changed since. With the owner's rights and settings.
pub fn lasting(of: &Job, relation: &Relation) -> Result<Option<String>> {
    let set = &of.definition.set_columns;
    let tables = tables::of(relation)?;
    conditions(of, relation, |condition| {
        if clauses::depends_on_more(&relation.alone(None), condition)? {
            return Ok(false);
        }
        for table in &tables {
            let alias = (table.oid != relation.oid).then_some(relation.name.as_str());
            if physical::can_fall_out(table, alias, condition, set)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// What is to be true of a row for it to be done again, as for the first time: all conditions on its other columns.
/// With the owner's rights and settings.
pub fn unset(of: &Job, relation: &Relation) -> Result<Option<String>> {
    let set = &of.definition.set_columns;
    conditions(of, relation, |condition| {
        physical::reads_what_stays(relation, None, condition, set)
    })
}

fn conditions(
    of: &Job,
    relation: &Relation,
    keep: impl Fn(&str) -> Result<bool>,
) -> Result<Option<String>> {
    let Some(clause) = &of.definition.where_clause else {
        return Ok(None);
    };
    let mut kept = Vec::new();
    for condition in conjuncts::of(relation, clause)? {
        if keep(&condition)? {
            kept.push(condition);
        }
    }
    Ok(all_of(kept))
}
