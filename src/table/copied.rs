//! The table that gets what a copy inserts: which of its columns are filled, and what it would do with the others.

use pgrx::pg_sys::Oid;

use crate::action::{Asked, Copy};
use crate::error::{Error, Result, sqlstate};
use crate::model::row_lock::RowLock;
use crate::pg::elevate::as_extension;
use crate::pg::parts;
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::pg::triggers;
use crate::quote::{ident, qualified};
use crate::scan::key::Candidate;
use crate::scan::sql::Target;
use crate::table::index;

/// A column that is filled by the copy, and otherwise from a sequence, which then stays behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The statement that sets the sequence to the greatest value of the column.
    pub statement: String,
    /// Name of the column.
    pub column: String,
}

/// Returns how rows of `source` go into `target`. Both tables must be locked. Within `spi::connect`; the caller's own text.
pub fn of(source: &Relation, target: &Relation, asked: Asked, lock: RowLock) -> Result<Copy> {
    if target.oid == source.oid {
        return Err(Error::invalid(format!(
            "source and target are the same table: {}",
            target.shown
        ))
        .hint("Name another target. Columns of the same rows are set by backfill.start()."));
    }
    triggers::refuse_rule_on_insert(target.oid, &target.shown)?;
    let columns = match &asked.columns {
        Some(text) => named(target, text)?,
        None => same_names(source, target)?,
    };
    let select_list = match &asked.select_list {
        Some(text) => {
            fits(&columns, text)?;
            text.clone()
        }
        None => values(source, &columns)?,
    };
    refuse_missing(source, target, &columns)?;
    let identity = |name: &String| {
        let mut its = target.columns.iter();
        its.any(|column| column.name == *name && column.identity_always)
    };
    Ok(Copy {
        target: target.oid.to_u32(),
        schema: target.schema.clone(),
        name: target.name.clone(),
        overriding: columns.iter().any(identity),
        columns,
        select_list,
        on_conflict: match &asked.on_conflict {
            Some(text) => on_conflict(text)?,
            None => None,
        },
        lock,
        asked,
    })
}

/// Returns the copy with the present names of its target, which must be locked.
pub fn renewed(copy: &Copy, target: &Relation) -> Result<Copy> {
    triggers::refuse_rule_on_insert(target.oid, &target.shown)?;
    Ok(Copy {
        schema: target.schema.clone(),
        name: target.name.clone(),
        ..copy.clone()
    })
}

/// Returns what follows ON CONFLICT, for the argument of that name; `None` where a conflict is an error.
fn on_conflict(text: &str) -> Result<Option<String>> {
    match text.to_ascii_lowercase().as_str() {
        "error" => return Ok(None),
        "nothing" => return Ok(Some("DO NOTHING".to_owned())),
        _ => {}
    }
    let word = |text: &str, word: &str| {
        let first = text.get(..word.len())?;
        let rest = &text[word.len()..];
        let ends = first.eq_ignore_ascii_case(word) && !rest.starts_with(char::is_alphanumeric);
        ends.then(|| rest.trim_start().to_owned())
    };
    // With or without the words that it follows.
    let after = word(text, "on").and_then(|rest| word(&rest, "conflict"));
    let what = after.unwrap_or_else(|| text.to_owned());
    let begins =
        what.starts_with('(') || word(&what, "do").is_some() || word(&what, "on").is_some();
    match begins {
        true => Ok(Some(what)),
        false => Err(Error::invalid(format!(
            "on_conflict must be error, nothing, or what follows ON CONFLICT, not \"{text}\""
        ))
        .hint("Write for example '(id) DO UPDATE SET note = excluded.note'.")),
    }
}

