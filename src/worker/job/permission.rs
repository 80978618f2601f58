//! The check whether a worker may go on with its job, and with which pace and settings.

use crate::error::Result;
use crate::guc;
use crate::model::state::State;
use crate::pg::settings::Pins;
use crate::pg::txn::{self, Durability};
use crate::pg::{owner_session, server, signal};
use crate::store::extension;
use crate::store::job::{self, Job};
use crate::worker::job::stop_reason::Ending;
use crate::worker::session;

/// Checks, between two batches, whether the job may go on; updates its pace and settings.
pub fn permission(job: &mut Job, pins: &mut Pins, changed: bool) -> Result<Option<Ending>> {
    signal::reload_if_asked();
    if !guc::ENABLED.get() {
        return Ok(Some(Ending::Disabled));
    }
    if changed {
        let now = txn::run(Durability::Deferred, || {
            // ALTER EXTENSION ... UPDATE changes all jobs, so their workers come here.
            extension::check_version()?;
            job::load(job.id)
        });
        let Some(now) = now? else {
            return Ok(Some(Ending::Gone));
        };
        if let Some(ending) = unwanted(&now) {
            return Ok(Some(ending));
        }
        if now.version != job.version {
            *pins = txn::run(Durability::Deferred, || session::pins(&now))?;
        }
        *job = now;
    }
    owner_session::clear(job.definition.options.settings.contains_key("seed"))?;
    if !pins.hold() {
        txn::run_setting(|| {
            pins.apply();
            Ok(())
        })?;
    }
    Ok(None)
}

/// Returns the ending that the job's state asks for, if this worker should not go on.
pub fn unwanted(job: &Job) -> Option<Ending> {
    match job.state() {
        State::Running if is_surplus(job) => Some(Ending::Left),
        State::Running => None,
        State::Pausing => Some(Ending::Paused),
        State::Cancelling => Some(Ending::Cancelled),
        _ => Some(Ending::Gone),
    }
}

/// True if the job has more workers than it wants now, and this one is among those that go. All workers come to the
/// same answer.
fn is_surplus(job: &Job) -> bool {
    let me = server::pid();
    let rank = job.workers.iter().filter(|pid| **pid < me).count();
    rank as i32 >= job.definition.options.workers()
}
