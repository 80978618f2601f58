//! Rows in the order of the walk, as they were read before a batch.

use crate::pg::heap::Tid;
use crate::pg::keylist::KeyList;

/// Rows in the order of the walk, as they were read.
#[derive(Debug)]
pub struct Read {
    /// Their keys.
    pub keys: KeyList,
    /// Which of them match the WHERE clause.
    pub hits: Vec<bool>,
    /// Where they were.
    pub places: Option<Vec<Tid>>,
}

impl Read {
    /// The rows that match.
    pub fn matching(&self) -> impl Iterator<Item = usize> {
        let rows = self.hits.iter().enumerate();
        rows.filter(|(_, hit)| **hit).map(|(row, _)| row)
    }

    /// Their pages, if those are known.
    pub fn pages(&self) -> Option<Vec<u32>> {
        let places = self.places.as_ref()?;
        Some(self.matching().map(|row| places[row].block).collect())
    }
}