/// Returns the columns that the argument `columns` names; each must be there once, and take a value.
fn named(target: &Relation, text: &str) -> Result<Vec<String>> {
    let names = parts::column_list(text)?;
    for (at, name) in names.iter().enumerate() {
        let wrong = |what: &str, hint: String| {
            let message = format!("column \"{name}\" of table {} {what}", target.shown);
            Err(Error::new(sqlstate::INVALID_COLUMN_REFERENCE, message).hint(hint))
        };
        match target.columns.iter().find(|column| column.name == *name) {
            _ if names[..at].contains(name) => {
                return wrong("is named twice in columns", "Name it once.".to_owned());
            }
            None => {
                let all: Vec<&str> = target.columns.iter().map(|c| c.name.as_str()).collect();
                return wrong(
                    "does not exist",
                    format!("Columns of {}: {}.", target.shown, all.join(", ")),
                );
            }
            Some(column) if column.generated => {
                return wrong("is generated", "Leave it out of columns.".to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(names)
}

/// Returns the columns of the target that the source has, too.
fn same_names(source: &Relation, target: &Relation) -> Result<Vec<String>> {
    let its = |name: &str| source.columns.iter().any(|column| column.name == name);
    let columns = target.columns.iter().filter(|column| !column.generated);
    let names: Vec<String> = columns
        .filter(|column| its(&column.name))
        .map(|column| column.name.clone())
        .collect();
    match names.is_empty() {
        false => Ok(names),
        true => Err(Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!(
                "tables {} and {} have no column of the same name",
                source.shown, target.shown
            ),
        )
        .hint("Say which columns of the target get which values: columns => 'a, b', select_list => 'x, y + 1'.")),
    }
}

/// Returns the names of the source's columns that the target's columns get.
fn values(source: &Relation, columns: &[String]) -> Result<String> {
    for name in columns {
        if !source.columns.iter().any(|column| column.name == *name) {
            return Err(Error::new(
                sqlstate::UNDEFINED_COLUMN,
                format!("column \"{name}\" does not exist in table {}", source.shown),
            )
            .hint("Give select_list, which has a value for each of the columns."));
        }
    }
    let names: Vec<String> = columns.iter().map(|name| ident(name)).collect();
    Ok(names.join(", "))
}

/// Refuses a select list with another number of values than there are columns.
fn fits(columns: &[String], select_list: &str) -> Result<()> {
    match parts::select_list(select_list)? {
        Some(values) if values != columns.len() => Err(Error::new(
            sqlstate::SYNTAX_ERROR,
            format!(
                "select_list has {values} values for {} columns",
                columns.len()
            ),
        )
        .hint("Each column gets one value, in the same order.")),
        _ => Ok(()),
    }
}

/// Refuses a target with a column that must have a value, and would get none.
fn refuse_missing(source: &Relation, target: &Relation, columns: &[String]) -> Result<()> {
    let missing =
        as_extension(|| spi::kept_first(MISSING, &[Arg::Oid(target.oid), Arg::Texts(columns)]))?;
    let Some(row) = missing else {
        return Ok(());
    };
    let column = row.text(0)?;
    Err(Error::new(
        sqlstate::NOT_NULL_VIOLATION,
        format!(
            "column \"{column}\" of table {} must not be NULL, and gets no value",
            target.shown
        ),
    )
    .hint(format!(
        "Table {} has no column of this name, or it is not among the columns. Give it a value in columns and select_list, or a DEFAULT.",
        source.shown
    )))
}

/// Returns the columns that the copy fills though a sequence would. Within `spi::connect`.
pub fn sequences(copy: &Copy) -> Result<Vec<Behind>> {
    let args = [Arg::Oid(Oid::from(copy.target)), Arg::Texts(&copy.columns)];
    let rows = as_extension(|| spi::kept(SEQUENCES, &args))?.rows;
    let behind = |row: &spi::Row| {
        Ok(Behind {
            column: row.text(0)?.to_owned(),
            statement: row.text(1)?.to_owned(),
        })
    };
    rows.iter().map(behind).collect()
}

/// Query for a column of the table `$1` that is NOT NULL, has no default of any kind, and is not one of `$2`.
const MISSING: &str = "
SELECT a.attname FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
  AND NOT a.attname = ANY ($2)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid AND t.typdefault IS NOT NULL)
ORDER BY a.attnum LIMIT 1";

/// Query for the columns `$2` of the table `$1` that own a sequence, with the statement that takes it past the greatest value.
const SEQUENCES: &str = "
SELECT a.attname,
       pg_catalog.format('SELECT pg_catalog.setval(%L, (SELECT max(%I) FROM %s))', d.objid::pg_catalog.regclass, a.attname, $1::pg_catalog.regclass)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = a.attrelid
     AND d.refobjsubid = a.attnum AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE a.attrelid = $1 AND NOT a.attisdropped AND a.attname = ANY ($2)
ORDER BY a.attnum";

/// Returns the condition that is true of a row of the source whose row is in the target: found by a unique index on columns that the copy
/// fills; the other columns are compared, unless what is there already may be another row.
pub fn check(copy: &Copy) -> Result<String> {
    let target = relation::describe(Oid::from(copy.target))?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!(
                "table {} no longer exists",
                qualified(&copy.schema, &copy.name)
            ),
        )
        .hint("There is nothing to compare with.")
    })?;
    let filled = |index: &Candidate| {
        let mut names = index.columns.iter().map(|column| &column.name);
        names.all(|name| copy.columns.contains(name))
    };
    let indexes = index::candidates(target.oid)?.into_iter();
    let Some(found) = indexes
        .filter(|index| index.unique && index.unusable().is_none())
        .find(filled)
    else {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "rows of table {} cannot be told apart: it has no unique index on columns that the copy fills, all NOT NULL",
                target.shown
            ),
        )
        .hint("CREATE UNIQUE INDEX CONCURRENTLY makes one, or say what is to be true of each row of the source: check_clause => 'EXISTS (...)'."));
    };
    let types = types(&target)?;
    let values: Vec<String> = (1..=copy.columns.len()).map(|n| format!("v{n}")).collect();
    let value = |name: &String| -> Result<String> {
        let at = copy
            .columns
            .iter()
            .position(|column| column == name)
            .unwrap_or_default();
        let of_type = types.iter().find(|(column, _)| column == name);
        let of_type = of_type.ok_or_else(|| {
            Error::new(
                sqlstate::UNDEFINED_COLUMN,
                format!(
                    "column \"{name}\" of table {} no longer exists",
                    target.shown
                ),
            )
            .hint(
                "Say what is to be true of each row of the source: check_clause => 'EXISTS (...)'.",
            )
        })?;
        Ok(format!("CAST({COPIED}.{} AS {})", values[at], of_type.1))
    };
    let key = found.column_names();
    let there = Target {
        schema: target.schema.clone(),
        relation: target.name.clone(),
        alias: Some(THERE.to_owned()),
        key: found.columns.clone(),
        where_clause: None,
        lock: RowLock::None,
    };
    let keys: Vec<String> = key.iter().map(value).collect::<Result<_>>()?;
    let mut conditions = vec![there.compared("=", &keys)];
    if copy.on_conflict.is_none() {
        for name in copy.columns.iter().filter(|name| !key.contains(name)) {
            conditions.push(format!(
                "{}.{} IS NOT DISTINCT FROM {}",
                ident(THERE),
                ident(name),
                value(name)?
            ));
        }
    }
    Ok(format!(
        "EXISTS (SELECT FROM (SELECT {}) AS {COPIED} ({}), {} WHERE {})",
        copy.select_list,
        values.join(", "),
        there.item(),
        conditions.join(" AND ")
    ))
}

/// Returns the type of each column, as it is written in a statement: with its schema, unless it is PostgreSQL's own.
fn types(table: &Relation) -> Result<Vec<(String, String)>> {
    let rows = as_extension(|| spi::kept(TYPES, &[Arg::Oid(table.oid)]))?.rows;
    let of_type = |row: &spi::Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    rows.iter().map(of_type).collect()
}

const TYPES: &str = "
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// Names for the values of a row and for the target in a condition.
const COPIED: &str = "\"backfill copied\"";
const THERE: &str = "backfill target";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_word_or_follows_on_conflict() {
        let action = |text| on_conflict(text).unwrap();
        assert_eq!(action("Error"), None);
        assert_eq!(action("nothing").as_deref(), Some("DO NOTHING"));
        for text in ["(a) DO NOTHING", "ON CONSTRAINT c DO NOTHING", "do nothing"] {
            assert_eq!(action(text).as_deref(), Some(text));
        }
        assert_eq!(
            action("on  Conflict(a) DO NOTHING").as_deref(),
            Some("(a) DO NOTHING")
        );
        for text in ["ignore", "a", "onconflict", "donothing", "\u{e9}"] {
            assert!(on_conflict(text).is_err(), "{text}");
        }
    }
}
