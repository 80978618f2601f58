//! A walk in key order: range by range, or region by region in waves.

mod dealing;
mod key_list;
mod leftovers;
mod rows;
pub mod statements;

use std::collections::VecDeque;

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::fate::Fate;
use crate::pg::report;
use crate::scan::position::{Position, Region};
use crate::scan::reader::reads_first;
use crate::store::job::Job;
use crate::store::slice::KeyRange;
use crate::waves::backoff::Rests;
use crate::waves::cost;
use crate::waves::passes::Pass;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::step::{Ahead, Done, Work, changed_by};
use crate::worker::by_key::dealing::{spread, waves_of};
use crate::worker::by_key::leftovers::Round;
use crate::worker::by_key::rows::Read;
use crate::worker::by_key::statements::{Plans, range};
use crate::worker::wave_policy::{Tactic, Tactics};

/// Numbers of rows to look at, one after another, to learn how they are placed in the table and how long it takes to
/// read one. The first is small, since the predicate may be expensive.
const SAMPLES: [i64; 3] = [50, 220, 1000];
const CANNOT_SKIP: &str =
    "rows that others have locked are waited for: there are no arrays of keys of this type";
/// Rows after which to look again.
const LOOK_AGAIN: i64 = 20_000;

/// The state that a worker keeps in memory for a slice in key order.
#[derive(Debug)]
pub struct Keys {
    relation: Oid,
    range: KeyRange,
    plans: Plans,
    /// Whether rows are found by their keys alone.
    distrust: bool,
    /// Whether neighbours in the walk are on different pages, so that reading rows first and updating them later would
    /// visit each page twice.
    scattered: bool,
    /// Share of the rows ahead that match.
    share: f64,
    /// Whether to go in waves, and how.
    pub tactics: Tactics,
    tactic: Option<Tactic>,
    /// Rows passed since the last look ahead.
    since_look: Option<i64>,
    open: Option<Open>,
    /// Number of rows so far that others had locked.
    locked: usize,
    /// The round over the rows that were left for the end.
    round: Round,
}

/// The rows of the open region.
#[derive(Debug)]
struct Open {
    read: Read,
    /// The wave of each row.
    waves: Vec<i32>,
    /// Rows of the present pass that are still to be done.
    todo: VecDeque<u32>,
    /// The present pass.
    pass: Pass,
    /// Whether the region was read from the middle of a pass on, so that rows of the next pass are missing.
    partial: bool,
}

impl Keys {
    /// Looks at the table. Within `spi::connect`, as the owner.
    pub fn new(
        job: &Job,
        relation: Oid,
        range: KeyRange,
        plans: Plans,
        rests: Rests,
    ) -> Result<Keys> {
        Ok(Keys {
            relation,
            tactics: Tactics::new(job, relation, rests)?,
            round: Round::of(&range),
            range,
            plans,
            distrust: false,
            scattered: false,
            share: 0.0,
            tactic: None,
            since_look: None,
            open: None,
            locked: 0,
        })
    }

    /// Looks at the rows ahead: how they are placed in the table, and how long it takes to read one.
    fn look(&mut self, at: &Position, work: &mut Work) -> Result<()> {
        if !self.plans.has_places() {
            return self.tactics.guess(&self.range.columns[0]);
        }
        for rows in SAMPLES {
            if rows <= SAMPLES[0] || work.may_read() >= rows {
                let (after, last) = (at.key.as_ref(), &self.range.last);
                let read = work.measured(|_| Ok((rows, self.plans.read(after, last, rows)?)))?;
                self.tactics.look(&read.pages().unwrap_or_default());
                let all = read.places.iter().flatten();
                let density = cost::density(&all.map(|tid| tid.block).collect::<Vec<_>>());
                self.scattered = density < cost::FEWEST_PER_PAGE;
                let matching = read.matching().count() as f64;
                self.share = matching / read.hits.len().max(1) as f64;
            }
        }
        Ok(())
    }

    /// Goes on with other statements. Discards what was read before, which may have moved or be of another type by now.
    pub fn prepare_again(&mut self, plans: Plans) {
        self.plans = plans;
        if self.distrust {
            self.plans.distrust_places();
        }
        self.step_back();
    }

    /// Finds rows by their keys alone from now on, if the last update failed while it went by places: the error may be
    /// another row's. Returns true if so.
    pub fn distrust_places(&mut self) -> bool {
        let guessing = self.plans.was_guessing();
        if guessing {
            self.distrust = true;
            self.plans.distrust_places();
        }
        guessing
    }

    /// Discards what was read ahead.
    pub fn step_back(&mut self) {
        self.open = None;
        self.tactic = None;
        self.round.restart();
    }

