//! The tables that hold a job's rows: the named table, or its partitions. Each is checked as the batches will treat it:
//! as the only table of a statement.

use super::call::{Call, refuse_superusers_job};
use super::{archive, bounds, checks, copied, executed, hazards, shifts};
use crate::action::Changes;
use crate::action::statement::analysed;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Walk;
use crate::pg::relation::{self, Relation};
use crate::pg::{clauses, partition, server};
use crate::scan::key::Candidate;
use crate::scan::order::{self, Asked, Possible};
use crate::scan::sql;
use crate::table::walked::{self, Walked};

/// The key that orders the walk of a table; `None`: its pages do.
type Order = Option<Candidate>;

/// Returns the tables that a job on the relation walks, as they are now. `only`: without those that inherit from it.
pub fn of(relation: &Relation, only: bool) -> Result<Vec<Relation>> {
    let (whole, part) = match relation.kind {
        'p' => ("partitioned table", "partition"),
        _ => ("table", "child"),
    };
    let mut tables = Vec::new();
    for leaf in partition::leaves(relation.oid, only)? {
        if leaf.oid == relation.oid {
            tables.push(held(relation)?);
            continue;
        }
        // Locked before it is looked at, so that nobody drops or renames it while it is referred to by name.
        relation::lock_for_update(leaf.oid);
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

/// Locks the relation as an UPDATE does, and returns it as it stays until the (sub)transaction ends. Fails if it was
/// dropped or renamed since it was looked at: roles that may write in its schema can replace it by another one of that
/// name.
pub fn held(relation: &Relation) -> Result<Relation> {
    relation::lock_for_update(relation.oid);
    let now = relation::describe(relation.oid)?.filter(|now| {
        (&now.schema, &now.name, now.kind) == (&relation.schema, &relation.name, relation.kind)
    });
    now.ok_or_else(|| {
        Error::new(
            sqlstate::SERIALIZATION_FAILURE,
            format!(
                "table {} was dropped, or renamed, while it was looked at",
                relation.shown
            ),
        )
        .hint("Try again.")
    })
}

/// Checks the clauses and the caller's rights against every table. Returns the columns of the key that orders the walk:
/// of the relation's own, or else of its first partition's; none where pages order it. `batch_size` rows are committed
/// at a time.
pub fn check(call: &Call, changes: &Changes, batch_size: i32) -> Result<Vec<String>> {
    let set_columns = changes.set_columns();
    let (relation, only) = (&held(&call.relation)?, call.options.only());
    if server::is_client() {
        refuse_superusers_job(relation)?;
    }
    checks::partition_key(relation, set_columns)?;
    if only && relation.kind == 'p' {
        return Err(Error::invalid(format!(
            "option \"only\" leaves nothing of partitioned table {}: its rows are in its partitions",
            relation.shown
        ))
        .hint("Leave it out, or start a job on one partition."));
    }
    let tables = of(relation, only)?;
    if call.options.ordered() && (tables.len() > 1 || relation.kind == 'p') {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "option \"ordered\": the rows of {} are in several tables, which are walked one after another",
                relation.shown
            ),
        )
        .hint("Start a job for each of them, or leave the option out."));
    }
    checks::policies(relation, only, server::current_user())?;
    checks::notice_of_children(relation, &tables);
    checks::warn_of_unlogged(&tables);
    checks::triggers(call, &tables, changes)?;
    let mut columns = own_key(call)?;
    if tables.is_empty() {
        // There is nothing to be done, but a mistake in the clauses is still an error.
        checks::columns(
            relation,
            set_columns,
            columns.as_deref().unwrap_or_default(),
        )?;
        analyse(call, relation, changes)?;
    }
    let mut without_key = None;
    let mut ordered = Vec::new();
    for table in &tables {
        archive::check(table, changes)?;
        copied::refuse_within(table, changes)?;
        let order = order(call, table, changes)
            .map_err(|error| checks::with_grants(error, relation, &tables, changes))?;
        bounds::check(&call.options, &table.shown, order.as_ref())?;
        if order.is_none() {
            without_key.get_or_insert(&table.shown);
        }
        let key = order.as_ref().map_or(Vec::new(), Candidate::column_names);
        columns.get_or_insert(key);
        ordered.push((table.clone(), order));
    }
    if let Changes::Update(update) = changes {
        shifts::refuse(call, update, &ordered, batch_size)?;
    }
    hazards::warn(&hazards::of(
        relation,
        changes,
        call.where_clause.as_deref(),
        &call.options,
    )?);
    checks::notice_of_options(call, without_key.map(String::as_str));
    Ok(columns.unwrap_or_default())
}

