//! What a job is, apart from any server: its states, options and progress.

pub mod names;
mod option;
pub mod options;
pub mod progress;
pub mod reader;
pub mod retry;
pub mod sizer;
pub mod state;
