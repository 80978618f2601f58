//! Raises this crate's errors as PostgreSQL reports, with position; and notices and log lines.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, elog::PgLogLevel};
use serde::{Deserialize, Serialize};

use super::text::to_server;
use crate::error::{Error, Result};

// elog.h, the same from 15 to 18. They are called without pgrx' boundary: an error leaves them by a jump, which
// must pass no frame of Rust's that has something to be dropped, nor one that catches panics.
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

/// Gives the value, or raises the error, whole. Only for the outermost frame of a function that PostgreSQL called.
///
/// The error leaves as a panic, so that all frames of Rust's are unwound, those that pgrx has put around
/// the function too. At the outermost one pgrx makes an error of PostgreSQL's of it. pgrx knows
/// neither all SQLSTATEs nor contexts and positions, so [`complete`] adds them while that is being raised.
pub fn unwrap<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        let texts = Texts::of(&error);
        // SAFETY: the callback and what it is given are in the transaction's memory, which stays until the error
        // has been raised, for pgrx raises it at the end of this call. Whoever catches it puts the stack of callbacks back
        // as it was: PostgreSQL's PG_TRY, pgrx' boundary and `capture` do.
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

/// Runs while the error of [`unwrap`] is being raised, before the callbacks of whoever called.
///
/// Not guarded by pgrx, as it cannot panic: it calls nothing of Rust's.
unsafe extern "C-unwind" fn complete(texts: *mut c_void) {
    // SAFETY: it is what `unwrap` has put there, and an error is being raised.
    unsafe { (*texts.cast::<Texts>()).fill_in() };
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
    // SAFETY: a variable of this process, which may be null. If an error should pass, whoever catches it
    // puts it back.
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

/// Sends a message, or ends the process. What is below an error still answers to interrupts (a cancel), which
/// are errors then.
fn emit(level: c_int, error: Error) {
    let texts = Texts::of(&error);
    // SAFETY: `send` has nothing to be dropped, so that the boundary may catch a jump out of it; it becomes a
    // panic. The texts were made for this, and are freed once.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| send(level, &texts));
        texts.free();
    }
}

/// # Safety
/// Within pgrx' boundary.
unsafe fn send(level: c_int, texts: &Texts) {
    // SAFETY: in the order in which ereport() calls them.
    unsafe {
        if errstart(level, null()) {
            texts.fill_in();
            errfinish(c"backfill".as_ptr(), 0, null());
        }
    }
}

/// What is reported: strings that end with a zero, in PostgreSQL's memory and the database's encoding, or
/// null. There is nothing to be dropped, so that a jump may pass it.
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
    /// Copies them into the current memory context.
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

    /// Puts them into the report that is being made.
    ///
    /// # Safety
    /// Between `errstart` and the end of `errfinish`, with nothing in the frames above that a jump may not pass.
    unsafe fn fill_in(&self) {
        const FORMAT: *const c_char = c"%s".as_ptr();
        // SAFETY: as the caller promises. The format takes one string, which is there, and is copied.
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
    /// Once, where the memory that they were copied into still exists.
    unsafe fn free(self) {
        let all = [
            self.message,
            self.detail,
            self.hint,
            self.context,
            self.query,
        ];
        for text in all.into_iter().filter(|text| !text.is_null()) {
            // SAFETY: as the caller promises; `keep` has allocated each.
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
    // SAFETY: the text ends with a zero, and is copied. A process without an entry of its own is left out.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, statement.as_ptr())
    }
}

/// Shows the process as idle in `pg_stat_activity`.
pub fn idle() {
    // SAFETY: as above, without a text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, null()) }
}
