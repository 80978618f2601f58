//! Checks of a definition against its table and the caller's rights.

use std::collections::BTreeSet;

use super::call::{Call, Work};
use pgrx::pg_sys::Oid;

use crate::action::Changes;
use crate::error::{Error, Result, sqlstate};
use crate::model::fate::Fate;
use crate::model::names;
use crate::pg::relation::{self, Relation};
use crate::pg::report::{notice, warning};
use crate::pg::{name, partition, server, spi, triggers};
use crate::quote::{ident, literal};
use crate::table::skipped;

/// Adds a hint to PostgreSQL's own errors about the clauses.
pub fn with_hint(error: Error, relation: &Relation) -> Error {
    if error.hint.is_some() {
        return error;
    }
    let hint = match error.sqlstate.as_str() {
        sqlstate::UNDEFINED_COLUMN => {
            let names: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
            format!("Columns of {}: {}.", relation.shown, names.join(", "))
        }
        sqlstate::FEATURE_NOT_SUPPORTED if error.message.contains("system column") => {
            "PostgreSQL keeps system columns itself: leave it out of set_clause.".to_owned()
        }
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "The batches run with the rights of the role that defines the job: GRANT it what is missing (UPDATE on the columns set or DELETE, SELECT on the columns read, INSERT on an archive), or SET ROLE to the table's owner.".to_owned()
        }
        _ => "The clauses are checked as parts of the statement that a batch runs.".to_owned(),
    };
    error.hint(hint)
}

/// Refuses to set columns of the walk's key, and columns that PostgreSQL computes itself.
pub fn columns(relation: &Relation, set: &[String], key: &[String]) -> Result<()> {
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

/// Refuses to set a column that decides to which partition a row belongs.
pub fn partition_key(relation: &Relation, set: &[String]) -> Result<()> {
    let key = partition::key_columns(relation.oid)?;
    let Some(column) = set.iter().find(|column| key.contains(column)) else {
        return Ok(());
    };
    let root = relation::describe(partition::topmost(relation.oid))?;
    let root = root.map_or(relation.shown.clone(), |root| root.shown);
    Err(Error::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!("set_clause writes column \"{column}\", which decides in which partition of {root} a row is"),
    )
    .hint("A batch updates one partition alone, and cannot move a row to another. Use an UPDATE of the partitioned table for that."))
}

/// Refuses row security policies that could hide rows from the job's owner: on the relation, on its partitions, and on
/// the partitioned tables between them.
pub fn policies(relation: &Relation, only: bool, owner: Oid) -> Result<()> {
    let between = partition::branches(relation.oid)?;
    let leaves = partition::leaves(relation.oid, only)?;
    let leaves = leaves.iter().map(|leaf| leaf.oid);
    for oid in std::iter::once(relation.oid).chain(between).chain(leaves) {
        if !relation::has_policies_for(oid, owner) {
            continue;
        }
        let table = relation::describe(oid)?.map_or(relation.shown.clone(), |found| found.shown);
        let whom = if owner == server::current_user() {
            "you".to_owned()
        } else {
            format!("role {}, which defined the backfill", name::of_role(owner))
        };
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("row security policies of table {table} apply to {whom}"),
        )
        .hint("They could hide rows from the backfill. Define it as the table's owner or as a role with BYPASSRLS; with FORCE ROW LEVEL SECURITY only the latter."));
    }
    Ok(())
}

