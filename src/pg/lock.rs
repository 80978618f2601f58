//! Session locks that tell which process runs what, and transaction locks that keep two calls apart.
//!
//! They are advisory locks with a fourth field that SQL's advisory functions can't produce, so nobody takes them by accident, and
//! everybody sees them in `pg_locks` (as `objsubid`).

use std::cell::RefCell;
use std::ffi::CString;

use pgrx::pg_sys;

use super::{patience, settings, subtransaction};
use crate::error::{Result, sqlstate};

/// `objsubid` of the lock that each worker of a job holds, in shared mode. Fields: database, job id.
pub const JOB: u16 = 7701;
/// `objsubid` of the lock that each worker holds on one of the server's worker slots.
pub const SLOT: u16 = 7702;
/// `objsubid` of the lock that `define` and `start` hold on a relation until the end of their transaction.
const DEFINITION: u16 = 7703;
/// `objsubid` of the lock that a slice's only worker holds. Fields: database, slice id.
pub const SLICE: u16 = 7704;
/// `objsubid` of the lock under which workers make decisions about the whole job.
const COUNCIL: u16 = 7705;
/// `objsubid` of the lock of the only worker that does the work after the last batch.
const UPKEEP: u16 = 7706;
/// `objsubid` of the lock that each worker holds on one of its role's worker slots. Fields: 0, role, number.
pub const SHARE: u16 = 7707;
/// `objsubid` of the second lock on a worker slot, which user code can't release. Fields: as of the first.
pub const SEAT: u16 = 7708;
/// `objsubid` of the lock of the only worker that waits for a process to hand over to.
const HEIR: u16 = 7709;
/// First of three `objsubid`s of the locks that a session holds while it asks a checker: on a place of the server's, of the role whose
/// text it is, and of the role that is logged in. Fields: 0, the role, a number.
const ASKER: u16 = 7710;
/// First of three `objsubid`s of the locks that a checker itself holds on these places. Fields: as of [`ASKER`].
const CHECKER: u16 = 7713;

thread_local! {
    /// Session locks that this process has taken and not released.
    static KEPT: RefCell<Vec<Lock>> = const { RefCell::new(Vec::new()) };
}

/// Retakes the session locks that this process has lost without releasing them: users' code releases those of one lock method
/// (pg_advisory_unlock_all), and an abort those of the other. A lock that somebody else has taken meanwhile is not waited for: code
/// that relies on a lock checks whether it is held. To be called between transactions of a worker, and so before any more of users'
/// code runs.
pub fn take_back() {
    let kept = KEPT.with_borrow(Clone::clone);
    for lock in kept {
        if !lock.is_held() {
            lock.acquire(true, true);
        }
    }
}

/// A lock of the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// A job of this database, by id; its workers share the lock.
    Job(i64),
    /// A worker slot of the server, by number.
    Slot(u32),
    /// A relation of this database, by OID, while a job on it is being defined.
    Definition(u32),
    /// A slice of this database, by id.
    Slice(i32),
    /// Decisions that concern all workers of a job: its slices, its end.
    Council(i64),
    /// The work after the last batch of a job.
    Upkeep(i64),
    /// One of the worker slots that the jobs of a role may hold: role, number.
    Share(u32, u32),
    /// The second lock on a worker slot of the server, by number.
    Seat(u32),
    /// The right to wait for a process that this database's jobs are handed over to.
    Heir,
    /// One of the limited number of places from which checkers can be asked at the same time: of the server (0), of text of a role's (1),
    /// or of sessions of a role (2); then the role and a number.
    Asker(u16, u32, u32),
    /// The same places as for `Asker`, locked by the checker.
    Checker(u16, u32, u32),
}

