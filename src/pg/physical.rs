//! Whether a table can be walked in physical order: only where each updated row falls out of the
//! WHERE clause for good. That it does is checked with every batch, by what RETURNING shows; here
//! is what would make that check worthless.

use pgrx::pg_sys::Oid;

use super::elevate::as_extension;
use super::relation::{self, Relation};
use super::spi::{self, Arg};
use super::{clauses, server};
use crate::error::Result;

/// Why a walk of the relation in physical order would be unsound, as a phrase; `None` where
/// nothing speaks against it. `known_as` is the name that the clause may call the relation by, if
/// it is not its own: that of the partitioned table.
///
/// `skips_triggers`: only those fire that fire in a replica, too.
///
/// As the current user, within `spi::connect`. A clause that does not even parse is an error.
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
    if !relation::is_heap(relation) {
        return Ok(Some("its table access method is not heap".to_owned()));
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
    if !relation::may_read_places(relation) {
        return Ok(Some(format!(
            "role {} may not SELECT its column ctid",
            server::role_name(server::current_user())
        )));
    }
    Ok(None)
}

/// Whether a row can fall out of the WHERE clause by an update of these columns: the clause reads one of
/// them, or more than columns that stay as they are. As the current user, within `spi::connect`.
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

/// Whether a clause reads only columns that an update of these columns leaves as they are, triggers aside. As the
/// current user, within `spi::connect`.
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

/// A trigger that fires after an UPDATE, row by row or not, and is no part of a constraint; `$2` has the
/// states of `tgenabled` in which triggers fire. Bits of
/// `tgtype`: 2 is BEFORE, 16 UPDATE, 64 INSTEAD OF.
const AFTER_TRIGGER: &str = "
SELECT pg_catalog.quote_ident(tgname) FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal AND pg_catalog.strpos($2, tgenabled::text) > 0
  AND (tgtype & 16) <> 0 AND (tgtype & (2 | 64)) = 0
ORDER BY tgname LIMIT 1";

/// A trigger that fires before an UPDATE of a row, and may set other columns of it.
const BEFORE_TRIGGER: &str = "
SELECT tgname FROM pg_catalog.pg_trigger
WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & (1 | 2 | 16)) = (1 | 2 | 16)
LIMIT 1";

/// A foreign key from the table to itself whose ON UPDATE writes other rows.
const CASCADE: &str = "
SELECT pg_catalog.quote_ident(conname) FROM pg_catalog.pg_constraint
WHERE conrelid = $1 AND contype = 'f' AND confupdtype NOT IN ('a', 'r')
  AND COALESCE(pg_catalog.pg_partition_root(confrelid), confrelid) = COALESCE(pg_catalog.pg_partition_root($1), $1)
ORDER BY conname LIMIT 1";
