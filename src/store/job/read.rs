//! Reading jobs: one with all that its state needs, or the ids of several.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;
use serde::Deserialize;

use super::{Definition, Job, unknown};
use crate::action::Kind;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::model::standing::Standing;
use crate::model::state::{Outcome, State, Wish};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Row};
use crate::pg::{lock, report, server};
use crate::store::origin;
use crate::store::{holder, slice, version};

/// Returns the query for jobs that satisfy `condition`, with everything their state needs. It reads the locks once for
/// all jobs.
fn select(condition: &str) -> String {
    format!(
        "WITH live AS MATERIALIZED (
             SELECT (l.classid::bigint << 32) | l.objid::bigint AS job_id, l.pid
             FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'advisory' AND l.objsubid = {} AND l.granted AND l.database = {}
         )
         SELECT pg_catalog.row_to_json(stored)::text, stored.id FROM (
             SELECT j.id, j.name, j.relation::pg_catalog.oid::bigint AS relation,
                    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = j.relation)
                         THEN j.relation::text ELSE j.relation_name END AS relation_name,
                    j.owner::pg_catalog.oid::bigint AS owner, j.owner_name::text,
                    pg_catalog.current_database()::text AS database_name,
                    j.action, j.work, j.where_clause, j.key_columns, j.options, j.session, j.batch_size, j.sleep_ms, j.wish, j.attempt, {} AS version,
                    {} AS standing, o.outcome, o.attempt AS outcome_attempt,
                    (SELECT pg_catalog.array_agg(l.pid ORDER BY l.pid) FROM live l WHERE l.job_id = j.id) AS workers,
                    CASE WHEN o.outcome = 'failed' THEN
                         pg_catalog.concat(o.message, ' (SQLSTATE ', o.sqlstate, ')', ' in batch ' || o.batch) END AS last_error
             FROM backfill_internal.job j LEFT JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt {condition}
         ) AS stored",
        lock::JOB,
        server::database().to_u32(),
        version::OF_JOB,
        origin::STANDING
    )
}

/// A row of [`select`], column by column.
#[derive(Deserialize)]
struct Stored {
    id: i64,
    name: Option<String>,
    relation: u32,
    relation_name: String,
    owner: u32,
    owner_name: String,
    database_name: String,
    action: String,
    work: serde_json::Value,
    where_clause: Option<String>,
    key_columns: Vec<String>,
    options: serde_json::Value,
    session: BTreeMap<String, String>,
    batch_size: i32,
    sleep_ms: i32,
    wish: String,
    attempt: i32,
    version: i64,
    standing: String,
    outcome: Option<String>,
    outcome_attempt: Option<i32>,
    workers: Option<Vec<i32>>,
    last_error: Option<String>,
}

fn read(row: &Row) -> Result<Job> {
    let stored: Stored =
        serde_json::from_str(row.text(0)?).map_err(|e| Error::internal(e.to_string()))?;
    let options = Options::parse(&stored.options)?;
    let standing = Standing::parse(&stored.standing);
    let wish = Wish::parse(&stored.wish);
    let wish = wish.ok_or_else(|| Error::internal(format!("wish \"{}\"", stored.wish)))?;
    let outcome = stored.outcome.as_deref().zip(stored.outcome_attempt);
    Ok(Job {
        id: stored.id,
        name: stored.name,
        relation: stored.relation.into(),
        relation_name: stored.relation_name,
        owner: stored.owner.into(),
        owner_name: stored.owner_name,
        database_name: stored.database_name,
        definition: Definition {
            action: Kind::read(&stored.action, stored.work)?,
            where_clause: stored.where_clause,
            key_columns: stored.key_columns,
            options,
            session: stored.session,
        },
        batch_size: stored.batch_size,
        sleep_ms: stored.sleep_ms,
        wish,
        attempt: stored.attempt,
        version: stored.version,
        here: standing == Standing::Here,
        standing,
        outcome: outcome.and_then(|(name, attempt)| Outcome::parse(name, attempt)),
        workers: stored.workers.unwrap_or_default(),
        last_error: stored.last_error,
    })
}

