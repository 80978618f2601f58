//! The input of a batch, and its result.

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::hot;
use crate::scan::position::{Key, Position};
use crate::scan::reader::{MUCH_LONGER, Reader};
use crate::scan::sizer::Sizer;
use crate::store::job::Job;
use crate::waves::passes::Pass;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::failures::Setbacks;

/// The input of a batch, and what it leaves for the next one.
#[derive(Debug)]
pub struct Work<'a> {
    /// The job the batch belongs to.
    pub job: &'a Job,
    /// Id of the slice.
    pub slice: i32,
    /// Chooses the size of batches from the time they take.
    pub sizer: &'a Sizer,
    /// Chooses the number of rows to read from the time that takes.
    pub reader: &'a mut Reader,
    /// Earlier failures, which limit what may be done at a time.
    pub setbacks: &'a mut Setbacks,
    /// In physical order: rows that the slice has found to match so far.
    pub found: i64,
    /// Rows that the slice may still have, by its estimate.
    pub left: Option<i64>,
    /// The rows that the batch in progress is about, once that is known: used if it fails.
    pub attempt: &'a mut Option<Attempt>,
    /// Largest number of rows of an UPDATE, for a steady rate.
    pub most: i64,
    /// A remark for a person.
    pub note: Option<String>,
    /// The batch size in force.
    pub batch_rows: Option<i32>,
    /// Length of the sleep after the batch.
    pub pause: Duration,
    /// Reason for the sleep, if it is not the pace.
    pub waits: Option<String>,
}

/// Rows that were read before any of them is updated.
#[derive(Debug)]
pub struct Ahead<T> {
    /// Number of rows, whether or not they match.
    pub rows: i64,
    /// Whether the slice may have more rows.
    pub more: bool,
    /// The rows themselves, in the form that the order of the walk needs.
    pub what: T,
}

/// The result of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    /// The new position of the slice.
    pub position: Position,
    /// Rows passed.
    pub scanned: i64,
    /// Rows changed.
    pub updated: i64,
    /// Rows changed by heap-only updates.
    pub hot: i64,
    /// In physical order: rows found to match.
    pub found: i64,
    /// Rows of the UPDATE, whether or not it changed them.
    pub tried: i64,
    /// Whether a region was opened: the batches that follow update its rows.
    pub opened: bool,
    /// Rows that others had locked, left for the end of the slice.
    pub locked: Vec<Key>,
    /// Whether the slice is left now, because other slices come first.
    pub left: bool,
    /// Whether it was the last batch of the slice.
    pub last: bool,
}

impl Done {
    /// Returns the result for a slice that has no more rows.
    pub fn nothing_left(position: Position) -> Done {
        Done {
            position,
            last: true,
            ..Done::default()
        }
    }
}

impl Work<'_> {
    /// Makes the worker sleep for `pause` after the batch, and the view show `what` as the reason.
    pub fn wait(&mut self, what: String, pause: Duration) {
        self.pause = pause;
        self.waits = Some(what);
    }

    /// Returns the number of rows of the next UPDATE, `most` at most.
    pub fn size(&mut self, most: i64) -> i64 {
        let most = i32::try_from(most.min(self.most)).unwrap_or(i32::MAX);
        let size = self.sizer.size(most, self.job.definition.options.target_ms);
        let size = self.setbacks.bound.of(size.into());
        self.setbacks.size = size;
        self.batch_rows = Some(size as i32);
        size
    }

    /// Returns the number of rows of a commit in a pass. Where a pass makes it smaller than `batch_size`, the pause
    /// after it is shortened in proportion: otherwise waves would slow down a job that sleeps most of the time.
    pub fn size_in_pass(&mut self, pass: Pass) -> usize {
        let whole = self.job.batch_size;
        let most = pass.rows_per_commit(whole);
        let size = self.size(most.into());
        if size == i64::from(most) {
            let part = f64::from(most) / f64::from(whole.max(most));
            self.pause = self.pause.mul_f64(part);
        }
        size as usize
    }

    /// Reads the rows of a region, about as many as wanted. The first read is small, since nothing is known yet about
    /// the time per row; if much more may be read, the region is read again with more rows.
    pub fn read_region<T>(
        &mut self,
        wanted: i64,
        mut read: impl FnMut(&mut Self, i64) -> Result<Ahead<T>>,
    ) -> Result<Ahead<T>> {
        let mut limit = self.region_rows(wanted);
        loop {
            self.setbacks.size = limit;
            let ahead = self.measured(|work| {
                let ahead = read(work, limit)?;
                Ok((ahead.rows, ahead))
            })?;
            let most = self.region_rows(wanted);
            if !ahead.more || most < limit.saturating_mul(MUCH_LONGER) {
                return Ok(ahead);
            }
            limit = most;
        }
    }

    /// Reads rows, and learns how long that takes.
    pub fn measured<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<(i64, T)>) -> Result<T> {
        let begun = Instant::now();
        let (rows, what) = read(self)?;
        self.reader.measured(rows, begun.elapsed());
        Ok(what)
    }

    /// Returns the number of rows that a statement may read, by the time that takes.
    pub fn may_read(&self) -> i64 {
        self.reader.most(self.job.definition.options.target_ms)
    }

    /// Returns the number of rows to read for a region of the size wanted: no more than a statement may read, and all
    /// that is left of the slice if little would remain after the region.
    pub fn region_rows(&self, wanted: i64) -> i64 {
        let options = &self.job.definition.options;
        let all = match self.left {
            Some(left) if left < wanted * 3 / 2 => wanted * 2,
            _ => wanted,
        };
        let limit = match self.job.definition.where_clause {
            Some(_) => options.scan_limit.unwrap_or(i64::MAX),
            None => i64::MAX,
        };
        let most = all.min(limit).min(self.may_read());
        if self.setbacks.careful {
            let most = most.min(i64::from(self.job.batch_size));
            self.setbacks.bound.of(most)
        } else {
            most
        }
    }
}

/// Runs an UPDATE; returns the number of rows changed, and how many of them were heap-only.
pub fn changed_by(relation: Oid, update: impl FnOnce() -> Result<i64>) -> Result<(i64, i64)> {
    let (_, before) = hot::xact_counts(relation);
    let updated = update()?;
    let (_, after) = hot::xact_counts(relation);
    Ok((updated, (after - before).clamp(0, updated)))
}
