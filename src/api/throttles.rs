//! Checks of the options that make a job wait, as far as the server has a say in them.

use crate::error::{Error, Result};
use crate::job::throttles::Throttles;
use crate::pg::{clauses, spi};
use crate::plan::sql::literal;

/// Whether the time zone of `run_window` exists, and `throttle_query` is one query that gives a boolean
/// and that the caller may run.
pub fn check(given: &Throttles) -> Result<()> {
    if let Some(zone) = given.hours().and_then(|hours| hours.zone()) {
        let sql = format!(
            "SELECT pg_catalog.timezone({}, pg_catalog.now())",
            literal(zone)
        );
        spi::attempt(&sql).map_err(|mut error| {
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
    if let Some(query) = given.query() {
        clauses::check_query("throttle_query", query)?;
        let condition = format!("SELECT WHERE (\n{query}\n)");
        clauses::explain(&condition, &[query]).map_err(|mut error| {
            error.message = format!("option \"throttle_query\": {}", error.message);
            error.hint("It is run as the job's owner, and gives one boolean: true while the job is to wait.")
        })?;
    }
    Ok(())
}
