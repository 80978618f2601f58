//! Probes of the server: its archive, its clients, and whether transactions are read-only by default.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::spi::Arg;
use crate::throttle::holds::Found;
use crate::worker::throttle::probes::look::Look;
use crate::worker::throttle::probes::reading::{count, first, hidden, one};

/// Text in the view if transactions are read-only by default.
const READ_ONLY: &str = "it is on, for the server, the database or the job's owner";

/// Probe of `max_archive_backlog`: WAL segments waiting to be archived.
pub fn archive_backlog(_: &mut Look) -> Result<Found> {
    let segments = count(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() f WHERE f.name LIKE '%.ready'",
        &[],
    )?;
    Ok(Found::number(segments))
}

/// Probe of `max_active_backends`: client backends that are active.
pub fn active_backends(_: &mut Look) -> Result<Found> {
    let row = one(
        "SELECT pg_catalog.count(*) FILTER (WHERE a.state IN ('active', 'fastpath function call')),
                pg_catalog.count(*) FILTER (WHERE a.state IS NULL OR a.state = 'disabled')
         FROM pg_catalog.pg_stat_activity a
         WHERE a.backend_type = 'client backend' OR a.backend_type IS NULL",
        &[],
    )?;
    if row.number(1)? > 0 {
        return Err(hidden("pg_stat_activity").hint("track_activities may be off."));
    }
    Ok(Found::number(row.number(0)?.unsigned_abs()))
}

/// Probe of `default_transaction_read_only`.
pub fn read_only(look: &mut Look) -> Result<Found> {
    let on = is_read_only(look.job.owner, &mut look.readings.overridden)?;
    Ok(match on {
        true => Found::Reason(READ_ONLY.to_owned()),
        false => Found::Nothing,
    })
}

/// Query for the value of `default_transaction_read_only` that ALTER ROLE and ALTER DATABASE set for new sessions of
/// the role in this database; the most specific one comes first: role and database, then role, then database.
const READ_ONLY_OF_ROLE: &str = "
SELECT pg_catalog.split_part(c.entry, '=', 2)::boolean
FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (entry)
WHERE s.setrole IN (0, $1)
  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  AND pg_catalog.lower(pg_catalog.split_part(c.entry, '=', 1)) = 'default_transaction_read_only'
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1";

/// True if a new session of the role in this database would begin with read-only transactions. `overridden` is set once
/// the role or the database is found to have its own value: from then on, this process's value for the server may be
/// that one.
fn is_read_only(role: Oid, overridden: &mut bool) -> Result<bool> {
    if let Some(row) = first(READ_ONLY_OF_ROLE, &[Arg::Oid(role)])? {
        *overridden = true;
        return Ok(row.bool(0));
    }
    // The value that RESET would restore; the worker itself has set another.
    let of_server = "SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings s WHERE s.name = 'default_transaction_read_only'";
    let of_files = "SELECT f.setting::boolean FROM pg_catalog.pg_file_settings f
                    WHERE pg_catalog.lower(f.name) = 'default_transaction_read_only' AND f.applied ORDER BY f.seqno DESC LIMIT 1";
    let found = first(if *overridden { of_files } else { of_server }, &[])?;
    Ok(found.is_some_and(|row| row.bool(0)))
}
