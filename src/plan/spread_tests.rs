//! Tests of how keys are dealt out to waves.

use super::*;

/// Numbers that look random, the same in each run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// One of 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn sorted(mut keys: Vec<i64>) -> Vec<i64> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The share of a page's rows that its largest wave has, in multiples of a fair share.
fn excess(keys: &[i64], spread: Spread, waves: i32) -> f64 {
    unevenness(keys, spread, waves, 41) * f64::from(waves) / 41.0
}

const WAVES: i32 = 16;

fn chosen(keys: &[i64]) -> Spread {
    choose_spread(keys, WAVES, 41.0)
}

#[test]
fn a_spread_is_read_as_it_was_written() {
    for (spread, text) in [
        (Spread::Hash, "hash"),
        (
            Spread::Modulo {
                stride: 16,
                origin: 3,
            },
            "mod 16 from 3",
        ),
        (
            Spread::Modulo {
                stride: i64::MAX,
                origin: i64::MIN,
            },
            "mod 9223372036854775807 from -9223372036854775808",
        ),
    ] {
        assert_eq!(spread.to_text(), text);
        assert_eq!(Spread::parse(text), Some(spread));
    }
    for text in [
        "",
        "Hash",
        "mod",
        "mod 16",
        "mod 0 from 1",
        "mod -1 from 1",
        "mod 16 from ",
        "mod a from b",
        "mod 1 from 9223372036854775808",
    ] {
        assert_eq!(Spread::parse(text), None, "{text}");
    }
}

#[test]
fn the_wave_of_an_integer_counts_strides_from_the_origin() {
    let spread = Spread::Modulo {
        stride: 16,
        origin: 3,
    };
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
        assert_eq!(spread.wave_of_integer(key, 4), wave, "{key}");
    }
}

#[test]
fn the_wave_of_an_extreme_key_is_a_wave() {
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    for key in extremes {
        for origin in extremes {
            for stride in [1, 2, 16, i64::MAX] {
                for waves in [1, 2, 7, 64] {
                    for spread in [Spread::Modulo { stride, origin }, Spread::Hash] {
                        assert!((0..waves).contains(&spread.wave_of_integer(key, waves)));
                    }
                }
            }
        }
        assert_eq!(Spread::Hash.wave_of_integer(key, 0), 0);
    }
    let far = Spread::Modulo {
        stride: 1,
        origin: i64::MIN,
    };
    assert_eq!(far.wave_of_integer(i64::MAX, 64), 63);
}

#[test]
fn neighbours_take_turns() {
    let spread = Spread::Modulo {
        stride: 10,
        origin: 7,
    };
    for n in -100..100 {
        let wave = |n: i64| spread.wave_of_integer(7 + 10 * n, 8);
        assert_eq!(wave(n + 1), (wave(n) + 1) % 8);
    }
}

#[test]
fn hashes_stay_what_they_are_and_use_all_waves() {
    // Stored regions rely on these.
    assert_eq!(Spread::Hash.wave_of_integer(4711, 64), 27);
    let mut counts = [0; 16];
    for n in 0..16_000 {
        counts[Spread::Hash.wave_of_integer(n << 20, 16) as usize] += 1;
    }
    assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
}

#[test]
fn dense_ids_take_turns() {
    let keys: Vec<i64> = (1..=10_000).collect();
    assert_eq!(
        chosen(&keys),
        Spread::Modulo {
            stride: 1,
            origin: 0
        }
    );
    // And descending.
    let keys: Vec<i64> = keys.into_iter().rev().collect();
    assert_eq!(
        chosen(&keys),
        Spread::Modulo {
            stride: 1,
            origin: 0
        }
    );
}