    /// Does the next batch.
    pub fn step(&mut self, at: &Position, work: &mut Work) -> Result<Done> {
        if let Some(region) = &at.region {
            return self.pass(at, region, work);
        }
        self.open = None;
        if at.key.as_ref() == Some(&self.range.last) {
            return self.round.step(self.relation, &self.plans, at, work);
        }
        let tactic = match self.tactic {
            // A region of a single pass without a WHERE clause is just a number of rows still to be done.
            Some(tactic) if tactic.rows > 0 => tactic,
            _ => {
                // If a read has failed, this one would fail, too.
                if !work.setbacks.careful && self.since_look.is_none_or(|rows| rows >= LOOK_AGAIN) {
                    self.since_look = Some(0);
                    *work.attempt = Some(Attempt::ReadKeys(self.range.last.clone()));
                    self.look(at, work)?;
                }
                self.tactics.next_region(work.job)?
            }
        };
        let skip = work.job.definition.options.skips_locked_rows();
        work.note = self.note(skip);
        let definition = &work.job.definition;
        let fate = definition.action.as_action().fate();
        let has_clause = definition.where_clause.is_some();
        let sparse = reads_first(has_clause, self.scattered, self.share, fate);
        let by_list = tactic.waves > 1 || sparse || skip;
        if by_list && self.plans.has_list() {
            self.tactic = None;
            self.open_region(at, tactic, work)
        } else {
            self.sequential(at, tactic, work)
        }
    }

    /// Returns notes for the owner, if there are any.
    fn note(&self, skip: bool) -> Option<String> {
        let locked = match (self.locked, skip && !self.plans.has_list()) {
            (_, true) => Some(CANNOT_SKIP.to_owned()),
            (0, _) => None,
            (rows, _) => Some(format!("{rows} locked so far, left for later")),
        };
        let notes = self.tactics.note().map(str::to_owned).into_iter();
        notes
            .chain(locked)
            .reduce(|notes, note| format!("{notes}; {note}"))
    }

    /// Updates a range of keys in one pass.
    fn sequential(&mut self, at: &Position, tactic: Tactic, work: &mut Work) -> Result<Done> {
        let size = work.size(i64::from(work.job.batch_size));
        let (after, last) = (at.key.as_ref(), &self.range.last);
        let (end, scanned) = self.plans.reach.next(after, last, size)?;
        if scanned == 0 {
            return Ok(Done::nothing_left(at.behind(last.clone())));
        }
        *work.attempt = Some(Attempt::Keys(end.clone()));
        let update = self.plans.update(after);
        report::activity(update.text());
        let (updated, hot) = changed_by(self.relation, || {
            Ok(update.run(range(after, &end, &[]))?.processed)
        })?;
        // Others may have inserted rows since the end of the range was read. What a statement does elsewhere tells nothing of that.
        let scanned = match work.job.definition.action.as_action().fate() {
            Fate::Kept => scanned,
            Fate::Changed | Fate::Removed => scanned.max(updated),
        };
        self.since_look = self.since_look.map(|rows| rows + scanned);
        self.tactic = Some(Tactic {
            rows: tactic.rows - scanned,
            ..tactic
        });
        Ok(Done {
            last: end == *last,
            position: at.behind(end),
            scanned,
            updated,
            hot,
            tried: scanned,
            ..Done::default()
        })
    }

    /// Reads the keys of the next region. Updates nothing: this only fixes the region's borders.
    fn open_region(&mut self, at: &Position, tactic: Tactic, work: &mut Work) -> Result<Done> {
        let last = &self.range.last;
        let ahead = work.read_region(tactic.rows, |work, limit| self.read(at, work, limit))?;
        let (read, scanned) = (ahead.what, ahead.rows);
        self.since_look = self.since_look.map(|rows| rows + scanned);
        let end = match ahead.more {
            true => read.keys.text(read.hits.len() - 1)?,
            false => last.clone(),
        };
        *work.attempt = Some(Attempt::Keys(end.clone()));
        let found = read.matching().count();
        let done = |position: Position| Done {
            last: position.region.is_none() && end == *last,
            opened: position.region.is_some(),
            position,
            scanned: scanned - found as i64,
            ..Done::default()
        };
        if found == 0 {
            return Ok(done(at.behind(end.clone())));
        }
        let spread = spread(&read, tactic.waves, self.tactics.rows_per_page())?;
        let region = Region::new(end.clone(), tactic.waves, spread, tactic.passes);
        let mut position = at.clone();
        position.region = Some(region.clone());
        let open = Open::new(read, &region, false)?;
        self.tactics
            .opened(region.waves, found, open.pass, work.job.batch_size);
        self.open = Some(open);
        Ok(done(position))
    }

