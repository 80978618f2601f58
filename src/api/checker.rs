//! What a checker can be asked: the errands of the calls, by their names.
#![allow(unsafe_code)]

use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use serde_json::Value;

use super::{changed, plan, preview, rehearse, verify};
use crate::catalog::extension;
use crate::error::{Error, Result};
use crate::stranger::errand::Errand;
use crate::stranger::serve::{self, run};

/// What is run for an errand.
type Run = fn(Value) -> Result<Value>;

/// One entry for each kind of errand.
const ERRANDS: &[(&str, Run)] = &[
    entry::<plan::PlanOf>(),
    entry::<preview::PreviewOf>(),
    entry::<rehearse::RehearsalOf>(),
    entry::<verify::VerificationOf>(),
    entry::<verify::ConditionsOf>(),
    entry::<changed::ChangesOf>(),
];

const fn entry<E: Errand>() -> (&'static str, Run) {
    (E::NAME, run::<E>)
}

fn dispatch(name: &str, errand: Value) -> Result<Value> {
    extension::check_version()?;
    let found = ERRANDS.iter().find(|(known, _)| *known == name);
    let (_, run) = found.ok_or_else(|| Error::internal(format!("no errand is called {name}")))?;
    run(errand)
}

/// Looks at text of the role's that it is connected as, for somebody else. The argument is a handle of shared memory.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn backfill_checker_main(argument: Datum) {
    // SAFETY: it is the argument that the postmaster has started this process with, and nothing came before.
    unsafe { serve::main(argument, dispatch) };
}
