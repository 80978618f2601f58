//! What it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Line;
use super::machine;
use super::measured::{self, Measured};
use super::walk::{LIMIT_MS, Way};
use crate::api::sample::Backfill;
use crate::api::start::Pace;
use crate::catalog::outcome;
use crate::error::Result;
use crate::job::quantity::{Lasting, Shown, thousands as count};
use crate::pg::hot::IndexFacts;
use crate::pg::traps::{self, Finding};
use crate::pg::{server, settings};
use crate::plan::estimate::{Estimate, Given, Index, Known, estimate};
use crate::plan::passes::Passes;

/// The figures of which more may be asked than is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Time,
    Wal,
    Heap,
    Indexes,
}

/// Bytes of a line pointer.
const LINE_POINTER: f64 = 4.0;

const ALL: [Figure; 4] = [Figure::Time, Figure::Wal, Figure::Heap, Figure::Indexes];

/// What is in no figure, by what it would belong to.
#[derive(Debug, Default)]
struct Unknown(BTreeMap<String, Vec<Figure>>);

impl Unknown {
    fn add(&mut self, what: String, figures: &[Figure]) {
        self.0.insert(what, figures.to_vec());
    }

    fn is_in(&self, figure: Figure) -> bool {
        self.0.values().any(|figures| figures.contains(&figure))
    }

    fn shown(&self) -> String {
        self.0.keys().cloned().collect::<Vec<_>>().join("; ")
    }
}

/// The lines, and the numbers behind them. A figure that is not known is `null` among the numbers.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<(Vec<Line>, Value)> {
    let before = outcome::last_on(backfill.relation.oid, &backfill.set_clause)?
        .filter(|job| server::may_act_for(job.owner) && !backfill.options.dry_run());
    let known = before.as_ref().map(|job| Known {
        seconds: job.seconds_per_row,
        wal: job.wal_per_row,
    });
    let measured = measured::measure(backfill)?;
    let source = match (&before, &measured.sample) {
        (Some(job), _) => format!("as job {} took on this table", job.id),
        (None, Some(sample)) => {
            let s = if sample.rows == 1.0 { "" } else { "s" };
            format!("by {} row{s} that were evaluated", count(sample.rows))
        }
        (None, None) => "by rules of thumb".to_owned(),
    };
    let mut sum = Estimate::default();
    let slower = machine::slower();
    for way in ways {
        let given = Given {
            slower,
            ..given(backfill, way, pace, &measured)
        };
        sum.add(estimate(&given, known));
    }
    let unknown = unknown(backfill, ways, &measured, &sum, known.is_some())?;
    let total = |f: fn(&Way) -> f64| ways.iter().map(f).sum::<f64>();
    let (rows, matching) = (total(|way| way.rows), total(|way| way.matching));
    let (heap, indexes) = (total(heap_bytes), total(index_bytes));
    let line = |item: &str, value: String| Line::new("estimates", item, value);
    let least = |figure: Figure| if unknown.is_in(figure) { "at least " } else { "" };
    let mut lines = vec![line("rows", count(rows))];
    if backfill.where_clause.is_some() {
        let how = match ways.iter().any(|way| way.seen.rows > 0.0) {
            true => "by a sample",
            false => "not known: all are taken for it",
        };
        lines.push(line(
            "rows that match",
            format!("{}, {how}", count(matching)),
        ));
    }
    let grown = |figure, more: f64, of: f64| format!("{}{} on {}", least(figure), size(more), size(of));
    lines.extend([
        line("batches", count(sum.batches)),
        line(
            "time",
            format!("{}{}, {source}", least(Figure::Time), lasting(sum.seconds)),
        ),
        line(
            "WAL",
            format!("{}{}, {source}", least(Figure::Wal), size(sum.wal)),
        ),
        line(
            "growth of the heap",
            grown(Figure::Heap, sum.heap_growth, heap),
        ),
        line(
            "growth of the indexes",
            grown(Figure::Indexes, sum.index_growth, indexes),
        )
        .advice(format!(
            "See that the file systems have room for {}{} more, WAL apart.",
            least(Figure::Indexes),
            size(sum.heap_growth + sum.index_growth)
        )),
    ]);
    if !unknown.0.is_empty() {
        lines.push(line("not known", unknown.shown()).advice(
            "backfill.rehearse() tries real batches of a definition, and rolls them back: it tells the time and the WAL of a row. Or run a part first: option \"limit_rows\".",
        ));
    }
    let mut numbers = json!({
        "rows": rows.round(), "matching_rows": matching.round(), "batches": sum.batches,
        "heap_bytes": heap.round(), "index_bytes": indexes.round(), "source": source,
        "unknown": unknown.0.keys().collect::<Vec<_>>(),
    });
    let figures = [
        (Figure::Time, "seconds", (sum.seconds * 10.0).round() / 10.0),
        (Figure::Wal, "wal_bytes", sum.wal.round()),
        (Figure::Heap, "heap_growth_bytes", sum.heap_growth.round()),
        (Figure::Indexes, "index_growth_bytes", sum.index_growth.round()),
    ];
    let mut at_least = Map::new();
    for (figure, name, value) in figures {
        numbers[name] = match unknown.is_in(figure) {
            true => Value::Null,
            false => json!(value),
        };
        if unknown.is_in(figure) {
            at_least.insert(name.to_owned(), json!(value));
        }
    }
    numbers["at_least"] = Value::Object(at_least);
    Ok((lines, numbers))
}

