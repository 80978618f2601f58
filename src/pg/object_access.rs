//! Shares PostgreSQL's hook `object_access_hook` among the modules that watch which objects are looked up and called in this process.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, Oid};

/// A watcher. It is called with the kind of access, the class of the object, and its OID, and may raise an error.
pub(super) type Watcher = fn(pg_sys::ObjectAccessType::Type, Oid, Oid);

thread_local! {
    static WATCHERS: RefCell<Vec<Watcher>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// Calls the watcher for each access from now on, for as long as the process lives. To be called once for each watcher.
pub(super) fn watch(watcher: Watcher) {
    let first = WATCHERS.with_borrow_mut(|watchers| {
        watchers.push(watcher);
        watchers.len() == 1
    });
    if !first {
        return;
    }
    // SAFETY: the hook is read and written by this process alone, which has one thread. The function is this library's, which is
    // never unloaded, and it calls the previous hook.
    unsafe {
        NEXT.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// The hook that PostgreSQL calls.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub: c_int,
    arg: *mut c_void,
) {
    if let Some(next) = NEXT.get() {
        // SAFETY: it is the previous hook, called with the same arguments as this one.
        unsafe { next(access, class, object, sub, arg) };
    }
    // Not borrowed while watchers are called: a watcher may look something up itself.
    let mut number = 0;
    while let Some(watcher) = WATCHERS.with_borrow(|watchers| watchers.get(number).copied()) {
        watcher(access, class, object);
        number += 1;
    }
}
