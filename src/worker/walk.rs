//! A slice of a table, held by this worker: where it stands and where it ends.

use std::time::Instant;

use super::plans::{self, Key, Plans};
use crate::catalog::checkpoint::{self, Checkpoint, Writer};
use crate::catalog::job::{Job, VersionReader};
use crate::catalog::slice::{self, Slice};
use crate::error::{Error, Result, sqlstate};
use crate::job::progress::{Progress, Rate};
use crate::pg::index;
use crate::pg::relation;
use crate::plan::key::{self, Candidate};
use crate::plan::sql::Target;

/// A walk in progress.
#[derive(Debug)]
pub struct Walk {
    /// What is rendered into statements.
    pub target: Target,
    /// The statements.
    pub plans: Plans,
    /// Where it ends, and in which order it goes.
    pub slice: Slice,
    /// Where it stands; as committed.
    pub checkpoint: Checkpoint,
    /// Where the batch in progress ends, once that is known.
    pub attempted: Option<Key>,
    /// Writes its successors.
    pub writer: Writer,
    /// Tells whether the job's row has changed.
    pub versions: VersionReader,
    /// How fast it goes.
    pub rate: Rate,
}

/// Takes the job's slice over from whoever had it before, within a transaction that the caller
/// commits. `None`: the table has no rows.
pub fn claim(job: &Job) -> Result<Option<Walk>> {
    plans::announce_bookkeeping();
    relation::watch(job.relation);
    relation::take_changed();
    let begun = slice::load(job.id)?;
    let (target, index) = target(job, begun.as_ref())?;
    let slice = match begun {
        Some(slice) => slice,
        None => match first_look(job, &target, &index)? {
            Some(slice) => slice,
            None => return Ok(None),
        },
    };
    let last = checkpoint::load(slice.id)?
        .ok_or_else(|| Error::internal(format!("job {} has no checkpoint", job.id)))?;
    let writer = Writer::prepare()?;
    let mine = Checkpoint {
        seq: last.seq + 1,
        epoch: last.epoch + 1,
        ..last.clone()
    };
    writer.replace(&last, &mine, None)?;
    let plans = Plans::prepare(&target, job.relation, index.oid, mine.key.is_some())?;
    Ok(Some(Walk {
        target,
        plans,
        slice,
        rate: Rate::new(Instant::now(), mine.progress.rows_done),
        checkpoint: mine,
        attempted: None,
        writer,
        versions: VersionReader::prepare()?,
    }))
}

/// What the worker's first transaction sees: where the walk ends, and how many rows it may have.
fn first_look(job: &Job, target: &Target, index: &Candidate) -> Result<Option<Slice>> {
    let Some(last_key) = plans::last_key(target, job.relation, index.oid)? else {
        return Ok(None);
    };
    let slice = slice::insert(job.id, last_key, index.column_names(), index.order())?;
    let estimate = relation::estimate_rows(job.relation);
    checkpoint::insert(slice.id, &Progress::new(estimate))?;
    Ok(Some(slice))
}

/// The statements' target as the catalogs have it now, and the index that orders the walk: in the
/// order that was begun, if it was.
///
/// The relation is found by its OID, and stays locked until the transaction ends, so that the
/// names that go into the statements are right.
fn target(job: &Job, begun: Option<&Slice>) -> Result<(Target, Candidate)> {
    let gone = || {
        let message = format!("table {} no longer exists", job.relation_name);
        Error::new(sqlstate::UNDEFINED_TABLE, message)
            .hint(format!("SELECT backfill.cancel({}) ends the job.", job.id))
    };
    relation::lock_for_update(job.relation);
    let relation = relation::describe(job.relation)?.ok_or_else(gone)?;
    relation.refuse_rules()?;
    let index = index(job, begun, &relation.shown)?;
    let target = Target {
        schema: relation.schema,
        relation: relation.name,
        key: index.columns.clone(),
        set_clause: job.definition.set_clause.clone(),
        where_clause: job.definition.where_clause.clone(),
    };
    Ok((target, index))
}

/// The index to go by: of those on the key's columns, in the order that was begun, the one that
/// was asked for, else the best.
fn index(job: &Job, begun: Option<&Slice>, table: &str) -> Result<Candidate> {
    let wanted = &job.definition.key_columns;
    let mut candidates = index::candidates(job.relation)?;
    candidates.retain(|c| c.column_names() == *wanted && c.unusable().is_none());
    let same_order = |c: &Candidate| begun.is_none_or(|slice| c.order() == slice.key_order);
    if candidates.iter().any(same_order) {
        candidates.retain(same_order);
    }
    let named = job.definition.options.key.as_deref();
    let named = named.filter(|name| candidates.iter().any(|c| c.name == *name));
    let found = key::choose(candidates, named, table).map_err(|mut error| {
        error.message = format!(
            "table {table} has no usable unique index on ({}) any more",
            wanted.join(", ")
        );
        error.detail = None;
        error
    })?;
    begun.map_or(Ok(()), |slice| check_order(slice, &found))?;
    Ok(found)
}

/// Refuses to go on in another order than the one that was begun: rows would be skipped.
fn check_order(slice: &Slice, index: &Candidate) -> Result<()> {
    let now = index.order();
    if slice.key_order == now {
        return Ok(());
    }
    let both = slice.key_order.iter().zip(&now).zip(&slice.key_columns);
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

impl Walk {
    /// The keys that the batch in progress is about, for a person.
    pub fn attempted_range(&self) -> String {
        let columns: Vec<&str> = self.target.key.iter().map(|c| c.name.as_str()).collect();
        let columns = format!("({})", columns.join(", "));
        let side = |operator: &str, key: &Option<Key>| {
            key.as_ref()
                .map(|key| format!("{columns} {operator} ({})", key.join(", ")))
        };
        let sides = [side(">", &self.checkpoint.key), side("<=", &self.attempted)];
        let sides: Vec<String> = sides.into_iter().flatten().collect();
        if sides.is_empty() {
            format!("{columns} from the start")
        } else {
            sides.join(" AND ")
        }
    }

    /// Analyses the statements again if the relation's definition may have changed since, or the
    /// lower bound has come into being. The relation is locked already.
    pub fn refresh(&mut self, job: &Job) -> Result<()> {
        // Also false if it is gone.
        let same_name =
            relation::is_named(job.relation, &self.target.schema, &self.target.relation);
        let after = self.checkpoint.key.is_some();
        if same_name && !relation::take_changed() && self.plans.after == after {
            return Ok(());
        }
        let (target, index) = target(job, Some(&self.slice))?;
        self.plans = Plans::prepare(&target, job.relation, index.oid, after)?;
        self.target = target;
        relation::take_changed();
        Ok(())
    }
}
