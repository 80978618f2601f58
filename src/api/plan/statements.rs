//! What will run.

use pgrx::pg_sys;

use super::Line;
use super::walk::Way;
use crate::api::sample::Backfill;
use crate::api::start::Pace;
use crate::error::Result;
use crate::pg::settings;
use crate::pg::spi::{self, Arg, CANONICAL};
use crate::plan::position::Key;
use crate::plan::sql::Param;

/// The statements of a batch, and the plan of the first one, of the largest table.
pub fn lines(_backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<Vec<Line>> {
    let Some(way) = ways.iter().max_by(|a, b| a.rows.total_cmp(&b.rows)) else {
        return Ok(Vec::new());
    };
    let line = |item: &str, value: String| Line::new("statements", item, value);
    let target = &way.target;
    if way.by_pages {
        return Ok(vec![
            line("read pages", target.read_pages().text),
            line("update rows by their places", target.update_places().text),
        ]);
    }
    let mut lines = vec![
        line("where a batch ends", target.bound(true).text),
        line("batch", target.update(true).text),
    ];
    if way.waves.is_ok() || target.where_clause.is_some() {
        lines.push(line("read a region", target.read(true, true).text));
        lines.push(line(
            "rows of a region",
            target.update_places_of_keys().text,
        ));
    }
    if let Some(plan) = explain(way, pace)? {
        lines.push(line("plan of the first batch", plan));
    }
    Ok(lines)
}

/// The plan of the first batch, with its own keys.
fn explain(way: &Way, pace: Pace) -> Result<Option<String>> {
    let target = &way.target;
    let last = match end(way, i64::from(pace.batch_size))? {
        Some(key) => key,
        // Fewer rows than a batch: up to the last.
        None => match end(way, 0)? {
            Some(key) => key,
            None => return Ok(None),
        },
    };
    let statement = target.update(false);
    let args = typed(way, &last);
    let sql = format!("EXPLAIN (COSTS off) {}", statement.text);
    let rows = settings::with(CANONICAL, || spi::query(&sql, &args))?.rows;
    let lines: Result<Vec<&str>> = rows.iter().map(|row| row.text(0)).collect();
    Ok(Some(lines?.join("\n")))
}

/// The key of the n-th row; of the last one for 0.
fn end(way: &Way, n: i64) -> Result<Option<Key>> {
    let target = &way.target;
    let statement = match n {
        0 => target.greatest(&[]),
        _ => target.nth(),
    };
    let rows = [(n - 1).max(0), 1];
    let mut numbers = rows.iter().skip(usize::from(n == 0));
    let args: Vec<Arg> = statement
        .params
        .iter()
        .filter(|param| matches!(param, Param::Rows))
        .filter_map(|_| numbers.next().map(|n| Arg::Int8(*n)))
        .collect();
    let found = settings::with(CANONICAL, || spi::first(&statement.text, &args))?;
    found.map(|row| row.texts(target.key.len())).transpose()
}

fn typed<'a>(way: &'a Way, key: &'a Key) -> Vec<Arg<'a>> {
    let columns = way.target.key.iter().zip(key);
    columns
        .map(|(column, text)| Arg::Typed(pg_sys::Oid::from(column.type_oid), text))
        .collect()
}
