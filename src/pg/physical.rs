//! Decides whether a table can be walked in physical order. It can only if each updated row falls out of the WHERE clause for good.
//! Every batch checks, by its RETURNING, that its rows do; this module looks for what would make that check worthless.

use pgrx::pg_sys::Oid;

use super::elevate::as_extension;
use super::relation::{self, Relation};
use super::spi::{self, Arg};
use super::{clauses, name, server};
use crate::error::Result;

/// Returns, as a phrase, why a walk of the relation in physical order would be unsound; `None` if nothing speaks against it.
/// `known_as` is the name that the clause may use for the relation if not its own: that of the partitioned table.
///
/// `skips_triggers`: only triggers fire that fire in a replica, too.
///
/// As the current user, within `spi::connect`. Returns an error for a clause that does not parse.
pub fn unsound(
    relation: Oid,
    known_as: Option<&str>,
    where_clause: Option<&str>,
    skips_triggers: bool,
) -> Result<Option<String>> {
    let Some(where_clause) = where_clause else {
        return Ok(Some("no where_clause tells which rows are done".to_owned()));
    };
    let Some(found) = relation::describe(relation)? else {
        return Ok(None);
    };
    if let Some(why) = unreadable(relation)? {
        return Ok(Some(why));
    }
    if clauses::depends_on_more(&found.alone(known_as), where_clause)? {
        return Ok(Some(
            "where_clause depends on more than the row (the time, a setting, other rows), so a row that is done may match again".to_owned(),
        ));
    }
    let fire = if skips_triggers { "RA" } else { "OA" };
    if let Some(trigger) = first(AFTER_TRIGGER, &[Arg::Oid(relation), Arg::Text(fire)])? {
        return Ok(Some(format!(
            "its trigger {trigger} runs after an UPDATE, and could change rows that are done"
        )));
    }
    if let Some(constraint) = first(CASCADE, &[Arg::Oid(relation)])? {
        return Ok(Some(format!(
            "its foreign key {constraint} refers to the table itself, and could change rows that are done"
        )));
    }
    Ok(None)
}

/// Returns, as a phrase, why the places of the relation's rows cannot be read, or mean nothing; `None` if they can.
pub fn unreadable(relation: Oid) -> Result<Option<String>> {
    if !relation::is_heap(relation) {
        return Ok(Some("its table access method is not heap".to_owned()));
    }
    if !relation::may_read_places(relation) {
        return Ok(Some(format!(
            "role {} may not SELECT its column ctid",
            name::of_role(server::current_user())
        )));
    }
    Ok(None)
}

/// Whether an update of these columns can make a row fall out of the WHERE clause: the clause reads one of them, or depends on more
/// than unchanged columns, or a BEFORE trigger may change others. As the current user, within `spi::connect`.
pub fn can_fall_out(
    table: &Relation,
    known_as: Option<&str>,
    where_clause: &str,
    set_columns: &[String],
) -> Result<bool> {
    Ok(
        !reads_what_stays(table, known_as, where_clause, set_columns)?
            || first(BEFORE_TRIGGER, &[Arg::Oid(table.oid)])?.is_some(),
    )
}

/// Whether an UPDATE of the table may write to its rows once more, by a trigger that fires after it or a cascade of a foreign key: then
/// no column is certain to stay as it was. Within `spi::connect`.
pub fn may_write_back(table: Oid) -> Result<bool> {
    let any = [Arg::Oid(table), Arg::Text("ORA")];
    Ok(first(AFTER_TRIGGER, &any)?.is_some() || first(CASCADE, &any[..1])?.is_some())
}

/// Whether the clause reads only columns that an update of `set_columns` leaves unchanged, triggers aside. As the current user, within
/// `spi::connect`.
pub fn reads_what_stays(
    table: &Relation,
    known_as: Option<&str>,
    where_clause: &str,
    set_columns: &[String],
) -> Result<bool> {
    let from = table.alone(known_as);
    let read = clauses::columns_used(&format!("SELECT FROM {from} WHERE (\n{where_clause}\n)"))?;
    let stays = |number: &i16| {
        let mut columns = table.columns.iter();
        columns.any(|c| c.number == *number && !c.generated && !set_columns.contains(&c.name))
    };
    Ok(read.iter().all(stays))
}

fn first(query: &'static str, args: &[Arg]) -> Result<Option<String>> {
    let row = as_extension(|| spi::kept_first(query, args))?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Query for a trigger that fires after an UPDATE, for each row or statement, and is not part of a constraint. `$2` holds the states of
/// `tgenabled` in which triggers fire. Bits of `tgtype`: 2 is BEFORE, 16 UPDATE, 64 INSTEAD OF.
const AFTER_TRIGGER: &str = "
SELECT pg_catalog.quote_ident(tgname) FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal AND pg_catalog.strpos($2, tgenabled::text) > 0
  AND (tgtype & 16) <> 0 AND (tgtype & (2 | 64)) = 0
ORDER BY tgname LIMIT 1";

/// Query for a row trigger that fires before an UPDATE, and may set other columns of the row.
const BEFORE_TRIGGER: &str = "
SELECT tgname FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & (1 | 2 | 16)) = (1 | 2 | 16)
LIMIT 1";

/// Query for a foreign key from the table to itself whose ON UPDATE action writes other rows.
const CASCADE: &str = "
SELECT pg_catalog.quote_ident(conname) FROM pg_catalog.pg_constraint
WHERE conrelid = $1 AND contype = 'f' AND confupdtype NOT IN ('a', 'r')
  AND COALESCE(pg_catalog.pg_partition_root(confrelid), confrelid) = COALESCE(pg_catalog.pg_partition_root($1), $1)
ORDER BY conname LIMIT 1";
