//! The arguments that `define` and `start` share, and the checks that need nothing else.

use pgrx::pg_sys::Oid;
use serde_json::Value;

use super::caller::required;
use crate::action::{Asked, Changes, Joined, Kind};
use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::model::options::Options;
use crate::pg::partition::{self, Author};
use crate::pg::relation::{self, Relation};
use crate::pg::{read_only, server};
use crate::scan::clause;

/// The arguments that `define` and `start` share, as they were given.
pub struct Request {
    /// The table.
    pub relation: Option<Oid>,
    /// The work, unless the call is about a definition.
    pub work: Option<Work>,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// The name, which makes the call repeatable.
    pub name: Option<String>,
    /// The options.
    pub options: Option<Value>,
}

/// The work that a call asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// An UPDATE with this SET list.
    Set(String),
    /// A DELETE.
    Delete,
    /// A copy into another table.
    Copy {
        /// OID of that table.
        target: u32,
        /// The other arguments.
        asked: Asked,
    },
    /// This statement for each batch.
    Execute(String),
}

impl Work {
    /// Returns the work of a job, or that which it looks at.
    pub fn of(action: &Kind) -> Work {
        match action.changes() {
            Changes::Update(update) => Work::Set(update.set_clause),
            Changes::Delete(_) => Work::Delete,
            Changes::Copy(copy) => Work::Copy {
                target: copy.target,
                asked: copy.asked,
            },
            Changes::Execute(execute) => Work::Execute(execute.statement),
        }
    }

    /// Refuses options that are for other work.
    fn refuse_options(&self, options: &Options) -> Result<()> {
        if options.archive_into.is_some() && *self != Work::Delete {
            return Err(
                Error::invalid("option \"archive_into\" is for rows that are deleted")
                    .hint("Give it to backfill.delete()."),
            );
        }
        if options.from.is_some() && !matches!(self, Work::Set(_)) {
            return Err(Error::invalid("option \"from\" is for columns that are set")
                .hint("Put the other table into a subquery: where_clause => 'EXISTS (SELECT FROM ...)'."));
        }
        let keeps = matches!(self, Work::Copy { .. } | Work::Execute(_));
        if options.lock.is_some() && !keeps {
            return Err(
                Error::invalid("option \"lock\" is for rows that stay as they are")
                    .hint("Give it to backfill.copy() or backfill.execute()."),
            );
        }
        Ok(())
    }

    /// Returns the SET list, if there is one.
    pub fn set_clause(&self) -> Option<&String> {
        match self {
            Work::Set(text) => Some(text),
            _ => None,
        }
    }
}

/// A request whose arguments are each valid.
pub struct Call {
    /// The table.
    pub relation: Relation,
    /// The work, unless the call is about a definition.
    pub work: Option<Work>,
    /// The condition on the rows: the WHERE clause or, with the option `from`, that there is a partner of which it is true.
    pub where_clause: Option<String>,
    /// The rows that an update is joined with, option `from`.
    pub joined: Option<Joined>,
    /// The name.
    pub name: Option<String>,
    /// The options.
    pub options: Options,
}

/// Checks each argument by itself.
pub fn check(request: Request, function: &str) -> Result<Call> {
    read_only::refuse(function)?;
    if server::in_security_definer() {
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
    if request.work.is_some() {
        refuse_superusers_job(&relation)?;
    }
    relation.refuse_deceptive()?;
    for (what, text) in [
        (
            "set_clause",
            request.work.as_ref().and_then(Work::set_clause),
        ),
        ("where_clause", request.where_clause.as_ref()),
    ] {
        if let Some(text) = text {
            clause::check(what, text)?;
        }
    }
    let trim = |text: String| clause::trimmed(&text).to_owned();
    if let Some(work) = &request.work {
        work.refuse_options(&options)?;
    }
    let where_clause = request.where_clause.map(trim);
    let joined = match &request.work {
        Some(_) => joined(&options, where_clause.as_deref())?,
        None => None,
    };
    Ok(Call {
        relation,
        work: request.work.map(|work| match work {
            Work::Set(text) => Work::Set(trim(text)),
            work => work,
        }),
        where_clause: joined.as_ref().map(Joined::matches).or(where_clause),
        joined,
        name,
        options,
    })
}

/// Returns the rows that an update is to be joined with, as the option `from` and the WHERE clause say.
fn joined(options: &Options, where_clause: Option<&str>) -> Result<Option<Joined>> {
    let Some(from) = options.from.as_deref() else {
        return Ok(None);
    };
    clause::check("from", from)?;
    let Some(on) = where_clause else {
        return Err(Error::new(
            sqlstate::NULL_VALUE_NOT_ALLOWED,
            "option \"from\" is given without where_clause",
        )
        .hint("where_clause says which row of it belongs to which row of the table: 'r.id = orders.rate_id'."));
    };
    Ok(Some(Joined {
        from: clause::trimmed(from).to_owned(),
        on: on.to_owned(),
    }))
}

/// Refuses a superuser's own job on a table whose owner is not a superuser: the table's triggers, constraints, defaults
/// and index expressions were written by that role, and planning the clauses already runs some of them.
pub fn refuse_superusers_job(relation: &Relation) -> Result<()> {
    if !server::is_superuser() || guc::SUPERUSER_JOBS.get() {
        return Ok(());
    }
    let Some(Author { role, what }) = partition::author_without_superuser(relation.oid)? else {
        return Ok(());
    };
    let (whose, way) = match what.as_str() {
        "table" => (
            String::new(),
            format!("SET ROLE {role}; and make the call again: the job is that role's then."),
        ),
        what => (
            format!(" ({what})"),
            "Make the call as a role with no more rights than it takes: SET ROLE.".to_owned(),
        ),
    };
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!(
            "a superuser's backfill of table {} would run what role {role} wrote{whose} as a superuser",
            relation.shown
        ),
    )
    .detail("Triggers, constraints, defaults and expressions of indexes run with the rights of the role that defines the job, and some of them already when it is planned.")
    .hint(format!(
        "{way} Where you trust {role}, SET backfill.allow_superuser_jobs = on."
    )))
}

fn check_name(name: String) -> Result<String> {
    if name.trim().is_empty() {
        return Err(Error::new(sqlstate::INVALID_NAME, "name is empty")
            .hint("Leave it NULL, or give a name that makes the call repeatable."));
    }
    // psql and the log show the name as it is.
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Err(Error::new(
            sqlstate::INVALID_NAME,
            format!(
                "name has a control character ({})",
                control.escape_unicode()
            ),
        )
        .hint("A name is a label for people, on one line."));
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

/// Refuses relations other than ordinary and partitioned tables.
pub fn check_kind(relation: &Relation) -> Result<()> {
    let shown = &relation.shown;
    let wrong = |what: &str, hint: &str| {
        let message = format!("cannot backfill {what} {shown}");
        Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message).hint(hint))
    };
    const NAME_THE_TABLE: &str = "Name the table that holds the rows.";
    match relation.kind {
        'r' | 'p' => {}
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
