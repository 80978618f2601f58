//! The only door for text that belongs to a role other than the caller.
//!
//! A clause of another role's is never parsed, analysed, planned, converted or run in the caller's session:
//! the session may have more rights than its author. It goes to a short-lived background worker that is
//! connected as its author, and text comes back. See README.md beside this file.

pub mod ask;
mod blocked;
pub mod errand;
mod place;
pub mod serve;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::pg::report::Said;

/// What a checker sends back.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// What came of the errand.
    result: Result<Value, Error>,
    /// Notices and warnings for the caller.
    said: Vec<Said>,
}

/// What a checker is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Question<T> {
    /// Which errand, see [`errand::Errand::NAME`].
    name: String,
    /// The numbers of the places that it was asked from: of the owner, of whoever asks, of the server.
    places: [u32; 3],
    /// The role that is logged in where it was asked.
    asks: u32,
    /// The errand itself.
    errand: T,
}
