//! Where a job was started: elsewhere it is one of a copy, and stands still.

use crate::pg::{elevate, server};

/// Whether this is the cluster and database that a job says it was started in, and the extension.
/// Within a transaction.
pub fn is_here(system_identifier: Option<i64>, database: Option<i64>) -> bool {
    system_identifier == Some(server::system_identifier()) && database == Some(here())
}

/// The database, and above its 32 bits the table of jobs: another one after DROP EXTENSION, which is
/// how a restored dump begins. Its jobs must not run before all rows are there.
pub fn here() -> i64 {
    (i64::from(elevate::job_table().to_u32()) << 32) | i64::from(server::database().to_u32())
}
