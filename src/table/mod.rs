//! What the server's catalogs say of a table, in the words of `scan`.

pub mod index;
pub mod walked;
