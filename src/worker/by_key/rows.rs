//! Rows as they were read before a batch, in the order of the walk.

use crate::pg::keylist::KeyList;
use crate::pg::tid::Tid;

/// Rows as they were read, in the order of the walk.
#[derive(Debug)]
pub struct Read {
    /// Keys of the rows.
    pub keys: KeyList,
    /// For each row, whether it matches the WHERE clause.
    pub hits: Vec<bool>,
    /// Places of the rows when they were read, if they are read at all.
    pub places: Option<Vec<Tid>>,
}

impl Read {
    /// Returns the indexes of the rows that match.
    pub fn matching(&self) -> impl Iterator<Item = usize> {
        let rows = self.hits.iter().enumerate();
        rows.filter(|(_, hit)| **hit).map(|(row, _)| row)
    }

    /// Returns the pages of the rows that match, if their places are known.
    pub fn pages(&self) -> Option<Vec<u32>> {
        let places = self.places.as_ref()?;
        Some(self.matching().map(|row| places[row].block).collect())
    }
}
