//! Writing jobs.

use pgrx::pg_sys::Oid;

use super::Definition;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::model::standing::Standing;
use crate::model::state::Wish;
use crate::pg::elevate::as_extension;
use crate::pg::relation::Relation;
use crate::pg::server;
use crate::pg::spi::{self, Arg};
use crate::store::origin::{self, here};
use crate::store::{event, outcome, text_bound};

/// Stores a new job and returns its id.
pub fn insert(
    owner: Oid,
    relation: &Relation,
    name: Option<&str>,
    definition: &Definition,
    batch_size: i32,
    sleep_ms: i32,
) -> Result<i64> {
    let session =
        serde_json::to_string(&definition.session).map_err(|e| Error::internal(e.to_string()))?;
    let work = definition.action.stored()?.to_string();
    let row = as_extension(|| {
        spi::first(
            "INSERT INTO backfill_internal.job (relation, relation_name, name, owner, action, work, where_clause, key_columns, options, session,
                 batch_size, sleep_ms, wish, owner_name, system_identifier, database_oid)
             VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.jsonb, $7, $8, $9::pg_catalog.jsonb, $10::pg_catalog.jsonb, $11, $12, 'define',
                 pg_catalog.pg_get_userbyid($4), $13, $14)
             RETURNING id",
            &[
                Arg::Oid(relation.oid),
                Arg::Text(&relation.shown),
                Arg::text(name),
                Arg::Oid(owner),
                Arg::Text(definition.action.as_action().name()),
                Arg::Text(&work),
                Arg::text(definition.where_clause.as_deref()),
                Arg::Texts(&definition.key_columns),
                Arg::Text(&definition.options.to_json()),
                Arg::Text(&session),
                Arg::Int4(batch_size),
                Arg::Int4(sleep_ms),
                Arg::Int8(server::system_identifier()),
                Arg::Int8(here()),
            ],
        )
    })?;
    let id = row
        .ok_or_else(|| Error::internal("INSERT returned no row"))?
        .number(0)?;
    text_bound::check(id, definition.bytes(&work))?;
    refuse_used(id)?;
    origin::seal(id)?;
    Ok(id)
}

/// Refuses an id that was given to an earlier job, since forgotten: what somebody has seen under that id is not this
/// job. Sees what others have committed by now.
fn refuse_used(id: i64) -> Result<()> {
    let used = as_extension(|| {
        spi::query_latest(
            "SELECT FROM backfill_internal.event e WHERE e.job_id = $1 LIMIT 1",
            &[Arg::Int8(id)],
        )
    })?;
    if used.processed == 0 {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::UNIQUE_VIOLATION,
        format!("the number {id} was given to a job before, which is forgotten"),
    )
    .detail("The sequence that numbers jobs was set back.")
    .hint("Call it again: each call takes the next number. Or set the sequence forward, as a superuser: SELECT setval(pg_get_serial_sequence('backfill_internal.job', 'id'), (SELECT max(job_id) FROM backfill_internal.event));"))
}

/// Replaces a definition that came from elsewhere by one that was checked in this database.
pub fn redefine(id: i64, definition: &Definition) -> Result<()> {
    let session =
        serde_json::to_string(&definition.session).map_err(|e| Error::internal(e.to_string()))?;
    let work = definition.action.stored()?.to_string();
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job
             SET work = $2::pg_catalog.jsonb, key_columns = $3, options = $4::pg_catalog.jsonb, session = $5::pg_catalog.jsonb
             WHERE id = $1",
            &[
                Arg::Int8(id),
                Arg::Text(&work),
                Arg::Texts(&definition.key_columns),
                Arg::Text(&definition.options.to_json()),
                Arg::Text(&session),
            ],
        )
    })?;
    text_bound::check(id, definition.bytes(&work))?;
    origin::adopt(id)
}

