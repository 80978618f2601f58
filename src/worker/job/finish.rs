//! The work when no slice is free: the next pass, or the end and what follows the last batch.

use pgrx::pg_sys::Oid;

use crate::action::{Check, Kind, Question};
use crate::error::Result;
use crate::guc;
use crate::model::state::State;
use crate::pg::bgworker::Start;
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{relation, repeat, report};
use crate::store::event::{self, Doubt};
use crate::store::job::{self, Job};
use crate::store::{slice, trial, walk as walks};
use crate::worker::batch::attributes;
use crate::worker::batch::failures::Setbacks;
use crate::worker::held_slice::{limit, pace, samples};
use crate::worker::job::locking::lock_tables;
use crate::worker::job::next_pass::{self, Next};
use crate::worker::job::permission::unwanted;
use crate::worker::job::stop_reason::Ending;
use crate::worker::job::{newcomers, vacuum_after};
use crate::worker::patience::patiently;
use crate::worker::{dispatch, hints, session};

/// Cuts the next pass, or ends the job. Returns the reason to stop if there is nothing for this worker to do; `None` if
/// it may look for a slice again.
pub fn after_slices(job: &Job, start: Start, setbacks: &mut Setbacks) -> Option<Ending> {
    let tables = txn::run(Durability::Deferred, || {
        let mut tables = walks::tables(job.id)?;
        tables.extend(newcomers::tables(job)?);
        Ok(tables)
    });
    let next = tables.and_then(|tables| {
        let lock = || {
            lock_tables(job, &tables);
            Lock::Council(job.id).for_transaction();
        };
        txn::run_after(lock, Durability::Deferred, || next_pass::next(job, &tables))
    });
    if next.is_ok() {
        pace::got_on(job, setbacks);
    }
    match next {
        Ok(Next::Slices) => {
            if job.definition.options.workers() > 1 {
                // Workers that had nothing to do and left may have something now.
                dispatch::sweep();
            }
            None
        }
        Ok(Next::Others) => Some(Ending::Left),
        Ok(Next::Enough) => match limit::pause(job, limit::of_keys(job)) {
            Ok(()) => None,
            Err(error) => Some(Ending::Failed(error, None)),
        },
        Ok(Next::End) => end(job, start),
        Err(error) => Some(Ending::Failed(hints::explained(error, job), None)),
    }
}

/// Does what follows the last batch. One worker does it, and holds the lock until the end is recorded. `None` if a
/// partition was added meanwhile, so that there is more to be done.
fn end(job: &Job, start: Start) -> Option<Ending> {
    let lock = Lock::Upkeep(job.id);
    if txn::run(Durability::Deferred, || Ok(lock.try_session())) != Ok(true) {
        return Some(Ending::Left);
    }
    let ending = after_last(job, start);
    let more = match ending {
        Ending::Completed => txn::run(Durability::Deferred, || newcomers::are_there(job)),
        _ => Ok(false),
    };
    match more {
        Ok(false) => Some(ending),
        Ok(true) => {
            lock.release_session();
            None
        }
        Err(error) => Some(Ending::Failed(error, None)),
    }
}

fn after_last(job: &Job, start: Start) -> Ending {
    samples::take(job, None);
    let now = patiently(&format!("job {} cannot be read", job.id), || {
        txn::run(Durability::Deferred, || job::load(job.id))
    });
    let mut wanted = match now {
        Ok(Some(now)) if now.state() != State::Completed => None,
        _ => return Ending::Gone,
    };
    if job.definition.action.is_read_only() {
        return say_verdict(job);
    }
    let tables = txn::run(Durability::Deferred, || walks::tables(job.id)).unwrap_or_default();
    let options = job.definition.options.clone();
    // Of rows that stay as they are nothing has to be cleared away: what has changed is the table that they were copied into.
    let (table, tables, vacuum) = match &job.definition.action {
        Kind::Copy(copy) => (Oid::from(copy.target), vec![Oid::from(copy.target)], false),
        Kind::Execute(_) => (job.relation, Vec::new(), false),
        _ => (job.relation, tables, options.vacuum()),
    };
    let notes = vacuum_after::run(
        table,
        &tables,
        vacuum,
        options.analyze() && !tables.is_empty(),
        |phase| {
            session::keep_identity(start);
            let shown = txn::run(Durability::Deferred, || {
                walks::set_phase(job.id, phase)?;
                job::load(job.id)
            });
            if let Ok(Some(now)) = shown {
                // The number of workers wanted does not matter any more.
                wanted = unwanted(&now).filter(|ending| !matches!(ending, Ending::Left));
            }
            wanted.is_none() && guc::ENABLED.get()
        },
    );
    for note in &notes {
        say(job, note);
    }
    measure(job);
    // Neither a pause nor a cancel prevents completion any more: every row is done.
    match wanted {
        Some(Ending::Gone) => Ending::Gone,
        _ => Ending::Completed,
    }
}

/// Reports the findings of a job that only reads.
fn say_verdict(job: &Job) -> Ending {
    let looked = txn::run(Durability::Deferred, || {
        Ok((
            slice::found(job.id)?,
            doubt(job)?,
            trial::out_of_sight(job)?,
        ))
    });
    match looked {
        Ok((tally, doubt, unseen)) => {
            if let Some(look) = job.definition.action.look() {
                let verdict = look.verdict(tally, doubt.as_deref(), unseen.as_deref());
                say(job, &verdict);
                if let Question::Verify { job: of, .. } = &look.question {
                    let record = || event::verdict(*of, job.id, job.owner, &verdict);
                    if let Err(error) = txn::run(Durability::Deferred, record) {
                        return Ending::Failed(error, None);
                    }
                }
            }
            Ending::Completed
        }
        Err(error) => Ending::Failed(error, None),
    }
}

/// Returns why a verification's verdict may be wrong: why rows that differ from what the SET list gives, computed
/// again, may be right; or why rows that no longer match the WHERE clause may be wrong.
fn doubt(job: &Job) -> Result<Option<String>> {
    let definition = &job.definition;
    if let Some(Question::Verify {
        job: of,
        check: Check::Pending,
    }) = definition.action.question()
    {
        let values = event::doubt(*of)? == Some(Doubt::Redefined { values: true });
        let why = "rows done before the job was redefined have what the set_clause before gave";
        return Ok(values.then(|| why.to_owned()));
    }
    let computed = matches!(
        definition.action.question(),
        Some(Question::Verify {
            check: Check::Recompute,
            ..
        })
    );
    let Some(set_clause) = definition.action.set_list().filter(|_| computed) else {
        return Ok(None);
    };
    for oid in walks::tables(job.id)? {
        if let Some(table) = relation::describe(oid)? {
            let known_as = attributes::known_as(job, oid)?;
            let why = repeat::reads_what_it_sets(&table, known_as.as_deref(), &set_clause)?;
            if why.is_some() {
                return Ok(why);
            }
        }
    }
    Ok(None)
}

/// Writes to the server log and to the view what the owner should know.
fn say(job: &Job, note: &str) {
    report::log(&format!("backfill {}: {note}", job.logged()));
    let noted = txn::run(Durability::Deferred, || walks::add_note(job.id, note));
    if let Err(error) = noted {
        report::log(&format!("backfill {}: {error}", job.logged()));
    }
}

/// Records the final size of the tables. Errors are logged and otherwise ignored.
fn measure(job: &Job) {
    if let Err(error) = txn::run(Durability::Deferred, || walks::measure(job.id, true)) {
        report::log(&format!("backfill {}: {error}", job.logged()));
    }
}
