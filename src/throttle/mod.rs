//! What a job gives way to: the signals, their bounds, and how long to wait. Nothing here needs a server; the worker's probes read
//! the signals.

pub mod bucket;
pub mod lag;
pub mod limits;
pub mod quantity;
pub mod signal;
pub mod window;
