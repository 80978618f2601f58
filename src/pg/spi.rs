//! SQL from inside the server. Values go in with their type and come back as text.

use std::ffi::CString;

use pgrx::pg_sys::{self, Datum, Oid};

pub use super::arg::{Arg, CANONICAL, output_jsonb};
use super::capture::capture;
use super::heap::{self, Tid};
use super::text::{from_server, to_server};
use super::{confine, elevate, schemas, server, settings};
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

/// A row of a result as the server holds it. Columns are counted from 0.
#[derive(Debug)]
pub struct RawRow<'a> {
    tuple: pg_sys::HeapTuple,
    columns: &'a Columns,
}

impl RawRow<'_> {
    /// The value of a column of this type, or of a domain over it; NULL is `None`. It is part of the row, if it
    /// is not passed by value. An error for a column of another type.
    pub(super) fn of_type(&self, column: usize, of: Oid) -> Result<Option<Datum>> {
        if self.columns.types.get(column) != Some(&of) {
            let message = format!("column {column} of a result is not of type {of}");
            return Err(Error::internal(message));
        }
        let (description, mut null) = (self.columns.description, false);
        // SAFETY: the row is one of the result that the description is of, which `visit` frees after it has shown
        // all of them, and the column is there.
        let value =
            unsafe { pg_sys::SPI_getbinval(self.tuple, description, column as i32 + 1, &mut null) };
        Ok((!null).then_some(value))
    }

    /// A boolean column; NULL is false.
    pub fn bool(&self, column: usize) -> Result<bool> {
        let value = self.of_type(column, pg_sys::BOOLOID)?;
        Ok(value.is_some_and(|value| value.value() != 0))
    }

    /// A column of type bigint.
    pub fn number(&self, column: usize) -> Result<Option<i64>> {
        let value = self.of_type(column, pg_sys::INT8OID)?;
        Ok(value.map(|value| value.value() as i64))
    }

    /// A column of type tid.
    pub fn tid(&self, column: usize) -> Result<Option<Tid>> {
        let value = self.of_type(column, pg_sys::TIDOID)?;
        // SAFETY: it is of that type, and not NULL.
        Ok(value.map(|value| unsafe { heap::tid(value) }))
    }
}

/// The columns of a result that is being looked at.
#[derive(Debug)]
struct Columns {
    description: pg_sys::TupleDesc,
    /// Their types; of a domain, that which it is over.
    types: Vec<Oid>,
}

impl Columns {
    /// # Safety
    /// `description` must be that of a result, which lives as long as this. Within a transaction.
    unsafe fn of(description: pg_sys::TupleDesc) -> Columns {
        // SAFETY: as the caller promises. The types of columns that are there exist.
        let base = |number| unsafe {
            match pg_sys::SPI_gettypeid(description, number) {
                // Below, there are no domains.
                own if own.to_u32() < pg_sys::FirstGenbkiObjectId => own,
                own => pg_sys::getBaseType(own),
            }
        };
        // SAFETY: as the caller promises.
        let count = unsafe { (*description).natts };
        Columns {
            description,
            types: (1..=count).map(base).collect(),
        }
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
    server::require_transaction();
    // SAFETY: within a transaction. The memory context and the resource owner are the current ones, and so
    // belong to that transaction, or outlive it.
    let (context, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        // With debug messages a cancel would be seen in the midst of it, which leaves what can't be rolled back alone: the server
        // ends the session then. An error sets the count back.
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let result = capture(f);
    // SAFETY: `capture` lets neither an error nor a panic pass, and `f` ends no transaction: so the
    // subtransaction from above is the innermost, and what was current before it lives still. An error while it
    // is ended goes to whoever aborts the transaction around it, and that ends all of this.
    unsafe {
        match result {
            Ok(_) if keep => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result
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

/// A statement that was analysed once and is kept for the life of the process (or until dropped).
/// Always run with a generic plan: its parameters are bounds, whose values don't change the plan.
#[derive(Debug)]
pub struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    /// Those of its parameters.
    types: Vec<Oid>,
    /// Whether it is one of the extension's own, which runs within `as_extension` only; others never do.
    own: bool,
    /// What the names of schemas in it mean: it may be analysed again each time that it runs.
    meant: Vec<(Oid, CString)>,
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
        // SAFETY: SPI refuses to work where it is not connected. The text and as many types as are counted are
        // copied into the plan, which, once it is kept, lives until `drop` frees it.
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
            Ok(Plan {
                pointer,
                types,
                own,
                meant: schemas::remembered(),
                text,
            })
        }
    }

    /// Runs the statement, within [`connect`].
    pub fn run(&self, args: &[Arg]) -> Result<Output> {
        let bound = Bound::new(args)?;
        let code = self.execute(bound)?;
        // SAFETY: it is the code of the call before this.
        unsafe { output(code) }
    }

    /// The same for values whose text form depends on settings: they are converted under
    /// [`CANONICAL`] ones, while the statement itself runs under those in force.
    pub fn run_canonical(&self, args: &[Arg]) -> Result<Output> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        // SAFETY: it is the code of the last call, as `with` makes none.
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
        // SAFETY: the result of the call before this, or null, if the statement gives no rows. It stays until it
        // is freed below, or SPI is left, whatever `f` runs meanwhile, and has as many rows as it says. Each row
        // is lent to `f` for as long as its call lasts.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return Err(Error::internal("a statement gives no rows"));
            }
            let columns = Columns::of((*table).tupdesc);
            for i in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(i);
                f(&RawRow {
                    tuple,
                    columns: &columns,
                })?;
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
        if self.types != bound.types {
            let message = format!(
                "{:?} were about to be bound to {:?}",
                bound.types, self.types
            );
            return Err(Error::internal(message));
        }
        let _names = (!self.own).then(|| schemas::Scope::of(&self.meant));
        // SAFETY: the plan was kept, and is freed by `drop` only; SPI refuses to work where it is not connected.
        // The values are those that the plan has parameters for, and live until it has run.
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
        // SAFETY: kept by `prepare`, and freed by nobody else. One that is in use, as it may be where an error is
        // on its way, is counted by those who use it.
        unsafe { pg_sys::SPI_freeplan(self.pointer) };
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
            rows.push(row(*(*table).vals.add(i), (*table).tupdesc)?);
        }
        pg_sys::SPI_freetuptable(table);
        Ok(Output { rows, processed })
    }
}

/// # Safety
/// The row must be one of the result that the description is of.
unsafe fn row(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Result<Row> {
    // SAFETY: as the caller promises. Columns are counted from 1. The text of a value is allocated for the caller
    // alone, and ends with a zero; it is copied, and then freed.
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
