//! A slice that this worker holds: its rows, its position, and how it is walked.

mod attempted;
pub mod batch;
pub mod failure_policy;
pub mod give_way;
mod heartbeat;
pub mod limit;
pub mod pace;
pub mod samples;

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::progress::Rate;
use crate::model::timing::Spent;
use crate::pg::enums::Enums;
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{heap, relation, report};
use crate::scan::reader::Reader;
use crate::scan::sizer::Sizer;
use crate::scan::sql::Target;
use crate::scan::weight::Weight;
use crate::store::checkpoint::{self, Checkpoint, Gauges, Writer};
use crate::store::job::Job;
use crate::store::slice::{self, Extent, Slice};
use crate::store::version::VersionReader;
use crate::store::{event, failed_row, leftover};
use crate::waves::backoff::Rests;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::failures::{Retry, Setbacks};
use crate::worker::batch::{attributes, statement, target};
use crate::worker::by_key::Keys;
use crate::worker::by_key::statements::{InOrder, Plans};
use crate::worker::by_page::Pages;
use crate::worker::held_slice::heartbeat::Heartbeat;
use crate::worker::held_slice::samples::Sampler;
use crate::worker::look::Look;
use crate::worker::throttle::Throttle;
use crate::worker::wave_policy::Tactics;

/// A slice that this worker holds.
#[derive(Debug)]
pub struct Walk {
    /// The table and key from which statements are made.
    pub target: Target,
    /// The slice itself.
    pub slice: Slice,
    /// The order of the slice's walk, with its statements.
    pub course: Course,
    /// The enums of the slice's key.
    pub enums: Rc<Enums>,
    /// The slice's checkpoint, as committed.
    pub checkpoint: Checkpoint,
    /// The rows that the batch in progress is about, once that is known.
    pub attempt: Option<Attempt>,
    /// The figures for people in the last checkpoint.
    pub gauges: Gauges,
    /// Writes the checkpoint's successors.
    pub writer: Writer,
    /// Tells whether anything about the job has changed.
    pub versions: VersionReader,
    /// Knowledge gained in this slice and in earlier ones.
    pub learned: Learned,
    /// Failures of the slice's batches.
    pub setbacks: Setbacks,
    /// Bytes that a row takes; `None` before that was asked for.
    weight: Option<Weight>,
}

/// Knowledge that a worker gains, and takes from one slice of a job to the next.
#[derive(Debug, Default)]
pub struct Learned {
    /// When to do without waves.
    rests: Rests,
    /// Measures the rows per second.
    rate: Rate,
    /// Rows passed in other slices, less those of this slice that were passed before it was claimed.
    elsewhere: i64,
    /// Chooses the size of batches.
    pub sizer: Sizer,
    /// Chooses how many rows a statement should read.
    pub reader: Reader,
    /// Takes samples.
    pub sampler: Sampler,
    /// Reports the job's progress in the server log.
    pub heartbeat: Heartbeat,
    /// Signals that the job gives way to, and an account of its time.
    pub throttle: Throttle,
    /// The slice that is being claimed: its lock outlives a transaction that fails.
    claiming: Option<i32>,
}

/// The order in which a slice is walked.
#[derive(Debug)]
pub enum Course {
    /// In the order of its keys.
    Keys(Box<Keys>),
    /// In the order of its pages.
    Pages(Box<Pages>),
    /// In either order, without changing anything.
    Look(Box<Look>),
}

/// The state of the table that a slice is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Unchanged, or still fit for the walk.
    Firm,
    /// The table was rewritten: the slice's pages no longer exist.
    Rewritten,
    /// The table was a partition, and was dropped.
    Gone,
}

/// The result of a look for a slice.
#[derive(Debug)]
pub enum Claim {
    /// This worker holds the slice.
    Taken(Box<Walk>),
    /// The table of the slice is gone; the slice is marked as done. The text says so.
    Lost(String),
    /// There is no slice that nobody holds.
    None,
}

