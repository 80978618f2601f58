//! Worker slots: limits on the number of workers of the whole server, and of one role, as session locks that all databases share.
//!
//! A worker holds a [`Lock::Slot`], a [`Lock::Seat`] of the same number and, unless its role is a superuser, a [`Lock::Share`]. The
//! first one is an advisory lock, which user code can release (pg_advisory_unlock_all). The others use the lock method of table
//! locks, so user code can't release them, but the abort of a transaction does. A worker that has lost both kinds runs no users' code:
//! before each batch, [`are_held`] and [`take`] check for missing locks and replace them. So neither way lets anybody get more slots.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::lock::{self, Lock};
use super::spi::{self, Arg};
use crate::error::Result;
use crate::guc;

/// Result of an attempt to take a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A slot was taken.
    Taken,
    /// All slots of the server are in use.
    Full,
    /// The role has as many slots as it may have.
    Crowded,
}

/// The locks of this process, as far as nothing has released them.
#[derive(Debug, Clone, Copy)]
struct Places {
    slot: Lock,
    seat: Lock,
    share: Option<Lock>,
}

impl Places {
    fn all(&self) -> impl Iterator<Item = Lock> {
        [Some(self.slot), Some(self.seat), self.share]
            .into_iter()
            .flatten()
    }

    fn are_held(&self) -> bool {
        self.all().all(Lock::is_held)
    }

    /// Retakes the locks that are missing. Returns false if another process was quicker.
    fn keep(&self) -> bool {
        self.all().all(|lock| lock.is_held() || lock.try_session())
    }

    fn release(&self) {
        self.all().for_each(Lock::release_session);
    }
}

thread_local! {
    static TAKEN: RefCell<Option<Places>> = const { RefCell::new(None) };
}

thread_local! {
    /// Whether the locks are released when the process exits.
    static LET_GO_AT_EXIT: Cell<bool> = const { Cell::new(false) };
}

/// Arranges that the locks are released at any exit of the process. PostgreSQL does so for advisory locks, and for table locks if a
/// transaction is in progress: without this, a process that is terminated between two batches would keep its seat for ever.
fn let_go_at_exit() {
    if !LET_GO_AT_EXIT.replace(true) {
        // SAFETY: registers a function that lives as long as the process, once in it.
        unsafe { pg_sys::on_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    // SAFETY: comes after the transaction was aborted, and before the process gives up its place in shared memory, whose callback
    // was registered earlier. Nothing of this process needs a lock any more.
    unsafe { pg_sys::LockReleaseAll(pg_sys::DEFAULT_LOCKMETHOD as u16, true) };
}

/// Takes a free slot for the session, for a job of `owner`'s; if the process has a slot already, replaces its missing locks. Within a
/// transaction that is committed.
pub fn take(owner: Oid) -> Room {
    let_go_at_exit();
    if let Some(places) = TAKEN.take() {
        if within_limit(places.share) && places.keep() {
            TAKEN.set(Some(places));
            return Room::Taken;
        }
        places.release();
    }
    let mut numbers = 0..guc::MAX_WORKERS.get() as u32;
    let free = numbers.find_map(|number| {
        let (slot, seat) = (Lock::Slot(number), Lock::Seat(number));
        let places = Places {
            slot,
            seat,
            share: None,
        };
        let taken = places.keep();
        if !taken {
            places.release();
        }
        taken.then_some(places)
    });
    let Some(mut places) = free else {
        return Room::Full;
    };
    if !is_exempt(owner) {
        let mut shares = (0..limit()).map(|number| Lock::Share(owner.to_u32(), number));
        places.share = shares.find(|share| share.try_session());
        if places.share.is_none() {
            places.release();
            return Room::Crowded;
        }
    }
    TAKEN.set(Some(places));
    Room::Taken
}

/// Whether the session still holds all locks that it took, and its role may still have that many slots.
pub fn are_held() -> bool {
    TAKEN.with_borrow(|taken| {
        taken.is_some_and(|places| places.are_held() && within_limit(places.share))
    })
}

/// Releases the slot.
pub fn release() {
    if let Some(places) = TAKEN.take() {
        places.release();
    }
}

/// Returns how many slots the jobs of one role may hold.
pub fn limit() -> u32 {
    let all = guc::MAX_WORKERS.get().max(1) as u32;
    match guc::MAX_WORKERS_PER_ROLE.get() {
        0 => all,
        given if given > 0 => given as u32,
        _ => (all - 1).max(1),
    }
}

fn within_limit(share: Option<Lock>) -> bool {
    match share {
        Some(Lock::Share(_, number)) => number < limit(),
        _ => true,
    }
}

/// Whether the limit per role does not apply to the owner: superusers could change the setting. Within a transaction.
pub fn is_exempt(owner: Oid) -> bool {
    // SAFETY: reads the system cache, within a transaction.
    unsafe { pg_sys::superuser_arg(owner) }
}

/// Returns how many slots of the server are taken. Within `spi::connect`.
pub fn in_use() -> Result<i64> {
    let row = as_extension(|| {
        spi::kept_first(
            "SELECT pg_catalog.count(DISTINCT objid) FROM pg_catalog.pg_locks
             WHERE locktype = 'advisory' AND database = 0 AND objsubid IN ($1, $2) AND granted",
            &[
                Arg::Int4(i32::from(lock::SLOT)),
                Arg::Int4(i32::from(lock::SEAT)),
            ],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Returns the roles that hold slots (except superusers), and how many more each of them may take. Within `spi::connect`.
pub fn rooms() -> Result<Vec<(Oid, i64)>> {
    let rows = as_extension(|| {
        spi::kept(
            "SELECT l.classid::bigint, pg_catalog.count(*) FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'advisory' AND l.database = 0 AND l.objsubid = $1 AND l.granted
             GROUP BY l.classid",
            &[Arg::Int4(i32::from(lock::SHARE))],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| {
            let role = Oid::from(row.number(0)? as u32);
            Ok((role, (i64::from(limit()) - row.number(1)?).max(0)))
        })
        .collect()
}

/// Returns the roles that may take no more slots now. Within `spi::connect`.
pub fn crowded() -> Result<Vec<Oid>> {
    let rooms = rooms()?.into_iter();
    Ok(rooms
        .filter(|(role, room)| *room == 0 && !is_exempt(*role))
        .map(|(role, _)| role)
        .collect())
}
