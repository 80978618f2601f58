//! How a job walks its table: clauses, keys, waves and the SQL of a batch. Nothing here needs a server.

pub mod attributes;
pub mod clause;
pub mod cut;
pub mod estimate;
pub mod key;
pub mod lists;
pub mod look;
pub mod order;
pub mod passes;
mod places;
pub mod position;
pub mod rests;
pub mod spread;
pub mod sql;
pub mod standalone;
pub mod toast;
pub mod trail;
pub mod waves;
