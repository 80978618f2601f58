//! Jobs that only look, on behalf of another job: its dry run or its verification.

use crate::action::{Check, Kind, Question};
use crate::error::{Error, Result};
use crate::pg::elevate::as_extension;
use crate::pg::physical;
use crate::pg::spi::{self, Arg, Row};
use crate::store::job::{Job, find};
use crate::store::{slice, walk};

/// Seconds since the newest dry run of the same thing completed, if there is one. A part of the rows tells nothing of the others,
/// nor one table of those that inherit from it; and under other settings clauses mean something else.
pub fn dry_run_of(job: &Job) -> Result<Option<f64>> {
    let sql = format!(
        "SELECT pg_catalog.min(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - o.at)::pg_catalog.float8)
         {DRY_RUNS} AND j.session = $5::pg_catalog.jsonb
           AND COALESCE(j.options -> 'settings', '{{}}') = COALESCE($6::pg_catalog.jsonb -> 'settings', '{{}}')
           AND COALESCE(j.options -> 'only', 'false') = COALESCE($6::pg_catalog.jsonb -> 'only', 'false')
           AND NOT j.options ?| '{{key_from,key_to,limit_rows}}'"
    );
    first(&sql, job)?.map_or(Ok(None), |row| row.parse(0))
}

/// The newest completed dry run with the same clauses, and the names of what else it has otherwise than the job: settings, of the
/// session or of options, and options that decide which rows it looked at. `None` if there is no such dry run.
pub fn nearest_dry_run(job: &Job) -> Result<Option<(i64, String)>> {
    let sql = format!(
        "SELECT j.id, (SELECT pg_catalog.string_agg(name, ', ' ORDER BY name) FROM (
             SELECT pg_catalog.concat(v.part, '.', k.key) AS name
             FROM (VALUES ('session', j.session, $5::pg_catalog.jsonb), ('settings', j.options -> 'settings', $6::pg_catalog.jsonb -> 'settings'))
                 AS v (part, its, ours)
             CROSS JOIN LATERAL (SELECT key FROM pg_catalog.jsonb_each(v.its) UNION SELECT key FROM pg_catalog.jsonb_each(v.ours)) k
             WHERE v.its -> k.key IS DISTINCT FROM v.ours -> k.key
             UNION ALL SELECT name FROM pg_catalog.unnest('{{key_from,key_to,limit_rows}}'::text[]) name WHERE j.options ? name
             UNION ALL SELECT 'only' WHERE COALESCE(j.options -> 'only', 'false') <> COALESCE($6::pg_catalog.jsonb -> 'only', 'false')) d)
         {DRY_RUNS} ORDER BY o.at DESC LIMIT 1"
    );
    let Some(row) = first(&sql, job)? else {
        return Ok(None);
    };
    let names = row.get(1).unwrap_or_default().to_owned();
    Ok(Some((row.number(0)?, names)))
}

/// Completed dry runs `j`, with their outcomes `o`, with the table, the owner and the clauses of a job.
const DRY_RUNS: &str = "
FROM backfill_internal.job j JOIN backfill_internal.outcome o ON o.job_id = j.id
WHERE j.relation::pg_catalog.oid = $1 AND j.owner::pg_catalog.oid = $2 AND j.work - 'question' = $3::pg_catalog.jsonb
  AND j.where_clause IS NOT DISTINCT FROM $4 AND $5 IS NOT NULL AND $6 IS NOT NULL
  AND j.action = 'look' AND j.options @> '{\"dry_run\": true}' AND o.outcome = 'completed'";

fn first(sql: &str, job: &Job) -> Result<Option<Row>> {
    let definition = &job.definition;
    let session =
        serde_json::to_string(&definition.session).map_err(|e| Error::internal(e.to_string()))?;
    let work = Kind::from(definition.action.changes())
        .stored()?
        .to_string();
    let arguments = [
        Arg::Oid(job.relation),
        Arg::Oid(job.owner),
        Arg::Text(&work),
        Arg::text(definition.where_clause.as_deref()),
        Arg::Text(&session),
        Arg::Text(&definition.options.to_json()),
    ];
    as_extension(|| spi::first(sql, &arguments))
}

/// Returns why a verification that computes rows again may have missed some: fewer rows match its lasting conditions than the job has
/// updated, and triggers may have changed these rows. `None` for other jobs.
pub fn out_of_sight(verification: &Job) -> Result<Option<String>> {
    let definition = &verification.definition;
    let Some(Question::Verify {
        job,
        check: Check::Recompute,
    }) = definition.action.question()
    else {
        return Ok(None);
    };
    if definition.where_clause.is_none() {
        return Ok(None);
    }
    let (matching, updated) = (
        slice::found(verification.id)?.matching,
        slice::updated(*job)?,
    );
    if matching >= updated {
        return Ok(None);
    }
    for table in walk::tables(verification.id)? {
        if physical::may_write_back(table)? {
            return Ok(Some(format!(
                "{matching} rows match its where_clause still, of {updated} that it updated, and a trigger may have changed the others"
            )));
        }
    }
    Ok(None)
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
