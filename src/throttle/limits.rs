//! The bounds that make a job wait: keys of `options`, each with a server-wide default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::throttle::quantity::{Bytes, Span};
use crate::throttle::signal::Signal;
use crate::throttle::window::{Hours, RunWindow};

/// Bounds as they are given. A field that is `None` was not given; -1, false, or an empty text or
/// list mean that there is no bound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttles {
    /// Bytes of WAL that the furthest-behind standby or replication slot may lag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag_bytes: Option<Bytes>,
    /// How long the WAL that it lacks may have been written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<Span>,
    /// Names of the standbys and slots that count; empty: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_include: Option<Vec<String>>,
    /// Names of those that do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_exclude: Option<Vec<String>>,
    /// Bytes of WAL that the job may write in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wal_rate: Option<Bytes>,
    /// Segments of WAL that may wait to be archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_archive_backlog: Option<i64>,
    /// Backends that may wait for a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lock_waiters: Option<i64>,
    /// Clients' backends that may be at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_active_backends: Option<i64>,
    /// Whether to wait while VACUUM works on the table, or has to for wraparound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yield_to_autovacuum: Option<bool>,
    /// Dead tuples that the table may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dead_tuples: Option<i64>,
    /// Per cent that the table may grow without a VACUUM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_growth: Option<i64>,
    /// Rows that the job may update in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows_per_second: Option<i64>,
    /// A query of the owner's that says whether to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_query: Option<String>,
    /// The hours of the day that the job may run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_window: Option<RunWindow>,
}

impl Throttles {
    /// These, and the defaults for those that are not given.
    pub fn or(&self, defaults: &Throttles) -> Throttles {
        let (given, default) = (self.clone(), defaults.clone());
        Throttles {
            max_lag_bytes: given.max_lag_bytes.or(default.max_lag_bytes),
            max_lag: given.max_lag.or(default.max_lag),
            lag_include: given.lag_include.or(default.lag_include),
            lag_exclude: given.lag_exclude.or(default.lag_exclude),
            max_wal_rate: given.max_wal_rate.or(default.max_wal_rate),
            max_archive_backlog: given.max_archive_backlog.or(default.max_archive_backlog),
            max_lock_waiters: given.max_lock_waiters.or(default.max_lock_waiters),
            max_active_backends: given.max_active_backends.or(default.max_active_backends),
            yield_to_autovacuum: given.yield_to_autovacuum.or(default.yield_to_autovacuum),
            max_dead_tuples: given.max_dead_tuples.or(default.max_dead_tuples),
            max_growth: given.max_growth.or(default.max_growth),
            max_rows_per_second: given.max_rows_per_second.or(default.max_rows_per_second),
            throttle_query: given.throttle_query.or(default.throttle_query),
            run_window: given.run_window.or(default.run_window),
        }
    }

    /// The bound of a lag in bytes.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.max_lag_bytes?.0
    }

    /// The bound of a lag in time.
    pub fn lag(&self) -> Option<Duration> {
        self.max_lag?.duration()
    }

    /// Whether the lag of standbys and slots is to be looked at.
    pub fn watches_lag(&self) -> bool {
        self.lag_bytes().is_some() || self.lag().is_some()
    }

    /// Rates that are bounded by nothing at all: the job waits.
    pub fn at_rest(&self) -> impl Iterator<Item = Signal> {
        let rows = self.max_rows_per_second == Some(0);
        let wal = self.max_wal_rate.is_some_and(|rate| rate.0 == Some(0));
        let all = [(Signal::RowRate, rows), (Signal::WalRate, wal)];
        all.into_iter()
            .filter(|(_, is)| *is)
            .map(|(signal, _)| signal)
    }

    /// Bytes of WAL per second.
    pub fn wal_rate(&self) -> Option<u64> {
        self.max_wal_rate?.0.filter(|rate| *rate > 0)
    }

    /// Segments that wait to be archived.
    pub fn archive_backlog(&self) -> Option<u64> {
        bound(self.max_archive_backlog)
    }

    /// Backends that wait for a batch.
    pub fn lock_waiters(&self) -> Option<u64> {
        bound(self.max_lock_waiters)
    }

    /// Clients' backends at work.
    pub fn active_backends(&self) -> Option<u64> {
        bound(self.max_active_backends)
    }

    /// Whether to wait for VACUUM.
    pub fn yields_to_autovacuum(&self) -> bool {
        self.yield_to_autovacuum == Some(true)
    }

    /// Dead tuples of the table.
    pub fn dead_tuples(&self) -> Option<u64> {
        bound(self.max_dead_tuples)
    }

    /// Growth of the table, in per cent.
    pub fn growth(&self) -> Option<u64> {
        bound(self.max_growth)
    }

    /// Rows per second.
    pub fn rows_per_second(&self) -> Option<u64> {
        bound(self.max_rows_per_second).filter(|rate| *rate > 0)
    }

    /// The owner's query.
    pub fn query(&self) -> Option<&str> {
        let query = self.throttle_query.as_deref()?.trim();
        (!query.is_empty()).then_some(query)
    }

    /// The hours to run in.
    pub fn hours(&self) -> Option<&Hours> {
        self.run_window.as_ref()?.0.as_ref()
    }

    /// Names that count, and names that do not.
    pub fn names(&self) -> (&[String], &[String]) {
        fn list(names: &Option<Vec<String>>) -> &[String] {
            names.as_deref().unwrap_or_default()
        }
        (list(&self.lag_include), list(&self.lag_exclude))
    }
}

fn bound(given: Option<i64>) -> Option<u64> {
    u64::try_from(given?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Throttles {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_given_comes_before_the_default() {
        let defaults = read(json!({"max_lag_bytes": "256MB", "run_window": "22:00-06:00"}));
        let none = read(json!({})).or(&defaults);
        assert_eq!(none.lag_bytes(), Some(256 << 20));
        assert!(none.hours().is_some());
        let off = read(json!({"max_lag_bytes": -1, "run_window": ""})).or(&defaults);
        assert_eq!(off.lag_bytes(), None);
        assert!(off.hours().is_none());
        assert!(!off.watches_lag());
        let other = read(json!({"max_lag_bytes": 1000})).or(&defaults);
        assert_eq!(other.lag_bytes(), Some(1000));
    }

    #[test]
    fn no_bound_is_none() {
        let none = read(json!({
            "max_lag": -1, "max_wal_rate": -1, "max_archive_backlog": -1, "max_lock_waiters": -1,
            "max_active_backends": -1, "yield_to_autovacuum": false, "max_dead_tuples": -1,
            "max_growth": -1, "max_rows_per_second": -1, "throttle_query": " ",
        }));
        assert_eq!(
            (
                none.lag(),
                none.wal_rate(),
                none.archive_backlog(),
                none.lock_waiters()
            ),
            (None, None, None, None)
        );
        assert_eq!(
            (
                none.active_backends(),
                none.dead_tuples(),
                none.growth(),
                none.rows_per_second()
            ),
            (None, None, None, None)
        );
        assert!(!none.yields_to_autovacuum() && none.query().is_none());
        assert_eq!(read(json!({"max_lock_waiters": 0})).lock_waiters(), Some(0));
    }
}
