//! The first look at a job's tables: which they are, in which order each is walked, and the slices it is cut into.
//! Under `Lock::Council`.

pub mod key_ranges;

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::names;
use crate::model::options::Walk as WalkOption;
use crate::model::progress::Progress;
use crate::pg::relation::{self, Relation};
use crate::pg::{clauses, heap, partition, spi};
use crate::scan::cut;
use crate::scan::key::Candidate;
use crate::scan::order::{self, Asked, Order};
use crate::scan::position::Position;
use crate::scan::sql::Target;
use crate::store::checkpoint::{self, Writer};
use crate::store::job::Job;
use crate::store::slice::{self, BlockRange, Extent};
use crate::store::{event, tally, walk};
use crate::table::walked::{self, Walked};
use crate::worker::batch::{attributes, target};

/// Pages (512 MB) that one statement may look through in search of rows that moved.
const ONE_SWEEP: i64 = 65_536;
/// Pages, over all tables of a job, whose rows are counted to estimate the number of rows.
const PAGES_COUNTED: f64 = 8_000.0;

/// Cuts everything that the job walks into slices, unless that was done before. The job is about what the snapshot of
/// this transaction sees.
///
/// The tables should be locked already: waiting for a lock here would hold the snapshot for as long.
pub fn ensure(job: &Job) -> Result<()> {
    if walk::pass(job.id)?.is_some() {
        return Ok(());
    }
    let tables = tables(job)?;
    walk::begin(
        job.id,
        &tables.iter().map(|(oid, _)| *oid).collect::<Vec<_>>(),
    )?;
    walk::set_bounds(job.id, job.definition.options.bounds().as_ref())?;
    walk::measure(job.id, false)?;
    cut_all(job, 1, &tables)
}

/// Cuts tables into slices of a pass.
fn cut_all(job: &Job, pass: i32, tables: &[(Oid, String)]) -> Result<()> {
    let pages = (PAGES_COUNTED / tables.len() as f64).clamp(20.0, cut::SAMPLE_PAGES);
    let (mut counted, mut walked) = (Vec::new(), Vec::new());
    for table in tables {
        relation::lock_for_update(table.0);
        let target = target::of(job, table.0, Vec::new())?;
        if is_excluded(&target, tables.len())? {
            continue;
        }
        counted.push(walked::rows(&target, table.0, pages)?);
        walked.push(table);
    }
    note_excluded(job, tables.len() - walked.len())?;
    let all = counted.iter().flatten().sum();
    let mut by_pages = Vec::new();
    for ((table, shown), rows) in walked.into_iter().zip(&counted) {
        if survey(job, pass, (*table, shown), (*rows, all))? {
            by_pages.push(shown.as_str());
        }
    }
    note_order(job, &by_pages)
}

/// Whether the WHERE clause excludes all rows of one of several tables, by the planner's own proof.
fn is_excluded(target: &Target, tables: usize) -> Result<bool> {
    match &target.where_clause {
        Some(clause) if tables > 1 => {
            let from = format!("ONLY {}", target.item());
            spi::in_subtransaction(|| clauses::is_excluded(&from, clause))
        }
        _ => Ok(false),
    }
}

fn note_excluded(job: &Job, tables: usize) -> Result<()> {
    let what = match tables {
        0 => return Ok(()),
        1 => "1 table is".to_owned(),
        n => format!("{n} tables are"),
    };
    walk::add_note(job.id, &format!("{what} excluded by where_clause"))
}

/// Cuts tables that were added during the run, in the job's present pass.
pub fn add(job: &Job, pass: i32, tables: &[(Oid, String)]) -> Result<()> {
    for (table, _) in tables {
        relation::lock_for_update(*table);
        walk::add_table(job.id, *table)?;
    }
    cut_all(job, pass, tables)
}

fn note_order(job: &Job, by_pages: &[&str]) -> Result<()> {
    if by_pages.is_empty() {
        return Ok(());
    }
    let go = if by_pages.len() == 1 { "goes" } else { "go" };
    let tables = names::listed(by_pages);
    let note = format!("{tables} {go} in physical order, not by a key");
    walk::add_note(job.id, &note)
}

