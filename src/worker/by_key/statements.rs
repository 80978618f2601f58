//! The statements of a walk in key order.

use std::time::Instant;

use pgrx::pg_sys::Oid;

use crate::action::statement::{Giving, batch};
use crate::action::{self, Action};
use crate::error::Result;
use crate::model::fate::Fate;
use crate::pg::keylist::KeyList;
use crate::pg::planner::Access;
use crate::pg::{hazards, relation, txn};
use crate::scan::position::Key;
use crate::scan::reader::Portion;
use crate::scan::sql::{Rows, Statement, Target};
use crate::worker::batch::statement::{self, Prepared, Values};
use crate::worker::by_key::key_list::Listed;
use crate::worker::by_key::rows::Read;

/// A statement without a lower bound, and one with it.
type Pair = [Prepared; 2];

/// Whether the statement of a batch has to treat its rows in the order of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InOrder {
    /// No: other workers, or passes, are in no order either.
    No,
    /// If the result depends on it.
    Kept,
    /// Yes, by the option `ordered`.
    Asked,
}

/// The statements of a walk in key order.
#[derive(Debug)]
pub struct Plans {
    /// Finds the ends of batches.
    pub reach: Reach,
    types: Vec<Oid>,
    predicate: bool,
    update: Pair,
    read: Pair,
    /// Whether places are read, too; an owner with rights on some columns only may not read them.
    places: bool,
    /// Absent for keys of types without arrays or hash functions, and where rows are updated in key order.
    list: Option<Listed>,
    /// Statements for one row by its key: look at it, lock it unless somebody else has, update it.
    look: Prepared,
    lock: Prepared,
    row: Prepared,
}

/// The statements that find the end of a batch.
#[derive(Debug)]
pub struct Reach {
    width: usize,
    bound: Pair,
    count: Pair,
}

impl Reach {
    /// Analyses the statements. Within `spi::connect`.
    pub fn prepare(target: &Target) -> Result<Reach> {
        let one = |statement: Statement| Prepared::new(statement, &target.key, Access::Index);
        let pair = |of: fn(&Target, bool) -> Statement| -> Result<Pair> {
            Ok([one(of(target, false))?, one(of(target, true))?])
        };
        Ok(Reach {
            width: target.key.len(),
            bound: pair(Target::bound)?,
            count: pair(Target::count)?,
        })
    }

    /// Returns all statements.
    pub fn all(&self) -> impl Iterator<Item = &Prepared> {
        self.bound.iter().chain(&self.count)
    }

    /// Returns the key of the n-th row after `after`; `None` if fewer are left.
    pub fn bound(&self, after: Option<&Key>, end: &Key, n: i64) -> Result<Option<Key>> {
        let rows = [n - 1, 1];
        let output = pick(&self.bound, after).run(range(after, end, &rows))?;
        let first = output.rows.first();
        first.map(|row| row.texts(self.width)).transpose()
    }

    /// Returns the last key of the next rows, `size` at most, and the number of these rows.
    pub fn next(&self, after: Option<&Key>, last: &Key, size: i64) -> Result<(Key, i64)> {
        Ok(match self.bound(after, last, size)? {
            Some(end) => (end, size),
            None => (last.clone(), self.count(after, last, size)?),
        })
    }

    /// Returns how many rows are left, up to `limit`.
    pub fn count(&self, after: Option<&Key>, end: &Key, limit: i64) -> Result<i64> {
        let output = pick(&self.count, after).run(range(after, end, &[limit]))?;
        output.rows.first().map_or(Ok(0), |row| row.number(0))
    }
}

impl Plans {
    /// Analyses the statements, as the owner. Within `spi::connect`.
    pub fn prepare(
        target: &Target,
        action: &dyn Action,
        relation: Oid,
        index: u32,
        in_order: InOrder,
        batch_size: i32,
    ) -> Result<Plans> {
        let whole = action::statement::whole(action, target);
        let in_order = match in_order {
            InOrder::Asked => true,
            InOrder::Kept => hazards::draws_from_sequence(&whole)?,
            InOrder::No => false,
        };
        let update = match (in_order, action.fate()) {
            (true, _) => Access::InOrder,
            (_, Fate::Kept) => Access::Rows(batch_size.max(1) as u32),
            (false, _) => Access::Index,
        };
        let row = match update {
            Access::Rows(_) => Access::Rows(1),
            _ => Access::Index,
        };
        let of = |rows| batch(action, target, rows, Giving::Nothing);
        let updating = |after| Prepared::new(of(Rows::Range { after }), &target.key, update);
        let one = |statement: Statement| Prepared::new(statement, &target.key, Access::Index);
        let types: Vec<Oid> = target.key.iter().map(|c| c.type_oid.into()).collect();
        let places = relation::may_read_places(relation);
        let plans = Plans {
            list: match in_order {
                true => None,
                false => Listed::prepare(target, action, relation, &types, places, update)?,
            },
            types,
            predicate: target.where_clause.is_some(),
            reach: Reach::prepare(target)?,
            update: [updating(false)?, updating(true)?],
            read: [
                one(target.read(false, places))?,
                one(target.read(true, places))?,
            ],
            places,
            look: one(target.find_row(false))?,
            lock: one(target.find_row(true))?,
            row: Prepared::new(of(Rows::Key), &target.key, row)?,
        };
        statement::announce(relation, index.into(), plans.all());
        Ok(plans)
    }

