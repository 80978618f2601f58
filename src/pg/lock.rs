//! Session locks that tell who runs what, and transaction locks that keep two calls apart.
//!
//! They are advisory locks with a fourth field that SQL's advisory functions can't produce, so
//! nobody takes them by accident, and everybody sees them in `pg_locks` (as `objsubid`).

use pgrx::pg_sys;

/// `objsubid` of the lock that the worker of a job holds. Fields: database, job id.
pub const JOB: u16 = 7701;
/// `objsubid` of the lock that each worker holds on one of the server's worker slots.
pub const SLOT: u16 = 7702;
/// `objsubid` of the lock that `define` and `start` hold on a relation until their end.
const DEFINITION: u16 = 7703;

/// A lock of this extension's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// This database's job with this id.
    Job(i64),
    /// A worker slot of the server.
    Slot(u32),
    /// This database's relation with this OID, for defining a job on it.
    Definition(u32),
}

impl Lock {
    fn tag(self) -> pg_sys::LOCKTAG {
        let here = unsafe { pg_sys::MyDatabaseId.to_u32() };
        let (database, field2, field3, field4) = match self {
            Lock::Job(id) => (here, (id >> 32) as u32, id as u32, JOB),
            Lock::Slot(number) => (0, 0, number, SLOT),
            Lock::Definition(relation) => (here, 0, relation, DEFINITION),
        };
        pg_sys::LOCKTAG {
            locktag_field1: database,
            locktag_field2: field2,
            locktag_field3: field3,
            locktag_field4: field4,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        }
    }

    /// Takes the lock for the session if nobody else holds it.
    pub fn try_session(self) -> bool {
        self.acquire(true, true)
    }

    /// Lets a session lock go, if it is still held.
    pub fn release_session(self) {
        if self.is_held() {
            unsafe { pg_sys::LockRelease(&self.tag(), pg_sys::ExclusiveLock as i32, true) };
        }
    }

    /// Whether this process still holds it: a trigger's pg_advisory_unlock_all() lets it go.
    pub fn is_held(self) -> bool {
        unsafe {
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            return pg_sys::LockHeldByMe(&self.tag(), pg_sys::ExclusiveLock as i32, false);
            #[cfg(not(any(feature = "pg17", feature = "pg18")))]
            return pg_sys::LockHeldByMe(&self.tag(), pg_sys::ExclusiveLock as i32);
        }
    }

    /// Waits for the lock and holds it until the transaction ends.
    pub fn for_transaction(self) {
        self.acquire(false, false);
    }

    fn acquire(self, session: bool, dont_wait: bool) -> bool {
        let got = unsafe {
            pg_sys::LockAcquire(
                &self.tag(),
                pg_sys::ExclusiveLock as i32,
                session,
                dont_wait,
            )
        };
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