#[test]
fn a_stride_is_found() {
    let keys: Vec<i64> = (0..10_000).map(|n| 3 + 16 * n).collect();
    let spread = Spread::Modulo {
        stride: 16,
        origin: 3,
    };
    assert_eq!(chosen(&keys), spread);
    assert!(excess(&keys, spread, WAVES) < 1.2);
    // What the plain remainder would do: everything in one wave.
    assert!(
        excess(
            &keys,
            Spread::Modulo {
                stride: 1,
                origin: 0
            },
            WAVES
        ) > 15.0
    );
}

#[test]
fn a_stride_is_found_in_spite_of_gaps() {
    let mut random = Random(1);
    let keys: Vec<i64> = (0..20_000)
        .filter(|_| random.below(3) > 0)
        .map(|n| 5 + 16 * n)
        .collect();
    let spread = chosen(&keys);
    assert_eq!(
        spread,
        Spread::Modulo {
            stride: 16,
            origin: 5
        }
    );
    assert!(excess(&keys, spread, WAVES) < excess(&keys, Spread::Hash, WAVES));
}

#[test]
fn ids_made_of_a_time_and_a_counter_are_hashed() {
    let mut random = Random(2);
    let mut now = 1_700_000_000_000;
    // Milliseconds, a machine, and a counter that starts anew each millisecond.
    let keys = (0..10_000)
        .map(|_| {
            now += 1 + random.below(20) as i64;
            (now << 22) | (7 << 12) | i64::from(random.below(50) == 0)
        })
        .collect();
    let keys = sorted(keys);
    assert_eq!(chosen(&keys), Spread::Hash);
    assert!(excess(&keys, Spread::Hash, WAVES) < 3.5);
    assert!(
        excess(
            &keys,
            Spread::Modulo {
                stride: 1,
                origin: 0
            },
            WAVES
        ) > 10.0
    );
}

#[test]
fn two_interleaved_sequences_are_hashed() {
    let keys: Vec<i64> = (0..10_000).map(|n| 16 * (n / 2) + n % 2).collect();
    assert_eq!(chosen(&keys), Spread::Hash);
}

#[test]
fn sparse_random_ids_are_spread_as_a_hash_would() {
    for seed in 0..20 {
        let mut random = Random(seed << 32);
        let keys = sorted(
            (0..10_000)
                .map(|_| random.below(1_000_000_000_000) as i64)
                .collect(),
        );
        let spread = chosen(&keys);
        assert!(excess(&keys, spread, WAVES) <= excess(&keys, Spread::Hash, WAVES));
    }
}

#[test]
fn keys_that_are_all_equal_modulo_the_waves_are_spread() {
    for waves in [2, 16, 64] {
        let keys: Vec<i64> = (0..10_000).map(|n| 9 + i64::from(waves) * n).collect();
        let spread = choose_spread(&keys, waves, 41.0);
        let most = unevenness(&keys, spread, waves, 41);
        assert!(
            most <= (41.0 / f64::from(waves)).ceil(),
            "{waves}: {spread:?} {most}"
        );
    }
}

#[test]
fn negative_keys_are_keys() {
    let keys: Vec<i64> = (-10_000..10_000).map(|n| 7 * n - 3).collect();
    let spread = chosen(&keys);
    assert_eq!(
        spread,
        Spread::Modulo {
            stride: 7,
            origin: 4
        }
    );
    assert!(excess(&keys, spread, WAVES) < 1.2);
}

#[test]
fn few_and_extreme_keys_have_a_spread() {
    for keys in [
        &[][..],
        &[5],
        &[5, 5],
        &[i64::MIN, i64::MAX],
        &[i64::MAX, i64::MIN],
        &[i64::MIN, 0, i64::MAX],
    ] {
        for waves in [0, 1, 2, 64] {
            for rows_per_page in [f64::NAN, -1.0, 0.0, 1.0, 41.0, f64::INFINITY] {
                let spread = choose_spread(keys, waves, rows_per_page);
                assert_eq!(Spread::parse(&spread.to_text()), Some(spread));
                for key in keys {
                    assert!((0..waves.max(1)).contains(&spread.wave_of_integer(*key, waves)));
                }
            }
        }
    }
}
