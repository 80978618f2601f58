//! Probe of the hours in which a job may run.

use crate::error::Result;
use crate::pg::spi::Arg;
use crate::throttle::holds::Found;
use crate::worker::throttle::probes::look::Look;
use crate::worker::throttle::probes::reading::count;

/// Probe of `run_window`.
pub fn window(look: &mut Look) -> Result<Found> {
    let Some(hours) = look.limits.hours() else {
        return Ok(Found::Nothing);
    };
    let now = minute_of_week(hours.zone())?;
    Ok(match hours.closed_for(now) {
        Some(_) => Found::Reason(format!("opens at {}", hours.opening(now))),
        None => Found::Nothing,
    })
}

/// Returns the minute of the week, which begins on Monday, in a time zone; without one, in the session's. Fails for an
/// unknown time zone, with its name.
pub fn minute_of_week(zone: Option<&str>) -> Result<u16> {
    let zone = match zone {
        Some(zone) => Arg::Text(zone),
        None => Arg::text(None),
    };
    let minutes = count(
        "SELECT (pg_catalog.date_part('isodow', t.at) - 1) * 1440 + pg_catalog.floor(pg_catalog.date_part('epoch', t.at::pg_catalog.time) / 60)
         FROM (SELECT pg_catalog.timezone(COALESCE($1, pg_catalog.current_setting('TimeZone')), pg_catalog.clock_timestamp()) AS at) t",
        &[zone],
    )?;
    Ok(minutes as u16)
}
