//! The assignment of a region's rows to waves.

use crate::error::{Error, Result};
use crate::pg::keylist::KeyList;
use crate::waves::spread::{Rows, Spread, wave_in_turn, wave_of_hash};
use crate::worker::by_key::rows::Read;

/// Chooses the function that gives a key its wave.
pub fn spread(read: &Read, waves: i32, rows_per_page: f64) -> Result<Spread> {
    if waves == 1 {
        return Ok(Spread::in_turns(&[]));
    }
    let rows: Vec<usize> = read.matching().collect();
    // Rows that are neighbours by key are likely to be neighbours in the table.
    let of_page = rows_per_page.max(1.0) as usize;
    let guess = || (0..rows.len()).map(|n| (n / of_page) as u32).collect();
    let pages = read.pages().unwrap_or_else(guess);
    let dealer = Rows {
        pages: &pages,
        waves,
    };
    if let Some(keys) = read.keys.integers() {
        let turns = Spread::in_turns(&rows.iter().map(|row| keys[*row]).collect::<Vec<_>>());
        let waves = waves_of(&read.keys, &turns, waves)?;
        if dealer.even(&rows.iter().map(|row| waves[*row]).collect::<Vec<_>>()) {
            return Ok(turns);
        }
    }
    let hashes = read.keys.hashes()?;
    let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row]).collect();
    Ok(dealer.deal(&hashes))
}

/// Returns the wave of each key.
pub fn waves_of(keys: &KeyList, spread: &Spread, waves: i32) -> Result<Vec<i32>> {
    Ok(match spread {
        Spread::Modulo { stride, origin } => {
            let keys = keys.integers();
            let keys =
                keys.ok_or_else(|| Error::internal("turns for keys that are no integers"))?;
            let wave = |key: &i64| wave_in_turn(*stride, *origin, *key, waves);
            keys.iter().map(wave).collect()
        }
        Spread::Dealt(list) => {
            let wave = |hash: &u64| wave_of_hash(list, *hash);
            keys.hashes()?.iter().map(wave).collect()
        }
    })
}
