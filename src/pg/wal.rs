//! Counts the WAL that this process writes.

use pgrx::pg_sys;

/// Returns the number of full page images that this process has written since it began.
pub fn images() -> u64 {
    // SAFETY: a counter of this process, which nobody else writes.
    unsafe { pg_sys::pgWalUsage.wal_fpi }.unsigned_abs()
}

/// Returns the number of bytes of WAL that this process has written since it began.
pub fn written() -> u64 {
    // SAFETY: a counter of this process, which nobody else writes.
    unsafe { pg_sys::pgWalUsage.wal_bytes }
}
