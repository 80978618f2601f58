//! The order of each table's walk, and the reasons for it.

use std::time::{Duration, Instant};

use super::Line;
use crate::api::backfill::Backfill;
use crate::api::start::Pace;
use crate::api::tables;
use crate::error::{Result, sqlstate};
use crate::pg::hot::{self, HotFacts, IndexFacts, TableShape};
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::pg::tid::Tid;
use crate::pg::{clauses, evaluate, partition, settings, timeout};
use crate::scan::cut;
use crate::scan::order::{Order, Why};
use crate::scan::position::Key;
use crate::scan::sql::{Param, Statement, Target};
use crate::table::walked;
use crate::waves::cost::{self, Shape, Single};
use crate::waves::passes::Passes;

/// Numbers of rows to look at to see how many match. The first is small, since a predicate may be expensive.
const LOOKED_AT: [f64; 2] = [200.0, 20_000.0];
/// A first look that takes longer than this is also the last.
const QUICK: Duration = Duration::from_millis(20);
/// Milliseconds that a look at rows may take.
pub const LIMIT_MS: i32 = 1000;
/// Rows to look at, next to each other in the walk, to see how they are placed in the table; workers look at as many.
const NEIGHBOURS: i64 = 1000;
/// Rows between bounds that are counted one by one.
const COUNTED: i64 = 20_000;
/// Pages, over all tables, whose rows are counted.
const PAGES_COUNTED: f64 = 4_000.0;
/// Seconds that reading a row takes at most if the WHERE clause costs nothing.
const CHEAP: f64 = 1e-6;

/// The way in which a table would be walked.
pub struct Way {
    /// The table, or the partition.
    pub table: Relation,
    /// The target of the table's statements; its key is empty in physical order.
    pub target: Target,
    /// The order of the walk.
    pub order: Order,
    /// Why the walk has this order.
    pub why: Why,
    /// Waves and their passes, or why there are none.
    pub waves: std::result::Result<(i32, Passes), Single>,
    /// The facts that decide whether waves are possible.
    pub wave_shape: Shape,
    /// Whether neighbours in the walk are on different pages.
    pub scattered: bool,
    /// Size of the table.
    pub shape: TableShape,
    /// Facts about the indexes that matter to an update.
    pub facts: HotFacts,
    /// The table's indexes.
    pub indexes: Vec<IndexFacts>,
    /// Share of the table that is walked: 1, unless options limit the walk to a part.
    pub part: f64,
    /// Rows of that part.
    pub rows: f64,
    /// Rows of that part that match.
    pub matching: f64,
    /// Findings about the WHERE clause.
    pub seen: Seen,
}

/// Findings of a look at some rows about the WHERE clause.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Number of rows looked at.
    pub rows: f64,
    /// Seconds that the clause takes per row, beyond reading the row.
    pub seconds: f64,
    /// Whether the look was ended because it took too long.
    pub too_long: bool,
}

/// Returns how each table would be walked. As the owner.
pub fn ways(backfill: &Backfill) -> Result<Vec<Way>> {
    let tables = tables::of(&backfill.relation, backfill.options.only())?;
    let pages = (PAGES_COUNTED / tables.len() as f64).clamp(4.0, cut::SAMPLE_PAGES);
    let mut ways = Vec::new();
    let several = tables.len() > 1;
    for table in tables {
        relation::lock_for_update(table.oid);
        if several && is_excluded(backfill, &table)? {
            continue;
        }
        ways.push(way(backfill, table, pages)?);
    }
    let matching: f64 = ways.iter().map(|way| way.matching).sum();
    if let Some(limit) = backfill.options.limit_rows.map(|limit| limit as f64)
        && limit < matching
    {
        for way in &mut ways {
            way.limit_to(limit / matching);
        }
    }
    Ok(ways)
}

/// Whether the WHERE clause excludes all rows of the table, by the planner's own proof.
fn is_excluded(backfill: &Backfill, table: &Relation) -> Result<bool> {
    let target = backfill.target(table);
    match &target.where_clause {
        Some(clause) => clauses::is_excluded(&format!("ONLY {}", target.item()), clause),
        None => Ok(false),
    }
}

impl Way {
    fn limit_to(&mut self, share: f64) {
        self.part *= share;
        self.rows *= share;
        self.matching *= share;
    }
}

