//! Raises this crate's errors as PostgreSQL reports, with position; and notices and log lines.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null;

use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use super::text::to_server;
use crate::error::{Error, Result};

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

/// Gives the value, or raises the error. Only for the outermost frame of a function that
/// PostgreSQL called: the error leaves by longjmp.
pub fn unwrap<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            emit(pg_sys::PGERROR as c_int, error);
            unreachable!("ereport(ERROR) returned")
        }
    }
}

/// A message for whoever made the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Whether it is a WARNING, else a NOTICE.
    warning: bool,
    message: String,
    hint: Option<String>,
}

thread_local! {
    /// What is said in a process that has no client, if it is kept for somebody else's.
    static COLLECTED: RefCell<Option<Vec<Said>>> = const { RefCell::new(None) };
}

/// Runs `f`, and gives the notices and warnings of ours that it would have sent to a client.
pub fn collecting<T>(f: impl FnOnce() -> T) -> (T, Vec<Said>) {
    COLLECTED.set(Some(Vec::new()));
    let value = f();
    (value, COLLECTED.take().unwrap_or_default())
}

/// Says it to the client.
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

/// A NOTICE with an optional HINT.
pub fn notice(message: &str, hint: Option<&str>) {
    say_text(false, message, hint);
}

/// A WARNING with an optional HINT.
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

/// A line in the server log.
pub fn log(message: &str) {
    emit_message(pg_sys::LOG as c_int, "00000", message, None);
}

/// Ends the process.
pub fn fatal(error: &Error) -> ! {
    emit(pg_sys::FATAL as c_int, error.clone());
    unreachable!("ereport(FATAL) returned")
}

/// A line in the server log from a transaction callback, where nothing may fail: without the
/// context lines of whoever is committing, and not to the client, whose encoding might not have them.
pub fn log_in_callback(message: &str) {
    const LOG_SERVER_ONLY: c_int = 16;
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

/// Copies all texts into PostgreSQL's memory first, so that a longjmp leaks nothing of Rust's.
fn emit(level: c_int, error: Error) {
    unsafe {
        let code = pack(&error.sqlstate);
        let message = keep(Some(&error.message));
        let detail = keep(error.detail.as_deref());
        let hint = keep(error.hint.as_deref());
        let context = keep(error.context.as_deref());
        let position = error.position.as_ref().map_or(0, |p| p.character);
        let query = error.position.as_ref().map(|p| p.text.as_str());
        let query = keep(query.filter(|text| !text.is_empty()));
        drop(error);
        raise(level, code, message, detail, hint, context, position, query);
    }
}

#[allow(clippy::too_many_arguments)]
unsafe fn raise(
    level: c_int,
    code: c_int,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
    context: *const c_char,
    position: c_int,
    query: *const c_char,
) {
    const FORMAT: *const c_char = c"%s".as_ptr();
    unsafe {
        if !errstart(level, null()) {
            return;
        }
        errcode(code);
        errmsg(FORMAT, message);
        if !detail.is_null() {
            errdetail(FORMAT, detail);
        }
        if !hint.is_null() {
            errhint(FORMAT, hint);
        }
        if !context.is_null() {
            errcontext_msg(FORMAT, context);
        }
        if position > 0 && !query.is_null() {
            internalerrposition(position);
            internalerrquery(query);
        }
        errfinish(c"backfill".as_ptr(), 0, null());
    }
}

unsafe fn keep(text: Option<&str>) -> *const c_char {
    let Some(text) = text else { return null() };
    let text = to_server(text).unwrap_or_else(|_| CString::from(c"?"));
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}

/// The SQLSTATE as PostgreSQL packs it (`MAKE_SQLSTATE` in elog.h).
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
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, statement.as_ptr())
    }
}

/// Shows the process as idle in `pg_stat_activity`.
pub fn idle() {
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, null()) }
}
