//! The table that a copy fills, and what goes into it.

use pgrx::pg_sys::Oid;

use super::call::{Call, check_kind, refuse_superusers_job};
use crate::action::{Asked, Changes, Copy};
use crate::error::{Error, Result, sqlstate};
use crate::pg::partition;
use crate::pg::relation::{self, Relation};
use crate::pg::report::notice;
use crate::table::copied;

/// Returns the copy that a call asks for. The caller's own text.
pub fn of(call: &Call, target: u32, asked: &Asked) -> Result<Copy> {
    let target = found(Oid::from(target))?;
    check_kind(&target)?;
    refuse_superusers_job(&target)?;
    target.refuse_deceptive()?;
    let lock = call.options.lock_of_copy();
    let copy = copied::of(&call.relation, &target, asked.clone(), lock)?;
    if asked.columns.is_none() {
        say_left_out(&call.relation, &target, &copy);
    }
    for behind in copied::sequences(&copy)? {
        notice(
            &format!(
                "column \"{}\" of table {} is filled by the copy, and its sequence is not moved",
                behind.column, target.shown
            ),
            Some(&format!(
                "When the copy has completed, before rows are inserted without a value: {};",
                behind.statement
            )),
        );
    }
    Ok(copy)
}

/// Finds the target, and locks it.
fn found(oid: Oid) -> Result<Relation> {
    relation::lock_for_update(oid);
    relation::describe(oid)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("target with OID {oid} does not exist"),
        )
        .hint("Give the name of a table.")
    })
}

/// Names the columns of the source that have no place in the target.
fn say_left_out(source: &Relation, target: &Relation, copy: &Copy) {
    let names = source.columns.iter().map(|column| column.name.as_str());
    let left: Vec<&str> = names
        .filter(|name| !copy.columns.iter().any(|column| column == name))
        .collect();
    if !left.is_empty() {
        notice(
            &format!(
                "columns of {} that are not copied, since {} has no column of that name to be filled: {}",
                source.shown,
                target.shown,
                left.join(", ")
            ),
            Some("Where they should be, name them in columns and select_list."),
        );
    }
}

/// Refuses a target that is one of the tables that the job walks, or that such a table is a part of: it would meet its own rows.
pub fn refuse_within(table: &Relation, changes: &Changes) -> Result<()> {
    let Changes::Copy(copy) = changes else {
        return Ok(());
    };
    let target = Oid::from(copy.target);
    let mut parts = partition::leaves(target, false)?.into_iter();
    if target != table.oid && !parts.any(|part| part.oid == table.oid) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the rows that are copied into {} would be copied again: table {} is a part of both",
        copy.name, table.shown
    ))
    .hint("Copy into a table of its own."))
}
