//! The target of a walk's statements: a table as the catalogs have it now, and the index that orders the walk.

use pgrx::pg_sys::Oid;

use crate::action::Kind;
use crate::error::{Error, Result, Signal, sqlstate};
use crate::guc;
use crate::model::fate::Fate;
use crate::model::row_lock::RowLock;
use crate::pg::partition::{self, Author};
use crate::pg::relation::{self, Relation};
use crate::pg::{enums, hot, name, physical, server};
use crate::scan::clause::all_of;
use crate::scan::key::{self, Candidate, Column};
use crate::scan::order;
use crate::scan::sql::Target;
use crate::store::job::Job;
use crate::store::slice::{KeyRange, Slice};
use crate::store::walk;
use crate::table::{archive, copied, index, skipped};
use crate::worker::batch::attributes;
use crate::worker::hints;

/// Returns the target with this key.
///
/// The table is found by its OID and stays locked until the transaction ends, so that the names used in the statements
/// remain right.
pub fn of(job: &Job, table: Oid, key: Vec<Column>) -> Result<Target> {
    relation::lock_for_update(table);
    let relation = relation::describe(table)?.ok_or_else(|| gone(job))?;
    relation.refuse_deceptive()?;
    if server::is_superuser() {
        refuse_authors(job, &relation)?;
    }
    // Keys are stored as enum labels, which must not change while keys are read.
    enums::lock(key.iter().map(|column| column.type_oid))?;
    if job.definition.options.skips_triggers() {
        skipped::refuse_unchecked(table, &job.definition.action.changes())?;
    }
    let action = &job.definition.action;
    Ok(Target {
        schema: relation.schema,
        relation: relation.name,
        alias: attributes::known_as(job, table)?,
        key,
        where_clause: where_clause(job),
        lock: match action.as_action().lock() {
            Some(lock) => lock,
            None if action.as_action().fate() == Fate::Removed => RowLock::Update,
            None if hot::writes_key(table, action.set_columns())? => RowLock::Update,
            None => RowLock::NoKeyUpdate,
        },
    })
}

/// Returns the job's action on a table, with the present names of the other table that it writes, if there is one. That one is locked until
/// the transaction ends. Fails if a row could be lost on its way there.
pub fn action(job: &Job, table: Oid) -> Result<Kind> {
    let mut action = job.definition.action.clone();
    let Some(to) = hold_other(job) else {
        return Ok(action);
    };
    let what = match action {
        Kind::Copy(_) => "the table that gets the rows",
        _ => "the table that gets the deleted rows (option \"archive_into\")",
    };
    let other = relation::describe(to)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("{what} no longer exists"),
        )
        .hint(format!("SELECT backfill.cancel({}) ends the job.", job.id))
    })?;
    other.refuse_deceptive()?;
    if server::is_superuser() {
        refuse_authors(job, &other)?;
    }
    let table = relation::describe(table)?.ok_or_else(|| gone(job))?;
    match &mut action {
        Kind::Delete(delete) => delete.archive = Some(archive::of(&table, &other)?),
        Kind::Copy(copy) => *copy = copied::renewed(copy, &other)?,
        _ => {}
    }
    Ok(action)
}

/// Locks the other table that a job's action writes, its archive or its target, until the transaction ends, and watches it for changes.
pub fn hold_other(job: &Job) -> Option<Oid> {
    let oid = match &job.definition.action {
        Kind::Delete(delete) => delete.archive.as_ref()?.oid,
        Kind::Copy(copy) => copy.target,
        _ => return None,
    };
    let oid = Oid::from(oid);
    relation::watch_too(oid);
    relation::lock_for_update(oid);
    Some(oid)
}

/// Refuses, as `start` would, a superuser's batches on a table to which another role has attached code since the job
/// was defined. Code attached to sibling partitions is not run, so it does not count.
fn refuse_authors(job: &Job, table: &Relation) -> Result<()> {
    if guc::SUPERUSER_JOBS.get() {
        return Ok(());
    }
    let Some(Author { role, what }) = partition::author_without_superuser(table.oid)? else {
        return Ok(());
    };
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!(
            "a superuser's backfill of table {} would run what role {role} wrote ({what}) as a superuser",
            table.shown
        ),
    )
    .hint(format!(
        "Take that away and SELECT backfill.resume({}); or start it with backfill.allow_superuser_jobs = on, where that role is trusted.",
        job.id
    )))
}

/// Returns the condition for the rows that a batch is about; for a verification, the condition for the rows that are
/// wrong.
fn where_clause(job: &Job) -> Option<String> {
    let clause = job.definition.where_clause.as_deref();
    match job.definition.action.look() {
        Some(look) => look.condition(clause),
        None => clause.map(str::to_owned),
    }
}

/// Returns the error about a table that no longer exists.
pub fn gone(job: &Job) -> Error {
    let message = format!("table {} no longer exists", job.relation_name);
    Error::new(sqlstate::UNDEFINED_TABLE, message)
        .hint(format!("SELECT backfill.cancel({}) ends the job.", job.id))
}

/// Returns the reason why the table cannot be walked in physical order, if there is one.
pub fn unsound(job: &Job, table: Oid) -> Result<Option<String>> {
    let action = job.definition.action.as_action();
    if let Some(why) = action.only_by_key() {
        return Ok(Some(why.to_owned()));
    }
    match action.fate() {
        Fate::Changed => {}
        Fate::Removed => return physical::unreadable(table),
        Fate::Kept => return Ok(Some(order::MOVES.to_owned())),
    }
    let known_as = attributes::known_as(job, table)?;
    let clause = job.definition.where_clause.as_deref();
    physical::unsound(
        table,
        known_as.as_deref(),
        clause,
        job.definition.options.skips_triggers(),
    )
}

