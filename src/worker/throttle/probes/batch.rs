//! Probes of a batch that is about to commit: what it has taken, and who waits for it.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::spi::Arg;
use crate::pg::waiters;
use crate::worker::throttle::probes::reading::count;

/// A batch that is about to commit.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The table, or partition, that the batch has written to.
    pub table: Oid,
    /// Rows that the batch has updated.
    pub rows: u64,
    /// WAL that the worker has written since the last batch, in bytes.
    pub wal: u64,
}

/// Probe of `max_rows_per_second`.
pub fn rows(batch: &Batch) -> u64 {
    batch.rows
}

/// Probe of `max_wal_rate`.
pub fn wal(batch: &Batch) -> u64 {
    batch.wal
}

/// Probe of `max_lock_waiters`: backends that wait for this transaction, which has written to the table: for its end,
/// in a queue for one of the table's rows, or for the table itself.
pub fn lock_waiters(batch: &Batch) -> Result<u64> {
    // Usually nobody waits, and that is cheap to see.
    if !waiters::any() {
        return Ok(0);
    }
    count(
        "SELECT pg_catalog.count(DISTINCT l.pid) FROM pg_catalog.pg_locks l
         WHERE NOT l.granted
           AND (l.locktype = 'transactionid' AND l.transactionid = pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid
                OR l.locktype IN ('tuple', 'relation') AND l.relation = $1
                   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))",
        &[Arg::Oid(batch.table)],
    )
}
