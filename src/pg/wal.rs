//! The WAL that this process writes.

use pgrx::pg_sys;

/// Bytes that it has written since it began.
pub fn written() -> u64 {
    unsafe { pg_sys::pgWalUsage.wal_bytes }
}
