//! A look at the signals: the input of the probes, and what is kept for the next look.

use pgrx::pg_sys::Oid;

use crate::store::job::Job;
use crate::throttle::lag::LagClock;
use crate::throttle::limits::Throttles;

/// A standby or slot, and how far it is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// Name for people: `standby replica1`, `slot orders_cdc`.
    pub shown: String,
    /// Bytes of WAL that it lacks.
    pub bytes: u64,
    /// Seconds since the first of these bytes was written.
    pub seconds: f64,
}

/// Readings that are kept for the next look, or for other users.
#[derive(Debug, Default)]
pub struct Readings {
    /// Remembers when the WAL reached which position.
    pub clock: LagClock,
    /// Whether the owner or the database was ever found to have its own value of `default_transaction_read_only`.
    pub overridden: bool,
    /// The standby or slot that is furthest behind, if that was looked at and there is one.
    pub behind: Option<Behind>,
}

impl Readings {
    /// Returns the bytes by which the furthest-behind standby or slot lags, if that was looked at and there is one.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.behind.as_ref().map(|behind| behind.bytes)
    }
}

/// The input of a probe.
pub struct Look<'a> {
    /// The job that may have to wait.
    pub job: &'a Job,
    /// The table, or partition, that the worker is at.
    pub table: Oid,
    /// The bounds in force.
    pub limits: &'a Throttles,
    /// Readings that are kept from one look to the next.
    pub readings: &'a mut Readings,
}
