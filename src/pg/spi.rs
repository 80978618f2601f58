//! SQL from inside the server. Values go in with their type and come back as text.

use std::ffi::CString;

use pgrx::pg_sys::{self, Datum, Oid};

pub use super::arg::{Arg, CANONICAL, output_jsonb};
use super::capture::capture;
use super::confine;
use super::elevate;
use super::heap::{self, Tid};
use super::settings;
use super::text::{from_server, to_server};
use crate::error::{Error, Result, sqlstate};

/// A row of a result, column by column in text form.
#[derive(Debug, Clone)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The column, or NULL.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(|v| v.as_deref())
    }

    /// The column, which must not be NULL.
    pub fn text(&self, column: usize) -> Result<&str> {
        self.get(column)
            .ok_or_else(|| Error::internal(format!("column {column} is NULL")))
    }

    /// The column as what it parses into, or NULL.
    pub fn parse<T: std::str::FromStr>(&self, column: usize) -> Result<Option<T>> {
        self.get(column)
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::internal(format!("column {column} is \"{text}\"")))
            })
            .transpose()
    }

    /// The column as a number, which must not be NULL.
    pub fn number(&self, column: usize) -> Result<i64> {
        self.text(column)?;
        Ok(self.parse(column)?.unwrap_or_default())
    }

    /// The column as a boolean; NULL is false.
    pub fn bool(&self, column: usize) -> bool {
        self.get(column) == Some("t")
    }

    /// The first `n` columns, none of which may be NULL.
    pub fn texts(&self, n: usize) -> Result<Vec<String>> {
        (0..n).map(|i| self.text(i).map(str::to_owned)).collect()
    }
}

/// A row of a result as the server holds it.
#[derive(Debug)]
pub struct RawRow {
    tuple: pg_sys::HeapTuple,
    description: pg_sys::TupleDesc,
}

impl RawRow {
    /// The column, counted from 0; NULL is `None`.
    pub fn get(&self, column: usize) -> Option<Datum> {
        let mut null = false;
        let number = column as i32 + 1;
        let value =
            unsafe { pg_sys::SPI_getbinval(self.tuple, self.description, number, &mut null) };
        (!null).then_some(value)
    }

    /// A column of type tid.
    pub fn tid(&self, column: usize) -> Option<Tid> {
        self.get(column).map(|value| unsafe { heap::tid(value) })
    }
}

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
    unsafe {
        if pg_sys::SPI_connect() < 0 {
            return Err(Error::internal("SPI_connect failed"));
        }
        let result = f();
        pg_sys::SPI_finish();
        result
    }
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
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let output = execute(sql, args, true);
        pg_sys::PopActiveSnapshot();
        output
    }
}

fn execute(sql: &str, args: &[Arg], read_only: bool) -> Result<Output> {
    let text = to_server(sql)?;
    let mut bound = Bound::new(args)?;
    unsafe {
        let code = pg_sys::SPI_execute_with_args(
            text.as_ptr(),
            args.len() as i32,
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
    super::report::activity(&text);
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

/// Runs `f` in a subtransaction of its own, which is rolled back in any case.
pub fn rolled_back<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut value = None;
    let undone = in_subtransaction(|| {
        value = Some(f()?);
        Err::<(), Error>(Error::internal("rolled back"))
    });
    match (value, undone) {
        (Some(value), _) => Ok(value),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::internal("a subtransaction without a result")),
    }
}

/// Runs `f` in a subtransaction of its own, which is rolled back if it gives an error, or raises one.
pub fn in_subtransaction<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(true, f)
}

/// The same, and it is rolled back in any case. For what only looks: a read-only transaction may still notify, and before
/// PostgreSQL 16 write large objects.
pub fn undone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(false, f)
}

fn subtransaction<T>(keep: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = capture(f);
        match result {
            Ok(_) if keep => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

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

/// A statement that was analysed once and is kept for the life of the process (or until dropped).
/// Always run with a generic plan: its parameters are bounds, whose values don't change the plan.
#[derive(Debug)]
pub struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    /// Whether it is one of the extension's own, which runs within `as_extension` only; others never do.
    own: bool,
    /// The statement's text, as `pg_stat_activity` shows it.
    pub text: CString,
}

impl Plan {
    /// Analyses a statement, within [`connect`].
    pub fn prepare(sql: &str, types: &[Oid]) -> Result<Plan> {
        allowed()?;
        let own = elevate::is_elevated();
        let text = to_server(sql)?;
        let mut types = types.to_vec();
        unsafe {
            let pointer = pg_sys::SPI_prepare_cursor(
                text.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if pointer.is_null() || pg_sys::SPI_keepplan(pointer) != 0 {
                return Err(Error::internal(format!("cannot prepare: {sql}")));
            }
            Ok(Plan { pointer, own, text })
        }
    }

    /// Runs the statement, within [`connect`].
    pub fn run(&self, args: &[Arg]) -> Result<Output> {
        let bound = Bound::new(args)?;
        let code = self.execute(bound)?;
        unsafe { output(code) }
    }

    /// The same for values whose text form depends on settings: they are converted under
    /// [`CANONICAL`] ones, while the statement itself runs under those in force.
    pub fn run_canonical(&self, args: &[Arg]) -> Result<Output> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        settings::with(CANONICAL, || unsafe { output(code) })
    }

    /// Runs the statement and shows each row to `f` as the server holds it: nothing of it may be
    /// kept but copies. Values that are bound are converted under [`CANONICAL`] settings.
    pub fn visit(&self, args: &[Arg], mut f: impl FnMut(&RawRow) -> Result<()>) -> Result<()> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        if code < 0 {
            return Err(Error::internal(format!("SPI returned {code}")));
        }
        unsafe {
            let table = pg_sys::SPI_tuptable;
            let description = (*table).tupdesc;
            for i in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(i);
                f(&RawRow { tuple, description })?;
            }
            pg_sys::SPI_freetuptable(table);
        }
        Ok(())
    }

    fn execute(&self, mut bound: Bound) -> Result<i32> {
        if self.own != elevate::is_elevated() {
            return Err(Error::internal(
                "a statement was about to run with rights that are not its own",
            ));
        }
        let code = unsafe {
            pg_sys::SPI_execute_plan(
                self.pointer,
                bound.values.as_mut_ptr(),
                bound.nulls.as_ptr(),
                false,
                0,
            )
        };
        Ok(code)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        unsafe { pg_sys::SPI_freeplan(self.pointer) };
    }
}

/// Reads the result of the last SPI call and frees it.
unsafe fn output(code: i32) -> Result<Output> {
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
            rows.push(row(*(*table).vals.add(i), (*table).tupdesc)?);
        }
        pg_sys::SPI_freetuptable(table);
        Ok(Output { rows, processed })
    }
}

unsafe fn row(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Result<Row> {
    unsafe {
        let mut values = Vec::with_capacity((*description).natts as usize);
        for column in 1..=(*description).natts {
            let text = pg_sys::SPI_getvalue(tuple, description, column);
            values.push(if text.is_null() {
                None
            } else {
                Some(from_server(text)?)
            });
            if !text.is_null() {
                pg_sys::pfree(text.cast());
            }
        }
        Ok(Row(values))
    }
}
