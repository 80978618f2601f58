//! Which rows a verification is about, and which of them may be done again: none that the job was not about.
//!
//! Of a row that is done the WHERE clause may be true no more (`new IS NULL`), so that it can't tell. Its conditions
//! that no update of the job changes (`country = 'DE'`) can.

use super::sample::Backfill;
use super::tables;
use crate::error::Result;
use crate::pg::{clauses, conjuncts, physical};
use crate::scan::clause::all_of;

/// What is as true of each row as it was before the job: conditions on its other columns, and on nothing that may
/// have changed since. Within a session of the owner's.
pub fn lasting(of: &Backfill) -> Result<Option<String>> {
    let (set, relation) = (&of.update().set_columns, &of.relation);
    let tables = tables::of(relation, of.options.only())?;
    conditions(of, |condition| {
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
/// Within a session of the owner's.
pub fn unset(of: &Backfill) -> Result<Option<String>> {
    let set = &of.update().set_columns;
    conditions(of, |condition| {
        physical::reads_what_stays(&of.relation, None, condition, set)
    })
}

fn conditions(of: &Backfill, keep: impl Fn(&str) -> Result<bool>) -> Result<Option<String>> {
    let Some(clause) = &of.where_clause else {
        return Ok(None);
    };
    let mut kept = Vec::new();
    for condition in conjuncts::of(&of.relation, clause)? {
        if keep(&condition)? {
            kept.push(condition);
        }
    }
    Ok(all_of(kept))
}
