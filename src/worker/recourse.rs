//! What a worker does about a batch that failed, other than to let the job fail.

use std::time::Duration;

use super::walk::{Course, Walk};
use crate::error::{Error, Signal, sqlstate};
use crate::pg::{latch, server};

/// How often in a row a batch is tried again after a deadlock.
const MOST_TRIES: u32 = 20;

/// What to do about a batch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recourse {
    /// Once more.
    Again,
    /// The slice is another worker's.
    NextSlice,
    /// The table can't be walked in physical order.
    ByKey,
    /// Nothing.
    None,
}

/// Batches of several workers may well deadlock, with each other or with the application, when
/// triggers write common rows: one gives way, and tries again a little later.
pub fn of(error: &Error, walk: &mut Walk, tries: &mut u32) -> Recourse {
    let in_pages = matches!(walk.course, Course::Pages(_));
    match error.signal {
        Some(Signal::Fenced) => return Recourse::NextSlice,
        Some(Signal::Disproved) if in_pages => return Recourse::ByKey,
        Some(Signal::Misplaced) => {
            walk.distrust_places();
            return Recourse::Again;
        }
        _ => {}
    }
    let collision = [sqlstate::DEADLOCK_DETECTED, sqlstate::SERIALIZATION_FAILURE];
    if collision.contains(&error.sqlstate.as_str()) && *tries < MOST_TRIES {
        *tries += 1;
        walk.collisions += 1;
        // Processes have different numbers, and each pause is another one: they won't meet for ever.
        let number = u64::from(server::pid().unsigned_abs()) + u64::from(walk.collisions) * 104_729;
        let spread = number * 7919 % 50;
        latch::wait(Duration::from_millis((10 + spread) * u64::from(*tries)));
        return Recourse::Again;
    }
    if walk.read_less() {
        return Recourse::Again;
    }
    Recourse::None
}
