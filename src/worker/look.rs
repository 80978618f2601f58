//! A walk that changes nothing: a dry run, or a verification. It has one pass, range by range.

use pgrx::pg_sys::Oid;

use crate::action::Question;
use crate::action::statement::{Giving, batch};
use crate::error::{Error, Result};
use crate::pg::evaluate::{self, Change};
use crate::pg::planner::Access;
use crate::pg::text::MOST_SHOWN;
use crate::pg::{heap, relation, report, spi};
use crate::scan::position::{Key, Position};
use crate::scan::sql::{Rows, Target};
use crate::store::job::Job;
use crate::store::slice::{BlockRange, Extent, KeyRange, Slice};
use crate::store::verify_failure;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::statement::{self, Prepared, Values};
use crate::worker::batch::step::{Done, Work};
use crate::worker::batch::target;
use crate::worker::by_key::statements::{Reach, range as of_range};

/// Rows per page assumed if the planner has no estimate.
const SOME_PER_PAGE: f64 = 50.0;

/// The state that a worker keeps in memory for a slice that it only looks at.
#[derive(Debug)]
pub struct Look {
    relation: Oid,
    relation_name: String,
    question: Question,
    /// Whether the new rows are computed.
    evaluates: bool,
    way: Way,
}

/// The order of the walk, with its statements.
#[derive(Debug)]
enum Way {
    Keys {
        range: KeyRange,
        /// Numbers of the key's columns.
        numbers: Vec<i16>,
        reach: Box<Reach>,
        /// The statement without a lower bound, and the one with it.
        look: Box<[Prepared; 2]>,
    },
    Pages {
        range: BlockRange,
        /// Rows per page, by the planner's estimate.
        density: f64,
        look: Box<Prepared>,
        count: Box<Prepared>,
    },
}

/// The findings of a look at some rows.
#[derive(Debug, Default)]
struct Found {
    /// Rows that match the WHERE clause, if there is one and the question asks for them.
    matching: i64,
    /// Rows that would change, or that are wrong.
    rows: i64,
    /// Keys of the wrong rows.
    wrong: Vec<Key>,
}

impl Look {
    /// Analyses the statements, as the owner. Within `spi::connect`.
    pub fn prepare(job: &Job, slice: &Slice) -> Result<(Target, Look)> {
        let table = slice.relation;
        let action = job.definition.action.as_action();
        let look = job.definition.action.look();
        let missing = || Error::internal("the job does not only look");
        let asked = look.ok_or_else(missing)?;
        let (question, evaluates) = (asked.question.clone(), asked.evaluates());
        let giving = |rows| match evaluates {
            true => Giving::Nothing,
            false => rows,
        };
        let (target, way) = match &slice.extent {
            Extent::Key(range) => {
                let (target, index) = target::by_key(job, slice, range)?;
                let reach = Reach::prepare(&target)?;
                let one = |after| {
                    let rows = Rows::Range { after };
                    let statement = batch(action, &target, rows, giving(Giving::Key));
                    harmlessly(|| Prepared::new(statement, &target.key, Access::Index))
                };
                let look = [one(false)?, one(true)?];
                statement::announce(table, index.oid.into(), reach.all().chain(&look));
                let way = Way::Keys {
                    range: range.clone(),
                    numbers: index.numbers(),
                    reach: Box::new(reach),
                    look: Box::new(look),
                };
                (target, way)
            }
            Extent::Physical(range) => {
                let target = target::of(job, table, Vec::new())?;
                let statement = batch(action, &target, Rows::Pages, giving(Giving::Place));
                let look = harmlessly(|| Prepared::new(statement, &[], Access::Tid))?;
                let count = Prepared::new(target.count_pages(), &[], Access::Tid)?;
                statement::announce(table, Oid::INVALID, [&look, &count].into_iter());
                let way = Way::Pages {
                    range: *range,
                    density: density(table)?,
                    look: Box::new(look),
                    count: Box::new(count),
                };
                (target, way)
            }
        };
        let look = Look {
            relation: table,
            relation_name: slice.relation_name.clone(),
            question,
            evaluates,
            way,
        };
        Ok((target, look))
    }