/// If triggers should not fire, checks that the caller may ask for that and that no constraint is bypassed, and names
/// the triggers that do not fire and those that still do.
pub fn triggers(call: &Call, tables: &[Relation], changes: &Changes) -> Result<()> {
    if !call.options.skips_triggers() {
        return Ok(());
    }
    if changes.as_action().fate() == Fate::Kept {
        return Err(Error::invalid(format!(
            "option \"triggers\" cannot be \"skip\" where rows are {}",
            changes.as_action().done()
        ))
        .hint("Foreign keys of other tables would go unchecked. Disable triggers of those tables by ALTER TABLE ... DISABLE TRIGGER."));
    }
    triggers::may_skip()?;
    let event = match changes {
        Changes::Delete(_) => triggers::DELETE,
        _ => triggers::UPDATE,
    };
    let (mut skipped, mut firing) = (BTreeSet::new(), BTreeSet::new());
    for table in std::iter::once(&call.relation).chain(tables) {
        skipped::refuse_unchecked(table.oid, changes)?;
        let (not, all_the_same) = triggers::of_event(table.oid, event)?;
        skipped.extend(not);
        firing.extend(all_the_same);
    }
    let names = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let shown = &call.relation.shown;
    if !firing.is_empty() {
        notice(
            &format!(
                "triggers of {shown} that fire all the same: {}",
                names(firing)
            ),
            Some("They are ENABLE REPLICA or ENABLE ALWAYS."),
        );
    }
    if !skipped.is_empty() {
        notice(
            &format!("triggers of {shown} that do not fire: {}", names(skipped)),
            Some(
                "What they would have written, such as updated_at or an audit, the job has to do itself if it is wanted.",
            ),
        );
    }
    Ok(())
}

/// Sends notices about options without effect, and about settings that the clauses read and the worker does not know.
/// `without_key`: the first table that is walked in physical order.
pub fn notice_of_options(call: &Call, without_key: Option<&str>) {
    if let Some(table) = without_key
        && call.options.max_failed_rows() > 0
    {
        notice(
            &format!(
                "in table {table} no row that fails can be stepped over: it has no key, or is walked in physical order"
            ),
            Some(
                "The option \"max_failed_rows\" has no effect there: the first such row fails the job.",
            ),
        );
    }
    let set_clause = call.work.as_ref().and_then(Work::set_clause);
    let clauses = [set_clause, call.where_clause.as_ref()];
    let reads_settings = |clause: &str| clause.to_ascii_lowercase().contains("current_setting");
    if call.options.settings.is_empty()
        && clauses
            .into_iter()
            .flatten()
            .any(|clause| reads_settings(clause))
    {
        notice(
            "the clauses call current_setting: a worker has the settings of its own session",
            Some(
                "Give those that matter in the option \"settings\": '{\"settings\": {\"app.factor\": \"3\"}}'.",
            ),
        );
    }
}

/// Sends a notice that rows of child tables are done, too, as an UPDATE would do them.
pub fn notice_of_children(relation: &Relation, tables: &[Relation]) {
    let children = tables.iter().filter(|table| table.oid != relation.oid);
    let names: Vec<&str> = children.map(|table| table.shown.as_str()).collect();
    if relation.kind == 'p' || names.is_empty() {
        return;
    }
    let inherit = if names.len() == 1 {
        "inherits"
    } else {
        "inherit"
    };
    notice(
        &format!(
            "{} {inherit} from {}: those rows are done, too",
            names::listed(&names),
            relation.shown
        ),
        Some("To leave them out, give the option \"only\": true."),
    );
}

/// Warns that a crash of the server empties unlogged tables.
pub fn warn_of_unlogged(tables: &[Relation]) {
    const HINT: &str = "ALTER TABLE ... SET LOGGED if its rows matter.";
    let unlogged: Vec<&str> = tables
        .iter()
        .filter(|table| table.persistence == 'u')
        .map(|table| table.shown.as_str())
        .collect();
    let what = match unlogged[..] {
        [] => return,
        [table] => format!("table {table} is unlogged: a crash of the server empties it"),
        _ => format!(
            "{} tables are unlogged ({}, ...): a crash of the server empties them",
            unlogged.len(),
            unlogged[0]
        ),
    };
    warning(&what, Some(HINT));
}

