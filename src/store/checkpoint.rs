//! Checkpoints: the position of a slice, committed with each batch.
//!
//! A checkpoint is never updated in place: each one is deleted by the statement that inserts its successor, so that a
//! snapshot held elsewhere cannot make a chain of versions grow. The delete is also the fence: a worker that does not
//! find the predecessor it wrote has lost the slice to another.

use std::time::Duration;

use pgrx::pg_sys;

use crate::error::{Error, Result, Signal, sqlstate};
use crate::model::progress::Progress;
use crate::model::stored::cut_if_any;
use crate::model::timing::Spent;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Plan, Row};
use crate::scan::position::{Position, Region};
use crate::store::region;
use crate::store::slice::array;
use crate::waves::spread::Spread;

/// The position of a slice, its progress, and the time spent on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The slice.
    pub slice: i32,
    /// Number of this checkpoint among those of the slice.
    pub seq: i32,
    /// Number of workers that have held the slice.
    pub epoch: i64,
    /// The position that the slice has reached.
    pub position: Position,
    /// Rows done so far.
    pub progress: Progress,
    /// Time and WAL spent so far.
    pub spent: Spent,
}

impl Checkpoint {
    /// Returns the next checkpoint by the same worker, otherwise unchanged.
    pub fn successor(&self) -> Checkpoint {
        Checkpoint {
            seq: self.seq + 1,
            ..self.clone()
        }
    }
}

/// Figures in a checkpoint that are only for people who look at the job.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Rows per second.
    pub rate: Option<f64>,
    /// Rows per commit in force.
    pub batch_rows: Option<i32>,
    /// Duration of the last batch, and the 95th percentile of the recent ones.
    pub batch_time: Option<(Duration, Duration)>,
    /// A remark for a person.
    pub note: Option<String>,
    /// The reason why the next batch waits, and for how long.
    pub waits: Option<(String, Duration)>,
}

/// The statement that replaces a checkpoint by its successor. Inserts nothing if the predecessor is gone.
pub const REPLACE: &str = "
WITH gone AS (
    DELETE FROM backfill_internal.checkpoint
    WHERE slice_id = $1 AND seq = $2 AND epoch = $3 RETURNING 1
)
INSERT INTO backfill_internal.checkpoint (slice_id, seq, epoch, key, block, region_key, waves, spread, wave, wave_to,
                                 wave_key, rows_done, rows_updated, rows_hot, rows_found, rows_total, percent,
                                 past_estimate, rows_per_second, batch_rows, note, waits_for, waits_until, at,
                                 worked_ms, slept_ms, waited_ms, wal_bytes, batch_ms, batch_ms_p95)
SELECT $1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
       $24, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $25), pg_catalog.clock_timestamp(),
       $26, $27, $28::pg_catalog.jsonb, $29, $30, $31 FROM gone";

/// Parameter types of [`REPLACE`].
const REPLACE_TYPES: [pg_sys::Oid; 31] = [
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT8OID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT4OID,
    pg_sys::TEXTOID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::FLOAT8OID,
    pg_sys::BOOLOID,
    pg_sys::FLOAT8OID,
    pg_sys::INT4OID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::FLOAT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::TEXTOID,
    pg_sys::INT8OID,
    pg_sys::FLOAT8OID,
    pg_sys::FLOAT8OID,
];

/// Returns the last checkpoint of a slice.
pub fn load(slice: i32) -> Result<Checkpoint> {
    let found = as_extension(|| {
        spi::first(
            "SELECT seq, epoch, pg_catalog.to_json(key), block, pg_catalog.to_json(region_key), waves, spread,
                    wave, wave_to, pg_catalog.to_json(wave_key), rows_done, rows_updated, rows_hot, rows_found,
                    rows_total, percent, past_estimate, worked_ms, slept_ms, waited_ms, wal_bytes
             FROM backfill_internal.checkpoint WHERE slice_id = $1 ORDER BY seq DESC LIMIT 1",
            &[Arg::Int4(slice)],
        )
    })?;
    let row = found.ok_or_else(|| Error::internal(format!("slice {slice} has no checkpoint")))?;
    Ok(Checkpoint {
        slice,
        seq: row.number(0)? as i32,
        epoch: row.number(1)?,
        position: Position {
            key: row.get(2).map(array).transpose()?,
            block: row.parse(3)?,
            region: open_region(slice, &row)?,
        },
        progress: Progress {
            rows_done: row.number(10)?,
            rows_updated: row.number(11)?,
            rows_hot: row.number(12)?,
            rows_found: row.number(13)?,
            rows_total: row.parse(14)?,
            percent: row.parse(15)?,
            past_estimate: row.bool(16),
        },
        spent: Spent {
            working: milliseconds(row.number(17)?),
            sleeping: milliseconds(row.number(18)?),
            waiting: Spent::waiting_from(row.get(19)),
            wal: row.number(20)?.unsigned_abs(),
        },
    })
}

fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}

