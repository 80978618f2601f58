//! Everything that touches PostgreSQL's C interface; the only place where `unsafe` is allowed.
//!
//! The files are in layers, and import only from their own layer, without a cycle, and from those below:
//!
//! 1. PostgreSQL's functions and variables, wrapped, without a statement: `server`, `text`, `name`, `memory`, `capture`,
//!    `subtransaction`, `settings`, `read_only`, `lock`, and others.
//! 2. Whose rights are in force, and whose text may be looked at: `extension`, `intact`, `elevate`, `trusted`, `confine`.
//! 3. Values on their way into statements and out of them: `tid`, `row`, `keylist`, `arg`.
//! 4. Statements, and the transactions of a worker: `spi`, `txn`.
//! 5. What looks at catalogs, tables and clauses: `relation`, `partition`, `heap`, `clauses`, `evaluate`, `role`, and others.
#![allow(unsafe_code)]

pub mod alloc;
pub mod arg;
pub mod batch;
pub mod bgworker;
pub mod capture;
pub mod channel;
pub mod clauses;
pub mod confine;
pub mod conjuncts;
pub mod databases;
pub mod elevate;
pub mod elsewhere;
pub mod enums;
pub mod evaluate;
pub mod extension;
mod flag;
pub mod given;
pub mod guard;
pub mod hazards;
pub mod heap;
pub mod horizon;
pub mod hot;
pub mod intact;
pub mod keylist;
pub mod latch;
mod list;
pub mod lock;
pub mod maintenance;
mod memory;
pub mod name;
pub mod notify;
mod object_access;
mod open;
pub mod owner_session;
pub mod partition;
pub mod parts;
pub mod patience;
pub mod physical;
pub mod planner;
pub mod read_only;
pub mod relation;
pub mod repeat;
pub mod report;
pub mod role;
mod row;
mod scan;
pub mod schemas;
pub mod seal;
pub mod search_path;
pub mod server;
pub mod settings;
pub mod signal;
pub mod slots;
pub mod spi;
mod subtransaction;
pub mod superuser_jobs;
pub mod text;
pub mod tid;
pub mod timeout;
pub mod traps;
pub mod triggers;
pub mod trusted;
pub mod txn;
pub mod typed;
pub mod visible;
pub mod waiters;
pub mod wal;
pub mod weigh;
pub mod xact;
