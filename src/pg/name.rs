//! Names of objects, quoted and shortened as the server does it.

use pgrx::pg_sys::{self, Oid};

use super::server;
use super::text::{from_server, lossy, to_server};
use crate::error::Result;
use crate::quote::ident;

/// Returns an identifier, quoted if it needs quotes.
pub fn quoted(name: &str) -> String {
    let quoted = || {
        let name = to_server(name).ok()?;
        // SAFETY: the name ends with a zero. The result is the name itself or a copy in the current memory context, and is
        // copied before `name` goes.
        unsafe { lossy(pg_sys::quote_identifier(name.as_ptr())) }
    };
    quoted().unwrap_or_else(|| ident(name))
}

/// Returns the name of a type for use in a statement: with its schema, and without a length limit (plain `character` would mean length 1).
pub fn of_type(oid: Oid) -> Result<String> {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: without FORMAT_TYPE_INVALID_AS_NULL, one that is no type gives "???", never
    // null. The text is a copy in the current memory context.
    unsafe { from_server(pg_sys::format_type_extended(oid, -1, flags as u16)) }
}

/// Returns the role's name, quoted where needed; outside of a transaction, a text with its OID.
pub fn of_role(role: Oid) -> String {
    let unknown = || format!("with OID {role}");
    // Outside of a transaction, the system caches would crash the server.
    if !server::in_transaction() {
        return unknown();
    }
    // SAFETY: within a transaction any OID will do: one of no role gives null. The name is a copy in the current memory context,
    // and its quoted form is another copy there, or the name itself; `lossy` copies.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return unknown();
        }
        lossy(pg_sys::quote_identifier(name)).unwrap_or_default()
    }
}

/// Returns the role's name, unquoted, in the server's encoding; `None` if there is no such role. Within a transaction.
pub fn of_role_unquoted(role: Oid) -> Option<Vec<u8>> {
    // SAFETY: within a transaction, which the caches need. The name is a C string that lives in the current
    // memory context, and is copied.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name).to_bytes().to_vec())
    }
}

/// Returns the base type of a domain, or the type itself.
pub fn base_type(oid: Oid) -> Oid {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: one of a type that is gone raises an error.
    unsafe { pg_sys::getBaseType(oid) }
}

/// Turns a name into one that needs no quotes: lower case, with every character replaced by an underscore that is no letter or digit.
pub fn plain(name: &str) -> String {
    let sound = |c: char| match c.is_alphanumeric() {
        true => c,
        false => '_',
    };
    name.to_lowercase().chars().map(sound).collect()
}

/// Returns `first_middle_label`, with `first` and `middle` cut where the name would be too long.
pub fn object_name(first: &str, middle: &str, label: &str) -> Result<String> {
    let (first, middle, label) = (to_server(first)?, to_server(middle)?, to_server(label)?);
    let none = std::ptr::null();
    let label = match label.is_empty() {
        true => none,
        false => label.as_ptr(),
    };
    // SAFETY: all three texts live in this function and end with a zero; the last one may be null. The name is a new string in
    // the current memory context, never null.
    unsafe {
        from_server(pg_sys::makeObjectName(
            first.as_ptr(),
            middle.as_ptr(),
            label,
        ))
    }
}
