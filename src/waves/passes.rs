//! Passes: groups of waves of a region that are done together.
//!
//! The versions that one pass leaves dead on a page are the room of the next pass, and each row that stays on the page uses up some of
//! it, since rows grow. So the first pass moves away enough rows to make that room, and each later pass is as large as the room that is
//! left: passes get smaller.

/// The room that a page has for new versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Free space, in rows.
    pub rows: f64,
    /// Growth of a row's new version, with its line pointer, as a share of the row.
    pub growth: f64,
    /// Number of free line pointers. Each heap-only version takes one, and the row's first line pointer stays as a redirect to it, so pages
    /// full of narrow rows soon have none left, however much free space they have.
    pub pointers: f64,
}

impl Room {
    /// Updates `rows` rows. Returns how many of them have to go to another page.
    pub fn update(&mut self, rows: f64) -> f64 {
        let stay = rows.min(self.fitting());
        self.rows += rows - stay - self.growth * stay;
        self.pointers -= stay;
        rows - stay
    }

    /// Returns the number of new versions that the page has room for.
    fn fitting(&self) -> f64 {
        // A version that fits exactly does fit, in spite of rounding.
        let rows = (self.rows / (1.0 + self.growth) + 1e-9).floor();
        rows.min(self.pointers.floor()).max(0.0)
    }
}

/// The grouping of a region's waves into passes. No promise depends on it: the checkpoint holds the waves of the current pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Passes {
    /// Each wave has a pass of its own.
    Even,
    /// Each pass has the waves that fit into the room that is left, but at least one.
    Fitting {
        /// Number of waves of the first pass.
        first: i32,
        /// Room after the first pass.
        room: Room,
    },
}

impl Passes {
    /// Returns passes that fit, if a page has one row of each wave.
    pub fn fitting(first: i32, mut room: Room) -> Passes {
        room.update(f64::from(first));
        Passes::Fitting { first, room }
    }

    /// Returns the last wave of the pass that begins with `wave`.
    pub fn end(self, wave: i32) -> i32 {
        let size = match self {
            Passes::Even => 1,
            Passes::Fitting { first, .. } if wave < first => first - wave,
            Passes::Fitting { first, mut room } => {
                // The rows of the passes before have stayed on the page.
                let rows = f64::from(wave - first);
                room.rows -= room.growth * rows;
                room.pointers -= rows;
                if room.pointers < 1.0 {
                    // None of the remaining rows will stay on the page.
                    return i32::MAX;
                }
                room.fitting().max(1.0) as i32
            }
        };
        wave.saturating_add(size.max(1) - 1)
    }

    /// Returns the number of waves of each pass.
    pub fn sizes(self, waves: i32) -> Vec<i32> {
        let mut sizes = Vec::new();
        let mut wave = 0;
        while wave < waves {
            let end = self.end(wave).min(waves - 1);
            sizes.push(end + 1 - wave);
            wave = end + 1;
        }
        sizes
    }
}

/// Cost of a row in the first of several passes, relative to the others: with five indexes it took 28 us, and 4 to 5 us in the others.
/// Commits of the first pass have fewer rows by this factor, since an open transaction keeps the waves of other workers waiting.
const DEARER: i32 = 4;

/// The current pass over a region.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Number of rows that the pass goes over.
    pub rows: usize,
    /// Whether the pass is the only one.
    pub only: bool,
    /// Whether the pass is the first of several: its rows go to other pages, with entries in all indexes.
    pub first: bool,
}

impl Pass {
    /// Returns the number of rows of each commit of the pass: as even as possible, at most `most`, less in the first pass, and such that
    /// there are at least two commits. The commit of the previous pass on the pages of the next commit is then not the very last one, whose
    /// versions other transactions may still see. For an only pass, returns `most`.
    pub fn rows_per_commit(self, most: i32) -> i32 {
        let most = most.max(1);
        if self.only {
            return most;
        }
        let most = match self.first {
            true => (most / DEARER).max(1),
            false => most,
        };
        let commits = self.rows.div_ceil(most as usize).max(2);
        i32::try_from(self.rows.div_ceil(commits)).map_or(i32::MAX, |size| size.max(1))
    }
}

/// Returns the wave of a row from its number on its page: in turns, and evenly distributed if the page has fewer rows than there are
/// waves (otherwise the first pass would get too many).
pub fn turn(number: usize, rows_of_page: usize, waves: usize) -> usize {
    let stretch = waves.max(rows_of_page);
    number * stretch / rows_of_page.max(1) % waves.max(1)
}

