//! The main loop of a worker: take a slice, lock it, loop { wait for permission, one batch, pace }, take the next one,
//! finish.

use crate::error::{Error, Result};
use crate::guc;
use crate::model::retry;
use crate::model::state::State;
use crate::pg::bgworker::{self, Errand, Start};
use crate::pg::lock::Lock;
use crate::pg::settings::Pins;
use crate::pg::slots::{self, Room};
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, read_only, report, server, signal};
use crate::store::job::{self, Job};
use crate::store::{event, extension, on_end as owed, setback, slice, walk as walks};
use crate::worker::batch::failures::Setbacks;
use crate::worker::dispatch::{self, Next};
use crate::worker::held_slice::batch::{self, Step};
use crate::worker::held_slice::failure_policy::{self, Recourse};
use crate::worker::held_slice::give_way::{self, Look};
use crate::worker::held_slice::{self, Claim, Ground, Learned, Walk, limit, pace};
use crate::worker::job::finish;
use crate::worker::job::locking::{decide, keep_locks, lock_tables};
use crate::worker::job::on_end::{self, OnEnd};
use crate::worker::job::permission::{permission, unwanted};
use crate::worker::job::stop_reason::{self, Ending};
use crate::worker::patience::patiently;
use crate::worker::{cut_slices, hints, session};

/// The result of a process's work on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Nothing: the job should not run, or others run it. No user's code was run.
    Nothing,
    /// It has done its part of the work.
    Settled,
    /// Something remains unsettled: the job may still wait for a worker, but this process should leave it alone.
    Unsettled,
    /// Nothing, since the server crashed while a worker had the job: the launcher starts another.
    Crashed,
}

/// Runs the job with this id, and no other: what the job's code leaves in the session ends with the process. Another
/// job that wants a worker gets another process.
///
/// No job is forgotten. A job that found no free slot is seen by the workers that hold the slots, since each looks once
/// more after it has given its own back. A job whose role may have no more workers is seen by the workers of that role;
/// a worker that was started for it looks for a job of another role.
pub fn main(id: i64) {
    bgworker::end_for_good();
    signal::install();
    let errand = bgworker::my_errand(id);
    let start = errand.start;
    session::connect(start);
    elevate::stay_with_one_extension();
    let mut alone = errand.left_alone.clone();
    let mut fresh = true;
    match take_slot(start) {
        Some(Room::Taken) => {
            let (mut done, mut ended) = (run_one(id, start, Some(&errand)), id);
            if done == Done::Nothing {
                let mut except = alone.clone();
                except.push(id);
                // This process has not run any code yet, so it may run another job as well.
                match dispatch::next(start, &except) {
                    Next::Mine(id) => {
                        ended = id;
                        done = settle(id, run_one(id, start, None), &mut alone);
                    }
                    // A worker looks for jobs after it has given its slot back, since the process that was registered
                    // may have found no slot.
                    Next::Others | Next::None => {}
                }
            } else {
                settle(id, done, &mut alone);
            }
            slots::release();
            dispatch::release_followers(ended);
            if done == Done::Crashed {
                // A sweep may have passed while this process had the job's lock.
                if server::preloaded() {
                    bgworker::register_now(bgworker::sweeper(server::database(), 0));
                }
                return;
            }
            fresh = done == Done::Nothing;
        }
        Some(Room::Crowded) => {}
        Some(Room::Full) | None => return,
    }
    dispatch::hand_over(start, fresh, &alone);
}

fn settle(id: i64, done: Done, alone: &mut Vec<i64>) -> Done {
    if done == Done::Unsettled {
        alone.push(id);
    }
    done
}

/// Runs the job, and then the statement that its owner wants run at its end. `errand`: what this process was started
/// for, if that is this job.
fn run_one(id: i64, start: Start, errand: Option<&Errand>) -> Done {
    let done = hold_and_run(id, start, errand);
    if done == Done::Crashed {
        return done;
    }
    match on_end::run(id, start) {
        OnEnd::NotDue => done,
        OnEnd::Done if done == Done::Nothing => Done::Settled,
        OnEnd::Done => done,
        OnEnd::StillDue => Done::Unsettled,
    }
}

