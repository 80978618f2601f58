//! The table of signals that make a job wait. The options, the settings with their defaults, and the loop that looks at
//! the signals are all derived from it. The probe of each signal is in `worker::throttle::probes`.

use std::ffi::CStr;

use crate::throttle::kind::{Kind, MANY, Value};

/// The signals that a job gives way to. Of several that begin at the same time, the first in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The server's default for transactions is read-only.
    ReadOnly,
    /// The hours in which the job may run.
    RunWindow,
    /// Bytes by which a standby or slot is behind.
    LagBytes,
    /// Time by which a standby or slot is behind.
    Lag,
    /// Names of the standbys and slots whose lag counts; none: all. Not a signal by itself.
    LagInclude,
    /// Names of the standbys and slots whose lag does not count. Not a signal by itself.
    LagExclude,
    /// WAL waiting to be archived.
    ArchiveBacklog,
    /// Clients that are active.
    ActiveBackends,
    /// A VACUUM of the table is running.
    Autovacuum,
    /// Dead tuples of the table.
    DeadTuples,
    /// Growth of the table.
    Growth,
    /// The result of the owner's query.
    Query,
    /// Backends that have waited for a batch.
    LockWaiters,
    /// WAL that the job writes.
    WalRate,
    /// Rows that the job updates.
    RowRate,
    /// A batch has failed and is tried again: not a bound, but counted as time spent waiting.
    Retry,
    /// Transactions of others that keep the rows which a pass over a region has left dead from being removed.
    Horizon,
}

/// An entry of the table: everything that differs between signals, except for how each is read.
#[derive(Debug)]
pub struct Entry {
    /// The signal.
    pub signal: Signal,
    /// The name that the views show, and that of the option that bounds the signal.
    pub name: &'static str,
    /// The way in which the signal makes a job wait.
    pub waits: Waits,
    /// The option and the setting that bound the signal; `None`: users cannot choose a bound.
    pub bound: Option<Bound>,
}

