//! One batch: one transaction that updates rows and moves the checkpoint past them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::model::timing::Spent;
use crate::pg::txn::{self, Durability};
use crate::pg::{heap, horizon, relation, settings, timeout, wal};
use crate::scan::weight::Weight;
use crate::store::checkpoint::{Checkpoint, Gauges};
use crate::store::job::Job;
use crate::store::{leftover, slice};
use crate::table::walked;
use crate::worker::batch::step::{Done, Work};
use crate::worker::held_slice::{Course, Ground, Walk, limit};

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing was done: something about the job has changed (or it is gone), and has to be looked at first.
    Changed,
    /// Nothing was done: dead versions that are in the way cannot be removed yet.
    TooEarly,
    /// Done; the next batch follows after this pause.
    More(Duration),
    /// Rows were only read, for the batches that follow.
    Read,
    /// Done; it was the last batch of the slice.
    Last,
    /// Done; other slices come first now, after this pause.
    Left(Duration),
    /// Nothing was done: as many rows are done as are wanted.
    Enough,
    /// Nothing was done: the slice's pages, or its table, no longer exist.
    Lost(Ground),
}

/// Runs one batch and commits it together with its checkpoint.
pub fn run(walk: &mut Walk, job: &Job) -> Result<Step> {
    walk.attempt = None;
    let begun = Cell::new(Instant::now());
    let wal = wal::written();
    let limit = job.definition.options.statement_timeout_ms();
    let committed = timeout::limited(limit, || commit(walk, job, &begun));
    let elapsed = begun.get().elapsed();
    let throttle = &mut walk.learned.throttle;
    if committed.is_err() {
        // A batch that is rolled back has taken time and WAL, too.
        throttle.spent.working += elapsed;
        throttle.count_wal();
    }
    let (step, tried) = committed?;
    let crowded = std::mem::take(&mut throttle.crowded).then_some(tried);
    if crowded.is_some() || matches!(step, Step::More(_)) {
        walk.setbacks.passed(job.batch_size, crowded);
    }
    throttle.spent.working += elapsed;
    if tried > 0 {
        throttle.recent.note(elapsed);
        walk.learned.sizer.measured(tried, elapsed);
        if let Some(weight) = &mut walk.weight {
            weight.measured(tried, wal::written() - wal);
        }
    }
    Ok(step)
}

/// Runs the transaction of a batch. Returns also the number of rows of its UPDATE, and sets `begun` to the time of its
/// beginning.
fn commit(walk: &mut Walk, job: &Job, begun: &Cell<Instant>) -> Result<(Step, i64)> {
    let table = walk.slice.relation;
    let awaited = walk.awaited();
    let enums = Rc::clone(&walk.enums);
    let too_early = Cell::new(false);
    let lock_timeout = job.definition.options.lock_timeout_ms().to_string();
    let mut tried = 0;
    let (step, next) = txn::run_after(
        || {
            settings::set_text_for_transaction(c"lock_timeout", &lock_timeout);
            relation::lock_for_update(table);
            enums.keep();
            // The time of the batch, without its wait for DDL.
            begun.set(Instant::now());
            // Done before this transaction has a snapshot, since that would hold the horizon itself.
            let passed = |xid| horizon::precedes(xid, horizon::horizon(table));
            too_early.set(!awaited.is_none_or(passed));
        },
        Durability::Deferred,
        || {
            if walk.versions.read(job.id)? != Some(job.version) {
                return Ok((Step::Changed, None));
            }
            if too_early.get() {
                return Ok((Step::TooEarly, None));
            }
            match walk.refresh(job)? {
                Ground::Firm => {}
                other => return Ok((Step::Lost(other), None)),
            }
            relation::refuse_policies(table);
            let left = limit::rows_left(job)?;
            if left == Some(0) {
                return Ok((Step::Enough, None));
            }
            let (mut done, mut gauges, mut pause) = step(walk, job, left)?;
            tried = done.tried;
            give_way(walk, job, tried, begun.get(), &mut pause, &mut gauges)?;
            leftover::add(walk.slice.id, &done.locked)?;
            done.last = done.last && leftover::count(walk.slice.id)? == 0;
            let mut next = successor(&walk.checkpoint, &done);
            next.spent.add(&walk.learned.throttle.spent);
            let rate = walk.measure(next.progress.rows_done);
            // First the slice, then its checkpoint: the order in which everyone locks the two.
            if done.last {
                slice::finish(walk.slice.id)?;
            }
            walk.gauges = Gauges { rate, ..gauges };
            walk.writer.replace(&walk.checkpoint, &next, &walk.gauges)?;
            Ok((outcome(&done, pause), Some(next)))
        },
    )?;
    if let Some(next) = next {
        walk.checkpoint = next;
        walk.learned.throttle.spent = Spent::default();
    }
    Ok((step, tried))
}