fn take_slot(start: Start) -> Option<Room> {
    let take = || txn::run(Durability::Deferred, || Ok(slots::take(start.owner)));
    guc::ENABLED.get().then(take)?.ok()
}

/// Runs the job if it exists, should run, and wants another worker.
fn hold_and_run(id: i64, start: Start, errand: Option<&Errand>) -> Done {
    let mut job = match hold(id, start) {
        Ok(Some(job)) => job,
        Ok(None) => return Done::Nothing,
        Err(error) => {
            report::log(&format!("backfill job {id}: cannot be read: {error}"));
            return Done::Unsettled;
        }
    };
    let (ending, done) = match unwanted(&job) {
        Some(ending) => (ending, Done::Nothing),
        // Not for a job that has ended: a process that was started again for other waiting jobs has the same errand.
        None if errand.is_some_and(|errand| has_crashed(&job, errand)) => {
            Lock::Job(id).release_session();
            return Done::Crashed;
        }
        None => {
            read_only::only_look(job.definition.action.is_read_only());
            (slices(&mut job, start), Done::Settled)
        }
    };
    session::keep_identity(start);
    let recorded = stop_reason::conclude(id, &ending, job.attempt);
    Lock::Upkeep(id).release_session();
    read_only::only_look(false);
    if recorded { done } else { Done::Unsettled }
}

/// True if the postmaster has started this process again after a crash of the server, in place of one that had the job.
/// Running it could crash the server again and again. The launcher goes on with the job; without a launcher,
/// `backfill.resume` does.
fn has_crashed(job: &Job, errand: &Errand) -> bool {
    let alone = job.workers.len() == 1 && job.attempt == errand.attempt;
    let begun = || {
        let begun = txn::run(Durability::Deferred, || {
            event::worker_started_since(job.id, errand.registered)
        });
        begun != Ok(false)
    };
    alone && errand.comes_after_checkpoint() && begun()
}

/// Takes the job's lock, if the job belongs to this role and has fewer workers than it wants.
fn hold(id: i64, start: Start) -> Result<Option<Job>> {
    let lock = Lock::Job(id);
    let take = || {
        extension::check_version()?;
        let job = job::load(id)?.filter(|job| job.owner == start.owner);
        if let Some(job) = job.as_ref().filter(|job| owed::is_owed(job)) {
            owed::settle_cancel(job)?;
            return Ok(None);
        }
        let crowded = |job: &Job| job.missing_workers() == 0;
        if job.is_none_or(|job| crowded(&job)) || !lock.try_session() {
            return Ok(None);
        }
        job::load(id)
    };
    let council = || Lock::Council(id).for_transaction();
    let job = patiently(&format!("job {id} cannot be taken"), || {
        txn::run_after(council, Durability::Deferred, take)
    });
    if !matches!(job, Ok(Some(_))) {
        lock.release_session();
    }
    job
}

/// Does one slice after another, and what follows the last.
fn slices(job: &mut Job, start: Start) -> Ending {
    let mut setbacks = Setbacks::default();
    let mut learned = Learned::default();
    let mut pins = Pins::default();
    let mut begun = false;
    loop {
        session::keep_identity(start);
        let ending = match permission(job, &mut pins, true) {
            Ok(None) if begun => turn(job, start, &mut pins, &mut learned, &mut setbacks),
            Ok(None) => match begin(job, &mut pins) {
                Ok(()) => {
                    begun = true;
                    pace::got_on(job, &mut setbacks);
                    None
                }
                Err(error) => Some(Ending::Failed(hints::explained(error, job), None)),
            },
            Ok(ending) => ending,
            Err(error) => Some(Ending::Failed(error, None)),
        };
        match ending {
            None => {}
            // Not in a batch: while looking for slices and their holders.
            Some(Ending::Failed(error, None))
                if pace::waited_to_retry(job, &error, &mut setbacks) => {}
            Some(ending) => return ending,
        }
    }
}

