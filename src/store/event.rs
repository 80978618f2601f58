//! The audit trail: events of jobs.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::announcement::{self, CHANNEL};
use crate::model::state::State;
use crate::model::stored::{cut, cut_if_any};
use crate::pg::elevate::as_extension;
use crate::pg::server;
use crate::pg::spi::{self, Arg};
use crate::pg::text::to_server;
use crate::pg::xact::{Action, at_commit};

/// Records that `actor` did `event`. Must not contain row data: the view shows events to pg_monitor.
pub fn record(
    job: i64,
    actor: Oid,
    event: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> Result<()> {
    let (event, old, new) = (cut(event), cut_if_any(old), cut_if_any(new));
    let args = [
        Arg::Int8(job),
        Arg::Oid(actor),
        Arg::Text(&event),
        Arg::text(old.as_deref()),
        Arg::text(new.as_deref()),
        Arg::Oid(server::session_user()),
    ];
    let with = |sql| spi::in_subtransaction(|| as_extension(|| spi::query(sql, &args)));
    let mut recorded = with(RECORD);
    for _ in 0..NUMBERS_TRIED {
        match &recorded {
            Err(error) if NO_NUMBER.contains(&error.sqlstate.as_str()) => {
                recorded = with(RECORD_ALL_THE_SAME);
            }
            _ => break,
        }
    }
    recorded.map(drop)
}

/// Inserts an event, unless the job has been forgotten meanwhile.
const RECORD: &str = "
INSERT INTO backfill_internal.event (job_id, actor, event, old, new, login)
SELECT $1, $2, $3, $4, $5, pg_catalog.pg_get_userbyid($6) WHERE EXISTS (SELECT FROM backfill_internal.job j WHERE j.id = $1)";

/// Inserts an event with an id that does not come from the sequence: a role that may write to all sequences must not be
/// able to keep others from stopping a job. The highest id may already be taken, so the new one is taken from the lower
/// half of the range.
const RECORD_ALL_THE_SAME: &str = "
INSERT INTO backfill_internal.event (id, job_id, actor, event, old, new, login) OVERRIDING SYSTEM VALUE
SELECT (SELECT COALESCE(pg_catalog.max(e.id), 0) + 1 FROM backfill_internal.event e WHERE e.id < 4611686018427387904), $1, $2, $3, $4, $5,
       pg_catalog.pg_get_userbyid($6)
WHERE EXISTS (SELECT FROM backfill_internal.job j WHERE j.id = $1)";

/// Number of attempts with an id of our own: other sessions that do so at the same time may be faster.
const NUMBERS_TRIED: usize = 10;

/// SQLSTATEs raised when a sequence is exhausted or was set back.
const NO_NUMBER: &[&str] = &["2200H", "23505"];

/// Records a change of state, and notifies listeners once the transaction has committed.
pub fn change(job: i64, actor: Oid, event: &str, old: Option<State>, new: State) -> Result<()> {
    record(job, actor, event, old.map(State::name), Some(new.name()))?;
    if old != Some(new) {
        let payload = to_server(&announcement::payload(job, new))?;
        at_commit(Action::Notify(CHANNEL, payload));
    }
    Ok(())
}

/// Event of a walk that has ended although rows still match.
pub const MATCH_STILL: &str = "rows match still";
/// Event of clauses that were changed after rows had been done with the old ones.
pub const CHANGED_MIDWAY: &str = "redefined midway";
/// Event of a partition that was dropped before all of it was done; its rows may have been moved to others.
pub const LOST: &str = "partition dropped";
/// Event of a verification of the job that has ended: its id, and its verdict.
const VERIFICATION: &str = "verification";
/// The clause that a `redefined midway` event says was changed, in its `old` column: the SET list (and perhaps the
/// WHERE clause), or the WHERE clause alone. Earlier versions left it empty.
const SET_CLAUSE: &str = "set_clause";
const WHERE_CLAUSE: &str = "where_clause";

/// A reason why `completed` does not tell the state of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Rows that were done, or passed, have been treated by other clauses than those the job has now. If the SET list
    /// differed, the fact that no row matches any more says nothing about the rows' values.
    Redefined {
        /// Whether the SET list was a different one.
        values: bool,
    },
    /// The walk has ended although rows still match.
    MatchStill,
    /// A partition was dropped before all of it was done.
    Lost,
}

