//! Gives jobs without a worker one: those that waited for a slot, and those whose worker is gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::pg_sys::BackgroundWorker;

use crate::error::Result;
use crate::guc;
use crate::pg::bgworker::{self, Errand, MOST_LEFT_ALONE, Start};
use crate::pg::lock::Lock;
use crate::pg::txn::{self, Durability};
use crate::pg::{elevate, latch, report, role, server, slots, spi};
use crate::store::job::{self, Job};
use crate::store::{extension, on_end};
use crate::worker::patience::patiently;
use crate::worker::throttle::probes::{self, hours};

/// How often, and how long apart, a sweep tries to register a worker when the server has no process left: that of a worker
/// that ends is only freed once it is gone.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How long a worker that has ended its job waits for a process to hand over to, where no other worker could.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(60);

/// A job that wants workers, and as whom these have to connect.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: i64,
    attempt: i32,
    start: Start,
    missing: usize,
    /// Whether its role may have so many slots only.
    is_bounded: bool,
}

/// The jobs of this database that want a worker, those without any first, then the longest
/// waiting; at last those that have ended, and whose `on_end` is due. Without those in `except`.
fn look_for_waiting(except: &[i64]) -> Result<Vec<Waiting>> {
    if !guc::ENABLED.get() {
        return Ok(Vec::new());
    }
    let look = || {
        if !elevate::extension_exists() {
            return Ok(Vec::new());
        }
        extension::check_version()?;
        let crowded = slots::crowded()?;
        let mut jobs = job::understaffed(&crowded)?;
        // What may not run now would only hold a slot: it comes last.
        jobs.sort_by_cached_key(is_outside_hours);
        let jobs = jobs.into_iter();
        let due = on_end::waiting()?;
        let due = due.into_iter().filter(|job| !crowded.contains(&job.owner));
        let mut without = HashSet::new();
        Ok(jobs
            .chain(due)
            .filter(|job| !except.contains(&job.id))
            .filter_map(|job| start_of(job, &mut without))
            .collect())
    };
    txn::run(Durability::Deferred, look)
}

/// Whether the job may not run at this time of the week. What can't be told is left to its worker.
fn is_outside_hours(job: &Job) -> bool {
    let (limits, _) = probes::limits(&job.definition.options.throttles);
    let zone = job.definition.session.get("TimeZone").map(String::as_str);
    limits.hours().is_some_and(|window| {
        let now = spi::in_subtransaction(|| hours::minute_of_week(window.zone().or(zone)));
        now.is_ok_and(|now| window.closed_for(now).is_some())
    })
}

/// Whether a job that has no worker could run if this worker of `job` gave its slot back.
pub fn others_could_run(job: &Job) -> bool {
    let look = || {
        let mut crowded = slots::crowded()?;
        let full = slots::in_use()? >= i64::from(guc::MAX_WORKERS.get());
        let mine = crowded.contains(&job.owner);
        crowded.retain(|role| *role != job.owner);
        let helps = |other: &Job| full || mine && other.owner == job.owner;
        let waiting = job::understaffed(&crowded)?;
        let mut waiting = waiting.iter().filter(|other| other.workers.is_empty());
        Ok(waiting.any(|other| helps(other) && !is_outside_hours(other)))
    };
    guc::ENABLED.get() && txn::run(Durability::Deferred, look) == Ok(true)
}

/// The same for who has nothing else to do, and waits for the extension's tables to be free.
fn waiting_patiently(except: &[i64]) -> Vec<Waiting> {
    logged(patiently("waiting jobs cannot be looked for", || {
        look_for_waiting(except)
    }))
}

fn logged(found: Result<Vec<Waiting>>) -> Vec<Waiting> {
    found.unwrap_or_else(|error| {
        report::log(&format!("backfill: cannot look for waiting jobs: {error}"));
        Vec::new()
    })
}

/// Where to start the job's worker; nowhere if its owner can't connect any more, which is logged once for each owner.
fn start_of(job: Job, without: &mut HashSet<u32>) -> Option<Waiting> {
    match role::start_for(job.owner) {
        Ok(start) => Some(Waiting {
            id: job.id,
            attempt: job.attempt,
            start,
            missing: job.missing_workers(),
            is_bounded: !slots::is_exempt(job.owner),
        }),
        Err(error) => {
            if without.insert(job.owner.to_u32()) {
                report::log(&format!("backfill {}: {error}", job.logged()));
            }
            None
        }
    }
}

