//! Probes of the table, or partition, that the worker is at.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::pg::hot;
use crate::pg::spi::Arg;
use crate::store::walk;
use crate::throttle::holds::Found;
use crate::worker::throttle::probes::look::Look;
use crate::worker::throttle::probes::reading::{count, first, one};

/// Least size, in bytes, from which growth is computed: a table of a few pages doubles with the first batch.
const SMALL: u64 = 1 << 20;

/// Probe of `yield_to_autovacuum`.
pub fn vacuum(look: &mut Look) -> Result<Found> {
    let (phase, age) = (vacuum_of(look.table)?, age_of(look.table)?);
    Ok(match (phase, age) {
        (Some(phase), _) => Found::Reason(format!("VACUUM of the table is {phase}")),
        (None, Some((age, most))) if age > most => Found::Reason(format!(
            "the table's oldest transaction is {age} old, of {most}: it waits for VACUUM"
        )),
        _ => Found::Nothing,
    })
}

/// Probe of `max_dead_tuples`. Fails if they are not counted.
pub fn dead_tuples(look: &mut Look) -> Result<Found> {
    counted()?;
    let tuples = count(
        "SELECT pg_catalog.pg_stat_get_dead_tuples($1)",
        &[Arg::Oid(look.table)],
    )?;
    Ok(Found::number(tuples))
}

/// Probe of `max_growth`: percent since the table was last vacuumed, or since the job began if it was not vacuumed
/// since.
pub fn growth(look: &mut Look) -> Result<Found> {
    let (job, table) = (look.job.id, look.table);
    let (size, vacuums) = size_of(table)?;
    let known = walk::size_at(job, table)?.filter(|(_, then)| *then == vacuums);
    let base = match known {
        Some((base, _)) => base,
        None => {
            walk::set_size_at(job, table, size, vacuums)?;
            size
        }
    };
    let base = base.max(SMALL);
    let grown = size.saturating_sub(base) as f64 * 100.0 / base as f64;
    Ok(Found::Amount(grown, String::new()))
}

/// Returns the phase of a VACUUM that is running on the table or its TOAST table, such as `scanning heap`.
fn vacuum_of(table: Oid) -> Result<Option<String>> {
    let found = first(
        "SELECT v.phase FROM pg_catalog.pg_stat_progress_vacuum v JOIN pg_catalog.pg_class c ON v.relid IN (c.oid, c.reltoastrelid)
         WHERE c.oid = $1 AND v.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())",
        &[Arg::Oid(table)],
    )?;
    Ok(found.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Returns the age of the table's oldest transaction, and the age at which VACUUM is forced to freeze it.
fn age_of(table: Oid) -> Result<Option<(u64, u64)>> {
    let found = first(
        "SELECT pg_catalog.age(c.relfrozenxid), pg_catalog.current_setting('autovacuum_freeze_max_age')
         FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relfrozenxid <> '0'::pg_catalog.xid",
        &[Arg::Oid(table)],
    )?;
    found
        .map(|row| Ok((row.number(0)?.unsigned_abs(), row.number(1)?.unsigned_abs())))
        .transpose()
}

/// Returns the table's size in bytes, and how often it was vacuumed.
fn size_of(table: Oid) -> Result<(u64, i64)> {
    counted()?;
    let row = one(
        "SELECT COALESCE(pg_catalog.pg_relation_size($1), 0),
                pg_catalog.pg_stat_get_vacuum_count($1) + pg_catalog.pg_stat_get_autovacuum_count($1)",
        &[Arg::Oid(table)],
    )?;
    Ok((row.number(0)?.unsigned_abs(), row.number(1)?))
}

/// Fails if the server does not count what happens to tables (`track_counts` is off).
fn counted() -> Result<()> {
    if hot::counted() {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        "track_counts is off",
    ))
}
