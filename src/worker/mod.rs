//! What runs in the background: the workers of running jobs, and the launcher that starts them again.

mod batch;
mod ending;
mod entry;
mod keys;
mod launcher;
mod listed;
mod pace;
mod pages;
mod passes;
mod permission;
mod plans;
mod recourse;
mod run;
mod session;
mod setbacks;
mod statement;
mod step;
mod survey;
mod tactics;
mod takeover;
mod target;
mod upkeep;
mod walk;
