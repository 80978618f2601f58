//! Which wave of a region a row belongs to: a pure function of its key, so that whoever goes on
//! after a crash finds the same rows done and undone.

use std::rc::Rc;
use std::str::FromStr;

use crate::waves::passes;

/// How the keys of a region are dealt out to its waves, as evenly over each page as can be. Chosen
/// anew for each region, and stored with it: it must not change while the region is walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// In turns, one wave each `stride` from `origin`.
    Modulo {
        /// At least 1.
        stride: i64,
        /// Any key of the grid.
        origin: i64,
    },
    /// As the rows lay when the region was opened: a key has the wave that is at its hash modulo
    /// the length.
    Dealt(Rc<[u8]>),
}

/// Rows of a region that are to be dealt out, in the order of the walk.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The page of each.
    pub pages: &'a [u32],
    /// Waves to deal them out to: at least 1, and at most [`MOST_WAVES`].
    pub waves: i32,
}

/// A wave is one byte of [`Spread::Dealt`].
pub const MOST_WAVES: i32 = 255;

/// Turns are good enough if no more than this share of the rows is in the way of another one.
const CROWDED: f64 = 0.03;
/// Places in the list of waves for each row. Two rows in one place have the same wave, but nearly
/// always one of two such is free to be where it should be: it comes first on its page.
const PLACES: usize = 2;

impl Spread {
    /// As it is stored: "mod 16 from 3", or "dealt", which has a list beside it.
    pub fn to_text(&self) -> String {
        match self {
            Spread::Modulo { stride, origin } => format!("mod {stride} from {origin}"),
            Spread::Dealt(_) => "dealt".to_owned(),
        }
    }

    /// Reads what [`Spread::to_text`] wrote; `waves` is the list beside it.
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

    /// In turns by the greatest common divisor of the distances of these keys.
    pub fn in_turns(keys: &[i64]) -> Spread {
        let stride = keys
            .windows(2)
            .fold(0, |stride, pair| gcd(stride, pair[0].abs_diff(pair[1])));
        let stride = i64::try_from(stride).unwrap_or(i64::MAX).max(1);
        let origin = keys.first().map_or(0, |first| first.rem_euclid(stride));
        Spread::Modulo { stride, origin }
    }
}

/// The wave of a key whose turn comes by its distance from `origin`, from 0.
pub fn wave_in_turn(stride: i64, origin: i64, key: i64, waves: i32) -> i32 {
    // The distance of two keys may be beyond their type.
    let steps = (i128::from(key) - i128::from(origin)).div_euclid(i128::from(stride.max(1)));
    steps.rem_euclid(i128::from(waves.max(1))) as i32
}

/// The wave of a key by its hash, from 0. The list is that of [`Spread::Dealt`].
pub fn wave_of_hash(list: &[u8], hash: u64) -> i32 {
    i32::from(list[(hash % list.len() as u64) as usize])
}

impl Rows<'_> {
    /// Whether these waves are spread over each page evenly enough.
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

    /// Deals out rows by the hashes of their keys, page by page.
    pub fn deal(&self, hashes: &[u64]) -> Spread {
        let places = (hashes.len() * PLACES).max(1);
        let mut list: Vec<Option<u8>> = vec![None; places];
        let place = |row: &u32| (hashes[*row as usize] % places as u64) as usize;
        let order = self.by_page();
        for page in order.chunk_by(|a, b| self.page(*a) == self.page(*b)) {
            let turn = |number| passes::turn(number, page.len(), self.waves as usize) as u8;
            let mut wanted: Vec<u8> = (0..page.len()).map(turn).collect();
            // What is taken already stays.
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
        // Those that no row has now: for rows that are inserted.
        let others = (0..places).map(|place| (place % self.waves.max(1) as usize) as u8);
        let list = list.into_iter().zip(others);
        Spread::Dealt(list.map(|(wave, other)| wave.unwrap_or(other)).collect())
    }

    fn page(&self, row: u32) -> u32 {
        self.pages[row as usize]
    }

    /// The rows in the order of their pages.
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