/// Takes the next slice that nobody holds, within a transaction that the caller commits. The slice stays locked for the
/// session. What was learned in other slices is moved into the walk.
pub fn claim(job: &Job, learned: &mut Learned) -> Result<Claim> {
    let Some(slice) = slice::lock_free(job.id)? else {
        return Ok(Claim::None);
    };
    let lock = Lock::Slice(slice.id);
    let id = slice.id;
    // Set before the lock is taken, so that any error from here on releases it.
    learned.claiming = Some(id);
    if !lock.is_held() && !lock.try_session() {
        learned.claiming = None;
        return Ok(Claim::None);
    }
    let taken = take(job, slice, learned);
    // The walk owns what was learned by now, but the transaction may still fail.
    learned.claiming = Some(id);
    if !matches!(taken, Ok(Claim::Taken(_))) {
        lock.release_session();
    }
    taken
}

fn take(job: &Job, slice: Slice, learned: &mut Learned) -> Result<Claim> {
    let (table, rests) = (slice.relation, learned.rests);
    relation::lock_for_update(table);
    if is_lost(job, table)? {
        if !job.definition.action.is_read_only() {
            let name = Some(slice.relation_name.as_str());
            event::record(job.id, job.owner, event::LOST, name, None)?;
        }
        slice::finish(slice.id)?;
        return Ok(Claim::Lost(lost(&slice.relation_name)));
    }
    statement::announce_bookkeeping();
    relation::watch(table);
    relation::take_changed();
    let writer = Writer::prepare()?;
    let checkpoint = checkpoint::seize(&writer, slice.id)?;
    attributes::check(&slice, slice.extent.columns())?;
    let (target, course) = match &slice.extent {
        _ if job.definition.action.is_read_only() => {
            let (target, look) = Look::prepare(job, &slice)?;
            (target, Course::Look(Box::new(look)))
        }
        Extent::Key(range) => {
            let (target, index) = target::by_key(job, &slice, range)?;
            let plans = plans(job, &target, table, index.oid)?;
            let keys = Keys::new(job, table, range.clone(), plans, rests)?;
            (target, Course::Keys(Box::new(keys)))
        }
        Extent::Physical(range) => {
            let target = target::of(job, table, Vec::new())?;
            let pages = Pages::new(job, table, *range, slice.pass == 1, &target, rests)?;
            // Makes the first batch check that the table may still be walked so: that failure can be handled.
            relation::mark_changed();
            (target, Course::Pages(Box::new(pages)))
        }
    };
    let enums = attributes::check_labels(&slice, &target.key)?;
    let mut learned = std::mem::take(learned);
    learned.elsewhere -= checkpoint.progress.rows_done;
    let mut walk = Walk {
        target,
        course,
        learned,
        slice,
        checkpoint,
        attempt: None,
        gauges: Gauges::default(),
        writer,
        versions: VersionReader::prepare()?,
        setbacks: Setbacks::default(),
        weight: None,
        enums: Rc::new(enums),
    };
    walk.measure(walk.checkpoint.progress.rows_done);
    Ok(Claim::Taken(Box::new(walk)))
}

/// Returns the statements of a walk in key order.
fn plans(job: &Job, target: &Target, table: Oid, index: u32) -> Result<Plans> {
    let options = &job.definition.options;
    let in_order = match (options.ordered(), options.keeps_key_order()) {
        (true, _) => InOrder::Asked,
        (false, true) => InOrder::Kept,
        (false, false) => InOrder::No,
    };
    let action = target::action(job, table)?;
    let size = job.batch_size;
    Plans::prepare(target, action.as_action(), table, index, in_order, size)
}

/// True if the table is a partition that was dropped, without the whole table.
fn is_lost(job: &Job, table: Oid) -> Result<bool> {
    Ok(table != job.relation
        && relation::describe(table)?.is_none()
        && relation::describe(job.relation)?.is_some())
}

/// Returns the note about a partition that was dropped.
pub fn lost(name: &str) -> String {
    format!("partition {name} was dropped: what was left of it is not done")
}

/// Returns the error of a row that may not be stepped over because as many as may fail have failed already.
fn too_many(error: Error, job: i64, most: i64) -> Error {
    if most == 0 || error.hint.is_some() {
        return error;
    }
    error.hint(format!(
        "max_failed_rows ({most}) rows have failed before: see backfill.failed_rows. To step over more, SELECT backfill.alter({job}, options => '{{\"max_failed_rows\": {}}}'), then backfill.resume({job}).",
        most.saturating_mul(10)
    ))
}

