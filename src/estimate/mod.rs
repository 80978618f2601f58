//! What a run will take: time, WAL and room, from what is known of the table and of a few rows. Nothing here needs a server.

pub mod forecast;
pub mod toast;
