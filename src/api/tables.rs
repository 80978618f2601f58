//! The tables that hold the rows: the one that was named, or the partitions of it. Each is checked
//! as the batches will treat it, aimed at it alone.

use super::call::Call;
use super::{bounds, checks, hazards, shifts};
use crate::error::{Error, Result, sqlstate};
use crate::job::options::Walk;
use crate::pg::relation::{self, Relation};
use crate::pg::{clauses, index, partition, physical, server};
use crate::plan::key::{self, Candidate};

/// How a table will be walked.
type Order = Option<Candidate>;

/// The tables that a job on the relation walks, as they are now; `only`: without those that inherit from it.
pub fn of(relation: &Relation, only: bool) -> Result<Vec<Relation>> {
    let (whole, part) = match relation.kind {
        'p' => ("partitioned table", "partition"),
        _ => ("table", "child"),
    };
    let mut tables = Vec::new();
    for leaf in partition::leaves(relation.oid, only)? {
        if leaf.oid == relation.oid {
            tables.push(relation.clone());
            continue;
        }
        let Some(table) = relation::describe(leaf.oid)? else {
            continue;
        };
        let wrong = |what: &str, hint: &str| {
            let message = format!(
                "cannot backfill {whole} {}: its {part} {} is a {what}",
                relation.shown, table.shown
            );
            Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message).hint(hint.to_owned()))
        };
        if table.kind != 'r' {
            return wrong(
                "foreign table",
                match relation.kind {
                    'p' => {
                        "Start a job for each of the other partitions, and one in the server that holds that table."
                    }
                    _ => {
                        "Start a job for each of the others, with the option \"only\": true where others inherit from it, and one in the server that holds that table."
                    }
                },
            );
        }
        if table.persistence == 't' {
            return wrong(
                "temporary table",
                "A worker cannot see another session's temporary table.",
            );
        }
        table.refuse_deceptive()?;
        tables.push(table);
    }
    Ok(tables)
}

/// Checks the clauses and the caller's rights against every table. Gives the columns of the key
/// that orders the walk, of which `batch_size` rows are committed at a time: of the relation's own, else of its first
/// partition's; none where pages do.
pub fn check(
    call: &Call,
    set_clause: &str,
    set_columns: &[String],
    batch_size: i32,
) -> Result<Vec<String>> {
    let (relation, only) = (&call.relation, call.options.only());
    checks::partition_key(relation, set_columns)?;
    if only && relation.kind == 'p' {
        return Err(Error::invalid(format!(
            "option \"only\" leaves nothing of partitioned table {}: its rows are in its partitions",
            relation.shown
        ))
        .hint("Leave it out, or start a job on one partition."));
    }
    let tables = of(relation, only)?;
    checks::policies(relation, only, server::current_user())?;
    checks::notice_of_children(relation, &tables);
    checks::warn_of_unlogged(&tables);
    checks::triggers(call, &tables, set_columns)?;
    let mut columns = own_key(call)?;
    if tables.is_empty() {
        // There is nothing to be done, but a mistake in the clauses is one all the same.
        checks::columns(
            relation,
            set_columns,
            columns.as_deref().unwrap_or_default(),
        )?;
        analyse(call, relation, set_clause)?;
    }
    let mut without_key = None;
    let mut ordered = Vec::new();
    for table in &tables {
        let order = order(call, table, set_clause, set_columns)
            .map_err(|error| checks::with_grants(error, relation, &tables, set_columns))?;
        bounds::check(&call.options, &table.shown, order.as_ref())?;
        if order.is_none() {
            without_key.get_or_insert(&table.shown);
        }
        let key = order.as_ref().map_or(Vec::new(), Candidate::column_names);
        columns.get_or_insert(key);
        ordered.push((table.clone(), order));
    }
    shifts::refuse(call, (set_clause, set_columns), &ordered, batch_size)?;
    hazards::warn(&hazards::of(
        relation,
        set_clause,
        call.where_clause.as_deref(),
        &call.options,
    )?);
    checks::notice_of_options(call, without_key.map(String::as_str));
    Ok(columns.unwrap_or_default())
}

/// The key of a partitioned table itself, if it has one that is to be used.
fn own_key(call: &Call) -> Result<Option<Vec<String>>> {
    if call.relation.kind != 'p' || call.options.walk() == Walk::Physical {
        return Ok(None);
    }
    let candidates = index::candidates(call.relation.oid)?;
    let named = call.options.key.as_deref();
    let key = key::choose(candidates, named, &call.relation.shown);
    Ok(key.ok().map(|key| key.column_names()))
}

