//! The estimates of a plan: time, WAL and growth.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::measured::{self, Measured};
use super::walk::{LIMIT_MS, Way};
use super::warnings::traps_of;
use super::{Line, machine};
use crate::action::{Changes, Delete, Kind};
use crate::api::backfill::Backfill;
use crate::api::start::Pace;
use crate::error::Result;
use crate::estimate::forecast::{Estimate, Given, Index, Known, estimate};
use crate::model::fate::Fate;
use crate::pg::hot::{self, IndexFacts};
use crate::pg::traps::Finding;
use crate::pg::{server, settings};
use crate::quote::qualified;
use crate::store::outcome;
use crate::throttle::quantity::{Lasting, Shown, thousands as count};
use crate::waves::passes::Passes;

/// Figures of which a part may be unknown.
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

/// Costs that no figure of the plan includes, with the figures that they belong to.
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

/// The findings from which the plan's lines and numbers are made.
struct Found {
    sum: Estimate,
    unknown: Unknown,
    source: String,
    rows: f64,
    /// Number of rows that match, and whether that comes from a sample.
    matching: (f64, bool),
    heap: f64,
    indexes: f64,
}

/// Returns the lines, and the numbers behind them. A figure that is not known is `null` among the numbers.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<(Vec<Line>, Value)> {
    let found = find(backfill, ways, pace)?;
    Ok((
        found.lines(backfill.where_clause.is_some()),
        found.numbers(),
    ))
}

fn find(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<Found> {
    let work = Kind::from(backfill.action.changes()).stored()?.to_string();
    let before = outcome::last_on(backfill.relation.oid, &work)?
        .filter(|job| server::may_act_for(job.owner) && !backfill.options.dry_run());
    let known = before.as_ref().map(|job| Known {
        seconds: job.seconds_per_row,
        wal: job.wal_per_row,
    });
    let measured = match backfill.action.as_action().fate() {
        Fate::Changed => measured::measure(backfill)?,
        // There are no new rows to be measured.
        Fate::Removed | Fate::Kept => Measured::default(),
    };
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
        let indexes = indexes(way, &measured, ways.len() <= MANY)?;
        let given = given(backfill, way, pace, &measured, indexes, slower);
        sum.add(estimate(&given, known));
    }
    let total = |f: fn(&Way) -> f64| ways.iter().map(f).sum::<f64>();
    Ok(Found {
        unknown: unknown(backfill, ways, &measured, &sum, known.is_some())?,
        sum,
        source,
        rows: total(|way| way.rows),
        matching: (
            total(|way| way.matching),
            ways.iter().any(|way| way.seen.rows > 0.0),
        ),
        heap: total(heap_bytes),
        indexes: total(index_bytes),
    })
}

impl Found {
    fn least(&self, figure: Figure) -> &'static str {
        match self.unknown.is_in(figure) {
            true => "at least ",
            false => "",
        }
    }

    fn lines(&self, has_clause: bool) -> Vec<Line> {
        let line = |item: &str, value: String| Line::new("estimates", item, value);
        let (sum, source) = (&self.sum, &self.source);
        let mut lines = vec![line("rows", count(self.rows))];
        if has_clause {
            let how = match self.matching.1 {
                true => "by a sample",
                false => "not known: all are taken for it",
            };
            let value = format!("{}, {how}", count(self.matching.0));
            lines.push(line("rows that match", value));
        }
        let told = |figure, value: String| format!("{}{value}", self.least(figure));
        let grown = |more, of| format!("{} on {}", size(more), size(of));
        let time = format!("{}, {source}", lasting(sum.seconds));
        let wal = format!("{}, {source}", size(sum.wal));
        let heap = grown(sum.heap_growth, self.heap);
        let indexes = grown(sum.index_growth, self.indexes);
        let room = size(sum.heap_growth + sum.index_growth);
        lines.extend([
            line("batches", count(sum.batches)),
            line("time", told(Figure::Time, time)),
            line("WAL", told(Figure::Wal, wal)),
            line("growth of the heap", told(Figure::Heap, heap)),
            line("growth of the indexes", told(Figure::Indexes, indexes)).advice(format!(
                "See that the file systems have room for {} more, WAL apart.",
                told(Figure::Indexes, room)
            )),
        ]);
        if !self.unknown.0.is_empty() {
            lines.push(line("not known", self.unknown.shown()).advice(
                "backfill.rehearse() tries real batches of a definition, and rolls them back: it tells the time and the WAL of a row. Or run a part first: option \"limit_rows\".",
            ));
        }
        lines
    }

    fn numbers(&self) -> Value {
        let sum = &self.sum;
        let mut numbers = json!({
            "rows": self.rows.round(), "matching_rows": self.matching.0.round(), "batches": sum.batches,
            "heap_bytes": self.heap.round(), "index_bytes": self.indexes.round(), "source": self.source,
            "unknown": self.unknown.0.keys().collect::<Vec<_>>(),
        });
        let figures = [
            (Figure::Time, "seconds", (sum.seconds * 10.0).round() / 10.0),
            (Figure::Wal, "wal_bytes", sum.wal.round()),
            (Figure::Heap, "heap_growth_bytes", sum.heap_growth.round()),
            (
                Figure::Indexes,
                "index_growth_bytes",
                sum.index_growth.round(),
            ),
        ];
        let mut at_least = Map::new();
        for (figure, name, value) in figures {
            numbers[name] = match self.unknown.is_in(figure) {
                true => Value::Null,
                false => json!(value),
            };
            if self.unknown.is_in(figure) {
                at_least.insert(name.to_owned(), json!(value));
            }
        }
        numbers["at_least"] = Value::Object(at_least);
        numbers
    }
}