/// Returns the tables that are to be cut into slices; none if that was done.
pub fn unsurveyed(job: &Job) -> Result<Vec<Oid>> {
    if walk::pass(job.id)?.is_some() {
        return Ok(Vec::new());
    }
    let tables = tables(job)?.into_iter();
    Ok(tables.map(|(table, _)| table).collect())
}

/// Returns the table and those that inherit from it, or its partitions, with their names.
fn tables(job: &Job) -> Result<Vec<(Oid, String)>> {
    let root = job.relation;
    let Some(relation) = relation::describe(root)? else {
        // A missing table is reported where the tables of slices are opened.
        return Ok(vec![(root, String::new())]);
    };
    relation.refuse_deceptive()?;
    let leaves = partition::leaves(root, job.definition.options.only())?.into_iter();
    Ok(leaves.map(|leaf| (leaf.oid, leaf.shown)).collect())
}

/// Returns the number of rows of these tables, by the planner's estimate.
pub fn rows(tables: impl IntoIterator<Item = Oid>) -> f64 {
    let tables = tables.into_iter();
    tables.filter_map(relation::estimate_rows).sum::<i64>() as f64
}

pub fn slices(job: &Job, rows: f64, all: f64) -> usize {
    cut::slices(rows, all, job.definition.options.workers())
}

/// Cuts a table that has `rows` of the `all` rows into slices; returns true if it is walked in physical order.
fn survey(
    job: &Job,
    pass: i32,
    table: (Oid, &str),
    (rows, all): (Option<f64>, f64),
) -> Result<bool> {
    // The larger of estimate and count is taken: a slice too many costs little.
    let most = rows.unwrap_or(0.0).max(self::rows([table.0]));
    let slices = slices(job, most, all.max(most));
    let order = order(job, table.0)?;
    match &order {
        Some(index) => key_ranges::first(job, table, index, (slices, rows))?,
        None => by_pages(job, pass, table, (slices, rows), None)?,
    }
    Ok(order.is_none())
}

/// Returns the index that orders the walk; `None` for physical order.
fn order(job: &Job, table: Oid) -> Result<Option<Candidate>> {
    let definition = &job.definition;
    let (table, root) = described(job, table)?;
    let walked = Walked {
        table: &table,
        root: &root,
        where_clause: definition.where_clause.as_deref(),
        changes: &definition.action.changes(),
        skips_triggers: definition.options.skips_triggers(),
    };
    let asked = Asked::of(&definition.options, definition.action.is_read_only());
    let key = key_of(job, table.oid);
    Ok(match order::decide(asked, key, &walked)?.0 {
        Order::Key(index) => Some(*index),
        Order::Pages => None,
    })
}

/// True if a table can be walked in physical order only.
pub fn goes_by_pages(job: &Job, table: Oid) -> Result<bool> {
    let by_pages = order(job, table).is_ok_and(|order| order.is_none());
    let only = job.definition.options.walk() == WalkOption::Physical || key_of(job, table).is_err();
    Ok(by_pages && only)
}

/// Returns the table, and the one that the job is on.
fn described(job: &Job, table: Oid) -> Result<(Relation, Relation)> {
    let find = |oid| relation::describe(oid)?.ok_or_else(|| target::gone(job));
    Ok((find(table)?, find(job.relation)?))
}

/// Returns the index to walk by: on the columns that were checked when the job was defined; for a partition, its own
/// index; for a table that had no key then, one that was created since.
pub fn key_of(job: &Job, table: Oid) -> Result<Candidate> {
    let definition = &job.definition;
    let settled = &definition.key_columns;
    let (found, root) = described(job, table)?;
    let named = definition.options.key.as_deref();
    let written = definition.action.set_columns();
    let key = walked::key(&found, &root, named, settled, written);
    match key {
        // This error says what became of the index.
        Err(_) if table == job.relation && !settled.is_empty() => {
            target::index(job, table, target::Wanted::Names(settled), None)
        }
        key => key,
    }
}

