//! PostgreSQL's hook `object_access_hook`, shared by those who watch what is looked up and called in this process.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};

use pgrx::pg_sys::{self, Oid};

/// One who watches: called with the kind of access, the class of the object, and its OID. It may raise an error.
pub(super) type Watcher = fn(pg_sys::ObjectAccessType::Type, Oid, Oid);

thread_local! {
    static WATCHERS: RefCell<Vec<Watcher>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// Has the watcher called for each access from now on, as long as the process lives. To be called once for each.
pub(super) fn watch(watcher: Watcher) {
    let first = WATCHERS.with_borrow_mut(|watchers| {
        watchers.push(watcher);
        watchers.len() == 1
    });
    if !first {
        return;
    }
    // SAFETY: the hook is read and written by this process alone, which has one thread. The function is this library's, which is
    // never unloaded, and calls the one that was there before.
    unsafe {
        NEXT.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// Called by PostgreSQL as its hook.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub: c_int,
    arg: *mut c_void,
) {
    if let Some(next) = NEXT.get() {
        // SAFETY: it is the hook that was there before, called with what this one was.
        unsafe { next(access, class, object, sub, arg) };
    }
    // Not borrowed while they are called: a watcher may look something up itself.
    let mut number = 0;
    while let Some(watcher) = WATCHERS.with_borrow(|watchers| watchers.get(number).copied()) {
        watcher(access, class, object);
        number += 1;
    }
}
