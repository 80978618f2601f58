//! Strings between Rust (UTF-8) and the database's encoding.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

use crate::error::{Error, Result, sqlstate};

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;

/// A C string in the database's encoding.
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
        let converted = pg_sys::pg_any_to_server(plain.as_ptr(), text.len() as i32, UTF8);
        Ok(CStr::from_ptr(converted).to_owned())
    }
}

/// A Rust string from a C string in the database's encoding.
///
/// # Safety
/// `text` must point to a zero-terminated string.
pub unsafe fn from_server(text: *const c_char) -> Result<String> {
    let bytes = unsafe { CStr::from_ptr(text) };
    let bytes = if encoding_is_utf8() {
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

/// The same, with what is not valid replaced: for messages.
///
/// # Safety
/// `text` must be null or point to a zero-terminated string.
pub unsafe fn lossy(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    Some(
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    )
}

fn encoding_is_utf8() -> bool {
    unsafe { pg_sys::GetDatabaseEncoding() == UTF8 }
}
