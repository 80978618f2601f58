//! The life of a job, as its workers see it: whether it may run, what follows its slices, and how it ends.

pub mod finish;
pub mod locking;
pub mod newcomers;
pub mod next_pass;
pub mod on_end;
pub mod permission;
pub mod stop_reason;
pub mod vacuum_after;