/// Changes the wish. `Wish::Run` begins a new attempt in this database; it is refused if the job may not run as its row
/// stands. A caller with the right to decide that it may calls [`origin::adopt`] first.
pub fn set_wish(id: i64, wish: Wish) -> Result<()> {
    let begins = wish == Wish::Run;
    if begins {
        let standing = origin::of(id)?;
        if standing != Standing::Here {
            return Err(origin::refused("run", &format!("job {id}"), id, standing));
        }
    }
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job
             SET wish = $2, version = version + 1, wished_at = pg_catalog.clock_timestamp(),
                 attempt = CASE WHEN $3 THEN attempt + 1 ELSE attempt END,
                 system_identifier = CASE WHEN $3 THEN $4 ELSE system_identifier END,
                 database_oid = CASE WHEN $3 THEN $5 ELSE database_oid END,
                 started_at = CASE WHEN $3 THEN COALESCE(started_at, pg_catalog.clock_timestamp()) ELSE started_at END
             WHERE id = $1",
            &[
                Arg::Int8(id),
                Arg::Text(wish.name()),
                Arg::Bool(begins),
                Arg::Int8(server::system_identifier()),
                Arg::Int8(here()),
            ],
        )
    })?;
    if begins { origin::seal(id) } else { Ok(()) }
}

/// Begins an attempt that tries again the rows that failed in earlier ones.
pub fn begin_retry(id: i64) -> Result<()> {
    set_wish(id, Wish::Run)?;
    outcome::reopen(id)?;
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job SET retry_attempt = attempt WHERE id = $1",
            &[Arg::Int8(id)],
        )
    })?;
    Ok(())
}

/// Changes the pace and the options. Seals the row again only if it had a valid seal before.
pub fn set_pace(id: i64, batch_size: i32, sleep_ms: i32, options: &Options) -> Result<()> {
    let sealed = origin::of(id)? == Standing::Here;
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job
             SET batch_size = $2, sleep_ms = $3, options = $4::pg_catalog.jsonb, version = version + 1
             WHERE id = $1",
            &[
                Arg::Int8(id),
                Arg::Int4(batch_size),
                Arg::Int4(sleep_ms),
                Arg::Text(&options.to_json()),
            ],
        )
    })?;
    text_bound::check(id, options.to_json().len())?;
    if sealed { origin::seal(id) } else { Ok(()) }
}

/// Replaces the clauses of a job by others, which the caller has checked.
pub fn set_clauses(id: i64, definition: &Definition) -> Result<()> {
    let work = definition.action.stored()?.to_string();
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job SET work = $2::pg_catalog.jsonb, where_clause = $3, version = version + 1 WHERE id = $1",
            &[
                Arg::Int8(id),
                Arg::Text(&work),
                Arg::text(definition.where_clause.as_deref()),
            ],
        )
    })?;
    text_bound::check(id, definition.bytes(&work))?;
    origin::seal(id)
}

/// Removes a job and everything recorded about it, except for a last event, which keeps its id from being used again.
pub fn delete(id: i64) -> Result<()> {
    for statement in [
        "DELETE FROM backfill_internal.leftover
         WHERE slice_id IN (SELECT s.id FROM backfill_internal.slice s WHERE s.job_id = $1)",
        "DELETE FROM backfill_internal.region
         WHERE slice_id IN (SELECT s.id FROM backfill_internal.slice s WHERE s.job_id = $1)",
        "DELETE FROM backfill_internal.checkpoint
         WHERE slice_id IN (SELECT s.id FROM backfill_internal.slice s WHERE s.job_id = $1)",
        "DELETE FROM backfill_internal.slice WHERE job_id = $1",
        "DELETE FROM backfill_internal.walk WHERE job_id = $1",
        "DELETE FROM backfill_internal.outcome WHERE job_id = $1",
        "DELETE FROM backfill_internal.failed_row WHERE job_id = $1",
        "DELETE FROM backfill_internal.verify_failure WHERE job_id = $1",
        "DELETE FROM backfill_internal.setback WHERE job_id = $1",
        "DELETE FROM backfill_internal.sample WHERE job_id = $1",
        "DELETE FROM backfill_internal.event WHERE job_id = $1",
    ] {
        as_extension(|| spi::query(statement, &[Arg::Int8(id)]))?;
    }
    event::record(id, server::current_user(), "forget", None, None)?;
    as_extension(|| {
        spi::query(
            "DELETE FROM backfill_internal.job WHERE id = $1",
            &[Arg::Int8(id)],
        )
    })?;
    Ok(())
}
