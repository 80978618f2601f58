//! Cutting a table by its keys: the whole table, or the range between the owner's bounds, and further ranges when the
//! bounds are widened. Under `Lock::Council`.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::bounds::Bounds;
use crate::model::progress::Progress;
use crate::pg::planner::Access;
use crate::pg::{heap, relation};
use crate::scan::cut;
use crate::scan::key::Candidate;
use crate::scan::position::{Key, Position};
use crate::scan::sql::{Param, Statement, Target};
use crate::store::job::Job;
use crate::store::slice::{self, Extent, KeyRange};
use crate::store::{checkpoint, walk};
use crate::worker::batch::statement::{self, Prepared, Values};
use crate::worker::batch::{attributes, target};
use crate::worker::cut_slices;

/// Largest number of keys in the sample.
const SAMPLE_ROWS: f64 = 20_000.0;

/// A part of a table: keys after `after`, up to and including `last`.
#[derive(Debug)]
struct Part {
    after: Option<Key>,
    last: Key,
}

/// A table that is being cut.
struct Table<'a> {
    oid: Oid,
    shown: &'a str,
    index: &'a Candidate,
    target: Target,
}

impl<'a> Table<'a> {
    fn new(job: &Job, (oid, shown): (Oid, &'a str), index: &'a Candidate) -> Result<Table<'a>> {
        Ok(Table {
            oid,
            shown,
            index,
            target: target::of(job, oid, index.columns.clone())?,
        })
    }

    /// Runs a statement and returns the key in its first row, if there is one.
    fn key(&self, statement: Statement, values: Values) -> Result<Option<Key>> {
        let found = self.run(statement, Access::Index, values)?;
        let width = self.target.key.len();
        found.first().map(|row| row.texts(width)).transpose()
    }

    fn run(
        &self,
        statement: Statement,
        access: Access,
        values: Values,
    ) -> Result<Vec<crate::pg::spi::Row>> {
        let prepared = Prepared::new(statement, &self.target.key, access)?;
        let index = match access {
            Access::Index => self.index.oid.into(),
            _ => Oid::INVALID,
        };
        statement::announce(self.oid, index, [&prepared].into_iter());
        Ok(prepared.run(values)?.rows)
    }

    /// Returns the greatest key that is greater than `after` and not greater than `up_to`.
    fn last(&self, after: Option<&Key>, up_to: Option<&Key>) -> Result<Option<Key>> {
        let mut bounds = Vec::new();
        if after.is_some() {
            bounds.push((">", Param::After));
        }
        if up_to.is_some() {
            bounds.push(("<=", Param::UpTo));
        }
        let values = Values {
            after,
            up_to,
            rows: &[1],
            ..Values::default()
        };
        self.key(self.target.greatest(&bounds), values)
    }

    /// Returns the greatest key less than `first`.
    fn before(&self, first: &Key) -> Result<Option<Key>> {
        let values = Values {
            up_to: Some(first),
            rows: &[1],
            ..Values::default()
        };
        self.key(self.target.greatest(&[("<", Param::UpTo)]), values)
    }

    /// Reads a sample of keys from all over the part, in order.
    fn sample(&self, part: &Part) -> Result<Vec<Key>> {
        let (pages, _) = heap::pages(self.oid)?.unwrap_or_default();
        let rows = relation::estimate_rows(self.oid).unwrap_or(0).max(1) as f64;
        let wanted = cut::SAMPLE_PAGES.min(SAMPLE_ROWS * pages as f64 / rows);
        let values = Values {
            after: part.after.as_ref(),
            up_to: Some(&part.last),
            percent: (wanted * 100.0 / pages.max(1) as f64).clamp(0.0001, 100.0),
            ..Values::default()
        };
        let statement = self.target.sample(part.after.is_some());
        let rows = self.run(statement, Access::Tid, values)?;
        let width = self.target.key.len();
        rows.iter().map(|row| row.texts(width)).collect()
    }

    /// Returns the number of rows that the planner expects in the part.
    fn expected(&self, part: &Part) -> Result<Option<f64>> {
        let values = Values {
            after: part.after.as_ref(),
            up_to: Some(&part.last),
            ..Values::default()
        };
        let statement = self.target.explain_range(part.after.is_some());
        let rows = self.run(statement, Access::Tid, values)?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let plan: serde_json::Value = serde_json::from_str(row.text(0)?)
            .map_err(|e| Error::internal(format!("EXPLAIN gave no JSON: {e}")))?;
        Ok(plan[0]["Plan"]["Plan Rows"].as_f64())
    }

