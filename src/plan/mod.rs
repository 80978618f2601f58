//! How a job walks its table: clauses, keys and the SQL of a batch. Nothing here needs a server.

pub mod clause;
pub mod key;
pub mod sql;