/// Fails if the table can no longer be walked in physical order.
pub fn refuse_unsound(job: &Job, table: Oid) -> Result<()> {
    match unsound(job, table)? {
        None => Ok(()),
        // Missing privileges are reported first, whatever other reason there is, so that they are not taken for a fault
        // of the table.
        Some(_) if !relation::may_read_places(table) => {
            let shown = relation::describe(table)?.map_or_else(String::new, |r| r.shown);
            let what = format!(
                "permission denied for table {shown}: a walk in physical order reads its column ctid"
            );
            Err(Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, what)
                .hint(hints::whose_rights(&name::of_role(job.owner), job.id))
                .signal(Signal::Disproved))
        }
        Some(why) => Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, why)
            .hint("Undo that, or give the table a key to walk by, and resume the job.")
            .signal(Signal::Disproved)),
    }
}

/// Returns the target of a slice in key order and the index to use, in the order that the walk began with.
pub fn by_key(job: &Job, slice: &Slice, begun: &KeyRange) -> Result<(Target, Candidate)> {
    let mut target = of(job, slice.relation, Vec::new())?;
    let index = match attributes::hold(slice) {
        // Columns are found by number, so renamed ones are still found.
        true => index(
            job,
            slice.relation,
            Wanted::Numbers(&slice.attributes.key),
            Some(begun),
        )?,
        false => index(
            job,
            slice.relation,
            Wanted::Names(&begun.columns),
            Some(begun),
        )?,
    };
    target.key.clone_from(&index.columns);
    let bounds = walk::bounds(job.id)?.unwrap_or_default();
    if let Some(from) = bounds.from.filter(|from| from.len() == target.key.len()) {
        // The slice begins after the row before the bound, and other rows may have been inserted between.
        let conditions = [index::condition(&target, ">=", &from)?].into_iter();
        target.where_clause = all_of(conditions.chain(target.where_clause.take()));
    }
    Ok((target, index))
}

/// The columns that an index has to have.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Columns with these names.
    Names(&'a [String]),
    /// Columns with these numbers.
    Numbers(&'a [i16]),
}

impl Wanted<'_> {
    fn fits(self, index: &Candidate) -> bool {
        match self {
            Wanted::Names(names) => index.column_names() == names,
            Wanted::Numbers(numbers) => index.numbers() == numbers,
        }
    }

    /// Returns the column names, for a person.
    fn shown(self, relation: &Relation) -> String {
        let name = |number: &i16| relation.columns.iter().find(|c| c.number == *number);
        match self {
            Wanted::Names(names) => names.join(", "),
            Wanted::Numbers(numbers) => {
                let names = numbers.iter().filter_map(name).map(|c| c.name.as_str());
                names.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Returns the index to use: of those on the key's columns, in the order that the walk began with, the one named in the
/// options, or else the best.
pub fn index(job: &Job, table: Oid, wanted: Wanted, begun: Option<&KeyRange>) -> Result<Candidate> {
    let mut candidates = index::candidates(table)?;
    candidates.retain(|c| wanted.fits(c));
    if candidates.iter().all(|c| c.unusable().is_some()) {
        return Err(keyless(job, table, wanted, &candidates)?);
    }
    candidates.retain(|c| c.unusable().is_none());
    let same_order = |c: &Candidate| begun.is_none_or(|range| c.order() == range.order);
    if candidates.iter().any(same_order) {
        candidates.retain(same_order);
    }
    let named = job.definition.options.key.as_deref();
    let named = named.filter(|name| candidates.iter().any(|c| c.name == *name));
    let found = key::choose(candidates, named, &job.relation_name)?;
    begun.map_or(Ok(()), |range| check_order(range, &found))?;
    Ok(found)
}

/// Returns the error that there is no usable index any more; its detail says why the indexes on these columns cannot be
/// used.
fn keyless(job: &Job, table: Oid, wanted: Wanted, on_them: &[Candidate]) -> Result<Error> {
    let Some(relation) = relation::describe(table)? else {
        return Ok(gone(job));
    };
    let (columns, shown) = (wanted.shown(&relation), &relation.shown);
    let error = Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!("table {shown} has no usable unique index on ({columns}) any more"),
    )
    .hint(format!(
        "CREATE UNIQUE INDEX CONCURRENTLY ON {shown} ({columns}); SELECT backfill.resume({}); where the job stands is known by these columns.",
        job.id
    ));
    let reasons = on_them.iter().filter_map(|c| {
        c.unusable()
            .map(|why| format!("Index \"{}\" {why}.", c.name))
    });
    let reasons: Vec<String> = reasons.collect();
    Ok(match reasons.is_empty() {
        true => error,
        false => error.detail(reasons.join(" ")),
    })
}

/// Refuses to go on in another order than the one that the walk began with: rows would be skipped.
fn check_order(begun: &KeyRange, index: &Candidate) -> Result<()> {
    let now = index.order();
    if begun.order == now {
        return Ok(());
    }
    let both = begun.order.iter().zip(&now).zip(&begun.columns);
    let changed = both
        .filter(|((before, after), _)| before != after)
        .map(|((before, after), column)| format!("\"{column}\": {before} before; {after} now"));
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        "the key has another type or collation, or another version of it, than when the job began",
    )
    .detail(changed.collect::<Vec<_>>().join(". "))
    .hint("Its order may differ, and rows would be skipped. After a change of version, REINDEX the key's index. Cancel this job and start another; with a where_clause that tells done rows, only the rest is done."))
}