fn way(backfill: &Backfill, table: Relation, pages: f64) -> Result<Way> {
    let (target, order, why) = backfill.ordered(&table)?;
    let rows = walked::rows(&target, table.oid, pages)?.unwrap_or(0.0);
    let shape = hot::shape(table.oid)?.with_rows(rows);
    let facts = hot::facts(table.oid, backfill.action.set_columns())?;
    let (matching, seen) = match backfill.where_clause {
        None => (rows, Seen::default()),
        Some(_) => matching(&target, rows)?,
    };
    let between = match backfill.between(&target)? {
        Some(condition) => between(&table.alone(target.alias.as_deref()), &condition)?,
        None => None,
    };
    let on_page = shape.rows_per_page();
    let neighbours = match &order {
        Order::Key(_) => neighbours(&target, &table)?,
        Order::Pages => None,
    };
    let share = (matching / rows.max(1.0)).min(1.0);
    let rows_per_page = match (&order, &neighbours) {
        (_, Some((_, matching))) => cost::density(matching),
        (Order::Key(_), None) => on_page,
        (Order::Pages, None) => (on_page * share).max(1.0),
    };
    let wave_shape = Shape::of(
        facts.indexes,
        shape.pages,
        rows_per_page,
        shape.fits(),
        shape.row_bytes,
        hot::MOST_POINTERS - on_page,
    );
    let all = neighbours.map(|(all, _)| cost::density(&all));
    let mut way = Way {
        waves: chosen_waves(backfill, &facts, wave_shape),
        indexes: hot::indexes_of(table.oid, backfill.action.set_columns())?,
        wave_shape,
        scattered: all.is_some_and(|density| density < cost::FEWEST_PER_PAGE),
        order,
        why,
        table,
        target,
        shape,
        facts,
        rows,
        matching,
        seen,
        part: 1.0,
    };
    if let Some(between) = between {
        way.limit_to((between / rows.max(1.0)).min(1.0));
    }
    Ok(way)
}

/// Returns the number of rows that match, estimated from a sample of the table's pages, and findings about the clause.
fn matching(target: &Target, rows: f64) -> Result<(f64, Seen)> {
    let mut known = (rows, Seen::default());
    for wanted in LOOKED_AT {
        let begun = Instant::now();
        let Some((seen, hits)) = in_time(|| walked::sample(target, rows, wanted))? else {
            known.1.too_long = true;
            break;
        };
        let took = begun.elapsed();
        if seen > 0.0 {
            let seconds = (took.as_secs_f64() / seen - CHEAP).max(0.0);
            let seconds = if took > QUICK { seconds } else { 0.0 };
            known = (
                rows * hits / seen,
                Seen {
                    rows: seen,
                    seconds,
                    too_long: false,
                },
            );
        }
        if took > QUICK {
            break;
        }
    }
    Ok(known)
}

/// Runs `f`, which looks at rows, and undoes what it did; `None` if it took too long.
pub fn in_time<T>(f: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let begun = Instant::now();
    let found = timeout::limited(LIMIT_MS, || spi::undone(f));
    let ours = begun.elapsed() >= Duration::from_millis(LIMIT_MS as u64);
    match found {
        Err(error) if ours && error.sqlstate == sqlstate::QUERY_CANCELED => Ok(None),
        found => found.map(Some),
    }
}

/// Returns the number of rows between bounds: counted, or by the planner's estimate if there are many.
fn between(from: &str, condition: &str) -> Result<Option<f64>> {
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM (SELECT FROM {from} WHERE {condition} LIMIT {}) AS s",
        COUNTED + 1
    );
    let counted = in_time(|| evaluate::read_only(|| spi::first(&sql, &[])))?.flatten();
    match counted.map(|row| row.number(0)).transpose()? {
        Some(rows) if rows <= COUNTED => Ok(Some(rows as f64)),
        _ => clauses::estimate_matches(from, condition),
    }
}

/// Returns the pages of the first rows in the walk: of all of them, and of those that match; `None` if places cannot be
/// seen.
fn neighbours(target: &Target, table: &Relation) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    if !relation::may_read_places(table.oid) {
        return Ok(None);
    }
    let Some(last) = last(target)? else {
        return Ok(None);
    };
    let statement = target.read(false, true);
    let args = bound(target, &statement, &last, NEIGHBOURS);
    let read = || evaluate::read_only(|| spi::query(&statement.text, &args));
    let Some(found) = in_time(|| settings::with(settings::CANONICAL, read))? else {
        return Ok(None);
    };
    let place = target.key.len() + usize::from(target.where_clause.is_some());
    let (mut all, mut matching) = (Vec::new(), Vec::new());
    for row in &found.rows {
        let Some(tid) = Tid::parse(row.text(place)?) else {
            continue;
        };
        all.push(tid.block);
        if target.where_clause.is_none() || row.bool(place - 1) {
            matching.push(tid.block);
        }
    }
    Ok(Some((all, matching)))
}

