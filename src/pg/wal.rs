//! The WAL that this process writes.

use pgrx::pg_sys;

/// Full page images that it has written since it began.
pub fn images() -> u64 {
    // SAFETY: a counter of this process, which nobody else writes.
    unsafe { pg_sys::pgWalUsage.wal_fpi }.unsigned_abs()
}

/// Bytes that it has written since it began.
pub fn written() -> u64 {
    // SAFETY: a counter of this process, which nobody else writes.
    unsafe { pg_sys::pgWalUsage.wal_bytes }
}
