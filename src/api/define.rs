//! `backfill.define`: checks a backfill from end to end, and stores it.

use std::collections::BTreeMap;

use super::call::{self, Call, Request, Work};
use super::caller::required;
use super::existing::{self, same_job};
use super::hints::after_cancel;
use super::{
    after, archive, bounds, copied, definition_lock, executed, on_end, session, sources, tables,
    throttles,
};
use crate::action::{Changes, Delete, Kind, Look, Question, Update};
use crate::error::Result;
use crate::guc;
use crate::model::options::Options;
use crate::model::state::State;
use crate::pg::report::notice;
use crate::pg::{clauses, confine, parts, server};
use crate::store::event;
use crate::store::job::{self, Definition};

/// Batch size of a job that was defined and not started.
pub const DEFAULT_BATCH_SIZE: i32 = 1000;

/// Stores a definition, or finds the one that an earlier call with the same name stored. Returns its id.
pub fn define(request: Request) -> Result<i64> {
    begin(request, "backfill.define()")
}

/// Like [`define`], for the entry point `function`.
pub fn begin(request: Request, function: &str) -> Result<i64> {
    let call = call::check(request, function)?;
    let work = required(call.work.clone(), "set_clause")?;
    definition_lock::take(call.relation.oid)?;
    if let Some(known) = same_job(&call, &work)? {
        let differ = !known
            .definition
            .options
            .differences(&call.options)
            .is_empty();
        let hint = format!(
            "Its options stay as they are: SELECT backfill.alter({}, ...) changes them.",
            known.id
        );
        let hint = match known.state() {
            State::Cancelled => Some(after_cancel(&known)),
            State::Completed => None,
            _ => differ.then_some(hint),
        };
        notice(
            &format!(
                "backfill {} {}",
                existing::with_owner(&known),
                known.state().phrase(true)
            ),
            hint.as_deref(),
        );
        return Ok(known.id);
    }
    store(&call, &work, DEFAULT_BATCH_SIZE, 0)
}

/// Checks the clauses as the caller, and stores the definition; returns its id.
pub fn store(call: &Call, work: &Work, batch_size: i32, sleep_ms: i32) -> Result<i64> {
    let definition = checked(call, work, batch_size)?;
    let owner = server::current_user();
    let id = job::insert(
        owner,
        &call.relation,
        call.name.as_deref(),
        &definition,
        batch_size,
        sleep_ms,
    )?;
    event::change(id, owner, "define", None, State::Pending)?;
    Ok(id)
}

/// Checks the caller's own text from end to end, for commits of `batch_size` rows; returns the definition to be stored.
pub fn checked(call: &Call, work: &Work, batch_size: i32) -> Result<Definition> {
    throttles::check(&call.options.throttles)?;
    after::check(&call.options.after, call.name.as_deref())?;
    let (changes, key_columns, options) =
        confine::own_text(server::current_user(), || check(call, work, batch_size))?;
    let mut session = session::take();
    if server::is_superuser() && guc::SUPERUSER_JOBS.get() {
        // The job's workers check this setting again.
        session.insert("backfill.allow_superuser_jobs".to_owned(), "on".to_owned());
    }
    Ok(Definition {
        action: action(call, changes),
        where_clause: call.where_clause.clone(),
        key_columns,
        options,
        session,
    })
}

/// Returns the changes that a call asks for, or a look at them.
pub fn action(call: &Call, changes: Changes) -> Kind {
    match call.options.dry_run() {
        true => Kind::Look(Look {
            of: changes,
            question: Question::DryRun,
        }),
        false => changes.into(),
    }
}

/// Returns the changes that a call asks for, as the clauses and the tables are now. The caller's own text.
pub fn changes(call: &Call, work: &Work) -> Result<Changes> {
    Ok(match work {
        Work::Set(set_clause) => Changes::Update(Update {
            set_columns: clauses::set_columns(set_clause)?,
            set_clause: set_clause.clone(),
            joined: call.joined.clone(),
        }),
        Work::Delete => Changes::Delete(Delete {
            archive: archive::of(call)?,
        }),
        Work::Copy { target, asked } => Changes::Copy(copied::of(call, *target, asked)?),
        Work::Execute(statement) => Changes::Execute(executed::of(call, statement)?),
    })
}

/// Checks the clauses and options; returns the changes, the columns that order the walk, and the options to be stored.
fn check(call: &Call, work: &Work, batch_size: i32) -> Result<(Changes, Vec<String>, Options)> {
    if let Some(joined) = &call.joined {
        parts::from_item(&joined.from)?;
    }
    let changes = changes(call, work)?;
    if let Some(where_clause) = &call.where_clause {
        clauses::check_expression("where_clause", where_clause)?;
    }
    session::try_settings(&call.options.settings)?;
    throttles::check_query(call.options.throttles.query())?;
    on_end::check(call.options.on_end.as_deref())?;
    let key_columns = tables::check(call, &changes, batch_size)?;
    if let Some(update) = changes.update().filter(|_| !call.options.dry_run()) {
        let where_clause = call.where_clause.as_deref();
        let (relation, key) = (&call.relation, key_columns.as_slice());
        let changing = sources::of(relation, update, where_clause, key)?;
        sources::say(changing.as_ref());
    }
    let table = (call.relation.oid, call.relation.shown.as_str());
    let options = bounds::settle(table, &key_columns, call.options.clone(), &BTreeMap::new())?;
    Ok((changes, key_columns, options))
}