/// Does the next slice, or what follows the last. `None` if there may be another.
fn turn(
    job: &mut Job,
    start: Start,
    pins: &mut Pins,
    learned: &mut Learned,
    setbacks: &mut Setbacks,
) -> Option<Ending> {
    let table = txn::run(Durability::Deferred, || slice::next_table(job.id));
    let claim = table.and_then(|table| {
        let lock = || lock_tables(job, table.as_slice());
        txn::run_after(lock, Durability::Deferred, || claim(job, learned))
    });
    if claim.is_err() {
        learned.claim_failed();
    }
    match claim {
        Ok(Claim::Taken(mut walk)) => {
            pace::got_on(job, setbacks);
            let ending = batches(&mut walk, job, start, pins);
            if ending.is_some() {
                session::keep_identity(start);
                settle_accounts(&mut walk, job);
            }
            note_of_rests(&mut walk, job);
            Lock::Slice(walk.slice.id).release_session();
            *learned = walk.leave();
            ending
        }
        Ok(Claim::Lost(note)) => {
            report::log(&format!("backfill {}: {note}", job.logged()));
            None
        }
        Ok(Claim::None) => finish::after_slices(job, start, setbacks),
        Err(error) => Some(Ending::Failed(hints::explained(error, job), None)),
    }
}

/// Records the time and WAL that no checkpoint has yet, those of failed batches. Errors are logged and otherwise
/// ignored: they do not change the ending.
fn settle_accounts(walk: &mut Walk, job: &Job) {
    if walk.learned.throttle.spent.is_empty() {
        return;
    }
    if let Err(error) = walk.account() {
        report::log(&format!("backfill {}: {error}", job.shown()));
    }
}

/// Adds a lasting note if waves have rested: the note in the checkpoints disappears once they go on.
fn note_of_rests(walk: &mut Walk, job: &Job) {
    let Some(note) = walk.rested() else { return };
    let noted = txn::run(Durability::Deferred, || walks::add_note(job.id, note));
    if let Err(error) = noted {
        report::log(&format!("backfill {}: {error}", job.shown()));
    }
}

fn claim(job: &Job, learned: &mut Learned) -> Result<Claim> {
    let claim = held_slice::claim(job, learned)?;
    if let Claim::Lost(note) = &claim {
        walks::add_note(job.id, note)?;
    }
    Ok(claim)
}

/// Pins the session, and cuts the slices if that was not done before.
fn begin(job: &Job, pins: &mut Pins) -> Result<()> {
    *pins = txn::run_setting(|| {
        let mut pins = session::pins(job)?;
        pins.apply();
        Ok(pins)
    })?;
    txn::run(Durability::Deferred, || {
        setback::clear(job.id, &job.workers)?;
        walks::remove_pause_note(job.id)
    })?;
    let tables = txn::run(Durability::Deferred, || cut_slices::unsurveyed(job))?;
    txn::run_after(
        || {
            lock_tables(job, &tables);
            Lock::Council(job.id).for_transaction();
        },
        // Must survive a crash: see `has_crashed`.
        Durability::Local,
        || {
            cut_slices::ensure(job)?;
            event::record(
                job.id,
                job.owner,
                "worker started",
                None,
                Some(State::Running.name()),
            )
        },
    )?;
    report::log(&format!("backfill {} runs", job.logged()));
    Ok(())
}

