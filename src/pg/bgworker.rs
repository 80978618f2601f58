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

/// A worker that runs one job and is never restarted by itself.
pub fn job_worker(job: i64, start: Start) -> Box<pg_sys::BackgroundWorker> {
    let name = format!("backfill job {job}");
    let mut worker = describe(&name, "backfill worker", c"backfill_worker_main".to_bytes());
    worker.bgw_main_arg = pg_sys::Datum::from(job);
    put(&mut worker.bgw_extra, start);
    worker
}

/// A worker that looks at text of the owner's for somebody else, answers, and ends. What is to be looked at goes
/// into `bgw_main_arg`, see `channel`.
pub fn checker(start: Start) -> Box<pg_sys::BackgroundWorker> {
    let main = c"backfill_checker_main".to_bytes();
    let mut worker = describe("backfill checker", "backfill checker", main);
    put(&mut worker.bgw_extra, start);
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
    unsafe { pg_sys::RegisterBackgroundWorker(&mut *worker) };
}

/// Registers a worker at once, from within a worker; false if no slot is free.
pub fn register_now(mut worker: Box<pg_sys::BackgroundWorker>) -> bool {
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, std::ptr::null_mut()) }
}

/// Registers a worker and waits for its end; false if no slot is free.
pub fn run_to_end(mut worker: Box<pg_sys::BackgroundWorker>) -> bool {
    unsafe {
        let mut handle = std::ptr::null_mut();
        if !pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, &mut handle) {
            return false;
        }
        pg_sys::WaitForBackgroundWorkerShutdown(handle);
        pg_sys::pfree(handle.cast());
        true
    }
}

/// What [`job_worker`] or [`checker`] put into the worker that this process is.
pub fn my_start() -> Start {
    let extra = unsafe { (*pg_sys::MyBgworkerEntry).bgw_extra };
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

fn put(extra: &mut [c_char; 128], start: Start) {
    let oids = [start.database, start.login, start.owner];
    for (i, byte) in oids
        .iter()
        .flat_map(|oid| oid.to_u32().to_ne_bytes())
        .enumerate()
    {
        extra[i] = byte as c_char;
    }
}

/// Connects this process to a database as a role; FATAL if that cannot be.
pub fn connect(database: Oid, login: Oid) {
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