/// Makes the pause after the batch longer if a bound asks for it.
fn give_way(
    walk: &mut Walk,
    job: &Job,
    tried: i64,
    begun: Instant,
    pause: &mut Duration,
    gauges: &mut Gauges,
) -> Result<()> {
    let workers = job.definition.options.workers();
    let throttle = &mut walk.learned.throttle;
    gauges.batch_time = throttle.recent.last().zip(throttle.recent.p95());
    let asked = throttle.after(walk.slice.relation, tried, begun, workers)?;
    throttle.pausing = None;
    if let Some(asked) = asked.filter(|asked| asked.time > *pause) {
        throttle.pausing = Some(asked.reason.signal);
        *pause = asked.time;
        gauges.waits = Some((asked.reason.shown(), asked.time));
    }
    Ok(())
}

fn outcome(done: &Done, pause: Duration) -> Step {
    if done.last {
        Step::Last
    } else if done.left {
        Step::Left(pause)
    } else if done.opened {
        Step::Read
    } else {
        Step::More(pause)
    }
}

fn step(walk: &mut Walk, job: &Job, left: Option<i64>) -> Result<(Done, Gauges, Duration)> {
    let note = walk.setbacks.note();
    let by_weight = most_by_weight(walk, job)?;
    let mut work = Work {
        job,
        slice: walk.slice.id,
        sizer: &walk.learned.sizer,
        reader: &mut walk.learned.reader,
        setbacks: &mut walk.setbacks,
        found: walk.checkpoint.progress.rows_found,
        left: walk.checkpoint.progress.left(),
        attempt: &mut walk.attempt,
        most: walk
            .learned
            .throttle
            .most_rows(job.definition.options.workers())
            .min(left.unwrap_or(i64::MAX))
            .min(by_weight),
        note: None,
        batch_rows: None,
        pause: Duration::from_millis(u64::from(job.sleep_ms.unsigned_abs())),
        waits: None,
    };
    let at = &walk.checkpoint.position;
    let done = match &mut walk.course {
        Course::Keys(keys) => keys.step(at, &mut work),
        Course::Pages(pages) => pages.step(at, &mut work),
        Course::Look(look) => look.step(at, &mut work),
    };
    let gauges = Gauges {
        rate: None,
        batch_rows: work.batch_rows,
        note: work.note.or(note),
        batch_time: None,
        waits: work.waits.map(|what| (what, work.pause)),
    };
    Ok((done?, gauges, work.pause))
}

/// Returns the number of rows whose bytes the option `batch_bytes` allows.
fn most_by_weight(walk: &mut Walk, job: &Job) -> Result<i64> {
    let Some(bytes) = job.definition.options.batch_bytes() else {
        return Ok(i64::MAX);
    };
    let weight = match walk.weight {
        Some(weight) => weight,
        None => Weight::of_rows(bytes_per_row(walk)?),
    };
    walk.weight = Some(weight);
    Ok(weight.most(bytes))
}

/// Returns the bytes that the table has for a row, on average; a page, where nothing is known.
fn bytes_per_row(walk: &Walk) -> Result<f64> {
    /// Pages whose rows are counted.
    const PAGES_COUNTED: f64 = 20.0;
    const UNKNOWN: f64 = 8192.0;
    let table = walk.slice.relation;
    let bytes = heap::bytes(table)? as f64;
    let rows = walked::rows(&walk.target, table, PAGES_COUNTED)?;
    Ok(rows.map_or(UNKNOWN, |rows| bytes / rows.max(1.0)))
}

fn successor(last: &Checkpoint, done: &Done) -> Checkpoint {
    let mut next = last.successor();
    next.position = done.position.clone();
    next.progress.advance(done.scanned, done.updated);
    next.progress.rows_hot += done.hot;
    next.progress.rows_found += done.found;
    if done.last {
        next.progress.finish();
    }
    next
}
