//! Decides what the current user may see of rows and of other sessions, where code looks at something with more rights than the
//! user's, or beyond the rights that a statement requires.

use pgrx::pg_sys::{self, Oid};

use super::text::lossy;
use super::{name, server};
use crate::error::{Error, Result, sqlstate};

/// Returns an error unless the current user may SELECT these columns of a relation.
pub fn require(relation: Oid, columns: impl IntoIterator<Item = i16>) -> Result<()> {
    server::require_transaction();
    let (me, granted) = (server::current_user(), pg_sys::AclResult::ACLCHECK_OK);
    let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: within a transaction any OIDs and numbers will do.
    let whole = unsafe { pg_sys::pg_class_aclcheck(relation, me, select) } == granted;
    // SAFETY: as above.
    let may = |number: i16| unsafe {
        pg_sys::pg_attribute_aclcheck(relation, number, me, select) == granted
    };
    let Some(hidden) = columns.into_iter().find(|number| !whole && !may(*number)) else {
        return Ok(());
    };
    // SAFETY: as above; each result is null or a string in the current memory context, which is copied.
    let (table, column) = unsafe {
        (
            lossy(pg_sys::get_rel_name(relation)).unwrap_or_default(),
            lossy(pg_sys::get_attname(relation, hidden, true)).unwrap_or_default(),
        )
    };
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied to look at column \"{column}\" of table {table}"),
    )
    .detail("What a row would become is shown beside what it is, or compared with it.")
    .hint(format!(
        "GRANT SELECT on the column to {}. An UPDATE does without.",
        name::of_role(me)
    )))
}

/// Returns an SQL condition for whether PostgreSQL's activity views show the role `me` the sessions of `role`. Both are SQL expressions.
pub fn sessions(me: &str, role: &str) -> String {
    format!(
        "(pg_catalog.pg_has_role({me}, 'pg_read_all_stats'::pg_catalog.name, 'USAGE')
          OR COALESCE(pg_catalog.pg_has_role({me}, {role}, 'USAGE'), false))"
    )
}
