//! What runs in the background: a worker per running job, and the launcher that starts them again.

mod batch;
mod entry;
mod launcher;
mod plans;
mod run;
mod session;
mod takeover;
mod walk;
