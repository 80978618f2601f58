//! The answering side: a background worker that is connected as the owner, runs one errand, and ends.

use pgrx::pg_sys::Datum;
use serde_json::Value;

use super::errand::{Errand, unreadable};
use super::{Answer, Question};
use crate::error::{Error, Result};
use crate::pg::channel::{LONGEST_ANSWER, Task};
use crate::pg::{bgworker, owner_session, report, settings, signal, txn};

/// How long a checker waits for a lock, in milliseconds. Who asked may be the one that holds it.
const LOCK_TIMEOUT: &str = "5000";

/// The life of a checker. `dispatch` runs the errand with a name, and gives the answer.
///
/// # Safety
/// `argument` must be the one that the worker's main function was called with, and this the first call in it.
#[allow(unsafe_code)]
pub unsafe fn main(argument: Datum, dispatch: impl FnOnce(&str, Value) -> Result<Value>) {
    signal::install();
    // SAFETY: the caller's promise.
    let task = match unsafe { Task::take_up(argument) } {
        Ok(Some(task)) => task,
        Ok(None) => return,
        Err(error) => return report::log(&format!("backfill checker: {error}")),
    };
    owner_session::connect(bgworker::my_start());
    let (result, said) = report::collecting(|| {
        txn::run_undone(|| {
            settings::set_trusted_local(c"session_replication_role", c"origin");
            settings::set_text_for_transaction(c"lock_timeout", LOCK_TIMEOUT);
            let question: Question<Value> =
                serde_json::from_slice(&task.question).map_err(unreadable)?;
            dispatch(&question.name, question.errand)
        })
    });
    task.answer(&encoded(Answer { result, said }));
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

/// Runs an errand of this kind.
pub fn run<E: Errand>(errand: Value) -> Result<Value> {
    let errand: E = serde_json::from_value(errand).map_err(unreadable)?;
    serde_json::to_value(errand.run()?).map_err(unreadable)
}
