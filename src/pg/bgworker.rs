//! Describes background workers to PostgreSQL.

use std::ffi::c_char;

use pgrx::pg_sys::{self, Oid};

/// Where and as whom a worker is to start; travels in `bgw_extra`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The database.
    pub database: Oid,
    /// The role to connect as; see `role::login_of`.
    pub login: Oid,
    /// The role that the batches run as.
    pub owner: Oid,
}

/// Jobs that a worker is told to leave alone, at most: what `bgw_extra` has room for.
pub const MOST_LEFT_ALONE: usize = 14;

/// A worker that runs one job and is never restarted by itself. `alone`: jobs that it is not to hand over to, as their
/// workers could not record their end.
pub fn job_worker(job: i64, start: Start, alone: &[i64]) -> Box<pg_sys::BackgroundWorker> {
    let name = format!("backfill job {job}");
    let mut worker = describe(&name, "backfill worker", c"backfill_worker_main".to_bytes());
    worker.bgw_main_arg = pg_sys::Datum::from(job);
    put(&mut worker.bgw_extra, start, alone);
    worker
}

/// A worker that looks at text of the owner's for somebody else, answers, and ends. What is to be looked at goes
/// into `bgw_main_arg`, see `channel`.
pub fn checker(start: Start) -> Box<pg_sys::BackgroundWorker> {
    let main = c"backfill_checker_main".to_bytes();
    let mut worker = describe("backfill checker", "backfill checker", main);
    put(&mut worker.bgw_extra, start, &[]);
    worker
}

/// A worker that looks through one database for jobs to be taken up, and ends.
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

/// The process that starts sweepers; needs `shared_preload_libraries`. Comes back after an error.
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

/// Registers a worker at once, from within a worker; false if no slot is free.
pub fn register_now(mut worker: Box<pg_sys::BackgroundWorker>) -> bool {
    // SAFETY: the description is complete, and is copied. No handle is asked for.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, std::ptr::null_mut()) }
}

/// A worker that was registered, and how it goes on.
#[derive(Debug)]
pub struct Registered(*mut pg_sys::BackgroundWorkerHandle);

/// Registers a worker; nothing if no slot is free.
pub fn register(mut worker: Box<pg_sys::BackgroundWorker>) -> Option<Registered> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the description is complete and lives until it has been copied. The handle is allocated in the context that is
    // current, which between transactions is TopMemoryContext, and is freed by `drop`.
    let registered = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, &mut handle) };
    registered.then_some(Registered(handle))
}

impl Registered {
    /// Whether it has ended, or will never start.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: a handle that PostgreSQL gave, not freed yet.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }

    /// Ends it, as pg_terminate_backend does.
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

/// What was put into the worker that this process is; nothing in a process that is none.
fn extra() -> [c_char; 128] {
    // SAFETY: null, or set by the postmaster before the process's main function is called, and not changed since.
    let entry = unsafe { pg_sys::MyBgworkerEntry.as_ref() };
    entry.map_or([0; 128], |entry| entry.bgw_extra)
}

/// What [`job_worker`] or [`checker`] put into the worker that this process is.
pub fn my_start() -> Start {
    let extra = extra();
    let oid = |i: usize| {
        let bytes: [u8; 4] = std::array::from_fn(|n| extra[i * 4 + n] as u8);
        Oid::from(u32::from_ne_bytes(bytes))
    };
    Start {
        database: oid(0),
        login: oid(1),
        owner: oid(2),
    }
}

/// The jobs that [`job_worker`] was told to leave alone.
pub fn left_alone() -> Vec<i64> {
    let extra = extra();
    let number = |at: usize| i64::from_ne_bytes(std::array::from_fn(|n| extra[at + n] as u8));
    (0..MOST_LEFT_ALONE)
        .map(|i| number(16 + i * 8))
        .filter(|job| *job != 0)
        .collect()
}

fn put(extra: &mut [c_char; 128], start: Start, alone: &[i64]) {
    let oids = [start.database, start.login, start.owner];
    let mut bytes: Vec<u8> = oids
        .iter()
        .flat_map(|oid| oid.to_u32().to_ne_bytes())
        .collect();
    bytes.resize(16, 0);
    let alone = alone.iter().take(MOST_LEFT_ALONE);
    bytes.extend(alone.flat_map(|job| job.to_ne_bytes()));
    for (to, from) in extra.iter_mut().zip(bytes) {
        *to = from as c_char;
    }
}

/// How long a connection may wait for the lock of its database, which CREATE, ALTER and DROP DATABASE hold.
const CONNECT_WITHIN: &std::ffi::CStr = c"10s";

/// Bounds what waits for locks from now on, also before there is a session.
fn limit_connect() {
    // SAFETY: a setting that any user may set, with a value that it can have. PostgreSQL reads it from a variable of its
    // own where it waits. What the process sets later replaces it.
    unsafe {
        pg_sys::SetConfigOption(
            c"lock_timeout".as_ptr(),
            CONNECT_WITHIN.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// Connects this process to a database as a role; an end of the process if that cannot be, or takes too long.
pub fn connect(database: Oid, login: Oid) {
    limit_connect();
    // SAFETY: called once, at the beginning of a background worker's main function. Any OIDs will do: those of
    // no database or role end the process.
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

/// Whether a worker can connect as a role without LOGIN: from PostgreSQL 17 on.
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
