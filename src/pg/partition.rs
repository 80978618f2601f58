//! Lists the members of partitioned tables and of tables that others inherit from. Reads the catalogs alone, with the rights of the
//! extension: no partition is locked, and no expression of a partition key is evaluated.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::spi::{self, Arg};
use super::{list, server};
use crate::error::Result;

/// A table that holds rows of a tree: a partition, a table that inherits, or the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// OID of the table.
    pub oid: Oid,
    /// `relkind` of pg_class: `r`, or `f` for a foreign table.
    pub kind: char,
    /// Schema and name for messages, quoted where needed, so that the text can be pasted into a statement.
    pub shown: String,
}

unsafe extern "C-unwind" {
    // From catalog/partition.h; pgrx has no binding. The same in the headers of PostgreSQL 15, 16 and 18.
    fn get_partition_ancestors(relation: Oid) -> *mut pg_sys::List;
}

/// Prefixes a statement with the CTE `tree`: the relation $1 and everything below it, from the top down, each once, even if it inherits
/// in several ways. A partition that is being detached (DETACH ... CONCURRENTLY) no longer belongs to the tree.
macro_rules! of_tree {
    ($statement:literal) => {
        concat!(
            "WITH RECURSIVE tree AS (
                 SELECT $1::pg_catalog.oid AS oid
                 UNION
                 SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
                 WHERE NOT i.inhdetachpending
             ) ",
            $statement
        )
    };
}

