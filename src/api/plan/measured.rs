//! The cost of updating a few rows, measured by computing the new rows without storing them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::walk::in_time;
use crate::api::backfill::Backfill;
use crate::api::sample::{Part, shown};
use crate::error::{Error, Result, sqlstate};
use crate::estimate::forecast::Sample;
use crate::estimate::toast::{self, Laid, Value};
use crate::pg::evaluate::{self, Seen};
use crate::pg::heap;
use crate::pg::relation::{self, Relation};
use crate::pg::spi::Arg;
use crate::pg::text::to_server;
use crate::pg::tid::Tid;
use crate::pg::weigh::Weight;

/// Rows that are evaluated at most.
const ROWS: i64 = 100;
/// Time after which no further row is evaluated.
const ENOUGH: Duration = Duration::from_millis(400);
/// Seconds before the first row that are not counted as the clauses' own: any statement, or a busy machine, takes as
/// long.
const USUAL_STARTUP: f64 = 20e-3;
/// Share of the rows, those that took longest, left out of the average: a process that waits for a processor would seem
/// to compute.
const OUTLIERS: f64 = 0.1;

/// The measurements of the rows that were evaluated.
#[derive(Debug, Default)]
pub struct Measured {
    /// Averages over the rows; `None` if no row matched, or none could be evaluated.
    pub sample: Option<Sample>,
    /// Bytes of room for new versions on each page looked at.
    pub room: Vec<f64>,
    /// Average bytes of each column in the new versions.
    pub widths: BTreeMap<String, f64>,
    /// Why nothing is known, if that is so.
    pub trouble: Option<String>,
}

/// Sums over the rows.
#[derive(Debug, Default)]
struct Tally {
    rows: f64,
    statements: f64,
    seconds: f64,
    startup: f64,
    before: f64,
    after: f64,
    set: f64,
    toast: (f64, f64),
    chunks: f64,
    room: Vec<f64>,
    widths: BTreeMap<String, (f64, f64)>,
}

/// Evaluates rows from all over the tables, for a second at most. Nothing is written, locked or left: a clause that
/// would write, or take the next value of a sequence, raises an error, which is then the finding.
pub fn measure(backfill: &Backfill) -> Result<Measured> {
    let found = match in_time(|| backfill.parts(ROWS))? {
        Some(found) => found,
        None => {
            return Ok(Measured::trouble(
                "to find rows that match takes longer than a second",
            ));
        }
    };
    let (mut tally, mut trouble) = (Tally::default(), None);
    let begun = Instant::now();
    for parts in found.parts.chunk_by(|a, b| a.table.oid == b.table.oid) {
        if begun.elapsed() > ENOUGH {
            break;
        }
        match in_time(|| try_rows(parts, begun, &mut tally)) {
            Ok(Some(())) => {}
            Ok(None) if tally.rows > 0.0 => break,
            Ok(None) => trouble = Some("a row takes longer than a second".to_owned()),
            Err(_) if tally.stopped(begun) => break,
            Err(error) => trouble = Some(said(&error)),
        }
    }
    Ok(Measured {
        trouble: trouble.filter(|_| tally.rows == 0.0),
        ..tally.measured()
    })
}

fn said(error: &Error) -> String {
    match error.sqlstate.as_str() {
        sqlstate::READ_ONLY_SQL_TRANSACTION => {
            format!(
                "set_clause writes, or takes values of a sequence, and is not tried here: {}",
                error.message
            )
        }
        // The caller lacks a privilege that only this look needs, and no UPDATE would.
        sqlstate::INSUFFICIENT_PRIVILEGE => format!("rows are not tried here: {}", error.message),
        _ => format!("rows fail: {}", shown(error)),
    }
}

