//! Tells whether anybody waits for the transaction in progress.

use pgrx::pg_sys;

use super::horizon;

/// Whether anybody waits for this transaction to end, that is, for a row that it has changed. Cheap enough for every batch: looks at one
/// lock, not at all of them.
pub fn any() -> bool {
    let Some(xid) = horizon::my_xid() else {
        return false;
    };
    // As SET_LOCKTAG_TRANSACTION of storage/lock.h.
    let tag = pg_sys::LOCKTAG {
        locktag_field1: xid,
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: the tag lives in this function. A transaction that has an ID holds this lock on it, exclusively, until it ends; the
    // function requires that the caller holds the lock.
    unsafe { pg_sys::LockHasWaiters(&tag, pg_sys::ExclusiveLock as i32, false) }
}