/// Returns the key of a partitioned table itself, if it has one that is to be used.
fn own_key(call: &Call) -> Result<Option<Vec<String>>> {
    if call.relation.kind != 'p' || call.options.walk() == Walk::Physical {
        return Ok(None);
    }
    let named = call.options.key.as_deref();
    let key = walked::key(&call.relation, &call.relation, named, &[], &[]);
    Ok(key.ok().map(|key| key.column_names()))
}

/// Returns the key that may order the walk of one table; `None`: its pages do. Checks everything about it. A dry run is
/// checked like the run that it stands for.
fn order(call: &Call, table: &Relation, changes: &Changes) -> Result<Order> {
    let set_columns = changes.set_columns();
    let asked = Asked::of(&call.options, false);
    let named = call.options.key.as_deref();
    // Setting a column of the key has its own error.
    let key = walked::key(table, &call.relation, named, &[], &[]);
    let by_pages = match (asked.walk, &key) {
        (Walk::Physical, _) => true,
        (Walk::Auto, Err(_)) => named.is_none(),
        _ => false,
    };
    match &key {
        Ok(key) if !by_pages => {
            let names = key.column_names();
            checks::columns(table, set_columns, &names)?;
            checks::rights(table, &names)?;
            analyse(call, table, changes)?;
        }
        _ if by_pages => {
            checks::columns(table, set_columns, &[])?;
            analyse(call, table, changes)?;
            if call.where_clause.is_some() && !asked.bounded {
                checks::rights(table, &["ctid".to_owned()])?;
            }
        }
        _ => {}
    }
    let walked = Walked {
        table,
        root: &call.relation,
        where_clause: call.where_clause.as_deref(),
        changes,
        skips_triggers: call.options.skips_triggers(),
    };
    Ok(match order::possible(asked, key, &walked)? {
        Possible::Key(key, _) | Possible::Either(key) => Some(*key),
        Possible::Pages(_) => None,
    })
}

/// Returns the name by which the clauses may call a partition.
fn known_as<'a>(call: &'a Call, table: &Relation) -> Option<&'a str> {
    (table.oid != call.relation.oid).then_some(call.relation.name.as_str())
}

/// Makes PostgreSQL analyse and plan the statement of all rows. That evaluates constant expressions: within `confine::own_text`, or in
/// a process of the owner's.
fn analyse(call: &Call, table: &Relation, changes: &Changes) -> Result<()> {
    let action = changes.as_action();
    let (alias, clause) = (known_as(call, table), call.where_clause.as_deref());
    let name = sql::name_of(&table.schema, &table.name, alias);
    let statement = analysed(action, &table.alone(alias), &name, clause);
    // In the order in which they occur in the statement.
    let mut clauses: Vec<&str> = action.clauses().into_iter().chain(clause).collect();
    match changes {
        Changes::Execute(_) => clauses.reverse(),
        // The condition says the others once more.
        Changes::Update(update) if update.joined.is_some() => clauses.truncate(3),
        _ => {}
    }
    clauses::explain(&statement, &clauses).map_err(|error| checks::with_hint(error, table))?;
    if let Changes::Execute(_) = changes {
        executed::refuse_unrelated(&statement)?;
    }
    match clauses::temporary_used(&statement)? {
        None => Ok(()),
        Some(name) => Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("the clauses use \"{name}\", which is temporary"),
        )
        .hint("A worker does not see what is temporary in your session. Make a permanent one, or an unlogged table, and drop it afterwards.")),
    }
}
