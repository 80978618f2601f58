//! The decision whether to go in waves: from the catalogs, and from what waves have achieved.

use std::time::Duration;

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::horizon;
use crate::pg::hot::{self, HotFacts, TableShape};
use crate::store::job::Job;
use crate::waves::backoff::{Rest, Rests};
use crate::waves::cost::{self, Shape};
use crate::waves::dead_versions::Trail;
use crate::waves::passes::{Pass, Passes};

/// Plan for a region without waves: one wave, one pass.
const SINGLE: (i32, Passes) = (1, Passes::Even);
/// Share of heap-only updates below which a pass that follows another did poorly.
const POOR_SHARE: f64 = 0.5;
/// Correlation from which neighbours by key count as neighbours in the table.
const NEAR: f64 = 0.95;

/// The plan for the walk of the next region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tactic {
    /// Number of waves that the rows are dealt out to; 1: a single pass.
    pub waves: i32,
    /// The passes, which group the waves.
    pub passes: Passes,
    /// Rows to be read for the region.
    pub rows: i64,
}

/// Knowledge of a table, and of how waves have done on it.
#[derive(Debug)]
pub struct Tactics {
    relation: Oid,
    facts: HotFacts,
    shape: TableShape,
    /// Rows to be updated per page, over pages that hold any, next to each other in the walk.
    rows_per_page: f64,
    rests: Rests,
    /// Dead versions that the waves of the open region have left.
    trail: Trail,
    /// The passes over the open region.
    passes: Passes,
    /// Updates of the present pass, and how many of them were heap-only.
    pass: (i64, i64),
    note: Option<String>,
    /// Why waves have rested, once they have.
    pub rested: Option<&'static str>,
}

/// Lasting note: waves rested because of the horizon.
const RESTED_FOR_HORIZON: &str = "waves rested in a part of the walk: other transactions kept dead rows from being removed, so that fewer updates were heap-only";
/// Lasting note: waves rested because they did not help.
const RESTED_IN_VAIN: &str =
    "waves rested in a part of the walk: they did not find the room that they should have made";

impl Tactics {
    /// Reads the catalogs. Within `spi::connect`.
    pub fn new(job: &Job, relation: Oid, rests: Rests) -> Result<Tactics> {
        let shape = hot::shape(relation)?;
        Ok(Tactics {
            relation,
            facts: hot::facts(relation, job.definition.action.set_columns())?,
            rows_per_page: shape.rows_per_page(),
            shape,
            rests,
            trail: Trail::default(),
            passes: Passes::Even,
            pass: (0, 0),
            note: None,
            rested: None,
        })
    }

    /// Takes note of the pages of a sample of rows to be updated, next to each other in the walk.
    pub fn look(&mut self, places: &[u32]) {
        self.rows_per_page = cost::density(places);
    }

    /// Like [`look`](Tactics::look), where the owner may not read places: uses the correlation of key and place
    /// instead.
    pub fn guess(&mut self, key: &str) -> Result<()> {
        let correlation = hot::correlation(self.relation, key)?;
        if correlation.is_none_or(|c| c.abs() < NEAR) {
            self.rows_per_page = 0.0;
        }
        Ok(())
    }

    /// Returns what was learned about waves.
    pub fn rests(&self) -> Rests {
        self.rests
    }

    /// Returns a note for the owner: why there are no waves.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the number of rows to be updated per page.
    pub fn rows_per_page(&self) -> f64 {
        self.rows_per_page
    }

    /// Returns the number of rows on `pages` pages, by the planner's estimate.
    pub fn rows_on(&self, pages: i64) -> i64 {
        (pages as f64 * self.shape.rows_per_page()) as i64
    }

    /// Decides how to walk the next region.
    pub fn next_region(&mut self, job: &Job) -> Result<Tactic> {
        let ((waves, passes), note) = self.waves(job)?;
        self.note = note;
        self.passes = passes;
        Ok(Tactic {
            waves,
            passes,
            rows: self.region_rows(job, passes.sizes(waves).len()),
        })
    }

    /// Returns the number of rows of a region with `passes` passes.
    pub fn region_rows(&self, job: &Job, passes: usize) -> i64 {
        cost::region_rows(
            passes as i32,
            job.batch_size,
            self.shape.row_bytes + self.shape.index_bytes,
            hot::shared_buffers_bytes(),
            job.definition.options.workers(),
        )
    }

    /// Chooses the passes over the rest of a region that is already open.
    pub fn resume(&mut self, job: &Job) {
        let suited = cost::suited(&job.definition.options, self.wave_shape());
        self.passes = suited.unwrap_or_else(|| cost::passes_for_less_bloat(self.wave_shape()));
    }

