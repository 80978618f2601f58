//! `backfill.copy`: starts a job that inserts something for each row of a table into another one.

use pgrx::pg_sys::Oid;

use super::call::{Call, Request, Work, check_kind, refuse_superusers_job};
use super::caller::required;
use super::{define, start};
use crate::action::{Asked, Changes, Copy};
use crate::error::{Error, Result, sqlstate};
use crate::pg::partition;
use crate::pg::relation::{self, Relation};
use crate::pg::report::notice;
use crate::scan::clause;
use crate::table::copied;

/// The arguments that only a copy has.
pub struct CopyRequest {
    /// The table that gets the rows.
    pub target: Option<Oid>,
    /// Columns, select list and action for a conflict.
    pub asked: Asked,
}

/// Starts a job at commit that copies the rows that match the WHERE clause; returns its id. `typed`: whether the call is a client's own
/// statement.
pub fn start(
    request: Request,
    copy: CopyRequest,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    typed: bool,
) -> Result<i64> {
    let request = checked(request, copy)?;
    start::begin(request, batch_size, sleep_ms, typed, "backfill.copy()")
}

/// Stores the definition of such a job; returns its id.
pub fn define(request: Request, copy: CopyRequest) -> Result<i64> {
    define::begin(checked(request, copy)?, "backfill.define_copy()")
}

/// Checks the text of the request, as far as it says by itself what is wrong.
fn checked(request: Request, copy: CopyRequest) -> Result<Request> {
    let target = required(copy.target, "target")?;
    let Asked {
        columns,
        select_list,
        on_conflict,
    } = copy.asked;
    if select_list.is_some() && columns.is_none() {
        return Err(Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            "select_list is given without columns",
        )
        .hint("Name the columns of the target that get the values, in their order: columns => 'a, b'."));
    }
    let trim = |what: &str, text: Option<String>| -> Result<Option<String>> {
        if let Some(text) = &text {
            clause::check(what, text)?;
        }
        Ok(text.map(|text| clause::trimmed(&text).to_owned()))
    };
    let asked = Asked {
        columns: trim("columns", columns)?,
        select_list: trim("select_list", select_list)?,
        on_conflict: trim("on_conflict", on_conflict)?,
    };
    Ok(Request {
        work: Some(Work::Copy {
            target: target.to_u32(),
            asked,
        }),
        ..request
    })
}

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
