//! Reads the server's own views with the extension's rights, because ordinary roles see NULL there. So the text of a
//! statement is a constant, into which no clause of a job can get.

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Row};

/// Returns the first row of a query, if there is one.
pub fn first(sql: &'static str, args: &[Arg]) -> Result<Option<Row>> {
    as_extension(|| spi::first(sql, args))
}

/// Returns the only row of a query.
pub fn one(sql: &'static str, args: &[Arg]) -> Result<Row> {
    first(sql, args)?.ok_or_else(|| Error::internal("a signal has no row"))
}

/// Returns the only number of a query.
pub fn count(sql: &'static str, args: &[Arg]) -> Result<u64> {
    Ok(one(sql, args)?.number(0)?.unsigned_abs())
}

/// Returns the error about a view that hides rows from the extension's owner.
pub fn hidden(view: &str) -> Error {
    Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("{view} does not show all to the extension's owner"),
    )
}
