//! This probe asks the owner's query. A worker is a process of the owner's: nobody else evaluates the query.

use std::time::{Duration, Instant};

use crate::error::{Result, sqlstate};
use crate::pg::{evaluate, spi, timeout, txn};
use crate::throttle::holds::Found;
use crate::worker::throttle::probes::look::Look;

/// The query may take this time, in milliseconds.
const LIMIT: i32 = 1000;

/// The probe of `throttle_query`, in a transaction of its own. What is wrong with the query may hold row data: the view shows
/// its SQLSTATE.
pub fn ask(look: &mut Look) -> Result<Found> {
    let Some(query) = look.limits.query() else {
        return Ok(Found::Nothing);
    };
    let begun = Instant::now();
    let answer = timeout::limited(LIMIT, || {
        // Rolled back: what it leaves for the commit (a cursor WITH HOLD, a deferred trigger) would run where writing is allowed.
        txn::run_undone(
            || {},
            || evaluate::read_only(|| spi::read_only(&format!("SELECT (\n{query}\n)"))),
        )
    });
    let late = begun.elapsed() > Duration::from_millis(LIMIT as u64);
    let slow = || format!("the query takes longer than {LIMIT} ms");
    let reason = match answer {
        // It may have caught the cancel.
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