/// The way in which a signal makes a job wait. The views show the text, with `{found}`, `{bound}` and `{who}` filled
/// in.
#[derive(Debug, Clone, Copy)]
pub enum Waits {
    /// The job waits while the amount found by the probe is over the bound, and goes on when it is down to this
    /// fraction of the bound (0.8 is 80 %).
    Over(f64, &'static str),
    /// The job waits while the probe says so; the probe also gives the reason.
    Told,
    /// The job pauses after each batch for as long as the rate per second asks for. It waits while the rate is 0.
    Rate(&'static str),
    /// The job pauses after a batch whose probe found more than the bound.
    Batch(&'static str),
    /// The wait happens elsewhere in the worker, or the entry only adds to another one.
    Elsewhere,
}

/// The option that bounds a signal, and the setting that is its default.
#[derive(Debug)]
pub struct Bound {
    /// Kind of the value, with the setting's default and the option's limits.
    pub kind: Kind,
    /// Whether `backfill.alter` may change the option while a job runs.
    pub alterable: bool,
    /// Name of the setting: `backfill.` and the name of the option.
    pub setting: &'static CStr,
    /// The short description in pg_settings.
    pub about: &'static CStr,
    /// The long description in pg_settings.
    pub more: &'static CStr,
}

/// Fraction of its bound that a signal has to come down to. Without it, a job would start and stop with every batch.
const RELEASE: f64 = 0.8;

/// All signals; those with options in the order in which the options are named to people.
pub const SIGNALS: &[Entry] = &[
    Entry {
        signal: Signal::LagBytes,
        name: "max_lag_bytes",
        waits: Waits::Over(RELEASE, "{who} lags {found} of {bound}"),
        bound: Some(Bound {
            // 256 MB: sixteen segments, which a standby catches up with in seconds, and far less than the WAL usually
            // kept for one (`max_slot_wal_keep_size`, `wal_keep_size`). It is the only bound that is on by default:
            // with asynchronous commit nothing else slows a job down for a standby, or for a slot that keeps WAL on the
            // disk. The right value of the others depends on what else the server has to do.
            kind: Kind::Bytes(256 * 1024),
            alterable: true,
            setting: c"backfill.max_lag_bytes",
            about: c"WAL that the furthest-behind standby or replication slot may lag before jobs wait.",
            more: c"-1: no bound. Default of the option \"max_lag_bytes\".",
        }),
    },
    Entry {
        signal: Signal::Lag,
        name: "max_lag",
        waits: Waits::Over(RELEASE, "{who} lags {found} of {bound}"),
        bound: Some(Bound {
            kind: Kind::Span(-1),
            alterable: true,
            setting: c"backfill.max_lag",
            about: c"Time that the furthest-behind standby or replication slot may lag before jobs wait.",
            more: c"-1: no bound. Default of the option \"max_lag\".",
        }),
    },
    Entry {
        signal: Signal::LagInclude,
        name: "lag_include",
        waits: Waits::Elsewhere,
        bound: Some(Bound {
            kind: Kind::Names,
            alterable: true,
            setting: c"backfill.lag_include",
            about: c"Names of the standbys and slots whose lag counts, separated by commas.",
            more: c"Empty: all. Default of the option \"lag_include\".",
        }),
    },
    Entry {
        signal: Signal::LagExclude,
        name: "lag_exclude",
        waits: Waits::Elsewhere,
        bound: Some(Bound {
            kind: Kind::Names,
            alterable: true,
            setting: c"backfill.lag_exclude",
            about: c"Names of the standbys and slots whose lag does not count, separated by commas.",
            more: c"Default of the option \"lag_exclude\".",
        }),
    },
    Entry {
        signal: Signal::WalRate,
        name: "max_wal_rate",
        waits: Waits::Rate("{bound} of WAL a second"),
        bound: Some(Bound {
            kind: Kind::Bytes(-1),
            alterable: true,
            setting: c"backfill.max_wal_rate",
            about: c"WAL that a job may write in a second.",
            more: c"-1: no bound. Default of the option \"max_wal_rate\".",
        }),
    },
    Entry {
        signal: Signal::ArchiveBacklog,
        name: "max_archive_backlog",
        waits: Waits::Over(
            RELEASE,
            "{found} of {bound} segments of WAL wait to be archived",
        ),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: MANY,
                purpose: "It is how many segments of WAL may wait to be archived; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_archive_backlog",
            about: c"Segments of WAL that may wait to be archived before jobs wait.",
            more: c"-1: no bound. Default of the option \"max_archive_backlog\".",
        }),
    },
    Entry {
        signal: Signal::LockWaiters,
        name: "max_lock_waiters",
        waits: Waits::Batch("{found} backends waited for a batch, {bound} may"),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: MANY,
                purpose: "It is how many backends may wait for a batch; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_lock_waiters",
            about: c"Backends that may wait for a batch before its job pauses.",
            more: c"-1: no bound. Default of the option \"max_lock_waiters\".",
        }),
    },
    Entry {
        signal: Signal::ActiveBackends,
        name: "max_active_backends",
        waits: Waits::Over(RELEASE, "{found} of {bound} clients are at work"),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: MANY,
                purpose: "It is how many clients may be at work; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_active_backends",
            about: c"Clients' backends that may be at work before jobs wait.",
            more: c"-1: no bound. Default of the option \"max_active_backends\".",
        }),
    },
    Entry {
        signal: Signal::Autovacuum,
        name: "yield_to_autovacuum",
        waits: Waits::Told,
        bound: Some(Bound {
            kind: Kind::Flag,
            alterable: true,
            setting: c"backfill.yield_to_autovacuum",
            about: c"Lets jobs wait while VACUUM works on their table, or has to for wraparound.",
            more: c"Default of the option \"yield_to_autovacuum\".",
        }),
    },
    Entry {
        signal: Signal::DeadTuples,
        name: "max_dead_tuples",
        waits: Waits::Over(
            RELEASE,
            "{found} of {bound} dead tuples in the table; it waits for VACUUM",
        ),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: i64::MAX,
                purpose: "It is how many dead tuples the table may have; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_dead_tuples",
            about: c"Dead tuples that a table may have before its job waits for VACUUM.",
            more: c"-1: no bound. Default of the option \"max_dead_tuples\".",
        }),
    },
    Entry {
        signal: Signal::Growth,
        name: "max_growth",
        // A VACUUM ends the wait at once, since growth counts from there.
        waits: Waits::Over(
            1.0,
            "the table has grown by {found} % of {bound} % since the job began or it was vacuumed; it waits for VACUUM",
        ),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: MANY,
                purpose: "It is by how many per cent the table may grow without a VACUUM; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_growth",
            about: c"Per cent that a table may grow before its job waits for VACUUM.",
            more: c"-1: no bound. Default of the option \"max_growth\".",
        }),
    },
    Entry {
        signal: Signal::RowRate,
        name: "max_rows_per_second",
        waits: Waits::Rate("{bound} rows a second"),
        bound: Some(Bound {
            kind: Kind::Number {
                default: -1,
                most: i64::MAX,
                purpose: "It is how many rows the job may update in a second; -1 is no bound.",
            },
            alterable: true,
            setting: c"backfill.max_rows_per_second",
            about: c"Rows that a job may update in a second.",
            more: c"-1: no bound. Default of the option \"max_rows_per_second\".",
        }),
    },
    Entry {
        signal: Signal::Query,
        name: "throttle_query",
        waits: Waits::Told,
        bound: Some(Bound {
            kind: Kind::Text("a string: a query that gives true while the job is to wait"),
            alterable: true,
            setting: c"backfill.throttle_query",
            about: c"Query that gives true while jobs are to wait; runs with the rights of each job's owner.",
            more: c"Empty: none. Default of the option \"throttle_query\".",
        }),
    },
    Entry {
        signal: Signal::RunWindow,
        name: "run_window",
        waits: Waits::Told,
        bound: Some(Bound {
            kind: Kind::Window,
            alterable: true,
            setting: c"backfill.run_window",
            about: c"Hours that jobs may run in, such as 22:00-06:00 Europe/Berlin, or Mon-Fri 22:00-06:00, Sat-Sun.",
            more: c"Empty: all day. Default of the option \"run_window\".",
        }),
    },
    // The server's setting is looked at, whatever the options are.
    plain(
        Signal::ReadOnly,
        "default_transaction_read_only",
        Waits::Told,
    ),
    plain(Signal::Retry, "retry", Waits::Elsewhere),
    plain(Signal::Horizon, "horizon", Waits::Elsewhere),
];

