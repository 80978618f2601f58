//! Who waits for the transaction in progress.

use pgrx::pg_sys;

/// Whether anybody waits for this transaction to end: for a row that it has changed, that is. Cheap
/// enough for every batch: a look at one lock, not at all there are.
pub fn any() -> bool {
    unsafe {
        let xid = pg_sys::GetTopTransactionIdIfAny();
        if xid == pg_sys::InvalidTransactionId {
            return false;
        }
        // As SET_LOCKTAG_TRANSACTION of storage/lock.h.
        let tag = pg_sys::LOCKTAG {
            locktag_field1: xid.into_inner(),
            locktag_field2: 0,
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        pg_sys::LockHasWaiters(&tag, pg_sys::ExclusiveLock as i32, false)
    }
}
