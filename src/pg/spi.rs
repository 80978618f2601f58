//! SQL from inside the server. Values go in with their type and come back as text.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Datum, Oid};

use super::capture::capture;
use super::settings;
use super::text::{from_server, to_server};
use crate::error::{Error, Result};

/// A value bound to a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// bigint
    Int8(i64),
    /// integer
    Int4(i32),
    /// double precision
    Float8(f64),
    /// boolean
    Bool(bool),
    /// oid
    Oid(Oid),
    /// text
    Text(&'a str),
    /// text[]
    Texts(&'a [String]),
    /// NULL of a type.
    Null(Oid),
    /// A value of any type in its text form.
    Typed(Oid, &'a str),
}

impl<'a> Arg<'a> {
    /// Text, or NULL.
    pub fn text(value: Option<&'a str>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::TEXTOID), Arg::Text)
    }

    /// bigint, or NULL.
    pub fn int8(value: Option<i64>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::INT8OID), Arg::Int8)
    }

    /// double precision, or NULL.
    pub fn float8(value: Option<f64>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::FLOAT8OID), Arg::Float8)
    }

    /// text[], or NULL.
    pub fn texts(value: Option<&'a [String]>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::TEXTARRAYOID), Arg::Texts)
    }

    fn oid(&self) -> Oid {
        match self {
            Arg::Int8(_) => pg_sys::INT8OID,
            Arg::Int4(_) => pg_sys::INT4OID,
            Arg::Float8(_) => pg_sys::FLOAT8OID,
            Arg::Bool(_) => pg_sys::BOOLOID,
            Arg::Oid(_) => pg_sys::OIDOID,
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::Texts(_) => pg_sys::TEXTARRAYOID,
            Arg::Null(oid) | Arg::Typed(oid, _) => *oid,
        }
    }

    fn datum(&self) -> Result<Datum> {
        Ok(match self {
            Arg::Int8(v) => Datum::from(*v),
            Arg::Int4(v) => Datum::from(*v),
            Arg::Float8(v) => Datum::from(v.to_bits()),
            Arg::Bool(v) => Datum::from(*v),
            Arg::Oid(v) => Datum::from(*v),
            Arg::Text(v) => text_datum(v)?,
            Arg::Texts(v) => array_datum(v)?,
            Arg::Null(_) => Datum::from(0),
            Arg::Typed(oid, v) => input(*oid, v)?,
        })
    }
}

fn text_datum(value: &str) -> Result<Datum> {
    let value = to_server(value)?;
    Ok(unsafe { Datum::from(pg_sys::cstring_to_text(value.as_ptr())) })
}

fn array_datum(values: &[String]) -> Result<Datum> {
    let mut elements = values
        .iter()
        .map(|v| text_datum(v))
        .collect::<Result<Vec<Datum>>>()?;
    unsafe {
        let array = pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as i32,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as _,
        );
        Ok(Datum::from(array))
    }
}

/// Converts text by the type's input function.
fn input(oid: Oid, value: &str) -> Result<Datum> {
    let value = to_server(value)?;
    unsafe {
        let (mut function, mut param) = (Oid::INVALID, Oid::INVALID);
        pg_sys::getTypeInputInfo(oid, &mut function, &mut param);
        let text = value.as_ptr().cast_mut();
        Ok(pg_sys::OidInputFunctionCall(function, text, param, -1))
    }
}

/// Settings under which the text form of a value is unambiguous and read back as the same value.
pub const CANONICAL: &[(&CStr, &CStr)] = &[
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
];

/// The text form of a jsonb value.
pub fn output_jsonb(value: Datum) -> Result<String> {
    unsafe {
        from_server(pg_sys::OidOutputFunctionCall(
            pg_sys::F_JSONB_OUT.into(),
            value,
        ))
    }
}

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

/// Runs a statement once, within [`connect`].
pub fn query(sql: &str, args: &[Arg]) -> Result<Output> {
    execute(sql, args, false)
}

/// Runs a query under a snapshot of its own, whatever the isolation level: it sees what others
/// have committed by now, and what this transaction has done.
pub fn query_latest(sql: &str, args: &[Arg]) -> Result<Output> {
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

/// Runs a statement within [`connect`] and gives its first row, if any.
pub fn first(sql: &str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(query(sql, args)?.rows.into_iter().next())
}

/// Like [`query`] in a subtransaction of its own: an error comes back as a value, with its
/// position, and leaves the transaction usable.
pub fn attempt(sql: &str) -> Result<Output> {
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = capture(|| query(sql, &[]));
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
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
    /// The statement's text, as `pg_stat_activity` shows it.
    pub text: CString,
}

impl Plan {
    /// Analyses a statement, within [`connect`].
    pub fn prepare(sql: &str, types: &[Oid]) -> Result<Plan> {
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
            Ok(Plan { pointer, text })
        }
    }

    /// Runs the statement, within [`connect`].
    pub fn run(&self, args: &[Arg]) -> Result<Output> {
        let bound = Bound::new(args)?;
        unsafe { output(self.execute(bound)) }
    }

    /// The same for values whose text form depends on settings: they are converted under
    /// [`CANONICAL`] ones, while the statement itself runs under those in force.
    pub fn run_canonical(&self, args: &[Arg]) -> Result<Output> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound);
        settings::with(CANONICAL, || unsafe { output(code) })
    }

    fn execute(&self, mut bound: Bound) -> i32 {
        unsafe {
            pg_sys::SPI_execute_plan(
                self.pointer,
                bound.values.as_mut_ptr(),
                bound.nulls.as_ptr(),
                false,
                0,
            )
        }
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
