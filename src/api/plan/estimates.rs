//! What it takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::Line;
use super::walk::Way;
use crate::api::sample::Backfill;
use crate::api::start::Pace;
use crate::catalog::outcome;
use crate::error::Result;
use crate::job::quantity::{Lasting, Shown, thousands as count};
use crate::pg::{server, settings};
use crate::plan::estimate::{Estimate, Given, Known, estimate};

/// The lines, and the numbers behind them.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<(Vec<Line>, Value)> {
    let before =
        outcome::last_on(backfill.relation.oid)?.filter(|job| server::may_act_for(job.owner));
    let known = before.as_ref().map(|job| Known {
        seconds: job.seconds_per_row,
        wal: job.wal_per_row,
    });
    let source = match &before {
        Some(job) => format!("as job {} took on this table", job.id),
        None => "by rules of thumb".to_owned(),
    };
    let mut sum = Estimate::default();
    for way in ways {
        sum.add(&estimate(&given(backfill, way, pace), known));
    }
    let total = |f: fn(&Way) -> f64| ways.iter().map(f).sum::<f64>();
    let (rows, matching) = (total(|way| way.rows), total(|way| way.matching));
    let (heap, indexes) = (total(heap_bytes), total(index_bytes));
    let line = |item: &str, value: String| Line::new("estimates", item, value);
    let grown = |more: f64, of: f64| format!("{} on {}", size(more), size(of));
    let mut lines = vec![line("rows", count(rows))];
    if backfill.where_clause.is_some() {
        let how = match ways.iter().any(|way| way.sampled) {
            true => "by a sample",
            false => "not known: all are taken for it",
        };
        lines.push(line(
            "rows that match",
            format!("{}, {how}", count(matching)),
        ));
    }
    lines.extend([
        line("batches", count(sum.batches)),
        line("time", format!("{}, {source}", lasting(sum.seconds))),
        line("WAL", format!("{}, {source}", size(sum.wal))),
        line("growth of the heap", grown(sum.heap_growth, heap)),
        line("growth of the indexes", grown(sum.index_growth, indexes)).advice(format!(
            "See that the file systems have room for {} more, WAL apart.",
            size(sum.heap_growth + sum.index_growth)
        )),
    ]);
    let numbers = json!({
        "rows": rows.round(), "matching_rows": matching.round(), "batches": sum.batches,
        "seconds": (sum.seconds * 10.0).round() / 10.0, "wal_bytes": sum.wal.round(),
        "heap_bytes": heap.round(), "heap_growth_bytes": sum.heap_growth.round(),
        "index_bytes": indexes.round(), "index_growth_bytes": sum.index_growth.round(),
        "source": source,
    });
    Ok((lines, numbers))
}

fn given(backfill: &Backfill, way: &Way, pace: Pace) -> Given {
    let unlogged = way.table.persistence == 'u';
    Given {
        rows: way.rows,
        matching: way.matching,
        heap: heap_bytes(way) * way.part,
        indexes: index_bytes(way) * way.part,
        index_count: f64::from(way.facts.indexes),
        waves: way.waves.is_ok(),
        full_page_writes: settings::get(c"full_page_writes").as_deref() != Some("off"),
        logged: !unlogged,
        batch_size: f64::from(pace.batch_size),
        sleep: f64::from(pace.sleep_ms) / 1000.0,
        workers: f64::from(backfill.options.workers()),
    }
}

fn heap_bytes(way: &Way) -> f64 {
    way.shape.row_bytes * way.shape.tuples.max(1.0)
}

fn index_bytes(way: &Way) -> f64 {
    way.shape.index_bytes * way.shape.tuples.max(1.0)
}

fn size(bytes: f64) -> String {
    Shown(bytes.max(0.0) as u64).to_string()
}

fn lasting(seconds: f64) -> String {
    match seconds < 1.0 {
        true => "less than a second".to_owned(),
        false => Lasting(Duration::from_secs_f64(seconds)).to_string(),
    }
}