/// Returns the gravest doubt about the job, if there is one.
pub fn doubt(job: i64) -> Result<Option<Doubt>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.bool_or(e.event = $3), pg_catalog.bool_or(e.event = $3 AND e.old IS DISTINCT FROM $4),
                    pg_catalog.bool_or(e.event = $2)
             FROM backfill_internal.event e WHERE e.job_id = $1 AND e.event IN ($2, $3, $5) HAVING pg_catalog.count(*) > 0",
            &[
                Arg::Int8(job),
                Arg::Text(MATCH_STILL),
                Arg::Text(CHANGED_MIDWAY),
                Arg::Text(WHERE_CLAUSE),
                Arg::Text(LOST),
            ],
        )
    })?;
    Ok(row.map(|row| match (row.bool(0), row.bool(2)) {
        (true, _) => Doubt::Redefined {
            values: row.bool(1),
        },
        (false, true) => Doubt::MatchStill,
        (false, false) => Doubt::Lost,
    }))
}

/// Records the verdict of a verification of the job.
pub fn verdict(job: i64, verification: i64, owner: Oid, verdict: &str) -> Result<()> {
    let id = verification.to_string();
    record(job, owner, VERIFICATION, Some(&id), Some(verdict))
}

/// Returns the id of a verification of the job that was forgotten, and whose verdict came after another verification was started.
pub fn forgotten_verdict(job: i64, since: i64) -> Result<Option<i64>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT e.old::pg_catalog.int8 FROM backfill_internal.event e
             WHERE e.job_id = $1 AND e.event = $3
               AND e.at > (SELECT j.started_at FROM backfill_internal.job j WHERE j.id = $2)
               AND NOT EXISTS (SELECT FROM backfill_internal.job j WHERE j.id = e.old::pg_catalog.int8)
             ORDER BY e.at DESC LIMIT 1",
            &[Arg::Int8(job), Arg::Int8(since), Arg::Text(VERIFICATION)],
        )
    })?;
    row.map_or(Ok(None), |row| row.parse(0))
}

/// Records that the clauses of a job were changed after `rows` rows had been done, or passed, with the old ones.
pub fn redefined_midway(job: i64, actor: Oid, values: bool, rows: i64) -> Result<()> {
    let what = if values { SET_CLAUSE } else { WHERE_CLAUSE };
    record(
        job,
        actor,
        CHANGED_MIDWAY,
        Some(what),
        Some(&rows.to_string()),
    )
}

/// True if a worker of the job has started since `time`, in microseconds since 2000-01-01 (PostgreSQL's timestamps).
pub fn worker_started_since(job: i64, time: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM backfill_internal.event e WHERE e.job_id = $1 AND e.event = 'worker started'
                            AND extract(epoch FROM e.at - timestamptz '2000-01-01 00:00:00+00') * 1000000 >= $2)",
            &[Arg::Int8(job), Arg::Int8(time)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// The first of these events of the job that a role is in, as who acted or was logged in. Roles that were dropped are none.
pub fn first_of(job: i64, events: &[String], role: Oid) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT e.event FROM backfill_internal.event e
             WHERE e.job_id = $1 AND e.event = ANY ($2) AND (e.actor::pg_catalog.oid = $3 OR e.login = pg_catalog.pg_get_userbyid($3))
             ORDER BY e.id LIMIT 1",
            &[Arg::Int8(job), Arg::Texts(events), Arg::Oid(role)],
        )
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Whether there is such an event of the job since its users last said what they want of it.
pub fn is_recorded_since_wish(job: i64, event: &str) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM backfill_internal.event e JOIN backfill_internal.job j ON j.id = e.job_id
                            WHERE e.job_id = $1 AND e.event = $2 AND e.at >= j.wished_at)",
            &[Arg::Int8(job), Arg::Text(event)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Whether there is such an event of the job.
pub fn is_recorded(job: i64, event: &str) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM backfill_internal.event e WHERE e.job_id = $1 AND e.event = $2)",
            &[Arg::Int8(job), Arg::Text(event)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}