/// Refuses a caller without SELECT on the key (or on ctid, in physical order): the walk reads it, besides the UPDATE.
pub fn rights(relation: &Relation, key: &[String]) -> Result<()> {
    for column in key {
        let row = spi::fixed_first(
            "SELECT pg_catalog.has_column_privilege($1, $2, 'SELECT')",
            &[spi::Arg::Oid(relation.oid), spi::Arg::Text(column)],
        )?;
        if row.is_some_and(|row| row.bool(0)) {
            continue;
        }
        let why = match column.as_str() {
            "ctid" => "A walk in physical order reads it",
            _ => "The walk reads the key",
        };
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!(
                "permission denied for column \"{column}\" of table {}",
                relation.shown
            ),
        )
        .hint(format!(
            "{why}: GRANT SELECT ({}) ON {} TO {};",
            ident(column),
            relation.quoted(),
            name::of_role(server::current_user())
        )));
    }
    Ok(())
}

/// Greatest number of partitions listed in a hint.
const LISTED: usize = 20;

/// Adds a hint on how to grant privileges on all partitions at once, where they are missing.
pub fn with_grants(error: Error, root: &Relation, tables: &[Relation], changes: &Changes) -> Error {
    if tables.len() < 2 && root.kind != 'p' || error.sqlstate != sqlstate::INSUFFICIENT_PRIVILEGE {
        return error;
    }
    let lacking: Vec<&str> = tables
        .iter()
        .filter(|table| !has_privileges(table, changes).unwrap_or(true))
        .map(|table| table.shown.as_str())
        .collect();
    if lacking.is_empty() {
        return error;
    }
    let set = changes.set_columns().iter();
    let columns: Vec<String> = set.map(|column| ident(column)).collect();
    let what = match changes {
        Changes::Update(_) => format!("GRANT SELECT, UPDATE ({}) ON", columns.join(", ")),
        Changes::Delete(_) => "GRANT SELECT, DELETE ON".to_owned(),
        // Whoever locks rows needs UPDATE.
        Changes::Copy(_) | Changes::Execute(_) => "GRANT SELECT, UPDATE ON".to_owned(),
    };
    let role = name::of_role(server::current_user());
    let grant = if lacking.len() <= LISTED {
        format!("{what} {} TO {role};", lacking.join(", "))
    } else if root.kind != 'p' {
        format!(
            "{what} each of the {} tables that inherit from it TO {role};",
            lacking.len()
        )
    } else {
        let (what, role) = (what.replace('%', "%%"), role.replace('%', "%%"));
        format!(
            "in psql, SELECT format({}, relid::regclass) FROM pg_partition_tree({}) WHERE isleaf \\gexec",
            literal(&format!("{what} %s TO {role}")),
            literal(&root.shown)
        )
    };
    error.hint(format!(
        "The batches are aimed at the {}, where privileges on {} do not count: {grant}",
        if root.kind == 'p' {
            "partitions"
        } else {
            "tables that inherit"
        },
        root.shown
    ))
}

fn has_privileges(table: &Relation, changes: &Changes) -> Result<bool> {
    let whole = match changes.as_action().fate() {
        Fate::Changed => None,
        Fate::Removed => Some("DELETE"),
        Fate::Kept => Some("UPDATE"),
    };
    if let Some(privilege) = whole {
        let row = spi::fixed_first(
            "SELECT pg_catalog.has_table_privilege($1, 'SELECT') AND pg_catalog.has_table_privilege($1, $2)",
            &[spi::Arg::Oid(table.oid), spi::Arg::Text(privilege)],
        )?;
        return Ok(row.is_some_and(|row| row.bool(0)));
    }
    let row = spi::fixed_first(
        // A column that does not exist is not a question of privileges.
        "SELECT pg_catalog.has_table_privilege($1, 'SELECT')
                AND COALESCE(pg_catalog.bool_and(pg_catalog.has_column_privilege($1, a.attnum, 'UPDATE')), true)
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attname = ANY ($2) AND NOT a.attisdropped",
        &[spi::Arg::Oid(table.oid), spi::Arg::Texts(changes.set_columns())],
    )?;
    Ok(row.is_some_and(|row| row.bool(0)))
}