    /// Returns all statements.
    pub fn all(&self) -> impl Iterator<Item = &Prepared> {
        let pairs = [&self.update, &self.read];
        let listed = self.list.iter().flat_map(Listed::all);
        let single = [&self.look, &self.lock, &self.row];
        let pairs = pairs.into_iter().flatten();
        self.reach.all().chain(pairs).chain(listed).chain(single)
    }

    /// True if the places of rows can be read.
    pub fn has_places(&self) -> bool {
        self.places
    }

    /// True if rows can be updated by a list of their keys.
    pub fn has_list(&self) -> bool {
        self.list.is_some()
    }

    /// Reads the next rows after `after`, up to `limit`: in portions, each with a snapshot of its own.
    pub fn read(&self, after: Option<&Key>, end: &Key, limit: i64) -> Result<Read> {
        let mut read = Read {
            keys: KeyList::new(&self.types)?,
            hits: Vec::new(),
            places: self.places.then(Vec::new),
        };
        let mut after = after.cloned();
        let mut portion = Portion::FIRST;
        loop {
            let begun = Instant::now();
            let had = read.hits.len() as i64;
            let most = (limit - had).min(portion.0);
            self.read_portion(&mut read, after.as_ref(), end, most)?;
            let rows = read.hits.len() as i64;
            if rows < had + most || rows >= limit {
                return Ok(read);
            }
            after = Some(read.keys.text(read.hits.len() - 1)?);
            txn::renew_snapshot();
            portion = portion.next(begun.elapsed());
        }
    }

    fn read_portion(
        &self,
        read: &mut Read,
        after: Option<&Key>,
        end: &Key,
        limit: i64,
    ) -> Result<()> {
        let hit = self.types.len();
        let place = hit + usize::from(self.predicate);
        pick(&self.read, after).visit(range(after, end, &[limit]), |row| {
            read.keys.push(row)?;
            let hits = !self.predicate || row.bool(hit)?;
            read.hits.push(hits);
            if let Some(places) = &mut read.places {
                places.extend(row.tid(place)?);
            }
            Ok(())
        })
    }

    /// Returns the UPDATE of a range of keys.
    pub fn update(&self, after: Option<&Key>) -> &Prepared {
        pick(&self.update, after)
    }

    /// True if the row with this key exists and matches.
    pub fn find(&self, key: &Key) -> Result<bool> {
        Ok(self.look.run(range(None, key, &[1]))?.processed > 0)
    }

    /// Locks the row with this key; returns false if it does not exist, does not match, or somebody else has it locked.
    pub fn lock(&self, key: &Key) -> Result<bool> {
        Ok(self.lock.run(range(None, key, &[1]))?.processed > 0)
    }

    /// Updates the row with this key; returns the number of rows updated, 1 or 0.
    pub fn update_row(&self, key: &Key) -> Result<i64> {
        Ok(self.row.run(range(None, key, &[]))?.processed)
    }

    /// Returns the UPDATE of a list of keys.
    pub fn list(&self) -> Option<&Listed> {
        self.list.as_ref()
    }

    /// Finds rows by their keys alone from now on.
    pub fn distrust_places(&mut self) {
        self.list.iter_mut().for_each(Listed::distrust_places);
    }

    /// True if the last update failed before it was known which rows it was about.
    pub fn was_guessing(&self) -> bool {
        self.list.as_ref().is_some_and(Listed::was_guessing)
    }
}

fn pick<'a>(pair: &'a Pair, after: Option<&Key>) -> &'a Prepared {
    &pair[usize::from(after.is_some())]
}

/// Returns the values for a range of keys.
pub fn range<'a>(after: Option<&'a Key>, end: &'a Key, rows: &'a [i64]) -> Values<'a> {
    Values {
        after,
        up_to: Some(end),
        rows,
        ..Values::default()
    }
}
