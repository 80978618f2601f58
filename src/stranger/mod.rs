//! The only door for text that belongs to a role other than the caller.
//!
//! A clause of another role's is never parsed, analysed, planned, converted or run in the caller's session: the session
//! may have more rights than the clause's author. It goes to a short-lived background worker that is connected as its
//! author, and text comes back. See README.md beside this file.

pub mod ask;
mod blocked;
pub mod errand;
mod place;
pub mod serve;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::pg::report::Said;

/// The message that a checker sends back.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Result of the errand.
    result: Result<Value, Error>,
    /// Notices and warnings for the caller.
    said: Vec<Said>,
}

/// The message that a checker is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Question<T> {
    /// Name of the errand, see [`errand::Errand::NAME`].
    name: String,
    /// Numbers of the places it was asked from: of the owner, of the asking role, of the server.
    places: [u32; 3],
    /// The role that is logged in where the question was asked.
    asks: u32,
    /// The errand itself.
    errand: T,
}

/// Returns the error for a message that the other side cannot have sent.
fn unreadable(error: serde_json::Error) -> Error {
    Error::internal(format!("what a checker says cannot be read: {error}"))
}
