//! `backfill.alter`: changes the pace and the options of a job.

use std::collections::BTreeMap;

use serde_json::Value;

use super::caller::{locked_job, required};
use super::start::Pace;
use super::{approve, changed, launch, session};
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::model::state::State;
use crate::pg::server;
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
    approve::check_altered(&job, &changed, typed)?;
    for (what, old, new) in differences {
        event::record(
            job.id,
            server::current_user(),
            &format!("alter {what}"),
            Some(&old),
            Some(&new),
        )?;
    }
    if means_something_else(&before.settings, &after.settings) {
        let rows = slice::updated(job.id)?;
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

/// True if the clauses may yield something else with these settings: because of a setting of the application's own, or
/// one that is taken from the defining session for that reason.
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

/// Lists what is altered: name, old value, new value.
fn differences(job: &job::Job, pace: Pace, after: &Options) -> Vec<(&'static str, String, String)> {
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
