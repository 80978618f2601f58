//! `backfill`: changes the data of a huge, busy table in batches, inside the server.
//!
//! `api` (what users call) and `worker` (what runs in the background) meet in the tables that `store` reads and writes;
//! `model` is pure; `pg` holds everything that touches PostgreSQL's C interface. See docs/design.md.

#![deny(unsafe_code)]

use pgrx::prelude::*;

mod action;
mod api;
mod error;
mod estimate;
mod guc;
mod model;
mod pg;
mod quote;
mod report;
mod scan;
mod store;
mod stranger;
mod sync;
mod table;
mod throttle;
mod waves;
mod worker;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/tables.sql", name = "tables");
extension_sql_file!(
    "../sql/functions.sql",
    name = "functions",
    requires = ["tables"]
);
extension_sql_file!(
    "../sql/set_not_null.sql",
    name = "set_not_null",
    requires = ["functions"]
);
extension_sql_file!("../sql/guard.sql", name = "guard", requires = ["functions"]);
extension_sql_file!("../sql/views.sql", name = "views", requires = ["functions"]);
extension_sql_file!("../sql/status.sql", name = "status", requires = ["views"]);
extension_sql_file!(
    "../sql/grants.sql",
    name = "grants",
    requires = ["status", "guard", "set_not_null"]
);
extension_sql_file!("../sql/revoke.sql", name = "revoke", requires = ["grants"]);

/// Runs when the library is loaded.
#[pg_guard]
#[allow(unsafe_code)]
pub extern "C-unwind" fn _PG_init() {
    if !pg::server::preloading() {
        pg::given::refuse();
    }
    guc::register();
    pg::superuser_jobs::register();
    pg::server::reserve_settings();
    if pg::server::preloading() && !pg::server::in_binary_upgrade() {
        pg::server::note_preload();
        pg::bgworker::register_launcher();
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
mod server_tests;

/// The module that `cargo pgrx test` looks for.
#[cfg(test)]
pub mod pg_test {
    /// Does nothing: the tests need no setup.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings of the test server.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["fsync = off", "max_prepared_transactions = 5"]
    }
}
