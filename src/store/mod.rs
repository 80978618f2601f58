//! The extension's own tables: the only place where their SQL is written.
//!
//! Every function here acts with the rights of the extension's owner and expects to be called within `spi::connect`.

pub mod approval;
pub mod checkpoint;
pub mod event;
pub mod extension;
pub mod failed_row;
pub mod heartbeat;
pub mod holder;
pub mod job;
pub mod left_out;
pub mod leftover;
pub mod on_end;
pub mod origin;
pub mod outcome;
pub mod region;
pub mod rights;
pub mod sample;
pub mod setback;
pub mod slice;
pub mod tally;
pub mod text_bound;
pub mod trial;
pub mod verify_failure;
pub mod version;
pub mod walk;
