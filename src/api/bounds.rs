//! The options "key_from" and "key_to": whether they can be keys of the table.

use crate::catalog::job::Job;
use crate::catalog::walk;
use crate::error::{Error, Result};
use crate::job::options::Options;
use crate::pg::spi::{self, Arg, CANONICAL};
use crate::pg::{index, partition, settings};
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
    for (name, values) in [("key_from", bounds.from), ("key_to", bounds.to)] {
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
        for (column, value) in key.columns.iter().zip(&values) {
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
    Ok(())
}

/// The same for a job that is there already.
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
    let mut tables = vec![job.relation];
    tables.extend(partition::leaves(job.relation)?.iter().map(|leaf| leaf.oid));
    let mut key = None;
    for table in tables {
        let mut candidates = index::candidates(table)?.into_iter();
        key = candidates.find(|c| c.column_names() == job.definition.key_columns);
        if key.is_some() {
            break;
        }
    }
    check(options, &job.relation_name, key.as_ref())
}
