//! A memory context for what PostgreSQL allocates and this library keeps beyond the current call.

use std::ffi::CStr;

use pgrx::pg_sys;

/// A memory context that is deleted when this value is dropped. It outlives transactions.
#[derive(Debug)]
pub(super) struct Memory(pg_sys::MemoryContext);

impl Memory {
    /// Creates an empty context. The name shows up in `pg_backend_memory_contexts`.
    pub fn new(name: &'static CStr) -> Memory {
        // SAFETY: TopMemoryContext exists as long as the process. The context keeps the pointer to the name, which is why the
        // name must be 'static.
        Memory(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                name.as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Returns the context itself, valid until this value is dropped.
    pub fn as_ptr(&self) -> pg_sys::MemoryContext {
        self.0
    }

    /// Runs `f` with this as the current memory context. Afterwards the previous context is current again, also when an error leaves `f`.
    ///
    /// # Safety
    /// `f` must neither begin nor end a (sub)transaction: the previous context might end with it.
    pub unsafe fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Back(pg_sys::MemoryContext);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: this context was the current one when `within` was called, and the only thing that could have deleted it
                // since, the end of a transaction, is excluded by the contract.
                unsafe { pg_sys::MemoryContextSwitchTo(self.0) };
            }
        }
        // SAFETY: the context lives as long as `self`.
        let _back = Back(unsafe { pg_sys::MemoryContextSwitchTo(self.0) });
        f()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the context was created in `new`, nobody else deletes it (its parent is never reset), and this is the only
        // owner, as the type can't be cloned. If it is still the current context, after an error, the process goes on in one
        // that stays.
        unsafe {
            if pg_sys::CurrentMemoryContext == self.0 {
                pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            }
            pg_sys::MemoryContextDelete(self.0);
        }
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::pg_sys;
    use pgrx::prelude::*;

    use super::Memory;
    use crate::error::Result;
    use crate::pg::spi;

    fn current() -> pg_sys::MemoryContext {
        // SAFETY: reads a variable of this process.
        unsafe { pg_sys::CurrentMemoryContext }
    }

    #[pg_test]
    fn the_context_from_before_comes_back_also_after_an_error() {
        let before = current();
        let memory = Memory::new(c"backfill test");
        // SAFETY: nothing in here begins or ends a transaction.
        assert_eq!(unsafe { memory.within(current) }, memory.as_ptr());
        assert_eq!(current(), before);
        let mut on_the_way = std::ptr::null_mut();
        let error = spi::in_subtransaction(|| {
            let left = std::panic::catch_unwind(|| {
                // SAFETY: as above.
                unsafe { memory.within(|| -> Result<()> { pgrx::error!("left early") }) }
            });
            on_the_way = current();
            left.unwrap_or_else(|error| std::panic::resume_unwind(error))
        });
        assert_eq!(error.expect_err("an error").message, "left early");
        assert_eq!(on_the_way, before);
    }

    #[pg_test]
    fn one_that_is_deleted_is_not_the_current_one() {
        let before = current();
        let memory = Memory::new(c"backfill test");
        // SAFETY: the context is live, and another one replaces it below.
        unsafe { pg_sys::MemoryContextSwitchTo(memory.as_ptr()) };
        drop(memory);
        // SAFETY: TopMemoryContext always exists, and the previous context is the test's.
        let (top, now) = unsafe {
            (
                pg_sys::TopMemoryContext,
                pg_sys::MemoryContextSwitchTo(before),
            )
        };
        assert_eq!(now, top);
    }
}
