//! Converts strings between Rust (UTF-8) and the database's encoding.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

use super::alloc::{copy, reserve};
use super::server;
use crate::error::{Error, Result, sqlstate};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// Converts to a C string in the database's encoding. Outside of a transaction PostgreSQL can convert nothing; characters that are not
/// ASCII are replaced then (this concerns log lines only).
pub fn to_server(text: &str) -> Result<CString> {
    let plain = terminated(text.as_bytes())?;
    if encoding_is_utf8() {
        return Ok(plain);
    }
    // SAFETY: within a transaction, the conversion between the encodings can be looked up. The text has as many bytes as are
    // given, and is only read; the result ends with a zero, is the text itself or a copy in the current memory context, and is
    // copied at once.
    unsafe {
        if !pg_sys::IsTransactionState() {
            let ascii: String = text
                .chars()
                .map(|c| if c.is_ascii() { c } else { '?' })
                .collect();
            return Ok(CString::new(ascii).unwrap_or_default());
        }
        // Stands for what was invalid when it was read; other encodings have no such character.
        let plain = match text.contains(char::REPLACEMENT_CHARACTER) {
            true => terminated(text.replace(char::REPLACEMENT_CHARACTER, "?").as_bytes())?,
            false => plain,
        };
        let length = plain.as_bytes().len() as i32;
        let converted = pg_sys::pg_any_to_server(plain.as_ptr(), length, UTF8);
        terminated(CStr::from_ptr(converted).to_bytes())
    }
}

/// Converts a C string in the database's encoding to a Rust string.
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

/// Converts the bytes of a text value in the database's encoding to a Rust string.
pub fn from_bytes(bytes: &[u8]) -> Result<String> {
    let text = terminated(bytes)?;
    // SAFETY: the text ends with a zero.
    unsafe { from_server(text.as_ptr()) }
}

/// Number of bytes kept of a text that is only shown to people.
pub const MOST_SHOWN: usize = 8192;

/// Converts a C string to a Rust string with invalid characters replaced; for names and messages. A text longer than [`MOST_SHOWN`]
/// bytes is cut to its beginning, and its length is appended.
///
/// # Safety
/// `text` must be null or point to a zero-terminated string.
pub unsafe fn lossy(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe { beginning(text, MOST_SHOWN) }
}

/// Like [`lossy`], but with another limit than [`MOST_SHOWN`]: a text longer than `most` bytes is cut to somewhat less than `most` bytes.
///
/// # Safety
/// As for [`lossy`].
pub unsafe fn beginning(text: *const c_char, most: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > most {
        // Not converted: the cut may be in the middle of a character, in any encoding.
        let start = String::from_utf8_lossy(&bytes[..most - most.min(128) / 2]);
        let start = start.trim_end_matches(char::REPLACEMENT_CHARACTER);
        return Some(format!("{start}... ({} bytes)", bytes.len()));
    }
    let replaced = || String::from_utf8_lossy(bytes).into_owned();
    // SAFETY: the caller's promise.
    Some(unsafe { from_server(text) }.unwrap_or_else(|_| replaced()))
}

/// Converts a C string of any length to a Rust string with invalid characters replaced; for texts that a program reads.
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
