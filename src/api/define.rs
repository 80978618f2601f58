//! `backfill.define`: checks a backfill from end to end, and stores it.

use pgrx::pg_sys::Oid;
use serde_json::Value;

use super::caller::required;
use super::session;
use crate::catalog::event;
use crate::catalog::job::{self, Definition, Job};
use crate::error::{Error, Result, sqlstate};
use crate::job::options::Options;
use crate::job::state::State;
use crate::pg::lock::Lock;
use crate::pg::relation::{self, Relation};
use crate::pg::report::{notice, warning};
use crate::pg::{clauses, index, server, spi, txn};
use crate::plan::sql::Target;
use crate::plan::{clause, key};

/// The arguments that `define` and `start` share, as they came.
pub struct Request {
    /// The table.
    pub relation: Option<Oid>,
    /// The SET list.
    pub set_clause: Option<String>,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// What makes the call repeatable.
    pub name: Option<String>,
    /// The options.
    pub options: Option<Value>,
}

/// A request whose arguments were found to be sound one by one.
pub struct Call {
    /// The table.
    pub relation: Relation,
    /// The SET list.
    pub set_clause: Option<String>,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// The options.
    pub options: Options,
}

/// Pace of a job that was defined and not started.
const DEFAULT_BATCH_SIZE: i32 = 1000;

/// Stores a definition, or finds the one that an earlier call with the same name stored.
pub fn define(request: Request) -> Result<i64> {
    let call = check(request, "backfill.define()")?;
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

/// Checks the arguments that need no other.
pub fn check(request: Request, function: &str) -> Result<Call> {
    server::refuse_on_standby(function)?;
    if txn::in_security_definer() {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("cannot execute {function} within a SECURITY DEFINER function"),
        )
        .hint("The job would belong to the function's owner. Call it directly, or declare the function SECURITY INVOKER."));
    }
    let oid = required(request.relation, "relation")?;
    let options = Options::parse(&required(request.options, "options")?)?;
    let name = request.name.map(check_name).transpose()?;
    let relation = relation::describe(oid)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {oid} does not exist"),
        )
        .hint("Give the name of a table.")
    })?;
    check_kind(&relation)?;
    for (what, text) in [
        ("set_clause", &request.set_clause),
        ("where_clause", &request.where_clause),
    ] {
        if let Some(text) = text {
            clause::check(what, text)?;
        }
    }
    let trim = |text: String| text.trim().to_owned();
    Ok(Call {
        relation,
        set_clause: request.set_clause.map(trim),
        where_clause: request.where_clause.map(trim),
        name,
        options,
    })
}

fn check_name(name: String) -> Result<String> {
    if name.trim().is_empty() {
        return Err(Error::new(sqlstate::INVALID_NAME, "name is empty")
            .hint("Leave it NULL, or give a name that makes the call repeatable."));
    }
    if name.len() > 63 {
        return Err(Error::new(
            sqlstate::INVALID_NAME,
            format!("name is {} bytes long", name.len()),
        )
        .hint("A name has 63 bytes at most, like PostgreSQL's own."));
    }
    Ok(name)
}

/// Only ordinary tables are walked.
fn check_kind(relation: &Relation) -> Result<()> {
    let shown = &relation.shown;
    let wrong = |what: &str, hint: &str| {
        let message = format!("cannot backfill {what} {shown}");
        Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message).hint(hint))
    };
    const NAME_THE_TABLE: &str = "Name the table that holds the rows.";
    match relation.kind {
        'r' => {}
        'p' => return wrong("partitioned table", "Start one job per partition for now."),
        'v' => return wrong("view", NAME_THE_TABLE),
        'm' => {
            return wrong(
                "materialized view",
                "Change its query or its tables, then REFRESH MATERIALIZED VIEW.",
            );
        }
        'f' => {
            return wrong(
                "foreign table",
                "Run the backfill in the server that holds the table.",
            );
        }
        'i' | 'I' => return wrong("index", NAME_THE_TABLE),
        'S' => return wrong("sequence", NAME_THE_TABLE),
        'c' => return wrong("composite type", NAME_THE_TABLE),
        't' => return wrong("TOAST table", NAME_THE_TABLE),
        _ => return wrong("relation", "Only tables can be backfilled."),
    }
    if relation.internal {
        return wrong(
            "system table",
            "Tables of the system and of this extension are not for backfills.",
        );
    }
    if relation.persistence == 't' {
        return wrong(
            "temporary table",
            "A worker cannot see another session's temporary table. Use an ordinary or UNLOGGED one.",
        );
    }
    Ok(())
}

/// The job that an earlier call with this name left, if it was for the same thing.
pub fn same_job(call: &Call, set_clause: &str) -> Result<Option<Job>> {
    let Some(name) = &call.name else {
        return Ok(None);
    };
    let Some(known) = by_name(name)? else {
        return Ok(None);
    };
    let definition = &known.definition;
    let difference = if known.relation != call.relation.oid {
        Some(format!("It is on {}.", known.relation_name))
    } else if definition.set_clause != set_clause {
        Some(format!("Its set_clause is: {}", definition.set_clause))
    } else if definition.where_clause != call.where_clause {
        let clause = definition.where_clause.as_deref().unwrap_or("NULL");
        Some(format!("Its where_clause is: {clause}"))
    } else {
        None
    };
    match difference {
        None => Ok(Some(known)),
        Some(detail) => Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!(
                "backfill {} already exists with another definition",
                known.shown()
            ),
        )
        .detail(detail)
        .hint(format!(
            "Choose another name, or SELECT backfill.forget({}) once it has ended.",
            known.id
        ))),
    }
}

