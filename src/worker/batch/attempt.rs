//! The rows that a batch is about, remembered in case it fails.

use crate::pg::tid::Tid;
use crate::scan::position::Key;
use crate::store::leftover::Leftover;

/// The rows that a batch is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// Keys after the position's, up to this one.
    Keys(Key),
    /// Like `Keys`, but the rows are only read.
    ReadKeys(Key),
    /// Keys of the present pass, up to this one.
    Wave(Key),
    /// Pages, from the first number to before the second.
    Pages(i64, i64),
    /// Like `Pages`, but the rows are only read.
    ReadPages(i64, i64),
    /// One row, by its place.
    Place(Tid),
    /// One row of those that were left for the end of the slice.
    Row(Leftover),
}
