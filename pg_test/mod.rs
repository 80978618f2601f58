//! Tests that run inside the server, each within one transaction that is rolled back.
#![allow(unsafe_code, reason = "that is what #[pg_test] expands to")]

mod clauses;
mod confine;
mod definitions;
mod errors;
mod guards;
mod horizon;
mod hot;
mod keys;
mod partitions;
mod planner;
mod settings;
mod states;
mod support;
mod values;
