//! The lock that a checker waits for. If the transaction that waits for the checker holds it, the deadlock detector
//! does not see that.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::name;
use crate::pg::spi::{self, Arg};

/// A lock that a process waits for.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// The locked object, for people.
    what: String,
    /// Process ids of those that hold it, or are ahead in the queue.
    pub holders: Vec<i32>,
}

/// Returns the lock that a process waits for, if it waits for one.
pub fn lock_waited_for(pid: i32) -> Result<Option<Blocked>> {
    const WAITED_FOR: &str = "
        SELECT pg_catalog.concat(l.mode, ' on ',
                   CASE WHEN l.locktype = 'relation' THEN 'table ' || l.relation::pg_catalog.regclass::text
                        WHEN l.locktype IN ('transactionid', 'tuple') THEN 'a row that another transaction has changed'
                        ELSE l.locktype END),
               pg_catalog.to_json(pg_catalog.pg_blocking_pids($1))
        FROM pg_catalog.pg_locks l WHERE l.pid = $1 AND NOT l.granted LIMIT 1";
    let row = as_extension(|| spi::for_people(|| spi::first(WAITED_FOR, &[Arg::Int4(pid)])))?;
    let Some(row) = row else { return Ok(None) };
    let holders = serde_json::from_str(row.text(1)?).unwrap_or_default();
    Ok(Some(Blocked {
        what: row.text(0)?.to_owned(),
        holders,
    }))
}

impl Blocked {
    /// Describes the wait in a sentence.
    pub fn shown(&self) -> String {
        let holder = |pid: &i32| match pid {
            // pg_blocking_pids shows 0 for a prepared transaction.
            0 => "a transaction that is prepared (pg_prepared_xacts)".to_owned(),
            pid => format!("process {pid}"),
        };
        let holders: Vec<String> = self.holders.iter().map(holder).collect();
        format!(
            "It waits for {}, held by {}.",
            self.what,
            holders.join(", ")
        )
    }

    /// Adds this lock to the error about a lock that could not be had.
    pub fn explain(&self, error: Error) -> Error {
        error
            .detail(self.shown())
            .hint("Try again when that transaction has ended; pg_stat_activity shows what the process does.")
    }

    /// Returns the error for a lock that the caller's own transaction holds: waiting would never end.
    pub fn held_by_caller(&self, owner: Oid) -> Error {
        Error::new(
            sqlstate::LOCK_NOT_AVAILABLE,
            format!(
                "looking at what role {} wrote takes a lock that this transaction is in the way of",
                name::of_role(owner)
            ),
        )
        .detail(format!("It waits for {}.", self.what))
        .hint("It is looked at in a process of that role's. Make the call in a transaction of its own.")
    }
}
