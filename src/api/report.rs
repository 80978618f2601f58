//! `backfill.report`: the record of a job.

use serde_json::{Map, Value, json};

use super::caller::required;
use super::{inspect, session};
use crate::action::{Check, Question};
use crate::error::{Error, Result};
use crate::pg::server;
use crate::pg::spi::{self, Arg};
use crate::report::{Format, Report, render};
use crate::store::{job, slice, walk};

/// Parts of the record that are read as the caller: the views show what the caller may see.
const QUERIES: &[(&str, &str)] = &[
    (
        "job",
        "SELECT pg_catalog.to_jsonb(p) || pg_catalog.jsonb_build_object('relation', p.relation::text, 'owner', p.owner::text)
         FROM backfill.progress p WHERE p.job_id = $1",
    ),
    (
        "seconds",
        "SELECT pg_catalog.to_jsonb(EXTRACT(epoch FROM COALESCE(p.finished_at, pg_catalog.clock_timestamp()) - p.started_at))
         FROM backfill.progress p WHERE p.job_id = $1",
    ),
    (
        "events",
        "SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e) - 'job_id' - 'name' - 'event_id' ORDER BY e.event_id)
         FROM (SELECT v.* FROM backfill.events v WHERE v.job_id = $1 ORDER BY v.at DESC, v.event_id DESC LIMIT 200) e",
    ),
    (
        "failed_rows",
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('relation', f.relation::text, 'key', f.key, 'sqlstate', f.sqlstate,
                                     'message', f.message) ORDER BY f.failed_row_id)
         FROM (SELECT v.* FROM backfill.failed_rows v WHERE v.job_id = $1 ORDER BY v.failed_row_id LIMIT 20) f",
    ),
    (
        "samples",
        "SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s) - 'job_id' - 'name'
                    || pg_catalog.jsonb_build_object('second', EXTRACT(epoch FROM s.at - s.began)) ORDER BY s.at)
         FROM (SELECT v.*, pg_catalog.min(v.at) OVER () AS began FROM backfill.samples v WHERE v.job_id = $1) s",
    ),
    (
        "throttled_by",
        "SELECT pg_catalog.jsonb_object_agg(t.signal, t.seconds) FROM (
             SELECT w.key AS signal, pg_catalog.sum(w.value::pg_catalog.numeric) AS seconds
             FROM backfill.samples v CROSS JOIN LATERAL pg_catalog.jsonb_each_text(v.throttled_by) w
             WHERE v.job_id = $1 GROUP BY w.key) t",
    ),
    (
        "verifications",
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('job_id', p.job_id, 'state', p.state, 'note', p.note,
                                     'rows_done', p.rows_done, 'rows_updated', p.rows_updated, 'finished_at', p.finished_at) ORDER BY p.job_id)
         FROM backfill.progress p WHERE p.verifies = $1",
    ),
    (
        "server",
        "SELECT pg_catalog.jsonb_build_object('database', pg_catalog.current_database(),
                    'version', pg_catalog.current_setting('server_version'), 'extension', backfill.library_version())
         WHERE $1 IS NOT NULL",
    ),
    (
        "made_at",
        "SELECT pg_catalog.to_jsonb(pg_catalog.now()) WHERE $1 IS NOT NULL",
    ),
];

/// Returns the record of a job that the caller may see.
pub fn report(job_id: Option<i64>, format: Option<String>) -> Result<String> {
    let name = required(format, "format")?;
    let Some(format) = Format::parse(&name) else {
        return Err(Error::invalid(format!(
            "format must be \"text\", \"json\", \"markdown\" or \"html\", not \"{name}\""
        ))
        .hint("Leave it out for plain text."));
    };
    let id = inspect::visible_job(job_id)?;
    let mut document = Map::new();
    for (part, sql) in QUERIES {
        document.insert((*part).to_owned(), read(sql, id)?);
    }
    if document["job"].is_null() {
        // The job was forgotten just now.
        return Err(job::unknown(id));
    }
    document.insert("sizes".to_owned(), sizes(id)?);
    let (settings, check) = of_the_owner(id)?;
    document.insert("settings".to_owned(), settings);
    document.insert("check".to_owned(), check);
    let single_rows = json!(slice::are_single_rows(id)?);
    document.insert("single_rows".to_owned(), single_rows);
    let report = Report {
        document: Value::Object(document),
    };
    Ok(render(&report, format))
}

fn read(sql: &'static str, id: i64) -> Result<Value> {
    // Times are in the caller's form.
    let row = spi::fixed_first(sql, &[Arg::Int8(id)])?;
    let text = row.as_ref().and_then(|row| row.get(0)).unwrap_or("null");
    serde_json::from_str(text)
        .map_err(|e| Error::internal(format!("a part of the report cannot be read: {e}")))
}

/// Returns, for callers with the owner's rights, the settings under which the clauses keep their meaning, and what a
/// verification asks.
fn of_the_owner(id: i64) -> Result<(Value, Value)> {
    let job = job::load(id)?.filter(|job| server::may_act_for(job.owner));
    let Some(job) = job else {
        return Ok((Value::Null, Value::Null));
    };
    let settings = json!(session::worth_writing(&job.definition.session)?);
    let check = match job.definition.action.question() {
        Some(Question::Verify { check, .. }) => match check {
            Check::Clause(clause) => json!({"check_clause": clause, "recompute": false}),
            check => json!({"check_clause": null, "recompute": *check == Check::Recompute}),
        },
        _ => Value::Null,
    };
    Ok((settings, check))
}

fn sizes(id: i64) -> Result<Value> {
    let (before, after) = walk::bytes(id)?;
    Ok(json!({
        "heap_before": before.map(|(heap, _)| heap), "indexes_before": before.map(|(_, indexes)| indexes),
        "heap_after": after.map(|(heap, _)| heap), "indexes_after": after.map(|(_, indexes)| indexes),
    }))
}