impl Lock {
    fn tag(self) -> pg_sys::LOCKTAG {
        // SAFETY: a variable that is set when the process connects, and 0 before.
        let here = unsafe { pg_sys::MyDatabaseId.to_u32() };
        let (database, id, field4) = match self {
            Lock::Job(id) => (here, id as u64, JOB),
            Lock::Slot(number) => (0, u64::from(number), SLOT),
            Lock::Definition(relation) => (here, u64::from(relation), DEFINITION),
            Lock::Slice(id) => (here, id as u64, SLICE),
            Lock::Council(id) => (here, id as u64, COUNCIL),
            Lock::Upkeep(id) => (here, id as u64, UPKEEP),
            Lock::Asker(kind, role, number) => {
                (0, u64::from(role) << 32 | u64::from(number), ASKER + kind)
            }
            Lock::Checker(kind, role, number) => {
                (0, u64::from(role) << 32 | u64::from(number), CHECKER + kind)
            }
            Lock::Share(role, number) => (0, u64::from(role) << 32 | u64::from(number), SHARE),
            Lock::Seat(number) => (0, u64::from(number), SEAT),
            Lock::Heir => (here, 0, HEIR),
        };
        // pg_advisory_unlock_all() releases only locks of USER_LOCKMETHOD; an abort only those of DEFAULT_LOCKMETHOD.
        let method = match self {
            Lock::Share(..) | Lock::Seat(_) | Lock::Checker(..) => pg_sys::DEFAULT_LOCKMETHOD,
            _ => pg_sys::USER_LOCKMETHOD,
        };
        pg_sys::LOCKTAG {
            locktag_field1: database,
            locktag_field2: (id >> 32) as u32,
            locktag_field3: id as u32,
            locktag_field4: field4,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: method as u8,
        }
    }

    fn mode(self) -> i32 {
        let mode = match self {
            Lock::Job(_) => pg_sys::ShareLock,
            _ => pg_sys::ExclusiveLock,
        };
        mode as i32
    }

    /// Takes the lock for the session unless somebody else holds it in a conflicting mode. If the lock is lost before it is released,
    /// [`take_back`] takes it again.
    pub fn try_session(self) -> bool {
        let taken = self.acquire(true, true);
        if taken {
            KEPT.with_borrow_mut(|kept| {
                if !kept.contains(&self) {
                    kept.push(self);
                }
            });
        }
        taken
    }

    /// Releases a session lock, if it is still held.
    pub fn release_session(self) {
        KEPT.with_borrow_mut(|kept| kept.retain(|lock| *lock != self));
        if self.is_held() {
            // SAFETY: the tag is only read. Releasing a lock that is not held would raise a warning.
            unsafe { pg_sys::LockRelease(&self.tag(), self.mode(), true) };
        }
    }

    /// Whether this process still holds the lock: a trigger's pg_advisory_unlock_all() may have released it.
    pub fn is_held(self) -> bool {
        // SAFETY: looks up the tag, which is only read, in this process's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            return pg_sys::LockHeldByMe(&self.tag(), self.mode(), false);
            #[cfg(not(any(feature = "pg17", feature = "pg18")))]
            return pg_sys::LockHeldByMe(&self.tag(), self.mode());
        }
    }

    /// Releases a lock of the transaction before its end.
    pub fn release_transaction(self) {
        // SAFETY: as in `release_session`.
        unsafe { pg_sys::LockRelease(&self.tag(), self.mode(), false) };
    }

    /// Waits for the lock and holds it until the transaction ends.
    pub fn for_transaction(self) {
        self.acquire(false, false);
    }

    /// Takes the lock until the transaction ends, without waiting. Returns false if somebody else holds it.
    pub fn try_for_transaction(self) -> bool {
        self.acquire(false, true)
    }

    /// Waits for the lock as long as a call may, and holds it until the transaction ends. Returns false if somebody else still holds it
    /// then. Within `spi::connect`.
    pub fn in_time(self) -> Result<bool> {
        if self.try_for_transaction() {
            return Ok(true);
        }
        let waited = subtransaction::in_subtransaction(|| {
            let wait = || {
                self.for_transaction();
                Ok(())
            };
            match patience::bound() {
                Some(milliseconds) => {
                    let value = CString::new(milliseconds.to_string()).unwrap_or_default();
                    settings::with(&[(c"lock_timeout", &value)], wait)
                }
                None => wait(),
            }
        });
        match waited {
            Ok(()) => Ok(true),
            Err(error) if error.sqlstate == sqlstate::LOCK_NOT_AVAILABLE => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the four fields of the lock, as `pg_locks` shows them: database, classid, objid, objsubid.
    pub fn shown(self) -> [i64; 4] {
        let tag = self.tag();
        [
            i64::from(tag.locktag_field1),
            i64::from(tag.locktag_field2),
            i64::from(tag.locktag_field3),
            i64::from(tag.locktag_field4),
        ]
    }

    fn acquire(self, session: bool, dont_wait: bool) -> bool {
        // SAFETY: the tag is only read, and any tag will do: advisory locks are numbers. A lock that is not the session's belongs to
        // the current resource owner, and so to the transaction; if there is none, it is held like a session's lock. Errors (no
        // memory for locks, a deadlock, a cancel) leave no lock behind.
        let got = unsafe { pg_sys::LockAcquire(&self.tag(), self.mode(), session, dont_wait) };
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
