//! One batch: one transaction that updates rows and moves the checkpoint past them.

use std::time::Instant;

use super::plans::Key;
use super::walk::Walk;
use crate::catalog::checkpoint::Checkpoint;
use crate::catalog::job::Job;
use crate::error::Result;
use crate::pg::txn::{self, Durability};
use crate::pg::{relation, report};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The job's row has changed (or is gone): look at it before going on.
    Changed,
    /// Done; there are more.
    More,
    /// Done; it was the last.
    Last,
}

/// A batch that is to be done: up to which key, and what is known of its rows.
struct Range {
    end: Key,
    scanned: i64,
    matched: Option<i64>,
    last: bool,
}

/// Runs one batch and commits it together with its checkpoint.
pub fn run(walk: &mut Walk, job: &Job) -> Result<Step> {
    walk.attempted = None;
    let (step, next) = txn::run_after(
        || relation::lock_for_update(job.relation),
        Durability::Deferred,
        || {
            if walk.versions.read(job.id)? != Some(job.version) {
                return Ok((Step::Changed, None));
            }
            walk.refresh(job)?;
            let Some(range) = range(walk, job)? else {
                return Ok((Step::Last, None));
            };
            walk.attempted = Some(range.end.clone());
            let updated = update(walk, &range)?;
            let next = successor(&walk.checkpoint, &range, updated);
            let rate = walk.rate.measure(Instant::now(), next.progress.rows_done);
            walk.writer.replace(&walk.checkpoint, &next, rate)?;
            Ok((if range.last { Step::Last } else { Step::More }, Some(next)))
        },
    )?;
    if let Some(next) = next {
        walk.checkpoint = next;
    }
    Ok(step)
}

/// Finds where the batch ends; nothing if no row is left.
fn range(walk: &Walk, job: &Job) -> Result<Option<Range>> {
    let cursor = walk.checkpoint.key.as_ref();
    let size = i64::from(job.batch_size);
    let scan = job.definition.options.scan_limit(job.batch_size);
    let (rows, limit) = match walk.target.where_clause {
        None => (vec![size - 1, 1], size),
        Some(_) => (vec![scan, size, scan], scan),
    };
    if let Some(bound) = walk.plans.bound(cursor, &walk.slice.last_key, &rows)? {
        return Ok(Some(Range {
            last: bound.key == walk.slice.last_key,
            end: bound.key,
            scanned: bound.scanned.unwrap_or(size),
            matched: bound.matched,
        }));
    }
    let left = walk.plans.count(cursor, &walk.slice.last_key, limit)?;
    Ok((left > 0).then(|| Range {
        end: walk.slice.last_key.clone(),
        scanned: left,
        matched: None,
        last: true,
    }))
}

/// Updates the rows of the range, unless it is known that none matches.
fn update(walk: &Walk, range: &Range) -> Result<i64> {
    if range.matched == Some(0) {
        return Ok(0);
    }
    report::activity(walk.plans.update_text());
    walk.plans.update(walk.checkpoint.key.as_ref(), &range.end)
}

fn successor(last: &Checkpoint, range: &Range, updated: i64) -> Checkpoint {
    let mut next = last.clone();
    next.seq += 1;
    next.key = Some(range.end.clone());
    next.progress.advance(range.scanned, updated);
    next
}
