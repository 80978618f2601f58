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
    Some(shown(bytes))
}

/// Converts a C string of any length to a Rust string with invalid characters replaced; for texts that a program reads.
///
/// # Safety
/// `text` must point to a zero-terminated string.
pub unsafe fn lossy_whole(text: *const c_char) -> Result<String> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if encoding_is_utf8()
        && let Ok(valid) = std::str::from_utf8(bytes)
    {
        return copy(valid);
    }
    copy(&shown(bytes))
}

/// Converts bytes in the database's encoding with what is not valid, or has no form in UTF-8, replaced. Raises no error, so that it can
/// be called while one is being raised.
fn shown(bytes: &[u8]) -> String {
    if encoding_is_utf8() || encoding_is_none() || bytes.is_ascii() || !server::in_transaction() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // SAFETY: within a transaction, the conversion of the encodings can be looked up.
    let conversion =
        unsafe { pg_sys::FindDefaultConversionProc(pg_sys::GetDatabaseEncoding(), UTF8) };
    if conversion == pg_sys::InvalidOid {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (converted, length) = converted(conversion, rest);
        text.push_str(&String::from_utf8_lossy(&converted));
        // The end of a piece may be in the middle of a character.
        let whole = length + LONGEST_CHARACTER <= PIECE;
        rest = &rest[length..];
        if !rest.is_empty() && whole {
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[1..];
        }
    }
    text
}

/// Longest piece of a text that is converted at once, and the factor by which a conversion may lengthen it, as `MAX_CONVERSION_GROWTH`
/// of pg_wchar.h.
const PIECE: usize = 4096;
const GROWTH: usize = 4;
/// Most bytes that a character has in any encoding.
const LONGEST_CHARACTER: usize = 4;

/// Converts the beginning of a text, as far as it is valid. Returns it, and how many bytes of the text that were.
fn converted(conversion: pg_sys::Oid, text: &[u8]) -> (Vec<u8>, usize) {
    let mut piece = text[..text.len().min(PIECE)].to_vec();
    let mut into = vec![0; piece.len() * GROWTH + 1];
    // SAFETY: both buffers have as many bytes as are given, and live through the call, which ends the second one with a zero. Told so,
    // it stops at what it can't convert instead of raising an error.
    let length = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            pg_sys::GetDatabaseEncoding(),
            UTF8,
            piece.as_mut_ptr(),
            piece.len() as i32,
            into.as_mut_ptr(),
            into.len() as i32,
            true,
        )
    };
    let end = into.iter().position(|byte| *byte == 0);
    into.truncate(end.unwrap_or(into.len()));
    (into, usize::try_from(length).unwrap_or(0))
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
