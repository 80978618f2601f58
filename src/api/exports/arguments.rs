//! The first steps of every entry point: checks the version, catches errors, and reads arguments within their bounds.
#![allow(unsafe_code)]
// pgrx requires the columns of a result to be spelled out.
#![allow(clippy::type_complexity)]

use pgrx::datum::Internal;
use pgrx::pg_sys::Oid;

use crate::api::call::{Request, Work};
use crate::api::limits;
use crate::error::{Error, Result};
use crate::pg::capture::capture;
use crate::pg::report::unwrap;
use crate::pg::spi::{self, connect};
use crate::pg::text::from_bytes;
use crate::pg::{schemas, xact};
use crate::store::extension;

/// Runs a function within `spi::connect`, if this library and the extension have the same version. PostgreSQL's own
/// errors are raised again from here, since pgrx would drop their context and add a backtrace.
pub(super) fn call<T>(f: impl FnOnce() -> Result<T>) -> T {
    unwrap(capture(|| {
        let _names = schemas::Scope::begin();
        xact::refuse_to_prepare();
        extension::check_version()?;
        connect(f)
    }))
}

/// Reads a text argument of `most` bytes at most. It is taken as bytes, since pgrx accepts only UTF-8 for text.
pub(super) fn text(what: &str, argument: Option<&[u8]>, most: usize) -> Result<Option<String>> {
    let Some(bytes) = argument else {
        return Ok(None);
    };
    limits::check(what, bytes.len(), most)?;
    from_bytes(bytes).map(Some)
}

/// Reads an argument that is a name, or one of a few words.
pub(super) fn name(what: &str, argument: Option<&[u8]>) -> Result<Option<String>> {
    text(what, argument, limits::NAME)
}

/// Reads a text that a view passes on, and that comes from one of our tables.
pub(super) fn word(argument: Option<&[u8]>) -> Option<String> {
    argument
        .filter(|bytes| bytes.len() <= limits::NAME)
        .and_then(|bytes| from_bytes(bytes).ok())
}

/// Reads a jsonb argument. It is taken as a datum, since pgrx would panic on values that serde_json cannot hold.
pub(super) fn json(argument: Option<Internal>) -> Result<Option<serde_json::Value>> {
    let Some(datum) = argument.and_then(Internal::unwrap) else {
        return Ok(None);
    };
    let check = |bytes| limits::check("options", bytes, limits::JSON);
    // SAFETY: `options` is declared as jsonb in each function that takes it, in sql/functions.sql, and is not NULL
    // here.
    let text = unsafe { spi::output_jsonb(datum, check) }?;
    serde_json::from_str(&text).map(Some).map_err(|e| {
        Error::invalid(format!("options cannot be read: {e}"))
            .hint("Options are a flat JSON object with small values.")
    })
}

/// Reads the arguments that `define`, `start`, `plan` and `preview` share.
pub(super) fn request(
    relation: Option<Oid>,
    set_clause: Option<&[u8]>,
    where_clause: Option<&[u8]>,
    named: Option<&[u8]>,
    options: Option<Internal>,
) -> Result<Request> {
    Ok(Request {
        relation,
        work: text("set_clause", set_clause, limits::CLAUSE)?.map(Work::Set),
        where_clause: text("where_clause", where_clause, limits::CLAUSE)?,
        name: name("name", named)?,
        options: json(options)?,
    })
}
