//! Check that the extension's SQL in this database and the loaded library have the same version.
//!
//! A package update replaces the library, `ALTER EXTENSION ... UPDATE` replaces the SQL, and running processes keep the
//! library they have loaded. Until all of them agree, the library must not work on the SQL objects: a checkpoint that
//! lacks a column would fail the job.

use crate::error::{Error, Result, sqlstate};
use crate::pg::extension;

/// Version of this library.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// Fails if the versions differ; the hint says what to do.
pub fn check_version() -> Result<()> {
    match extension::version() {
        Some(version) if version != LIBRARY => Err(mismatch(&version)),
        _ => Ok(()),
    }
}

fn mismatch(sql: &str) -> Error {
    let message = format!(
        "extension \"backfill\" is of version {sql} in this database, but the loaded library is of version {LIBRARY}"
    );
    let hint = if parts(sql) < parts(LIBRARY) {
        "ALTER EXTENSION backfill UPDATE;"
    } else {
        "Install the library of that version. Where it is installed, restart the server if the library is preloaded, else connect again."
    };
    Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message).hint(hint)
}

/// Splits a version into the numbers it is compared by: 0.10.0 comes after 0.9.1.
fn parts(version: &str) -> Vec<u32> {
    let number = |part: &str| part.parse().unwrap_or_default();
    version.split('.').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parts("0.9.1") < parts("0.10.0"));
        assert!(parts("0.10") < parts("0.10.0"));
        assert!(parts("1.0.0") > parts("0.99.99"));
    }

    #[test]
    fn whoever_is_older_is_told_to_follow() {
        let hint = |version: &str| mismatch(version).hint.clone().unwrap_or_default();
        assert_eq!(hint("0.0.1"), "ALTER EXTENSION backfill UPDATE;");
        assert!(hint("99.0.0").contains("restart the server"));
    }
}
