//! The order of a walk: by a key, or by the pages of the table. [`decide`] is the one place that says which: `plan`,
//! `preview`, `start`, `procedure` and the workers ask it.

use crate::error::{Error, Result, sqlstate};
use crate::model::options::{Options, Walk};
use crate::scan::key::Candidate;

/// What the owner has asked for, as far as the order depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Option `walk`.
    pub walk: Walk,
    /// Whether options bound the walk by keys.
    pub bounded: bool,
    /// Whether the option `key` names an index.
    pub named: bool,
    /// Whether rows are only read: a dry run, a verification.
    pub read_only: bool,
}

impl Asked {
    /// By these options; `read_only` says whether rows are only read.
    pub fn of(options: &Options, read_only: bool) -> Asked {
        Asked {
            walk: options.walk(),
            bounded: options.bounds().is_some(),
            named: options.key.is_some(),
            read_only,
        }
    }
}

/// Whether the pages of a table may order its walk.
pub trait Pages {
    /// The table's name, for errors.
    fn table(&self) -> &str;
    /// Why the table cannot be walked in physical order, as a phrase; `None` where it can.
    fn unsound(&self) -> Result<Option<String>>;
}

/// What the order depends on besides. Each is looked up when it is asked for: the last ones read rows.
pub trait Facts: Pages {
    /// Whether the WHERE clause names a column that is set.
    fn extinguishes(&self) -> bool;
    /// Pages of the table.
    fn pages(&self) -> Result<i64>;
    /// Correlation of the key's first column and the place of the rows, from -1 to 1, if it is known.
    fn correlation(&self, key: &Candidate) -> Result<Option<f64>>;
    /// Rows of the table, by the planner's estimate, and how many of them match by it.
    fn planned(&self) -> Result<(f64, Option<f64>)>;
    /// Rows of a sample of [`LOOKED_AT`] rows, and how many of them match.
    fn sample(&self) -> Result<(f64, f64)>;
}

/// What orders a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The columns of this index.
    Key(Box<Candidate>),
    /// The pages of the table.
    Pages,
}

/// What may order a walk, as far as definitions tell: of `Either`, [`decide`] takes one by what the table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Possible {
    /// A key alone.
    Key(Box<Candidate>, Why),
    /// The pages alone.
    Pages(Why),
    /// Both.
    Either(Box<Candidate>),
}

/// Why a walk goes in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Option `walk`.
    Walk,
    /// Options `key_from` and `key_to`.
    Bounds,
    /// Option `key`.
    Named,
    /// There is no key.
    NoKey,
    /// The table has a key, and nothing speaks for its pages.
    Best,
    /// The pages would not do.
    Unsound,
    /// Going by the key would read pages in no order.
    Scattered,
    /// Few rows match, so the walk mostly reads.
    FewMatch,
}

impl Why {
    /// As a phrase.
    pub fn shown(self) -> &'static str {
        match self {
            Why::Walk => "option \"walk\"",
            Why::Bounds => "options \"key_from\" and \"key_to\"",
            Why::Named => "option \"key\"",
            Why::NoKey => "it has no key to go by",
            Why::Best | Why::Unsound => "its best unique index",
            Why::Scattered => "neighbours by key are all over the table",
            Why::FewMatch => "few rows match",
        }
    }
}

/// What may order the walk of a table. `key` is the index that it would go by, or the error that says why there is none.
/// An error if neither a key nor its pages can.
pub fn possible(asked: Asked, key: Result<Candidate>, facts: &impl Pages) -> Result<Possible> {
    let by_key = |key, why| Ok(Possible::Key(Box::new(key), why));
    match (asked.walk, key) {
        (Walk::Key, key) => by_key(key?, Why::Walk),
        (Walk::Auto, Ok(key)) if asked.named => by_key(key, Why::Named),
        (Walk::Auto, Err(error)) if asked.named => Err(error),
        (Walk::Auto, Ok(key)) if asked.bounded => by_key(key, Why::Bounds),
        // Pages know nothing of keys.
        (Walk::Auto | Walk::Physical, _) if asked.bounded => Err(no_bounds(facts.table())),
        // What is not changed does not move: any table can be read page by page.
        (Walk::Auto, Ok(key)) if asked.read_only => by_key(key, Why::Best),
        (Walk::Auto, Ok(key)) => Ok(Possible::Either(Box::new(key))),
        (Walk::Auto, Err(_)) if asked.read_only => Ok(Possible::Pages(Why::NoKey)),
        (Walk::Physical, _) if asked.read_only => Ok(Possible::Pages(Why::Walk)),
        (Walk::Auto, Err(error)) => match facts.unsound()? {
            None => Ok(Possible::Pages(Why::NoKey)),
            Some(why) => Err(neither(error, &why)),
        },
        (Walk::Physical, _) => match facts.unsound()? {
            None => Ok(Possible::Pages(Why::Walk)),
            Some(why) => Err(not_by_pages(facts.table(), &why)),
        },
    }
}

