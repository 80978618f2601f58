//! Estimates what a run will take (time, WAL and space) from facts about the table and from a few rows. Nothing here needs a server.

pub mod forecast;
pub mod toast;