const fn plain(signal: Signal, name: &'static str, waits: Waits) -> Entry {
    Entry {
        signal,
        name,
        waits,
        bound: None,
    }
}

impl Signal {
    /// Returns the signal's entry in the table.
    pub fn entry(self) -> &'static Entry {
        let own = |entry: &&Entry| entry.signal == self;
        SIGNALS.iter().find(own).expect("an entry for each signal")
    }

    /// Returns the signal's name, as the views show it.
    pub fn name(self) -> &'static str {
        self.entry().name
    }
}

impl Entry {
    /// Returns the reason why the job waits: `found`, in the unit of [`Kind::shown`], measured on `who`, and the
    /// `bound` in force. Empty where the probe gives the reason itself.
    pub fn reason(&self, found: f64, bound: &Value, who: &str) -> String {
        let text = match self.waits {
            Waits::Over(_, text) | Waits::Rate(text) | Waits::Batch(text) => text,
            Waits::Told | Waits::Elsewhere => return String::new(),
        };
        let shown = |bound: &Bound| bound.kind.shown(found);
        let found = self.bound.as_ref().map(shown).unwrap_or_default();
        // A name may contain anything, so it is filled in last.
        text.replace("{found}", &found)
            .replace("{bound}", &bound.shown())
            .replace("{who}", who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::quantity::Bytes;

    #[test]
    fn each_signal_has_one_entry() {
        let mut found: Vec<usize> = SIGNALS.iter().map(|entry| entry.signal as usize).collect();
        found.sort_unstable();
        let all: Vec<usize> = (0..=Signal::Horizon as usize).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn settings_and_options_are_named_alike() {
        for entry in SIGNALS {
            let Some(bound) = &entry.bound else { continue };
            let name = bound.setting.to_str().unwrap();
            assert_eq!(name, format!("backfill.{}", entry.name));
            let more = bound.more.to_str().unwrap();
            let told = format!("Default of the option \"{}\".", entry.name);
            assert!(more.ends_with(&told), "{more}");
        }
    }

    #[test]
    fn reasons_hold_what_was_found_and_what_may_be() {
        let bound = Value::Bytes(Bytes(Some(256 << 20)));
        let text = Signal::LagBytes
            .entry()
            .reason(536_870_912.0, &bound, "standby {bound}");
        assert_eq!(text, "standby {bound} lags 512 MB of 256 MB");
        let rate = Value::Number(i64::MAX);
        let text = Signal::RowRate.entry().reason(0.0, &rate, "");
        assert_eq!(text, "9223372036854775807 rows a second");
    }
}