/// Evaluates rows of one table by one statement.
fn try_rows(parts: &[Part], begun: Instant, tally: &mut Tally) -> Result<()> {
    let Some(part) = parts.first() else {
        return Ok(());
    };
    let mut places: Vec<Tid> = Vec::new();
    for part in parts {
        match &part.rows {
            Ok(rows) => places.extend(rows.iter().map(|(tid, _)| *tid)),
            Err(error) => return Err(error.clone()),
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    if relation::is_heap(part.table.oid) {
        let room = heap::room(part.table.oid, &places).into_iter();
        tally.room.extend(room.map(|bytes| bytes as f64));
    }
    let statement = to_server(&part.reading)?;
    let mut last = Instant::now();
    let mut first: Option<f64> = None;
    let mut times = Vec::new();
    let done = evaluate::changes(
        part.table.oid,
        &statement,
        &[Arg::Tids(&places)],
        Seen::Whole,
        |change| {
            let weight = change.weight();
            let took = last.elapsed().as_secs_f64();
            last = Instant::now();
            match first {
                None => first = Some(took),
                Some(_) => times.push(took),
            }
            tally.add(&part.table, &weight);
            match begun.elapsed() > ENOUGH {
                true => Err(Error::internal("enough rows were evaluated")),
                false => Ok(()),
            }
        },
    );
    let first = first.unwrap_or_default();
    // With a single row, it is not known how much of the time was the row's own.
    let each = usual(&mut times).unwrap_or(first);
    tally.seconds += each * (times.len() as f64 + 1.0);
    tally.startup += Some(first - each)
        .filter(|more| *more > USUAL_STARTUP)
        .unwrap_or(0.0);
    tally.statements += 1.0;
    done
}

/// Returns the average without outliers; `None` without values.
fn usual(times: &mut [f64]) -> Option<f64> {
    times.sort_unstable_by(f64::total_cmp);
    let kept = times.len() - (times.len() as f64 * OUTLIERS) as usize;
    (kept > 0).then(|| times[..kept].iter().sum::<f64>() / kept as f64)
}

/// Returns how the new version of a row is laid out.
fn laid_out(weight: &Weight) -> Laid {
    let values = weight.values.iter().map(|value| Value {
        stored: value.stored,
        compressed: value.compressed,
        movable: value.movable,
    });
    toast::lay_out(weight.fixed, &values.collect::<Vec<_>>())
}

impl Tally {
    fn add(&mut self, table: &Relation, weight: &Weight) {
        self.rows += 1.0;
        self.before += weight.before as f64;
        let after = laid_out(weight);
        self.after += after.tuple as f64;
        self.set += weight.set as f64;
        self.toast.0 += after.toast as f64;
        self.toast.1 += weight.replaced as f64;
        self.chunks += after.chunks as f64;
        for column in &table.columns {
            let number = usize::from(column.number.unsigned_abs()).wrapping_sub(1);
            if let Some(width) = weight.columns.get(number) {
                let sum = self.widths.entry(column.name.clone()).or_default();
                *sum = (sum.0 + *width as f64, sum.1 + 1.0);
            }
        }
    }

    /// True if the evaluation was ended because enough rows were seen.
    fn stopped(&self, begun: Instant) -> bool {
        self.rows > 0.0 && begun.elapsed() > ENOUGH
    }

    fn measured(self) -> Measured {
        let each = |sum: f64| sum / self.rows.max(1.0);
        let sample = Sample {
            rows: self.rows,
            seconds: each(self.seconds),
            startup: self.startup / self.statements.max(1.0),
            before: each(self.before),
            after: each(self.after),
            set: each(self.set),
            toast: (each(self.toast.0), each(self.toast.1)),
            chunks: each(self.chunks),
        };
        let widths = self.widths.into_iter();
        Measured {
            sample: (self.rows > 0.0).then_some(sample),
            widths: widths
                .map(|(name, (sum, rows))| (name, sum / rows))
                .collect(),
            room: self.room,
            trouble: None,
        }
    }
}

impl Measured {
    fn trouble(why: &str) -> Measured {
        Measured {
            trouble: Some(why.to_owned()),
            ..Measured::default()
        }
    }
}
