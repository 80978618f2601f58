//! Rows from all over a table, for calls that try something on a few rows.

use std::collections::BTreeMap;

use pgrx::pg_sys;

use super::backfill::Backfill;
use super::call::{self, Call, Request, Work};
use super::subject::Subject;
use super::{bounds, define, start, tables};
use crate::action::Changes;
use crate::action::statement::{read_unasked, unasked};
use crate::error::{Error, Result};
use crate::model::fate::Fate;
use crate::pg::heap;
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::pg::tid::Tid;
use crate::pg::{clauses, confine, evaluate, parts, server};
use crate::scan::clause::all_of;
use crate::scan::sql::Target;
use crate::stranger::errand::{Errand, carry_out};

/// Pages that are searched for rows that match.
const PAGES: i64 = 10_000;

/// A part of a table, and the rows found there.
pub struct Part {
    /// The table, or the partition.
    pub table: Relation,
    /// Statement that treats rows, given by place, whether or not they match.
    pub statement: String,
    /// Statement that reads of such rows what that one reads.
    pub reading: String,
    /// What becomes of the rows.
    pub fate: Fate,
    /// Columns that get what is copied of rows; `None` if nothing is copied.
    pub copied: Option<Vec<String>>,
    /// The pages: the first, and the one after the last.
    pub pages: (i64, i64),
    /// Rows that match, with their keys; or the error of the WHERE clause.
    pub rows: Result<Vec<(Tid, String)>>,
}

/// Parts of all tables, and the number of pages.
pub struct Parts {
    /// The parts, in the order of tables and pages.
    pub parts: Vec<Part>,
    /// Pages of all tables.
    pub pages: i64,
    /// Pages that were searched.
    pub looked: i64,
}

/// Looks at the backfill that a call is about. If the call defines it, runs `look` at once, since it is the caller's
/// own text. If it is a pending definition, carries out `errand` in a session of its owner's.
pub fn look_at<E: Errand>(
    request: Request,
    batch_size: i32,
    function: &str,
    look: impl FnOnce(&Backfill) -> Result<E::Answer>,
    errand: impl FnOnce(Subject) -> E,
) -> Result<E::Answer> {
    let call = call::check(request, function)?;
    if let Some(work) = call.work.clone() {
        return confine::own_text(server::current_user(), || {
            let backfill = Backfill::of_call(call, &work, batch_size)?;
            backfill.under_its_settings(|| look(&backfill))
        });
    }
    let job = start::definition(&call)?;
    let options = job.definition.options.started_with(&call.options)?;
    carry_out(errand(Subject::of(&job).with(options)))
}

impl Backfill {
    /// Makes the backfill that a call defines, checked as `backfill.start` would. The caller's own text.
    fn of_call(call: Call, work: &Work, batch_size: i32) -> Result<Backfill> {
        if let Some(joined) = &call.joined {
            parts::from_item(&joined.from)?;
        }
        let changes = define::changes(&call, work)?;
        if let Some(where_clause) = &call.where_clause {
            clauses::check_expression("where_clause", where_clause)?;
        }
        let key_columns = tables::check(&call, &changes, batch_size)?;
        let table = (call.relation.oid, call.relation.shown.as_str());
        let options = call.options.clone();
        let options = bounds::settle(table, &key_columns, options, &BTreeMap::new())?;
        Ok(Backfill {
            action: define::action(&call, changes),
            where_clause: call.where_clause,
            relation: call.relation,
            key_columns,
            options,
            session: BTreeMap::new(),
        })
    }

    /// Returns rows from all over the tables, about `wanted`: each table has its share, and at least one.
    pub fn parts(&self, wanted: i64) -> Result<Parts> {
        let mut tables = Vec::new();
        for table in tables::of(&self.relation, self.options.only())? {
            relation::lock_for_update(table.oid);
            let (pages, _) = heap::pages(table.oid)?.unwrap_or_default();
            tables.push((table, pages));
        }
        let pages: i64 = tables.iter().map(|(_, pages)| pages).sum();
        let (mut parts, mut looked) = (Vec::new(), 0);
        for (table, own) in tables.into_iter().filter(|(_, own)| *own > 0) {
            let share = (wanted * own / pages.max(1)).max(1);
            looked += self.of_table(table, own, share, &mut parts)?;
        }
        Ok(Parts {
            parts,
            pages,
            looked,
        })
    }

    /// Adds rows of one table, evenly spread over its pages; returns how many pages were searched. Between bounds,
    /// takes the first rows that the server finds.
    fn of_table(
        &self,
        table: Relation,
        pages: i64,
        wanted: i64,
        parts: &mut Vec<Part>,
    ) -> Result<i64> {
        let mut target = self.target(&table);
        if let Some(between) = self.between(&target)? {
            target.where_clause = all_of([between].into_iter().chain(target.where_clause.take()));
            parts.push(Part {
                rows: spi::undone(|| find_rows(&target, (0, pages), wanted)),
                statement: unasked(self.action.as_action(), &target).text,
                reading: read_unasked(self.action.as_action(), &target).text,
                fate: self.action.as_action().fate(),
                copied: self.copied(),
                table,
                pages: (0, pages),
            });
            return Ok(pages);
        }
        let count = wanted.min(pages);
        let width = (pages / count).min((PAGES / count).max(1));
        for part in 0..count {
            let first = part * pages / count;
            let most = (part + 1) * wanted / count - part * wanted / count;
            let range = (first, first + width);
            parts.push(Part {
                rows: spi::undone(|| find_rows(&target, range, most)),
                statement: unasked(self.action.as_action(), &target).text,
                reading: read_unasked(self.action.as_action(), &target).text,
                fate: self.action.as_action().fate(),
                copied: self.copied(),
                table: table.clone(),
                pages: range,
            });
        }
        Ok(count * width)
    }
}

impl Backfill {
    fn copied(&self) -> Option<Vec<String>> {
        match self.action.changes() {
            Changes::Copy(copy) => Some(copy.columns),
            _ => None,
        }
    }
}

/// Returns rows that match on a range of pages, with their keys.
fn find_rows(target: &Target, pages: (i64, i64), most: i64) -> Result<Vec<(Tid, String)>> {
    let (from, until) = (format!("({},0)", pages.0), format!("({},0)", pages.1));
    let args = [
        Arg::Typed(pg_sys::TIDOID, &from),
        Arg::Typed(pg_sys::TIDOID, &until),
        Arg::Int8(most),
    ];
    let statement = target.sample_pages();
    let rows = evaluate::read_only(|| spi::query(&statement.text, &args))?.rows;
    let names: Vec<&str> = target.key.iter().map(|c| c.name.as_str()).collect();
    let read = |row: &spi::Row| {
        let place = row.text(0)?;
        let tid = Tid::parse(place)
            .ok_or_else(|| Error::internal(format!("the place of a row is {place}")))?;
        let values: Vec<&str> = (1..=names.len()).filter_map(|n| row.get(n)).collect();
        let key = match names.as_slice() {
            [] => format!("ctid = {place}"),
            [name] => format!("{name} = {}", values.join(", ")),
            _ => format!("({}) = ({})", names.join(", "), values.join(", ")),
        };
        Ok((tid, key))
    };
    rows.iter().map(read).collect()
}

/// Formats an error for a person.
pub fn shown(error: &Error) -> String {
    format!("{} (SQLSTATE {})", error.message, error.sqlstate)
}
