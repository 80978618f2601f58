//! `backfill.procedure`: writes a job as a stored procedure that does not need this extension.

use super::caller::{denied, refuse_read_only, refuse_unsound, required};
use super::{require, session, tables};
use crate::error::{Error, Result, sqlstate};
use crate::pg::relation::{self, Relation};
use crate::pg::report::notice;
use crate::pg::{confine, name, read_only, search_path, server, spi, triggers};
use crate::quote::qualified;
use crate::scan::key::Column;
use crate::scan::order::{self, Asked, Pages, Possible};
use crate::store::extension;
use crate::store::job::{self, Job};
use crate::sync::standalone::{KeyColumn, Standalone};
use crate::table::walked;

/// Settings of each transaction, the same as in a worker: see `worker::session`.
const FIXED: &[(&str, &str)] = &[
    ("row_security", "off"),
    ("standard_conforming_strings", "on"),
    // Safe, since the checkpoint commits with its batch: a crash loses both or neither.
    ("synchronous_commit", "off"),
];

/// The kind of script.
#[derive(Clone, Copy)]
enum Style {
    Standalone,
    Batch,
}

/// Returns the script for the job with this id. If `install` is true, the script is also run, with the caller's rights.
pub fn of_job(job_id: Option<i64>, style: Option<String>, install: Option<bool>) -> Result<String> {
    let id = required(job_id, "job_id")?;
    let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    if !server::may_act_for(job.owner) {
        return Err(denied(id));
    }
    refuse_unsound(&job)?;
    write(&job, style, install)
}

/// Like [`of_job`], for the backfill with this name.
pub fn of_name(
    name: Option<String>,
    style: Option<String>,
    install: Option<bool>,
) -> Result<String> {
    let job = require::of_name(&required(name, "name")?)?;
    write(&job, style, install)
}

fn write(job: &Job, style: Option<String>, install: Option<bool>) -> Result<String> {
    let style = match required(style, "style")?.as_str() {
        "standalone" => Style::Standalone,
        "batch" => Style::Batch,
        other => {
            return Err(Error::invalid(format!(
                "style must be \"standalone\" or \"batch\", not \"{other}\""
            ))
            .hint("Leave it out for a procedure that does the whole walk."));
        }
    };
    let install = required(install, "install")?;
    let standalone = describe(job)?;
    if let Some(limit) = job.definition.options.limit_rows {
        notice(
            &format!("the procedure does all rows, not {limit} as option \"limit_rows\" has it"),
            Some("Options \"key_from\" and \"key_to\" hold for a procedure, too."),
        );
    }
    let script = match style {
        Style::Standalone => standalone.script(),
        Style::Batch => standalone.batch(),
    };
    if install {
        read_only::refuse("backfill.procedure()")?;
        refuse_to_install_anothers(job)?;
        confine::own_script(job.owner, || spi::run_for_effect(&script))
            .map_err(|error| with_hint(error, &standalone))?;
    }
    Ok(script)
}

/// Refuses to install another role's procedure: creating it parses its text, and whoever calls it runs that text.
fn refuse_to_install_anothers(job: &Job) -> Result<()> {
    if job.owner == server::current_user() {
        return Ok(());
    }
    let owner = name::of_role(job.owner);
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("cannot install a procedure that role {owner} wrote the clauses of"),
    )
    .hint(format!(
        "Leave out install, read the script, and run it as whoever is to own the procedure; or SET ROLE {owner} first."
    )))
}

fn with_hint(mut error: Error, standalone: &Standalone) -> Error {
    // Context and position would contain the whole script.
    error.context = None;
    error.position = None;
    let hint = match error.sqlstate.as_str() {
        "42P07" | "42723" => format!(
            "One that was installed before is removed by DROP ROUTINE {}; DROP TABLE {};",
            qualified(&standalone.schema, &standalone.procedure),
            qualified(&standalone.schema, &standalone.checkpoint)
        ),
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "It takes the right to create in the table's schema. Leave out install, and have the script run by whoever has it.".to_owned()
        }
        _ => return error,
    };
    error.hint(hint)
}

