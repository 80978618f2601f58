//! `backfill.alter`: changes the pace and the options of a job.

use std::collections::BTreeMap;

use serde_json::Value;

use super::caller::{locked_job, required};
use super::start::Pace;
use super::{approve, changed, launch, rehearsed, session};
use crate::action::Question;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::model::state::State;
use crate::pg::server;
use crate::store::job::Job;
use crate::store::{event, failed_row, job, rights, slice, walk};

/// Options that are run, or that decide what the clauses mean.
const TEXTS: &[&str] = &["on_end", "settings", "throttle_query"];

/// Changes what is given, with effect from the next batch. `typed`: whether the call is a client's own statement.
pub fn alter(
    job_id: Option<i64>,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    options: Option<Value>,
    typed: bool,
) -> Result<()> {
    let job = locked_job(job_id, "backfill.alter()")?;
    let change = required(options, "options")?;
    let over = match job.state() {
        // Failed rows of a completed job may be tried again.
        State::Completed => failed_row::count(job.id)? == 0,
        state => state == State::Cancelled,
    };
    if over {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "cannot alter backfill {}: it {}",
                job.shown(),
                job.state().phrase(false)
            ),
        )
        .hint(
            "Only a job that has not ended can be altered. Start another with backfill.start().",
        ));
    }
    let pace = Pace::check(
        batch_size.unwrap_or(job.batch_size),
        sleep_ms.unwrap_or(job.sleep_ms),
    )?;
    let before = &job.definition.options;
    let after = changed::check(&job, before, before.altered(&change)?)?;
    let differences = differences(&job, pace, &after);
    let changed: Vec<&str> = differences.iter().map(|(what, ..)| *what).collect();
    if changed.iter().any(|name| TEXTS.contains(name)) {
        rights::require_execute("define")?;
    }
    refuse_proof(&job, &changed)?;
    approve::check_altered(&job, &changed, typed)?;
    let other_meaning = means_something_else(&before.settings, &after.settings);
    if other_meaning && job.state() != State::Pending {
        rehearsed::require_dry_run(&job.with_options(&after))?;
    }
    for (what, old, new) in differences {
        event::record(
            job.id,
            server::current_user(),
            &format!("alter {what}"),
            Some(&old),
            Some(&new),
        )?;
    }
    if other_meaning {
        // They decide which rows match as well as what becomes of them: those that were only passed may be meant now.
        let rows = slice::passed(job.id)?;
        if rows > 0 {
            let rows_shown = if rows == 1 { "row" } else { "rows" };
            let note = format!("settings altered after {rows} {rows_shown}: see backfill.events");
            walk::add_note(job.id, &note)?;
            event::redefined_midway(job.id, server::current_user(), true, rows)?;
        }
    }
    job::set_pace(job.id, pace.batch_size, pace.sleep_ms, &after)?;
    launch::wake(&job, false);
    if change.get("workers").is_some() && job.state() == State::Running {
        let now = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
        if now.missing_workers() > 0 {
            launch::workers(&now)?;
        }
    }
    Ok(())
}

/// Refuses to change what has been looked at: a dry run and a verification prove what they were started for, and a job that has
/// completed is complete for the rows that it was started for.
fn refuse_proof(job: &Job, changed: &[&str]) -> Result<()> {
    let action = &job.definition.action;
    let read_only = action.is_read_only();
    let fixed: &[&str] = match job.state() {
        // It is only defined; but a verification is started where it is.
        State::Pending if !matches!(action.question(), Some(Question::Verify { .. })) => {
            return Ok(());
        }
        _ if read_only => &["key_from", "key_to", "limit_rows", "settings"],
        State::Completed => &["key_from", "key_to", "limit_rows"],
        _ => return Ok(()),
    };
    let Some(what) = changed.iter().find(|name| fixed.contains(name)) else {
        return Ok(());
    };
    let shown = job.shown();
    let why = if read_only {
        "it only looks, and answers for what it was started with"
    } else {
        "it completed with what it was started with"
    };
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!("cannot alter {what} of backfill {shown}: {why}"),
    )
    .hint("Start another one with other options."))
}

/// Whether the clauses may give something else under the one than under the other: a setting of the application's own, or one
/// that is taken from the defining session for that reason.
fn means_something_else(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> bool {
    let matters = |name: &&String| name.contains('.') || session::changes_meaning(name);
    let names = before.keys().chain(after.keys());
    names
        .filter(matters)
        .any(|name| before.get(name) != after.get(name))
}

/// What is altered, from what, to what.
fn differences(job: &Job, pace: Pace, after: &Options) -> Vec<(&'static str, String, String)> {
    let mut all = vec![
        (
            "batch_size",
            job.batch_size.to_string(),
            pace.batch_size.to_string(),
        ),
        (
            "sleep_ms",
            job.sleep_ms.to_string(),
            pace.sleep_ms.to_string(),
        ),
    ];
    all.retain(|(_, old, new)| old != new);
    all.extend(job.definition.options.differences(after));
    all
}