/// Returns the jobs that satisfy `condition`. A row that cannot be read (one of another version, for example) is logged
/// and left out.
pub(in crate::store) fn list(condition: &str) -> Result<Vec<Job>> {
    let rows = as_extension(|| spi::for_people(|| spi::query(&select(condition), &[])))?.rows;
    let readable = |row: &Row| {
        let id = row.get(1).unwrap_or_default();
        let log = |error| report::log(&format!("backfill job {id} cannot be read: {error}"));
        read(row).map_err(log).ok()
    };
    Ok(rows.iter().filter_map(readable).collect())
}

pub(in crate::store) fn find(condition: &str, args: &[Arg]) -> Result<Vec<Job>> {
    as_extension(|| {
        spi::for_people(|| spi::query(&select(condition), args))?
            .rows
            .iter()
            .map(read)
            .collect()
    })
}

/// Returns what the job's table was called when the job was defined, quoted where need be.
pub fn name_of_relation(id: i64) -> Result<String> {
    let row = as_extension(|| {
        spi::first(
            "SELECT j.relation_name FROM backfill_internal.job j WHERE j.id = $1",
            &[Arg::Int8(id)],
        )
    })?;
    let row = row.ok_or_else(|| unknown(id))?;
    Ok(row.text(0)?.to_owned())
}

/// Like [`find`], but sees what others have committed by now, even in a transaction with an older snapshot.
fn find_latest(condition: &str, args: &[Arg]) -> Result<Vec<Job>> {
    as_extension(|| {
        spi::for_people(|| spi::query_latest(&select(condition), args))?
            .rows
            .iter()
            .map(read)
            .collect()
    })
}

/// Returns the job with this id.
pub fn load(id: i64) -> Result<Option<Job>> {
    Ok(find("WHERE j.id = $1", &[Arg::Int8(id)])?.pop())
}

/// Returns the job with this id and locks its row against other calls until the transaction ends. If the row is still
/// locked after a few seconds, the error names the holder.
pub fn lock(id: i64) -> Result<Option<Job>> {
    if let Some(job) = lock_if_free(id)? {
        return Ok(Some(job));
    }
    let waited = spi::in_subtransaction(|| {
        as_extension(|| {
            spi::query(
                "SELECT FROM backfill_internal.job WHERE id = $1 FOR UPDATE",
                &[Arg::Int8(id)],
            )
        })
    });
    match waited {
        Ok(_) => load(id),
        Err(error) if error.sqlstate == sqlstate::LOCK_NOT_AVAILABLE => Err(holder::of_job(id)),
        Err(error) => Err(error),
    }
}

/// Returns the job with this id, locked as by [`lock()`]; `None` if an open transaction is changing it (or if there is
/// none).
pub fn lock_if_free(id: i64) -> Result<Option<Job>> {
    let free = as_extension(|| {
        spi::query(
            "SELECT FROM backfill_internal.job WHERE id = $1 FOR UPDATE SKIP LOCKED",
            &[Arg::Int8(id)],
        )
    })?;
    if free.processed == 0 {
        Ok(None)
    } else {
        load(id)
    }
}

/// Returns the process ids of other processes that work on jobs of this database.
pub fn workers_here() -> Result<Vec<i32>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'advisory' AND l.objsubid = $1 AND l.granted AND l.database::bigint = $2
               AND l.pid <> pg_catalog.pg_backend_pid()",
            &[
                Arg::Int4(i32::from(lock::JOB)),
                Arg::Int8(i64::from(server::database().to_u32())),
            ],
        )
    })?
    .rows;
    rows.iter().map(|row| Ok(row.number(0)? as i32)).collect()
}

/// Returns the job with this id, as committed by now.
pub fn load_latest(id: i64) -> Result<Option<Job>> {
    Ok(find_latest("WHERE j.id = $1", &[Arg::Int8(id)])?.pop())
}

