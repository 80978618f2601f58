//! The table that gets deleted rows, option `archive_into`.

use pgrx::pg_sys::Oid;

use super::call::{Call, check_kind, refuse_superusers_job};
use crate::action::{Archive, Changes, Delete};
use crate::error::{Error, Result, sqlstate};
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::table::archive;

/// Returns the archive of a call that deletes rows, if it asks for one. The caller's own text.
pub fn of(call: &Call) -> Result<Option<Archive>> {
    let Some(name) = call.options.archive_into.as_deref() else {
        return Ok(None);
    };
    let archive = found(name)?;
    check_kind(&archive)?;
    refuse_superusers_job(&archive)?;
    archive.refuse_deceptive()?;
    archive::of(&call.relation, &archive).map(Some)
}

/// Refuses a table, a partition or a child of the job's, one of whose columns has no place in the archive.
pub fn check(table: &Relation, changes: &Changes) -> Result<()> {
    let Changes::Delete(Delete { archive: Some(to) }) = changes else {
        return Ok(());
    };
    match relation::describe(Oid::from(to.oid))? {
        Some(found) => archive::of(table, &found).map(|_| ()),
        None => Err(missing(&to.name)),
    }
}

/// Finds the table by its name, as PostgreSQL finds it for the caller, and locks it.
fn found(name: &str) -> Result<Relation> {
    let row = spi::first(
        "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8",
        &[Arg::Text(name)],
    )?;
    let oid = row.filter(|row| row.get(0).is_some());
    let oid = oid.map(|row| row.number(0)).transpose()?;
    let found = match oid.map(|oid| Oid::from(oid as u32)) {
        Some(oid) => {
            relation::lock_for_update(oid);
            relation::describe(oid)?
        }
        None => None,
    };
    found.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::new(
        sqlstate::UNDEFINED_TABLE,
        format!("table \"{name}\" of option \"archive_into\" does not exist"),
    )
    .hint("Create it first: CREATE TABLE ... (LIKE ...), without constraints that old rows could violate.")
}