/// Cuts a table by its pages. `weight`: what is left of the table's weight, if its walk was begun before.
fn by_pages(
    job: &Job,
    pass: i32,
    table: (Oid, &str),
    (slices, rows): (usize, Option<f64>),
    weight: Option<f64>,
) -> Result<()> {
    let Some((pages, filenode)) = heap::pages(table.0)? else {
        return Ok(());
    };
    let cuts = cut::pages(pages, slices);
    let share = |all: f64| all / cuts.len() as f64;
    for (first, end) in &cuts {
        let range = BlockRange {
            first: *first,
            end: *end,
            filenode,
        };
        insert_pages(job, pass, table, range, rows.map(share), weight.map(share))?;
    }
    Ok(())
}

/// Cuts a table for another pass. A small one becomes one slice that one statement looks through: its snapshot shows
/// each row once, however often the row moves. For a large table, that snapshot would be held too long.
pub fn again(job: &Job, pass: i32, table: (Oid, &str), all: f64) -> Result<()> {
    let Some((pages, filenode)) = heap::pages(table.0)? else {
        return Ok(());
    };
    if pages <= ONE_SWEEP {
        return insert_pages(job, pass, table, BlockRange::all(filenode), None, None);
    }
    for (first, end) in cut::pages(pages, slices(job, rows([table.0]), all)) {
        let range = BlockRange {
            first,
            end,
            filenode,
        };
        insert_pages(job, pass, table, range, None, None)?;
    }
    Ok(())
}

fn insert_pages(
    job: &Job,
    pass: i32,
    table: (Oid, &str),
    range: BlockRange,
    rows: Option<f64>,
    weight: Option<f64>,
) -> Result<()> {
    let id = slice::insert(
        job.id,
        pass,
        table,
        weight.or(rows).unwrap_or(0.0),
        &Extent::Physical(range),
        &attributes::of(job, table.0, &[])?,
    )?;
    let position = Position {
        block: Some(range.first),
        ..Position::default()
    };
    let estimate = rows.map(|rows| rows.ceil() as i64);
    checkpoint::insert(id, &position, &Progress::new(estimate))
}

/// Begins a table's pass again after the table was rewritten.
pub fn restart(job: &Job, pass: i32, table: (Oid, &str)) -> Result<()> {
    let Some(weight) = abandon(job, table.0)? else {
        return Ok(());
    };
    if pass > 1 {
        return again(job, pass, table, rows([table.0]));
    }
    let rows = rows([table.0]);
    let known = Some(rows).filter(|rows| *rows > 0.0);
    by_pages(
        job,
        pass,
        table,
        (slices(job, rows, rows), known),
        Some(weight),
    )
}

/// Ends a table's slices in physical order early; a worker that holds one cannot continue it. Returns the weight of
/// what they leave. `None` if there are none: then another worker has already reacted to the same event, and slices in
/// key order, which may exist by now, must stay.
fn abandon(job: &Job, table: Oid) -> Result<Option<f64>> {
    let writer = Writer::prepare()?;
    let mut left = None;
    for id in tally::unfinished_physical(job.id, table)? {
        let last = checkpoint::seize(&writer, id)?;
        let percent = f64::from(last.progress.percent.unwrap_or(0.0));
        let mut end = last.successor();
        end.progress.finish();
        writer.replace(&last, &end, &checkpoint::Gauges::default())?;
        left = Some(left.unwrap_or(0.0) + slice::cut_short(id, percent)?);
    }
    Ok(left)
}

/// Continues by key where the walk in physical order has proved unsound. `why` is the error that says so; it is
/// returned if there is no key, or the owner asked for physical order.
pub fn go_by_key(job: &Job, table: Oid, shown: &str, why: Error) -> Result<()> {
    if job.definition.options.walk() == WalkOption::Physical {
        return Err(why);
    }
    let Ok(index) = key_of(job, table) else {
        return Err(why);
    };
    let Some(weight) = abandon(job, table)? else {
        return Ok(());
    };
    let rows = rows([table]);
    let slices = slices(job, rows, rows);
    key_ranges::rest(job, (table, shown), &index, slices, weight)?;
    let note = format!("{shown} goes by key: in physical order, {}", why.message);
    walk::add_note(job.id, &note)?;
    event::record(
        job.id,
        job.owner,
        "walk by key",
        Some("physical"),
        Some("key"),
    )
}
