//! Describes background workers to PostgreSQL.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys::{self, Oid};

/// Database and roles for the start of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// OID of the database.
    pub database: Oid,
    /// The role to connect as; see `role::login_of`.
    pub login: Oid,
    /// The role that the batches run as.
    pub owner: Oid,
}

/// A job worker's task; it travels in `bgw_extra`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Id of the job.
    pub job: i64,
    /// The job's attempt at the time of registration.
    pub attempt: i32,
    /// Database and roles for the start of the worker.
    pub start: Start,
    /// Jobs that the worker must not hand over to, since their workers could not record their own end: at most [`MOST_LEFT_ALONE`].
    pub left_alone: Vec<i64>,
    /// Time of registration, in microseconds as PostgreSQL counts them.
    pub registered: i64,
    /// Position up to which WAL had been flushed at registration.
    flushed: u64,
}

impl Errand {
    /// Creates an errand that is registered now.
    pub fn new(job: i64, attempt: i32, start: Start, left_alone: &[i64]) -> Errand {
        // SAFETY: these two functions only read the clock and a position in shared memory.
        let (registered, flushed) = unsafe {
            (
                pg_sys::GetCurrentTimestamp(),
                pg_sys::GetFlushRecPtr(std::ptr::null_mut()),
            )
        };
        Errand {
            job,
            attempt,
            start,
            left_alone: left_alone.to_vec(),
            registered,
            flushed,
        }
    }

    /// Whether a checkpoint has begun since the registration. After a crash this is always true, since recovery ends with a checkpoint.
    pub fn comes_after_checkpoint(&self) -> bool {
        // SAFETY: reads a position in shared memory.
        unsafe { pg_sys::GetRedoRecPtr() >= self.flushed }
    }
}

/// Number of jobs that an errand has room to name.
pub const MOST_LEFT_ALONE: usize = 12;

/// Describes a worker that runs one job. The postmaster restarts the worker, as a new process, only if it calls [`come_back`].
pub fn job_worker(errand: &Errand) -> Box<pg_sys::BackgroundWorker> {
    let name = format!("backfill job {}", errand.job);
    let mut worker = describe(&name, "backfill worker", c"backfill_worker_main".to_bytes());
    worker.bgw_main_arg = pg_sys::Datum::from(errand.job);
    worker.bgw_restart_time = 0;
    put(&mut worker.bgw_extra, &errand.bytes());
    worker
}

/// Describes a worker that examines text of the owner's on behalf of another process, answers, and ends. The caller sets
/// `bgw_main_arg` to the question, see `channel`.
pub fn checker(start: Start) -> Box<pg_sys::BackgroundWorker> {
    let main = c"backfill_checker_main".to_bytes();
    let mut worker = describe("backfill checker", "backfill checker", main);
    put(&mut worker.bgw_extra, &start.bytes());
    worker
}

/// Describes a worker that looks through one database for jobs to be taken up, and ends.
pub fn sweeper(database: Oid, notify: i32) -> Box<pg_sys::BackgroundWorker> {
    let mut worker = describe(
        "backfill sweeper",
        "backfill sweeper",
        c"backfill_sweeper_main".to_bytes(),
    );
    worker.bgw_main_arg = pg_sys::Datum::from(database);
    worker.bgw_notify_pid = notify;
    worker
}

/// Registers the process that starts sweepers. Needs `shared_preload_libraries`. The postmaster restarts it after an error.
pub fn register_launcher() {
    let mut worker = describe(
        "backfill launcher",
        "backfill launcher",
        c"backfill_launcher_main".to_bytes(),
    );
    worker.bgw_restart_time = 10;
    // SAFETY: the description is complete, and is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut *worker) };
}

/// Registers a worker at once, from within a worker. Returns false if no slot is free.
pub fn register_now(mut worker: Box<pg_sys::BackgroundWorker>) -> bool {
    // SAFETY: the description is complete, and is copied. No handle is asked for.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, std::ptr::null_mut()) }
}

/// Handle of a registered worker, to follow or end it.
#[derive(Debug)]
pub struct Registered(*mut pg_sys::BackgroundWorkerHandle);

/// Registers a worker. Returns `None` if no slot is free.
pub fn register(mut worker: Box<pg_sys::BackgroundWorker>) -> Option<Registered> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the description is complete and lives until it has been copied. The handle is allocated in the current memory
    // context, which between transactions is TopMemoryContext, and is freed by `drop`.
    let registered = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, &mut handle) };
    registered.then(|| Registered(handle))
}

impl Registered {
    /// Whether the worker has ended, or will never start.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: a handle that PostgreSQL gave, not freed yet.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }

    /// Ends the worker, as pg_terminate_backend does.
    pub fn terminate(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::TerminateBackgroundWorker(self.0) };
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: allocated by PostgreSQL for this, and used by nobody else.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

/// Returns the errand that [`job_worker`] stored for this process.
pub fn my_errand(job: i64) -> Errand {
    let extra = my_extra();
    let int4 = |at: usize| i32::from_ne_bytes(std::array::from_fn(|n| extra[at + n] as u8));
    let int8 = |at: usize| i64::from_ne_bytes(std::array::from_fn(|n| extra[at + n] as u8));
    Errand {
        job,
        start: my_start(),
        attempt: int4(12),
        registered: int8(16),
        flushed: int8(24) as u64,
        left_alone: (0..MOST_LEFT_ALONE)
            .map(|i| int8(32 + i * 8))
            .filter(|job| *job != 0)
            .collect(),
    }
}

/// Returns where this process, a [`job_worker`] or a [`checker`], is to start, and as which role.
pub fn my_start() -> Start {
    let extra = my_extra();
    let oid = |at: usize| {
        let bytes = std::array::from_fn(|n| extra[at + n] as u8);
        Oid::from(u32::from_ne_bytes(bytes))
    };
    Start {
        database: oid(0),
        login: oid(4),
        owner: oid(8),
    }
}

/// Returns `bgw_extra` of this process's worker; all zeros in a process that is no background worker.
fn my_extra() -> [c_char; 128] {
    // SAFETY: the pointer is null in a process that is no background worker; otherwise the postmaster set it before the
    // process's main function was called. The entry is copied.
    let entry = unsafe { pg_sys::MyBgworkerEntry.as_ref() };
    entry.map_or([0; 128], |entry| entry.bgw_extra)
}

impl Start {
    fn bytes(self) -> Vec<u8> {
        [self.database, self.login, self.owner]
            .iter()
            .flat_map(|oid| oid.to_u32().to_ne_bytes())
            .collect()
    }
}

impl Errand {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.start.bytes();
        bytes.extend(self.attempt.to_ne_bytes());
        bytes.extend(self.registered.to_ne_bytes());
        bytes.extend(self.flushed.to_ne_bytes());
        let alone = self.left_alone.iter().take(MOST_LEFT_ALONE);
        bytes.extend(alone.flat_map(|job| job.to_ne_bytes()));
        bytes
    }
}

fn put(extra: &mut [c_char; 128], bytes: &[u8]) {
    for (to, from) in extra.iter_mut().zip(bytes) {
        *to = *from as c_char;
    }
}

static COMES_BACK: AtomicBool = AtomicBool::new(false);

// Functions of the C library that pgrx leaves out.
unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> c_int;
    fn _exit(code: c_int) -> !;
}

/// Makes every exit of this process final, except one by [`come_back`]. Otherwise the postmaster would restart a process that ends
/// with code 1, which a process does that was terminated or whose database was dropped. A job worker calls this first.
pub fn end_for_good() {
    // SAFETY: a function of the C library, with a callback that lives as long as the process.
    unsafe { atexit(last_of_all) };
}

extern "C" fn last_of_all() {
    // SAFETY: a variable of this process. If it is set, PostgreSQL has cleaned up after this process, as proc_exit() does
    // before it calls exit(), and nothing is left to do but to end. If it is not, somebody's code has called exit():
    // PostgreSQL's own callback comes next, and cleans up.
    unsafe {
        if pg_sys::proc_exit_inprogress && !COMES_BACK.load(Ordering::Relaxed) {
            _exit(0);
        }
    }
}

/// Ends this process and makes the postmaster start a new one in its place, with the same errand.
#[allow(
    unreachable_code,
    reason = "the bindings of some versions say that it returns"
)]
pub fn come_back() -> ! {
    COMES_BACK.store(true, Ordering::Relaxed);
    // SAFETY: ends the process, as returning from its main function does.
    unsafe { pg_sys::proc_exit(1) };
    unreachable!("proc_exit() returned")
}

/// Limit on how long connecting may wait for the lock of the database, which CREATE, ALTER and DROP DATABASE hold.
const CONNECT_WITHIN: &std::ffi::CStr = c"10s";
/// The same limit for a sweep, which other processes wait for; the next sweep tries again.
const SWEEP_CONNECTS_WITHIN: &std::ffi::CStr = c"300ms";

/// Limits all waits for locks from now on, including those before there is a session.
fn limit_connect(time: &std::ffi::CStr) {
    // SAFETY: a setting that any user may set, with a valid value. PostgreSQL reads it from a variable of its own when it
    // waits. A value that the process sets later replaces this one.
    unsafe {
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            time.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Connects this process to a database as a role. The process ends if that is impossible or takes too long.
pub fn connect(database: Oid, login: Oid) {
    connect_within(CONNECT_WITHIN, database, login);
}

/// Connects this process to a database for a sweep, as the server itself. The process ends if that is impossible or takes too long.
pub fn connect_to_sweep(database: Oid) {
    connect_within(SWEEP_CONNECTS_WITHIN, database, Oid::INVALID);
}

fn connect_within(time: &std::ffi::CStr, database: Oid, login: Oid) {
    limit_connect(time);
    // SAFETY: called once, at the beginning of a background worker's main function. Any OIDs will do: an OID of
    // no database or no role ends the process.
    unsafe {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let flags = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        let flags = 0;
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, login, flags);
    }
}

/// Connects this process to the shared catalogs only.
pub fn connect_to_no_database() {
    // SAFETY: as above; null pointers stand for no database and no role.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
}

/// Whether a worker can connect as a role without LOGIN: true from PostgreSQL 17 on.
pub const CONNECTS_WITHOUT_LOGIN: bool = cfg!(any(feature = "pg17", feature = "pg18"));

fn describe(name: &str, kind: &str, function: &[u8]) -> Box<pg_sys::BackgroundWorker> {
    let mut worker = Box::new(pg_sys::BackgroundWorker::default());
    copy(&mut worker.bgw_name, name.as_bytes());
    copy(&mut worker.bgw_type, kind.as_bytes());
    copy(&mut worker.bgw_library_name, b"backfill");
    copy(&mut worker.bgw_function_name, function);
    worker.bgw_flags =
        (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    worker
}

fn copy(to: &mut [c_char], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as c_char;
    }
}
