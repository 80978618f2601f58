//! Worker slots: the server-wide bound on workers, as session locks that all databases share.

use std::cell::Cell;

use super::elevate::as_extension;
use super::lock::{self, Lock};
use super::spi::{self, Arg};
use crate::error::Result;
use crate::guc;

thread_local! {
    static TAKEN: Cell<Option<Lock>> = const { Cell::new(None) };
}

/// Takes a free slot for the session, if there is one.
pub fn take() -> bool {
    let mut slots = (0..guc::MAX_WORKERS.get() as u32).map(Lock::Slot);
    TAKEN.set(slots.find(|slot| slot.try_session()));
    TAKEN.get().is_some()
}

/// Whether the session still holds the slot that it took: a trigger's pg_advisory_unlock_all() lets
/// it go.
pub fn is_held() -> bool {
    TAKEN.get().is_some_and(Lock::is_held)
}

/// Lets the slot go.
pub fn release() {
    if let Some(slot) = TAKEN.take() {
        slot.release_session();
    }
}

/// How many slots of the server are taken. Within `spi::connect`.
pub fn in_use() -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks
             WHERE locktype = 'advisory' AND database = 0 AND objsubid = $1 AND granted",
            &[Arg::Int4(i32::from(lock::SLOT))],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}