impl Learned {
    /// Releases the slice that could not be claimed because of an error.
    pub fn claim_failed(&mut self) {
        let lock = self.claiming.take().map(Lock::Slice);
        if let Some(lock) = lock.filter(|lock| lock.is_held()) {
            lock.release_session();
        }
    }
}

impl Walk {
    /// Returns what was learned.
    pub fn leave(self) -> Learned {
        Learned {
            rests: self.tactics().map_or(self.learned.rests, Tactics::rests),
            elsewhere: self.learned.elsewhere + self.checkpoint.progress.rows_done,
            claiming: None,
            ..self.learned
        }
    }

    /// Returns the rows per second, now that `rows_done` rows of the slice are done.
    pub fn measure(&mut self, rows_done: i64) -> Option<f64> {
        let rows = self.learned.elsewhere + rows_done;
        // This clock stands still while the job waits.
        let now = Instant::now();
        let running = now.checked_sub(self.learned.throttle.waited);
        self.learned.rate.measure(running.unwrap_or(now), rows)
    }

    /// Returns the transaction that the horizon has to pass before the next batch.
    pub fn awaited(&self) -> Option<u32> {
        self.tactics().and_then(Tactics::awaited)
    }

    /// Counts the time spent waiting for the horizon.
    pub fn waited(&mut self, time: Duration) {
        match &mut self.course {
            Course::Keys(keys) => keys.tactics.waited(time),
            Course::Pages(pages) => pages.tactics.waited(time),
            Course::Look(_) => {}
        }
    }

