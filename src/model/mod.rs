//! The definition, options, states and progress of a job. Nothing here needs a server.

pub mod announcement;
pub mod bounds;
pub mod choice;
pub mod fate;
pub mod heartbeat;
pub mod names;
mod option;
pub mod options;
pub mod progress;
pub mod retry;
pub mod row_lock;
pub mod spacing;
pub mod standing;
pub mod state;
pub mod stored;
pub mod timing;
