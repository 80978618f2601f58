//! The extension's settings. Each says why its default is what it is.

pub mod throttles;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// `backfill.enabled`: the kill switch.
///
/// Default on. Reloadable (`SIGHUP`) rather than per session: it must reach workers that are
/// already running, and only someone who may reload the server may throw it.
pub static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// `backfill.max_workers`: how many job workers may run at once in the whole server.
///
/// Default 4: `max_worker_processes` is 8 by default and is shared with parallel query and
/// logical replication; half of it leaves room for them, and for a successor to be registered
/// while its predecessor is still ending. Reloadable.
pub static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);

/// `backfill.launcher_interval`: seconds between two sweeps of the launcher over all databases.
///
/// Default 60: start, crash and promotion are swept at once, and a job that waits for a slot is
/// normally taken up by the next worker that ends; the sweep only catches what those miss (a
/// worker that was terminated, a slot freed in another database), and each costs a connection
/// per database. 0 turns periodic sweeps off. Needs `shared_preload_libraries`.
pub static LAUNCHER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// `backfill.log_heartbeat_interval`: seconds between two lines in the server log that say how far a
/// job is.
///
/// Default 300: twelve lines an hour and job, which nobody minds, and often enough to tell afterwards
/// when a job of a night slowed down. 0 turns them off. Reloadable.
pub static LOG_HEARTBEAT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);

/// Declares the settings; called once when the library is loaded.
pub fn register() {
    GucRegistry::define_bool_guc(
        c"backfill.enabled",
        c"Lets backfill jobs run.",
        c"Off: every worker stops after the batch it is in and no worker starts. The kill switch.",
        &ENABLED,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"backfill.max_workers",
        c"Maximum number of backfill workers in the whole server.",
        c"Jobs beyond it wait and are taken up when a worker ends. Counts against max_worker_processes.",
        &MAX_WORKERS,
        1,
        262_143,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"backfill.launcher_interval",
        c"Time between two sweeps of the launcher for jobs without a worker.",
        c"0 sweeps only at server start, promotion and reload. Works only with shared_preload_libraries.",
        &LAUNCHER_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"backfill.log_heartbeat_interval",
        c"Time between two lines in the server log that say how far a job is.",
        c"0 writes none. One worker of the job writes it, between two batches.",
        &LOG_HEARTBEAT_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    throttles::register();
}