fn open_region(slice: i32, row: &Row) -> Result<Option<Region>> {
    let Some(end) = row.get(4) else {
        return Ok(None);
    };
    let spread = row.text(6)?;
    Ok(Some(Region {
        end: array(end)?,
        waves: row.number(5)? as i32,
        spread: Spread::parse(spread, region::load(slice)?)
            .ok_or_else(|| Error::internal(format!("spread \"{spread}\"")))?,
        wave: row.number(7)? as i32,
        to: row.number(8)? as i32,
        key: row.get(9).map(array).transpose()?,
    }))
}

/// Writes the first checkpoint of a slice.
pub fn insert(slice: i32, position: &Position, progress: &Progress) -> Result<()> {
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.checkpoint (slice_id, seq, epoch, key, block, rows_done, rows_updated, rows_hot,
                                              rows_found, rows_total, past_estimate, at)
             VALUES ($1, 1, 1, $2, $3, 0, 0, 0, 0, $4, false, pg_catalog.clock_timestamp())",
            &[
                Arg::Int4(slice),
                Arg::texts(position.key.as_deref()),
                Arg::int8(position.block),
                Arg::int8(progress.rows_total),
            ],
        )
    })?;
    Ok(())
}

/// Takes the slice over from whichever worker has it: replaces the last checkpoint by a successor of the next epoch.
/// Waits for a batch that has already written its checkpoint; a batch that has not is rolled back when it tries to. The
/// previous worker cannot commit another batch after that.
pub fn seize(writer: &Writer, slice: i32) -> Result<Checkpoint> {
    loop {
        let last = load(slice)?;
        let mut mine = last.successor();
        mine.epoch += 1;
        if writer.try_replace(&last, &mine, &Gauges::default())? {
            return Ok(mine);
        }
    }
}

/// Writes checkpoints with a plan that is kept.
#[derive(Debug)]
pub struct Writer(Plan);

impl Writer {
    /// Prepares the statement, once.
    pub fn prepare() -> Result<Writer> {
        as_extension(|| Ok(Writer(Plan::prepare(REPLACE, &REPLACE_TYPES)?)))
    }

    /// Replaces `last` by `next`, which must follow it. Fails if another worker has taken over the slice.
    pub fn replace(&self, last: &Checkpoint, next: &Checkpoint, gauges: &Gauges) -> Result<()> {
        if self.try_replace(last, next, gauges)? {
            return Ok(());
        }
        Err(Error::new(
            sqlstate::OBJECT_IN_USE,
            "another worker has taken over this slice",
        )
        .detail(format!(
            "Checkpoint {} of epoch {} is gone.",
            last.seq, last.epoch
        ))
        .signal(Signal::Fenced))
    }

    /// Replaces `last` by `next`; returns false if `last` is already gone.
    fn try_replace(&self, last: &Checkpoint, next: &Checkpoint, gauges: &Gauges) -> Result<bool> {
        let progress = &next.progress;
        let position = &next.position;
        let region = position.region.as_ref();
        let spread = region.map(|r| r.spread.to_text());
        if let (None, Some(Spread::Dealt(waves))) =
            (&last.position.region, region.map(|r| &r.spread))
        {
            region::store(last.slice, waves)?;
        }
        let spent = &next.spent;
        let waited = spent.waiting_json();
        let note = cut_if_any(gauges.note.as_deref());
        let waits = cut_if_any(gauges.waits.as_ref().map(|(what, _)| what.as_str()));
        let whole = |time: Duration| Arg::Int8(time.as_millis() as i64);
        let part = |time: Option<Duration>| Arg::float8(time.map(|t| t.as_secs_f64() * 1000.0));
        let int4 = |value: Option<i32>| value.map_or(Arg::Null(pg_sys::INT4OID), Arg::Int4);
        let written = as_extension(|| {
            self.0.run(&[
                Arg::Int4(last.slice),
                Arg::Int4(last.seq),
                Arg::Int8(last.epoch),
                Arg::Int4(next.seq),
                Arg::Int8(next.epoch),
                Arg::texts(position.key.as_deref()),
                Arg::int8(position.block),
                Arg::texts(region.map(|r| r.end.as_slice())),
                int4(region.map(|r| r.waves)),
                Arg::text(spread.as_deref()),
                int4(region.map(|r| r.wave)),
                int4(region.map(|r| r.to)),
                Arg::texts(region.and_then(|r| r.key.as_deref())),
                Arg::Int8(progress.rows_done),
                Arg::Int8(progress.rows_updated),
                Arg::Int8(progress.rows_hot),
                Arg::Int8(progress.rows_found),
                Arg::int8(progress.rows_total),
                Arg::float8(progress.percent.map(f64::from)),
                Arg::Bool(progress.past_estimate),
                Arg::float8(gauges.rate),
                int4(gauges.batch_rows),
                Arg::text(note.as_deref()),
                Arg::text(waits.as_deref()),
                Arg::float8(gauges.waits.as_ref().map(|(_, time)| time.as_secs_f64())),
                whole(spent.working),
                whole(spent.sleeping),
                Arg::text(waited.as_deref()),
                Arg::Int8(spent.wal as i64),
                part(gauges.batch_time.map(|(last, _)| last)),
                part(gauges.batch_time.map(|(_, p95)| p95)),
            ])
        })?;
        Ok(written.processed == 1)
    }
}
