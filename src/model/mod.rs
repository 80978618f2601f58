//! What a job is, apart from any server: its definition, options, states and progress.

pub mod announcement;
pub mod bounds;
pub mod choice;
pub mod heartbeat;
pub mod names;
mod option;
pub mod options;
pub mod progress;
pub mod retry;
pub mod spacing;
pub mod standing;
pub mod state;
pub mod stored;
pub mod timing;
