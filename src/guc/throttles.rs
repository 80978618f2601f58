//! Defaults of the options that make a job wait, for jobs that do not give them.
//!
//! All are reloadable (`SIGHUP`), and in force with the next batch of jobs that run. -1, off, or an
//! empty text: no bound. Only the lag has one that is on: with asynchronous commit nothing else slows
//! a job down for a standby, or for a slot that keeps WAL on the disk. The others depend on what
//! else the server has to do.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// An integer; -1: no bound.
pub type Number = GucSetting<i32>;
/// A text; empty: no bound.
pub type Text = GucSetting<Option<CString>>;

/// `backfill.max_lag_bytes`, in kB.
///
/// Default 256 MB: sixteen segments, which a standby gets over in seconds, and far less than the
/// WAL that is usually kept for one (`max_slot_wal_keep_size`, `wal_keep_size`).
pub static MAX_LAG_BYTES: Number = Number::new(256 * 1024);
/// `backfill.max_lag`, in milliseconds.
pub static MAX_LAG: Number = Number::new(-1);
/// `backfill.lag_include`.
pub static LAG_INCLUDE: Text = Text::new(Some(c""));
/// `backfill.lag_exclude`.
pub static LAG_EXCLUDE: Text = Text::new(Some(c""));
/// `backfill.max_wal_rate`, in kB per second.
pub static MAX_WAL_RATE: Number = Number::new(-1);
/// `backfill.max_archive_backlog`, in segments.
pub static MAX_ARCHIVE_BACKLOG: Number = Number::new(-1);
/// `backfill.max_lock_waiters`.
pub static MAX_LOCK_WAITERS: Number = Number::new(-1);
/// `backfill.max_active_backends`.
pub static MAX_ACTIVE_BACKENDS: Number = Number::new(-1);
/// `backfill.yield_to_autovacuum`.
pub static YIELD_TO_AUTOVACUUM: GucSetting<bool> = GucSetting::<bool>::new(false);
/// `backfill.max_dead_tuples`.
pub static MAX_DEAD_TUPLES: Number = Number::new(-1);
/// `backfill.max_growth`, in per cent.
pub static MAX_GROWTH: Number = Number::new(-1);
/// `backfill.max_rows_per_second`.
pub static MAX_ROWS_PER_SECOND: Number = Number::new(-1);
/// `backfill.throttle_query`.
pub static THROTTLE_QUERY: Text = Text::new(Some(c""));
/// `backfill.run_window`.
pub static RUN_WINDOW: Text = Text::new(Some(c""));

/// What SHOW and pg_settings say of each.
struct Words(
    &'static std::ffi::CStr,
    &'static std::ffi::CStr,
    &'static std::ffi::CStr,
);

/// Declares them; called once when the library is loaded.
pub fn register() {
    let plain = GucFlags::default();
    for (Words(name, short, long), setting, flags) in [
        (
            Words(
                c"backfill.max_lag_bytes",
                c"WAL that the furthest-behind standby or replication slot may lag before jobs wait.",
                c"-1: no bound. Default of the option \"max_lag_bytes\".",
            ),
            &MAX_LAG_BYTES,
            GucFlags::UNIT_KB,
        ),
        (
            Words(
                c"backfill.max_lag",
                c"Time that the furthest-behind standby or replication slot may lag before jobs wait.",
                c"-1: no bound. Default of the option \"max_lag\".",
            ),
            &MAX_LAG,
            GucFlags::UNIT_MS,
        ),
        (
            Words(
                c"backfill.max_wal_rate",
                c"WAL that a job may write in a second.",
                c"-1: no bound. Default of the option \"max_wal_rate\".",
            ),
            &MAX_WAL_RATE,
            GucFlags::UNIT_KB,
        ),
        (
            Words(
                c"backfill.max_archive_backlog",
                c"Segments of WAL that may wait to be archived before jobs wait.",
                c"-1: no bound. Default of the option \"max_archive_backlog\".",
            ),
            &MAX_ARCHIVE_BACKLOG,
            plain,
        ),
        (
            Words(
                c"backfill.max_lock_waiters",
                c"Backends that may wait for a batch before its job pauses.",
                c"-1: no bound. Default of the option \"max_lock_waiters\".",
            ),
            &MAX_LOCK_WAITERS,
            plain,
        ),
        (
            Words(
                c"backfill.max_active_backends",
                c"Clients' backends that may be at work before jobs wait.",
                c"-1: no bound. Default of the option \"max_active_backends\".",
            ),
            &MAX_ACTIVE_BACKENDS,
            plain,
        ),
        (
            Words(
                c"backfill.max_dead_tuples",
                c"Dead tuples that a table may have before its job waits for VACUUM.",
                c"-1: no bound. Default of the option \"max_dead_tuples\".",
            ),
            &MAX_DEAD_TUPLES,
            plain,
        ),
        (
            Words(
                c"backfill.max_growth",
                c"Per cent that a table may grow before its job waits for VACUUM.",
                c"-1: no bound. Default of the option \"max_growth\".",
            ),
            &MAX_GROWTH,
            plain,
        ),
        (
            Words(
                c"backfill.max_rows_per_second",
                c"Rows that a job may update in a second.",
                c"-1: no bound. Default of the option \"max_rows_per_second\".",
            ),
            &MAX_ROWS_PER_SECOND,
            plain,
        ),
    ] {
        let context = GucContext::Sighup;
        GucRegistry::define_int_guc(name, short, long, setting, -1, i32::MAX, context, flags);
    }
    for (Words(name, short, long), setting) in [
        (
            Words(
                c"backfill.lag_include",
                c"Names of the standbys and slots whose lag counts, separated by commas.",
                c"Empty: all. Default of the option \"lag_include\".",
            ),
            &LAG_INCLUDE,
        ),
        (
            Words(
                c"backfill.lag_exclude",
                c"Names of the standbys and slots whose lag does not count, separated by commas.",
                c"Default of the option \"lag_exclude\".",
            ),
            &LAG_EXCLUDE,
        ),
        (
            Words(
                c"backfill.throttle_query",
                c"Query that gives true while jobs are to wait; runs with the rights of each job's owner.",
                c"Empty: none. Default of the option \"throttle_query\".",
            ),
            &THROTTLE_QUERY,
        ),
        (
            Words(
                c"backfill.run_window",
                c"Hours that jobs may run in, such as 22:00-06:00 Europe/Berlin, or Mon-Fri 22:00-06:00, Sat-Sun.",
                c"Empty: all day. Default of the option \"run_window\".",
            ),
            &RUN_WINDOW,
        ),
    ] {
        GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, plain);
    }
    GucRegistry::define_bool_guc(
        c"backfill.yield_to_autovacuum",
        c"Lets jobs wait while VACUUM works on their table, or has to for wraparound.",
        c"Default of the option \"yield_to_autovacuum\".",
        &YIELD_TO_AUTOVACUUM,
        GucContext::Sighup,
        plain,
    );
}
