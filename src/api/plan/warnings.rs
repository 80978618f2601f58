//! The warnings of a plan: what is easily forgotten.

use pgrx::pg_sys::Oid;

use super::Line;
use super::walk::Way;
use crate::api::backfill::Backfill;
use crate::api::start::Pace;
use crate::api::{hazards, sources};
use crate::error::Result;
use crate::guc;
use crate::model::fate::Fate;
use crate::pg::traps::{self, Finding};
use crate::pg::{physical, server, slots};

/// Number of tables that are named in one warning.
const NAMED: usize = 3;

/// Returns warnings about the table and its partitions, the clauses, and the server as it is now.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<Vec<Line>> {
    let line =
        |item: &str, value: String, advice: &str| Line::new("warnings", item, value).advice(advice);
    let clause = backfill.where_clause.as_deref();
    let (relation, options) = (&backfill.relation, &backfill.options);
    let changes = backfill.action.changes();
    let hazards = hazards::of(relation, &changes, clause, options)?;
    let mut lines: Vec<Line> = hazards
        .into_iter()
        .map(|found| line(found.item, found.value, &found.advice))
        .collect();
    let changing = match changes.update() {
        Some(update) => sources::of(relation, update, clause, &backfill.key_columns)?,
        None => None,
    };
    lines.extend(changing.map(|found| line("source changes", found.columns, &found.advice)));
    lines.extend(of_tables(backfill, ways)?);
    if let Some(text) = undone(backfill, ways)? {
        lines.push(line(
            "a second run",
            text,
            "A job goes on where it was, but another one does all rows again: give it a name, so that a repeated call finds the first.",
        ));
    }
    if ways.iter().any(|way| way.table.persistence == 'u') {
        lines.push(line(
            "unlogged table",
            "it is empty after a crash".to_owned(),
            "A job on it ends there.",
        ));
    }
    let one_pass = ways
        .iter()
        .any(|way| way.waves.is_err() && way.matching > 0.5 * way.rows);
    let fate = backfill.action.as_action().fate();
    let one_pass = one_pass && fate == Fate::Changed;
    let full = ways.iter().all(|way| way.shape.fillfactor >= 100);
    if one_pass && full && ways.iter().all(|way| way.facts.blocked_by.is_none()) {
        lines.push(line(
            "fillfactor",
            "pages are full: new versions go elsewhere".to_owned(),
            "The table about doubles until VACUUM; what it takes then is used again.",
        ));
    }
    lines.extend(traps::of_server()?.into_iter().map(as_line));
    lines.extend(of_workers(backfill)?);
    if pace.batch_size > 50_000 && backfill.options.target_ms.is_none() {
        lines.push(line(
            "batch size",
            format!("{} rows a commit", pace.batch_size),
            "Whoever wants a row of a batch waits for its end: option \"target_ms\" bounds that.",
        ));
    }
    Ok(lines)
}

fn as_line(found: Finding) -> Line {
    Line::new("warnings", found.item, found.value).advice(found.advice)
}

/// Returns the traps of a table, for what the backfill does to its rows.
pub fn traps_of(backfill: &Backfill, table: Oid) -> Result<Vec<Finding>> {
    let fire = !backfill.options.skips_triggers();
    match backfill.action.as_action().fate() {
        Fate::Changed => traps::of_table(table, backfill.set_columns(), fire),
        Fate::Removed => traps::of_delete(table, fire),
        Fate::Kept => traps::of_any(table),
    }
}

/// Returns warnings about each table; the same warning about several partitions appears once.
fn of_tables(backfill: &Backfill, ways: &[Way]) -> Result<Vec<Line>> {
    let mut all: Vec<(Finding, Vec<String>)> = Vec::new();
    let root = backfill.relation.oid;
    let leaves = ways.iter().filter(|way| way.table.oid != root);
    let tables = std::iter::once((root, None))
        .chain(leaves.map(|way| (way.table.oid, Some(&way.table.shown))));
    for (oid, name) in tables {
        let found = traps_of(backfill, oid)?;
        for found in found {
            match all.iter_mut().find(|(known, _)| known.item == found.item) {
                Some((_, names)) => names.extend(name.cloned()),
                None => all.push((found, name.into_iter().cloned().collect())),
            }
        }
    }
    let shown = |(mut found, names): (Finding, Vec<String>)| {
        if !names.is_empty() {
            let more = names.len().saturating_sub(NAMED);
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let named = names[..names.len().min(NAMED)].join(", ");
            found.value = format!("{} (in {named}{rest})", found.value);
        }
        as_line(found)
    };
    Ok(all.into_iter().map(shown).collect())
}

/// Returns why another job would do rows again that are already done, if it would.
fn undone(backfill: &Backfill, ways: &[Way]) -> Result<Option<String>> {
    let Some(clause) = backfill.where_clause.as_deref() else {
        return Ok(Some(
            "no where_clause tells rows that are done from others".to_owned(),
        ));
    };
    match backfill.action.as_action().fate() {
        Fate::Changed => {}
        Fate::Removed => return Ok(None),
        Fate::Kept => {
            return Ok(Some("rows that are done look like others".to_owned()));
        }
    }
    for way in ways {
        let known_as = way.target.alias.as_deref();
        if !physical::can_fall_out(&way.table, known_as, clause, backfill.set_columns())? {
            return Ok(Some(
                "set_clause sets no column that where_clause reads".to_owned(),
            ));
        }
    }
    Ok(None)
}

/// Warns if there is no room for the job's workers.
fn of_workers(backfill: &Backfill) -> Result<Vec<Line>> {
    let wanted = i64::from(backfill.options.workers());
    let (used, most) = (slots::in_use()?, i64::from(guc::MAX_WORKERS.get()));
    let (processes, all) = server::background_workers();
    let mut lines = Vec::new();
    if most - used < wanted {
        lines.push(
            Line::new(
                "warnings",
                "worker slots",
                format!("{used} of {most} are taken, {wanted} wanted"),
            )
            .advice("It waits for the others, or raise backfill.max_workers."),
        );
    }
    if i64::from(all - processes) < wanted {
        lines.push(
            Line::new(
                "warnings",
                "worker processes",
                format!("{processes} of {all} are taken, {wanted} wanted"),
            )
            .advice("Raise max_worker_processes, which takes a restart."),
        );
    }
    Ok(lines)
}
