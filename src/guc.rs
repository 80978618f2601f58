//! The extension's settings. Each one documents the reason for its default.

pub mod throttles;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// `backfill.enabled`: the kill switch.
///
/// Default on. Reloadable (`SIGHUP`) rather than per session: it has to reach workers that are already running, and
/// only someone who may reload the server may turn it off.
pub static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// `backfill.max_workers`: number of workers that may run at once in the whole server.
///
/// Default 4: `max_worker_processes` is 8 by default and is shared with parallel query and logical replication; half of
/// it leaves room for them, and for a successor that is registered while its predecessor is still ending. Reloadable.
pub static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);

/// `backfill.max_workers_per_role`: number of these slots that the jobs of one role may hold at once.
///
/// Default -1, all but one of `backfill.max_workers`, at least one: a role with many jobs, which may wait for ever,
/// leaves a slot to others, and has nearly the whole server where nobody else wants it. 0: no limit. Superusers are
/// exempt, since they could change the setting. Reloadable.
pub static MAX_WORKERS_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// `backfill.launcher_interval`: seconds between two sweeps of the launcher over all databases.
///
/// Default 60: a server start, a crash and a promotion lead to a sweep at once, and a job that waits for a slot is
/// normally taken up by the next worker that ends. Periodic sweeps only catch what those miss (a worker that was
/// terminated, a slot freed in another database), and each costs a connection per database. 0 turns periodic sweeps
/// off. Needs `shared_preload_libraries`.
pub static LAUNCHER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);

/// `backfill.log_heartbeat_interval`: seconds between two lines in the server log that report a job's progress.
///
/// Default 300: twelve lines an hour per job, which nobody minds, and often enough to tell afterwards when a job slowed
/// down overnight. 0 turns the lines off. Reloadable.
pub static LOG_HEARTBEAT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);

/// `backfill.require_dry_run`: a backfill can be started only if a dry run of it completed within this many seconds.
///
/// Default 0, no dry run is required: a team that wants one requires it for the server. Superusers may set it for a
/// session, for the one job that cannot wait.
pub static REQUIRE_DRY_RUN: GucSetting<i32> = GucSetting::<i32>::new(0);

/// `backfill.require_approval`: whether a job that was started waits until another person approves it.
///
/// Default off: it is a house rule, like `require_dry_run`. Superusers may turn it off for a session.
pub static REQUIRE_APPROVAL: GucSetting<bool> = GucSetting::<bool>::new(false);

/// `backfill.allow_superuser_jobs`: whether a superuser may define a job on a table whose owner is not a superuser.
///
/// Default off: such a job runs the triggers, constraints and index expressions of the table's owner as a superuser,
/// which few expect of a call that only names a table. SET ROLE to the table's owner costs one line. Superusers may set
/// it for a session.
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
