//! The audit trail.

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

/// Records that `actor` did `event`. No row data may go in: the view shows it to pg_monitor.
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

/// A job that is forgotten meanwhile gets no more events.
const RECORD: &str = "
INSERT INTO backfill_internal.event (job_id, actor, event, old, new, login)
SELECT $1, $2, $3, $4, $5, pg_catalog.pg_get_userbyid($6) WHERE EXISTS (SELECT FROM backfill_internal.job j WHERE j.id = $1)";

/// With a number that the sequence does not give: whoever may write to all sequences is not to keep others from
/// stopping a job. The last number that there is may be taken already, so it is one of the lower half.
const RECORD_ALL_THE_SAME: &str = "
INSERT INTO backfill_internal.event (id, job_id, actor, event, old, new, login) OVERRIDING SYSTEM VALUE
SELECT (SELECT COALESCE(pg_catalog.max(e.id), 0) + 1 FROM backfill_internal.event e WHERE e.id < 4611686018427387904), $1, $2, $3, $4, $5,
       pg_catalog.pg_get_userbyid($6)
WHERE EXISTS (SELECT FROM backfill_internal.job j WHERE j.id = $1)";

/// How often a number of one's own is tried: others that do so at the same time may be faster.
const NUMBERS_TRIED: usize = 10;

/// SQLSTATEs of a sequence that is at its end, or was set back.
const NO_NUMBER: &[&str] = &["2200H", "23505"];

/// Records a change of state, and tells whoever listens when that has committed.
pub fn change(job: i64, actor: Oid, event: &str, old: Option<State>, new: State) -> Result<()> {
    record(job, actor, event, old.map(State::name), Some(new.name()))?;
    if old != Some(new) {
        let payload = to_server(&announcement::payload(job, new))?;
        at_commit(Action::Notify(CHANNEL, payload));
    }
    Ok(())
}

/// The event of a walk that has ended though rows match still.
pub const MATCH_STILL: &str = "rows match still";
/// The event of clauses that were changed after rows had been done by others.
pub const CHANGED_MIDWAY: &str = "redefined midway";
/// What was changed then, in `old`: the SET list, or the WHERE clause alone. In versions before it was not said.
const SET_CLAUSE: &str = "set_clause";
const WHERE_CLAUSE: &str = "where_clause";

/// Why "completed" does not say what became of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Rows that were done, or passed, have been treated by other clauses than the job has now. With `values` by another SET list: that
    /// none of them matches any more says nothing of what they have.
    Redefined {
        /// Whether the SET list was another one.
        values: bool,
    },
    /// The walk has ended though rows match still.
    MatchStill,
}

/// What there is of that, the worst first.
pub fn doubt(job: i64) -> Result<Option<Doubt>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.bool_or(e.event = $3), pg_catalog.bool_or(e.event = $3 AND e.old IS DISTINCT FROM $4)
             FROM backfill_internal.event e WHERE e.job_id = $1 AND e.event IN ($2, $3) HAVING pg_catalog.count(*) > 0",
            &[
                Arg::Int8(job),
                Arg::Text(MATCH_STILL),
                Arg::Text(CHANGED_MIDWAY),
                Arg::Text(WHERE_CLAUSE),
            ],
        )
    })?;
    Ok(row.map(|row| match row.bool(0) {
        true => Doubt::Redefined {
            values: row.bool(1),
        },
        false => Doubt::MatchStill,
    }))
}

/// Records that the clauses of a job were changed after it had done, or passed, rows by others.
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

/// Whether a worker of the job has begun since a time, in microseconds as PostgreSQL counts them.
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
