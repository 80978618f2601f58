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

/// `backfill.max_workers_per_role`: how many of these slots the jobs of one role may hold at once.
///
/// Default -1, all but one of `backfill.max_workers`, at least one: a role that has started many jobs, which may wait for
/// ever, leaves a slot to others, and has nearly all of the server where nobody else wants it. 0: no limit. Superusers are exempt:
/// they could change it. Reloadable.
pub static MAX_WORKERS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(-1);

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

/// `backfill.require_dry_run`: seconds that a completed dry run may be old for its backfill to be started.
///
/// Default 0, none is required: a team that wants it says so for the server. Superusers may set it
/// for a session, for the one job that can't wait.
pub static REQUIRE_DRY_RUN: GucSetting<i32> = GucSetting::<i32>::new(0);

/// `backfill.require_approval`: whether a job that was started waits until another person approves it.
///
/// Default off: a house rule, as a dry run is. Superusers may turn it off for a session.
pub static REQUIRE_APPROVAL: GucSetting<bool> = GucSetting::<bool>::new(false);

/// `backfill.allow_superuser_jobs`: whether a superuser may define a job on a table of a role that is none.
///
/// Default off: such a job runs that role's triggers, constraints and index expressions as a superuser, which few
/// expect of a call that only names a table; SET ROLE to the table's owner costs a line. Superusers may set it for a
/// session.
pub static SUPERUSER_JOBS: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Declares the settings, but for `backfill.allow_superuser_jobs`, which has a check of its own in `pg::superuser_jobs`; called once
/// when the library is loaded.
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
        c"backfill.max_workers_per_role",
        c"Maximum number of backfill workers for the jobs of one role.",
        c"-1: all but one of backfill.max_workers, at least one. 0: no limit. Superusers are exempt. Jobs beyond it wait and are taken up when a worker of the role ends.",
        &MAX_WORKERS_PER_ROLE,
        -1,
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
    GucRegistry::define_int_guc(
        c"backfill.require_dry_run",
        c"Lets a backfill be started only if a dry run of it has completed within this time.",
        c"0 requires none. It has to be of the same owner, table, set_clause and where_clause.",
        &REQUIRE_DRY_RUN,
        0,
        31_536_000,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"backfill.require_approval",
        c"Lets a backfill that was started run only once another person has approved it.",
        c"It waits until somebody else with the rights of its owner calls backfill.approve(). Dry runs and verifications need none.",
        &REQUIRE_APPROVAL,
        GucContext::Suset,
        GucFlags::default(),
    );
    throttles::register();
}
