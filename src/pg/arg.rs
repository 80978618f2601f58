//! Values to be bound to the parameters of statements.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::keylist::{self, KeyColumn, KeyList};
use super::settings::{self, CANONICAL};
use super::text::{from_server, to_server};
use super::tid::{self, Tid};
use super::{confine, server, subtransaction};
use crate::error::Result;

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
    /// NULL of the given type.
    Null(Oid),
    /// A value of the given type, in its text form.
    Typed(Oid, &'a str),
    /// tid[]
    Tids(&'a [Tid]),
    /// One column of a list of keys, as an array of its type.
    Keys(KeyColumn<'a>),
}

impl<'a> Arg<'a> {
    /// Text, or NULL for `None`.
    pub fn text(value: Option<&'a str>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::TEXTOID), Arg::Text)
    }

    /// A bigint, or NULL for `None`.
    pub fn int8(value: Option<i64>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::INT8OID), Arg::Int8)
    }

    /// A double precision, or NULL for `None`.
    pub fn float8(value: Option<f64>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::FLOAT8OID), Arg::Float8)
    }

    /// A text[], or NULL for `None`.
    pub fn texts(value: Option<&'a [String]>) -> Arg<'a> {
        value.map_or(Arg::Null(pg_sys::TEXTARRAYOID), Arg::Texts)
    }

    /// The keys of these rows of a list, as one array for each of its columns.
    pub fn keys(list: &'a KeyList, rows: &'a [u32]) -> Vec<Arg<'a>> {
        list.columns(rows).map(Arg::Keys).collect()
    }

    /// Returns the type of the value.
    pub(super) fn oid(&self) -> Oid {
        match self {
            Arg::Int8(_) => pg_sys::INT8OID,
            Arg::Int4(_) => pg_sys::INT4OID,
            Arg::Float8(_) => pg_sys::FLOAT8OID,
            Arg::Bool(_) => pg_sys::BOOLOID,
            Arg::Oid(_) => pg_sys::OIDOID,
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::Texts(_) => pg_sys::TEXTARRAYOID,
            Arg::Null(oid) | Arg::Typed(oid, _) => *oid,
            Arg::Tids(_) => pg_sys::TIDARRAYOID,
            Arg::Keys(column) => column.array_type(),
        }
    }

    /// Converts the value to the server's representation: of the type that [`Arg::oid`] returns and, unless it is passed by
    /// value, allocated in the current memory context.
    pub(super) fn datum(&self) -> Result<Datum> {
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
            Arg::Tids(v) => tid::array(v),
            Arg::Keys(column) => column.array(),
        })
    }
}

fn text_datum(value: &str) -> Result<Datum> {
    let value = to_server(value)?;
    // SAFETY: the string ends with a zero, and is copied.
    Ok(unsafe { Datum::from(pg_sys::cstring_to_text(value.as_ptr())) })
}

fn array_datum(values: &[String]) -> Result<Datum> {
    let mut elements = values
        .iter()
        .map(|v| text_datum(v))
        .collect::<Result<Vec<Datum>>>()?;
    // SAFETY: the pointer and the count describe one vector, whose elements are texts made above. Length, passing and
    // alignment are those of text. The elements are copied.
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

/// Converts text by the type's input function. The input function of a user-defined type may run the user's code.
fn input(oid: Oid, value: &str) -> Result<Datum> {
    if oid.to_u32() >= pg_sys::FirstNormalObjectId {
        confine::require()?;
    }
    server::require_transaction();
    let value = to_server(value)?;
    // SAFETY: within a transaction any OID will do: one that is no type, or only a shell type, raises an error. The type's
    // own input function takes a zero-terminated string, which it only reads; the C signature just lacks a `const`.
    unsafe {
        let (mut function, mut param) = (Oid::INVALID, Oid::INVALID);
        pg_sys::getTypeInputInfo(oid, &mut function, &mut param);
        let text = value.as_ptr().cast_mut();
        Ok(pg_sys::OidInputFunctionCall(function, text, param, -1))
    }
}

/// Reads `value` under the settings in force and returns its text form under `settings`.
pub fn text_under(settings: &[(&CStr, &CStr)], oid: Oid, value: &str) -> Result<String> {
    let value = input(oid, value)?;
    // SAFETY: the value is one of the type, which was just read, and so is not NULL.
    settings::with(settings, || unsafe { keylist::text(value, oid) })
}

/// Whether text that was stored under [`CANONICAL`] settings still means the same value when it is read under the settings in
/// force. False if it can't be read under them. Within `spi::connect`.
pub fn is_read_alike(oid: Oid, value: &str) -> Result<bool> {
    let in_force = subtransaction::in_subtransaction(|| input(oid, value));
    let canonical = settings::with(CANONICAL, || input(oid, value))?;
    let Ok(in_force) = in_force else {
        return Ok(false);
    };
    settings::with(CANONICAL, || {
        // SAFETY: both are values of the type, which were just read, and so are not NULL.
        unsafe { Ok(keylist::text(in_force, oid)? == keylist::text(canonical, oid)?) }
    })
}

/// Returns the text form of a jsonb value. Calls `check` with the size of the value in bytes, and then with the size of its text
/// (which may be far larger), so that `check` can refuse what is too long before it is read.
///
/// # Safety
/// `value` must be a jsonb, and not NULL.
pub unsafe fn output_jsonb(value: Datum, check: impl Fn(usize) -> Result<()>) -> Result<String> {
    // SAFETY: the caller's promise; the size of a toasted value can be read, too. The output function returns a
    // zero-terminated string, or raises an error.
    unsafe {
        check(pg_sys::toast_raw_datum_size(value))?;
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_JSONB_OUT.into(), value);
        check(CStr::from_ptr(text).to_bytes().len())?;
        from_server(text)
    }
}
