//! Assigns rows to the waves of a region by a pure function of the key, so that a worker that goes on after a crash finds the same rows
//! done and undone.

use std::rc::Rc;
use std::str::FromStr;

use crate::waves::passes;

/// The assignment of a region's keys to its waves, as even on each page as possible. It is chosen for each region, and stored with it: it
/// must not change while the region is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// In turns: keys at distances of `stride`, counted from `origin`, belong to consecutive waves.
    Modulo {
        /// Distance of the keys; at least 1.
        stride: i64,
        /// Any key of the grid.
        origin: i64,
    },
    /// By the position of the rows when the region was opened: the wave of a key is the element of this list at the key's hash modulo the
    /// list's length.
    Dealt(Rc<[u8]>),
}

/// The rows of a region that are dealt out, in the order of the walk.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The page of each row.
    pub pages: &'a [u32],
    /// Number of waves to deal the rows out to: from 1 to [`MOST_WAVES`].
    pub waves: i32,
}

/// Maximum number of waves: a wave is one byte in [`Spread::Dealt`].
pub const MOST_WAVES: i32 = 255;

/// Turns are even enough if at most this share of the rows shares a page and a wave with more rows than is fair.
const CROWDED: f64 = 0.03;
/// Number of places in the list of waves for each row. Two rows in one place have the same wave, but nearly always one of them can get the
/// wave it should have: it comes first on its page.
const PLACES: usize = 2;

impl Spread {
    /// Returns the text form that is stored: "mod 16 from 3", or "dealt", which is stored along with its list.
    pub fn to_text(&self) -> String {
        match self {
            Spread::Modulo { stride, origin } => format!("mod {stride} from {origin}"),
            Spread::Dealt(_) => "dealt".to_owned(),
        }
    }

    /// Parses the result of [`Spread::to_text`]; `waves` is the list stored along with it.
    pub fn parse(text: &str, waves: Option<Vec<u8>>) -> Option<Spread> {
        if text == "dealt" {
            return waves
                .filter(|list| !list.is_empty())
                .map(|list| Spread::Dealt(list.into()));
        }
        let (stride, origin) = text.strip_prefix("mod ")?.split_once(" from ")?;
        let (stride, origin) = (i64::from_str(stride).ok()?, i64::from_str(origin).ok()?);
        (stride >= 1).then_some(Spread::Modulo { stride, origin })
    }

    /// Creates turns whose stride is the greatest common divisor of the distances of these keys.
    pub fn in_turns(keys: &[i64]) -> Spread {
        let stride = keys
            .windows(2)
            .fold(0, |stride, pair| gcd(stride, pair[0].abs_diff(pair[1])));
        let stride = i64::try_from(stride).unwrap_or(i64::MAX).max(1);
        let origin = keys.first().map_or(0, |first| first.rem_euclid(stride));
        Spread::Modulo { stride, origin }
    }
}

/// Returns the wave (from 0) of a key that takes turns by its distance from `origin`.
pub fn wave_in_turn(stride: i64, origin: i64, key: i64, waves: i32) -> i32 {
    // The distance of two keys may exceed their type.
    let steps = (i128::from(key) - i128::from(origin)).div_euclid(i128::from(stride.max(1)));
    steps.rem_euclid(i128::from(waves.max(1))) as i32
}

/// Returns the wave (from 0) of a key by its hash. The list is that of [`Spread::Dealt`].
pub fn wave_of_hash(list: &[u8], hash: u64) -> i32 {
    i32::from(list[(hash % list.len() as u64) as usize])
}

impl Rows<'_> {
    /// Whether these waves, one for each row, are distributed over each page evenly enough.
    pub fn even(&self, waves: &[i32]) -> bool {
        let mut crowded = 0;
        let mut counts = vec![0; self.waves.max(1) as usize];
        let order = self.by_page();
        for page in order.chunk_by(|a, b| self.page(*a) == self.page(*b)) {
            let fair = page.len().div_ceil(counts.len());
            for row in page {
                let count = &mut counts[waves[*row as usize] as usize];
                *count += 1;
                crowded += usize::from(*count > fair);
            }
            counts.fill(0);
        }
        crowded as f64 <= self.pages.len() as f64 * CROWDED
    }

    /// Deals out the rows by the hashes of their keys, page by page.
    pub fn deal(&self, hashes: &[u64]) -> Spread {
        let places = (hashes.len() * PLACES).max(1);
        let mut list: Vec<Option<u8>> = vec![None; places];
        let place = |row: &u32| (hashes[*row as usize] % places as u64) as usize;
        let order = self.by_page();
        for page in order.chunk_by(|a, b| self.page(*a) == self.page(*b)) {
            let turn = |number| passes::turn(number, page.len(), self.waves as usize) as u8;
            let mut wanted: Vec<u8> = (0..page.len()).map(turn).collect();
            // A place that has a wave already keeps it.
            let mut free: Vec<usize> = Vec::with_capacity(page.len());
            for place in page.iter().map(place) {
                match list[place] {
                    None => free.push(place),
                    Some(wave) => {
                        if let Some(found) = wanted.iter().position(|w| *w == wave) {
                            wanted.remove(found);
                        }
                    }
                }
            }
            for (number, place) in free.iter().enumerate() {
                list[*place] = Some(wanted[number * wanted.len() / free.len()]);
            }
        }
        // Places without a row now get a wave, too, for rows that are inserted later.
        let others = (0..places).map(|place| (place % self.waves.max(1) as usize) as u8);
        let list = list.into_iter().zip(others);
        Spread::Dealt(list.map(|(wave, other)| wave.unwrap_or(other)).collect())
    }

    fn page(&self, row: u32) -> u32 {
        self.pages[row as usize]
    }

    /// Returns the rows in the order of their pages.
    fn by_page(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.pages.len() as u32).collect();
        order.sort_by_key(|row| self.page(*row));
        order
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
pub(super) mod tests;
