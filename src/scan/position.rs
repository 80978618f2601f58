//! The position of a slice, as a checkpoint stores it.

use crate::waves::passes::Passes;
use crate::waves::spread::Spread;

/// A key in text form.
pub type Key = Vec<String>;

/// The position of a slice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Position {
    /// Everything up to this key is done; `None` at the slice's start.
    pub key: Option<Key>,
    /// In physical order: every page before this one is done.
    pub block: Option<i64>,
    /// The open region after `key`, which is done in waves; `None` if there is none.
    pub region: Option<Region>,
}

/// A stretch of the walk, from the position's key on, that several passes go over: each pass does the rows of one wave or several, and
/// the last pass may do all that are left.
///
/// The wave of a row is a pure function of its key, so a worker that takes over after a crash finds the same rows done and undone. That
/// function and the region's end stay the same until the region is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Last key of the region.
    pub end: Key,
    /// Total number of waves.
    pub waves: i32,
    /// Assigns a wave to each key.
    pub spread: Spread,
    /// First wave of the current pass; the waves before it are done.
    pub wave: i32,
    /// Last wave of the current pass.
    pub to: i32,
    /// Key up to which the current pass is done; `None` at its start.
    pub key: Option<Key>,
}

impl Region {
    /// Creates a region of which nothing is done.
    pub fn new(end: Key, waves: i32, spread: Spread, passes: Passes) -> Region {
        Region {
            end,
            waves,
            spread,
            wave: 0,
            to: passes.end(0).min(waves - 1),
            key: None,
        }
    }

    /// Whether the current pass does this wave.
    pub fn includes(&self, wave: i32) -> bool {
        (self.wave..=self.to).contains(&wave)
    }
}

impl Position {
    /// Returns the position after the current pass is done up to `key`.
    pub fn at(&self, key: Key) -> Position {
        let mut next = self.clone();
        if let Some(region) = &mut next.region {
            region.key = Some(key);
        }
        next
    }

    /// Returns the position once the current pass over the open region is done: at the next pass, or behind the region. If `passes` is
    /// `None`, the next pass does all remaining waves.
    pub fn after_pass(&self, passes: Option<Passes>) -> Position {
        let mut next = self.clone();
        let Some(region) = &mut next.region else {
            return next;
        };
        region.key = None;
        region.wave = region.to + 1;
        region.to = passes.map_or(i32::MAX, |passes| passes.end(region.wave));
        region.to = region.to.min(region.waves - 1);
        if region.wave >= region.waves {
            next.key = Some(region.end.clone());
            next.region = None;
        }
        next
    }

    /// Returns the position behind everything up to `key`, with no region open.
    pub fn behind(&self, key: Key) -> Position {
        Position {
            key: Some(key),
            block: self.block,
            region: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waves::passes::Room;

    fn key(n: i32) -> Key {
        vec![n.to_string()]
    }

    fn open(waves: i32) -> Position {
        Position {
            key: Some(key(5)),
            block: None,
            region: Some(Region::new(
                key(99),
                waves,
                Spread::in_turns(&[]),
                Passes::Even,
            )),
        }
    }

    #[test]
    fn each_wave_has_its_pass() {
        let mut position = open(4);
        for wave in 0..4 {
            let region = position.region.clone().unwrap();
            let done: Vec<i32> = (0..4).filter(|w| region.includes(*w)).collect();
            assert_eq!(done, [wave]);
            position = position.at(key(50));
            assert_eq!(position.region.as_ref().unwrap().key, Some(key(50)));
            position = position.after_pass(Some(Passes::Even));
        }
        assert_eq!(position.region, None);
        assert_eq!(position.key, Some(key(99)));
    }

    #[test]
    fn the_rest_can_be_done_in_one_pass() {
        let position = open(8).after_pass(Some(Passes::Even)).after_pass(None);
        let region = position.region.clone().unwrap();
        let done: Vec<i32> = (0..8).filter(|w| region.includes(*w)).collect();
        assert_eq!(done, [2, 3, 4, 5, 6, 7]);
        assert_eq!(region.key, None);
        let behind = position.after_pass(None);
        assert_eq!((behind.key, behind.region), (Some(key(99)), None));
    }

    #[test]
    fn a_pass_may_do_several_waves() {
        let room = Room {
            rows: 0.0,
            growth: 0.08,
            pointers: 250.0,
        };
        let passes = Passes::fitting(3, room);
        let mut position = open(9);
        position.region = Some(Region::new(key(99), 9, Spread::in_turns(&[]), passes));
        let mut done = Vec::new();
        while let Some(region) = &position.region {
            done.push((region.wave, region.to));
            position = position.after_pass(Some(passes));
        }
        assert_eq!(done, [(0, 2), (3, 4), (5, 6), (7, 8)]);
    }

    #[test]
    fn a_region_of_one_wave_has_one_pass() {
        assert_eq!(open(1).after_pass(Some(Passes::Even)).region, None);
    }
}
