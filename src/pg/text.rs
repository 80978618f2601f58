//! Strings between Rust (UTF-8) and the database's encoding.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

use crate::error::{Error, Result, sqlstate};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// A C string in the database's encoding. Outside a transaction PostgreSQL converts nothing: what
/// is not ASCII is replaced then (log lines only).
pub fn to_server(text: &str) -> Result<CString> {
    let plain = CString::new(text).map_err(|_| {
        Error::new(
            sqlstate::UNTRANSLATABLE_CHARACTER,
            "a text contains a zero byte",
        )
    })?;
    if encoding_is_utf8() {
        return Ok(plain);
    }
    unsafe {
        if !pg_sys::IsTransactionState() {
            let ascii: String = text
                .chars()
                .map(|c| if c.is_ascii() { c } else { '?' })
                .collect();
            return Ok(CString::new(ascii).unwrap_or_default());
        }
        // What was not valid when it was read: no other encoding has a sign for that.
        let plain = CString::new(text.replace(char::REPLACEMENT_CHARACTER, "?")).unwrap_or(plain);
        let length = plain.as_bytes().len() as i32;
        let converted = pg_sys::pg_any_to_server(plain.as_ptr(), length, UTF8);
        Ok(CStr::from_ptr(converted).to_owned())
    }
}

/// A Rust string from a C string in the database's encoding.
///
/// # Safety
/// `text` must point to a zero-terminated string.
pub unsafe fn from_server(text: *const c_char) -> Result<String> {
    let bytes = unsafe { CStr::from_ptr(text) };
    let bytes = if encoding_is_utf8() || unsafe { !pg_sys::IsTransactionState() } {
        bytes
    } else {
        let length = bytes.to_bytes().len() as i32;
        unsafe { CStr::from_ptr(pg_sys::pg_server_to_any(text, length, UTF8)) }
    };
    match bytes.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Error::new(
            sqlstate::UNTRANSLATABLE_CHARACTER,
            "a value is not valid text in the database's encoding",
        )
        .hint("In an SQL_ASCII database, text keys must be valid UTF-8.")),
    }
}

/// A Rust string from the bytes of a text value in the database's encoding.
pub fn from_bytes(bytes: &[u8]) -> Result<String> {
    let text = CString::new(bytes).map_err(|_| Error::invalid("a text contains a zero byte"))?;
    unsafe { from_server(text.as_ptr()) }
}

/// A Rust string with what is not valid replaced: for names and messages.
///
/// # Safety
/// `text` must be null or point to a zero-terminated string.
pub unsafe fn lossy(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let replaced = || {
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    };
    Some(unsafe { from_server(text) }.unwrap_or_else(|_| replaced()))
}

fn encoding_is_utf8() -> bool {
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}
