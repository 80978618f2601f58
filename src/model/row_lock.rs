//! The lock that the rows of a batch get.

use serde::{Deserialize, Serialize};

/// Lock that the rows of a batch get, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowLock {
    /// None: a row may be changed or deleted while the batch runs.
    #[serde(rename = "none")]
    None,
    /// Against being deleted, and against changes of its key.
    #[serde(rename = "key share")]
    KeyShare,
    /// Against all changes.
    #[serde(rename = "share")]
    Share,
    /// Against all changes, and against other locks of this kind.
    #[serde(rename = "no key update")]
    NoKeyUpdate,
    /// Against all other locks.
    #[serde(rename = "update")]
    Update,
}

impl RowLock {
    /// Returns the clause at the end of a SELECT that takes the lock, on the rows of the table known by a name (quoted, if it has to be), or
    /// of all tables; empty if no lock is to be taken.
    pub fn clause(self, of: Option<&str>) -> String {
        let strength = match self {
            RowLock::None => return String::new(),
            RowLock::KeyShare => "KEY SHARE",
            RowLock::Share => "SHARE",
            RowLock::NoKeyUpdate => "NO KEY UPDATE",
            RowLock::Update => "UPDATE",
        };
        let of = of.map_or(String::new(), |name| format!(" OF {name}"));
        format!(" FOR {strength}{of}")
    }
}
