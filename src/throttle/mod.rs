//! The signals that a job gives way to, their bounds, and how long it waits. Nothing here needs a server; the worker's
//! probes read the signals. `signals` is the table of them.

pub mod bucket;
pub mod holds;
pub mod kind;
pub mod lag;
pub mod limits;
pub mod quantity;
pub mod signals;
pub mod window;
