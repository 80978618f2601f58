//! Consequences of a session in which triggers don't fire (`session_replication_role = replica`): constraints that are checked by
//! triggers are not checked either, and some triggers still fire.

use pgrx::pg_sys::Oid;

use super::elevate::as_extension;
use super::spi::{self, Arg, Row};
use super::{name, relation, server, settings};
use crate::error::{Error, Result, sqlstate};

/// The setting that keeps triggers from firing, and its value.
pub const SETTING: (&str, &str) = ("session_replication_role", "replica");

/// Query for the first constraint that is checked by triggers and has a column that an UPDATE of the columns `$2` of the table `$1`
/// writes, including generated columns computed from these. Such constraints are foreign keys on either side, and deferrable ones.
/// Columns in expressions and predicates are found through the index of the constraint.
const UNCHECKED: &str = "
WITH written AS (
    SELECT a.attnum, a.attname FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1 AND NOT a.attisdropped
      AND (a.attname = ANY ($2)
           OR a.attgenerated <> '' AND EXISTS (
               SELECT FROM pg_catalog.pg_attrdef f
               JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
               JOIN pg_catalog.pg_attribute s ON s.attrelid = d.refobjid AND s.attnum = d.refobjsubid
               WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum AND d.refobjid = $1
                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.attname = ANY ($2)))
)
SELECT pg_catalog.quote_ident(c.conname),
       (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = c.conrelid),
       CASE c.contype WHEN 'f' THEN 'foreign key' WHEN 'x' THEN 'deferrable exclusion constraint'
                      WHEN 'p' THEN 'deferrable primary key' ELSE 'deferrable unique constraint' END,
       w.attname
FROM pg_catalog.pg_constraint c
JOIN written w ON c.conrelid = $1 AND w.attnum = ANY (c.conkey)
               OR c.confrelid = $1 AND w.attnum = ANY (c.confkey)
               OR c.conrelid = $1 AND EXISTS (
                   SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.conindid
                     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1
                     AND d.refobjsubid = w.attnum)
WHERE c.contype = 'f' OR c.contype IN ('p', 'u', 'x') AND c.condeferrable
ORDER BY c.conname, c.oid, w.attnum LIMIT 1";

/// Whether a trigger that fires before each update of a row names one of these columns, in its function or its arguments: it is then
/// assumed to keep the column right.
pub fn sets_along(relation: Oid, columns: &[String]) -> Result<bool> {
    let row = as_extension(|| {
        spi::kept_first(
            "SELECT EXISTS (
                 SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
                 CROSS JOIN LATERAL pg_catalog.unnest($2) AS c (name)
                 WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND (t.tgtype & (1 | 2 | 16)) = (1 | 2 | 16)
                   AND (pg_catalog.lower(c.name) = ANY (pg_catalog.regexp_split_to_array(pg_catalog.lower(p.prosrc), '[^[:alnum:]_]+'))
                        -- Its arguments end with a zero each.
                        OR pg_catalog.lower(c.name) = ANY (pg_catalog.regexp_split_to_array(
                               pg_catalog.lower(pg_catalog.encode(t.tgargs, 'escape')), '[^[:alnum:]_]+(000)?'))
                        OR c.name ~ '[^[:alnum:]_]' AND pg_catalog.strpos(p.prosrc, c.name) > 0))",
            &[Arg::Oid(relation), Arg::Texts(columns)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Refuses to write columns of a constraint that would not be checked: columns that are set, and any column if a trigger that still
/// fires may write to the row.
pub fn refuse_unchecked(relation: Oid, set_columns: &[String]) -> Result<()> {
    let unchecked = |columns: &[String]| {
        as_extension(|| spi::kept_first(UNCHECKED, &[Arg::Oid(relation), Arg::Texts(columns)]))
    };
    if let Some(row) = unchecked(set_columns)? {
        return Err(refused(&row)?.hint(
            "Rows that violate it would stay unnoticed. Start a job without the option \"triggers\", or let it set other columns.",
        ));
    }
    let writer = as_extension(|| spi::kept_first(WRITES_ROWS, &[Arg::Oid(relation)]))?;
    let Some(writer) = writer else {
        return Ok(());
    };
    let all = relation::describe(relation)?.map_or(Vec::new(), |table| {
        table
            .columns
            .into_iter()
            .map(|column| column.name)
            .collect()
    });
    match unchecked(&all)? {
        None => Ok(()),
        Some(row) => Err(refused(&row)?.hint(format!(
            "Trigger {} fires all the same, and may write to that column: rows that violate the constraint would stay unnoticed. Start a job without the option \"triggers\", or disable that trigger.",
            writer.text(0)?
        ))),
    }
}

/// Refuses to delete rows of a table that foreign keys refer to: rows that refer to a deleted one would stay.
pub fn refuse_referenced(relation: Oid) -> Result<()> {
    match as_extension(|| spi::kept_first(REFERS, &[Arg::Oid(relation)]))? {
        None => Ok(()),
        Some(row) => Err(refused(&row)?.hint(
            "Rows that refer to a deleted one would stay, unnoticed. Start a job without the option \"triggers\".",
        )),
    }
}

/// Refuses a table into which deleted rows go, if something could keep a row out of it without an error: it would be lost.
pub fn refuse_suppressed(relation: Oid, shown: &str) -> Result<()> {
    match as_extension(|| spi::kept_first(SUPPRESSES, &[Arg::Oid(relation)]))? {
        None => Ok(()),
        Some(row) => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "{} {} could keep rows out of table {shown}, which are deleted from the other",
                row.text(0)?,
                row.text(1)?
            ),
        )
        .hint("Drop or disable it, or name another table.")),
    }
}

/// Refuses a table whose rules turn an INSERT into something else.
pub fn refuse_rule_on_insert(relation: Oid, shown: &str) -> Result<()> {
    let row = as_extension(|| {
        spi::kept_first(
            "SELECT pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = $1 AND r.ev_type = '3' AND r.ev_enabled <> 'D' ORDER BY r.rulename LIMIT 1",
            &[Arg::Oid(relation)],
        )
    })?;
    match row {
        None => Ok(()),
        Some(row) => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "rule {} turns an INSERT into table {shown} into something else",
                row.text(0)?
            ),
        )
        .hint("Drop or disable it, or name the table that it inserts into.")),
    }
}