/// Returns the last key of the table.
pub fn last(target: &Target) -> Result<Option<Key>> {
    let statement = target.greatest(&[]);
    let found = settings::with(settings::CANONICAL, || {
        spi::first(&statement.text, &[Arg::Int8(1)])
    })?;
    found.map(|row| row.texts(target.key.len())).transpose()
}

/// Returns the arguments of a statement about `rows` rows up to a key.
pub fn bound<'a>(target: &Target, statement: &Statement, last: &'a Key, rows: i64) -> Vec<Arg<'a>> {
    let mut args = Vec::new();
    for param in &statement.params {
        match param {
            Param::UpTo => args.extend(
                target
                    .key
                    .iter()
                    .zip(last)
                    .map(|(column, text)| Arg::Typed(column.type_oid.into(), text)),
            ),
            _ => args.push(Arg::Int8(rows)),
        }
    }
    args
}

/// Decides on waves as a worker does, except for what a worker sees only when it runs.
fn chosen_waves(
    backfill: &Backfill,
    facts: &HotFacts,
    shape: Shape,
) -> std::result::Result<(i32, Passes), Single> {
    let options = &backfill.options;
    if options.dry_run() {
        return Err(Single::ReadOnly);
    }
    let fate = backfill.action.as_action().fate();
    cost::choose(options, facts.blocked_by.as_deref(), fate, shape)
}

/// Describes the part of the table that is walked, if that is not all of it.
fn part(backfill: &Backfill) -> Option<String> {
    let options = &backfill.options;
    let bounds = options.bounds().unwrap_or_default();
    let bound = |word: &str, key: Option<Vec<String>>| {
        key.map(|key| format!("{word} key ({})", key.join(", ")))
    };
    let limit = options.limit_rows.map(|limit| format!("{limit} rows"));
    let parts = [bound("from", bounds.from), bound("to", bounds.to), limit];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let ends = match options.limit_rows {
        None if options.completes_at_bounds() => "completes",
        _ => "pauses",
    };
    (!parts.is_empty()).then(|| format!("{}; then it {ends}", parts.join(", ")))
}

/// Returns the lines of the plan about the walk.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<Vec<Line>> {
    let line = |item: &str, value: String| Line::new("walk", item, value);
    let mut lines = vec![line("table", backfill.relation.shown.clone())];
    let all = partition::leaves(backfill.relation.oid, backfill.options.only())?.len();
    let excluded = all.saturating_sub(ways.len());
    if excluded > 0 {
        let tables = format!("{} of {all}: where_clause excludes the others", ways.len());
        lines.push(line("tables", tables));
    } else if backfill.relation.kind == 'p' {
        lines.push(line("partitions", ways.len().to_string()));
    } else if ways.len() > 1 {
        let more = format!("{} that inherit from it", ways.len() - 1);
        lines.push(line("and tables", more));
    }
    let Some(first) = ways.iter().max_by(|a, b| a.rows.total_cmp(&b.rows)) else {
        let why = match excluded {
            0 => "there are no partitions",
            _ => "where_clause excludes all tables",
        };
        lines.push(line("order", format!("nothing to walk: {why}")));
        return Ok(lines);
    };
    let why = first.why.shown();
    lines.push(match &first.order {
        Order::Pages => line("order", format!("page by page: {why}")),
        Order::Key(key) => {
            let names = key.column_names().join(", ");
            line("order", format!("by key ({names}): {why}"))
        }
    });
    lines.push(match &first.waves {
        Ok((waves, passes)) => {
            let passes = passes.sizes(*waves).len();
            let text = format!("{waves} waves in {passes} passes: most updates will be heap-only");
            line("waves", text)
        }
        Err(why) => line("waves", format!("none: {}", why.shown())),
    });
    lines.extend(part(backfill).map(|part| line("part", part)));
    let all: f64 = ways.iter().map(|way| way.rows).sum();
    let workers = backfill.options.workers();
    let slices: usize = ways
        .iter()
        .map(|way| cut::slices(way.rows, all, workers))
        .sum();
    lines.push(line("slices", slices.to_string()));
    lines.push(line("workers", workers.to_string()));
    lines.push(line(
        "pace",
        format!(
            "{} rows a commit, {} ms between two",
            pace.batch_size, pace.sleep_ms
        ),
    ));
    Ok(lines)
}
