//! Probe that runs the owner's query. A worker is a process of the owner's, so nobody else evaluates the query.

use std::time::{Duration, Instant};

use crate::error::{Result, sqlstate};
use crate::pg::{evaluate, spi, timeout, txn};
use crate::throttle::holds::Found;
use crate::worker::throttle::probes::look::Look;

/// Milliseconds the query may take.
const LIMIT: i32 = 1000;

/// Probe of `throttle_query`, in a transaction of its own. An error message of the query may contain row data, so the
/// view shows only its SQLSTATE.
pub fn ask(look: &mut Look) -> Result<Found> {
    let Some(query) = look.limits.query() else {
        return Ok(Found::Nothing);
    };
    let begun = Instant::now();
    let answer = timeout::limited(LIMIT, || {
        // Rolled back, because what the query leaves for the commit (a cursor WITH HOLD, a deferred trigger) would run
        // where writing is allowed.
        txn::run_undone(
            || {},
            || evaluate::read_only(|| spi::read_only(&format!("SELECT (\n{query}\n)"))),
        )
    });
    let late = begun.elapsed() > Duration::from_millis(LIMIT as u64);
    let slow = || format!("the query takes longer than {LIMIT} ms");
    let reason = match answer {
        // The query may have caught the cancel.
        Ok(_) if late => slow(),
        Ok(row) => match row.as_ref().and_then(|row| row.get(0)) {
            Some("f" | "false") => return Ok(Found::Nothing),
            Some(_) => "the query gives true".to_owned(),
            None => "the query gives NULL".to_owned(),
        },
        Err(error) if error.sqlstate == sqlstate::QUERY_CANCELED => slow(),
        Err(error) => format!("the query fails (SQLSTATE {})", error.sqlstate),
    };
    Ok(Found::Reason(reason))
}
