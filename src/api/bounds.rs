//! Checks of the options `key_from` and `key_to`: whether they can be keys of the table.

use std::collections::BTreeMap;
use std::ffi::CStr;

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::bounds::{Bounds, KeyText};
use crate::model::options::Options;
use crate::pg::spi::{self, Arg};
use crate::pg::{arg, partition, settings};
use crate::scan::key::{Candidate, Column};
use crate::scan::order;
use crate::store::job::Job;
use crate::store::walk;
use crate::table::index;

/// Settings under which bounds are written down, once they have been read under those of the session.
const ISO: &[(&CStr, &CStr)] = &[
    (c"DateStyle", c"ISO"),
    (c"IntervalStyle", c"postgres"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
];

/// Refuses bounds that no key of the table can have; `key` is the one that orders the walk, if there is one.
///
/// Reading a value of a type, and comparing two values, may call functions of the type's author. Within a session of
/// the bounds' owner.
pub fn check(options: &Options, table: &str, key: Option<&Candidate>) -> Result<()> {
    let Some(bounds) = options.bounds() else {
        return Ok(());
    };
    let Some(key) = key else {
        return Err(order::no_bounds(table));
    };
    check_values(&bounds, table, key)
}

fn check_values(bounds: &Bounds, table: &str, key: &Candidate) -> Result<()> {
    for (name, values) in [("key_from", &bounds.from), ("key_to", &bounds.to)] {
        let Some(values) = values else { continue };
        let names = key.column_names();
        if values.len() != names.len() {
            return Err(Error::invalid(format!(
                "option \"{name}\" has {} values, but the key of table {table} is ({})",
                values.len(),
                names.join(", ")
            ))
            .hint(
                "Give a value for each column of the key, in an array where there are several.",
            ));
        }
        for (column, value) in key.columns.iter().zip(values) {
            let argument = Arg::Typed(column.type_oid.into(), value);
            spi::in_subtransaction(|| spi::query("SELECT $1", &[argument])).map_err(|error| {
                Error::invalid(format!("option \"{name}\": {}", error.message)).hint(format!(
                    "It is a value of the key's column \"{}\", as psql shows it.",
                    column.name
                ))
            })?;
        }
    }
    if let (Some(from), Some(to)) = (&bounds.from, &bounds.to)
        && !index::in_order(key, from, to)?
    {
        let shown = |values: &[String]| values.join(", ");
        return Err(Error::invalid(format!(
            "option \"key_from\" ({}) comes after \"key_to\" ({})",
            shown(from),
            shown(to)
        ))
        .hint("The walk goes from \"key_from\" to \"key_to\", the bounds included."));
    }
    Ok(())
}

/// Returns the options with bounds that mean the same under all settings. The bounds are read under the settings in
/// `reading` and otherwise those of the session, as values of the table's key with these columns. Within a session of
/// the owner's.
pub fn settle(
    table: (Oid, &str),
    columns: &[String],
    options: Options,
    reading: &BTreeMap<String, String>,
) -> Result<Options> {
    if options.bounds().is_none() {
        return Ok(options);
    }
    let (oid, shown) = table;
    let key = key_of(oid, columns)?;
    settings::nested(|| {
        for (name, value) in reading {
            settings::set_text_local(name, value)?;
        }
        check(&options, shown, key.as_ref())?;
        let settled = |bound: &Option<KeyText>| match (bound, &key) {
            (Some(bound), Some(key)) => in_iso_form(bound, key).map(Some),
            _ => Ok(bound.clone()),
        };
        Ok(Options {
            key_from: settled(&options.key_from)?,
            key_to: settled(&options.key_to)?,
            ..options.clone()
        })
    })
}

/// Rewrites a key so that values whose meaning depends on settings are in ISO 8601 form, with the time zone.
fn in_iso_form(bound: &KeyText, key: &Candidate) -> Result<KeyText> {
    if !key.columns.iter().any(Column::depends_on_settings) {
        return Ok(bound.clone());
    }
    let mut texts = bound.texts();
    for (column, text) in key.columns.iter().zip(&mut texts) {
        let of_type = column.type_oid.into();
        *text = spi::in_subtransaction(|| arg::text_under(ISO, of_type, text))?;
    }
    Ok(KeyText::from(texts))
}

/// Returns the bounds of the walk that a job has begun, which may be open; `None` if it has not begun.
pub fn covered(job: &Job) -> Result<Option<Bounds>> {
    if walk::pass(job.id)?.is_none() {
        return Ok(None);
    }
    Ok(Some(walk::bounds(job.id)?.unwrap_or_default()))
}

/// Refuses bounds that leave out a part of what a job has begun to walk. Within a session of the owner's, with options
/// from [`settle`].
pub fn refuse_narrowed(
    job: &str,
    relation_name: &str,
    key: (Oid, &[String]),
    options: &Options,
    covered: &Bounds,
) -> Result<()> {
    let wanted = options.bounds().unwrap_or_default();
    if covered.is_open() && !wanted.is_open() {
        return Err(Error::invalid(format!(
            "backfill {job} has begun to walk all of table {relation_name}"
        ))
        .hint("Bounds can be widened, not brought in. The option \"limit_rows\" lets it pause after so many rows."));
    }
    match key_of(key.0, key.1)? {
        Some(key) => refuse_moved(job, &key, covered, &wanted),
        None => Ok(()),
    }
}

/// Refuses bounds that leave out a part of the range `covered`, since rows there may be done already.
fn refuse_moved(job: &str, key: &Candidate, covered: &Bounds, wanted: &Bounds) -> Result<()> {
    let before = |new: &[String], old: &[String]| index::in_order(key, new, old);
    let after = |new: &[String], old: &[String]| index::in_order(key, old, new);
    let (name, new, old) = if !reaches(&wanted.from, &covered.from, before)? {
        ("key_from", &wanted.from, &covered.from)
    } else if !reaches(&wanted.to, &covered.to, after)? {
        ("key_to", &wanted.to, &covered.to)
    } else {
        return Ok(());
    };
    let shown = |bound: &Option<Vec<String>>| match bound {
        Some(values) => format!("({})", values.join(", ")),
        None => "none".to_owned(),
    };
    Err(Error::invalid(format!(
        "option \"{name}\" of backfill {job} is {} and cannot become {}",
        shown(old),
        shown(new)
    ))
    .hint("Bounds can be widened only. For rows elsewhere, start another job."))
}

/// True if the bound `new` lies at least as far out as `old`; no bound lies furthest.
fn reaches(
    new: &Option<Vec<String>>,
    old: &Option<Vec<String>>,
    in_order: impl Fn(&[String], &[String]) -> Result<bool>,
) -> Result<bool> {
    match (new, old) {
        (None, _) => Ok(true),
        (Some(_), None) => Ok(false),
        (Some(new), Some(old)) => in_order(new, old),
    }
}

/// Returns the key with these columns, of the table or else of one of its partitions.
fn key_of(relation: Oid, columns: &[String]) -> Result<Option<Candidate>> {
    let mut tables = vec![relation];
    tables.extend(
        partition::leaves(relation, false)?
            .iter()
            .map(|leaf| leaf.oid),
    );
    for table in tables {
        let mut candidates = index::candidates(table)?.into_iter();
        let key = candidates.find(|c| c.column_names() == columns);
        if key.is_some() {
            return Ok(key);
        }
    }
    Ok(None)
}