    /// Cuts the part into `slices` slices, which share `rows` and `weight` equally.
    fn cut(
        &self,
        job: &Job,
        part: Part,
        slices: usize,
        rows: Option<f64>,
        weight: f64,
    ) -> Result<()> {
        let sample = match slices {
            1 => Vec::new(),
            _ => self.sample(&part)?,
        };
        let mut ends = cut::bounds(sample, slices);
        ends.retain(|end| *end != part.last);
        ends.push(part.last);
        let share = |all: f64| all / ends.len() as f64;
        let attributes = attributes::of(job, self.oid, &self.index.columns)?;
        let mut after = part.after;
        for end in &ends {
            let range = KeyRange {
                after: after.replace(end.clone()),
                last: end.clone(),
                columns: self.index.column_names(),
                order: self.index.order(),
            };
            let position = Position {
                key: range.after.clone(),
                ..Position::default()
            };
            let table = (self.oid, self.shown);
            let extent = Extent::Key(range);
            let id = slice::insert(job.id, 1, table, share(weight), &extent, &attributes)?;
            let estimate = rows.map(|rows| share(rows).ceil() as i64);
            checkpoint::insert(id, &position, &Progress::new(estimate))?;
        }
        Ok(())
    }
}

/// Cuts a table between the owner's bounds; without bounds, up to the last key there is, into `slices` slices that
/// share `rows`.
pub fn first(
    job: &Job,
    table: (Oid, &str),
    index: &Candidate,
    (slices, rows): (usize, Option<f64>),
) -> Result<()> {
    let bounds = job.definition.options.bounds();
    let table = Table::new(job, table, index)?;
    let Some(bounds) = bounds else {
        return match table.last(None, None)? {
            None => Ok(()),
            Some(last) => {
                let part = Part { after: None, last };
                table.cut(job, part, slices, rows, rows.unwrap_or(0.0))
            }
        };
    };
    let after = match &bounds.from {
        Some(from) => table.before(from)?,
        None => None,
    };
    match table.last(after.as_ref(), bounds.to.as_ref())? {
        None => Ok(()),
        Some(last) => bounded(job, &table, Part { after, last }),
    }
}

/// Cuts the rows of a table that was begun in another order; the slices share what is left of its weight.
pub fn rest(
    job: &Job,
    table: (Oid, &str),
    index: &Candidate,
    slices: usize,
    weight: f64,
) -> Result<()> {
    let table = Table::new(job, table, index)?;
    let Some(last) = table.last(None, None)? else {
        return Ok(());
    };
    let part = Part { after: None, last };
    table.cut(job, part, slices, estimate(table.oid), weight)
}

fn estimate(table: Oid) -> Option<f64> {
    let rows = relation::estimate_rows(table).filter(|rows| *rows > 0);
    rows.map(|rows| rows as f64)
}

fn bounded(job: &Job, table: &Table, part: Part) -> Result<()> {
    let rows = table.expected(&part)?;
    let some = rows.unwrap_or(1.0).max(1.0);
    table.cut(job, part, cut_slices::slices(job, some, some), rows, some)
}

/// The work that remains once every row between the bounds is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// There are no bounds, or they were removed, and there is nothing new to do.
    Nothing,
    /// The bounds were widened, and there are more slices.
    More,
    /// Everything between the bounds is done; the rows beyond them are not.
    Enough,
}

/// Cuts the ranges that have come between the bounds since the walk began, because `backfill.alter` has widened them.
/// Rows that are already done are in none of the new slices.
pub fn widen(job: &Job) -> Result<Beyond> {
    let wanted = job.definition.options.bounds();
    let covered = walk::bounds(job.id)?;
    if wanted == covered {
        return Ok(match wanted {
            None => Beyond::Nothing,
            Some(_) => Beyond::Enough,
        });
    }
    let wanted = wanted.unwrap_or_default();
    for oid in walk::tables(job.id)? {
        let Some(found) = relation::describe(oid)? else {
            continue;
        };
        relation::lock_for_update(oid);
        let index = cut_slices::key_of(job, oid)?;
        let table = Table::new(job, (oid, &found.shown), &index)?;
        widen_table(job, &table, &wanted, covered.as_ref())?;
    }
    walk::set_bounds(job.id, job.definition.options.bounds().as_ref())?;
    Ok(match (slice::left(job.id)? > 0, wanted.is_open()) {
        (true, _) => Beyond::More,
        (false, true) => Beyond::Nothing,
        (false, false) => Beyond::Enough,
    })
}

fn widen_table(job: &Job, table: &Table, wanted: &Bounds, covered: Option<&Bounds>) -> Result<()> {
    let first = match &wanted.from {
        Some(from) => table.before(from)?,
        None => None,
    };
    let Some((after, last)) = slice::edges(job.id, table.oid)? else {
        let end = table.last(first.as_ref(), wanted.to.as_ref())?;
        return end.map_or(Ok(()), |last| {
            bounded(job, table, Part { after: first, last })
        });
    };
    // Below the old lower bound, if there was one. Rows may have been inserted between the bound and the row that the
    // first slice begins after.
    if let Some(from) = covered.and_then(|covered| covered.from.as_ref())
        && let Some(last) = table.before(from)?
        && table.last(first.as_ref(), Some(&last))?.is_some()
    {
        slice::set_edge(job.id, table.oid, after.as_ref(), &last)?;
        bounded(job, table, Part { after: first, last })?;
    }
    // Above the last key that was cut.
    match table.last(Some(&last), wanted.to.as_ref())? {
        None => Ok(()),
        Some(end) => {
            let part = Part {
                after: Some(last),
                last: end,
            };
            bounded(job, table, part)
        }
    }
}
