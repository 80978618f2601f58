//! Selects the rows of a batch: the key, the order of the scan, where it is cut, its position, and the statements that select rows.
//! Nothing here needs a server.

pub mod attributes;
mod by_ctid;
mod by_key_list;
pub mod clause;
pub mod cut;
pub mod key;
pub mod order;
pub mod position;
pub mod reader;
pub mod sizer;
pub mod sql;
pub mod weight;