/// What orders the walk of a table, and why. Arguments and errors are those of [`possible`].
pub fn decide(asked: Asked, key: Result<Candidate>, facts: &impl Facts) -> Result<(Order, Why)> {
    let key = match possible(asked, key, facts)? {
        Possible::Key(key, why) => return Ok((Order::Key(key), why)),
        Possible::Pages(why) => return Ok((Order::Pages, why)),
        Possible::Either(key) => key,
    };
    if !facts.extinguishes() || !matters(facts.pages()?) {
        return Ok((Order::Key(key), Why::Best));
    }
    if facts.unsound()?.is_some() {
        return Ok((Order::Key(key), Why::Unsound));
    }
    if scattered(facts.correlation(&key)?) {
        return Ok((Order::Pages, Why::Scattered));
    }
    // The planner's word is not enough, since it knows nothing of a new column.
    let (rows, planned) = facts.planned()?;
    if planned.is_some_and(|planned| few(planned, rows)) {
        let (seen, matching) = facts.sample()?;
        if few_seen(matching, seen) {
            return Ok((Order::Pages, Why::FewMatch));
        }
    }
    Ok((Order::Key(key), Why::Best))
}

/// What a where_clause has to be like for a walk in physical order.
const FALLS_OUT: &str =
    "a where_clause that no longer holds for a row once it is updated, such as 'rate_new IS NULL'";

/// That there is no key, nor can the pages order the walk, and what would help.
fn neither(mut no_key: Error, why: &str) -> Error {
    let detail = no_key.detail.take().unwrap_or_default();
    let hint = no_key.hint.take().unwrap_or_default();
    no_key
        .detail(format!("{detail} Nor can it be walked in physical order: {why}."))
        .hint(format!(
            "{hint} Without a key, the walk goes by the pages of the table: that takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE."
        ))
}

/// The error of bounds where there is no key that they could be of.
pub fn no_bounds(table: &str) -> Error {
    Error::invalid(format!(
        "options \"key_from\" and \"key_to\" need a key to walk by, and table {table} goes in physical order"
    ))
    .hint("Leave them out, or give the table a unique index on columns that are NOT NULL.")
}

fn not_by_pages(table: &str, why: &str) -> Error {
    Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!("table {table} cannot be walked in physical order: {why}"),
    )
    .hint(format!(
        "It takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE. Without the option \"walk\" the walk goes by a key; CREATE UNIQUE INDEX CONCURRENTLY makes one without blocking writers."
    ))
}

/// Below this correlation of key and place, rows of neighbouring keys are all over the table.
const SCATTERED: f64 = 0.5;
/// A table of fewer pages is in the cache after one pass in any order.
const SMALL: i64 = 1000;
/// Fewer matching rows than this share are few.
const FEW: f64 = 0.02;
/// Rows to look at to see whether they are.
pub const LOOKED_AT: f64 = 2_000.0;

/// Whether a table is large enough for it to matter.
pub fn matters(pages: i64) -> bool {
    pages >= SMALL
}

/// Whether going by the key would read pages in no order.
pub fn scattered(correlation: Option<f64>) -> bool {
    correlation.is_some_and(|c| c.abs() < SCATTERED)
}

/// Whether so few rows match that the walk mostly reads.
pub fn few(matching: f64, rows: f64) -> bool {
    matching < rows * FEW
}

/// Whether a sample of `seen` rows says so, too.
pub fn few_seen(matching: f64, seen: f64) -> bool {
    seen >= LOOKED_AT / 4.0 && few(matching, seen)
}

/// Whether the WHERE clause may well be false of a row once it is updated: it names a column that is
/// set. That it is false is seen with each batch; here it only spares a vain attempt.
pub fn extinguishes(where_clause: Option<&str>, set_columns: &[String]) -> bool {
    let clause = where_clause.unwrap_or_default().to_lowercase();
    let named = |column: &String| clause.contains(&column.to_lowercase());
    set_columns.iter().any(named)
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
