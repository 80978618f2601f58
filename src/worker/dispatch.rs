//! Gives workers to jobs that lack one: jobs that waited for a slot, and jobs whose worker is gone.

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

/// Number of times a sweep tries to register a worker when no process of the server is free, and the pause between two
/// tries. The process of a worker that ends is freed only once it is gone.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Time that a worker which has ended its job waits for a process to hand over to, if no other worker could do so.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(60);

/// A job that wants workers, and the role that these connect as.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: i64,
    attempt: i32,
    start: Start,
    missing: usize,
    /// Whether the number of slots is limited for its role.
    is_bounded: bool,
}

/// Returns the jobs of this database that want a worker: those without any first, then the longest waiting; finally
/// those that have ended and whose `on_end` is due. Leaves out those in `except`.
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
        // A job that may not run now would only hold a slot, so it comes last.
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

/// True if the job may not run at this time of the week. False if that cannot be told: its worker finds out.
fn is_outside_hours(job: &Job) -> bool {
    let (limits, _) = probes::limits(&job.definition.options.throttles);
    let zone = job.definition.session.get("TimeZone").map(String::as_str);
    limits.hours().is_some_and(|window| {
        let now = spi::in_subtransaction(|| hours::minute_of_week(window.zone().or(zone)));
        now.is_ok_and(|now| window.closed_for(now).is_some())
    })
}

/// True if a job that has no worker could run if this worker of `job` gave its slot back.
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

/// Like [`look_for_waiting`], for a process that has nothing else to do: it waits for the extension's tables to be
/// free.
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

/// Returns where to start the job's worker; `None` if its owner cannot connect any more, which is logged once for each
/// owner.
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

/// The next step of a process that holds a slot and has run no user's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run this job.
    Mine(i64),
    /// End: another process comes.
    Others,
    /// Nothing: no job is waiting.
    None,
}

/// Chooses the job that has waited longest: this process runs it if it can, otherwise another process is registered for
/// it. If none can be, this process takes a job that it can run.
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

/// Hands over once a worker has given its slot back: registers another worker, which finds the slot free, for the job
/// of this database that has waited longest. Leaves out the jobs in `unsettled`. `fresh`: this process has run no job.
///
/// Where the server has no process left, that of this worker will be free, but only once it has ended. Then the
/// postmaster is asked to start this process again, if a job of the same owner waits. Otherwise the other workers of
/// this database are woken to start a worker. If there are none, this one waits for a while for a process that others
/// give back.
pub fn hand_over(me: Start, fresh: bool, unsettled: &[i64]) {
    if unsettled.len() > MOST_LEFT_ALONE {
        report::log(
            "backfill: the end of too many jobs cannot be recorded, the launcher will look again",
        );
        return;
    }
    if is_updated() {
        // A new process loads the library again, if it was not preloaded, and finds the jobs that are left.
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
        // A process that is started again has forgotten which jobs to leave alone.
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

/// True if the extension in this database no longer has the version of this library.
fn is_updated() -> bool {
    let look = || Ok(extension::check_version().is_err());
    txn::run(Durability::Deferred, look) == Ok(true)
}

/// Returns the processes that work on jobs of this database.
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

/// Registers workers for the jobs that come after this one, if there are any: more than one may be free to run now.
pub fn release_followers(id: i64) {
    if txn::run(Durability::Deferred, || job::has_followers(id)) == Ok(true) {
        sweep();
    }
}

/// Registers workers for the jobs of this database that want some, as many as there are free slots of the server and of
/// the jobs' roles: one for each job that has none, then more.
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
