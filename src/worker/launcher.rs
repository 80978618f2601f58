//! Takes up jobs that have no worker, in every database: after a start, a crash, a promotion, a
//! reload, and every `backfill.launcher_interval`.

use std::time::Duration;

use pgrx::pg_sys::Oid;

use super::{session, takeover};
use crate::error::Error;
use crate::guc;
use crate::pg::txn::{self, Durability};
use crate::pg::{bgworker, databases, elevate, latch, report, signal};

/// The life of the launcher.
pub fn main(pid: i32) {
    signal::install();
    bgworker::connect_to_no_database();
    loop {
        if guc::ENABLED.get() {
            sweep_all(pid);
        }
        report::idle();
        let seconds = match guc::LAUNCHER_INTERVAL.get() {
            0 => 86_400,
            n => n as u64,
        };
        while !latch::wait(Duration::from_secs(seconds)) {
            if signal::reload_if_asked() {
                break;
            }
        }
    }
}

/// One database after the other, so that a sweep never takes more than one worker slot.
fn sweep_all(pid: i32) {
    let found = txn::run_bare(|| Ok(databases::connectable()));
    let databases = found.unwrap_or_else(|error| {
        report::log(&format!("backfill launcher: {error}"));
        Vec::new()
    });
    for database in databases {
        if !bgworker::run_to_end(bgworker::sweeper(database, pid)) {
            report::log("backfill launcher: no background worker slot is free, will look again");
            return;
        }
    }
}

/// The life of a sweeper: only statements of the extension's own are run, none of a user's.
pub fn sweep(database: Oid) {
    signal::install();
    bgworker::connect(database, Oid::INVALID);
    session::limit_waits();
    let exists = txn::run(Durability::Deferred, || Ok(elevate::extension_exists()));
    if exists == Ok(true) {
        takeover::sweep();
    } else if let Err(error) = exists {
        log(&error);
    }
}

fn log(error: &Error) {
    report::log(&format!("backfill sweeper: {error}"));
}
