//! Runs SQL from inside the server. Values go in with their type and come back as text.

mod kept;
mod plan;

use pgrx::pg_sys::{self, Datum, Oid};

pub use self::kept::{kept, kept_first};
pub use self::plan::Plan;
pub use super::arg::{Arg, output_jsonb};
pub use super::row::{RawRow, Row, for_people};
pub use super::subtransaction::{in_subtransaction, undone};
use super::text::to_server;
use super::{confine, elevate, row, search_path, server, settings};
use crate::error::{Error, Result, sqlstate};

/// Result of a statement.
#[derive(Debug)]
pub struct Output {
    /// The rows returned.
    pub rows: Vec<Row>,
    /// Number of rows processed, as SPI counts them.
    pub processed: i64,
}

/// Connects to SPI, runs `f` and disconnects. After an error nothing is left to do: the abort of the transaction disconnects.
pub fn connect<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    server::require_transaction();
    // SAFETY: within a transaction. The connection is closed below or, if an error leaves `f`, by the abort of the
    // (sub)transaction that the error ends.
    if unsafe { pg_sys::SPI_connect() } < 0 {
        return Err(Error::internal("SPI_connect failed"));
    }
    let result = f();
    // SAFETY: `f` has left SPI as it found it, since whatever connects within it disconnects. Nothing of Rust's lives in the
    // memory that this frees: rows are copied out of it, and `visit` only lends them.
    unsafe { pg_sys::SPI_finish() };
    result
}

/// Runs a statement once, within [`connect`]. It must be one of the extension's own, within `as_extension`, or contain users' text only
/// where that is allowed, see [`confine`].
pub fn query(sql: &str, args: &[Arg]) -> Result<Output> {
    allowed()?;
    execute(sql, args, false)
}

/// Runs a statement that is part of this library, and so holds no user's text, as the current user. No operator or function of it is
/// looked up in a schema that others may write to.
pub fn fixed(sql: &'static str, args: &[Arg]) -> Result<Output> {
    settings::with(&[search_path::PINNED], || execute(sql, args, false))
}

/// Like [`fixed`]; returns the first row, if there is one.
pub fn fixed_first(sql: &'static str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(fixed(sql, args)?.rows.into_iter().next())
}

/// Like [`fixed_first`], on the search_path of the current user: for a statement that asks what a name means there, and calls only what
/// it names with its schema, or sets what is to stay set.
pub fn fixed_on_path(sql: &'static str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(execute(sql, args, false)?.rows.into_iter().next())
}

fn allowed() -> Result<()> {
    if elevate::is_elevated() {
        return Ok(());
    }
    confine::require()
}

/// Runs a query under a new snapshot, whatever the isolation level: it sees what others have committed by now, and what this
/// transaction has done.
pub fn query_latest(sql: &str, args: &[Arg]) -> Result<Output> {
    allowed()?;
    server::require_transaction();
    // SAFETY: within a transaction. The snapshot pushed here is popped below or, if an error leaves `execute`, by the abort that
    // follows.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
    }
    let output = execute(sql, args, true);
    // SAFETY: the top snapshot is the one from above, since a statement leaves the stack as it was.
    unsafe { pg_sys::PopActiveSnapshot() };
    output
}

fn execute(sql: &str, args: &[Arg], read_only: bool) -> Result<Output> {
    let text = to_server(sql)?;
    let mut bound = Bound::new(args)?;
    // SAFETY: SPI returns an error where it is not connected. Types, values of these types and null flags are as many as are
    // counted; they, and the text, live until the statement has run. `output` reads the result of this call.
    unsafe {
        let code = pg_sys::SPI_execute_with_args(
            text.as_ptr(),
            bound.types.len() as i32,
            bound.types.as_mut_ptr(),
            bound.values.as_mut_ptr(),
            bound.nulls.as_ptr(),
            read_only,
            0,
        );
        output(code)
    }
}

/// Runs any statement of a user's within [`connect`]; the rows that it returns are discarded one by one.
pub fn run_for_effect(sql: &str) -> Result<()> {
    confine::require()?;
    let text = to_server(sql)?;
    // In a client's session, pg_stat_activity keeps showing the client's own statement.
    if !server::is_client() {
        super::report::activity(&text);
    }
    // SAFETY: SPI returns an error where it is not connected. The text and the options, in which every field not given is zero,
    // live until the statement has run. The receiver that discards rows is a constant of the server.
    let code = unsafe {
        let options = pg_sys::SPIExecuteOptions {
            dest: pg_sys::None_Receiver,
            ..Default::default()
        };
        pg_sys::SPI_execute_extended(text.as_ptr(), &options)
    };
    if code >= 0 {
        return Ok(());
    }
    let message = match code {
        pg_sys::SPI_ERROR_TRANSACTION => "it begins or ends a transaction".to_owned(),
        pg_sys::SPI_ERROR_COPY => "it reads from or writes to a client".to_owned(),
        code => format!("SPI returned {code}"),
    };
    Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message))
}

/// Runs a query within [`connect`] that may change nothing. Returns its first row, if any.
pub fn read_only(sql: &str) -> Result<Option<Row>> {
    confine::require()?;
    Ok(execute(sql, &[], true)?.rows.into_iter().next())
}

/// Runs a statement within [`connect`] and returns its first row, if any.
pub fn first(sql: &str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(query(sql, args)?.rows.into_iter().next())
}

/// Runs a statement like [`query`], in a subtransaction of its own: an error is returned with its position, and leaves the
/// transaction usable.
pub fn attempt(sql: &str) -> Result<Output> {
    in_subtransaction(|| query(sql, &[]))
}

/// The parameters of a statement: types, values of these types, and null flags, equal in number. The values live in the memory context
/// that was current when this was made, and so until `connect` ends.
struct Bound {
    types: Vec<Oid>,
    values: Vec<Datum>,
    nulls: Vec<std::ffi::c_char>,
}

impl Bound {
    fn new(args: &[Arg]) -> Result<Bound> {
        Ok(Bound {
            types: args.iter().map(Arg::oid).collect(),
            values: args.iter().map(Arg::datum).collect::<Result<_>>()?,
            nulls: args
                .iter()
                .map(|a| if matches!(a, Arg::Null(_)) { b'n' } else { b' ' } as std::ffi::c_char)
                .collect(),
        })
    }
}

/// Reads the result of the last SPI call and frees it.
///
/// # Safety
/// `code` must be the result of the last SPI call that runs a statement, and nobody may have read the rows of that call.
unsafe fn output(code: i32) -> Result<Output> {
    // SAFETY: as the caller promises: the table is SPI's own, or null for no rows, and has as many rows as it says.
    unsafe {
        if code < 0 {
            return Err(Error::internal(format!("SPI returned {code}")));
        }
        let processed = pg_sys::SPI_processed as i64;
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return Ok(Output {
                rows: Vec::new(),
                processed,
            });
        }
        let mut rows = Vec::with_capacity((*table).numvals as usize);
        for i in 0..(*table).numvals as usize {
            rows.push(row::copy(*(*table).vals.add(i), (*table).tupdesc)?);
        }
        pg_sys::SPI_freetuptable(table);
        Ok(Output { rows, processed })
    }
}
