//! The facts that decide how a table is walked, read from the server's current state: the key, and whether its pages may order the walk.

use pgrx::pg_sys;

use crate::action::{Action, Changes};
use crate::error::Result;
use crate::model::row_lock::RowLock;
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::pg::{clauses, evaluate, heap, hot, partition, physical};
use crate::scan::key::{self, Candidate, Wanted};
use crate::scan::order::{self, Facts, Pages};
use crate::scan::sql::Target;
use crate::table::index;

/// A table to be walked: the one that a job is on, or a partition of it. Its facts are looked up when they are requested, as the current
/// user and in a session of the clauses' owner, within `spi::connect`.
#[derive(Debug, Clone, Copy)]
pub struct Walked<'a> {
    /// The table.
    pub table: &'a Relation,
    /// The table that the job is on.
    pub root: &'a Relation,
    /// The WHERE clause.
    pub where_clause: Option<&'a str>,
    /// The changes of the table's rows, or those that are only looked at.
    pub changes: &'a Changes,
    /// Whether only triggers fire that fire in a replica, too.
    pub skips_triggers: bool,
}

impl Walked<'_> {
    /// Returns the name that the clauses use for the table if it is not the table's own: that of the partitioned table.
    fn known_as(&self) -> Option<&str> {
        (self.table.oid != self.root.oid).then_some(self.root.name.as_str())
    }

    fn target(&self) -> Target {
        Target {
            schema: self.table.schema.clone(),
            relation: self.table.name.clone(),
            alias: self.known_as().map(str::to_owned),
            key: Vec::new(),
            where_clause: self.where_clause.map(str::to_owned),
            lock: RowLock::NoKeyUpdate,
        }
    }
}

/// Returns the index that a walk of `table` would use, or the error that says why there is none. `named` is the option `key`; `settled`
/// are the key columns with which a job on `root` was defined.
pub fn key(
    table: &Relation,
    root: &Relation,
    named: Option<&str>,
    settled: &[String],
    written: &[String],
) -> Result<Candidate> {
    let mine = match named {
        Some(name) => partition::index_named(table.oid, root.oid, name)?,
        None => None,
    };
    // Indexes are not inherited: a table that inherits uses a key of its own.
    let child = root.kind == 'r' && table.oid != root.oid;
    let wanted = Wanted {
        // If the name matches no index, the error is about that name.
        named: mine.as_deref().or(named.filter(|_| !child)),
        columns: if table.oid == root.oid { settled } else { &[] },
        written,
    };
    key::pick(index::candidates(table.oid)?, wanted, &table.shown)
}

impl Pages for Walked<'_> {
    fn table(&self) -> &str {
        &self.table.shown
    }

    fn unsound(&self) -> Result<Option<String>> {
        let update = match self.changes {
            Changes::Update(update) if update.only_by_key().is_none() => update,
            Changes::Update(update) => return Ok(update.only_by_key().map(str::to_owned)),
            // A row that is deleted does not match again.
            Changes::Delete(_) => return physical::unreadable(self.table.oid),
            Changes::Copy(_) | Changes::Execute(_) => return Ok(Some(order::MOVES.to_owned())),
        };
        let (clause, known_as) = (self.where_clause, self.known_as());
        let why = physical::unsound(self.table.oid, known_as, clause, self.skips_triggers)?;
        if why.is_some() {
            return Ok(why);
        }
        let falls_out = match clause {
            Some(clause) => {
                physical::can_fall_out(self.table, known_as, clause, &update.set_columns)?
            }
            None => true,
        };
        Ok((!falls_out).then(|| {
            "set_clause sets no column that where_clause reads, so a row that is done would match again".to_owned()
        }))
    }
}

impl Facts for Walked<'_> {
    fn extinguishes(&self) -> bool {
        let action = self.changes.as_action();
        action.excludes_itself(self.where_clause)
    }

    fn pages(&self) -> Result<i64> {
        Ok(heap::pages(self.table.oid)?.unwrap_or_default().0)
    }

    fn correlation(&self, key: &Candidate) -> Result<Option<f64>> {
        let first = key.columns.first().map_or("", |c| c.name.as_str());
        hot::correlation(self.table.oid, first)
    }

    fn planned(&self) -> Result<(f64, Option<f64>)> {
        let rows = relation::estimate_rows(self.table.oid).unwrap_or_default();
        let from = self.table.alone(self.known_as());
        let clause = self.where_clause.unwrap_or("true");
        Ok((rows as f64, clauses::estimate_matches(&from, clause)?))
    }

    fn sample(&self) -> Result<(f64, f64)> {
        let rows = relation::estimate_rows(self.table.oid).unwrap_or_default();
        sample(&self.target(), rows as f64, order::LOOKED_AT)
    }
}

/// Returns the current number of rows of a table, from a count on a sample of at most `most_pages` of its pages; `None` if it is zero or
/// unknown. If PostgreSQL's own estimate is near the count, the estimate is used instead: it is exact after ANALYZE, but ignores pages
/// that only dead rows have filled since.
pub fn rows(target: &Target, table: pg_sys::Oid, most_pages: f64) -> Result<Option<f64>> {
    /// Relative error that the count of a sample may have.
    const NEAR: f64 = 0.2;
    let Some((pages, _)) = heap::pages(table)?.filter(|(pages, _)| *pages > 0) else {
        return Ok(relation::estimate_rows(table).map(|rows| rows as f64));
    };
    let planned = relation::estimate_rows(table).unwrap_or_default() as f64;
    let percent = (most_pages * 100.0 / pages as f64).clamp(0.0001, 100.0);
    let shown = percent.to_string();
    let statement = target.sample_count();
    let args = [Arg::Typed(pg_sys::FLOAT4OID, &shown)];
    let count = || evaluate::read_only(|| spi::first(&statement.text, &args));
    let counted = match spi::undone(count)? {
        Some(row) => row.number(0)? as f64 * 100.0 / percent,
        None => return Ok(Some(planned).filter(|rows| *rows > 0.0)),
    };
    let near = (counted - planned).abs() <= planned * NEAR && percent < 100.0;
    Ok(Some(if near { planned } else { counted }).filter(|rows| *rows > 0.0))
}

/// Reads about `wanted` rows of a table with `rows` rows, from pages all over it. Returns how many there were, and how many of them match.
/// Changes nothing.
pub fn sample(target: &Target, rows: f64, wanted: f64) -> Result<(f64, f64)> {
    let percent = (wanted * 100.0 / rows.max(1.0))
        .clamp(0.0001, 100.0)
        .to_string();
    let args = [Arg::Typed(pg_sys::FLOAT4OID, &percent)];
    let statement = target.sample_matches();
    let look = || evaluate::read_only(|| spi::first(&statement.text, &args));
    let Some(row) = spi::undone(look)? else {
        return Ok((0.0, 0.0));
    };
    Ok((row.number(0)? as f64, row.number(1)? as f64))
}
