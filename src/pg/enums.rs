//! Labels of enums. A key is stored as a label, and that label may come to mean another value.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::server;
use super::spi::{self, Arg};
use crate::error::Result;

/// The enum types among the given types or contained in them, with their labels in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enums {
    types: Vec<Oid>,
    /// Labels of all these enums, each with the OID of its value. A value keeps its OID when it is renamed.
    pub labels: Vec<(Oid, String)>,
}

/// Query for the labels of enums. It looks into arrays, domains, ranges and composite types.
const LABELS: &str = "
WITH RECURSIVE within (oid) AS (
    SELECT k.oid::pg_catalog.oid FROM pg_catalog.unnest($1) AS k (oid)
    UNION
    SELECT x.oid FROM within w JOIN pg_catalog.pg_type t ON t.oid = w.oid CROSS JOIN LATERAL (
        SELECT t.typelem UNION ALL SELECT t.typbasetype
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
    ) AS x (oid) WHERE x.oid <> 0
)
SELECT e.enumtypid::bigint, e.oid::bigint, e.enumlabel
FROM pg_catalog.pg_enum e JOIN within ON within.oid = e.enumtypid
ORDER BY e.enumtypid, e.enumsortorder";

/// Finds the enums in `types`, and locks their labels until the transaction ends. Within `spi::connect`.
pub fn lock(types: impl IntoIterator<Item = u32>) -> Result<Enums> {
    let of_users = |oid: &u32| *oid >= pg_sys::FirstNormalObjectId;
    let oids: Vec<String> = types
        .into_iter()
        .filter(of_users)
        .map(|oid| oid.to_string())
        .collect();
    if oids.is_empty() {
        return Ok(Enums::default());
    }
    let found = find(&oids)?;
    if found.types.is_empty() {
        return Ok(found);
    }
    found.keep();
    // The labels may have changed during the wait for the lock.
    find(&oids)
}

fn find(oids: &[String]) -> Result<Enums> {
    let rows = as_extension(|| spi::kept(LABELS, &[Arg::Texts(oids)]))?.rows;
    let mut found = Enums::default();
    for row in &rows {
        let of = Oid::from(row.number(0)? as u32);
        if found.types.last() != Some(&of) {
            found.types.push(of);
        }
        let oid = Oid::from(row.number(1)? as u32);
        found.labels.push((oid, row.text(2)?.to_owned()));
    }
    Ok(found)
}

impl Enums {
    /// Locks the labels until the transaction ends: waits for an ALTER TYPE in progress, and makes later ones wait.
    pub fn keep(&self) {
        server::require_transaction();
        for of in &self.types {
            // SAFETY: within a transaction any OID will do. The mode conflicts with that of ALTER TYPE, not with itself.
            unsafe {
                let mode = pg_sys::RowShareLock as i32;
                pg_sys::LockDatabaseObject(pg_sys::TypeRelationId, *of, 0, mode);
            }
        }
    }
}