    /// Reads the next keys, `limit` at most.
    fn read(&self, at: &Position, work: &mut Work, limit: i64) -> Result<Ahead<Read>> {
        let (after, last) = (at.key.as_ref(), &self.range.last);
        let bound = match work.setbacks.careful {
            true => self.plans.reach.bound(after, last, limit)?,
            false => None,
        };
        *work.attempt = Some(Attempt::ReadKeys(bound.unwrap_or_else(|| last.clone())));
        let read = self.plans.read(after, last, limit)?;
        let rows = read.hits.len() as i64;
        Ok(Ahead {
            rows,
            more: rows >= limit,
            what: read,
        })
    }

    /// Does a batch of the present pass over the open region.
    fn pass(&mut self, at: &Position, region: &Region, work: &mut Work) -> Result<Done> {
        if self.open.is_none() {
            self.reopen(at, region, work.job)?;
        }
        let skip = work.job.definition.options.skips_locked_rows();
        work.note = self.note(skip);
        let missing = || Error::internal("a region without its keys");
        let open = self.open.as_mut().ok_or_else(missing)?;
        let size = work.size_in_pass(open.pass);
        let rows: Vec<u32> = open.todo.drain(..size.min(open.todo.len())).collect();
        let (mut updated, mut hot, mut locked) = (0, 0, Vec::new());
        if let Some(end) = rows.last() {
            let end = open.read.keys.text(*end as usize)?;
            *work.attempt = Some(Attempt::Wave(end));
            let list = self.plans.list().ok_or_else(missing)?;
            if skip {
                let (free, others) = list.lock(&open.read, &rows)?;
                let key = |row: &u32| open.read.keys.text(*row as usize);
                locked = others.iter().map(key).collect::<Result<Vec<_>>>()?;
                (updated, hot) = list.run(&open.read, &free)?;
            } else {
                (updated, hot) = list.run(&open.read, &rows)?;
            }
            self.tactics.count(rows.len() - locked.len(), updated, hot);
            self.locked += locked.len();
        }
        let position = match rows.last() {
            Some(end) if !open.todo.is_empty() => at.at(open.read.keys.text(*end as usize)?),
            _ => self.end_pass(at, region, work.job.batch_size)?,
        };
        Ok(Done {
            last: position.region.is_none() && position.key.as_ref() == Some(&self.range.last),
            position,
            scanned: rows.len() as i64,
            updated,
            hot,
            tried: rows.len() as i64,
            locked,
            ..Done::default()
        })
    }

    /// Returns the position after the present pass, and selects the rows of the next one.
    fn end_pass(&mut self, at: &Position, region: &Region, batch_size: i32) -> Result<Position> {
        let more = region.to + 1 < region.waves;
        if more {
            self.tactics.give_up_at_border(region.wave)?;
        }
        let mut next = at.after_pass(self.tactics.passes());
        // A worker that began in the middle of a pass does not have all rows that the next one needs.
        let mut open = self.open.take().filter(|open| !open.partial);
        while let (Some(region), Some(rows)) = (&next.region, &mut open) {
            rows.select(region);
            if !rows.todo.is_empty() {
                self.tactics.turn(rows.pass, batch_size);
                break;
            }
            next = next.after_pass(self.tactics.passes());
        }
        if next.region.is_none() {
            self.tactics.closed();
        } else {
            self.open = open;
        }
        Ok(next)
    }

    /// Reads what is left of a region that was opened by another worker, or by this one before a pause.
    fn reopen(&mut self, at: &Position, region: &Region, job: &Job) -> Result<()> {
        let after = region.key.as_ref().or(at.key.as_ref());
        let read = self.plans.read(after, &region.end, i64::MAX)?;
        let rows = read.matching().count();
        let open = Open::new(read, region, region.key.is_some())?;
        self.tactics.resume(job);
        self.tactics
            .opened(region.waves, rows, open.pass, job.batch_size);
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn new(read: Read, region: &Region, partial: bool) -> Result<Open> {
        let count = region.waves;
        let waves = match count {
            1 => vec![0; read.keys.len()],
            _ => waves_of(&read.keys, &region.spread, count)?,
        };
        let mut open = Open {
            read,
            waves,
            todo: VecDeque::new(),
            pass: Pass {
                rows: 0,
                only: count == 1,
                first: false,
            },
            partial,
        };
        open.select(region);
        Ok(open)
    }

    /// Selects the rows of the region's present pass.
    fn select(&mut self, region: &Region) {
        let rows = self.waves.iter().zip(&self.read.hits).enumerate();
        self.todo = rows
            .filter(|(_, (wave, hit))| **hit && region.includes(**wave))
            .map(|(row, _)| row as u32)
            .collect();
        self.pass.rows = self.todo.len();
        self.pass.first = region.wave == 0;
    }
}
