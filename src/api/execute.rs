//! `backfill.execute`: starts a job that runs a statement for each batch of rows.

use super::call::{Request, Work};
use super::caller::required;
use super::{define, start};
use crate::error::Result;
use crate::scan::clause;

/// Starts a job at commit that runs the statement for the rows that match the WHERE clause; returns its id. `typed`: whether the call is a
/// client's own statement.
pub fn start(
    request: Request,
    statement: Option<String>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    typed: bool,
) -> Result<i64> {
    let request = checked(request, statement)?;
    start::begin(request, batch_size, sleep_ms, typed, "backfill.execute()")
}

/// Stores the definition of such a job; returns its id.
pub fn define(request: Request, statement: Option<String>) -> Result<i64> {
    define::begin(checked(request, statement)?, "backfill.define_execute()")
}

fn checked(request: Request, statement: Option<String>) -> Result<Request> {
    let statement = required(statement, "statement")?;
    clause::check("statement", &statement)?;
    Ok(Request {
        work: Some(Work::Execute(clause::trimmed(&statement).to_owned())),
        ..request
    })
}
