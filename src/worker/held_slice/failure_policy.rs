//! The reaction to a failed batch, other than letting the job fail.

use crate::error::{Error, Signal};
use crate::model::retry;
use crate::worker::batch::failures::{Retry, Split};
use crate::worker::held_slice::{Course, Walk};

/// The reaction to a batch that failed.
#[derive(Debug, Clone, Copy)]
pub enum Recourse {
    /// Try it again at once.
    Again,
    /// Try it again after a pause.
    Later(Retry),
    /// Leave the slice, since another worker has it.
    NextSlice,
    /// Walk the table by key: it cannot be walked in physical order.
    ByKey,
    /// Walk the table by key, since one of the rows fails in physical order: by key it can be found and stepped over.
    FindByKey,
    /// Step over the row that the batch was about.
    StepOver,
    /// Let the job fail.
    None,
}

/// Chooses the reaction to this error.
pub fn of(error: &Error, walk: &mut Walk) -> Recourse {
    let in_pages = matches!(walk.course, Course::Pages(_));
    match error.signal {
        Some(Signal::Fenced) => return Recourse::NextSlice,
        Some(Signal::Disproved) if in_pages => return Recourse::ByKey,
        _ => {}
    }
    if let Some(retry) = walk.setbacks.failed(error) {
        return Recourse::Later(retry);
    }
    if walk.distrust_places() {
        return Recourse::Again;
    }
    if walk.read_less() {
        return Recourse::Again;
    }
    if !retry::may_be_of_a_row(&error.sqlstate) {
        return Recourse::None;
    }
    match walk.setbacks.split() {
        Split::Halved => Recourse::Again,
        _ if in_pages => Recourse::FindByKey,
        Split::OneRow => Recourse::StepOver,
        Split::Useless => Recourse::None,
    }
}
