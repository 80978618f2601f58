//! What a job is, apart from any server: its states, options and progress.

pub mod announcement;
pub mod bounds;
pub mod bucket;
pub mod choice;
pub mod heartbeat;
pub mod lag;
pub mod names;
mod option;
pub mod options;
pub mod progress;
pub mod purpose;
pub mod quantity;
pub mod reader;
pub mod retry;
pub mod signal;
pub mod sizer;
pub mod spacing;
pub mod standing;
pub mod state;
pub mod stored;
pub mod throttles;
pub mod timing;
pub mod window;
