//! A look at the signals: what a probe is told, and what is kept for the next one.

use pgrx::pg_sys::Oid;

use crate::store::job::Job;
use crate::throttle::lag::LagClock;
use crate::throttle::limits::Throttles;

/// A standby or slot, and how far it is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// For people: `standby replica1`, `slot orders_cdc`.
    pub shown: String,
    /// Bytes of WAL that it lacks.
    pub bytes: u64,
    /// Seconds since the first of these was written.
    pub seconds: f64,
}

/// Readings are kept for the next look, or for others.
#[derive(Debug, Default)]
pub struct Readings {
    /// It remembers when the WAL had come to which place.
    pub clock: LagClock,
    /// True once the owner or the database was found to have a value of its own of `default_transaction_read_only`.
    pub overridden: bool,
    /// The one furthest behind, if that was looked at and there is anybody.
    pub behind: Option<Behind>,
}

impl Readings {
    /// Returns the bytes that the furthest-behind standby or slot lags, if that was looked at and there is one.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.behind.as_ref().map(|behind| behind.bytes)
    }
}

/// A probe is told these.
pub struct Look<'a> {
    /// The job that may have to wait.
    pub job: &'a Job,
    /// The table, or partition, that the worker is at.
    pub table: Oid,
    /// The bounds in force.
    pub limits: &'a Throttles,
    /// The readings that are kept from one look to the next.
    pub readings: &'a mut Readings,
}
