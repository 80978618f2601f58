//! Actions to be performed when the surrounding transaction commits, and only then: starting a worker, waking one, interrupting its
//! batch, sending notifications.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{latch, notify, report, server};
use crate::error::{Error, sqlstate};
use crate::guc;

/// An action to be performed at commit. Everything in it is prepared beforehand: a commit callback must not fail.
pub enum Action {
    /// Registers a background worker for the job.
    Register(i64, Box<pg_sys::BackgroundWorker>),
    /// Sets the latch of the process.
    Wake(i32),
    /// Cancels the process's current statement, if the process is still a session of this database and of that role.
    Interrupt(i32, pg_sys::Oid),
    /// Sends a notification: channel and payload. This happens just before the commit, as it may fail.
    Notify(&'static CStr, CString),
    /// Writes a line to the server log.
    Log(String),
}

thread_local! {
    static PENDING: RefCell<Vec<(pg_sys::SubTransactionId, Action)>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    /// Whether the transaction in progress must not be prepared.
    static CALLED: Cell<bool> = const { Cell::new(false) };
}

/// Makes PREPARE TRANSACTION fail from here on in this transaction. A prepared transaction would hold what a call has locked and written
/// for any length of time, without a session, and even after its role has lost its rights.
pub fn refuse_to_prepare() {
    be_told();
    CALLED.set(true);
}

/// Performs `action` once the current (sub)transaction and all around it have committed.
pub fn at_commit(action: Action) {
    server::require_transaction();
    be_told();
    // SAFETY: within a transaction there is a current (sub)transaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    PENDING.with_borrow_mut(|pending| pending.push((subtransaction, action)));
}

fn be_told() {
    if !REGISTERED.replace(true) {
        // SAFETY: the callbacks are functions of this library, which is never unloaded, and are registered once.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_end), null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), null_mut());
        }
    }
}

// From the C library.
unsafe extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
}

const SIGINT: c_int = 2;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => notify_all(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            CALLED.set(false);
            perform_all(PENDING.take());
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            CALLED.set(false);
            PENDING.take();
        }
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE if CALLED.get() => {
            report::unwrap::<()>(Err(refuse_prepare()))
        }
        _ => {}
    }
}

/// Sends the pending notifications, while the commit may still fail.
fn notify_all() {
    let mut payloads: Vec<(&CStr, CString)> = Vec::new();
    PENDING.with_borrow(|pending| {
        for (_, action) in pending {
            if let Action::Notify(channel, payload) = action {
                payloads.push((channel, payload.clone()));
            }
        }
    });
    for (channel, payload) in payloads {
        notify::send(channel, &payload);
    }
}

fn refuse_prepare() -> Error {
    Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has called functions of the extension \"backfill\"",
    )
    .detail("What a call has locked would be held without a session, and what it starts is started by the session that commits.")
    .hint("Call them in a transaction of its own.")
}

/// Performs the pending actions. An ERROR in here would take the server down: nothing in it may fail.
///
/// If many jobs are started at once, only as many get a worker as may run; each worker then takes up the next job.
fn perform_all(pending: Vec<(pg_sys::SubTransactionId, Action)>) {
    let mut left = guc::MAX_WORKERS.get();
    for (_, action) in pending {
        match action {
            Action::Register(job, worker) if left > 0 => {
                left = if register(job, worker) { left - 1 } else { 0 };
            }
            Action::Register(..) => {}
            Action::Wake(pid) => latch::set(pid),
            Action::Interrupt(pid, role) => interrupt(pid, role),
            Action::Notify(..) => {}
            Action::Log(line) => report::log_in_callback(&line),
        }
    }
}

/// Minimum interval between two log lines of a session about a missing process for a job.
const LOG_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static LAST_LOG: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn register(job: i64, mut worker: Box<pg_sys::BackgroundWorker>) -> bool {
    // SAFETY: the description is complete, and is copied into shared memory. No handle is requested, so nothing is allocated.
    let registered = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, null_mut()) };
    // Someone may be trying in a loop.
    let quiet = LAST_LOG
        .get()
        .is_some_and(|at: Instant| at.elapsed() < LOG_EVERY);
    if !registered && !quiet {
        LAST_LOG.set(Some(Instant::now()));
        report::log_in_callback(&format!(
            "no background worker slot is free for backfill job {job}: it is taken up when a backfill worker ends"
        ));
    }
    registered
}

fn interrupt(pid: i32, role: pg_sys::Oid) {
    // SAFETY: the fields of an entry can be read without a lock, as one word each. The signal goes to a process of this server's, or
    // to none if it has ended since, as with pg_cancel_backend.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        let same = !process.is_null()
            && (*process).databaseId == pg_sys::MyDatabaseId
            && (*process).roleId == role;
        if same {
            kill(pid, SIGINT);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    this: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    PENDING.with_borrow_mut(|pending| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            pending
                .iter_mut()
                .filter(|(id, _)| *id == this)
                .for_each(|(id, _)| *id = parent);
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => pending.retain(|(id, _)| *id != this),
        _ => {}
    });
}
