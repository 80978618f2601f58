//! The answering side: a background worker that is connected as the owner, runs one errand, and ends.

use pgrx::pg_sys::Datum;
use serde_json::Value;

use super::errand::Errand;
use super::place::Place;
use super::{Answer, Question, unreadable};
use crate::error::{Error, Result};
use crate::pg::channel::{LONGEST_ANSWER, Task};
use crate::pg::txn::{self, Durability};
use crate::pg::{bgworker, owner_session, report, settings, signal};

/// Milliseconds a checker waits for a lock: the asking session may be the one that holds it.
const LOCK_TIMEOUT: &str = "5000";

/// A kind of errand that a checker can run.
pub struct Entry {
    /// See [`Errand::NAME`].
    pub name: &'static str,
    /// See [`Errand::KEPT`].
    kept: bool,
    run: fn(Value) -> Result<Value>,
}

/// Returns the entry for a kind of errand.
pub const fn entry<E: Errand>() -> Entry {
    Entry {
        name: E::NAME,
        kept: E::KEPT,
        run: run::<E>,
    }
}

/// Runs a checker from start to end. `known` are the errands it can run, and `check` is called before each.
///
/// # Safety
/// `argument` must be the one that the worker's main function was called with, and this the first call in it.
#[allow(unsafe_code)]
pub unsafe fn main(argument: Datum, known: &[Entry], check: fn() -> Result<()>) {
    signal::install();
    // SAFETY: the caller's promise.
    let task = match unsafe { Task::take_up(argument) } {
        Ok(Some(task)) => task,
        Ok(None) => return,
        Err(error) => return report::log(&format!("backfill checker: {error}")),
    };
    owner_session::connect(bgworker::my_start());
    let (result, said) = report::collecting(|| look(&task.question, known, check));
    task.answer(&encoded(Answer { result, said }));
}

fn look(question: &[u8], known: &[Entry], check: fn() -> Result<()>) -> Result<Value> {
    let question: Question<Value> = serde_json::from_slice(question).map_err(unreadable)?;
    let places = Place::of_question(&question, bgworker::my_start().owner.to_u32());
    let name = question.name;
    let entry = known.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| Error::internal(format!("no errand is called {name}")))?;
    let run = || {
        if !places.into_iter().all(Place::work) {
            return Err(Error::internal("another checker is at this place"));
        }
        check()?;
        (entry.run)(question.errand)
    };
    let limits = || {
        settings::set_trusted_for_transaction(c"session_replication_role", c"origin");
        settings::set_text_for_transaction(c"lock_timeout", LOCK_TIMEOUT);
    };
    match entry.kept {
        true => txn::run_after(limits, Durability::Immediate, run),
        false => txn::run_undone(limits, run),
    }
}

fn encoded(answer: Answer) -> Vec<u8> {
    match serde_json::to_vec(&answer) {
        Ok(text) if text.len() <= LONGEST_ANSWER => text,
        _ => {
            let error = Error::internal("an answer is too long, or has no form in JSON");
            let answer = Answer {
                result: Err(error.hint("Ask for fewer rows.")),
                said: Vec::new(),
            };
            serde_json::to_vec(&answer).unwrap_or_default()
        }
    }
}

fn run<E: Errand>(errand: Value) -> Result<Value> {
    let errand: E = serde_json::from_value(errand).map_err(unreadable)?;
    serde_json::to_value(errand.run()?).map_err(unreadable)
}
