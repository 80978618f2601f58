//! The parts of a batch: its input, the rows it is about, its statements, and its failures.

pub mod attempt;
pub mod attributes;
pub mod failures;
pub mod statement;
pub mod step;
pub mod target;
