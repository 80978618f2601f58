//! `backfill.execute`: starts a job that runs a statement for each batch of rows.

use super::call::{Call, Request, Work};
use super::caller::required;
use super::{define, start};
use crate::action::{BATCH, Execute};
use crate::error::{Error, Result, sqlstate};
use crate::pg::{batch, parts};
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

/// Returns the action that a call asks for. The caller's own text.
pub fn of(call: &Call, statement: &str) -> Result<Execute> {
    parts::batch_statement(statement)?;
    Ok(Execute {
        statement: statement.to_owned(),
        lock: call.options.lock_of_execute(),
    })
}

/// Refuses a statement, as it is run for a batch, that does not read the batch. The caller's own text.
pub fn refuse_unrelated(rendered: &str) -> Result<()> {
    if batch::is_read(rendered, BATCH)? {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INVALID_PARAMETER_VALUE,
        "statement does not read batch, the rows of the batch",
    )
    .hint("It names them like a table: 'INSERT INTO history SELECT id, now() FROM batch'. A statement that is to run once needs no job."))
}
