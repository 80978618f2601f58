//! The cost model of waves: how many waves there are, and how large a region is.
//!
//! Several passes go over a region of the walk, and each of them updates a part of every page. The first pass moves rows away; the
//! versions it leaves behind are dead by the next pass, which finds room on the page: heap-only tuples, without entries in the indexes.

use std::time::Duration;

use crate::model::fate::Fate;
use crate::model::options::{Options, Strategy};
use crate::waves::costs;
use crate::waves::passes::{Passes, Room};
use crate::waves::spread::MOST_WAVES;

/// Returns the number of rows per page, from the pages of a sample in the order of the walk. The first and the last page are left out if
/// possible, since the sample may hold only a part of them.
pub fn density(places: &[u32]) -> f64 {
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

/// Minimum share of the time that waves have to save; less is within the error of this model.
const WORTH_IT: f64 = 0.25;
/// Share of the time saved by a region's waves that is worth spending on waiting for them.
const WORTH_WAITING: f64 = 0.5;
/// Maximum wait for the waves of a region, in seconds.
const LONGEST_WAIT: f64 = 5.0;
/// Wait that is always worth it: transactions of other workers and of the application end within it.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// Fewer rows are moved as long as that costs no more than this share of the time: it reduces bloat.
const FOR_LESS_BLOAT: f64 = 0.03;
/// Growth of a new version in bytes: a number that is filled in for the first time, and a line pointer.
const GROWN: f64 = 12.0;
/// Average unused end of a page that INSERTs have filled, in rows.
const SLACK: f64 = 0.5;

/// The facts that the best passes depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Number of indexes that get an entry for a row that goes to another page, which is all of them.
    pub indexes: i32,
    /// Number of rows to be updated per page.
    pub rows_per_page: f64,
    /// Number of pages of the table.
    pub pages: i64,
    /// Room that a page has for new versions from the start.
    pub room: Room,
}

impl Shape {
    /// Returns the shape of a table from its number of indexes, its number of pages, the rows to be updated per page, the rows that fit on a
    /// page in addition to those there, the bytes of a row, and the line pointers that a page may still get.
    pub fn of(
        indexes: i32,
        pages: i64,
        rows_per_page: f64,
        fits: f64,
        row_bytes: f64,
        pointers: f64,
    ) -> Shape {
        Shape {
            indexes,
            rows_per_page,
            pages,
            room: Room {
                rows: fits + SLACK,
                growth: (GROWN / row_bytes.max(1.0)).min(1.0),
                pointers,
            },
        }
    }

    /// Returns the number of waves to deal the rows out to: one for each row of a page.
    pub fn waves(&self) -> i32 {
        (self.rows_per_page.round() as i32).clamp(1, MOST_WAVES)
    }

    /// Returns the share of the rows to be updated that have to go to another page, with entries in all indexes, if each new version is
    /// `grown` bytes larger than the old one of `row_bytes`. `room` is the free space of a page in bytes, if known.
    pub fn share_elsewhere(
        self,
        (waves, passes): (i32, Passes),
        (grown, row_bytes): (f64, f64),
        room: Option<f64>,
    ) -> f64 {
        let mut page = self;
        page.room.growth = (grown / row_bytes.max(1.0)).max(0.0);
        if let Some(bytes) = room {
            // In rows of the old size: a new version is larger.
            page.room.rows = bytes / row_bytes.max(1.0);
        }
        let rows = self.rows_per_page.max(1.0);
        let gone = page.elsewhere(&passes.sizes(waves), rows / f64::from(waves.max(1)));
        (gone / rows).clamp(0.0, 1.0)
    }

    /// Returns microseconds per page.
    fn cost(&self, waves: i32, passes: Passes) -> f64 {
        let sizes = passes.sizes(waves);
        let rows = self.rows_per_page.max(0.0);
        let elsewhere = self.elsewhere(&sizes, rows / f64::from(waves.max(1)));
        let entries = match self.indexes.max(0) {
            0 => 0.0,
            // The index that the walk follows gets its entries in order.
            indexes => costs::ENTRY_IN_ORDER + costs::ENTRY * f64::from(indexes - 1),
        };
        let moved = costs::ELSEWHERE + entries;
        costs::ROW * rows + costs::VISIT * sizes.len() as f64 + moved * elsewhere
    }

    /// Returns the number of rows of a page that have to go to another page. Each pass finds the room that all passes before it have left;
    /// rows that don't fit go elsewhere, and leave room in turn.
    fn elsewhere(&self, sizes: &[i32], rows_per_wave: f64) -> f64 {
        let mut room = self.room;
        let gone = |size: &i32| room.update(f64::from(*size) * rows_per_wave);
        sizes.iter().map(gone).sum()
    }
}

/// Returns the passes that make the job fastest over the waves that [`Shape::waves`] returns; `None` if a single pass does.
pub fn best_passes(shape: Shape) -> Option<Passes> {
    let waves = shape.waves();
    let passes = |first: i32| Passes::fitting(first, shape.room);
    let cost = |first: i32| shape.cost(waves, passes(first));
    let least = (1..=waves).map(cost).fold(f64::INFINITY, f64::min);
    if waves < 2 || least > cost(waves) * (1.0 - WORTH_IT) {
        return None;
    }
    // A smaller first pass moves fewer rows away.
    let good = |first: &i32| cost(*first) <= least * (1.0 + FOR_LESS_BLOAT);
    (1..=waves).find(good).map(passes)
}

/// With fewer rows per page than this, nothing is left for a second wave.
pub const FEWEST_PER_PAGE: f64 = 1.5;

