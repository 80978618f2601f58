//! What a job is, apart from any server: its states, options and progress.

#[allow(dead_code, reason = "not all of it is obeyed yet")]
pub mod options;
pub mod progress;
pub mod state;
