//! SQL from inside the server. Values go in with their type and come back as text.

mod kept;
mod plan;
mod row;
mod subtransaction;

use pgrx::pg_sys::{self, Datum, Oid};

pub use self::kept::{kept, kept_first};
pub use self::plan::Plan;
pub use self::row::{RawRow, Row, for_people};
pub use self::subtransaction::{in_subtransaction, undone};
pub use super::arg::{Arg, CANONICAL, output_jsonb};
use super::text::to_server;
use super::{confine, elevate, server};
use crate::error::{Error, Result, sqlstate};

/// What a statement gave.
#[derive(Debug)]
pub struct Output {
    /// Rows returned.
    pub rows: Vec<Row>,
    /// Rows processed, as SPI counts them.
    pub processed: i64,
}

/// Connects to SPI, runs `f` and disconnects. After an error nothing is left to do: the abort of
/// the transaction disconnects.
pub fn connect<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    server::require_transaction();
    // SAFETY: within a transaction. What is connected here is disconnected below, or, where an error leaves `f`,
    // by the abort of the (sub)transaction that the error ends.
    if unsafe { pg_sys::SPI_connect() } < 0 {
        return Err(Error::internal("SPI_connect failed"));
    }
    let result = f();
    // SAFETY: `f` has left SPI as it found it, as whatever connects in it disconnects. Nothing of Rust's lives
    // in the memory that this frees: rows are copied out of it, and `visit` lends them only.
    unsafe { pg_sys::SPI_finish() };
    result
}

/// Runs a statement once, within [`connect`]: one of the extension's own within `as_extension`, or one with
/// text of users where that is allowed, see [`confine`].
pub fn query(sql: &str, args: &[Arg]) -> Result<Output> {
    allowed()?;
    execute(sql, args, false)
}

/// Runs a statement that is part of this library, and so holds nobody's text, as the current user.
pub fn fixed(sql: &'static str, args: &[Arg]) -> Result<Output> {
    execute(sql, args, false)
}

/// Like [`fixed`]; gives the first row, if any.
pub fn fixed_first(sql: &'static str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(fixed(sql, args)?.rows.into_iter().next())
}

fn allowed() -> Result<()> {
    if elevate::is_elevated() {
        return Ok(());
    }
    confine::require()
}

/// Runs a query under a snapshot of its own, whatever the isolation level: it sees what others
/// have committed by now, and what this transaction has done.
pub fn query_latest(sql: &str, args: &[Arg]) -> Result<Output> {
    allowed()?;
    server::require_transaction();
    // SAFETY: within a transaction. The snapshot that is pushed is popped below, or, where an error leaves
    // `execute`, by the abort that follows.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
    }
    let output = execute(sql, args, true);
    // SAFETY: it is the one from above, as a statement leaves the stack as it was.
    unsafe { pg_sys::PopActiveSnapshot() };
    output
}

fn execute(sql: &str, args: &[Arg], read_only: bool) -> Result<Output> {
    let text = to_server(sql)?;
    let mut bound = Bound::new(args)?;
    // SAFETY: SPI refuses to work where it is not connected. As many types, values of these types and marks of
    // NULL are there as are counted; they, and the text, live until the statement has run. `output` reads the
    // result of this call.
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

/// Runs a statement of a user's within [`connect`], whatever it is; what it returns is thrown away row
/// by row.
pub fn run_for_effect(sql: &str) -> Result<()> {
    confine::require()?;
    let text = to_server(sql)?;
    // A client's own statement is what it is shown with.
    if !server::is_client() {
        super::report::activity(&text);
    }
    // SAFETY: SPI refuses to work where it is not connected. The text and the options, in which what is not said
    // is zero, live until the statement has run. The receiver that throws rows away is a constant of the server.
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

/// Runs a query within [`connect`] that may change nothing; gives its first row, if any.
pub fn read_only(sql: &str) -> Result<Option<Row>> {
    confine::require()?;
    Ok(execute(sql, &[], true)?.rows.into_iter().next())
}

/// Runs a statement within [`connect`] and gives its first row, if any.
pub fn first(sql: &str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(query(sql, args)?.rows.into_iter().next())
}

/// Like [`query`] in a subtransaction of its own: an error comes back as a value, with its
/// position, and leaves the transaction usable.
pub fn attempt(sql: &str) -> Result<Output> {
    in_subtransaction(|| query(sql, &[]))
}

/// What is bound to the parameters of a statement: as many types, values of these, and marks of NULL. The values
/// live in the memory context in which this was made, and so until `connect` ends.
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
/// `code` must be what the last call of SPI's that runs a statement gave, and nobody may have read its result.
unsafe fn output(code: i32) -> Result<Output> {
    // SAFETY: then the result is SPI's own, or null for none, and has as many rows as it says.
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