/// With one index, waves save a fifth of the time and half of the growth. In tables with fewer pages neither matters, and larger commits
/// are worth more.
const FEWEST_PAGES: i64 = 1000;

/// Reason why a table is walked in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Single {
    /// Nothing is changed.
    ReadOnly,
    /// Rows are removed, so no page needs room for new versions.
    Removed,
    /// Option `limit_rows` is set.
    Limited,
    /// Option `strategy` says so.
    Asked,
    /// An index, given by its name, contains what is set.
    Blocked(String),
    /// Neighbours in the walk are on different pages.
    Scattered,
    /// There is one index at most, and the table is small.
    Small,
    /// One pass is faster.
    Faster,
}

impl Single {
    /// Returns the reason as a phrase.
    pub fn shown(&self) -> String {
        match self {
            Single::ReadOnly => "nothing is changed".to_owned(),
            Single::Removed => "rows are removed".to_owned(),
            Single::Limited => "with \"limit_rows\" it goes row by row".to_owned(),
            Single::Asked => "option \"strategy\"".to_owned(),
            Single::Blocked(index) => {
                format!("set_clause writes what index {index} holds, so no update is HOT")
            }
            Single::Scattered => {
                "rows next to each other in the walk are on different pages".to_owned()
            }
            Single::Small => "the table is small, with one index".to_owned(),
            Single::Faster => "one pass is faster here".to_owned(),
        }
    }

    /// Whether the owner has asked for a single pass, and so knows about it.
    pub fn is_asked_for(&self) -> bool {
        matches!(
            self,
            Single::ReadOnly | Single::Removed | Single::Limited | Single::Asked
        )
    }
}

/// Decides whether to use waves: returns their number and their passes, or the reason for a single pass. `blocked_by` is an index that
/// contains what is set; `fate` tells what becomes of the
/// rows. All such decisions are made here: `plan` calls this function, and the workers do before each region.
pub fn choose(
    options: &Options,
    blocked_by: Option<&str>,
    fate: Fate,
    shape: Shape,
) -> Result<(i32, Passes), Single> {
    match fate {
        Fate::Changed => {}
        Fate::Removed => return Err(Single::Removed),
        Fate::Kept => return Err(Single::ReadOnly),
    }
    if options.strategy() == Strategy::Sequential {
        return Err(match options.limit_rows {
            Some(_) => Single::Limited,
            None => Single::Asked,
        });
    }
    if let Some(index) = blocked_by {
        return Err(Single::Blocked(index.to_owned()));
    }
    if shape.rows_per_page < FEWEST_PER_PAGE {
        return Err(Single::Scattered);
    }
    let by_itself = options.strategy() == Strategy::Auto && options.waves.is_none();
    if shape.indexes < 2 && shape.pages < FEWEST_PAGES && by_itself {
        return Err(Single::Small);
    }
    let passes = match suited(options, shape) {
        Some(passes) => passes,
        None if options.strategy() == Strategy::Waves => passes_for_less_bloat(shape),
        None => return Err(Single::Faster),
    };
    let waves = options.waves.unwrap_or_else(|| shape.waves().max(2));
    Ok((waves, passes))
}

/// Returns the passes that the owner asks for, or that suit the table; `None` if a single pass is faster.
pub fn suited(options: &Options, shape: Shape) -> Option<Passes> {
    match options.waves {
        Some(_) => Some(Passes::Even),
        None => best_passes(shape),
    }
}

/// Returns the passes for owners who ask for waves where a single pass would be faster: an eighth of the rows moves away.
pub fn passes_for_less_bloat(shape: Shape) -> Passes {
    Passes::fitting((shape.waves() + 7) / 8, shape.room)
}

/// Returns how long to wait, in total, for the versions left by the passes over a region of `rows` rows to become removable. If the wait
/// were longer, a single pass would be the better choice.
pub fn worth_waiting(shape: Shape, waves: i32, passes: Passes, rows: usize) -> Duration {
    let saved = shape.cost(1, Passes::Even) - shape.cost(waves, passes);
    let pages = rows as f64 / shape.rows_per_page.max(1.0);
    let seconds = (saved * pages * WORTH_WAITING / 1e6).clamp(0.0, LONGEST_WAIT);
    Duration::from_secs_f64(seconds).max(SHORTEST_WAIT)
}

/// Minimum number of commits of the batch size in a pass over a region. Between two passes over one page, all transactions must have
/// ended that were in progress when the first pass committed, those of other workers among them.
const COMMITS_PER_PASS: i64 = 2;
/// Minimum number of rows of a region, for the same reason, if batches are small.
const FEWEST_ROWS: i64 = 64_000;
/// Maximum number of rows of a region: a worker keeps their keys in memory, and more rows gain nothing.
const MOST_ROWS: i64 = 1_000_000;

/// Returns the number of rows of a region with `passes` passes. All passes should find their pages in the cache, so the regions of all
/// workers share a quarter of it. `row_bytes` is a row's share of the table and of all its indexes.
pub fn region_rows(
    passes: i32,
    batch_size: i32,
    row_bytes: f64,
    cache_bytes: i64,
    workers: i32,
) -> i64 {
    let passes = i64::from(passes.max(1));
    let wanted = passes * COMMITS_PER_PASS * i64::from(batch_size.max(1));
    let share = cache_bytes as f64 / (4.0 * f64::from(workers.max(1)));
    let cached = (share / row_bytes.max(1.0)) as i64;
    wanted
        .max(FEWEST_ROWS)
        .min(cached)
        .min(MOST_ROWS)
        .max(passes)
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
