//! Everything that touches PostgreSQL's C interface; the one place where `unsafe` is allowed.
#![allow(unsafe_code)]

pub mod arg;
pub mod bgworker;
pub mod capture;
pub mod clauses;
pub mod databases;
pub mod elevate;
pub mod extension;
pub mod heap;
pub mod horizon;
pub mod hot;
pub mod index;
pub mod keylist;
pub mod latch;
pub mod lock;
pub mod maintenance;
pub mod notify;
pub mod partition;
pub mod physical;
pub mod planner;
pub mod relation;
pub mod report;
pub mod role;
pub mod server;
pub mod settings;
pub mod signal;
pub mod slots;
pub mod spi;
pub mod text;
pub mod timeout;
pub mod triggers;
pub mod txn;
pub mod waiters;
pub mod wal;
pub mod xact;
