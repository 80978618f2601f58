//! The worker's session: its name in `pg_stat_activity`, and the settings that it is pinned to.

use crate::error::Result;
use crate::pg::owner_session::run;
pub use crate::pg::owner_session::{connect, keep_identity};
use crate::pg::settings::Pins;
use crate::pg::triggers;
use crate::store::job::Job;

/// Settings that every batch runs under, whatever ALTER ROLE, ALTER DATABASE or a trigger's SET say.
const FIXED: &[(&str, &str)] = &[
    // The walk's guarantees hold for READ COMMITTED.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // The job sets its timeouts, not the role.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    // A policy that applies is an error instead of a filter.
    ("row_security", "off"),
    // The clauses were checked under this setting.
    ("standard_conforming_strings", "on"),
    // Safe, since the checkpoint commits with its batch: a crash loses both or neither.
    ("synchronous_commit", "off"),
];

/// Sets a lock timeout, so that a problem in one database does not hold up the launcher, which others wait for.
pub fn limit_waits() {
    run(&["SET lock_timeout = '5s'"]);
}

/// Returns the settings of a job's batches.
pub fn pins(job: &Job) -> Result<Pins> {
    let mut pins = Pins::default();
    for (name, value) in job
        .definition
        .session
        .iter()
        .chain(&job.definition.options.settings)
    {
        pins.pin(name, value)?;
    }
    for (name, value) in FIXED {
        pins.pin_trusted(name, value)?;
    }
    if job.definition.options.skips_triggers() {
        // Pinned with the owner's right to set it.
        pins.pin(triggers::SETTING.0, triggers::SETTING.1)?;
    } else {
        pins.pin_trusted(triggers::SETTING.0, "origin")?;
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    pins.pin_trusted("transaction_timeout", "0")?;
    pins.pin_trusted("application_name", &label(job))?;
    Ok(pins)
}

/// Returns the process's name in `pg_stat_activity`.
fn label(job: &Job) -> String {
    format!("backfill job {}: {}", job.id, job.relation_name)
}