/// Deals the rows of each page out to the waves in turns. Returns each row with its pass, those of the first pass first. Rows are given
/// page by page; `sizes` holds the number of waves of each pass.
pub fn deal<R: Copy>(rows: Vec<R>, page: impl Fn(&R) -> u32, sizes: &[i32]) -> Vec<(i32, R)> {
    let numbered = (0..).zip(sizes);
    let pass_of_wave: Vec<i32> = numbered
        .flat_map(|(pass, size)| std::iter::repeat_n(pass, *size as usize))
        .collect();
    let waves = pass_of_wave.len();
    let mut dealt = Vec::with_capacity(rows.len());
    for of_page in rows.chunk_by(|a, b| page(a) == page(b)) {
        dealt.extend(of_page.iter().enumerate().map(|(number, row)| {
            let wave = turn(number, of_page.len(), waves);
            (pass_of_wave.get(wave).copied().unwrap_or(0), *row)
        }));
    }
    // Stable: the order of the pages is kept within a pass.
    dealt.sort_by_key(|(pass, _)| *pass);
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_rows_of_all_passes() {
        // Pages 0 and 1 have four rows each, page 2 has two.
        let rows: Vec<u32> = vec![0, 1, 2, 3, 10, 11, 12, 13, 20, 21];
        let dealt = deal(rows, |row| row / 10, &[1, 3]);
        let of = |pass| -> Vec<u32> {
            let rows = dealt.iter().filter(|(of, _)| *of == pass);
            rows.map(|(_, row)| *row).collect()
        };
        assert_eq!(of(0), [0, 10, 20]);
        assert_eq!(of(1), [1, 2, 3, 11, 12, 13, 21]);
        // If there are more rows than waves, the waves repeat.
        let dealt = deal(vec![0, 1, 2, 3, 4], |_| 0, &[1, 1]);
        assert_eq!(dealt, [(0, 0), (0, 2), (0, 4), (1, 1), (1, 3)]);
        // A single pass keeps the order.
        assert_eq!(deal(vec![7, 8], |_| 0, &[1]), [(0, 7), (0, 8)]);
        assert!(deal(Vec::new(), |row: &u32| *row, &[1, 1]).is_empty());
    }

    const NONE: Room = Room {
        rows: 0.0,
        growth: 0.08,
        pointers: 250.0,
    };

    #[test]
    fn passes_cover_all_waves() {
        for waves in 1..300 {
            assert_eq!(Passes::Even.sizes(waves), vec![1; waves as usize]);
            for first in (0..waves + 3).step_by(3) {
                for rows in [-1.0, 0.0, 0.5, 3.0, 1e9, f64::INFINITY] {
                    for pointers in [-3.0, 0.0, 7.0, 250.0] {
                        let room = Room {
                            rows,
                            pointers,
                            ..NONE
                        };
                        let sizes = Passes::fitting(first, room).sizes(waves);
                        let shown = format!("{waves} {first} {room:?}: {sizes:?}");
                        assert_eq!(sizes.iter().sum::<i32>(), waves, "{shown}");
                        assert!(sizes.iter().all(|size| *size > 0), "{shown}");
                    }
                }
            }
        }
    }

    #[test]
    fn they_get_smaller_as_the_room_does() {
        let sizes = Passes::fitting(5, NONE).sizes(41);
        assert_eq!(sizes, [5, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2]);
        assert_eq!(Passes::fitting(41, NONE).sizes(41), [41]);
    }

    #[test]
    fn without_line_pointers_the_rest_goes_at_once() {
        let room = Room {
            pointers: 6.0,
            ..NONE
        };
        assert_eq!(Passes::fitting(3, room).sizes(41), [3, 2, 2, 2, 32]);
    }

    #[test]
    fn room_that_was_there_is_used_and_grows_by_what_goes() {
        let mut room = Room { rows: 3.0, ..NONE };
        assert_eq!(room.update(5.0), 3.0);
        assert!((room.rows - (3.0 + 3.0 - 0.16)).abs() < 1e-9, "{room:?}");
        assert_eq!(room.pointers, 248.0);
    }

    #[test]
    fn the_commits_of_a_pass_are_even_and_at_least_two() {
        for (rows, most, expected) in [
            (0, 1000, 1),
            (1, 1000, 1),
            (2, 1000, 1),
            (1000, 1000, 500),
            (1585, 1000, 793),
            (2001, 1000, 667),
            (1_000_000, 10, 10),
            (100, 0, 1),
        ] {
            let pass = Pass {
                rows,
                only: false,
                first: false,
            };
            assert_eq!(pass.rows_per_commit(most), expected, "{rows} {most}");
        }
        let first = Pass {
            rows: 5_000,
            only: false,
            first: true,
        };
        assert_eq!(first.rows_per_commit(1_000), 250);
        assert_eq!(first.rows_per_commit(2), 1);
        let only = Pass {
            only: true,
            ..first
        };
        assert_eq!(only.rows_per_commit(1_000), 1_000);
    }
}
