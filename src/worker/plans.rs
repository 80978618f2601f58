//! The statements of a walk in key order.

use pgrx::pg_sys::Oid;

use super::statement::{self, Prepared, Values};
use crate::error::Result;
use crate::pg::keylist::{self, KeyList};
use crate::pg::planner::Access;
use crate::pg::relation;
use crate::pg::spi::RawRow;
use crate::plan::position::Key;
use crate::plan::sql::{Statement, Target};

/// A statement without a lower bound, and with one.
type Pair = [Prepared; 2];

/// The statements of a walk in key order.
#[derive(Debug)]
pub struct Plans {
    types: Vec<Oid>,
    predicate: bool,
    bound: Pair,
    count: Pair,
    update: Pair,
    read: Pair,
    /// Absent where the owner may not read places: with rights on some columns only.
    places: Option<Pair>,
    /// Absent for keys of types that there are no arrays or hash functions of.
    list: Option<Prepared>,
}

/// Rows in the order of the walk, as they were read.
#[derive(Debug)]
pub struct Read {
    /// Their keys.
    pub keys: KeyList,
    /// Which of them match the WHERE clause.
    pub hits: Vec<bool>,
}

impl Plans {
    /// Analyses the statements, as the owner. Within `spi::connect`.
    pub fn prepare(target: &Target, relation: Oid, index: u32) -> Result<Plans> {
        let one = |statement: Statement| Prepared::new(statement, &target.key, Access::Index);
        let pair = |of: fn(&Target, bool) -> Statement| -> Result<Pair> {
            Ok([one(of(target, false))?, one(of(target, true))?])
        };
        let types: Vec<Oid> = target.key.iter().map(|c| c.type_oid.into()).collect();
        let access = if types.len() == 1 {
            Access::Index
        } else {
            Access::Lookup
        };
        let list = keylist::supported(&types)
            .then(|| Prepared::new(target.update_list(), &target.key, access))
            .transpose()?;
        let plans = Plans {
            types,
            predicate: target.where_clause.is_some(),
            bound: pair(Target::bound)?,
            count: pair(Target::count)?,
            update: pair(Target::update)?,
            read: pair(Target::read)?,
            places: relation::may_read_places(relation)
                .then(|| pair(Target::places))
                .transpose()?,
            list,
        };
        statement::announce(relation, index.into(), plans.all());
        Ok(plans)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Prepared> {
        let pairs = [&self.bound, &self.count, &self.update, &self.read];
        let pairs = pairs.into_iter().chain(&self.places);
        pairs.flatten().chain(&self.list)
    }

    /// Whether the places of rows can be read.
    pub fn has_places(&self) -> bool {
        self.places.is_some()
    }

    /// Whether rows can be updated by a list of their keys.
    pub fn has_list(&self) -> bool {
        self.list.is_some()
    }

    /// The key of the n-th row after the cursor; nothing if fewer are left.
    pub fn bound(&self, after: Option<&Key>, end: &Key, n: i64) -> Result<Option<Key>> {
        let rows = [n - 1, 1];
        let output = pick(&self.bound, after).run(range(after, end, &rows))?;
        let first = output.rows.first();
        first.map(|row| row.texts(self.types.len())).transpose()
    }

    /// How many rows are left, up to `limit`.
    pub fn count(&self, after: Option<&Key>, end: &Key, limit: i64) -> Result<i64> {
        let output = pick(&self.count, after).run(range(after, end, &[limit]))?;
        output.rows.first().map_or(Ok(0), |row| row.number(0))
    }

    /// The next rows after the cursor, up to `limit`.
    pub fn read(&self, after: Option<&Key>, end: &Key, limit: i64) -> Result<Read> {
        let mut keys = KeyList::new(&self.types);
        let mut hits = Vec::new();
        pick(&self.read, after).visit(range(after, end, &[limit]), |row| {
            keys.push(row)?;
            hits.push(self.is_hit(row, self.types.len()));
            Ok(())
        })?;
        Ok(Read { keys, hits })
    }

    /// The pages of those among the next `limit` rows that match the WHERE clause, in order.
    pub fn places(&self, after: Option<&Key>, end: &Key, limit: i64) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        let Some(places) = &self.places else {
            return Ok(pages);
        };
        pick(places, after).visit(range(after, end, &[limit]), |row| {
            if self.is_hit(row, 1) {
                pages.extend(row.tid(0).map(|tid| tid.block));
            }
            Ok(())
        })?;
        Ok(pages)
    }

    fn is_hit(&self, row: &RawRow, column: usize) -> bool {
        !self.predicate || row.get(column).is_some_and(|hit| hit.value() != 0)
    }

    /// The UPDATE of a range of keys.
    pub fn update(&self, after: Option<&Key>) -> &Prepared {
        pick(&self.update, after)
    }

    /// The UPDATE of a list of keys.
    pub fn list(&self) -> Option<&Prepared> {
        self.list.as_ref()
    }
}

fn pick<'a>(pair: &'a Pair, after: Option<&Key>) -> &'a Prepared {
    &pair[usize::from(after.is_some())]
}

/// The values of a range of keys.
pub fn range<'a>(after: Option<&'a Key>, end: &'a Key, rows: &'a [i64]) -> Values<'a> {
    Values {
        after,
        up_to: Some(end),
        rows,
        ..Values::default()
    }
}
