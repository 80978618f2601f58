//! `backfill.copy`: starts a job that inserts something for each row of a table into another one.

use pgrx::pg_sys::Oid;

use super::call::{Request, Work};
use super::caller::required;
use super::{define, start};
use crate::action::Asked;
use crate::error::{Error, Result, sqlstate};
use crate::scan::clause;

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
