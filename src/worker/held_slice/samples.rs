//! Samples of a job; each is taken by one of its workers.

use std::time::{Duration, Instant};

use crate::pg::lock::Lock;
use crate::pg::report;
use crate::pg::txn::{self, Durability};
use crate::store::job::Job;
use crate::store::sample;

/// Time between two checks whether a sample is due: samples are at least ten seconds apart.
const LOOK: Duration = Duration::from_secs(5);

/// When this worker last looked.
#[derive(Debug, Default)]
pub struct Sampler(Option<Instant>);

impl Sampler {
    /// Takes a sample if one is due. Errors are logged and otherwise ignored.
    pub fn sample(&mut self, job: &Job, lag_bytes: Option<u64>) {
        if self.0.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.0 = Some(Instant::now());
        let due = txn::run(Durability::Deferred, || sample::is_due(job.id));
        if due != Ok(false) {
            take(job, lag_bytes);
        }
    }
}

/// Takes a sample now. Errors are logged and otherwise ignored.
pub fn take(job: &Job, lag_bytes: Option<u64>) {
    let taken = txn::run_after(
        || Lock::Council(job.id).for_transaction(),
        Durability::Deferred,
        || sample::take(job.id, lag_bytes),
    );
    if let Err(error) = taken {
        report::log(&format!("backfill {}: no sample: {error}", job.logged()));
    }
}
