//! A walk in physical order: pages in the order in which they are stored, for rows whose predicate excludes them once
//! updated.
//!
//! An update gives a row another place, so nothing but the predicate keeps a row from being done twice. Each updated row
//! is checked against the predicate before the batch commits.

mod by_ctid;

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Instant;

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::pg::heap;
use crate::pg::tid::Tid;
use crate::pg::{hot, txn};
use crate::scan::position::Position;
use crate::scan::reader::Portion;
use crate::scan::sql::Target;
use crate::store::job::Job;
use crate::store::slice::{self, BlockRange};
use crate::waves::backoff::Rests;
use crate::waves::passes::{self, Pass};
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::step::{Ahead, Done, Work};
use crate::worker::batch::target;
use crate::worker::by_page::by_ctid::Places;
use crate::worker::wave_policy::Tactics;

/// Passes that a region has room for, in batches of the full size.
const USUAL_PASSES: usize = 20;
/// Least number of rows assumed for a page. Pages with fewer are read as if they had this many: the next ones may have
/// more, and reading a page takes time, too.
const FEWEST_PER_PAGE: f64 = 8.0;
/// Number of rows found at which a look at all pages for rows that moved ends.
pub const ENOUGH: i64 = 10_000;
/// An empty range of pages.
const NONE: (i64, i64) = (0, 0);

/// The state that a worker keeps in memory for a slice in physical order.
#[derive(Debug)]
pub struct Pages {
    relation: Oid,
    range: BlockRange,
    /// The page after the last one that the pass walks.
    end_of_pass: i64,
    /// Whether it is the first pass. Later ones look for rows that moved, which are few and already counted.
    first_pass: bool,
    places: Places,
    /// Whether to go in waves, and how.
    pub tactics: Tactics,
    /// Rows per page, whether or not they match, on the pages that were read last.
    density: Cell<f64>,
    /// The page at which a look for rows that moved began, and the number of rows found from there on.
    swept: Option<(i64, i64)>,
    open: Option<Open>,
}

/// The rows of the open region.
#[derive(Debug)]
struct Open {
    /// The page after the region's last.
    end: i64,
    /// Rows to be updated, pass by pass.
    todo: VecDeque<(i32, Tid)>,
    /// The present pass.
    pass: Pass,
    /// Rows of the region that don't match; they are counted once the region is done.
    others: i64,
}

impl Pages {
    /// Analyses the statements, as the owner. Within `spi::connect`.
    pub fn new(
        job: &Job,
        relation: Oid,
        range: BlockRange,
        first_pass: bool,
        target: &Target,
        rests: Rests,
    ) -> Result<Pages> {
        let action = target::action(job, relation)?;
        let places = Places::prepare(relation, target, action.as_action())?;
        let tactics = Tactics::new(job, relation, rests)?;
        // Other workers that walk the pages after this slice may already have passed them.
        let end_of_pass = match (first_pass, job.definition.options.workers()) {
            (true, 1) => slice::end_of_pass(job.id, relation)?.unwrap_or(range.end),
            _ => range.end,
        };
        Ok(Pages {
            end_of_pass,
            relation,
            range,
            first_pass,
            places,
            density: Cell::new(tactics.rows_per_page()),
            tactics,
            swept: None,
            open: None,
        })
    }

    /// Analyses the statements again.
    pub fn prepare_again(&mut self, job: &Job, target: &Target) -> Result<()> {
        let action = target::action(job, self.relation)?;
        self.places = Places::prepare(self.relation, target, action.as_action())?;
        Ok(())
    }

    /// Discards what was read ahead.
    pub fn step_back(&mut self) {
        self.open = None;
    }

    /// Does the next batch.
    pub fn step(&mut self, at: &Position, work: &mut Work) -> Result<Done> {
        let block = at.block.unwrap_or(self.range.first).max(self.range.first);
        if self.open.is_some() {
            self.batch(at, block, work)
        } else if block >= self.range.end {
            Ok(Done::nothing_left(at.clone()))
        } else if self.first_pass {
            self.open_region(at, block, work)
        } else {
            self.sweep(at, block, work)
        }
    }