/// Does the batches of a slice. `None` if the next slice may be taken.
fn batches(walk: &mut Walk, job: &mut Job, start: Start, pins: &mut Pins) -> Option<Ending> {
    let mut changed = false;
    loop {
        session::keep_identity(start);
        if !slots::are_held() && take_slot(start) != Some(Room::Taken) {
            return Some(Ending::Left);
        }
        if !keep_locks(job.id, walk.slice.id) {
            return None;
        }
        if signal::reload_if_asked() {
            walk.learned.throttle.look_again();
        }
        match permission(job, pins, changed) {
            Ok(None) => changed = false,
            Ok(Some(ending)) => return Some(ending),
            Err(error) => return Some(Ending::Failed(error, None)),
        }
        let lag = walk.learned.throttle.readings.lag_bytes();
        walk.learned.sampler.sample(job, lag);
        walk.learned.heartbeat.beat(job);
        let look = give_way::wait(walk, job);
        if look == Look::Behind {
            return Some(Ending::Behind);
        }
        if look != Look::Fresh {
            changed |= look == Look::Changed;
            continue;
        }
        let step = batch::run(walk, job);
        if step.is_ok() {
            pace::batch_got_on(job, walk);
        }
        match step {
            Ok(Step::Changed) => {
                walk.learned.throttle.look_again();
                changed = true;
            }
            Ok(Step::Read) => {}
            Ok(Step::TooEarly) => pace::wait_for_horizon(walk),
            Ok(Step::Last) => return None,
            Ok(Step::Enough) => match limit::pause(job, limit::of_rows(job)) {
                Ok(()) => changed = true,
                Err(error) => return Some(Ending::Failed(error, None)),
            },
            Ok(Step::More(pause)) => changed = pace::rest(pause, job, walk),
            Ok(Step::Left(pause)) => {
                pace::rest(pause, job, walk);
                return None;
            }
            Ok(Step::Lost(ground)) => return replace(walk, job, ground),
            Err(error) => match failure_policy::of(&error, walk) {
                Recourse::Again => walk.step_back(),
                Recourse::Later(retry) => {
                    walk.step_back();
                    session::keep_identity(start);
                    pace::wait_to_retry(retry, &error, job, walk);
                    // The batch may have been cancelled together with the job.
                    changed = true;
                }
                Recourse::NextSlice => {
                    report::log(&format!("backfill {}: {error}", job.logged()));
                    return None;
                }
                Recourse::ByKey => return go_by_key(walk, job, error),
                Recourse::FindByKey => return find_by_key(walk, job, error),
                Recourse::StepOver => {
                    let attempted = walk.attempted_row();
                    walk.step_back();
                    session::keep_identity(start);
                    match walk.step_over(job, hints::explained(error, job)) {
                        Ok(()) if walk.setbacks.stepped_over_is_logged() => {
                            report::log(&format!(
                                "backfill {}: steps over {attempted}, see backfill.failed_rows",
                                job.logged()
                            ));
                        }
                        Ok(()) => {}
                        Err(error) => return Some(unless_it_passes(error, attempted)),
                    }
                }
                Recourse::None => {
                    let error = hints::explained(error, job);
                    return Some(Ending::Failed(error, Some(walk.attempted())));
                }
            },
        }
    }
}

/// Goes on where a slice's pages, or its partition, are gone.
fn replace(walk: &Walk, job: &Job, ground: Ground) -> Option<Ending> {
    let (table, name) = (walk.slice.relation, &walk.slice.relation_name);
    let replaced = decide(table, job, || match ground {
        // The slice is marked as done when it is claimed again.
        Ground::Gone => walks::add_note(job.id, &held_slice::lost(name)),
        _ => cut_slices::restart(job, walk.slice.pass, (table, name)),
    });
    replaced.err().map(|error| Ending::Failed(error, None))
}

/// Goes on by key where a table turns out not to allow a walk in physical order.
fn go_by_key(walk: &Walk, job: &Job, why: Error) -> Option<Ending> {
    let (table, name) = (walk.slice.relation, &walk.slice.relation_name);
    let changed = decide(table, job, || cut_slices::go_by_key(job, table, name, why));
    changed
        .err()
        .map(|error| unless_it_passes(error, walk.attempted()))
}

/// Returns the ending for an error in what follows a batch. If the error may pass by itself, the slice is claimed
/// again, and its next batch gets here again.
fn unless_it_passes(error: Error, attempted: String) -> Ending {
    let lasting = retry::rule(&error.sqlstate).is_none();
    Ending::Failed(error, lasting.then_some(attempted))
}

/// Goes on by key where a row of a batch in physical order fails, if rows may be stepped over. The note omits the
/// error, which may contain row data.
fn find_by_key(walk: &Walk, job: &Job, error: Error) -> Option<Ending> {
    let failed = |error| {
        Some(Ending::Failed(
            hints::explained(error, job),
            Some(walk.attempted()),
        ))
    };
    if job.definition.options.max_failed_rows() == 0 {
        return failed(error);
    }
    let why = Error::new(
        &error.sqlstate,
        "a row fails that can be stepped over by its key only",
    );
    match go_by_key(walk, job, why) {
        Some(Ending::Failed(_, Some(_))) => failed(error),
        other => other,
    }
}
