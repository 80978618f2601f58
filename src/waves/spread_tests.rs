//! Tests of dealing keys out to waves.

use super::*;

/// Pseudo-random numbers, the same in each run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number from 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const EXTREMES: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];

fn modulo(stride: i64, origin: i64) -> Spread {
    Spread::Modulo { stride, origin }
}

/// Returns the pages of `rows` rows, with `of_page` rows to a page.
fn pages(rows: usize, of_page: usize) -> Vec<u32> {
    (0..rows).map(|row| (row / of_page) as u32).collect()
}

fn in_turns(keys: &[i64], waves: i32) -> Vec<i32> {
    let Spread::Modulo { stride, origin } = Spread::in_turns(keys) else {
        panic!("not in turns")
    };
    let wave = |key: &i64| wave_in_turn(stride, origin, *key, waves);
    keys.iter().map(wave).collect()
}

/// Returns the waves of rows that were dealt out.
fn dealt(rows: &Rows, hashes: &[u64]) -> Vec<i32> {
    let Spread::Dealt(list) = rows.deal(hashes) else {
        panic!("not dealt")
    };
    hashes
        .iter()
        .map(|hash| wave_of_hash(&list, *hash))
        .collect()
}

/// Returns the share of rows whose page already has a row of the same wave.
fn crowded(pages: &[u32], waves: &[i32]) -> f64 {
    let all = pages.len();
    let mut taken: Vec<(u32, i32)> = pages.iter().copied().zip(waves.iter().copied()).collect();
    taken.sort_unstable();
    taken.dedup();
    (all - taken.len()) as f64 / all as f64
}

#[test]
fn a_spread_is_read_as_it_was_written() {
    for (spread, text) in [
        (modulo(16, 3), "mod 16 from 3"),
        (
            modulo(i64::MAX, i64::MIN),
            "mod 9223372036854775807 from -9223372036854775808",
        ),
    ] {
        assert_eq!(spread.to_text(), text);
        assert_eq!(Spread::parse(text, None), Some(spread));
    }
    let dealt = Spread::Dealt(vec![3, 1, 2].into());
    assert_eq!(dealt.to_text(), "dealt");
    assert_eq!(Spread::parse("dealt", Some(vec![3, 1, 2])), Some(dealt));
    assert_eq!(Spread::parse("dealt", Some(Vec::new())), None);
    for text in [
        "",
        "Mod 1 from 0",
        "dealt",
        "mod",
        "mod 16",
        "mod 0 from 1",
        "mod -1 from 1",
        "mod 16 from ",
        "mod a from b",
        "mod 1 from 9223372036854775808",
    ] {
        assert_eq!(Spread::parse(text, None), None, "{text}");
    }
}

#[test]
fn a_turn_counts_strides_from_the_origin() {
    for (key, wave) in [
        (3, 0),
        (18, 0),
        (19, 1),
        (35, 2),
        (51, 3),
        (67, 0),
        (2, 3),
        (-13, 3),
        (-14, 2),
    ] {
        assert_eq!(wave_in_turn(16, 3, key, 4), wave, "{key}");
    }
    for n in -100..100 {
        let wave = |n: i64| wave_in_turn(10, 7, 7 + 10 * n, 8);
        assert_eq!(wave(n + 1), (wave(n) + 1) % 8);
    }
}

#[test]
fn the_wave_of_an_extreme_key_is_a_wave() {
    for key in EXTREMES {
        for origin in EXTREMES {
            for stride in [0, 1, 2, 16, i64::MAX] {
                for waves in [1, 2, 7, 64, 255] {
                    assert!((0..waves).contains(&wave_in_turn(stride, origin, key, waves)));
                }
            }
        }
        assert_eq!(wave_in_turn(1, 0, key, 0), 0);
    }
    assert_eq!(wave_in_turn(1, i64::MIN, i64::MAX, 64), 63);
    for keys in [&[][..], &[5], &[5, 5], &EXTREMES, &[i64::MAX, i64::MIN]] {
        let Spread::Modulo { stride, .. } = Spread::in_turns(keys) else {
            panic!("not in turns")
        };
        assert!(stride >= 1);
    }
}

