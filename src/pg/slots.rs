//! Worker slots: the server-wide bound on workers, as session locks that all databases share.

use super::elevate::as_extension;
use super::lock::{self, Lock};
use super::spi::{self, Arg};
use crate::error::Result;
use crate::guc;

/// Takes a free slot for the session, if there is one.
pub fn take() -> Option<Lock> {
    (0..guc::MAX_WORKERS.get() as u32)
        .map(Lock::Slot)
        .find(|slot| slot.try_session())
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
