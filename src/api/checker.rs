//! The errands that a checker can run: those of the calls, by name.
#![allow(unsafe_code)]

use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use super::{changed, not_null, plan, preview, reapply, redefine, rehearse, verify};
use crate::store::extension;
use crate::stranger::serve::{self, Entry, entry};

/// One entry for each kind of errand.
const ERRANDS: &[Entry] = &[
    entry::<plan::PlanOf>(),
    entry::<preview::PreviewOf>(),
    entry::<rehearse::RehearsalOf>(),
    entry::<verify::VerificationOf>(),
    entry::<reapply::ConditionsOf>(),
    entry::<changed::ChangesOf>(),
    entry::<redefine::RedefinitionOf>(),
    entry::<not_null::Step>(),
];

/// Runs a checker: looks at text of the role that it is connected as, for another role. The argument is a handle of
/// shared memory.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_checker_main(argument: Datum) {
    // SAFETY: it is the argument that the postmaster started this process with, and nothing else has been called
    // before.
    unsafe { serve::main(argument, ERRANDS, extension::check_version) };
}
