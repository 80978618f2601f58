//! Transactions of a background worker, which recover from every error.

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use pgrx::pg_sys::{self, Oid};

use super::capture::capture;
use super::{lock, planner, read_only, schemas, server, settings, spi};
use crate::error::{Error, Result};

/// Durability of a commit: whether it waits for the WAL to be safe, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Uses the session's `synchronous_commit`, which is off: a crash may lose the commit, together with its checkpoint.
    Deferred,
    /// Waits for this server's disk, but for no standby (`synchronous_commit = local`).
    Local,
    /// Waits for the disk, and for synchronous standbys if there are any (`synchronous_commit = on`).
    Immediate,
}

impl Durability {
    /// Returns the value of `synchronous_commit`; `None` for that of the session.
    fn setting(self) -> Option<&'static CStr> {
        match self {
            Durability::Deferred => None,
            Durability::Local => Some(c"local"),
            Durability::Immediate => Some(c"on"),
        }
    }
}

/// Fate of settings that any code running in a transaction SETs for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    /// Settings are put back before the transaction commits: a trigger's SET does not affect the next transaction.
    PutBack,
    /// Settings stay.
    Stay,
}

thread_local! {
    static ACTING: Cell<Option<Oid>> = const { Cell::new(None) };
    /// Nest level of settings that is put back before the transaction in progress commits.
    static LEVEL: Cell<Option<i32>> = const { Cell::new(None) };
    /// Durability of that commit.
    static DURABILITY: Cell<Durability> = const { Cell::new(Durability::Deferred) };
    /// Whether the server reports commits to this process.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Runs every transaction of this process as `owner` from now on, though the session belongs to another role, in a security context in
/// which user code can neither SET ROLE nor SET SESSION AUTHORIZATION (the one that PostgreSQL uses inside SECURITY DEFINER functions).
pub fn act_as(owner: Oid) {
    ACTING.set(Some(owner));
}

/// Runs `f` in a transaction, connected to SPI, and commits it. An error of any kind, also one raised while committing, aborts the
/// transaction and is returned.
///
/// Afterwards settings are as they were before, whatever users' code has SET in the transaction, including code deferred to the commit.
pub fn run<T>(durability: Durability, f: impl FnOnce() -> Result<T>) -> Result<T> {
    run_after(|| {}, durability, f)
}

/// Like [`run`], but first calls `before`, which needs no snapshot and may take long: waiting for a lock while holding a snapshot would
/// hold back VACUUM everywhere.
pub fn run_after<T>(
    before: impl FnOnce(),
    durability: Durability,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    run_steps(Settings::PutBack, durability, before, || spi::connect(f))
}

/// Like [`run`], but settings that `f` sets stay for the session. `f` must run no users' code.
pub fn run_setting<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    run_steps(
        Settings::Stay,
        Durability::Deferred,
        || {},
        || spi::connect(f),
    )
}

/// Like [`run`] without SPI, for a process that is connected to no database.
pub fn run_bare<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    run_steps(Settings::PutBack, Durability::Deferred, || {}, f)
}

/// Runs `f` in a transaction that `f` may commit itself, and follow by others, as VACUUM does. The last one is committed; an error
/// aborts it and is returned.
///
/// The transaction runs as the session's user, even if [`act_as`] is in force: the session is the owner's, too, and the security
/// context of `act_as` would pass from one of `f`'s transactions to the next, which PostgreSQL asserts not to happen. So `f` must run
/// user code only as PostgreSQL's own maintenance commands do: in a security-restricted operation.
pub fn run_committing(f: impl FnOnce() -> Result<()>) -> Result<()> {
    refuse_within();
    // SAFETY: no transaction is in progress. `f` leaves one in progress, which is committed.
    let result = capture(|| unsafe {
        begin();
        f()?;
        pg_sys::CommitTransactionCommand();
        Ok(())
    });
    // SAFETY: this call recovers from whatever state an error has left. Outside of a transaction, statistics can be sent.
    unsafe {
        if result.is_err() {
            planner::reset();
            pg_sys::AbortOutOfAnyTransaction();
        }
        lock::take_back();
        pg_sys::pgstat_report_stat(false);
    }
    result
}

