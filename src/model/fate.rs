//! What becomes of the rows that an action is done to.

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It gets a new version.
    Changed,
    /// It is gone.
    Removed,
    /// It stays as it is.
    Kept,
}
