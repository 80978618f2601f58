//! Jobs that only look, on behalf of another job: its dry run or its verification.

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::job::{Job, find};

/// Returns how many seconds ago the newest dry run of the same work completed, if there is one. A dry run of some rows
/// only does not count, nor one of a table without those that inherit from it; on another search_path, or under other
/// settings, clauses mean something else.
pub fn dry_run_of(job: &Job) -> Result<Option<f64>> {
    let definition = &job.definition;
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.min(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - o.at)::pg_catalog.float8)
             FROM backfill_internal.job j JOIN backfill_internal.outcome o ON o.job_id = j.id
             WHERE j.relation::pg_catalog.oid = $1 AND j.owner::pg_catalog.oid = $2 AND j.work ->> 'set_clause' = $3
               AND j.where_clause IS NOT DISTINCT FROM $4 AND j.action = 'look'
               AND j.options @> '{\"dry_run\": true}' AND NOT j.options ?| '{key_from,key_to,limit_rows}' AND o.outcome = 'completed'
               AND j.session ->> 'search_path' IS NOT DISTINCT FROM $5
               AND NULLIF(j.options -> 'settings', '{}') IS NOT DISTINCT FROM NULLIF($6::pg_catalog.jsonb -> 'settings', '{}')
               AND COALESCE(j.options -> 'only', 'false') = COALESCE($6::pg_catalog.jsonb -> 'only', 'false')",
            &[
                Arg::Oid(job.relation),
                Arg::Oid(job.owner),
                Arg::Text(&definition.action.update().set_clause),
                Arg::text(definition.where_clause.as_deref()),
                Arg::text(definition.session.get("search_path").map(String::as_str)),
                Arg::Text(&definition.options.to_json()),
            ],
        )
    })?;
    row.map_or(Ok(None), |row| row.parse(0))
}

/// Returns the job that began last among those that verify this one and were not cancelled. Ids do not tell: a role
/// that may write to all sequences can set them back.
pub fn last_verification(id: i64) -> Result<Option<Job>> {
    Ok(find(
        "WHERE j.work #>> '{question,verify,job}' = $1::pg_catalog.int8::pg_catalog.text AND j.wish <> 'cancel'
         ORDER BY COALESCE(j.started_at, j.defined_at) DESC, j.id DESC LIMIT 1",
        &[Arg::Int8(id)],
    )?
    .pop())
}
