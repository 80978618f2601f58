//! `backfill.redefine`: other clauses for a job that has failed or is paused. It goes on from its checkpoint with
//! these; rows that are done are not done again.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::call::{Call, Work};
use super::caller::{locked_job, refuse_read_only};
use super::subject::Subject;
use super::{approve, rehearsed, tables};
use crate::action::Changes;
use crate::action::statement::analysed;
use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::model::state::State;
use crate::pg::report::notice;
use crate::pg::{clauses, relation, server};
use crate::scan::{clause, sql};
use crate::store::job::{self, Job};
use crate::store::{approval, event, origin, rights, slice, walk};
use crate::stranger::errand::{Errand, carry_out};

/// Replaces the clauses of a job; a clause that is not given stays as it is.
pub fn redefine(
    job_id: Option<i64>,
    set_clause: Option<String>,
    where_clause: Option<String>,
) -> Result<()> {
    let job = locked_job(job_id, "backfill.redefine()")?;
    refuse_read_only(&job)?;
    refuse_state(&job)?;
    let changed = changed(&job, set_clause, where_clause)?;
    let (before, after) = (&job.definition, &changed.definition);
    let differences: Vec<_> = [
        (
            "set_clause",
            before.action.set_clause(),
            after.action.set_clause(),
        ),
        (
            "where_clause",
            before.where_clause.as_deref(),
            after.where_clause.as_deref(),
        ),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .collect();
    if differences.is_empty() {
        notice(
            &format!("backfill {} has these clauses already", job.shown()),
            None,
        );
        return Ok(());
    }
    if before.where_clause != after.where_clause {
        refuse_pages(&job)?;
    }
    rights::require_execute("define")?;
    approve::refuse_unasked(&job, "redefine")?;
    if approval::asked(job.id)?.is_some() {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("permission denied to redefine backfill {}: it was approved as it is", job.shown()),
        )
        .hint(format!(
            "SELECT backfill.cancel({}), and define another one, with a where_clause that leaves out the rows that are done: its start is approved anew.",
            job.id
        )));
    }
    rehearsed::require_dry_run(&changed)?;
    let used = carry_out(RedefinitionOf {
        subject: Subject::of(&changed),
        key: slice::key_columns(job.id)?,
        batch_size: job.batch_size,
    })?;
    for (table, columns) in used {
        slice::set_used(job.id, Oid::from(table), &columns)?;
    }
    job::set_clauses(job.id, after)?;
    let me = server::current_user();
    for (what, old, new) in differences {
        let none = "NULL".to_owned();
        let (old, new) = (old.unwrap_or(&none), new.unwrap_or(&none));
        event::record(
            job.id,
            me,
            &format!("redefine {what}"),
            Some(old),
            Some(new),
        )?;
    }
    let values = before.action != after.action;
    let rows = match before.where_clause == after.where_clause {
        true => slice::updated(job.id)?,
        // Rows that did not match before may match now, but have been passed.
        false => slice::passed(job.id)?,
    };
    if rows > 0 {
        let what = if rows == 1 { "row" } else { "rows" };
        let note = format!("redefined after {rows} {what}: see backfill.events");
        walk::add_note(job.id, &note)?;
        event::redefined_midway(job.id, me, values, rows)?;
    }
    Ok(())
}

/// Returns the job with its new clauses.
fn changed(job: &Job, set_clause: Option<String>, where_clause: Option<String>) -> Result<Job> {
    for (what, text) in [("set_clause", &set_clause), ("where_clause", &where_clause)] {
        if let Some(text) = text {
            clause::check(what, text)?;
        }
    }
    if set_clause.is_none() && where_clause.is_none() {
        return Err(
            Error::invalid("neither set_clause nor where_clause is given")
                .hint("Give the one that is to be another; what is not given stays as it is."),
        );
    }
    let trim = |text: String| clause::trimmed(&text).to_owned();
    let mut changed = job.clone();
    if let Some(text) = set_clause {
        let Some(update) = changed.definition.action.update_mut() else {
            return Err(Error::invalid(format!(
                "set_clause is given for backfill {}, whose rows are {}",
                job.shown(),
                job.definition.action.as_action().done()
            ))
            .hint("Give where_clause alone."));
        };
        update.set_clause = trim(text);
    }
    if let Some(text) = where_clause.map(trim) {
        let update = changed.definition.action.update_mut();
        changed.definition.where_clause = match update.and_then(|update| update.joined.as_mut()) {
            Some(joined) => {
                joined.on = text;
                Some(joined.matches())
            }
            None => Some(text),
        };
    }
    Ok(changed)
}

