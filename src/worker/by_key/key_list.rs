//! Updates of rows by lists of their keys.
//!
//! Finding a row by its key takes a descent into the index; finding it by its place takes none. So a list is first
//! updated by the places that were read with the keys. They are only hints: the UPDATE returns the keys of the rows it
//! has changed, and rows that it did not find are updated by key. If it returns a key that was not asked for, or if any
//! row raises an error, the batch is rolled back and done by keys alone.

use std::cell::Cell;

use pgrx::pg_sys::Oid;

use crate::action::Action;
use crate::action::statement::{Giving, batch};
use crate::error::{Error, Result};
use crate::model::fate::Fate;
use crate::pg::heap;
use crate::pg::planner::Access;
use crate::pg::spi::Arg;
use crate::pg::tid::Tid;
use crate::pg::{keylist, relation, report};
use crate::scan::sql::{Rows, Target};
use crate::worker::batch::statement::{Prepared, Values};
use crate::worker::batch::step::changed_by;
use crate::worker::by_key::rows::Read;

/// The statements.
#[derive(Debug)]
pub struct Listed {
    relation: Oid,
    by_key: Prepared,
    by_place: Option<Prepared>,
    lock: Prepared,
    /// Whether an UPDATE by places is in progress: what it changes, and what fails, may be another row.
    guessing: Cell<bool>,
}

impl Listed {
    /// Analyses the statements; `None` for keys of types without arrays or hash functions. `places`: whether places are
    /// read with the keys; `update`: how the statement of a range reaches its rows.
    pub fn prepare(
        target: &Target,
        action: &dyn Action,
        relation: Oid,
        types: &[Oid],
        places: bool,
        update: Access,
    ) -> Result<Option<Listed>> {
        if !keylist::supported(types) {
            return Ok(None);
        }
        let of = |rows, giving| batch(action, target, rows, giving);
        let access = match types {
            [_] if action.fate() == Fate::Kept => update,
            [_] => Access::Index,
            _ => Access::Lookup,
        };
        // A statement that keeps its rows, or MERGE, does not return their keys.
        let by_place = places
            && action.fate() != Fate::Kept
            && action.only_by_key().is_none()
            && relation::is_heap(relation)
            && !relation::has_triggers_per_try(relation);
        let by_place = by_place
            .then(|| Prepared::new(of(Rows::Places, Giving::Key), &target.key, Access::Tid));
        Ok(Some(Listed {
            relation,
            by_key: Prepared::new(of(Rows::Keys, Giving::Nothing), &target.key, access)?,
            by_place: by_place.transpose()?,
            lock: Prepared::new(target.lock_list(), &target.key, Access::Lookup)?,
            guessing: Cell::new(false),
        }))
    }

    /// Returns all statements.
    pub fn all(&self) -> impl Iterator<Item = &Prepared> {
        [&self.by_key, &self.lock].into_iter().chain(&self.by_place)
    }

    /// Updates by keys alone from now on. The last update by places is over: a failure before the next update has
    /// nothing to do with it.
    pub fn distrust_places(&mut self) {
        self.by_place = None;
        self.guessing.set(false);
    }

    /// True if the last update failed before it was known which rows it was about.
    pub fn was_guessing(&self) -> bool {
        self.guessing.get()
    }

    /// Locks those of these rows that nobody else has locked. Returns the rows locked, and the others.
    pub fn lock(&self, read: &Read, rows: &[u32]) -> Result<(Vec<u32>, Vec<u32>)> {
        report::activity(self.lock.text());
        let mut free = vec![false; rows.len()];
        let values = Values {
            lists: &Arg::keys(&read.keys, rows),
            rows: &[rows.len() as i64],
            ..Values::default()
        };
        self.lock.visit(values, |row| {
            // Row numbers begin with 1.
            let number = row.number(0)?.unwrap_or_default();
            if let Some(free) = free.get_mut((number as usize).wrapping_sub(1)) {
                *free = true;
            }
            Ok(())
        })?;
        let of = |wanted: bool| {
            let rows = rows.iter().zip(&free);
            rows.filter(|(_, free)| **free == wanted)
                .map(|(row, _)| *row)
                .collect()
        };
        Ok((of(true), of(false)))
    }

    /// Updates these rows of those that were read; returns how many were changed, and how many of these were heap-only.
    pub fn run(&self, read: &Read, rows: &[u32]) -> Result<(i64, i64)> {
        self.guessing.set(false);
        changed_by(self.relation, || {
            let (mut updated, mut left) = (0, rows.to_vec());
            if let (Some(statement), Some(places)) = (&self.by_place, &read.places) {
                left = self.by_place(statement, read, places, left)?;
                updated = (rows.len() - left.len()) as i64;
            }
            if !left.is_empty() {
                report::activity(self.by_key.text());
                let lists = Arg::keys(&read.keys, &left);
                updated += self.by_key.run(Values::lists(&lists))?.processed;
            }
            Ok(updated)
        })
    }

    /// Updates the rows that are still at their places; returns the others, in the order of the walk.
    fn by_place(
        &self,
        statement: &Prepared,
        read: &Read,
        places: &[Tid],
        mut rows: Vec<u32>,
    ) -> Result<Vec<u32>> {
        rows.sort_unstable_by_key(|row| places[*row as usize]);
        let tids: Vec<Tid> = rows.iter().map(|row| places[*row as usize]).collect();
        heap::prune(self.relation, &tids);
        report::activity(statement.text());
        let lists = [Arg::Tids(&tids)];
        self.guessing.set(true);
        let mut asked = rows.into_iter();
        let mut left = Vec::new();
        statement.visit(Values::lists(&lists), |row| {
            // A scan by places returns rows in the order of their places.
            for wanted in asked.by_ref() {
                if read.keys.is(wanted as usize, row)? {
                    return Ok(());
                }
                left.push(wanted);
            }
            Err(Error::internal("another row is where one of the batch was"))
        })?;
        self.guessing.set(false);
        left.extend(asked);
        left.sort_unstable();
        Ok(left)
    }
}