/// Query for a trigger before each row's INSERT into the table or a partition of it, or a rule on INSERT: its kind, and its name.
const SUPPRESSES: &str = "
SELECT f.kind, f.name FROM (
    SELECT 'trigger' AS kind, pg_catalog.quote_ident(t.tgname) AS name
    FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid IN (SELECT $1 UNION SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1) p)
      AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 7) = 7
    UNION ALL
    SELECT 'rule', pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
    WHERE r.ev_class = $1 AND r.ev_type = '3') f
ORDER BY f.kind, f.name LIMIT 1";

/// Query for a foreign key that refers to the table.
const REFERS: &str = "
SELECT pg_catalog.quote_ident(c.conname),
       (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE r.oid = c.conrelid),
       'foreign key',
       (SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1])
FROM pg_catalog.pg_constraint c WHERE c.confrelid = $1 AND c.contype = 'f'
ORDER BY c.conname, c.oid LIMIT 1";

fn refused(row: &Row) -> Result<Error> {
    let (name, table, kind, column) = (row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?);
    Ok(Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!(
            "triggers cannot be skipped: {kind} {name} of table {table} on column \"{column}\" is checked by one"
        ),
    ))
}

/// Query for the first trigger that still fires and may change any column of a row before it is written.
const WRITES_ROWS: &str = "
SELECT pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled IN ('R', 'A') AND (t.tgtype & 19) = 19
ORDER BY t.tgname LIMIT 1";

/// Bit of `tgtype` for triggers that fire on UPDATE.
pub const UPDATE: i32 = 16;
/// Bit of `tgtype` for triggers that fire on DELETE.
pub const DELETE: i32 = 8;

/// Returns the names of the triggers of an event ([`UPDATE`] or [`DELETE`]), quoted where needed: those that would not fire, and those that
/// would still fire.
pub fn of_event(relation: Oid, event: i32) -> Result<(Vec<String>, Vec<String>)> {
    let rows = as_extension(|| {
        spi::kept(
            "SELECT pg_catalog.quote_ident(tgname), tgenabled <> 'O' FROM pg_catalog.pg_trigger
             WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & $2) <> 0 ORDER BY tgname",
            &[Arg::Oid(relation), Arg::Int4(event)],
        )
    })?
    .rows;
    let of = |fires: bool| -> Result<Vec<String>> {
        let rows = rows.iter().filter(|row| row.bool(1) == fires);
        rows.map(|row| row.text(0).map(str::to_owned)).collect()
    };
    Ok((of(false)?, of(true)?))
}

/// Returns an error if the current user may not keep triggers from firing.
pub fn may_skip() -> Result<()> {
    settings::try_value(SETTING.0, SETTING.1).map_err(|error| {
        let me = name::of_role(server::current_user());
        error.hint(format!(
            "The option \"triggers\": \"skip\" takes that right: as a superuser, GRANT SET ON PARAMETER {} TO {me};",
            SETTING.0
        ))
    })
}
