//! Refuses tables whose rows are not in the relation itself: an extension keeps them in other relations, or on other servers.
//! `UPDATE ONLY` of such a table finds nothing, and a walk of it would report "completed".

use pgrx::pg_sys::Oid;

use super::elevate::as_extension;
use super::spi::{self, Arg};
use crate::error::{Error, Result, sqlstate};

/// An extension that keeps the rows of tables elsewhere.
struct Keeper {
    /// Name of the extension.
    name: &'static str,
    /// Schema of the table in which the extension lists such tables.
    schema: &'static str,
    /// Query that returns a row with a phrase about where the rows are, if the relation `$1` is such a table.
    question: &'static str,
}

/// All extensions that are recognised.
const KEEPERS: [Keeper; 2] = [
    // A table that exists only on the coordinator is an ordinary one there. Shards may be updated in place, until they are moved.
    Keeper {
        name: "Citus",
        schema: "pg_catalog",
        question: "
SELECT CASE WHEN n.groupid <> 0 THEN 'keeps its rows on other nodes'
            WHEN p.partmethod = 'n' AND p.repmodel = 't' THEN 'keeps a copy of it on each node'
            ELSE 'keeps its rows in shards' END
FROM pg_catalog.pg_dist_partition p, pg_catalog.pg_dist_local_group n
WHERE p.logicalrelid = $1
  AND NOT (n.groupid = 0 AND p.partmethod = 'n' AND p.repmodel = 's' AND p.colocationid = 0)
UNION ALL
SELECT 'may move it to another node: it is a shard'
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_class whole ON whole.relnamespace = c.relnamespace
JOIN pg_catalog.pg_dist_shard s ON s.logicalrelid = whole.oid
WHERE c.oid = $1 AND pg_catalog.right(c.relname, pg_catalog.length(s.shardid::text) + 1) = '_' || s.shardid
LIMIT 1",
    },
    Keeper {
        name: "TimescaleDB",
        schema: "_timescaledb_catalog",
        question: "
SELECT 'keeps its rows in chunks'
FROM _timescaledb_catalog.hypertable h
JOIN pg_catalog.pg_namespace n ON n.nspname = h.schema_name
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = h.table_name
WHERE c.oid = $1
UNION ALL
SELECT 'keeps its rows compressed in another table'
FROM _timescaledb_catalog.chunk k
JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema_name
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.table_name
WHERE c.oid = $1 AND pg_catalog.to_jsonb(k) ->> 'compressed_chunk_id' IS NOT NULL
LIMIT 1",
    },
];

/// Query that returns the schemas that hold such lists. Every table read must be a plain table owned by a superuser, in a schema owned
/// by a superuser or in `pg_catalog`: where the extension is not installed, any role can take these names, and such tables are not read.
const HERE: &str = "
SELECT n.nspname FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
JOIN (VALUES ('pg_catalog', 'pg_dist_partition'), ('pg_catalog', 'pg_dist_local_group'), ('pg_catalog', 'pg_dist_shard'),
             ('_timescaledb_catalog', 'hypertable'), ('_timescaledb_catalog', 'chunk')) AS list (schema, name) ON list.schema = n.nspname
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = list.name
LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
GROUP BY n.nspname, o.rolsuper
HAVING pg_catalog.bool_and(c.relkind IS NOT DISTINCT FROM 'r' AND NOT c.relrowsecurity
                           AND (n.nspname = 'pg_catalog' OR o.rolsuper AND r.rolsuper))";

/// Returns an error if the rows of the table are not in it. `shown` is the table's name in messages.
pub fn refuse(table: Oid, shown: &str) -> Result<()> {
    let found = as_extension(|| {
        for here in &spi::kept(HERE, &[])?.rows {
            let schema = here.text(0)?;
            for keeper in KEEPERS.iter().filter(|keeper| keeper.schema == schema) {
                if let Some(row) = spi::kept_first(keeper.question, &[Arg::Oid(table)])? {
                    return Ok(Some((keeper.name, row.text(0)?.to_owned())));
                }
            }
        }
        Ok(None)
    })?;
    let Some((name, what)) = found else {
        return Ok(());
    };
    Err(Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!("cannot backfill table {shown}: {name} {what}"),
    )
    .hint(format!(
        "UPDATE it through {name}, in parts of your own: this version does not walk such tables."
    )))
}