    /// Returns why waves have rested in this slice, if they have; once only.
    pub fn rested(&mut self) -> Option<&'static str> {
        match &mut self.course {
            Course::Keys(keys) => keys.tactics.rested.take(),
            Course::Pages(pages) => pages.tactics.rested.take(),
            Course::Look(_) => None,
        }
    }

    fn tactics(&self) -> Option<&Tactics> {
        match &self.course {
            Course::Keys(keys) => Some(&keys.tactics),
            Course::Pages(pages) => Some(&pages.tactics),
            Course::Look(_) => None,
        }
    }

    /// Discards what was read ahead of the checkpoint: a batch that failed has used up some of it.
    pub fn step_back(&mut self) {
        match &mut self.course {
            Course::Keys(keys) => keys.step_back(),
            Course::Pages(pages) => pages.step_back(),
            Course::Look(_) => {}
        }
    }

    /// Makes the view show why the next batch has to wait, and until when.
    pub fn tell(&mut self, retry: Retry) -> Result<()> {
        let next = self.checkpoint.successor();
        let gauges = Gauges {
            note: self.gauges.note.clone(),
            waits: retry.shown().map(|what| (what, retry.pause)),
            ..Gauges::default()
        };
        txn::run(Durability::Deferred, || {
            self.writer.replace(&self.checkpoint, &next, &gauges)
        })?;
        self.checkpoint = next;
        Ok(())
    }

    /// Records the time spent since the last checkpoint, while there is no batch that does so.
    pub fn account(&mut self) -> Result<()> {
        let mut next = self.checkpoint.successor();
        next.spent.add(&self.learned.throttle.spent);
        txn::run(Durability::Deferred, || {
            self.writer.replace(&self.checkpoint, &next, &self.gauges)
        })?;
        self.checkpoint = next;
        self.learned.throttle.spent = Spent::default();
        Ok(())
    }

    /// Makes the view and the samples count the time of a long wait. Errors are logged and otherwise ignored.
    pub fn recount(&mut self, job: &Job) {
        if let Err(error) = self.account() {
            report::log(&format!("backfill {}: {error}", job.logged()));
        }
        let lag = self.learned.throttle.readings.lag_bytes();
        self.learned.sampler.sample(job, lag);
        self.learned.heartbeat.beat(job);
    }

    /// True if the slice has only single rows that were not passed in other slices.
    fn is_of_single_rows(&self) -> bool {
        let expects = self.checkpoint.progress.rows_total.is_some();
        expects && matches!(&self.slice.extent, Extent::Key(range) if range.is_empty())
    }

    /// Steps over the one row that the batch was about, and records its error. Returns the error if that is impossible,
    /// or if no more rows may fail.
    pub fn step_over(&mut self, job: &Job, error: Error) -> std::result::Result<(), Error> {
        let at = &self.checkpoint.position;
        let (key, position) = match self.attempt.clone() {
            Some(Attempt::Keys(key) | Attempt::ReadKeys(key)) => (key.clone(), at.behind(key)),
            Some(Attempt::Wave(key)) => (key.clone(), at.at(key)),
            Some(Attempt::Row(row)) => (row.key, at.clone()),
            _ => return Err(error),
        };
        let leftover = match &self.attempt {
            Some(Attempt::Row(row)) => Some(row.id),
            _ => None,
        };
        let most = job.definition.options.max_failed_rows();
        let stepped = txn::run_after(
            || Lock::Council(job.id).for_transaction(),
            Durability::Deferred,
            || {
                if failed_row::count(job.id)? >= most {
                    return Ok(None);
                }
                failed_row::record(job, &self.slice, &key, &error)?;
                let mut next = self.checkpoint.successor();
                next.position = position;
                match leftover {
                    Some(id) => {
                        leftover::remove(self.slice.id, id)?;
                        next.progress
                            .advance(i64::from(self.is_of_single_rows()), 0);
                    }
                    None => next.progress.advance(1, 0),
                }
                let gauges = Gauges::default();
                self.writer.replace(&self.checkpoint, &next, &gauges)?;
                Ok(Some(next))
            },
        );
        self.checkpoint = stepped?.ok_or_else(|| too_many(error, job.id, most))?;
        Ok(())
    }

    /// Finds rows by their keys alone from now on, if the batch failed while it went by places: the error may be
    /// another row's. Returns true if so.
    pub fn distrust_places(&mut self) -> bool {
        match &mut self.course {
            Course::Keys(keys) => keys.distrust_places(),
            Course::Pages(_) | Course::Look(_) => false,
        }
    }

    /// True if the failed batch only read and can read less: the next one will.
    pub fn read_less(&mut self) -> bool {
        let reading = matches!(
            self.attempt,
            Some(Attempt::ReadKeys(_) | Attempt::ReadPages(..))
        );
        reading && !std::mem::replace(&mut self.setbacks.careful, true)
    }

    /// Analyses the statements again if the relation's definition may have changed since. The relation is locked
    /// already.
    pub fn refresh(&mut self, job: &Job) -> Result<Ground> {
        let table = self.slice.relation;
        target::hold_other(job);
        // This is also false if the table is gone.
        let same_name = relation::is_named(table, &self.target.schema, &self.target.relation);
        if same_name && !relation::take_changed() {
            return Ok(Ground::Firm);
        }
        // If anything fails here, the next try has to look at it again.
        let again = relation::ChangedUnlessDone::begin();
        if is_lost(job, table)? {
            return Ok(Ground::Gone);
        }
        attributes::check(&self.slice, self.slice.extent.columns())?;
        match (&mut self.course, &self.slice.extent) {
            (Course::Keys(keys), Extent::Key(range)) => {
                let (target, index) = target::by_key(job, &self.slice, range)?;
                keys.prepare_again(plans(job, &target, table, index.oid)?);
                self.target = target;
            }
            (Course::Pages(pages), Extent::Physical(range)) => {
                let target = target::of(job, table, Vec::new())?;
                target::refuse_unsound(job, table)?;
                if heap::pages(table)?.is_none_or(|(_, file)| file != range.filenode) {
                    return Ok(Ground::Rewritten);
                }
                pages.prepare_again(job, &target)?;
                self.target = target;
            }
            (Course::Look(look), extent) => {
                if let Extent::Physical(range) = extent
                    && heap::pages(table)?.is_none_or(|(_, file)| file != range.filenode)
                {
                    return Ok(Ground::Rewritten);
                }
                let (target, again) = Look::prepare(job, &self.slice)?;
                **look = again;
                self.target = target;
            }
            _ => {}
        }
        self.enums = Rc::new(attributes::check_labels(&self.slice, &self.target.key)?);
        again.done();
        Ok(Ground::Firm)
    }
}
