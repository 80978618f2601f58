//! Reads what the server's catalogs say about a table, in the terms of `scan`.

pub mod archive;
pub mod copied;
pub mod index;
pub mod skipped;
pub mod walked;