    /// Looks for rows that moved, locks them where they are now, and updates them.
    fn sweep(&mut self, at: &Position, block: i64, work: &mut Work) -> Result<Done> {
        let end = if self.range.whole() {
            self.range.end
        } else {
            let pages = self.pages(work.region_rows(i64::from(i32::MAX)));
            (block + pages).min(self.range.end)
        };
        let size = work.size(i64::from(work.job.batch_size).min(ENOUGH));
        *work.attempt = Some(Attempt::Pages(block, end));
        let tids = self.lock(block, end, size, work)?;
        let found = tids.len() as i64;
        let (updated, hot) = match found {
            0 => (0, 0),
            _ => self.places.update(&tids, NONE, work)?.0,
        };
        // Rows that cannot be changed would be found for ever.
        let more = found == size && updated > 0;
        let next = if self.range.whole() {
            let enough = work.found + found >= ENOUGH;
            match (more, tids.last()) {
                _ if enough => end,
                (true, Some(tid)) => i64::from(tid.block).max(block),
                // Rows behind this page may have moved there meanwhile: only a look at all pages tells.
                _ if block > 0 && (found == 0 || updated > 0) => 0,
                _ => end,
            }
        } else {
            let before = self.swept.filter(|(at, _)| *at == block);
            let swept = found + before.map_or(0, |(_, found)| found);
            self.swept = Some((block, swept));
            // If more rows were found than fit there, they are being inserted faster than they are changed.
            let fit = (end - block) as f64 * hot::MOST_POINTERS;
            if more && (swept as f64) < fit {
                block
            } else {
                end
            }
        };
        let mut position = at.clone();
        position.block = Some(next);
        Ok(Done {
            last: next == self.range.end,
            position,
            scanned: updated,
            updated,
            hot,
            found,
            tried: found,
            ..Done::default()
        })
    }

    /// Locks rows that match, `size` at most, and returns their places.
    fn lock(&self, block: i64, end: i64, size: i64, work: &mut Work) -> Result<Vec<Tid>> {
        let whole = self.range.whole();
        work.measured(|_| {
            let end_of_range = (!whole).then_some(end);
            let tids = self.places.lock(block, end_of_range, size)?;
            let read = (end - block) as f64 * self.density.get();
            // On the whole table at once, the statement stops at the first rows that it finds, so the number read is
            // unknown.
            Ok((if whole { 0 } else { read as i64 }, tids))
        })
    }

    /// Reads the places of the next region's rows.
    fn open_region(&mut self, at: &Position, block: i64, work: &mut Work) -> Result<Done> {
        let wanted = self.tactics.region_rows(work.job, USUAL_PASSES);
        let ahead = work.read_region(wanted, |work, limit| {
            let end = (block + self.pages(limit)).min(self.range.end);
            *work.attempt = Some(Attempt::ReadPages(block, end));
            self.read(block, end)
        })?;
        let (scanned, (end, tids)) = (ahead.rows, ahead.what);
        let found = tids.len() as i64;
        let mut position = at.clone();
        if tids.is_empty() {
            position.block = Some(end);
        } else {
            let blocks: Vec<u32> = tids.iter().map(|tid| tid.block).collect();
            self.tactics.look(&blocks);
            let tactic = self.tactics.next_region(work.job)?;
            let mut open = Open {
                end,
                todo: passes::deal(tids, |tid| tid.block, &tactic.passes.sizes(tactic.waves))
                    .into(),
                pass: Pass {
                    rows: 0,
                    only: tactic.waves == 1,
                    first: true,
                },
                others: scanned - found,
            };
            open.begin_pass();
            self.tactics.opened(
                tactic.waves,
                open.todo.len(),
                open.pass,
                work.job.batch_size,
            );
            self.open = Some(open);
        }
        work.note = self.tactics.note().map(str::to_owned);
        Ok(Done {
            last: position.block == Some(self.range.end),
            opened: found > 0,
            scanned: if found == 0 { scanned } else { 0 },
            position,
            found,
            ..Done::default()
        })
    }

