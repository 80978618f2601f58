//! Whether to go in waves: what the catalogs say of a table, and what the waves achieve.

use std::time::Duration;

use pgrx::pg_sys::Oid;

use crate::catalog::job::Job;
use crate::error::Result;
use crate::job::options::Strategy;
use crate::pg::horizon;
use crate::pg::hot::{self, HotFacts, TableShape};
use crate::plan::passes::Passes;
use crate::plan::trail::Trail;
use crate::plan::waves::{self, Shape};

/// For those who ask for waves where the model would go without.
const DEFAULT_PASSES: Passes = Passes::Shrinking(8);
/// What a region that is not passed over goes as: one wave, one pass.
const SINGLE: (i32, Passes) = (1, Passes::Even);
/// A wave that follows another should be heap-only for the most part.
const POOR_SHARE: f64 = 0.5;
/// Waves in a row that have to go wrong before they are given up: one may be unlucky.
const PATIENCE: u32 = 2;
/// Regions to rest for after waves achieved little, at first; doubled each time.
const REST: u32 = 8;
/// The longest such rest.
const LONGEST_REST: u32 = 512;
/// With such a correlation, neighbours by key are neighbours in the table.
const NEAR: f64 = 0.95;
/// Fewer rows than these on a page leave nothing for a second wave.
const FEWEST_PER_PAGE: f64 = 1.5;

/// How the next region is to be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tactic {
    /// Waves that the rows are dealt out to; 1 is a single pass.
    pub waves: i32,
    /// Which of them are done together.
    pub passes: Passes,
    /// Rows to be read for it.
    pub rows: i64,
    /// Rows per commit, at most.
    pub per_commit: i64,
}

/// What is known of a table, and of how waves have done.
#[derive(Debug)]
pub struct Tactics {
    relation: Oid,
    facts: HotFacts,
    shape: TableShape,
    /// Rows to be updated on a page of those that hold any, next to each other in the walk.
    rows_per_page: f64,
    rests: Rests,
    /// What the waves of the open region have left to be removed.
    trail: Trail,
    /// The passes over the open region.
    passes: Passes,
    /// Waves in a row, after the first of a region, that were not heap-only for the most part.
    poor: u32,
    /// Updates of the present pass, and those of them that were heap-only.
    pass: (i64, i64),
    note: Option<String>,
}

/// What a worker has learned about waves, and takes from one slice of a job to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rests {
    now: Option<Rest>,
    /// How long the next one is to be, where more is not known.
    next: u32,
}

impl Default for Rests {
    fn default() -> Rests {
        Rests {
            now: None,
            next: REST,
        }
    }
}

/// Why there are no waves for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Until the horizon has passed this transaction id.
    Horizon(u32),
    /// For so many regions.
    Regions(u32),
}

impl Tactics {
    /// What the catalogs say. Within `spi::connect`.
    pub fn new(job: &Job, relation: Oid, rests: Rests) -> Result<Tactics> {
        let shape = hot::shape(relation)?;
        Ok(Tactics {
            relation,
            facts: hot::facts(relation, &job.definition.set_columns)?,
            rows_per_page: shape.rows_per_page(),
            shape,
            rests,
            trail: Trail::default(),
            passes: Passes::Even,
            poor: 0,
            pass: (0, 0),
            note: None,
        })
    }

    /// Where a sample of rows to be updated is, next to each other in the walk.
    pub fn look(&mut self, places: &[u32]) {
        self.rows_per_page = density(places);
    }

    /// The same where the owner may not read places: by the correlation of key and place.
    pub fn guess(&mut self, key: &str) -> Result<()> {
        let correlation = hot::correlation(self.relation, key)?;
        if correlation.is_none_or(|c| c.abs() < NEAR) {
            self.rows_per_page = 0.0;
        }
        Ok(())
    }

    /// What was learned about waves.
    pub fn rests(&self) -> Rests {
        self.rests
    }

    /// What the owner should know: why there are no waves.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Rows to be updated on a page.
    pub fn rows_per_page(&self) -> f64 {
        self.rows_per_page
    }

    /// How to walk the next region.
    pub fn next_region(&mut self, job: &Job) -> Result<Tactic> {
        (self.poor, self.pass) = (0, (0, 0));
        let ((waves, passes), note) = self.waves(job)?;
        self.note = note;
        self.passes = passes;
        let number = passes.sizes(waves).len() as i32;
        let options = &job.definition.options;
        let batch = job.batch_size;
        let rows = waves::region_rows(
            number,
            batch,
            self.shape.row_bytes + self.shape.index_bytes,
            hot::shared_buffers_bytes(),
            options.workers(),
        );
        self.trail = Trail::new(waves::worth_waiting(self.wave_shape(), rows));
        Ok(Tactic {
            waves,
            passes,
            rows,
            per_commit: waves::rows_per_commit(rows, number, batch),
        })
    }