/// What the figures leave out.
fn unknown(
    backfill: &Backfill,
    ways: &[Way],
    measured: &Measured,
    sum: &Estimate,
    is_known: bool,
) -> Result<Unknown> {
    let mut unknown = Unknown::default();
    if backfill.options.dry_run() {
        return Ok(unknown);
    }
    for index in &sum.unknown_indexes {
        let what = format!("entries in index {index}");
        unknown.add(what, &[Figure::Time, Figure::Wal, Figure::Indexes]);
    }
    if let Some(why) = &measured.trouble {
        unknown.add(format!("the new rows: {why}"), &ALL);
    }
    if ways.iter().any(|way| way.seen.too_long) {
        let what = format!("where_clause: a look at rows takes longer than {} s", LIMIT_MS / 1000);
        unknown.add(what, &[Figure::Time]);
    }
    let fire = !backfill.options.skips_triggers();
    let root = backfill.relation.oid;
    let leaves = ways.iter().map(|way| way.table.oid);
    for table in leaves.filter(|leaf| *leaf != root).chain([root]) {
        for found in traps::of_table(table, &backfill.set_columns, fire)? {
            if let Some(figures) = left_out(&found) {
                unknown.add(format!("{}: {}", found.item, found.value), figures);
            }
        }
    }
    if is_known {
        // That job has measured these.
        for figures in unknown.0.values_mut() {
            figures.retain(|figure| ![Figure::Time, Figure::Wal].contains(figure));
        }
        unknown.0.retain(|_, figures| !figures.is_empty());
    }
    Ok(unknown)
}

/// What a finding adds to that is in no figure.
fn left_out(found: &Finding) -> Option<&'static [Figure]> {
    match found.item {
        // A row trigger that fires before may change any column.
        "triggers" if found.value.contains("(before each row") => Some(&ALL),
        "triggers"
        | "foreign keys of columns that are set"
        | "foreign keys that change other tables along" => Some(&[Figure::Time, Figure::Wal]),
        "foreign keys that refer to columns that are set" => Some(&[Figure::Time]),
        _ => None,
    }
}

fn given(backfill: &Backfill, way: &Way, pace: Pace, measured: &Measured) -> Given {
    let unlogged = way.table.persistence == 'u';
    let setting = |name| settings::get(name).unwrap_or_default();
    let sample = measured.sample;
    let grown = sample.map_or(0.0, |sample| sample.after - sample.before);
    let waves = way.waves.clone().unwrap_or((1, Passes::Even));
    let row = sample.map_or(way.shape.row_bytes, |sample| (sample.before / 8.0).ceil() * 8.0 + LINE_POINTER);
    let share = |room| way.wave_shape.share_elsewhere(waves, (grown, row), room);
    let pages = measured.room.len().max(1) as f64;
    let elsewhere = match measured.room.as_slice() {
        [] => share(None),
        room => room.iter().map(|bytes| share(Some(*bytes))).sum::<f64>() / pages,
    };
    Given {
        rows: way.rows,
        matching: way.matching,
        heap: heap_bytes(way) * way.part,
        indexes: way.indexes.iter().map(|i| index(way, i, measured)).collect(),
        waves: way.waves.is_ok(),
        elsewhere,
        free: measured.room.iter().sum::<f64>() / pages,
        blocked: way.facts.blocked_by.is_some(),
        full_page_writes: setting(c"full_page_writes") != "off",
        logged: !unlogged,
        logical: setting(c"wal_level") == "logical",
        read_only: backfill.options.dry_run(),
        batch_size: f64::from(pace.batch_size),
        sleep: f64::from(pace.sleep_ms) / 1000.0,
        workers: f64::from(backfill.options.workers()),
        processors: std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        reading: way.seen.seconds,
        sample,
        slower: 1.0,
    }
}

fn index(way: &Way, facts: &IndexFacts, measured: &Measured) -> Index {
    let width = |number: &i16| {
        let column = way.table.columns.iter().find(|c| c.number == *number)?;
        measured.widths.get(&column.name).copied()
    };
    let widths: Option<Vec<f64>> = facts.columns.iter().map(width).collect();
    Index {
        name: facts.name.clone(),
        method: facts.method.clone(),
        bytes: facts.bytes as f64 * way.part,
        changed: facts.changed,
        // How many rows a predicate lets in is not known.
        width: widths.filter(|_| !facts.partial).map(|widths| widths.iter().sum()),
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
