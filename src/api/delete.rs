//! `backfill.delete`: starts a job that deletes rows in batches.

use super::call::{Request, Work};
use super::{define, start};
use crate::error::{Error, Result, sqlstate};
use crate::pg::report::warning;
use crate::scan::clause;

/// Starts a job at commit that deletes the rows that match the WHERE clause; returns its id. `typed`: whether the call is a client's own
/// statement.
pub fn start(
    request: Request,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    typed: bool,
) -> Result<i64> {
    let request = checked(request)?;
    start::begin(request, batch_size, sleep_ms, typed, "backfill.delete()")
}

/// Stores the definition of such a job; returns its id.
pub fn define(request: Request) -> Result<i64> {
    define::begin(checked(request)?, "backfill.define_delete()")
}

/// Checks that the request says which rows to delete.
fn checked(request: Request) -> Result<Request> {
    let Some(where_clause) = &request.where_clause else {
        return Err(Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            "where_clause must not be NULL: it says which rows to delete",
        )
        .hint("Give it, such as where_clause => 'expires_at < now()'. For all rows it is 'true'; TRUNCATE takes less time."));
    };
    if clause::trimmed(where_clause).eq_ignore_ascii_case("true") {
        warning(
            "where_clause is true of every row: the job deletes them all",
            Some(
                "TRUNCATE does that at once, and leaves no dead rows; it locks out readers and writers for that moment.",
            ),
        );
    }
    Ok(Request {
        work: Some(Work::Delete),
        ..request
    })
}
