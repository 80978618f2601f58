//! Memory allocated by Rust, in a process that must survive running out of it.
//!
//! By default, Rust ends a process that is out of memory with SIGABRT, and the postmaster then restarts every session of the
//! server. So an allocation whose size a user can choose is requested with [`reserve`], which returns an error; if any other
//! allocation fails, the allocator ends only this session, as FATAL does.

#![cfg_attr(
    test,
    allow(
        dead_code,
        reason = "no server is linked to the tests that are plain Rust"
    )
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

use crate::error::{Error, Result, sqlstate};

thread_local! {
    /// Whether the code that is allocating handles failure itself.
    static FALLIBLE: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, except that it ends the session when the system has no memory.
struct OrEndTheSession;

/// Not used in plain Rust tests, which have no server linked to them.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: OrEndTheSession = OrEndTheSession;

// SAFETY: every call is passed to the system's allocator unchanged, and its result is returned unchanged; where a call does
// not return, it breaks no promise. Nothing here unwinds or allocates from Rust.
unsafe impl GlobalAlloc for OrEndTheSession {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout`.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout`.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: `old` came from this allocator, which is the system's, with `layout`.
        checked(unsafe { System.realloc(old, layout, size) })
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

fn checked(memory: *mut u8) -> *mut u8 {
    if memory.is_null() && !FALLIBLE.get() {
        end_the_session();
    }
    memory
}

// From elog.h; the same in PostgreSQL 15 to 18.
unsafe extern "C-unwind" {
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errmsg(fmt: *const c_char, ...) -> c_int;
    fn errfinish(filename: *const c_char, lineno: c_int, funcname: *const c_char);
}

/// `ERRCODE_OUT_OF_MEMORY`: MAKE_SQLSTATE('5','3','2','0','0').
const OUT_OF_MEMORY: c_int = 5 + (3 << 6) + (2 << 12);

#[cold]
fn end_the_session() {
    // SAFETY: MyProcPid is 0 only where no server has set this process up (plain Rust tests). PostgreSQL's error system
    // keeps memory of its own for this case. FATAL does not return and does not unwind: it calls proc_exit(), which rolls the
    // transaction back. Running out of memory during proc_exit() would lead here again, without end; hence the second check.
    unsafe {
        if pg_sys::MyProcPid == 0 || pg_sys::proc_exit_inprogress {
            return;
        }
        if errstart(pg_sys::FATAL as c_int, std::ptr::null()) {
            errcode(OUT_OF_MEMORY);
            errmsg(c"out of memory in extension \"backfill\"".as_ptr());
            errfinish(c"backfill".as_ptr(), 0, std::ptr::null());
        }
    }
}

/// Makes room for `bytes` more bytes, or returns an error with SQLSTATE 53200.
pub fn reserve(buffer: &mut Vec<u8>, bytes: usize) -> Result<()> {
    FALLIBLE.set(true);
    let reserved = buffer.try_reserve_exact(bytes);
    FALLIBLE.set(false);
    reserved.map_err(|_| {
        Error::new(sqlstate::OUT_OF_MEMORY, "out of memory")
            .detail(format!("Failed on request of size {bytes}."))
            .hint("Give the server more memory, or shorten what is given.")
    })
}

/// Returns an owned copy, or an error with SQLSTATE 53200.
pub fn copy(text: &str) -> Result<String> {
    let mut owned = Vec::new();
    reserve(&mut owned, text.len())?;
    owned.extend_from_slice(text.as_bytes());
    // SAFETY: it is a copy of a str.
    Ok(unsafe { String::from_utf8_unchecked(owned) })
}
