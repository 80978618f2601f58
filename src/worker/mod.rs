//! The background processes: the workers of running jobs, and the launcher that restarts them. README.md beside this
//! file describes the life of a worker.

mod batch;
mod by_key;
mod by_page;
mod cut_slices;
mod dispatch;
mod entry;
mod held_slice;
mod hints;
mod job;
mod launcher;
mod look;
mod main;
mod patience;
mod session;
mod throttle;
mod wave_policy;