    /// Returns the number of pages that have about `rows` rows.
    fn pages(&self, rows: i64) -> i64 {
        let pages = rows as f64 / self.density.get().max(FEWEST_PER_PAGE);
        pages.ceil().max(1.0) as i64
    }

    /// Reads the places of the rows that match, on the pages from `block` to before `end`: in portions, each with a
    /// snapshot of its own.
    fn read(&self, block: i64, end: i64) -> Result<Ahead<(i64, Vec<Tid>)>> {
        let (mut rows, mut tids) = (0, Vec::new());
        let mut portion = Portion::FIRST;
        let mut first = block;
        while first < end {
            if first > block {
                txn::renew_snapshot();
            }
            let begun = Instant::now();
            let next = (first + self.pages(portion.0)).min(end);
            let before = hot::xact_read(self.relation);
            tids.extend(self.places.read(first, next)?);
            rows += hot::xact_read(self.relation) - before;
            (first, portion) = (next, portion.next(begun.elapsed()));
        }
        if !hot::counted() {
            let estimate = self.tactics.rows_on(end - block);
            rows = estimate.max(tids.len() as i64);
        }
        self.density.set(rows as f64 / (end - block) as f64);
        Ok(Ahead {
            rows,
            more: end < self.range.end,
            what: (end, tids),
        })
    }

    /// Updates the next rows of the open region.
    fn batch(&mut self, at: &Position, block: i64, work: &mut Work) -> Result<Done> {
        let Some(open) = &mut self.open else {
            return Err(Error::internal("no region is open"));
        };
        let size = work.size_in_pass(open.pass);
        let pass = open.todo.front().map_or(0, |(pass, _)| *pass);
        let mut tids = Vec::with_capacity(size.min(open.todo.len()));
        while let Some((_, tid)) = open
            .todo
            .pop_front_if(|(of, _)| *of == pass && tids.len() < size)
        {
            tids.push(tid);
        }
        *work.attempt = Some(Attempt::Pages(block, open.end));
        heap::prune(self.relation, &tids);
        work.note = self.tactics.note().map(str::to_owned);
        let passed = tids.len() as i64;
        if work.job.definition.options.skips_locked_rows() {
            // The rows that others have locked still match: the next pass finds them, and waits for them.
            tids = self.places.skip_locked(&tids)?;
        }
        let ahead = (open.end, self.end_of_pass);
        let ((updated, hot), moved) = self.places.update(&tids, ahead, work)?;
        self.tactics.count(tids.len(), updated, hot);
        let mut position = at.clone();
        let mut others = 0;
        match open.todo.front() {
            None => {
                others = open.others;
                position.block = Some(open.end);
                self.open = None;
                self.tactics.closed();
            }
            Some((next, _)) if *next != pass && !open.pass.only => {
                if self.tactics.give_up_at_border(pass)? {
                    open.rest_in_one_pass();
                }
                open.begin_pass();
                self.tactics.turn(open.pass, work.job.batch_size);
            }
            Some(_) => {}
        }
        Ok(Done {
            last: position.block == Some(self.range.end),
            position,
            // Rows that have moved ahead of the walk are counted when it meets them.
            scanned: passed + others - moved,
            updated,
            hot,
            tried: passed,
            ..Done::default()
        })
    }
}

impl Open {
    fn rest_in_one_pass(&mut self) {
        self.todo.iter_mut().for_each(|(pass, _)| *pass = i32::MAX);
        let places = |(_, tid): &(i32, Tid)| (tid.block, tid.offset);
        self.todo.make_contiguous().sort_by_key(places);
        self.pass.only = true;
    }

    /// Begins the pass of the next row.
    fn begin_pass(&mut self) {
        let present = self.todo.front().map_or(0, |(pass, _)| *pass);
        self.pass.first = present == 0;
        self.pass.rows = self.todo.partition_point(|(pass, _)| *pass <= present);
    }
}
