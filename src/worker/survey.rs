//! The first look at what a job walks: its tables, the order in which each is walked, and the
//! slices that it is cut into. Under `Lock::Council`.

use pgrx::pg_sys::Oid;

use super::statement::{self, Prepared, Values};
use super::{attributes, keycut, target};
use crate::catalog::checkpoint::{self, Writer};
use crate::catalog::job::Job;
use crate::catalog::slice::{self, BlockRange, Extent};
use crate::catalog::{event, tally, walk};
use crate::error::{Error, Result, sqlstate};
use crate::job::names;
use crate::job::options::Walk as Order;
use crate::job::progress::Progress;
use crate::pg::planner::Access;
use crate::pg::{clauses, heap, hot, index, partition, relation};
use crate::plan::key::{self, Candidate};
use crate::plan::position::Position;
use crate::plan::{cut, order};

/// Pages (512 MB) that one statement may look through in search of rows that moved.
const ONE_SWEEP: i64 = 65_536;

/// Cuts everything that the job walks into slices, unless that was done before. What the snapshot
/// of the transaction sees is what the job is about.
///
/// The tables should be locked already: to wait for a lock holds the snapshot for as long.
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
    let mut by_pages = Vec::new();
    let all = rows(tables.iter().map(|(table, _)| *table));
    for (table, shown) in &tables {
        relation::lock_for_update(*table);
        if survey(job, 1, (*table, shown), all)? {
            by_pages.push(shown.as_str());
        }
    }
    note_order(job, &by_pages)
}

/// Cuts tables that came during the run, in the pass that the job is at.
pub fn add(job: &Job, pass: i32, tables: &[(Oid, String)]) -> Result<()> {
    let all = rows(tables.iter().map(|(table, _)| *table));
    let mut by_pages = Vec::new();
    for (table, shown) in tables {
        relation::lock_for_update(*table);
        walk::add_table(job.id, *table)?;
        if survey(job, pass, (*table, shown), all)? {
            by_pages.push(shown.as_str());
        }
    }
    note_order(job, &by_pages)
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

/// The tables that are to be surveyed; none if that is done.
pub fn unsurveyed(job: &Job) -> Result<Vec<Oid>> {
    if walk::pass(job.id)?.is_some() {
        return Ok(Vec::new());
    }
    let tables = tables(job)?.into_iter();
    Ok(tables.map(|(table, _)| table).collect())
}

/// The table and those that inherit from it, or its partitions, with their names.
fn tables(job: &Job) -> Result<Vec<(Oid, String)>> {
    let root = job.relation;
    let Some(relation) = relation::describe(root)? else {
        // What that means is said where the slices' tables are opened.
        return Ok(vec![(root, String::new())]);
    };
    relation.refuse_deceptive()?;
    let leaves = partition::leaves(root, job.definition.options.only())?.into_iter();
    Ok(leaves.map(|leaf| (leaf.oid, leaf.shown)).collect())
}

/// Rows of these tables, by the planner's estimate.
pub fn rows(tables: impl IntoIterator<Item = Oid>) -> f64 {
    let tables = tables.into_iter();
    tables.filter_map(relation::estimate_rows).sum::<i64>() as f64
}

pub fn slices(job: &Job, rows: f64, all: f64) -> usize {
    cut::slices(rows, all, job.definition.options.workers())
}

/// Cuts a table into slices; true if it goes in physical order.
fn survey(job: &Job, pass: i32, table: (Oid, &str), all: f64) -> Result<bool> {
    let slices = slices(job, rows([table.0]), all);
    let order = order(job, table.0)?;
    match &order {
        Some(index) => keycut::first(job, table, index, slices)?,
        None => by_pages(job, pass, table, slices, None)?,
    }
    Ok(order.is_none())
}

/// The index that orders the walk, or none: in physical order.
fn order(job: &Job, table: Oid) -> Result<Option<Candidate>> {
    let options = &job.definition.options;
    let wanted = match options.bounds() {
        None => options.walk(),
        // Pages know nothing of keys.
        Some(_) => Order::Key,
    };
    let key = key_of(job, table);
    if job.definition.purpose.is_read_only() && wanted != Order::Key {
        // What is not changed does not move: any table can be read page by page.
        return Ok(key.ok().filter(|_| wanted == Order::Auto));
    }
    if wanted == Order::Key {
        return key.map(Some);
    }
    let unsound = target::unsound(job, table)?;
    match (wanted, key, unsound) {
        (Order::Physical, _, Some(why)) => Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "table {} cannot be walked in physical order: {why}",
                job.relation_name
            ),
        )),
        (Order::Physical, _, None) | (_, Err(_), None) => Ok(None),
        (_, Err(error), Some(_)) => Err(error),
        (_, Ok(key), Some(_)) => Ok(Some(key)),
        (_, Ok(key), None) => {
            let (pages, _) = heap::pages(table)?.unwrap_or_default();
            let may_pay = extinguishes(job) && order::matters(pages);
            let pays = may_pay && (scattered(table, &key)? || few_match(job, table)?);
            Ok((!pays).then_some(key))
        }
    }
}