/// The job with this name that the caller may act on; his own before others'.
pub fn by_name(name: &str) -> Result<Option<Job>> {
    let me = server::current_user();
    let mut known: Vec<Job> = job::named(name)?
        .into_iter()
        .filter(|job| server::may_act_for(job.owner))
        .collect();
    known.sort_by_key(|job| job.owner != me);
    Ok(known.into_iter().next())
}

/// Checks the clauses as the caller, and stores the definition.
pub fn store(call: &Call, set_clause: String, batch_size: i32, sleep_ms: i32) -> Result<i64> {
    let set_columns = clauses::set_columns(&set_clause)?;
    if let Some(where_clause) = &call.where_clause {
        clauses::check_expression(where_clause)?;
    }
    let key = key::choose(
        index::candidates(call.relation.oid)?,
        call.options.key.as_deref(),
        &call.relation.shown,
    )?;
    check_columns(&call.relation, &set_columns, &key.column_names())?;
    check_rights(&call.relation, &key.column_names())?;
    session::try_settings(&call.options.settings)?;
    let target = Target {
        schema: call.relation.schema.clone(),
        relation: call.relation.name.clone(),
        key: key.columns.clone(),
        set_clause: set_clause.clone(),
        where_clause: call.where_clause.clone(),
    };
    let clauses: Vec<&str> = [Some(set_clause.as_str()), call.where_clause.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    clauses::explain(&target.unbounded_update(), &clauses)
        .map_err(|error| with_hint(error, &call.relation))?;
    if call.relation.persistence == 'u' {
        warning(
            &format!(
                "table {} is unlogged: a crash of the server empties it",
                call.relation.shown
            ),
            Some("ALTER TABLE … SET LOGGED if its rows matter."),
        );
    }
    let definition = Definition {
        set_clause,
        where_clause: call.where_clause.clone(),
        set_columns,
        key_columns: key.column_names(),
        options: call.options.clone(),
        session: session::take(),
    };
    let id = job::insert(
        call.relation.oid,
        call.name.as_deref(),
        &definition,
        batch_size,
        sleep_ms,
    )?;
    event::record(
        id,
        server::current_user(),
        "define",
        None,
        Some(State::Pending.name()),
    )?;
    Ok(id)
}

/// Adds what to do to PostgreSQL's own errors about the clauses.
fn with_hint(error: Error, relation: &Relation) -> Error {
    if error.hint.is_some() {
        return error;
    }
    let hint = match error.sqlstate.as_str() {
        sqlstate::UNDEFINED_COLUMN => {
            let names: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
            format!("Columns of {}: {}.", relation.shown, names.join(", "))
        }
        sqlstate::FEATURE_NOT_SUPPORTED => "Leave it out of set_clause.".to_owned(),
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "The batches run with your rights: ask for the privilege, or SET ROLE to the table's owner.".to_owned()
        }
        _ => format!("It was checked as UPDATE {} SET … WHERE ….", relation.shown),
    };
    error.hint(hint)
}

fn check_columns(relation: &Relation, set: &[String], key: &[String]) -> Result<()> {
    for name in set {
        if key.contains(name) {
            return Err(Error::invalid(format!(
                "set_clause writes column \"{name}\", which is part of the key that orders the walk"
            ))
            .hint("Rows would move while they are walked. Choose another unique index with the option \"key\"."));
        }
        let Some(column) = relation.columns.iter().find(|c| c.name == *name) else {
            continue;
        };
        if column.generated || column.identity_always {
            let what = if column.generated {
                "a generated"
            } else {
                "an identity (ALWAYS)"
            };
            return Err(
                Error::invalid(format!("set_clause writes {what} column \"{name}\""))
                    .hint("PostgreSQL computes it. Leave it out."),
            );
        }
    }
    Ok(())
}

/// The walk reads the key, so it takes SELECT on it besides UPDATE; and no policy may hide rows.
fn check_rights(relation: &Relation, key: &[String]) -> Result<()> {
    let policies = relation::has_policies_for_me(relation.oid);
    if policies {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("row security policies of table {} apply to you", relation.shown),
        )
        .hint("They could hide rows from the backfill. Define it as the table's owner or as a role with BYPASSRLS; with FORCE ROW LEVEL SECURITY only the latter."));
    }
    for column in key {
        let row = spi::first(
            "SELECT pg_catalog.has_column_privilege($1, $2, 'SELECT')",
            &[spi::Arg::Oid(relation.oid), spi::Arg::Text(column)],
        )?;
        if !row.is_some_and(|row| row.bool(0)) {
            return Err(Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!(
                    "permission denied for column \"{column}\" of table {}",
                    relation.shown
                ),
            )
            .hint(format!(
                "The walk reads the key: GRANT SELECT ON {} TO {}.",
                relation.quoted(),
                who()?
            )));
        }
    }
    Ok(())
}

fn who() -> Result<String> {
    let row = spi::first("SELECT pg_catalog.quote_ident(current_user)", &[])?;
    Ok(row
        .and_then(|row| row.get(0).map(str::to_owned))
        .unwrap_or_default())
}

/// Refuses another job that writes the same column of the same table at the same time.
pub fn refuse_overlap(id: i64) -> Result<()> {
    let Some(this) = job::load(id)? else {
        return Ok(());
    };
    for other in job::on(this.relation)? {
        if other.id == id || !other.state().active() {
            continue;
        }
        let common = |column: &&String| other.definition.set_columns.contains(column);
        if let Some(column) = this.definition.set_columns.iter().find(common) {
            return Err(Error::new(
                sqlstate::OBJECT_IN_USE,
                format!(
                    "column \"{column}\" of table {} is already being backfilled by job {}",
                    this.relation_name, other.id
                ),
            )
            .hint(format!(
                "Wait for job {0} (CALL backfill.wait({0})), or SELECT backfill.cancel({0}).",
                other.id
            )));
        }
    }
    Ok(())
}
