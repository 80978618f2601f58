//! `backfill.define`: checks a backfill from end to end, and stores it.

use super::call::{self, Call, Request};
use super::caller::required;
use super::existing::same_job;
use super::{checks, session};
use crate::catalog::event;
use crate::catalog::job::{self, Definition};
use crate::error::Result;
use crate::job::state::State;
use crate::pg::lock::Lock;
use crate::pg::report::{notice, warning};
use crate::pg::{clauses, index, server};
use crate::plan::key::{self, Candidate};
use crate::plan::sql::Target;

/// Pace of a job that was defined and not started.
const DEFAULT_BATCH_SIZE: i32 = 1000;

/// Stores a definition, or finds the one that an earlier call with the same name stored.
pub fn define(request: Request) -> Result<i64> {
    let call = call::check(request, "backfill.define()")?;
    let set_clause = required(call.set_clause.clone(), "set_clause")?;
    Lock::Definition(call.relation.oid.to_u32()).for_transaction();
    if let Some(known) = same_job(&call, &set_clause)? {
        notice(
            &format!("backfill {} is already {}", known.shown(), known.state()),
            None,
        );
        return Ok(known.id);
    }
    store(&call, set_clause, DEFAULT_BATCH_SIZE, 0)
}

/// Checks the clauses as the caller, and stores the definition.
pub fn store(call: &Call, set_clause: String, batch_size: i32, sleep_ms: i32) -> Result<i64> {
    let owner = server::current_user();
    let set_columns = clauses::set_columns(&set_clause)?;
    if let Some(where_clause) = &call.where_clause {
        clauses::check_expression(where_clause)?;
    }
    let key = key::choose(
        index::candidates(call.relation.oid)?,
        call.options.key.as_deref(),
        &call.relation.shown,
    )?;
    checks::columns(&call.relation, &set_columns, &key.column_names())?;
    checks::rights(&call.relation, &key.column_names())?;
    session::try_settings(&call.options.settings)?;
    let session = session::take();
    analyse(call, &set_clause, &key)?;
    if call.relation.persistence == 'u' {
        warning(
            &format!(
                "table {} is unlogged: a crash of the server empties it",
                call.relation.shown
            ),
            Some("ALTER TABLE ... SET LOGGED if its rows matter."),
        );
    }
    let definition = Definition {
        set_clause,
        where_clause: call.where_clause.clone(),
        set_columns,
        key_columns: key.column_names(),
        options: call.options.clone(),
        session,
    };
    let id = job::insert(
        owner,
        &call.relation,
        call.name.as_deref(),
        &definition,
        batch_size,
        sleep_ms,
    )?;
    event::record(id, owner, "define", None, Some(State::Pending.name()))?;
    Ok(id)
}

/// Has PostgreSQL analyse and plan the UPDATE. That evaluates constant expressions, so it is the
/// one place where user code runs in the caller's session.
fn analyse(call: &Call, set_clause: &str, key: &Candidate) -> Result<()> {
    let target = Target {
        schema: call.relation.schema.clone(),
        relation: call.relation.name.clone(),
        key: key.columns.clone(),
        set_clause: set_clause.to_owned(),
        where_clause: call.where_clause.clone(),
    };
    let clauses: Vec<&str> = [Some(set_clause), call.where_clause.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    clauses::explain(&target.unbounded_update(), &clauses)
        .map_err(|error| checks::with_hint(error, &call.relation))
}
