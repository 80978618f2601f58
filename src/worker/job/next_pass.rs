//! The decision when all slices are done: another pass over what was walked in physical order, or the end. Under
//! `Lock::Council`.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::heap;
use crate::pg::planner::Access;
use crate::store::job::Job;
use crate::store::tally::{self, Tally};
use crate::store::{event, failed_row, slice, walk};
use crate::worker::batch::statement::{Prepared, Values};
use crate::worker::batch::target;
use crate::worker::by_page::ENOUGH;
use crate::worker::cut_slices;
use crate::worker::cut_slices::key_ranges::{self, Beyond};
use crate::worker::job::newcomers;

/// Greatest number of passes, so that the job ends even if a table is written faster than it is walked.
const MOST_PASSES: i32 = 20;

/// Largest number up to which remaining rows are counted.
const COUNTED: i64 = 100_000;

/// The next step of a job's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Claim slices: there are some that nobody holds.
    Slices,
    /// Stop: what is left is held by others.
    Others,
    /// Pause: everything between the bounds is done.
    Enough,
    /// End: everything is done.
    End,
}

/// Decides what comes next, and cuts the next pass if there is one. `locked`: the tables that the transaction has
/// locked.
pub fn next(job: &Job, locked: &[Oid]) -> Result<Next> {
    if slice::left(job.id)? > 0 {
        let free = slice::lock_free(job.id)?.is_some();
        return Ok(if free { Next::Slices } else { Next::Others });
    }
    if failed_row::take_up(job.id)? {
        walk::set_phase(job.id, "failed rows")?;
        return Ok(Next::Slices);
    }
    let mut bounded = false;
    match key_ranges::widen(job)? {
        Beyond::Nothing => {}
        Beyond::More => return Ok(Next::Slices),
        Beyond::Enough => bounded = true,
    }
    let pass = walk::pass(job.id)?.unwrap_or(1);
    if newcomers::take_up(job, locked)? {
        walk::begin_again(job.id, pass)?;
        return Ok(Next::Slices);
    }
    let definition = &job.definition;
    let ends = definition.action.is_read_only() || definition.options.completes_at_bounds();
    if bounded && !ends {
        return Ok(Next::Enough);
    }
    if job.definition.action.is_read_only() {
        return newcomers::note_alone(job).map(|()| Next::End);
    }
    let before = tally::tallies(job.id, pass - 1)?;
    let mut again = Vec::new();
    for tally in tally::tallies(job.id, pass)? {
        let earlier = before.iter().find(|t| t.relation == tally.relation);
        match verdict(&tally, earlier, pass)? {
            Verdict::Done => {}
            Verdict::Again => again.push(tally),
            Verdict::Stuck => {
                walk::add_note(job.id, &stuck(job, &tally)?)?;
                let table = Some(tally.relation_name.as_str());
                event::record(job.id, job.owner, event::MATCH_STILL, None, table)?;
            }
        }
    }
    if again.is_empty() {
        newcomers::note_detached(job)?;
        newcomers::note_alone(job)?;
        return note_bounds(job).map(|()| Next::End);
    }
    walk::begin_again(job.id, pass + 1)?;
    let all = cut_slices::rows(again.iter().map(|tally| tally.relation));
    for tally in &again {
        let table = (tally.relation, tally.relation_name.as_str());
        cut_slices::again(job, pass + 1, table, all)?;
    }
    Ok(if slice::left(job.id)? > 0 {
        Next::Slices
    } else {
        Next::End
    })
}

/// Notes between which keys a job has completed, if not over its whole table.
fn note_bounds(job: &Job) -> Result<()> {
    match walk::bounds(job.id)? {
        None => Ok(()),
        Some(bounds) => walk::add_note(
            job.id,
            &format!("{} only: rows beyond are not done", bounds.shown()),
        ),
    }
}

/// Whether a table needs another pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Done,
    Again,
    /// Some rows still match, and another pass would not change that.
    Stuck,
}

fn verdict(tally: &Tally, earlier: Option<&Tally>, pass: i32) -> Result<Verdict> {
    let Some((_, filenode)) = heap::pages(tally.relation)? else {
        return Ok(Verdict::Done);
    };
    // The first pass looked at the pages that existed when the walk began; and a rewrite since then has moved
    // everything.
    let new = pass == 1 || filenode != tally.filenode;
    let counts = |t: &Tally| (t.found, t.updated);
    Ok(match (new && pass < MOST_PASSES, tally.whole) {
        (true, _) => Verdict::Again,
        (false, true) => of_sweep(tally),
        (false, false) => of_counts(counts(tally), earlier.map(counts), pass),
    })
}