    /// Notes that a region with `rows` rows to be updated is open, and that its first pass begins.
    pub fn opened(&mut self, waves: i32, rows: usize, pass: Pass, batch_size: i32) {
        self.pass = (0, 0);
        self.rests.opened();
        let left = cost::worth_waiting(self.wave_shape(), waves, self.passes, rows);
        self.trail = Trail::new(left, pass.rows, pass.rows_per_commit(batch_size) as usize);
    }

    /// Notes that the region is done.
    pub fn closed(&mut self) {
        self.trail = Trail::default();
        self.rests.closed();
    }

    /// Returns the waves and their passes, and a note if there are none.
    fn waves(&mut self, job: &Job) -> Result<((i32, Passes), Option<String>)> {
        let options = &job.definition.options;
        let blocked_by = self.facts.blocked_by.as_deref();
        let fate = job.definition.action.as_action().fate();
        let chosen = match cost::choose(options, blocked_by, fate, self.wave_shape()) {
            Ok(chosen) => chosen,
            Err(single) => {
                let note =
                    (!single.is_asked_for()).then(|| format!("no waves: {}", single.shown()));
                return Ok((SINGLE, note));
            }
        };
        Ok(match self.resting()? {
            Some(note) => (SINGLE, Some(note)),
            None => (chosen, None),
        })
    }

    fn wave_shape(&self) -> Shape {
        Shape::of(
            self.facts.indexes,
            self.shape.pages,
            self.rows_per_page,
            self.shape.fits(),
            self.shape.row_bytes,
            hot::MOST_POINTERS - self.shape.rows_per_page(),
        )
    }

    /// Returns why waves are left out for now, if they are.
    fn resting(&mut self) -> Result<Option<String>> {
        let is_held = |xid| horizon::precedes(horizon::horizon(self.relation), xid);
        let rest = self.rests.for_region(is_held);
        rest.map(|rest| self.said(rest)).transpose()
    }

    fn said(&mut self, rest: Rest) -> Result<String> {
        self.rested = Some(match rest {
            Rest::Horizon(_) => RESTED_FOR_HORIZON,
            Rest::Regions(_) => RESTED_IN_VAIN,
        });
        Ok(match rest {
            Rest::Horizon(_) => {
                let holder = horizon::oldest_holder()?;
                let holder = holder.unwrap_or_else(|| "an old snapshot".to_owned());
                format!("waves rest: {holder} keeps dead rows from being removed")
            }
            Rest::Regions(_) => {
                "waves rest: they did not find the room that they should have made".to_owned()
            }
        })
    }

    /// Counts a batch of the present pass, within its transaction.
    pub fn count(&mut self, rows: usize, updated: i64, hot: i64) {
        self.pass.0 += updated;
        self.pass.1 += hot;
        self.trail.add(rows, horizon::my_xid());
    }

    /// Notes that the next pass over the open region begins.
    pub fn turn(&mut self, pass: Pass, batch_size: i32) {
        let batch = pass.rows_per_commit(batch_size) as usize;
        self.trail.turn(pass.rows, batch);
    }

    /// Returns the passes over the open region; `None` if the rest of it is done in one.
    pub fn passes(&self) -> Option<Passes> {
        self.rests.now().is_none().then_some(self.passes)
    }

    /// Returns the transaction that the horizon has to pass before the next batch: it left the dead versions whose
    /// place that batch will use.
    pub fn awaited(&self) -> Option<u32> {
        match self.rests.now() {
            None => self.trail.awaited(),
            Some(_) => None,
        }
    }

    /// Counts the time spent waiting for the horizon. When waiting is no longer worthwhile, the rest of the region
    /// is done in one pass.
    pub fn waited(&mut self, time: Duration) {
        if self.trail.waited(time) {
            self.rests.too_late(horizon::next_xid());
        }
    }

    /// Decides, between two passes, whether to do the rest of the region in one, because the versions that this pass
    /// has left cannot be removed yet, or did not help. The note says which.
    pub fn give_up_at_border(&mut self, wave: i32) -> Result<bool> {
        let (updated, hot) = std::mem::take(&mut self.pass);
        let good = !hot::counted() || hot as f64 >= updated as f64 * POOR_SHARE;
        let rests = self.rests.at_border((wave > 0).then_some(good));
        if let Some(rest) = self.rests.now() {
            self.note = Some(self.said(rest)?);
        }
        Ok(rests)
    }
}