#[test]
fn ids_on_a_grid_take_turns() {
    let dense: Vec<i64> = (1..=10_000).collect();
    let descending: Vec<i64> = dense.iter().rev().copied().collect();
    let apart: Vec<i64> = dense.iter().map(|n| 3 + 16 * n).collect();
    let negative: Vec<i64> = (-10_000..10_000).map(|n| 7 * n - 3).collect();
    for (keys, spread) in [
        (dense, modulo(1, 0)),
        (descending, modulo(1, 0)),
        (apart, modulo(16, 3)),
        (negative, modulo(7, 4)),
    ] {
        assert_eq!(Spread::in_turns(&keys), spread);
        let pages = pages(keys.len(), 41);
        for waves in [2, 16, 41, 64] {
            let rows = Rows {
                pages: &pages,
                waves,
            };
            assert!(rows.even(&in_turns(&keys, waves)), "{spread:?} {waves}");
        }
    }
}

/// Returns keys for which no turns are even, each list with a name.
fn uneven() -> Vec<(&'static str, Vec<i64>)> {
    let mut random = Random(2);
    let gaps = (0..20_000).filter(|_| random.below(4) > 0).collect();
    let mut sparse: Vec<i64> = (0..10_000)
        .map(|_| random.below(1_000_000_000_000) as i64)
        .collect();
    sparse.sort_unstable();
    let mut now = 1_700_000_000_000;
    // Milliseconds, a machine, and a counter that restarts each millisecond.
    let clock = (0..10_000)
        .map(|_| {
            now += 1 + random.below(20) as i64;
            (now << 22) | (7 << 12) | i64::from(random.below(50) == 0)
        })
        .collect();
    let interleaved = (0..10_000).map(|n| 16 * (n / 2) + n % 2).collect();
    vec![
        ("gaps", gaps),
        ("sparse", sparse),
        ("clock", clock),
        ("interleaved", interleaved),
    ]
}

#[test]
fn where_turns_are_uneven_rows_are_dealt_out() {
    for (name, keys) in uneven() {
        let pages = pages(keys.len(), 41);
        let rows = Rows {
            pages: &pages,
            waves: 41,
        };
        let turns = in_turns(&keys, 41);
        assert!(!rows.even(&turns), "{name}");
        let mut random = Random(7);
        let hashes: Vec<u64> = keys.iter().map(|_| random.next()).collect();
        let waves = dealt(&rows, &hashes);
        let share = crowded(&pages, &waves);
        assert!(share < 0.03, "{name}: {share}");
        // Hashes alone would be far worse.
        let hashed: Vec<i32> = hashes.iter().map(|hash| (hash % 41) as i32).collect();
        assert!(crowded(&pages, &hashed) > 0.3, "{name}");
    }
}

#[test]
fn rows_of_all_pages_are_dealt_out_wherever_they_come_in_the_walk() {
    // Neighbours in the walk are on pages far from each other.
    let rows = 8_000;
    let pages: Vec<u32> = (0..rows).map(|row| row * 7919 % 200).collect();
    let mut random = Random(11);
    let hashes: Vec<u64> = pages.iter().map(|_| random.next()).collect();
    let all = Rows {
        pages: &pages,
        waves: 40,
    };
    let share = crowded(&pages, &dealt(&all, &hashes));
    assert!(share < 0.03, "{share}");
}

#[test]
fn a_page_of_few_rows_has_them_in_waves_far_from_each_other() {
    let mut random = Random(13);
    let pages = pages(30_000, 3);
    let hashes: Vec<u64> = pages.iter().map(|_| random.next()).collect();
    let rows = Rows {
        pages: &pages,
        waves: 30,
    };
    let mut counts = [0; 3];
    for wave in dealt(&rows, &hashes) {
        counts[(wave / 10) as usize] += 1;
    }
    assert!(
        counts.iter().all(|n| (9_000..11_000).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn any_rows_can_be_dealt_out() {
    let equal = vec![42; 1_000];
    for (pages, hashes) in [
        (vec![], vec![]),
        (vec![u32::MAX], vec![u64::MAX]),
        (vec![1, 0, 1], vec![5, 5, 6]),
        (vec![0; 1_000], equal),
    ] {
        for waves in [1, 2, 64, MOST_WAVES] {
            let rows = Rows {
                pages: &pages,
                waves,
            };
            let Spread::Dealt(list) = rows.deal(&hashes) else {
                panic!("not dealt")
            };
            assert!(list.iter().all(|wave| i32::from(*wave) < waves));
            assert!(rows.even(&vec![0; pages.len()]) || waves > 1);
            // A key that was not there gets a wave, too.
            assert!((0..waves).contains(&wave_of_hash(&list, 4711)));
        }
    }
}
