//! The functions that the postmaster starts. It finds them by their names, which no other library uses.
#![allow(unsafe_code)]

use pgrx::pg_sys::{Datum, Oid};
use pgrx::prelude::*;

use crate::pg::server;
use crate::worker::{launcher, main};

/// Runs a worker for the job whose id is the argument.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_worker_main(argument: Datum) {
    main::main(argument.value() as i64);
}

/// Runs the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_launcher_main(_argument: Datum) {
    launcher::main(server::pid());
}

/// Sweeps the database whose OID is the argument for jobs without a worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_sweeper_main(argument: Datum) {
    launcher::sweep(Oid::from(argument.value() as u32));
}
