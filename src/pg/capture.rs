//! Catches PostgreSQL errors and Rust panics as values, with all their fields.
//!
//! pgrx drops SQLSTATEs that it does not know, CONTEXT, and the position of an error. So an error-context callback copies each
//! error while it is being raised.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_void};
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::{self, panic::CaughtError};

use super::flag::Raised;
use super::text::{lossy, lossy_whole};
use crate::error::{Error, Position, Result};

thread_local! {
    /// The last errors raised, the newest at the end, each with its message as pgrx reads it (pgrx takes every encoding for
    /// UTF-8). The error that arrives is not always the newest one raised: an error that PL/pgSQL caught and raises again passes
    /// no callback the second time.
    static RAISED: RefCell<VecDeque<(String, Error)>> = const { RefCell::new(VecDeque::new()) };
}

/// Number of errors that `RAISED` keeps.
const KEPT: usize = 16;

/// Number of bytes of two messages that are compared.
const COMPARED: usize = 1024;

/// Longest statement, in bytes, that is kept to show the position of an error in it.
const LONGEST_STATEMENT: usize = 4 << 20;

/// Runs `f` and returns errors and panics as `Err`. The caller has to abort the (sub)transaction.
pub fn capture<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    RAISED.take();
    let mut callback = pg_sys::ErrorContextCallback {
        // SAFETY: reads a variable of this process.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(copy_error),
        arg: null_mut(),
    };
    let previous = callback.previous;
    // SAFETY: the callback lives in this frame, and is taken off the stack below. That point is always reached: pgrx turns
    // PostgreSQL's errors into panics at its boundary, before they jump over Rust frames, and `execute` catches these.
    unsafe { pg_sys::error_context_stack = &raw mut callback };
    let result = PgTryBuilder::new(AssertUnwindSafe(f))
        .catch_others(|caught| Err(convert(caught)))
        .execute();
    // SAFETY: restores the previous stack, whose frames enclose this one. An error may have left the pointer dangling.
    unsafe { pg_sys::error_context_stack = previous };
    result
}

fn convert(caught: CaughtError) -> Error {
    match caught {
        CaughtError::PostgresError(report) => {
            let raised = RAISED.take();
            let arrived = head(report.message().as_bytes());
            let same = raised.into_iter().rfind(|(message, _)| *message == arrived);
            let fallback = || {
                let code = unpack(report.sql_error_code() as i32);
                let mut error = Error::new(&code, report.message().to_owned());
                error.detail = report.detail().map(str::to_owned);
                error.hint = report.hint().map(str::to_owned);
                error
            };
            same.map_or_else(fallback, |(_, error)| error)
        }
        CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        } => {
            let code = report.sql_error_code() as i32;
            let mut error = Error::new(&unpack(code), report.message().to_owned());
            error.detail = report.detail().map(str::to_owned);
            error.hint = report.hint().map(str::to_owned);
            error
        }
    }
}

thread_local! {
    /// Whether an error is being copied.
    static COPYING: Cell<bool> = const { Cell::new(false) };
}

/// Returns the part of a message that errors are told apart by: its beginning, as UTF-8.
fn head(message: &[u8]) -> String {
    let start = String::from_utf8_lossy(&message[..message.len().min(4 * COMPARED)]);
    start[..start.floor_char_boundary(COMPARED)].to_owned()
}

/// Error-context callback: runs while any message is being raised, and keeps those at ERROR and above.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn copy_error(_arg: *mut c_void) {
    // An error that copying another one raised would be copied in turn, for ever.
    let copying = Raised::begin(&COPYING);
    if copying.was_raised() {
        return;
    }
    // SAFETY: called by errfinish(), so there is an error to copy. The current context is the one for errors, in which
    // CopyErrorData must not allocate; TopMemoryContext always exists. The copy is read, and then freed.
    unsafe {
        let context = if pg_sys::CurTransactionContext.is_null() {
            pg_sys::TopMemoryContext
        } else {
            pg_sys::CurTransactionContext
        };
        let raising = pg_sys::MemoryContextSwitchTo(context);
        let data = pg_sys::CopyErrorData();
        if (*data).elevel >= pg_sys::PGERROR as i32 {
            let error = read(&*data);
            let message = match (*data).message {
                text if text.is_null() => String::new(),
                text => head(CStr::from_ptr(text).to_bytes()),
            };
            RAISED.with_borrow_mut(|raised| {
                if raised.len() == KEPT {
                    raised.pop_front();
                }
                raised.push_back((message, error));
            });
        }
        pg_sys::FreeErrorData(data);
        pg_sys::MemoryContextSwitchTo(raising);
    }
}

/// # Safety
/// `data` must be PostgreSQL's.
unsafe fn read(data: &pg_sys::ErrorData) -> Error {
    // SAFETY: each text in it is null or ends with a zero.
    unsafe {
        let message = lossy(data.message).unwrap_or_default();
        let mut error = Error::new(&unpack(data.sqlerrcode), message);
        error.detail = lossy(data.detail);
        error.hint = lossy(data.hint);
        error.context = lossy(data.context);
        error.constraint = lossy(data.constraint_name);
        let (character, text) = if data.internalpos > 0 {
            statement(data.internalquery)
                .map_or((0, String::new()), |text| (data.internalpos, text))
        } else {
            (data.cursorpos, String::new())
        };
        error.position = (character > 0).then_some(Position { character, text });
        error
    }
}

/// Returns the statement that the position of an error is counted in, unless it is too long to be shown.
///
/// # Safety
/// `text` must be null or point to a zero-terminated string.
unsafe fn statement(text: *const std::ffi::c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises; it is not null.
    unsafe {
        let short = CStr::from_ptr(text).to_bytes().len() <= LONGEST_STATEMENT;
        short.then(|| lossy_whole(text).ok()).flatten()
    }
}

/// Unpacks the five characters of an SQLSTATE, six bits each (`PGUNSIXBIT` in elog.h).
fn unpack(code: i32) -> String {
    (0..5)
        .map(|i| (((code >> (6 * i)) & 0x3f) as u8 + b'0') as char)
        .collect()
}
