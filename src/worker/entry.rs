//! The functions that the postmaster starts.
#![allow(unsafe_code)]

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

use super::{launcher, run};

/// A worker for the job whose id is the argument.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_worker_main(argument: Datum) {
    run::main(argument.value() as i64);
}

/// The launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_launcher_main(_argument: Datum) {
    launcher::main(unsafe { pg_sys::MyProcPid });
}

/// Looks through the database whose OID is the argument for jobs without a worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_sweeper_main(argument: Datum) {
    launcher::sweep(Oid::from(argument.value() as u32));
}
