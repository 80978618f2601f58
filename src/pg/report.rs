//! Raises this crate's errors as PostgreSQL reports, with position. Also sends notices and log lines.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, elog::PgLogLevel};
use serde::{Deserialize, Serialize};

use super::text::to_server;
use crate::error::{Error, Result};

// From elog.h; the same in PostgreSQL 15 to 18. Called without the boundary of pgrx: an error leaves them by a jump, which must not
// pass a Rust frame that has something to drop, nor one that catches panics.
unsafe extern "C-unwind" {
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errmsg(fmt: *const c_char, ...) -> c_int;
    fn errdetail(fmt: *const c_char, ...) -> c_int;
    fn errhint(fmt: *const c_char, ...) -> c_int;
    fn errcontext_msg(fmt: *const c_char, ...) -> c_int;
    fn internalerrposition(cursorpos: c_int) -> c_int;
    fn internalerrquery(query: *const c_char) -> c_int;
    fn errfinish(filename: *const c_char, lineno: c_int, funcname: *const c_char);
}

/// Returns the value, or raises the error with all its fields. Only for the outermost frame of a function that PostgreSQL called.
///
/// The error leaves as a panic, so that all Rust frames are unwound, including those that pgrx has put around the function. In the
/// outermost frame, pgrx turns the panic into a PostgreSQL error. pgrx supports neither all SQLSTATEs nor contexts and positions, so
/// [`complete`] adds them while that error is being raised.
pub fn unwrap<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        let texts = Texts::of(&error);
        // SAFETY: the callback and its argument are in the transaction's memory, which stays until the error has been raised, since
        // pgrx raises it at the end of this call. Whoever catches it puts the stack of callbacks back as it was: PostgreSQL's
        // PG_TRY, the boundary of pgrx and `capture` do.
        unsafe {
            let context = pg_sys::TopTransactionContext;
            let arg = pg_sys::MemoryContextAlloc(context, size_of::<Texts>()).cast::<Texts>();
            arg.write(texts);
            let size = size_of::<pg_sys::ErrorContextCallback>();
            let callback =
                pg_sys::MemoryContextAlloc(context, size).cast::<pg_sys::ErrorContextCallback>();
            callback.write(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(complete),
                arg: arg.cast(),
            });
            pg_sys::error_context_stack = callback;
        }
        drop(error);
        let code = PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
        ErrorReport::new(code, "an error of backfill's", "backfill").report(PgLogLevel::ERROR);
        unreachable!("a report of an error returned")
    })
}

/// Error-context callback: runs while the error of [`unwrap`] is being raised, before the callbacks of the callers.
///
/// Not guarded by pgrx, since it cannot panic: it calls no Rust code that could.
unsafe extern "C-unwind" fn complete(texts: *mut c_void) {
    // SAFETY: the argument is the one that `unwrap` put there, and an error is being raised.
    unsafe { (*texts.cast::<Texts>()).fill_in() };
}

/// A message for the session that made the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Whether the message is a WARNING; otherwise it is a NOTICE.
    warning: bool,
    message: String,
    hint: Option<String>,
}

thread_local! {
    /// The messages of a process without a client, while they are collected for another process's client.
    static COLLECTED: RefCell<Option<Vec<Said>>> = const { RefCell::new(None) };
}

/// Runs `f`, and returns the extension's notices and warnings instead of sending them to a client.
pub fn collecting<T>(f: impl FnOnce() -> T) -> (T, Vec<Said>) {
    COLLECTED.set(Some(Vec::new()));
    let value = f();
    (value, COLLECTED.take().unwrap_or_default())
}

/// Sends the message to the client, or collects it.
pub fn say(said: &Said) {
    let kept = COLLECTED.with_borrow_mut(|kept| kept.as_mut().map(|all| all.push(said.clone())));
    if kept.is_some() {
        return;
    }
    let (level, code) = match said.warning {
        true => (pg_sys::WARNING, "01000"),
        false => (pg_sys::NOTICE, "00000"),
    };
    emit_message(level as c_int, code, &said.message, said.hint.as_deref());
}

/// Sends a NOTICE with an optional HINT.
pub fn notice(message: &str, hint: Option<&str>) {
    say_text(false, message, hint);
}

/// Sends a WARNING with an optional HINT.
pub fn warning(message: &str, hint: Option<&str>) {
    say_text(true, message, hint);
}

fn say_text(warning: bool, message: &str, hint: Option<&str>) {
    say(&Said {
        warning,
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
    });
}

/// Writes a line to the server log.
pub fn log(message: &str) {
    emit_message(pg_sys::LOG as c_int, "00000", message, None);
}

/// Reports the error as FATAL, which ends the process.
pub fn fatal(error: &Error) -> ! {
    emit(pg_sys::FATAL as c_int, error.clone());
    unreachable!("ereport(FATAL) returned")
}

