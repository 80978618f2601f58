//! The line in the server log that reports the job's progress from time to time.

use std::time::{Duration, Instant};

use crate::guc;
use crate::pg::txn::{self, Durability};
use crate::pg::{report, server};
use crate::store::heartbeat;
use crate::store::job::{self, Job};

/// Time of this worker's last line; at first, the time of its first call.
#[derive(Debug, Default)]
pub struct Heartbeat(Option<Instant>);

impl Heartbeat {
    /// Logs the progress of the job if it is time, and if this worker is the one to do so: of several, the one with the
    /// lowest process id. Errors are logged and otherwise ignored.
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
