//! How each table would be walked, and why.

use super::Line;
use crate::api::sample::Backfill;
use crate::api::start::Pace;
use crate::api::tables;
use crate::error::Result;
use crate::job::options::{Strategy, Walk};
use crate::pg::hot::{self, HotFacts, TableShape};
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Arg};
use crate::pg::{clauses, evaluate, physical};
use crate::plan::sql::Target;
use crate::plan::waves::{self, Shape};
use crate::plan::{cut, order};
use pgrx::pg_sys;

/// Rows to look at to see how many match.
const LOOKED_AT: f64 = 20_000.0;

/// How a table would be walked.
pub struct Way {
    /// The table, or the partition.
    pub table: Relation,
    /// Its statements; without a key, it goes by pages.
    pub target: Target,
    /// Whether it goes by pages.
    pub by_pages: bool,
    /// Why in this order.
    pub why: String,
    /// Waves, or why there are none.
    pub waves: std::result::Result<i32, String>,
    /// Its size.
    pub shape: TableShape,
    /// What its indexes mean for an update.
    pub facts: HotFacts,
    /// The share of the table that is walked, where options limit it to a part: 1 is all of it.
    pub part: f64,
    /// Rows of that part, and how many of them match.
    pub rows: f64,
    /// See `rows`.
    pub matching: f64,
    /// Whether that was counted in a sample.
    pub sampled: bool,
}

