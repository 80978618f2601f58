//! Rights that a job's owner still has, judged from the catalogs alone: no code of the owner's is run.

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::pg::{name, server};
use crate::store::job::Job;

/// Returns what the owner of a job lacks for any further batch, for a person; `None` if the job may go on. For a
/// partitioned table, and for one that others inherit from, privileges on the tables that hold rows count, since
/// batches name only these: the job may go on while it can do at least one of them. Tables and columns that no longer
/// exist are not a matter of rights.
pub fn lost(job: &Job) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::first(
            "WITH RECURSIVE tree AS (
                 SELECT $2::pg_catalog.oid AS oid
                 UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid
             ), lacking AS (
                 SELECT c.oid,
                        CASE WHEN NOT pg_catalog.has_schema_privilege($1, c.relnamespace, 'USAGE')
                             THEN 'USAGE on schema ' || c.relnamespace::pg_catalog.regnamespace::text
                             ELSE (SELECT 'UPDATE of column ' || pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a
                                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3)
                                     AND NOT pg_catalog.has_column_privilege($1, c.oid, a.attnum, 'UPDATE')
                                   ORDER BY a.attnum LIMIT 1) END AS what
                 FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid WHERE c.relkind = 'r'
             )
             SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = $1) THEN 'its owner'
                         WHEN NOT EXISTS (SELECT FROM lacking l WHERE l.what IS NULL)
                         THEN (SELECT l.what FROM lacking l ORDER BY l.oid = $2 DESC, l.oid LIMIT 1) END",
            &[
                Arg::Oid(job.owner),
                Arg::Oid(job.relation),
                Arg::Texts(job.definition.action.set_columns()),
            ],
        )
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Refuses a caller who may not call `function`, where another call has the same effect.
pub fn require_execute(function: &str) -> Result<()> {
    let me = server::current_user();
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE')) FROM pg_catalog.pg_proc p
             WHERE p.proname = $2 AND p.pronamespace = 'backfill'::pg_catalog.regnamespace",
            &[Arg::Oid(me), Arg::Text(function)],
        )
    })?;
    if row.is_some_and(|row| row.bool(0)) {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for function backfill.{function}, to which this call comes"),
    )
    .hint(format!(
        "What a job runs is changed by who may have another one run: GRANT EXECUTE ON FUNCTION backfill.{function} TO {};",
        name::of_role(me)
    )))
}

/// True if the job's owner has the rights of the owner of its table, or of the partitioned table it belongs to: a role
/// that could do anything to the table is believed about what was done to it. False if the table is gone.
pub fn are_the_tables_owners(job: &Job) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = $2)
                    AND COALESCE(pg_catalog.bool_or(pg_catalog.pg_has_role($2, c.relowner, 'USAGE')), false)
             FROM pg_catalog.pg_class c WHERE c.oid IN ($1, pg_catalog.pg_partition_root($1))",
            &[Arg::Oid(job.relation), Arg::Oid(job.owner)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Returns the name of the role that owns the job's table, if the table exists.
pub fn tables_owner(job: &Job) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = $1",
            &[Arg::Oid(job.relation)],
        )
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}
