//! What a batch is made of: what it is given, what it is about, its statements, and what has gone wrong with it.

pub mod attempt;
pub mod attributes;
pub mod failures;
pub mod statement;
pub mod step;
pub mod target;