/// How each table would be walked. As the owner.
pub fn ways(backfill: &Backfill) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    for table in tables::of(&backfill.relation, backfill.options.only())? {
        relation::lock_for_update(table.oid);
        ways.push(way(backfill, table)?);
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

impl Way {
    fn limit_to(&mut self, share: f64) {
        self.part *= share;
        self.rows *= share;
        self.matching *= share;
    }
}

fn way(backfill: &Backfill, table: Relation) -> Result<Way> {
    let target = backfill.target(&table)?;
    let rows = relation::estimate_rows(table.oid).unwrap_or(0).max(0) as f64;
    let shape = hot::shape(table.oid)?;
    let facts = hot::facts(table.oid, &backfill.set_columns)?;
    let (matching, seen) = match backfill.where_clause {
        None => (rows, None),
        Some(_) => matching(&target, rows)?,
    };
    let (by_pages, why) = ordered(backfill, &table, &target, &shape, (rows, matching, seen))?;
    let between = match backfill.between(&target)? {
        Some(condition) => {
            clauses::estimate_matches(&table.alone(target.alias.as_deref()), &condition)?
        }
        None => None,
    };
    let mut way = Way {
        waves: chosen_waves(backfill, &facts, &shape),
        by_pages,
        why,
        table,
        target,
        shape,
        facts,
        rows,
        matching,
        sampled: seen.is_some(),
        part: 1.0,
    };
    if let Some(between) = between {
        way.limit_to((between / rows.max(1.0)).min(1.0));
    }
    Ok(way)
}

/// Rows that match, by a sample of the table's pages; and of how many rows that was.
fn matching(target: &Target, rows: f64) -> Result<(f64, Option<f64>)> {
    let percent = (LOOKED_AT * 100.0 / rows.max(1.0))
        .clamp(0.0001, 100.0)
        .to_string();
    let args = [Arg::Typed(pg_sys::FLOAT4OID, &percent)];
    let statement = target.sample_matches();
    let look = || evaluate::read_only(|| spi::first(&statement.text, &args));
    let found = spi::undone(look)?;
    let Some(row) = found else {
        return Ok((rows, None));
    };
    let (seen, hits) = (row.number(0)? as f64, row.number(1)? as f64);
    Ok(match seen > 0.0 {
        true => (rows * hits / seen, Some(seen)),
        false => (rows, None),
    })
}

fn ordered(
    backfill: &Backfill,
    table: &Relation,
    target: &Target,
    shape: &TableShape,
    (rows, matching, seen): (f64, f64, Option<f64>),
) -> Result<(bool, String)> {
    let options = &backfill.options;
    let clause = backfill.where_clause.as_deref();
    let known_as = target.alias.as_deref();
    let by_key = |why: &str| Ok((false, why.to_owned()));
    match (options.walk(), target.key.is_empty()) {
        (Walk::Physical, _) => return Ok((true, "option \"walk\"".to_owned())),
        (_, true) => return Ok((true, "it has no key to go by".to_owned())),
        (Walk::Key, _) => return by_key("option \"walk\""),
        _ if options.bounds().is_some() => return by_key("options \"key_from\" and \"key_to\""),
        _ if options.key.is_some() => return by_key("option \"key\""),
        _ => {}
    }
    let skips = options.skips_triggers();
    let may_pay = order::extinguishes(clause, &backfill.set_columns) && order::matters(shape.pages);
    if !may_pay || physical::unsound(table.oid, known_as, clause, skips)?.is_some() {
        return by_key("its best unique index");
    }
    if order::scattered(hot::correlation(table.oid, &target.key[0].name)?) {
        return Ok((true, "neighbours by key are all over the table".to_owned()));
    }
    let planned = clauses::estimate_matches(&table.alone(known_as), clause.unwrap_or("true"))?;
    let few = planned.is_some_and(|planned| order::few(planned, rows))
        && seen.is_some_and(|seen| order::few_seen(matching * seen / rows.max(1.0), seen));
    Ok(match few {
        true => (true, "few rows match".to_owned()),
        false => (false, "its best unique index".to_owned()),
    })
}

/// As the worker decides it, but for what it sees only when it runs.
fn chosen_waves(
    backfill: &Backfill,
    facts: &HotFacts,
    shape: &TableShape,
) -> std::result::Result<i32, String> {
    let options = &backfill.options;
    if options.strategy() == Strategy::Sequential {
        return Err(match options.limit_rows {
            Some(_) => "with \"limit_rows\" it goes row by row".to_owned(),
            None => "option \"strategy\"".to_owned(),
        });
    }
    if let Some(index) = &facts.blocked_by {
        return Err(format!("set_clause writes what index {index} holds"));
    }
    if facts.indexes < 2 && options.strategy() == Strategy::Auto && options.waves.is_none() {
        return Err("there is one index only".to_owned());
    }
    let pointers = hot::MOST_POINTERS - shape.rows_per_page();
    let of = Shape::of(
        facts.indexes,
        shape.rows_per_page(),
        shape.fits(),
        shape.row_bytes,
        pointers,
    );
    let pays = options.waves.is_some()
        || options.strategy() == Strategy::Waves
        || waves::best_passes(of).is_some();
    match pays {
        true => Ok(options.waves.unwrap_or_else(|| of.waves().max(2))),
        false => Err("one pass is faster here".to_owned()),
    }
}

/// What of the table is walked, where that is not all.
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

/// What is to be said of it.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Vec<Line> {
    let line = |item: &str, value: String| Line::new("walk", item, value);
    let mut lines = vec![line("table", backfill.relation.shown.clone())];
    if backfill.relation.kind == 'p' {
        lines.push(line("partitions", ways.len().to_string()));
    } else if ways.len() > 1 {
        let more = format!("{} that inherit from it", ways.len() - 1);
        lines.push(line("and tables", more));
    }
    let Some(first) = ways.iter().max_by(|a, b| a.rows.total_cmp(&b.rows)) else {
        lines.push(line(
            "order",
            "nothing to walk: there are no partitions".to_owned(),
        ));
        return lines;
    };
    let names: Vec<&str> = first.target.key.iter().map(|c| c.name.as_str()).collect();
    lines.push(match first.by_pages {
        true => line("order", format!("page by page: {}", first.why)),
        false => line(
            "order",
            format!("by key ({}): {}", names.join(", "), first.why),
        ),
    });
    lines.push(match &first.waves {
        Ok(waves) => line("waves", format!("{waves}: most updates will be heap-only")),
        Err(why) => line("waves", format!("none: {why}")),
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
    lines
}