impl Waiting {
    fn worker(&self, left_alone: &[i64]) -> Box<BackgroundWorker> {
        let errand = Errand::new(self.id, self.attempt, self.start, left_alone);
        bgworker::job_worker(&errand)
    }
}

/// What a process that has run no code of anybody's is to do with its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run this job.
    Mine(i64),
    /// End: another process comes.
    Others,
    /// There is nothing to do.
    None,
}

/// The job that has waited longest: this process runs it if it can, else another one is registered. If there is no process, this
/// one goes on with what it can run.
pub fn next(me: Start, except: &[i64]) -> Next {
    let waiting = waiting_patiently(except);
    let Some(first) = waiting.first() else {
        return Next::None;
    };
    if first.start != me && bgworker::register_now(first.worker(&[])) {
        return Next::Others;
    }
    let mut all = waiting.iter();
    all.find(|job| job.start == me)
        .map_or(Next::None, |job| Next::Mine(job.id))
}

/// Once a worker has given its slot back: registers another one for the job of this database that has waited longest, which
/// finds the slot free. Not for those in `unsettled`. `fresh`: this process has run no job.
///
/// Where the server has no process left, that of this worker will be free, but only when it has ended. Then the postmaster is
/// asked to start this one anew, if a job of the same owner's waits. Else another worker of this database is woken to see to
/// it. If there is none, this one waits for a while for a process that others give back.
pub fn hand_over(me: Start, fresh: bool, unsettled: &[i64]) {
    if unsettled.len() > MOST_LEFT_ALONE {
        report::log(
            "backfill: the end of too many jobs cannot be recorded, the launcher will look again",
        );
        return;
    }
    if is_updated() {
        // A new process loads the library anew, if it was not preloaded, and finds the jobs that are left.
        bgworker::register_now(bgworker::sweeper(server::database(), 0));
        return;
    }
    let begun = Instant::now();
    loop {
        let waiting = waiting_patiently(unsettled);
        let Some(first) = waiting.first() else { return };
        if bgworker::register_now(first.worker(unsettled)) {
            return;
        }
        // A new life has forgotten which jobs are to be left alone.
        if !fresh && unsettled.is_empty() && waiting.iter().any(|job| job.start == me) {
            bgworker::come_back();
        }
        let others = others_at_work();
        others.iter().for_each(|pid| latch::set(*pid));
        if !others.is_empty() || !becomes_heir() {
            return;
        }
        if begun.elapsed() > HAND_OVER_WITHIN {
            log_no_process(first.id);
            return;
        }
        latch::wait(PAUSE);
    }
}

/// Whether the extension is not that of this library any more.
fn is_updated() -> bool {
    let look = || Ok(extension::check_version().is_err());
    txn::run(Durability::Deferred, look) == Ok(true)
}

/// The processes that work on jobs of this database.
fn others_at_work() -> Vec<i32> {
    txn::run(Durability::Deferred, job::workers_here).unwrap_or_default()
}

fn becomes_heir() -> bool {
    let try_lock = || Ok(Lock::Heir.is_held() || Lock::Heir.try_session());
    txn::run(Durability::Deferred, try_lock) == Ok(true)
}

fn log_no_process(id: i64) {
    report::log(&format!(
        "backfill job {id}: no background worker slot is free"
    ));
}

fn registered(job: &Waiting) -> bool {
    for _ in 0..TRIES {
        if bgworker::register_now(job.worker(&[])) {
            return true;
        }
        latch::wait(PAUSE);
    }
    log_no_process(job.id);
    false
}

/// Registers as many workers for the jobs of this database that want some as there are free slots, of the server and of their
/// roles: one for each job that has none, then more.
pub fn sweep() {
    let free = txn::run(Durability::Deferred, || {
        let free = i64::from(guc::MAX_WORKERS.get()) - slots::in_use()?;
        Ok((free, slots::rooms()?.into_iter().collect::<HashMap<_, _>>()))
    });
    let (mut free, mut rooms) = free.unwrap_or_default();
    let waiting = logged(look_for_waiting(&[]));
    let further = waiting
        .iter()
        .flat_map(|job| std::iter::repeat_n(job, job.missing.saturating_sub(1)));
    for job in waiting.iter().chain(further) {
        if free <= 0 {
            return;
        }
        let room = rooms
            .entry(job.start.owner)
            .or_insert_with(|| i64::from(slots::limit()));
        if job.is_bounded && *room <= 0 {
            continue;
        }
        if !registered(job) {
            return;
        }
        *room -= 1;
        free -= 1;
    }
}
