//! The pauses of a worker, between two batches. No transaction is open meanwhile.

use std::time::{Duration, Instant};

use super::setbacks::{Retry, Setbacks};
use super::walk::Walk;
use crate::catalog::job::Job;
use crate::error::Error;
use crate::pg::txn::{self, Durability};
use crate::pg::{latch, report, signal};

/// A sleeping worker is woken by a latch; this is how long it would sleep if one were lost.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// How often to look whether the horizon has moved.
const MOMENT: Duration = Duration::from_millis(1);

/// Gives other transactions a moment to end: dead versions that they may still see are in the way of
/// the next batch.
pub fn wait_for_horizon(walk: &mut Walk) {
    report::idle();
    let begun = Instant::now();
    latch::wait(MOMENT);
    walk.waited(begun.elapsed());
}

/// Sleeps before a batch is tried again. What the view shows of it is no reason to fail.
pub fn wait_to_retry(retry: Retry, error: &Error, job: &Job, walk: &mut Walk) {
    if retry.shown().is_some() {
        if let Err(untold) = walk.tell(retry) {
            report::log(&format!("backfill {}: {untold}", job.shown()));
        }
        let seconds = retry.pause.as_secs_f64();
        report::log(&format!(
            "backfill {}: try {} of a batch failed, next in {seconds:.1} s: {error}",
            job.shown(),
            retry.tries,
        ));
    }
    sleep(retry.pause, job, walk);
}

/// The same where no slice is held: true if it may be tried again, after a sleep.
pub fn waited_to_retry(error: &Error, setbacks: &mut Setbacks) -> bool {
    let retry = setbacks.failed(error);
    if let Some(retry) = retry {
        report::idle();
        latch::wait(retry.pause);
    }
    retry.is_some()
}

/// Sleeps between two batches; ends at once when something about the job has changed.
pub fn sleep(pause: Duration, job: &Job, walk: &Walk) {
    if pause.is_zero() {
        return;
    }
    report::idle();
    let deadline = Instant::now() + pause;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        latch::wait(left.min(LONGEST_NAP));
        if Instant::now() >= deadline || signal::reload_if_asked() {
            return;
        }
        let version = txn::run(Durability::Deferred, || walk.versions.read(job.id));
        if version != Ok(Some(job.version)) {
            return;
        }
    }
}