    /// The waves and their passes, and why there are none.
    fn waves(&mut self, job: &Job) -> Result<((i32, Passes), Option<String>)> {
        let options = &job.definition.options;
        if options.strategy() == Strategy::Sequential {
            return Ok((SINGLE, None));
        }
        let single = |note| Ok((SINGLE, Some(note)));
        if let Some(index) = &self.facts.blocked_by {
            return single(format!(
                "no waves: set_clause writes what index {index} holds, so no update is HOT"
            ));
        }
        if self.rows_per_page < FEWEST_PER_PAGE {
            let note = "no waves: rows next to each other in the walk are on different pages";
            return single(note.to_owned());
        }
        if let Some(note) = self.resting()? {
            return single(note);
        }
        if self.facts.indexes < 2 && options.strategy() == Strategy::Auto && options.waves.is_none()
        {
            return single("no waves: there is one index only".to_owned());
        }
        if let Some(waves) = options.waves {
            return Ok(((waves, Passes::Even), None));
        }
        let shape = self.wave_shape();
        let passes = match (waves::best_passes(shape), options.strategy()) {
            (Some(passes), _) => passes,
            (None, Strategy::Waves) => DEFAULT_PASSES,
            _ => return single("no waves: one pass is faster here".to_owned()),
        };
        Ok(((shape.waves().max(2), passes), None))
    }

    fn wave_shape(&self) -> Shape {
        Shape {
            indexes: self.facts.indexes,
            rows_per_page: self.rows_per_page,
            fits: self.shape.fits(),
            pointers: hot::MOST_POINTERS - self.shape.rows_per_page(),
        }
    }

    /// Whether waves are left out for now, and why.
    fn resting(&mut self) -> Result<Option<String>> {
        let rest = match self.rests.now {
            None => return Ok(None),
            Some(Rest::Horizon(xid)) if horizon::precedes(horizon::horizon(self.relation), xid) => {
                Rest::Horizon(xid)
            }
            Some(Rest::Horizon(_) | Rest::Regions(0)) => {
                self.rests.now = None;
                return Ok(None);
            }
            Some(Rest::Regions(left)) => Rest::Regions(left - 1),
        };
        self.rests.now = Some(rest);
        self.said(rest).map(Some)
    }

    fn said(&self, rest: Rest) -> Result<String> {
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

    /// The next pass over the open region begins, over so many rows.
    pub fn turn(&mut self, rows: usize) {
        self.trail.turn(rows);
    }

    /// The passes over the open region; `None` if the rest of it goes in one.
    pub fn passes(&self) -> Option<Passes> {
        self.rests.now.is_none().then_some(self.passes)
    }

    /// The transaction that the horizon has to pass before the next batch: it has left the versions
    /// in whose place that batch is to put its own.
    pub fn awaited(&self) -> Option<u32> {
        match self.rests.now {
            None => self.trail.awaited(),
            Some(_) => None,
        }
    }

    /// Counts the time that was spent waiting for it. When it is not worth waiting any longer, the
    /// rest of the region goes in one pass.
    pub fn waited(&mut self, time: Duration) {
        if self.trail.waited(time) {
            self.rests.now = Some(Rest::Horizon(horizon::next_xid()));
        }
    }

    /// At the border between two passes: whether to do the rest of the region in one, since the
    /// versions that this one has left can't be removed yet, or did no good.
    pub fn give_up_at_border(&mut self, wave: i32) -> bool {
        let (updated, hot) = std::mem::take(&mut self.pass);
        let poor = wave > 0 && hot::counted() && (hot as f64) < updated as f64 * POOR_SHARE;
        self.poor = if poor { self.poor + 1 } else { 0 };
        if self.rests.now.is_some() {
            // The horizon is not worth waiting for.
        } else if self.poor >= PATIENCE {
            self.rests.now = Some(Rest::Regions(self.rests.next));
            self.rests.next = (self.rests.next * 2).min(LONGEST_REST);
        } else if wave > 0 && !poor {
            self.rests.next = REST;
        }
        self.rests.now.is_some()
    }

    /// Says why the rest of the region goes in one pass.
    pub fn explain(&mut self) -> Result<()> {
        self.note = match self.rests.now {
            Some(rest) => Some(self.said(rest)?),
            None => None,
        };
        Ok(())
    }
}

/// Rows per page, of the pages of a sample in the order of the walk. Of the first and the last
/// page, the sample may have a part only.
fn density(places: &[u32]) -> f64 {
    let ends = [places.first(), places.last()];
    let within = |place: &&u32| !ends.contains(&Some(*place));
    let mut pages: Vec<u32> = places.iter().filter(within).copied().collect();
    if pages.is_empty() {
        pages = places.to_vec();
    }
    let rows = pages.len();
    pages.sort_unstable();
    pages.dedup();
    rows as f64 / pages.len().max(1) as f64
}
