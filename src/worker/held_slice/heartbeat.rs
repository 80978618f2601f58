//! A line in the server log now and then, which says how far a job is.

use std::time::{Duration, Instant};

use crate::guc;
use crate::pg::txn::{self, Durability};
use crate::pg::{report, server};
use crate::store::heartbeat;
use crate::store::job::{self, Job};

/// When this worker was last to say something, or when it began.
#[derive(Debug, Default)]
pub struct Heartbeat(Option<Instant>);

impl Heartbeat {
    /// Says how far the job is, if it is time, and this is the worker to do so: of several, the one with
    /// the lowest process id. That it can't is no reason to fail.
    pub fn beat(&mut self, job: &Job) {
        let seconds = u64::try_from(guc::LOG_HEARTBEAT_INTERVAL.get()).unwrap_or(0);
        let since = *self.0.get_or_insert_with(Instant::now);
        if seconds == 0 || since.elapsed() < Duration::from_secs(seconds) {
            return;
        }
        self.0 = Some(Instant::now());
        let line = txn::run(Durability::Deferred, || {
            let me = server::pid();
            match job::load(job.id)? {
                Some(now) if now.workers.iter().min() == Some(&me) => heartbeat::line(job.id),
                _ => Ok(None),
            }
        });
        match line {
            Ok(Some(line)) => report::log(&format!("backfill {}: {line}", job.logged())),
            Ok(None) => {}
            Err(error) => report::log(&format!("backfill {}: {error}", job.logged())),
        }
    }
}