/// Returns the costs that the figures leave out.
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
    let elsewhere = match backfill.action.changes() {
        Changes::Delete(Delete { archive: Some(to) }) => {
            Some(format!("rows in table {}", qualified(&to.schema, &to.name)))
        }
        Changes::Copy(copy) => Some(format!(
            "rows in table {}",
            qualified(&copy.schema, &copy.name)
        )),
        Changes::Execute(_) => Some("what the statement does".to_owned()),
        _ => None,
    };
    if let Some(what) = elsewhere {
        unknown.add(what, &[Figure::Time, Figure::Wal, Figure::Heap]);
    }
    if let Some(why) = &measured.trouble {
        unknown.add(format!("the new rows: {why}"), &ALL);
    }
    if ways.iter().any(|way| way.seen.too_long) {
        let what = format!(
            "where_clause: a look at rows takes longer than {} s",
            LIMIT_MS / 1000
        );
        unknown.add(what, &[Figure::Time]);
    }
    let root = backfill.relation.oid;
    let leaves = ways.iter().map(|way| way.table.oid);
    for table in leaves.filter(|leaf| *leaf != root).chain([root]) {
        for found in traps_of(backfill, table)? {
            if let Some(figures) = left_out(&found) {
                unknown.add(format!("{}: {}", found.item, found.value), figures);
            }
        }
    }
    if is_known {
        // The earlier job's costs include these.
        for figures in unknown.0.values_mut() {
            figures.retain(|figure| ![Figure::Time, Figure::Wal].contains(figure));
        }
        unknown.0.retain(|_, figures| !figures.is_empty());
    }
    Ok(unknown)
}

/// Returns the figures that the costs of a finding belong to, if no figure includes them.
fn left_out(found: &Finding) -> Option<&'static [Figure]> {
    match found.item {
        // A BEFORE row trigger may change any column.
        "triggers" if found.value.contains("(before each row") => Some(&ALL),
        "triggers"
        | "foreign keys of columns that are set"
        | "foreign keys that change other tables along" => Some(&[Figure::Time, Figure::Wal]),
        "foreign keys that refer to columns that are set" => Some(&[Figure::Time]),
        _ => None,
    }
}

fn given(
    backfill: &Backfill,
    way: &Way,
    pace: Pace,
    measured: &Measured,
    indexes: Vec<Index>,
    slower: f64,
) -> Given {
    let unlogged = way.table.persistence == 'u';
    let setting = |name| settings::get(name).unwrap_or_default();
    let sample = measured.sample;
    let grown = sample.map_or(0.0, |sample| sample.after - sample.before);
    let waves = way.waves.clone().unwrap_or((1, Passes::Even));
    let row = sample.map_or(way.shape.row_bytes, |sample| {
        (sample.before / 8.0).ceil() * 8.0 + LINE_POINTER
    });
    let share = |room| way.wave_shape.share_elsewhere(waves, (grown, row), room);
    let pages = measured.room.len().max(1) as f64;
    let elsewhere = match measured.room.as_slice() {
        [] => share(None),
        room => room.iter().map(|bytes| share(Some(*bytes))).sum::<f64>() / pages,
    };
    let fate = backfill.action.as_action().fate();
    Given {
        rows: way.rows,
        matching: way.matching,
        heap: heap_bytes(way) * way.part,
        indexes,
        waves: way.waves.is_ok(),
        passes: waves.1.sizes(waves.0).len() as f64,
        elsewhere,
        free: measured.room.iter().sum::<f64>() / pages,
        blocked: way.facts.blocked_by.is_some(),
        full_page_writes: setting(c"full_page_writes") != "off",
        logged: !unlogged,
        logical: setting(c"wal_level") == "logical",
        read_only: backfill.options.dry_run() || fate == Fate::Kept,
        removes: fate == Fate::Removed,
        batch_size: f64::from(pace.batch_size),
        sleep: f64::from(pace.sleep_ms) / 1000.0,
        workers: f64::from(backfill.options.workers()),
        processors: std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        reading: way.seen.seconds,
        sample,
        slower,
    }
}

/// Number of tables beyond which the correlation of their indexes is not looked up.
const MANY: usize = 32;

fn indexes(way: &Way, measured: &Measured, look: bool) -> Result<Vec<Index>> {
    let index = |facts| {
        let correlation = match look {
            true => correlation(way, facts)?,
            false => 0.0,
        };
        Ok(index(way, facts, measured, correlation))
    };
    way.indexes.iter().map(index).collect()
}

/// Returns the correlation of the index's order with the table's; 0 if it is not known.
fn correlation(way: &Way, facts: &IndexFacts) -> Result<f64> {
    // The statistics are those of the old values.
    let first = facts.columns.first().filter(|_| !facts.changed);
    let column = first.and_then(|n| way.table.columns.iter().find(|c| c.number == *n));
    match column {
        Some(column) if facts.method == "btree" => {
            Ok(hot::correlation(way.table.oid, &column.name)?.unwrap_or(0.0))
        }
        _ => Ok(0.0),
    }
}

fn index(way: &Way, facts: &IndexFacts, measured: &Measured, correlation: f64) -> Index {
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
        // The number of rows that satisfy a partial index's predicate is not known.
        width: widths
            .filter(|_| !facts.partial)
            .map(|widths| widths.iter().sum()),
        correlation,
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
