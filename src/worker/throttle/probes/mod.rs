//! The probes: for each signal, a function that reads it from the server. A signal that was asked for but cannot be
//! read counts as over its bound.

pub mod batch;
pub mod hours;
pub mod look;
mod query;
mod reading;
mod server;
mod standbys;
mod table;

use crate::error::{Error, Result};
use crate::guc::throttles as settings;
use crate::pg::txn::{self, Durability};
use crate::throttle::holds::{Found, Holds, Reason};
use crate::throttle::limits::Throttles;
use crate::throttle::signals::{Entry, SIGNALS, Signal};
use crate::worker::throttle::probes::batch::Batch;
use crate::worker::throttle::probes::look::Look;

/// The way in which a signal is read.
pub enum Probe {
    /// A function that is called between two batches, in a transaction.
    Look(fn(&mut Look) -> Result<Found>),
    /// A function that is called between two batches, and opens its own transaction.
    Alone(fn(&mut Look) -> Result<Found>),
    /// A function that returns what a batch has taken of a rate.
    Taken(fn(&Batch) -> u64),
    /// A function that counts, in a batch that is about to commit, what the bound limits.
    Batch(fn(&Batch) -> Result<u64>),
    /// Nothing is read.
    None,
}

/// Returns the probe of a signal.
pub fn of(signal: Signal) -> Probe {
    match signal {
        Signal::ReadOnly => Probe::Look(server::read_only),
        Signal::RunWindow => Probe::Look(hours::window),
        Signal::LagBytes => Probe::Look(standbys::bytes),
        Signal::Lag => Probe::Look(standbys::time),
        Signal::ArchiveBacklog => Probe::Look(server::archive_backlog),
        Signal::ActiveBackends => Probe::Look(server::active_backends),
        Signal::Autovacuum => Probe::Look(table::vacuum),
        Signal::DeadTuples => Probe::Look(table::dead_tuples),
        Signal::Growth => Probe::Look(table::growth),
        Signal::Query => Probe::Alone(query::ask),
        Signal::LockWaiters => Probe::Batch(batch::lock_waiters),
        Signal::WalRate => Probe::Taken(batch::wal),
        Signal::RowRate => Probe::Taken(batch::rows),
        Signal::LagInclude | Signal::LagExclude => Probe::None,
        Signal::Retry | Signal::Horizon => Probe::None,
    }
}

/// Returns the bounds in force: those of the job, and the server's for those that the job does not set. Returns also
/// reasons to wait, one for each server setting in force that makes no sense.
pub fn limits(own: &Throttles) -> (Throttles, Vec<Reason>) {
    let (server, wrong) = settings::in_force();
    let unreadable = |(signal, text): (Signal, String)| {
        let name = signal.name();
        let text = format!("the setting backfill.{name} cannot be read: \"{text}\"");
        Reason::new(signal, text)
    };
    let counts = |(signal, _): &(Signal, String)| !own.is_given(*signal);
    let reasons = wrong.into_iter().filter(counts).map(unreadable).collect();
    (own.or(server), reasons)
}

/// Reads the signals that have a bound, or need none, and compares each with its bound.
pub fn take(mut look: Look, holds: &mut Holds) {
    for signal in look.limits.at_rest() {
        holds.hold(signal, "the bound is 0".to_owned());
    }
    look.readings.behind = None;
    let mut entries: Vec<&Entry> = SIGNALS.iter().collect();
    // In the order of the signals: lag in bytes comes before lag in time.
    entries.sort_by_key(|entry| entry.signal);
    for entry in entries {
        let bound = look.limits.bound(entry.signal);
        if entry.bound.is_some() && bound.is_none() {
            continue;
        }
        let found = match of(entry.signal) {
            Probe::Look(probe) => txn::run(Durability::Deferred, || probe(&mut look)),
            Probe::Alone(probe) => probe(&mut look),
            Probe::Taken(_) | Probe::Batch(_) | Probe::None => continue,
        };
        let unreadable = |error: Error| Found::Reason(format!("cannot be read: {error}"));
        holds.weigh(entry, found.unwrap_or_else(unreadable), bound);
    }
}

// In a server, since the probes name its functions.
#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::throttle::signals::Waits;
    use crate::worker::throttle::probes::{Probe, SIGNALS, of};

    #[pg_test]
    fn signals_are_read_as_they_make_a_job_wait() {
        for entry in SIGNALS {
            let fits = match entry.waits {
                Waits::Over(..) | Waits::Told => {
                    matches!(of(entry.signal), Probe::Look(_) | Probe::Alone(_))
                }
                Waits::Rate(_) => matches!(of(entry.signal), Probe::Taken(_)),
                Waits::Batch(_) => matches!(of(entry.signal), Probe::Batch(_)),
                Waits::Elsewhere => matches!(of(entry.signal), Probe::None),
            };
            assert!(fits, "{}", entry.name);
        }
    }
}