/// Returns the job with this id; one that cannot be read is logged, and `None` is returned.
pub fn load_readable(id: i64) -> Result<Option<Job>> {
    Ok(list(&format!("WHERE j.id = {id}"))?.pop())
}

/// Returns the jobs with this name that `role` may act on, as committed by now.
pub fn named(name: &str, role: Oid) -> Result<Vec<Job>> {
    find_latest(
        "WHERE j.name = $1 AND pg_catalog.pg_has_role($2, j.owner::pg_catalog.oid, 'USAGE') ORDER BY j.id",
        &[Arg::Text(name), Arg::Oid(role)],
    )
}

/// A job, as it is known by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Id of the job.
    pub id: i64,
    /// Name of the job.
    pub name: String,
    /// The role that defined it.
    pub owner: Oid,
    /// Its table.
    pub relation: Oid,
    /// Whether it is a dry run, which may have the name of the run that it is for.
    pub dry_run: bool,
}

/// Returns all roles' jobs with this name, and those whose name is this one without the schema of their table before it.
pub fn called(name: &str) -> Result<Vec<Called>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT j.id, j.name, j.owner::pg_catalog.oid::bigint, j.relation::pg_catalog.oid::bigint, j.options @> '{\"dry_run\": true}'
             FROM backfill_internal.job j
             LEFT JOIN pg_catalog.pg_class c ON c.oid = j.relation::pg_catalog.oid
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE j.name = $1 OR pg_catalog.concat(n.nspname, '.', j.name) = $1 ORDER BY j.id",
            &[Arg::Text(name)],
        )
    })?
    .rows;
    let called = |row: &spi::Row| {
        Ok(Called {
            id: row.number(0)?,
            name: row.text(1)?.to_owned(),
            owner: Oid::from(row.number(2)? as u32),
            relation: Oid::from(row.number(3)? as u32),
            dry_run: row.bool(4),
        })
    };
    rows.iter().map(called).collect()
}

/// Returns the ids of definitions on this table that `role` may act on, as committed by now. The text of others'
/// definitions is not even read.
pub fn pending_on(relation: Oid, role: Oid) -> Result<Vec<i64>> {
    ids(
        "WHERE j.relation::pg_catalog.oid = $1 AND j.wish = 'define' AND pg_catalog.pg_has_role($2, j.owner::pg_catalog.oid, 'USAGE')",
        &[Arg::Oid(relation), Arg::Oid(role)],
    )
}

/// Returns the ids of jobs on this table that have been started and may still write to it, or still have to end, as
/// committed by now.
pub fn started_on(relation: Oid) -> Result<Vec<i64>> {
    ids(
        "WHERE j.relation::pg_catalog.oid = $1 AND j.wish <> 'define' AND o.outcome IS DISTINCT FROM 'completed'
           AND NOT (j.wish = 'cancel' AND o.outcome IS NOT DISTINCT FROM 'cancelled')",
        &[Arg::Oid(relation)],
    )
}

/// Returns the ids of jobs that were started, are neither completed nor cancelled, and that `role` may act on.
pub fn unfinished(role: Oid) -> Result<Vec<i64>> {
    ids(
        "WHERE j.wish IN ('run', 'pause') AND o.outcome IS DISTINCT FROM 'completed'
           AND pg_catalog.pg_has_role($1, j.owner::pg_catalog.oid, 'USAGE')",
        &[Arg::Oid(role)],
    )
}

/// Returns the ids of jobs only: a job has megabytes of text, and a role may have many jobs.
fn ids(condition: &str, args: &[Arg]) -> Result<Vec<i64>> {
    let sql = format!(
        "SELECT j.id FROM backfill_internal.job j LEFT JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt
         {condition} ORDER BY j.id"
    );
    let rows = as_extension(|| spi::query_latest(&sql, args))?.rows;
    rows.iter().map(|row| row.number(0)).collect()
}

/// Condition that a worker can connect as the owner of the job `j`. Where a query has a limit, jobs of other owners
/// come last, and they are reported.
pub(in crate::store) const CAN_CONNECT: &str = "EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = j.owner::pg_catalog.oid
               AND pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT'))";

