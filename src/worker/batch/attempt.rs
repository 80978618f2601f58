//! What a batch is about, for when it fails.

use crate::pg::heap::Tid;
use crate::scan::position::Key;
use crate::store::leftover::Leftover;

/// What a batch is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// Keys after the position's, up to this one.
    Keys(Key),
    /// The same, to be read only.
    ReadKeys(Key),
    /// Keys of the present pass, up to this one.
    Wave(Key),
    /// Pages, from the first to before the second.
    Pages(i64, i64),
    /// The same, to be read only.
    ReadPages(i64, i64),
    /// One row, by its place.
    Place(Tid),
    /// One row of those that were left for the end of the slice.
    Row(Leftover),
}
