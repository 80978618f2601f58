//! Options whose value is one of a few words.

use serde::{Deserialize, Serialize};

/// Whether the rows of a region are dealt out to waves (option `strategy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Waves where they pay.
    #[default]
    Auto,
    /// Several passes over each region; each pass takes a part of the rows of each page.
    Waves,
    /// A single pass.
    Sequential,
}

/// The order of the walk (option `walk`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Walk {
    /// Chosen from what is known of the table.
    #[default]
    Auto,
    /// The order of a unique key.
    Key,
    /// The order of the table's blocks.
    Physical,
}

/// The treatment of rows that other transactions have locked (option `locked_rows`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockedRows {
    /// The batch waits up to `lock_timeout_ms` for them, then is rolled back and tried again.
    #[default]
    Wait,
    /// The batch leaves them for the end of the slice.
    Skip,
}

/// Whether the table's triggers fire (option `triggers`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Triggers {
    /// Triggers fire as for any UPDATE.
    #[default]
    Fire,
    /// Only ENABLE REPLICA and ENABLE ALWAYS triggers fire.
    Skip,
}

/// The state a job takes once every row between its bounds is done (option `at_bounds`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtBounds {
    /// The job pauses, so that the bounds can be widened.
    #[default]
    Pause,
    /// The job completes: it was about that part of the table only.
    Complete,
}
