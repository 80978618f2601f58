//! Options that are one of a few words.

use serde::{Deserialize, Serialize};

/// Whether the rows of a region are dealt out to waves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Waves where they pay.
    #[default]
    Auto,
    /// Several passes over each region, a part of each page's rows in each.
    Waves,
    /// One pass.
    Sequential,
}

/// What orders the walk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Walk {
    /// Chosen by the table.
    #[default]
    Auto,
    /// A unique key.
    Key,
    /// The blocks of the table.
    Physical,
}

/// What a batch does about rows that others have locked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockedRows {
    /// It waits for them, as long as `lock_timeout_ms` says, and is tried again.
    #[default]
    Wait,
    /// It leaves them for the end of the slice.
    Skip,
}

/// What becomes of the table's triggers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Triggers {
    /// They fire as for any UPDATE.
    #[default]
    Fire,
    /// Only those that are ENABLE REPLICA or ALWAYS do.
    Skip,
}

/// What a job does once all is done between its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtBounds {
    /// It pauses: they may be widened.
    #[default]
    Pause,
    /// It completes, as a job on that part of the table.
    Complete,
}