    /// Looks at the next rows.
    pub fn step(&mut self, at: &Position, work: &mut Work) -> Result<Done> {
        let size = work.size(i64::from(work.job.batch_size));
        match &self.way {
            Way::Keys {
                range,
                numbers,
                reach,
                look,
            } => {
                let after = at.key.as_ref();
                let (end, scanned) = reach.next(after, &range.last, size)?;
                if scanned == 0 {
                    return Ok(Done::nothing_left(at.behind(range.last.clone())));
                }
                *work.attempt = Some(Attempt::Keys(end.clone()));
                let statement = &look[usize::from(after.is_some())];
                let values = of_range(after, &end, &[]);
                let found = spi::undone(|| self.look(statement, values, numbers))?;
                self.record(work.job, &range.columns, &found)?;
                let last = end == range.last;
                Ok(done(at.behind(end), scanned, &found, last))
            }
            Way::Pages {
                range,
                density,
                look,
                count,
            } => {
                let first = at.block.unwrap_or(range.first);
                let pages = (size as f64 / density).ceil().max(1.0) as i64;
                let end = (first + pages).min(range.end);
                *work.attempt = Some(Attempt::Pages(first, end));
                let found = spi::undone(|| self.look(look, between(first, end), &[]))?;
                self.record(work.job, &["ctid".to_owned()], &found)?;
                // This count may differ from the rows looked at, if others change them just now.
                let counted = evaluate::read_only(|| count.run(between(first, end)))?.rows;
                let scanned = counted.first().map_or(Ok(0), |row| row.number(0))?;
                let mut position = at.clone();
                position.block = Some(end);
                Ok(done(position, scanned, &found, end == range.end))
            }
        }
    }

    /// Looks at the rows that a statement is about. Nothing can be written meanwhile.
    fn look(&self, statement: &Prepared, values: Values, key: &[i16]) -> Result<Found> {
        report::activity(statement.text());
        let mut found = Found::default();
        let verifies = self.question != Question::DryRun;
        if !self.evaluates {
            let rows = evaluate::read_only(|| statement.run(values))?.rows;
            found.rows = rows.len() as i64;
            if !verifies {
                found.matching = found.rows;
                return Ok(found);
            }
            let width = key.len().max(1);
            found.wrong = rows
                .iter()
                .map(|row| row.texts(width))
                .collect::<Result<_>>()?;
            return Ok(found);
        }
        statement.evaluate(self.relation, values, |change| {
            found.matching += 1;
            if change.differs() {
                found.rows += 1;
                if verifies {
                    found.wrong.push(key_of(change, key)?);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn record(&self, job: &Job, columns: &[String], found: &Found) -> Result<()> {
        if found.wrong.is_empty() {
            return Ok(());
        }
        let table = (self.relation, self.relation_name.as_str());
        verify_failure::add(job.id, table, columns, &found.wrong)
    }
}

/// Runs `f`, which hands the owner's text to PostgreSQL, where nothing can be written and nothing is left that would
/// run at the commit: even analysing the text runs some of it.
fn harmlessly<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    evaluate::read_only(|| spi::undone(f))
}

fn key_of(change: &Change, numbers: &[i16]) -> Result<Key> {
    if numbers.is_empty() {
        let place = change.place();
        return Ok(place
            .map(|tid| vec![format!("({},{})", tid.block, tid.offset)])
            .unwrap_or_default());
    }
    let text = |number: &i16| Ok(change.before(*number, MOST_SHOWN)?.unwrap_or_default());
    numbers.iter().map(text).collect()
}

fn between<'a>(first: i64, end: i64) -> Values<'a> {
    Values {
        pages: (first, end),
        ..Values::default()
    }
}

fn density(table: Oid) -> Result<f64> {
    let (pages, _) = heap::pages(table)?.unwrap_or_default();
    let rows = relation::estimate_rows(table).unwrap_or(0) as f64;
    let density = rows / pages.max(1) as f64;
    Ok(if density > 0.0 {
        density
    } else {
        SOME_PER_PAGE
    })
}

fn done(position: Position, scanned: i64, found: &Found, last: bool) -> Done {
    Done {
        position,
        scanned,
        updated: found.rows,
        found: found.matching,
        tried: scanned,
        last,
        ..Done::default()
    }
}