/// Refuses a job in another state than paused or failed: only these can go on with other clauses.
fn refuse_state(job: &Job) -> Result<()> {
    if job.standing != Standing::Here {
        return Err(origin::refused(
            "redefine",
            &job.shown(),
            job.id,
            job.standing,
        ));
    }
    let (id, state) = (job.id, job.state());
    let hint = match state {
        State::Paused | State::Failed => return Ok(()),
        State::Running => format!("SELECT backfill.pause({id}) first."),
        State::Pending => format!(
            "Nothing of it is done: SELECT backfill.cancel({id}), and define it with the other clauses."
        ),
        State::Pausing => "Come back when it is paused.".to_owned(),
        _ => "Start another job, with a where_clause that leaves out the rows that are done."
            .to_owned(),
    };
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "cannot redefine backfill {}: it {}",
            job.shown(),
            state.phrase(false)
        ),
    )
    .hint(hint))
}

/// Refuses another WHERE clause in physical order, where it alone tells which rows are done.
fn refuse_pages(job: &Job) -> Result<()> {
    if !slice::are_in_physical_order(job.id)? {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "cannot redefine where_clause of backfill {}: it goes in physical order, where that tells which rows are done",
            job.shown()
        ),
    )
    .hint(format!(
        "SELECT backfill.cancel({}), and start another job with a where_clause that leaves out the rows that are done.",
        job.id
    )))
}

/// Checks the new clauses of a job as `start` does, in a session of the owner's. Returns the columns that they use,
/// with their numbers, for each table.
#[derive(Serialize, Deserialize)]
pub struct RedefinitionOf {
    subject: Subject,
    /// Columns of the key that has ordered the walk so far.
    key: Vec<String>,
    /// Rows per commit at most.
    batch_size: i32,
}

impl Errand for RedefinitionOf {
    const NAME: &'static str = "redefine";
    type Answer = BTreeMap<u32, BTreeMap<String, i16>>;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Self::Answer> {
        let of = self.subject.open()?;
        of.under_its_settings(|| {
            let mut changes = of.action.changes();
            if let Changes::Update(update) = &mut changes {
                update.set_columns = clauses::set_columns(&update.set_clause)?;
                refuse_other_columns(of.set_columns(), &update.set_columns)?;
            }
            if let Some(clause) = &of.where_clause {
                clauses::check_expression("where_clause", clause)?;
            }
            let call = Call {
                relation: of.relation.clone(),
                work: Some(Work::of(&of.action)),
                where_clause: of.where_clause.clone(),
                joined: None,
                name: None,
                options: of.options.clone(),
            };
            tables::check(&call, &changes, self.batch_size)?;
            if let Some(name) = changes
                .set_columns()
                .iter()
                .find(|name| self.key.contains(name))
            {
                return Err(Error::invalid(format!(
                    "set_clause writes column \"{name}\", which orders what has been walked so far"
                ))
                .hint("Leave it out."));
            }
            tables::of(&of.relation, of.options.only())?
                .iter()
                .map(|table| used(&call, &changes, table))
                .collect()
        })
    }
}

fn used(
    call: &Call,
    changes: &Changes,
    table: &relation::Relation,
) -> Result<(u32, BTreeMap<String, i16>)> {
    let alias = (table.oid != call.relation.oid).then_some(call.relation.name.as_str());
    let name = sql::name_of(&table.schema, &table.name, alias);
    let condition = call.where_clause.as_deref().unwrap_or("true");
    let action = changes.as_action();
    let statement = analysed(action, &table.alone(alias), &name, Some(condition));
    let used = clauses::columns_used(&statement)?;
    let columns = table
        .columns
        .iter()
        .filter(|column| used.contains(&column.number));
    let numbered = columns
        .map(|column| (column.name.clone(), column.number))
        .collect();
    Ok((table.oid.to_u32(), numbered))
}

/// Refuses to set other columns: in the end all columns of the old list must be right in the rows already done, and no
/// others set.
fn refuse_other_columns(before: &[String], after: &[String]) -> Result<()> {
    let sorted = |columns: &[String]| {
        let mut columns = columns.to_vec();
        columns.sort();
        columns
    };
    if sorted(before) == sorted(after) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "set_clause sets {}, but the rows that are done have been given {}",
        after.join(", "),
        before.join(", ")
    ))
    .hint("Set the same columns, otherwise. For another column start another job."))
}