fn describe(job: &Job) -> Result<Standalone> {
    let definition = &job.definition;
    refuse_read_only(job)?;
    let relation = relation::describe(job.relation)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("table {} no longer exists", job.relation_name),
        )
        .hint("There is nothing to be done.")
    })?;
    relation.refuse_deceptive()?;
    let Some(set_clause) = definition.action.set_clause() else {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "cannot write a procedure for backfill {}, whose rows are {}",
                job.shown(),
                definition.action.as_action().done()
            ),
        )
        .hint("Procedures are written for updates only."));
    };
    let options = &definition.options;
    if options.from.is_some() {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "cannot write a procedure for backfill {}: it has the option \"from\"",
                job.shown()
            ),
        )
        .hint("Put the other table into subqueries: set_clause => 'a = (SELECT ...)', where_clause => 'EXISTS (SELECT ...)'."));
    }
    refuse_children(&relation, options.only())?;
    let bounds = options.bounds().unwrap_or_default();
    let base = job.name.as_ref().unwrap_or(&relation.name);
    let made = |label: &str| name::object_name("backfill", &name::plain(base), label);
    Ok(Standalone {
        quote: name::quoted,
        title: format!("A backfill of table {}", relation.shown),
        job: job.shown(),
        version: extension::LIBRARY.to_owned(),
        schema: relation.schema.clone(),
        table: relation.name.clone(),
        partitioned: relation.kind == 'p',
        columns: relation.columns.iter().map(|c| c.name.clone()).collect(),
        procedure: made("")?,
        checkpoint: made("checkpoint")?,
        function: made("batch")?,
        key: key_of(job, &relation)?,
        key_from: bounds.from,
        key_to: bounds.to,
        set_clause: set_clause.to_owned(),
        where_clause: definition.where_clause.clone(),
        settings: settings_of(job)?,
        batch_size: job.batch_size,
        sleep_ms: job.sleep_ms,
        lock_timeout_ms: options.lock_timeout_ms(),
    })
}

/// Refuses a table that others inherit from, unless it is partitioned: a procedure walks one table, in one order.
fn refuse_children(relation: &Relation, only: bool) -> Result<()> {
    let tables = tables::of(relation, only)?;
    let Some(child) = tables.iter().find(|table| table.oid != relation.oid) else {
        return Ok(());
    };
    if relation.kind == 'p' {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!(
            "cannot write a procedure for table {}, which {} inherits from",
            relation.shown, child.shown
        ),
    )
    .hint("Define a backfill of each table, with the option \"only\": true where others inherit from it, and have a procedure written for each."))
}

/// Returns the columns that order the walk; none: it goes by pages. A procedure may outlive the table's present
/// contents, so where both orders are possible it goes by key. A partitioned table is walked as a whole, which takes a
/// key of its own.
fn key_of(job: &Job, relation: &Relation) -> Result<Vec<KeyColumn>> {
    let definition = &job.definition;
    let named = definition.options.key.as_deref();
    let of = |settled| {
        walked::key(
            relation,
            relation,
            named,
            settled,
            definition.action.set_columns(),
        )
    };
    // The table may have another key by now.
    let key = of(&definition.key_columns).or_else(|_| of(&[]));
    if relation.kind == 'p' {
        return key?.columns.iter().map(key_column).collect();
    }
    let asked = Asked::of(&definition.options, false);
    match order::possible(asked, key, &Defined(relation))? {
        Possible::Key(key, _) | Possible::Either(key) => {
            key.columns.iter().map(key_column).collect()
        }
        Possible::Pages(_) => Ok(Vec::new()),
    }
}

/// A table with a stored definition: whether the clauses suit a walk in physical order was checked when it was defined.
struct Defined<'a>(&'a Relation);

impl Pages for Defined<'_> {
    fn table(&self) -> &str {
        &self.0.shown
    }

    fn unsound(&self) -> Result<Option<String>> {
        Ok(None)
    }
}
fn key_column(column: &Column) -> Result<KeyColumn> {
    let schema = column.operator_schema.as_deref();
    Ok(KeyColumn {
        name: column.name.clone(),
        type_name: name::of_type(column.type_oid.into())?,
        collation: column
            .collation
            .as_ref()
            .map(|(schema, name)| qualified(schema, name)),
        nulls_first: column.nulls_first != column.descending,
        operators: schema
            .filter(|schema| *schema != "pg_catalog")
            .map(name::quoted),
    })
}

/// Returns the settings of the defining session, those of the job's options, and the fixed ones.
fn settings_of(job: &Job) -> Result<Vec<(String, String)>> {
    let definition = &job.definition;
    let mut settings = session::worth_writing(&definition.session)?;
    settings.extend(definition.options.settings.clone());
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    if let Some(path) = settings.get_mut("search_path") {
        *path = search_path::with_temporary_last(path);
    }
    settings.extend(FIXED.iter().copied().map(owned));
    if definition.options.skips_triggers() {
        settings.extend([owned(triggers::SETTING)]);
    }
    Ok(settings.into_iter().collect())
}
