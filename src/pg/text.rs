//! Strings between Rust (UTF-8) and the database's encoding.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

use super::alloc::{copy, reserve};
use super::server;
use crate::error::{Error, Result, sqlstate};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// A C string in the database's encoding. Outside a transaction PostgreSQL converts nothing: what
/// is not ASCII is replaced then (log lines only).
pub fn to_server(text: &str) -> Result<CString> {
    let plain = terminated(text.as_bytes())?;
    if encoding_is_utf8() {
        return Ok(plain);
    }
    // SAFETY: within a transaction, the conversion of the encodings can be looked up. The text has as many bytes as
    // are given, and is read only; the result ends with a zero, is it or a copy in the current memory
    // context, and is copied at once.
    unsafe {
        if !pg_sys::IsTransactionState() {
            let ascii: String = text
                .chars()
                .map(|c| if c.is_ascii() { c } else { '?' })
                .collect();
            return Ok(CString::new(ascii).unwrap_or_default());
        }
        // What was not valid when it was read: no other encoding has a sign for that.
        let plain = match text.contains(char::REPLACEMENT_CHARACTER) {
            true => terminated(text.replace(char::REPLACEMENT_CHARACTER, "?").as_bytes())?,
            false => plain,
        };
        let length = plain.as_bytes().len() as i32;
        let converted = pg_sys::pg_any_to_server(plain.as_ptr(), length, UTF8);
        terminated(CStr::from_ptr(converted).to_bytes())
    }
}

/// A Rust string from a C string in the database's encoding.
///
/// # Safety
/// `text` must point to a zero-terminated string.
pub unsafe fn from_server(text: *const c_char) -> Result<String> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    // In SQL_ASCII nothing is converted: what is no UTF-8 is found below.
    let bytes = if encoding_is_utf8() || encoding_is_none() || !server::in_transaction() {
        bytes
    } else {
        let length = bytes.to_bytes().len() as i32;
        // SAFETY: as in `to_server`.
        unsafe { CStr::from_ptr(pg_sys::pg_server_to_any(text, length, UTF8)) }
    };
    match bytes.to_str() {
        Ok(text) => copy(text),
        Err(_) => Err(Error::new(
            sqlstate::UNTRANSLATABLE_CHARACTER,
            "a value is not valid text in the database's encoding",
        )
        .hint("In an SQL_ASCII database, text keys must be valid UTF-8.")),
    }
}

/// A Rust string from the bytes of a text value in the database's encoding.
pub fn from_bytes(bytes: &[u8]) -> Result<String> {
    let text = terminated(bytes)?;
    // SAFETY: it ends with a zero.
    unsafe { from_server(text.as_ptr()) }
}

/// Bytes that are kept of a text which only people read.
pub const MOST_SHOWN: usize = 8192;

/// A Rust string with what is not valid replaced: for names and messages. Of a longer text the first
/// [`MOST_SHOWN`] bytes, and how long it was.
///
/// # Safety
/// `text` must be null or point to a zero-terminated string.
pub unsafe fn lossy(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe { beginning(text, MOST_SHOWN) }
}

/// The same with another bound than [`MOST_SHOWN`]: of a longer text somewhat less than `most` bytes.
///
/// # Safety
/// As of [`lossy`].
pub unsafe fn beginning(text: *const c_char, most: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > most {
        // Not converted: what is cut here may end within a character of any encoding.
        let start = String::from_utf8_lossy(&bytes[..most - most.min(128) / 2]);
        let start = start.trim_end_matches(char::REPLACEMENT_CHARACTER);
        return Some(format!("{start}... ({} bytes)", bytes.len()));
    }
    let replaced = || String::from_utf8_lossy(bytes).into_owned();
    // SAFETY: the caller's promise.
    Some(unsafe { from_server(text) }.unwrap_or_else(|_| replaced()))
}

/// A Rust string of any length with what is not valid replaced: for what a program reads.
///
/// # Safety
/// `text` must point to a zero-terminated string.
pub unsafe fn lossy_whole(text: *const c_char) -> Result<String> {
    // SAFETY: the caller's promise.
    unsafe { from_server(text) }.or_else(|error| match error.sqlstate.as_str() {
        sqlstate::UNTRANSLATABLE_CHARACTER => {
            // SAFETY: the caller's promise.
            let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
            copy(&String::from_utf8_lossy(bytes))
        }
        _ => Err(error),
    })
}

fn terminated(bytes: &[u8]) -> Result<CString> {
    let mut owned = Vec::new();
    reserve(&mut owned, bytes.len() + 1)?;
    owned.extend_from_slice(bytes);
    CString::new(owned).map_err(|_| {
        Error::new(
            sqlstate::UNTRANSLATABLE_CHARACTER,
            "a text contains a zero byte",
        )
    })
}

/// Whether the database takes bytes as they come.
fn encoding_is_none() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_SQL_ASCII as i32 }
}

fn encoding_is_utf8() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}
