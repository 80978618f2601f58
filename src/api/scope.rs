//! The rows that a verification is about, and those that may be done again: only rows that the job was about.
//!
//! The WHERE clause may no longer be true of a row that is done (`new IS NULL`), so it cannot tell. Those of its
//! conditions that no update of the job affects (`country = 'DE'`) can.

use super::backfill::Backfill;
use super::tables;
use crate::error::Result;
use crate::pg::{clauses, conjuncts, physical};
use crate::scan::clause::all_of;

/// Returns what is as true of each row as it was before the job: conditions on other columns than those set, that
/// depend on nothing that may have changed since. Within a session of the owner's.
pub fn lasting(of: &Backfill) -> Result<Option<String>> {
    let (set, relation) = (of.set_columns(), &of.relation);
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

/// Returns what must be true of a row for it to be done again, as for the first time: all conditions on other columns
/// than those set. Within a session of the owner's.
pub fn unset(of: &Backfill) -> Result<Option<String>> {
    let set = of.set_columns();
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