/// What orders the walk of one table: a key, or its pages. Everything about it is checked.
fn order(call: &Call, table: &Relation, set: &str, set_columns: &[String]) -> Result<Order> {
    let named = named_index(call, table)?;
    let key = key::choose(
        index::candidates(table.oid)?,
        named.as_deref(),
        &table.shown,
    );
    let without_key = match (call.options.walk(), key) {
        (Walk::Auto | Walk::Key, Ok(key)) => {
            let names = key.column_names();
            checks::columns(table, set_columns, &names)?;
            checks::rights(table, &names)?;
            analyse(call, table, set)?;
            return Ok(Some(key));
        }
        (Walk::Key, Err(error)) => return Err(error),
        (Walk::Auto, Err(error)) if named.is_some() => return Err(error),
        (Walk::Auto, Err(error)) => Some(error),
        (Walk::Physical, _) => None,
    };
    checks::columns(table, set_columns, &[])?;
    analyse(call, table, set)?;
    if call.where_clause.is_some() {
        checks::rights(table, &["ctid".to_owned()])?;
    }
    let clause = call.where_clause.as_deref();
    let skip = call.options.skips_triggers();
    let known_as = known_as(call, table);
    match physical::unsound(table.oid, known_as, clause, skip)? {
        None => match clause {
            Some(clause) if !physical::can_fall_out(table, known_as, clause, set_columns)? => {
                let why = "set_clause sets no column that where_clause reads, so a row that is done would match again";
                Err(refuse(table, without_key, why))
            }
            _ => Ok(None),
        },
        Some(why) => Err(refuse(table, without_key, &why)),
    }
}

/// Neither key nor pages, and what would help.
fn refuse(table: &Relation, without_key: Option<Error>, why: &str) -> Error {
    const FALLS_OUT: &str = "a where_clause that no longer holds for a row once it is updated, such as 'rate_new IS NULL'";
    match without_key {
        Some(mut error) => {
            let no_key = error.detail.take().unwrap_or_default();
            let key = error.hint.take().unwrap_or_default();
            error
                .detail(format!(
                    "{no_key} Nor can it be walked in physical order: {why}."
                ))
                .hint(format!(
                    "{key} Without a key, the walk goes by the pages of the table: that takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE."
                ))
        }
        None => Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("table {} cannot be walked in physical order: {why}", table.shown),
        )
        .hint(format!(
            "It takes {FALLS_OUT}, depends on nothing but the row, and no trigger that runs after the UPDATE. Without the option \"walk\" the walk goes by a key; CREATE UNIQUE INDEX CONCURRENTLY makes one without blocking writers."
        )),
    }
}

/// The table's index that the option "key" means.
fn named_index(call: &Call, table: &Relation) -> Result<Option<String>> {
    let Some(name) = &call.options.key else {
        return Ok(None);
    };
    let found = partition::index_named(table.oid, call.relation.oid, name)?;
    // Indexes are not inherited.
    let child = call.relation.kind == 'r' && table.oid != call.relation.oid;
    Ok(found.or_else(|| (!child).then(|| name.clone())))
}

/// The name that the clauses may call a partition by.
fn known_as<'a>(call: &'a Call, table: &Relation) -> Option<&'a str> {
    (table.oid != call.relation.oid).then_some(call.relation.name.as_str())
}

/// Has PostgreSQL analyse and plan the UPDATE. That evaluates constant expressions: within `confine::own_text`, or in a process
/// of the owner's.
fn analyse(call: &Call, table: &Relation, set_clause: &str) -> Result<()> {
    let condition = call
        .where_clause
        .as_ref()
        .map_or(String::new(), |clause| format!("\nWHERE (\n{clause}\n)"));
    let statement = format!(
        "UPDATE {} SET {set_clause}{condition}",
        table.alone(known_as(call, table))
    );
    let clauses: Vec<&str> = [Some(set_clause), call.where_clause.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    clauses::explain(&statement, &clauses).map_err(|error| checks::with_hint(error, table))?;
    match clauses::temporary_used(&statement)? {
        None => Ok(()),
        Some(name) => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("the clauses use \"{name}\", which is temporary"),
        )
        .hint("A worker does not see what is temporary in your session. Make a permanent one, or an unlogged table, and drop it afterwards.")),
    }
}
