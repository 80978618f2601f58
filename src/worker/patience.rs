//! Waiting for the extension's own tables while somebody has locked them.

use std::time::Duration;

use crate::error::{Result, sqlstate};
use crate::guc;
use crate::model::retry;
use crate::pg::{latch, report};
use crate::worker::batch::failures::jitter;

/// Number of times a worker tries. With pauses of two seconds at most, and a wait of one second in each, that is about
/// ten minutes; then the job is left to the launcher, or to `backfill.resume`.
const TRIES: u32 = 250;

/// Runs `f`, again and again while it fails because of a lock.
pub fn patiently<T>(what: &str, mut f: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        let error = match f() {
            Err(error) if error.sqlstate == sqlstate::LOCK_NOT_AVAILABLE => error,
            other => return other,
        };
        tries += 1;
        let pause = retry::rule(&error.sqlstate).and_then(|rule| rule.pause(tries, jitter(tries)));
        let Some(pause) = pause.filter(|_| tries <= TRIES && guc::ENABLED.get()) else {
            return Err(error);
        };
        if tries.is_power_of_two() {
            report::log(&format!("backfill: {what}: try {tries} failed: {error}"));
        }
        latch::wait(pause.max(Duration::from_millis(20)));
    }
}
