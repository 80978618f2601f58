//! The rows that a slice has left for its end, done one by one: rows that others had locked when their turn came, and
//! rows that failed and are tried again.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::retry;
use crate::pg::lock::Lock;
use crate::scan::position::Position;
use crate::store::leftover;
use crate::store::slice::{self, KeyRange};
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::step::{Done, Work, changed_by};
use crate::worker::by_key::statements::Plans;

/// A round over the rows that are left.
#[derive(Debug, Default)]
pub struct Round {
    /// Id of the last row that has had its turn.
    last: i64,
    /// Whether any row was done in this round.
    progress: bool,
    /// Number of consecutive rounds in which none was.
    vain: u32,
    /// Whether the slice has only such rows.
    alone: bool,
}

impl Round {
    /// Returns the state before the first round over the rows that are left of this range.
    pub fn of(range: &KeyRange) -> Round {
        Round {
            alone: range.is_empty(),
            ..Round::default()
        }
    }

    /// Begins the round again.
    pub fn restart(&mut self) {
        self.last = 0;
        self.progress = false;
    }

    /// Does the next batch.
    pub fn step(
        &mut self,
        relation: Oid,
        plans: &Plans,
        at: &Position,
        work: &mut Work,
    ) -> Result<Done> {
        let size = work.size(i64::from(work.job.batch_size));
        let rows = leftover::after(work.slice, self.last, size)?;
        let Some(end) = rows.last() else {
            return self.end(at, work);
        };
        work.setbacks.size = rows.len() as i64;
        let skip = work.job.definition.options.skips_locked_rows();
        let mut done = Done {
            position: at.clone(),
            ..Done::default()
        };
        for row in &rows {
            *work.attempt = Some(Attempt::Row(row.clone()));
            if skip && !plans.lock(&row.key)? {
                if plans.find(&row.key)? {
                    continue;
                }
                // The row is gone, or does not match any more.
            } else {
                let (updated, hot) = changed_by(relation, || plans.update_row(&row.key))?;
                done.updated += updated;
                done.hot += hot;
            }
            leftover::remove(work.slice, row.id)?;
            // Rows that failed before, and are tried again, have already been counted: their slice expects none.
            done.scanned += i64::from(self.alone && work.left.is_some());
            self.progress = true;
        }
        self.last = end.id;
        Ok(done)
    }

    /// Decides what follows a round: another round over the rows that are left, as soon as any can be done; or another
    /// slice meanwhile.
    fn end(&mut self, at: &Position, work: &mut Work) -> Result<Done> {
        if self.last == 0 {
            return Ok(Done::nothing_left(at.clone()));
        }
        let progress = self.progress;
        self.restart();
        let mut done = Done {
            position: at.clone(),
            ..Done::default()
        };
        if progress {
            self.vain = 0;
            return Ok(done);
        }
        self.vain += 1;
        let another = slice::another(work.job.id)?;
        if another.is_some() {
            Lock::Council(work.job.id).for_transaction();
            slice::put_last(work.slice)?;
            done.left = true;
        }
        // If the only other slices also have rows left over, they are looked at in turn, with a pause.
        if another != Some(true) {
            let rows = leftover::count(work.slice)?;
            let s = if rows == 1 { "" } else { "s" };
            let what = format!("{rows} row{s} that others have locked: see backfill.skipped_rows");
            work.wait(what, retry::for_a_lock(self.vain));
        }
        Ok(done)
    }
}
