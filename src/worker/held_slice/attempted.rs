//! Descriptions of the batch in progress, for a person.

use crate::error::Result;
use crate::pg::planner::Access;
use crate::pg::relation;
use crate::pg::spi::Arg;
use crate::pg::tid::Tid;
use crate::pg::txn::{self, Durability};
use crate::scan::key;
use crate::scan::position::Key;
use crate::store::slice::Extent;
use crate::table::index;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::statement::{Prepared, Values};
use crate::worker::held_slice::Walk;

impl Walk {
    /// Describes the rows that the batch in progress is about, for a person.
    pub fn attempted(&self) -> String {
        let position = &self.checkpoint.position;
        let region = position.region.as_ref();
        match &self.attempt {
            Some(Attempt::Pages(first, end) | Attempt::ReadPages(first, end)) => {
                let name = &self.slice.relation_name;
                match &self.slice.extent {
                    Extent::Physical(range) if range.whole() => format!("all pages of {name}"),
                    _ => format!("pages {first} to {} of {name}", end - 1),
                }
            }
            Some(Attempt::Place(tid)) => {
                let name = &self.slice.relation_name;
                let key = self
                    .key_at(*tid)
                    .map_or(String::new(), |key| format!(", {key}"));
                format!("ctid ({},{}) of {name}{key}", tid.block, tid.offset)
            }
            Some(Attempt::Row(row)) => {
                let columns: Vec<String> = self.target.key.iter().map(|c| c.name.clone()).collect();
                equal(&columns, &row.key)
            }
            Some(Attempt::Wave(last)) => {
                let after = region
                    .and_then(|r| r.key.as_ref())
                    .or(position.key.as_ref());
                let wave = region.map_or(String::new(), |r| match (r.wave, r.to, r.waves) {
                    (_, _, 1) => String::new(),
                    (from, to, n) if from == to => format!(", wave {} of {n}", to + 1),
                    (from, to, n) => format!(", waves {} to {} of {n}", from + 1, to + 1),
                });
                format!("{}{wave}", self.keys(after, Some(last)))
            }
            Some(Attempt::Keys(last) | Attempt::ReadKeys(last)) => {
                self.keys(position.key.as_ref(), Some(last))
            }
            None if self.target.key.is_empty() => format!(
                "pages from {} of {}",
                position.block.unwrap_or_default(),
                self.slice.relation_name
            ),
            None => self.keys(position.key.as_ref(), None),
        }
    }

    /// Describes the row that a batch of one row is about, for a person.
    pub fn attempted_row(&self) -> String {
        let Some(Attempt::Keys(key) | Attempt::ReadKeys(key) | Attempt::Wave(key)) = &self.attempt
        else {
            return self.attempted();
        };
        let columns: Vec<String> = self.target.key.iter().map(|c| c.name.clone()).collect();
        match &self.target.alias {
            // Another partition may contain the same key.
            Some(_) => format!("{} {}", self.slice.relation_name, equal(&columns, key)),
            None => equal(&columns, key),
        }
    }

    fn keys(&self, after: Option<&Key>, last: Option<&Key>) -> String {
        let columns: Vec<&str> = self.target.key.iter().map(|c| c.name.as_str()).collect();
        let columns = match &self.target.alias {
            // Another partition may contain the same range of keys.
            Some(_) => format!("{} ({})", self.slice.relation_name, columns.join(", ")),
            None => format!("({})", columns.join(", ")),
        };
        let side = |operator: &str, key: Option<&Key>| {
            key.map(|key| format!("{columns} {operator} ({})", key.join(", ")))
        };
        let sides: Vec<String> = [side(">", after), side("<=", last)]
            .into_iter()
            .flatten()
            .collect();
        if sides.is_empty() {
            format!("{columns} from the start")
        } else {
            sides.join(" AND ")
        }
    }

    /// Returns the key of the row at a place, for tables that have one: people have no use for the place.
    fn key_at(&self, tid: Tid) -> Option<String> {
        let found = txn::run(Durability::Deferred, || self.read_key_at(tid));
        found.ok().flatten()
    }

    fn read_key_at(&self, tid: Tid) -> Result<Option<String>> {
        let table = self.slice.relation;
        relation::lock_for_update(table);
        let candidates = index::candidates(table)?;
        let Ok(found) = key::choose(candidates, None, &self.slice.relation_name) else {
            return Ok(None);
        };
        let columns = found.column_names();
        let statement = Prepared::new(self.target.columns_at(&columns), &[], Access::Tid)?;
        let values = Values {
            lists: &[Arg::Tids(&[tid])],
            rows: &[1],
            ..Values::default()
        };
        let rows = statement.run(values)?.rows;
        let key = rows
            .first()
            .map(|row| row.texts(columns.len()))
            .transpose()?;
        Ok(key.map(|key| equal(&columns, &key)))
    }
}

fn equal(columns: &[String], key: &Key) -> String {
    format!("({}) = ({})", columns.join(", "), key.join(", "))
}
