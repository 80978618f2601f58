//! The pauses of a worker between two batches. No transaction is open meanwhile.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::pg::txn::{self, Durability};
use crate::pg::{latch, report, signal};
use crate::store::job::{self, Job};
use crate::store::setback;
use crate::throttle::signals::Signal;
use crate::worker::batch::failures::{Retry, Setbacks};
use crate::worker::dispatch;
use crate::worker::held_slice::Walk;
use crate::worker::throttle::RECOUNT;

/// Longest sleep without a look. A latch wakes the worker; this limits the delay if a wake-up is lost.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// Time between two checks whether the horizon has moved.
const MOMENT: Duration = Duration::from_millis(1);

/// Gives other transactions a moment to end: dead versions that they may still see are in the way of the next batch.
pub fn wait_for_horizon(walk: &mut Walk) {
    report::idle();
    let begun = Instant::now();
    latch::wait(MOMENT);
    walk.waited(begun.elapsed());
    let spent = &mut walk.learned.throttle.spent;
    spent.wait(Signal::Horizon, begun.elapsed());
}

/// Sleeps before a batch is tried again. Errors in showing the wait in the view are logged and ignored.
pub fn wait_to_retry(retry: Retry, error: &Error, job: &Job, walk: &mut Walk) {
    if let Some(what) = retry.shown()
        && let Err(untold) = walk.tell(retry)
    {
        // The slice's checkpoint may be what is locked.
        let told = txn::run(Durability::Deferred, || {
            setback::tell(job.id, &what, retry.pause)
        });
        match told {
            Ok(()) => walk.setbacks.told = true,
            Err(_) => report::log(&format!("backfill {}: {untold}", job.logged())),
        }
    }
    log_retry(retry, "of a batch", error, job);
    walk.learned.throttle.pausing = Some(Signal::Retry);
    rest(retry.pause, job, walk);
    walk.learned.throttle.pausing = None;
}

fn log_retry(retry: Retry, what: &str, error: &Error, job: &Job) {
    if retry.logged() {
        let seconds = retry.pause.as_secs_f64();
        report::log(&format!(
            "backfill {}: try {} {what} failed, next in {seconds:.1} s: {error}",
            job.logged(),
            retry.tries,
        ));
    }
}

/// Like [`wait_to_retry`], where no slice is held. Returns true after the sleep if it may be tried again.
pub fn waited_to_retry(job: &Job, error: &Error, setbacks: &mut Setbacks) -> bool {
    let Some(retry) = setbacks.failed(error) else {
        return false;
    };
    if let Some(what) = retry.shown() {
        let told = txn::run(Durability::Deferred, || {
            setback::tell(job.id, &what, retry.pause)
        });
        match told {
            Ok(()) => setbacks.told = true,
            Err(untold) => report::log(&format!("backfill {}: {untold}", job.logged())),
        }
    }
    log_retry(retry, "to take the next rows", error, job);
    nap(retry.pause, || {
        let now = txn::run(Durability::Deferred, || job::load(job.id));
        now.is_ok_and(|now| now.is_some_and(|now| now.version == job.version))
    });
    true
}

/// Clears the reported reason for waiting, once a batch has worked.
pub fn batch_got_on(job: &Job, walk: &mut Walk) {
    if std::mem::take(&mut walk.setbacks.told) {
        let cleared = txn::run(Durability::Deferred, || setback::go_on(job.id));
        if let Err(error) = cleared {
            report::log(&format!("backfill {}: {error}", job.logged()));
        }
    }
}

/// Clears the reported reason for waiting and forgets the failures.
pub fn got_on(job: &Job, setbacks: &mut Setbacks) {
    if setbacks.told {
        let cleared = txn::run(Durability::Deferred, || {
            setback::clear(job.id, &job.workers)
        });
        if let Err(error) = cleared {
            report::log(&format!("backfill {}: {error}", job.logged()));
        }
    }
    *setbacks = Setbacks::default();
}

/// Sleeps after a batch that has worked; returns true if something about the job, or the server's settings, has changed
/// meanwhile. The time of a long sleep is counted while it lasts.
pub fn rest(pause: Duration, job: &Job, walk: &mut Walk) -> bool {
    let deadline = Instant::now() + pause;
    loop {
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        // A wake-up may have been lost, so this looks before each further part of a long sleep.
        let changed =
            sleep(left.min(RECOUNT), job, walk) || left > RECOUNT && has_changed(job, walk);
        walk.learned.throttle.paused(begun.elapsed());
        if changed {
            // The bounds may have changed.
            walk.learned.throttle.look_again();
        }
        if changed || left <= RECOUNT {
            return changed;
        }
        walk.recount(job);
    }
}

/// True if something about the job, or the server's settings, has changed.
pub fn has_changed(job: &Job, walk: &Walk) -> bool {
    signal::reload_if_asked() || !is_unchanged(job, walk)
}

fn is_unchanged(job: &Job, walk: &Walk) -> bool {
    let version = txn::run(Durability::Deferred, || walk.versions.read(job.id));
    version == Ok(Some(job.version))
}

/// Sleeps between two batches. Ends early, and returns true, if something about the job or the server's settings
/// changes.
pub fn sleep(pause: Duration, job: &Job, walk: &Walk) -> bool {
    nap(pause, || is_unchanged(job, walk))
}

fn nap(pause: Duration, unchanged: impl Fn() -> bool) -> bool {
    if pause.is_zero() {
        return false;
    }
    if signal::reload_if_asked() {
        return true;
    }
    report::idle();
    let deadline = Instant::now() + pause;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let overslept = latch::wait(left.min(LONGEST_NAP));
        if Instant::now() >= deadline {
            return false;
        }
        if signal::reload_if_asked() || !unchanged() {
            return true;
        }
        if !overslept {
            // Woken, but not because of this job: a worker has ended and found no process for the next job.
            dispatch::sweep();
        }
    }
}
