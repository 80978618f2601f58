//! Waiting while a signal is over its bound. No transaction is open meanwhile.

use std::time::Instant;

use crate::pg::slots;
use crate::store::job::Job;
use crate::worker::dispatch;
use crate::worker::held_slice::{Walk, pace};
use crate::worker::throttle::LOOK;

/// The result of a look at the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// No look was needed: the last one is recent enough.
    Fresh,
    /// The job may go on. The owner's query may have been run, and may have changed the session.
    Taken,
    /// Something about the job has changed meanwhile.
    Changed,
    /// The job still waits, and another job has no worker slot.
    Behind,
}

/// Waits while a signal is over its bound.
pub fn wait(walk: &mut Walk, job: &Job) -> Look {
    if walk.learned.throttle.is_fresh() {
        return Look::Fresh;
    }
    loop {
        // The owner's query, or an error in it, may have released the slot; without a slot the query is not run again.
        if !slots::are_held() {
            return Look::Changed;
        }
        let throttle = &mut walk.learned.throttle;
        let Some(first) = throttle.look(job, walk.slice.relation) else {
            throttle.go_on(job);
            return Look::Taken;
        };
        throttle.tell(job);
        if throttle.is_count_due() {
            walk.recount(job);
            if walk.learned.throttle.may_leave(first) && dispatch::others_could_run(job) {
                return Look::Behind;
            }
        }
        let begun = Instant::now();
        let changed = pace::sleep(LOOK, job, walk);
        walk.learned.throttle.waited(first, begun.elapsed());
        // A change during the look itself has woken nobody.
        if changed || pace::has_changed(job, walk) {
            // The bounds may have changed.
            walk.learned.throttle.look_again();
            return Look::Changed;
        }
    }
}