/// Whether a table can be walked in physical order only.
pub fn goes_by_pages(job: &Job, table: Oid) -> Result<bool> {
    let by_pages = order(job, table).is_ok_and(|order| order.is_none());
    let only = job.definition.options.walk() == Order::Physical || key_of(job, table).is_err();
    Ok(by_pages && only)
}

fn extinguishes(job: &Job) -> bool {
    let definition = &job.definition;
    order::extinguishes(definition.where_clause.as_deref(), &definition.set_columns)
}

/// Whether going by the key would read pages in no order.
fn scattered(table: Oid, key: &Candidate) -> Result<bool> {
    let first = key.columns.first().map_or("", |c| c.name.as_str());
    Ok(order::scattered(hot::correlation(table, first)?))
}

/// Whether few rows are to be done: then the walk mostly reads, and to read pages takes a fraction of
/// the time that reading the same rows through an index does. The planner's word is not enough, since
/// it knows nothing of a new column.
fn few_match(job: &Job, table: Oid) -> Result<bool> {
    let Some(found) = relation::describe(table)? else {
        return Ok(false);
    };
    let from = found.alone(target::known_as(job, table)?.as_deref());
    let clause = job.definition.where_clause.as_deref().unwrap_or("true");
    let rows = rows([table]);
    let matching = clauses::estimate_matches(&from, clause)?;
    if !matching.is_some_and(|matching| order::few(matching, rows)) {
        return Ok(false);
    }
    let target = target::of(job, table, Vec::new())?;
    let statement = Prepared::new(target.sample_matches(), &[], Access::Tid)?;
    statement::announce(table, Oid::INVALID, [&statement].into_iter());
    let values = Values {
        percent: (order::LOOKED_AT * 100.0 / rows.max(1.0)).clamp(0.0001, 100.0),
        ..Values::default()
    };
    let found = statement.run(values)?.rows;
    let count = |column| found.first().map_or(Ok(0), |row| row.number(column));
    let (seen, matching) = (count(0)? as f64, count(1)? as f64);
    Ok(order::few_seen(matching, seen))
}

/// The index to go by: on the columns that were checked when the job was defined; of a partition its
/// own; of a table that had no key then, one that it was given since.
pub fn key_of(job: &Job, table: Oid) -> Result<Candidate> {
    let checked = &job.definition.key_columns;
    if table == job.relation && !checked.is_empty() {
        return target::index(job, table, target::Wanted::Names(checked), None);
    }
    let named = match &job.definition.options.key {
        Some(name) => partition::index_named(table, job.relation, name)?,
        None => None,
    };
    let shown = relation::describe(table)?.map_or_else(String::new, |r| r.shown);
    let mut candidates = index::candidates(table)?;
    // One that came after the checks of the definition.
    let written = |name: &String| job.definition.set_columns.contains(name);
    candidates.retain(|c| !c.column_names().iter().any(written));
    key::choose(candidates, named.as_deref(), &shown)
}

/// Cuts a table by its pages. `weight`: what is left of its weight, if it was begun before.
fn by_pages(
    job: &Job,
    pass: i32,
    table: (Oid, &str),
    slices: usize,
    weight: Option<f64>,
) -> Result<()> {
    let Some((pages, filenode)) = heap::pages(table.0)? else {
        return Ok(());
    };
    let rows = relation::estimate_rows(table.0).filter(|rows| *rows > 0);
    let cuts = cut::pages(pages, slices);
    let share = |all: f64| all / cuts.len() as f64;
    for (first, end) in &cuts {
        let range = BlockRange {
            first: *first,
            end: *end,
            filenode,
        };
        let rows = rows.map(|rows| share(rows as f64));
        insert_pages(job, pass, table, range, rows, weight.map(share))?;
    }
    Ok(())
}

/// Cuts a table for another pass. A small one is one slice that is looked through by one statement:
/// its snapshot shows each row once, however often it moves. A large one would keep that snapshot
/// for too long.
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

/// Begins a table's pass anew, since it was rewritten.
pub fn restart(job: &Job, pass: i32, table: (Oid, &str)) -> Result<()> {
    let Some(weight) = abandon(job, table.0)? else {
        return Ok(());
    };
    if pass > 1 {
        return again(job, pass, table, rows([table.0]));
    }
    let rows = rows([table.0]);
    by_pages(job, pass, table, slices(job, rows, rows), Some(weight))
}

/// Ends a table's slices in physical order before their end; whoever holds one can't go on with it.
/// Gives the weight of what they leave; nothing if there are none: then another worker has met the
/// same, and slices in key order, which may be there already, must stay.
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

/// Goes on by key where the walk in physical order has proved to be unsound: `why` is the error
/// that says so, and the result where there is no key.
pub fn go_by_key(job: &Job, table: Oid, shown: &str, why: Error) -> Result<()> {
    if job.definition.options.walk() == Order::Physical {
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
    keycut::rest(job, (table, shown), &index, slices, weight)?;
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