fn be_told_of_commits() {
    if !TOLD.replace(true) {
        // SAFETY: registers a function that lives as long as the process, once in it.
        unsafe { pg_sys::RegisterXactCallback(Some(before_commit), null_mut()) };
    }
}

/// Transaction callback: puts settings back once all users' code has run, including code deferred to the commit. An error may still be
/// raised here.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_commit(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    if event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
        return;
    }
    if let Some(level) = LEVEL.take() {
        // SAFETY: the level was begun by the transaction that commits, whose subtransactions and statements have ended, with their
        // levels.
        unsafe { pg_sys::AtEOXact_GUC(false, level) };
    }
    if let Some(value) = DURABILITY.replace(Durability::Deferred).setting() {
        settings::set_for_transaction(c"synchronous_commit", value);
    }
}

/// Raises an error within a transaction, as in a client's session: [`run`] would end somebody else's transaction.
fn refuse_within() {
    if server::in_transaction() {
        pgrx::error!("backfill: a transaction is in progress already");
    }
}

/// # Safety
/// In a process with a session, or connected to the shared catalogs, and outside of a transaction.
unsafe fn begin() {
    // SAFETY: as the caller promises. The rest are variables that a transaction begins with, and has not read yet.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        // Overrides whatever a trigger's SET default_transaction_... left behind.
        pg_sys::XactReadOnly = read_only::only_looks();
        pg_sys::XactDeferrable = false;
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
    }
}

/// Like [`run_after`], but the transaction is rolled back in any case: no effect of `f` stays, and code deferred to a commit never runs.
pub fn run_undone<T>(before: impl FnOnce(), f: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut value = None;
    let undone = run_steps(Settings::PutBack, Durability::Deferred, before, || {
        value = Some(spi::connect(f)?);
        Err::<(), Error>(Error::internal("rolled back"))
    });
    match (value, undone) {
        (Some(value), _) => Ok(value),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::internal("a transaction without a result")),
    }
}

fn run_steps<T>(
    set: Settings,
    durability: Durability,
    before: impl FnOnce(),
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    refuse_within();
    be_told_of_commits();
    let session = server::identity();
    let _names = schemas::Scope::begin();
    // SAFETY: no transaction is in progress, so this one is ours. Its identity is put back below. The snapshot pushed here is popped
    // before the commit, which needs none, unless an error leaves it to the abort; `f` leaves the stack with the same depth, though
    // maybe with another snapshot on top.
    let result = capture(|| unsafe {
        begin();
        if set == Settings::PutBack {
            LEVEL.set(Some(pg_sys::NewGUCNestLevel()));
        }
        DURABILITY.set(durability);
        if let Some(owner) = ACTING.get() {
            let security = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            pg_sys::SetUserIdAndSecContext(owner, security);
        }
        before();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let value = f()?;
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        Ok(value)
    });
    // If the transaction has failed, its abort puts the settings back.
    LEVEL.set(None);
    DURABILITY.set(Durability::Deferred);
    // SAFETY: the abort recovers from whatever state an error has left, with the identity that the transaction began with; after a
    // commit it is still the one from above. Outside of a transaction, as here, it is the session's. Statistics can be sent then.
    unsafe {
        if result.is_err() {
            planner::reset();
            pg_sys::AbortOutOfAnyTransaction();
        }
        lock::take_back();
        if ACTING.get().is_some() {
            pg_sys::SetUserIdAndSecContext(session.0, session.1);
        }
        pg_sys::pgstat_report_stat(false);
    }
    result
}

/// Replaces the transaction's snapshot, which holds the horizon back, by a new one: statements that follow see what has been committed
/// since. Within [`run`] or [`run_after`], between statements.
pub fn renew_snapshot() {
    // SAFETY: the snapshot on top is the transaction's, as nothing else is pushed between statements: another one replaces it.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::InvalidateCatalogSnapshot();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}
