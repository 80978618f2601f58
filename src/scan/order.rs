//! The order of a walk: by a key, or by the pages of the table. Only [`decide`] chooses it: `plan`, `preview`, `start`, `procedure` and
//! the workers call it.

use crate::error::{Error, Result, sqlstate};
use crate::model::options::{Options, Walk};
use crate::scan::key::Candidate;

/// The requests of the owner that the order depends on.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Option `walk`.
    pub walk: Walk,
    /// Whether options limit the walk to a range of keys.
    pub bounded: bool,
    /// Whether the option `key` names an index.
    pub named: bool,
    /// Whether rows are only read, as in a dry run or a verification.
    pub read_only: bool,
}

impl Asked {
    /// Reads the options; `read_only` tells whether rows are only read.
    pub fn of(options: &Options, read_only: bool) -> Asked {
        Asked {
            walk: options.walk(),
            bounded: options.bounds().is_some(),
            named: options.key.is_some(),
            read_only,
        }
    }
}

/// Facts that decide whether the pages of a table may order its walk.
pub trait Pages {
    /// Returns the table's name, for errors.
    fn table(&self) -> &str;
    /// Returns why the table cannot be walked in physical order, as a phrase; `None` if it can.
    fn unsound(&self) -> Result<Option<String>>;
}

/// Further facts that the order depends on. Each is looked up only when requested: the last ones read rows.
pub trait Facts: Pages {
    /// Whether the WHERE clause names a column that is set.
    fn extinguishes(&self) -> bool;
    /// Returns the number of pages of the table.
    fn pages(&self) -> Result<i64>;
    /// Returns the correlation between the key's first column and the physical order of the rows, from -1 to 1, if it is known.
    fn correlation(&self, key: &Candidate) -> Result<Option<f64>>;
    /// Returns the planner's estimates of the table's rows and of the matching ones.
    fn planned(&self) -> Result<(f64, Option<f64>)>;
    /// Returns the number of rows in a sample of about [`LOOKED_AT`] rows, and how many of them match.
    fn sample(&self) -> Result<(f64, f64)>;
}

/// The order of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// By the columns of this index.
    Key(Box<Candidate>),
    /// By the pages of the table.
    Pages,
}

/// The orders that definitions allow. For `Either`, [`decide`] chooses one by the contents of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Possible {
    /// Only a key.
    Key(Box<Candidate>, Why),
    /// Only the pages.
    Pages(Why),
    /// Both a key and the pages.
    Either(Box<Candidate>),
}

/// Reason for the order of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Option `walk` says so.
    Walk,
    /// Options `key_from` and `key_to` need a key.
    Bounds,
    /// Option `key` names an index.
    Named,
    /// There is no key.
    NoKey,
    /// The table has a key, and no reason to prefer the pages.
    Best,
    /// A walk by pages would be unsound.
    Unsound,
    /// A walk by the key would read the pages in random order.
    Scattered,
    /// Few rows match, so the walk mostly reads.
    FewMatch,
}

impl Why {
    /// Returns the reason as a phrase.
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

/// Returns the orders that are possible for the walk of a table. `key` is the index that it would use, or the error that says why there
/// is none. Returns an error if neither a key nor the pages can order it.
pub fn possible(asked: Asked, key: Result<Candidate>, facts: &impl Pages) -> Result<Possible> {
    let by_key = |key, why| Ok(Possible::Key(Box::new(key), why));
    match (asked.walk, key) {
        (Walk::Key, key) => by_key(key?, Why::Walk),
        (Walk::Auto, Ok(key)) if asked.named => by_key(key, Why::Named),
        (Walk::Auto, Err(error)) if asked.named => Err(error),
        (Walk::Auto, Ok(key)) if asked.bounded => by_key(key, Why::Bounds),
        // Pages can't be limited by keys.
        (Walk::Auto | Walk::Physical, _) if asked.bounded => Err(no_bounds(facts.table())),
        // Rows that are not changed do not move: any table can be read page by page.
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

/// Decides the order of the walk of a table, and returns it with the reason. Arguments and errors are those of [`possible`].
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
    // The planner's estimate is not enough, since it knows nothing of a new column.
    let (rows, planned) = facts.planned()?;
    if planned.is_some_and(|planned| few(planned, rows)) {
        let (seen, matching) = facts.sample()?;
        if few_seen(matching, seen) {
            return Ok((Order::Pages, Why::FewMatch));
        }
    }
    Ok((Order::Key(key), Why::Best))
}

/// The kind of where_clause that a walk in physical order needs.
const FALLS_OUT: &str =
    "a where_clause that no longer holds for a row once it is updated, such as 'rate_new IS NULL'";

/// Why no table can be walked in physical order whose rows stay as they are.
pub const MOVES: &str =
    "a row that somebody updates meanwhile moves to another place, and would be met again there";

/// The error for a table that neither a key nor its pages can order, with what would help.
fn neither(mut no_key: Error, why: &str) -> Error {
    let detail = no_key.detail.take().unwrap_or_default();
    let hint = no_key.hint.take().unwrap_or_default();
    if why == MOVES {
        return no_key.detail(detail).hint(hint);
    }
    no_key
        .detail(format!("{detail} Nor can it be walked in physical order: {why}."))
        .hint(format!(
            "{hint} Without a key, the walk goes by the pages of the table: that takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE."
        ))
}

/// The error for key bounds on a table without a key.
pub fn no_bounds(table: &str) -> Error {
    Error::invalid(format!(
        "options \"key_from\" and \"key_to\" need a key to walk by, and table {table} goes in physical order"
    ))
    .hint("Leave them out, or give the table a unique index on columns that are NOT NULL.")
}

fn not_by_pages(table: &str, why: &str) -> Error {
    let error = Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!("table {table} cannot be walked in physical order: {why}"),
    );
    if why == MOVES {
        return error.hint("Leave the option \"walk\" out: the walk goes by a key.");
    }
    error.hint(format!(
        "It takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE. Without the option \"walk\" the walk goes by a key; CREATE UNIQUE INDEX CONCURRENTLY makes one without blocking writers."
    ))
}

/// Below this absolute correlation, rows of neighbouring keys are scattered over the table.
const SCATTERED: f64 = 0.5;
/// A table with fewer pages is in the cache after one pass in any order.
const SMALL: i64 = 1000;
/// Share of matching rows below which they are few.
const FEW: f64 = 0.02;
/// Number of rows to sample to find out whether few rows match.
pub const LOOKED_AT: f64 = 2_000.0;

/// Whether a table is so large that the order matters.
pub fn matters(pages: i64) -> bool {
    pages >= SMALL
}

/// Whether a walk by the key would read the pages in random order.
pub fn scattered(correlation: Option<f64>) -> bool {
    correlation.is_some_and(|c| c.abs() < SCATTERED)
}

/// Whether so few rows match that the walk mostly reads.
pub fn few(matching: f64, rows: f64) -> bool {
    matching < rows * FEW
}

/// Whether a sample of `seen` rows confirms that few rows match. A small sample does not.
pub fn few_seen(matching: f64, seen: f64) -> bool {
    seen >= LOOKED_AT / 4.0 && few(matching, seen)
}

/// Whether the WHERE clause probably becomes false for a row once the row is updated: it names a column that is set. Each batch checks
/// that it really does; this only avoids futile attempts.
pub fn extinguishes(where_clause: Option<&str>, set_columns: &[String]) -> bool {
    let clause = where_clause.unwrap_or_default().to_lowercase();
    let named = |column: &String| clause.contains(&column.to_lowercase());
    set_columns.iter().any(named)
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
