//! Checks of the options that make a job wait, as far as they need the server.

use crate::error::{Error, Result};
use crate::pg::clauses;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::throttle::limits::Throttles;

/// Checks that the time zone of `run_window` exists, and that no name is both included and excluded.
pub fn check(given: &Throttles) -> Result<()> {
    if let Some(zone) = given.hours().and_then(|hours| hours.zone()) {
        let known = as_extension(|| {
            spi::in_subtransaction(|| {
                let sql = "SELECT pg_catalog.timezone($1, pg_catalog.now())";
                spi::query(sql, &[Arg::Text(zone)])
            })
        });
        known.map_err(|mut error| {
            error.message = format!("option \"run_window\": {}", error.message);
            (error.position, error.context) = (None, None);
            error.hint("SELECT name FROM pg_timezone_names lists them.")
        })?;
    }
    let (include, exclude) = given.names();
    if let Some(name) = include.iter().find(|name| exclude.contains(name)) {
        return Err(Error::invalid(format!(
            "\"{name}\" is both in option \"lag_include\" and in \"lag_exclude\""
        ))
        .hint("Nobody would watch it. Name it in one of them."));
    }
    Ok(())
}

/// Checks that `throttle_query` is one query that returns a boolean and that its owner may run. Within a session of the
/// owner's.
pub fn check_query(query: Option<&str>) -> Result<()> {
    let Some(query) = query else {
        return Ok(());
    };
    clauses::check_query("throttle_query", query)?;
    let condition = format!("SELECT WHERE (\n{query}\n)");
    clauses::explain(&condition, &[query]).map_err(|mut error| {
        error.message = format!("option \"throttle_query\": {}", error.message);
        error.hint(
            "It is run as the job's owner, and gives one boolean: true while the job is to wait.",
        )
    })
}