/// Judges a sweep over all pages. One that found fewer rows than its limit has seen all there were, at one time: it
/// locked them, so those left unchanged were suppressed. One that found more is followed by another, until the sweeps
/// have changed more rows than the table had: then rows are being inserted.
fn of_sweep(tally: &Tally) -> Verdict {
    let (found, updated) = (tally.found, tally.updated);
    let bound = tally.expected + ENOUGH as f64;
    if found >= ENOUGH && updated > 0 && (tally.swept as f64) < bound {
        Verdict::Again
    } else if found == updated && found < ENOUGH {
        Verdict::Done
    } else {
        Verdict::Stuck
    }
}

/// Number of passes after which a pass that finds no fewer rows than the one before makes no progress.
const SETTLED: i32 = 5;

/// Judges a pass over a table that is too large for one sweep. A pass that found nothing was the last. Two that changed
/// nothing make no progress, nor does one that found no fewer rows than the one before, once the first few passes have
/// done the bulk.
fn of_counts((found, updated): (i64, i64), before: Option<(i64, i64)>, pass: i32) -> Verdict {
    let growing = pass > SETTLED && before.is_some_and(|(before, _)| found >= before);
    let twice = before.is_some_and(|(_, updated)| updated == 0);
    match (found, updated) {
        (0, _) => Verdict::Done,
        (_, 0) if twice => Verdict::Stuck,
        (_, 1..) if growing => Verdict::Stuck,
        _ if pass >= MOST_PASSES => Verdict::Stuck,
        _ => Verdict::Again,
    }
}

/// Describes the rows that are left.
fn stuck(job: &Job, tally: &Tally) -> Result<String> {
    let name = &tally.relation_name;
    let target = target::of(job, tally.relation, Vec::new())?;
    if !tally.whole && tally.found == tally.updated {
        return Ok(format!(
            "rows of {name} may match still: they were inserted or changed as fast as they were done"
        ));
    }
    let left = if tally.whole {
        let statement = Prepared::new(target.count_matches(), &[], Access::Tid)?;
        let values = Values {
            rows: &[COUNTED],
            ..Values::default()
        };
        let rows = statement.run(values)?.rows;
        rows.first().map_or(Ok(0), |row| row.number(0))?
    } else {
        tally.found - tally.updated
    };
    let more = if left >= COUNTED { " or more" } else { "" };
    Ok(format!(
        "{left}{more} rows of {name} match still: a trigger keeps them from being updated, or they were inserted meanwhile"
    ))
}

#[cfg(test)]
mod tests {
    use pgrx::pg_sys::Oid;

    use super::*;

    #[test]
    fn a_sweep_is_the_end_unless_there_was_too_much() {
        let of_sweep = |(found, updated): (i64, i64), swept: i64| {
            crate::worker::job::next_pass::of_sweep(&Tally {
                relation: Oid::INVALID,
                relation_name: String::new(),
                filenode: Oid::INVALID,
                whole: true,
                expected: 50_000.0,
                swept,
                found,
                updated,
            })
        };
        assert_eq!(of_sweep((0, 0), 2), Verdict::Done);
        assert_eq!(of_sweep((99, 99), 2), Verdict::Done);
        assert_eq!(of_sweep((99, 98), 2), Verdict::Stuck);
        assert_eq!(of_sweep((ENOUGH, ENOUGH), 2), Verdict::Again);
        assert_eq!(of_sweep((ENOUGH, ENOUGH), 60_000), Verdict::Stuck);
        assert_eq!(of_sweep((ENOUGH, 0), 2), Verdict::Stuck);
    }

    #[test]
    fn passes_end() {
        assert_eq!(of_counts((7, 7), Some((1000, 1000)), 2), Verdict::Again);
        assert_eq!(of_counts((0, 0), Some((7, 7)), 3), Verdict::Done);
        // Another session was faster, or a trigger suppresses these.
        assert_eq!(of_counts((5, 0), Some((1000, 990)), 2), Verdict::Again);
        assert_eq!(of_counts((5, 0), Some((5, 0)), 3), Verdict::Stuck);
        // Rows are inserted faster than the walk goes.
        assert_eq!(of_counts((70, 70), Some((60, 60)), 6), Verdict::Stuck);
        assert_eq!(
            of_counts((5, 5), Some((60, 60)), MOST_PASSES),
            Verdict::Stuck
        );
    }
}
