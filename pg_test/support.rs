//! What the tests share: SQL in one line each. An error that is not expected fails the test.

use crate::error::{Error, Result};
use crate::pg::confine;
use crate::pg::spi::{self, Arg};

/// Runs statements.
pub fn run(sql: &str) {
    connected(|| spi::query(sql, &[])).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The first column of the first row.
pub fn value(sql: &str) -> Option<String> {
    first(sql, &[])
}

/// The same with parameters.
pub fn first(sql: &str, args: &[Arg]) -> Option<String> {
    let row = connected(|| spi::first(sql, args)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    row.and_then(|row| row.get(0).map(str::to_owned))
}

/// The first column of all rows, in lines.
pub fn lines(sql: &str) -> String {
    let output =
        connected(|| spi::query(sql, &[])).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = |row: &spi::Row| row.get(0).unwrap_or("NULL").to_owned();
    output
        .rows
        .iter()
        .map(text)
        .collect::<Vec<String>>()
        .join("\n")
}

/// The error that a statement raises, which leaves the transaction as it was before.
pub fn refused(sql: &str) -> Error {
    connected(|| spi::attempt(sql).map(|_| ())).expect_err(sql)
}

/// Runs `f` connected to SPI, as in a process of the owner's: the tests' text is the tests' own.
pub fn connected<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    confine::process_is_the_owners();
    spi::connect(f)
}

/// A relation's OID.
pub fn oid(relation: &str) -> pgrx::pg_sys::Oid {
    let text = value(&format!("SELECT '{relation}'::regclass::oid")).expect(relation);
    pgrx::pg_sys::Oid::from(text.parse::<u32>().expect("an OID"))
}