/// Writes a line to the server log from a transaction callback, where nothing may fail: without the context lines of the committing
/// session's callers, and not to the client, whose encoding might lack some characters.
pub fn log_in_callback(message: &str) {
    const LOG_SERVER_ONLY: c_int = 16;
    // SAFETY: a variable of this process, which may be null. If an error should pass, whoever catches it puts the variable back.
    unsafe {
        let context = pg_sys::error_context_stack;
        pg_sys::error_context_stack = std::ptr::null_mut();
        emit_message(LOG_SERVER_ONLY, "00000", message, None);
        pg_sys::error_context_stack = context;
    }
}

fn emit_message(level: c_int, code: &str, message: &str, hint: Option<&str>) {
    let mut error = Error::new(code, message);
    error.hint = hint.map(str::to_owned);
    emit(level, error);
}

/// Sends a message, or ends the process. Messages below ERROR still check for interrupts: a cancel is then raised as an error.
fn emit(level: c_int, error: Error) {
    let texts = Texts::of(&error);
    // SAFETY: `send` has nothing to drop, so the boundary may catch a jump out of it, which becomes a panic. The texts were made
    // for this call, and are freed once.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| send(level, &texts));
        texts.free();
    }
}

/// # Safety
/// Within the boundary of pgrx.
unsafe fn send(level: c_int, texts: &Texts) {
    // SAFETY: in the order in which ereport() calls them.
    unsafe {
        if errstart(level, null()) {
            texts.fill_in();
            errfinish(c"backfill".as_ptr(), 0, null());
        }
    }
}

/// The fields of a report: zero-terminated strings in PostgreSQL's memory and the database's encoding, or null. There is nothing to
/// drop, so a jump may pass it.
#[derive(Clone, Copy)]
struct Texts {
    code: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
    context: *const c_char,
    position: c_int,
    query: *const c_char,
}

impl Texts {
    /// Copies the error's texts into the current memory context.
    fn of(error: &Error) -> Texts {
        let position = error.position.as_ref();
        let query = position.map(|p| p.text.as_str());
        Texts {
            code: pack(&error.sqlstate),
            message: keep(Some(&error.message)),
            detail: keep(error.detail.as_deref()),
            hint: keep(error.hint.as_deref()),
            context: keep(error.context.as_deref()),
            position: position.map_or(0, |p| p.character),
            query: keep(query.filter(|text| !text.is_empty())),
        }
    }

    /// Puts the texts into the report that is being made.
    ///
    /// # Safety
    /// Between `errstart` and the end of `errfinish`, with nothing in the frames above that a jump must not pass.
    unsafe fn fill_in(&self) {
        const FORMAT: *const c_char = c"%s".as_ptr();
        // SAFETY: as the caller promises. The format takes one string, which is given, and is copied.
        unsafe {
            errcode(self.code);
            errmsg(FORMAT, self.message);
            if !self.detail.is_null() {
                errdetail(FORMAT, self.detail);
            }
            if !self.hint.is_null() {
                errhint(FORMAT, self.hint);
            }
            if !self.context.is_null() {
                errcontext_msg(FORMAT, self.context);
            }
            if self.position > 0 && !self.query.is_null() {
                internalerrposition(self.position);
                internalerrquery(self.query);
            }
        }
    }

    /// # Safety
    /// To be called once, while the memory that the texts were copied into still exists.
    unsafe fn free(self) {
        let all = [
            self.message,
            self.detail,
            self.hint,
            self.context,
            self.query,
        ];
        for text in all.into_iter().filter(|text| !text.is_null()) {
            // SAFETY: as the caller promises; `keep` has allocated each of them.
            unsafe { pg_sys::pfree(text.cast_mut().cast()) };
        }
    }
}

fn keep(text: Option<&str>) -> *const c_char {
    let Some(text) = text else { return null() };
    let text = to_server(text).unwrap_or_else(|_| CString::from(c"?"));
    // SAFETY: the string ends with a zero, and is copied.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// Packs an SQLSTATE as PostgreSQL does (`MAKE_SQLSTATE` in elog.h).
fn pack(sqlstate: &str) -> c_int {
    let six = |c: u8| c_int::from(c.wrapping_sub(b'0') & 0x3f);
    sqlstate
        .bytes()
        .take(5)
        .enumerate()
        .map(|(i, c)| six(c) << (6 * i))
        .sum()
}

/// Shows a statement in `pg_stat_activity`.
pub fn activity(statement: &CStr) {
    // SAFETY: the text ends with a zero, and is copied. PostgreSQL ignores the call in a process without an entry of its own.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, statement.as_ptr())
    }
}

/// Shows the process as idle in `pg_stat_activity`.
pub fn idle() {
    // SAFETY: as above, without a text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, null()) }
}