/// Condition that all jobs have completed that the job `j` comes after.
const READY: &str = "NOT EXISTS (
               SELECT FROM pg_catalog.jsonb_array_elements_text(COALESCE(j.options -> 'after', '[]')) a (name)
               WHERE NOT EXISTS (
                   SELECT FROM backfill_internal.job p
                   JOIN backfill_internal.outcome po ON po.job_id = p.id AND po.attempt >= p.retry_attempt
                   WHERE p.name = a.name AND p.owner = j.owner AND NOT p.options @> '{\"dry_run\": true}' AND po.outcome = 'completed'))";

/// Rank of the job `j` among those that wait.
const PRIORITY: &str = "COALESCE((j.options ->> 'priority')::pg_catalog.int4, 0)";

/// Time since when a job has waited for a worker. A job that a worker has left, for example because the job was waiting
/// itself, has had its turn: the time counts from there.
const SINCE: &str = "GREATEST(j.wished_at, (SELECT pg_catalog.max(e.at) FROM backfill_internal.event e WHERE e.job_id = j.id AND e.event = 'worker left'))";

/// Returns jobs that should run and have fewer workers than they want: those with no worker first, then the longest
/// waiting, taking one job of each role in turn, by its priority; the first hundred. Leaves out those that come after others. A job that has a worker wants another only while
/// there is a slice that nobody holds. Leaves out jobs of the roles in `crowded`, which may have no more workers now,
/// and jobs that may not run as their rows stand.
pub fn understaffed(crowded: &[Oid]) -> Result<Vec<Job>> {
    let crowded: Vec<String> = crowded
        .iter()
        .map(|role| role.to_u32().to_string())
        .collect();
    let wanted = list(&format!(
        "CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS n FROM live l WHERE l.job_id = j.id) staff
         WHERE j.wish = 'run' AND o.outcome IS DISTINCT FROM 'completed'
           AND NOT (o.outcome IS NOT DISTINCT FROM 'failed' AND o.attempt = j.attempt)
           AND NOT j.owner::pg_catalog.oid = ANY ('{{{}}}'::pg_catalog.oid[])
           AND {} = '{}' AND {READY}
           AND (staff.n = 0 OR staff.n < COALESCE((j.options ->> 'workers')::pg_catalog.int4, 1)
                AND EXISTS (SELECT FROM backfill_internal.slice s WHERE s.job_id = j.id AND NOT s.done AND {}))
         ORDER BY NOT {}, staff.n > 0, pg_catalog.row_number() OVER (PARTITION BY j.owner, staff.n > 0 ORDER BY {PRIORITY} DESC, {SINCE}, j.id),
                  {SINCE}, j.id LIMIT 100",
        crowded.join(","),
        origin::STANDING,
        Standing::Here.name(),
        slice::free("s"),
        CAN_CONNECT
    ))?;
    Ok(wanted
        .into_iter()
        .filter(|job| job.state() == State::Running)
        .collect())
}

/// Returns the names of the jobs that a job waits for, as it comes after them.
pub fn held_by(id: i64) -> Result<Vec<String>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT a.name
             FROM backfill_internal.job j
             CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(COALESCE(j.options -> 'after', '[]')) WITH ORDINALITY a (name, no)
             LEFT JOIN backfill_internal.job p ON p.name = a.name AND p.owner = j.owner AND NOT p.options @> '{\"dry_run\": true}'
             LEFT JOIN backfill_internal.outcome o ON o.job_id = p.id AND o.attempt >= p.retry_attempt
             WHERE j.id = $1 AND o.outcome IS DISTINCT FROM 'completed' ORDER BY a.no",
            &[Arg::Int8(id)],
        )
    })?
    .rows;
    rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
}

/// Whether another job comes after this one.
pub fn has_followers(id: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM backfill_internal.job p JOIN backfill_internal.job j ON j.owner = p.owner AND j.options -> 'after' ? p.name
                            WHERE p.id = $1)",
            &[Arg::Int8(id)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}