/// Returns the tables that an UPDATE of `root` (with ONLY if `only`) would look at. For a partitioned table these are the partitions
/// that hold rows, on all levels, default ones too, in the order of their creation; otherwise the table itself, and then those that
/// inherit from it. Within `spi::connect`.
pub fn leaves(root: Oid, only: bool) -> Result<Vec<Leaf>> {
    let rows = as_extension(|| {
        spi::kept(
            of_tree!(
                "SELECT c.oid::bigint, c.relkind,
                        pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(c.relname))
                 FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind <> 'p' AND (c.oid = $1 OR NOT $2) ORDER BY c.oid <> $1, c.oid"
            ),
            &[Arg::Oid(root), Arg::Bool(only)],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| {
            Ok(Leaf {
                oid: Oid::from(row.number(0)? as u32),
                kind: row.text(1)?.chars().next().unwrap_or(' '),
                shown: row.text(2)?.to_owned(),
            })
        })
        .collect()
}

/// Whether the role may UPDATE any column of the relation, or of any of its partitions. Within
/// `spi::connect`.
pub fn may_update_any(relation: Oid, role: Oid) -> Result<bool> {
    let row = as_extension(|| {
        spi::kept_first(
            of_tree!(
                "SELECT pg_catalog.bool_or(pg_catalog.has_any_column_privilege($2, tree.oid, 'UPDATE')) FROM tree"
            ),
            &[Arg::Oid(relation), Arg::Oid(role)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Whether the current user has the rights of the owner of the relation, or of the topmost partitioned table that it belongs to. False
/// if the relation is gone. Within `spi::connect`.
pub fn may_act_for_owner(relation: Oid) -> Result<bool> {
    let caller = server::current_user();
    let row = as_extension(|| {
        spi::kept_first(
            "SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_has_role($2, c.relowner, 'USAGE')), false)
             FROM pg_catalog.pg_class c WHERE c.oid IN ($1, pg_catalog.pg_partition_root($1))",
            &[Arg::Oid(relation), Arg::Oid(caller)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// A role without superuser rights whose code an UPDATE runs.
pub struct Author {
    /// Name of the role, quoted where needed.
    pub role: String,
    /// Code that the role wrote, or may have written: "table" for that of the table or of one above or below it; "trigger x" and so on.
    pub what: String,
}

/// Returns one of the roles without superuser rights whose code an UPDATE of the relation runs, or may run: the owners of the relation,
/// of what it inherits from, of what inherits from it, and of tables whose foreign keys follow, on any level; the owners of the
/// functions of triggers on all of these; the roles that may have written the condition of such a trigger; the owners of the types of
/// their columns, and of what these types consist of. Within `spi::connect`.
pub fn author_without_superuser(relation: Oid) -> Result<Option<Author>> {
    let row = as_extension(|| {
        spi::kept_first(
            "WITH RECURSIVE reached AS (
                 SELECT $1::pg_catalog.oid AS oid, false AS follows
                 UNION SELECT n.oid, r.follows OR n.follows FROM reached r CROSS JOIN LATERAL (
                     SELECT i.inhrelid AS oid, false AS follows FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
                     UNION ALL SELECT k.conrelid, true FROM pg_catalog.pg_constraint k
                               WHERE k.contype = 'f' AND k.confrelid = r.oid AND k.confupdtype IN ('c', 'n', 'd')) n
             ), above AS (
                 SELECT $1::pg_catalog.oid AS oid
                 UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON i.inhrelid = a.oid
             ), type AS (
                 SELECT a.atttypid AS oid FROM reached r JOIN pg_catalog.pg_attribute a
                     ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
                 UNION SELECT n.oid FROM type y JOIN pg_catalog.pg_type t ON t.oid = y.oid CROSS JOIN LATERAL (
                     SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype
                     UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
                     UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
                 ) n WHERE n.oid <> 0
             ), fired AS (
                 SELECT t.*, p.proowner, c.relacl,
                        EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                                  AND d.objid = t.tgfoid AND d.deptype = 'e') AS of_extension
                 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
                 JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                 JOIN reached r ON r.oid = t.tgrelid
                 -- What a foreign key changes may move to another partition, which is a DELETE and an INSERT.
                 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 16 <> 0 OR r.follows)
             ), author AS (
                 SELECT 1 AS rank, c.relowner AS role, 'table' AS what FROM pg_catalog.pg_class c WHERE c.oid = $1
                 UNION ALL SELECT 2, c.relowner, 'table' FROM pg_catalog.pg_class c
                           WHERE c.oid IN (SELECT oid FROM reached WHERE NOT follows UNION SELECT oid FROM above)
                 UNION ALL SELECT 3, f.proowner, 'trigger ' || pg_catalog.quote_ident(f.tgname) FROM fired f
                 UNION ALL SELECT 4, c.relowner, 'foreign key of table ' || c.oid::pg_catalog.regclass::text
                           FROM reached r JOIN pg_catalog.pg_class c ON c.oid = r.oid WHERE r.follows
                 -- What a trigger says besides the name of its function: to what it is applied, where that comes with an extension.
                 UNION ALL SELECT 5, g.grantee, pg_catalog.concat(CASE WHEN f.tgqual IS NULL THEN 'arguments' ELSE 'condition' END,
                                                                  ' of trigger ', pg_catalog.quote_ident(f.tgname))
                           FROM fired f CROSS JOIN LATERAL pg_catalog.aclexplode(f.relacl) g
                           WHERE (f.tgqual IS NOT NULL OR f.tgnargs > 0 OR f.of_extension) AND g.privilege_type = 'TRIGGER'
                 UNION ALL SELECT 6, t.typowner, 'type ' || t.oid::pg_catalog.regtype::text
                           FROM type y JOIN pg_catalog.pg_type t ON t.oid = y.oid
             )
             SELECT COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC'), a.what FROM author a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.role
             WHERE r.rolsuper IS NOT TRUE ORDER BY a.rank LIMIT 1",
            &[Arg::Oid(relation)],
        )
    })?;
    row.map(|row| {
        Ok(Author {
            role: row.text(0)?.to_owned(),
            what: row.text(1)?.to_owned(),
        })
    })
    .transpose()
}

/// Returns the partitioned tables in the tree of `root`, itself included: everything that is not a leaf. Within `spi::connect`.
pub fn branches(root: Oid) -> Result<Vec<Oid>> {
    oids(
        of_tree!(
            "SELECT c.oid::bigint FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
             WHERE c.relkind = 'p' ORDER BY c.oid"
        ),
        root,
    )
}

/// Returns all relations that may have rows in common with this one: those that it is a partition of or inherits from, those below it
/// on all levels, and whatever else these are partitions of or inherit from. Without the relation itself. Within `spi::connect`.
pub fn relatives(relation: Oid) -> Result<Vec<Oid>> {
    oids(
        of_tree!(
            ", above AS (
                 SELECT tree.oid FROM tree
                 UNION
                 SELECT i.inhparent FROM above JOIN pg_catalog.pg_inherits i ON i.inhrelid = above.oid
                 WHERE NOT i.inhdetachpending
             )
             SELECT above.oid::bigint FROM above WHERE above.oid <> $1 ORDER BY above.oid"
        ),
        relation,
    )
}

/// Returns one representative of all tables that are related through partitions or inheritance, however indirectly: the one with the
/// lowest OID, normally the one created first. Within `spi::connect`.
pub fn representative(relation: Oid) -> Result<Oid> {
    let all = oids(
        "WITH RECURSIVE kin AS (
             SELECT $1::pg_catalog.oid AS oid
             UNION
             SELECT CASE WHEN i.inhrelid = kin.oid THEN i.inhparent ELSE i.inhrelid END
             FROM kin JOIN pg_catalog.pg_inherits i ON kin.oid IN (i.inhrelid, i.inhparent)
         )
         SELECT pg_catalog.min(kin.oid)::bigint FROM kin",
        relation,
    )?;
    Ok(all.first().copied().unwrap_or(relation))
}

fn oids(query: &'static str, relation: Oid) -> Result<Vec<Oid>> {
    let rows = as_extension(|| spi::kept(query, &[Arg::Oid(relation)]))?.rows;
    rows.iter()
        .map(|row| Ok(Oid::from(row.number(0)? as u32)))
        .collect()
}

/// Returns the partitioned tables that the relation is a partition of, the nearest first, but none beyond one that is being detached.
/// Within a transaction.
pub fn ancestors(relation: Oid) -> Vec<Oid> {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: one of no relation is no partition, and a relation that is no longer a
    // partition has no ancestors. The list is a new list of OIDs, or null. An error becomes a panic at the boundary, so it jumps
    // over no Rust frame.
    unsafe {
        if !pg_sys::get_rel_relispartition(relation) {
            return Vec::new();
        }
        let found = pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(relation));
        list::oids(found)
    }
}

/// Returns the topmost partitioned table that the relation belongs to; the relation itself if it belongs to none.
pub fn topmost(relation: Oid) -> Oid {
    ancestors(relation).last().copied().unwrap_or(relation)
}

/// Returns the columns that decide which partition a row is in, including columns inside expressions, for the relation itself, the
/// tables that it is a partition of, and the partitioned tables below it. Within `spi::connect`.
pub fn key_columns(relation: Oid) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let tables = ancestors(relation).into_iter().chain(branches(relation)?);
    for table in tables {
        for row in as_extension(|| spi::kept(KEY_COLUMNS, &[Arg::Oid(table)]))?.rows {
            let name = row.text(0)?.to_owned();
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Query for the columns of the table's partition key. PostgreSQL records for each of them, also inside an expression, a dependency on
/// the table as a whole, so that it can't be dropped alone.
const KEY_COLUMNS: &str = "
SELECT DISTINCT a.attname, a.attnum
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = $1 AND d.objsubid > 0
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1 AND d.refobjsubid = 0
  AND d.deptype = 'i'
ORDER BY a.attnum";

/// Resolves an index name given for `root`, a partitioned table, on its descendant `relation`: returns the name of the index of
/// `relation` that is attached to the index `name` of `root`, or else of an index of its own with that name. Within `spi::connect`.
pub fn index_named(relation: Oid, root: Oid, name: &str) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::kept_first(
            "WITH RECURSIVE above AS (
                 SELECT i.indexrelid AS mine, i.indexrelid AS oid
                 FROM pg_catalog.pg_index i WHERE i.indrelid = $1
                 UNION ALL
                 SELECT above.mine, h.inhparent
                 FROM above JOIN pg_catalog.pg_inherits h ON h.inhrelid = above.oid
             )
             SELECT mine.relname
             FROM above
             JOIN pg_catalog.pg_class mine ON mine.oid = above.mine
             JOIN pg_catalog.pg_class c ON c.oid = above.oid
             JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             WHERE c.relname = $3 AND i.indrelid IN ($1, $2)
             ORDER BY i.indrelid = $2 DESC LIMIT 1",
            &[Arg::Oid(relation), Arg::Oid(root), Arg::Text(name)],
        )
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}
