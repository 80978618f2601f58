//! Names of objects, as the server writes and shortens them.

use pgrx::pg_sys::{self, Oid};

use super::server;
use super::text::{from_server, lossy, to_server};
use crate::error::Result;
use crate::quote::ident;

/// An identifier, quoted where need be.
pub fn quoted(name: &str) -> String {
    let quoted = || {
        let name = to_server(name).ok()?;
        // SAFETY: the name ends in zero. What is given is the name itself or a copy in the current
        // memory context, and is copied before `name` goes.
        unsafe { lossy(pg_sys::quote_identifier(name.as_ptr())) }
    };
    quoted().unwrap_or_else(|| ident(name))
}

/// A type, ready to be put into a statement: with its schema, and of any length, as `character` alone is one of 1.
pub fn of_type(oid: Oid) -> Result<String> {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: without FORMAT_TYPE_INVALID_AS_NULL one of no type
    // gives "???", never null. The text is a copy in the current memory context.
    unsafe { from_server(pg_sys::format_type_extended(oid, -1, flags as u16)) }
}

/// The type that a domain is over, or the type itself.
pub fn base_type(oid: Oid) -> Oid {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: of a type that is gone an error is raised.
    unsafe { pg_sys::getBaseType(oid) }
}

/// A part of a name that needs no quotes: what is not a letter, a digit or an underscore becomes one.
pub fn plain(name: &str) -> String {
    let sound = |c: char| match c.is_alphanumeric() {
        true => c,
        false => '_',
    };
    name.to_lowercase().chars().map(sound).collect()
}

/// `first_middle_label`, with as much of the middle as a name has room for.
pub fn object_name(first: &str, middle: &str, label: &str) -> Result<String> {
    let (first, middle, label) = (to_server(first)?, to_server(middle)?, to_server(label)?);
    let none = std::ptr::null();
    let label = match label.is_empty() {
        true => none,
        false => label.as_ptr(),
    };
    // SAFETY: all three texts live in this function and end in zero; the last may be null. The name is a
    // new string in the current memory context, never null.
    unsafe {
        from_server(pg_sys::makeObjectName(
            first.as_ptr(),
            middle.as_ptr(),
            label,
        ))
    }
}
