//! The options "key_from" and "key_to": whether they can be keys of the table.

use crate::catalog::job::Job;
use crate::catalog::walk;
use crate::error::{Error, Result};
use crate::job::bounds::Bounds;
use crate::job::options::Options;
use crate::pg::spi::{self, Arg, CANONICAL};
use crate::pg::{index, partition, role, settings};
use crate::plan::key::Candidate;

/// Refuses bounds that no key of this kind can have; `key` is the one that orders the walk, if one does.
pub fn check(options: &Options, table: &str, key: Option<&Candidate>) -> Result<()> {
    let Some(bounds) = options.bounds() else {
        return Ok(());
    };
    let Some(key) = key else {
        return Err(Error::invalid(format!(
            "options \"key_from\" and \"key_to\" need a key to walk by, and table {table} goes in physical order"
        ))
        .hint("Leave them out, or give the table a unique index on columns that are NOT NULL."));
    };
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
            let read = || settings::with(CANONICAL, || spi::query("SELECT $1", &[argument]));
            spi::in_subtransaction(read).map_err(|error| {
                Error::invalid(format!("option \"{name}\": {}", error.message)).hint(format!(
                    "It is a value of the key's column \"{}\", as psql shows it under DateStyle ISO.",
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

/// The same for a job that is there already: what it has begun with stays between the bounds.
pub fn check_altered(job: &Job, options: &Options) -> Result<()> {
    let begun = walk::pass(job.id)?.is_some();
    if begun && options.bounds().is_some() && job.definition.options.bounds().is_none() {
        return Err(Error::invalid(format!(
            "backfill {} has begun to walk all of table {}",
            job.shown(),
            job.relation_name
        ))
        .hint("Bounds can be widened, not brought in. The option \"limit_rows\" lets it pause after so many rows."));
    }
    // As the owner: types of his may call functions of his.
    role::acting_as(job.owner, || {
        let key = key_of(job)?;
        check(options, &job.relation_name, key.as_ref())?;
        match (walk::bounds(job.id)?, key) {
            (Some(covered), Some(key)) => {
                refuse_moved(job, &key, &covered, &options.bounds().unwrap_or_default())
            }
            _ => Ok(()),
        }
    })
}

/// Refuses bounds that leave out what the walk has begun with: what lies between these and those would be done.
fn refuse_moved(job: &Job, key: &Candidate, covered: &Bounds, wanted: &Bounds) -> Result<()> {
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
        "option \"{name}\" of backfill {} is {} and cannot become {}",
        job.shown(),
        shown(old),
        shown(new)
    ))
    .hint("Bounds can be widened only. For rows elsewhere, start another job."))
}

/// Whether a bound lies as far out as another one; none lies furthest.
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

/// The key that orders the walk, if one does.
fn key_of(job: &Job) -> Result<Option<Candidate>> {
    let mut tables = vec![job.relation];
    tables.extend(partition::leaves(job.relation)?.iter().map(|leaf| leaf.oid));
    for table in tables {
        let mut candidates = index::candidates(table)?.into_iter();
        let key = candidates.find(|c| c.column_names() == job.definition.key_columns);
        if key.is_some() {
            return Ok(key);
        }
    }
    Ok(None)
}
