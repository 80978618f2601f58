//! Tests of the size of batches, with simulated costs.

use super::*;

const LIMIT: i32 = 100_000;

/// A table whose batches cost `fixed` seconds and `row` seconds per row, more or less.
struct Table {
    fixed: f64,
    row: f64,
    noise: f64,
    seed: u64,
}

impl Table {
    fn new(fixed: f64, row: f64) -> Table {
        Table {
            fixed,
            row,
            noise: 0.0,
            seed: 1,
        }
    }

    fn random(&mut self) -> f64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn seconds(&mut self, rows: i32) -> f64 {
        let factor = 1.0 + self.noise * (2.0 * self.random() - 1.0);
        (self.fixed + self.row * f64::from(rows)) * factor
    }
}

/// Runs batches and returns the size and the seconds of each.
fn run(sizer: &mut Sizer, table: &mut Table, target_ms: i32, batches: usize) -> Vec<(i32, f64)> {
    (0..batches)
        .map(|_| {
            let size = sizer.size(LIMIT, Some(target_ms));
            let seconds = table.seconds(size);
            sizer.measured(i64::from(size), Duration::from_secs_f64(seconds));
            (size, seconds)
        })
        .collect()
}

#[test]
fn without_a_target_the_limit_holds() {
    let mut sizer = Sizer::default();
    assert_eq!(sizer.size(1000, None), 1000);
    sizer.measured(1000, Duration::from_secs(100));
    assert_eq!(sizer.size(1000, None), 1000);
    assert_eq!(sizer.size(5, None), 5);
    // A target that is set later finds that 1,000 rows took 100 s.
    assert_eq!(sizer.size(1000, Some(1000)), 10);
}

#[test]
fn starts_modestly() {
    assert_eq!(Sizer::default().size(100_000, Some(1000)), 100);
    assert_eq!(Sizer::default().size(20, Some(1000)), 20);
    // A batch without rows is ignored.
    let mut sizer = Sizer::default();
    sizer.size(100_000, Some(1000));
    sizer.measured(0, Duration::from_micros(10));
    assert_eq!(sizer.size(100_000, Some(1000)), 100);
}

#[test]
fn comes_to_the_target_and_stays_there() {
    for fixed in [0.0, 0.000_1, 0.010, 0.040] {
        for row in [0.000_005, 0.000_05, 0.001, 0.010] {
            let (mut sizer, mut table) = (Sizer::default(), Table::new(fixed, row));
            let seen = run(&mut sizer, &mut table, 100, 100);
            let wanted = ((0.100 - fixed) / row).min(f64::from(LIMIT));
            let last = f64::from(seen[99].0);
            // A batch is within a tenth of the target, or a row.
            assert!(
                (last - wanted).abs() <= 0.1 * (wanted + fixed / row) + 1.0,
                "{fixed} {row}: {last} not {wanted}"
            );
            for pair in seen[20..].windows(2) {
                assert!(
                    f64::from(pair[1].0) >= 0.95 * f64::from(pair[0].0) - 1.0,
                    "{fixed} {row}: {seen:?}"
                );
            }
            assert_eq!(seen[90].0, seen[99].0, "{fixed} {row}");
            assert!(
                seen[1..].iter().all(|(_, seconds)| *seconds <= 0.130),
                "{fixed} {row}: {seen:?}"
            );
        }
    }
}

#[test]
fn grows_slowly() {
    let (mut sizer, mut table) = (Sizer::default(), Table::new(0.000_1, 0.000_001));
    let seen = run(&mut sizer, &mut table, 1000, 40);
    for pair in seen.windows(2) {
        assert!(
            f64::from(pair[1].0) <= f64::from(pair[0].0) * 1.5,
            "{seen:?}"
        );
    }
    assert_eq!(seen[39].0, LIMIT);
}

#[test]
fn grows_from_a_single_row() {
    let (mut sizer, mut table) = (Sizer::default(), Table::new(0.0, 1.0));
    run(&mut sizer, &mut table, 100, 10);
    assert_eq!(sizer.size(LIMIT, Some(100)), 1);
    table.row = 0.001;
    let seen = run(&mut sizer, &mut table, 100, 60);
    assert!((90..=110).contains(&seen[59].0), "{seen:?}");
}

#[test]
fn a_batch_far_over_its_time_shrinks_the_next_at_once() {
    for slower in [5.5, 10.0, 100.0] {
        let (mut sizer, mut table) = (Sizer::default(), Table::new(0.000_1, 0.000_05));
        let before = run(&mut sizer, &mut table, 100, 50)[49].0;
        table.row *= slower;
        let seen = run(&mut sizer, &mut table, 100, 50);
        assert_eq!(seen[0].0, before);
        assert!(seen[0].1 > 0.5);
        let wanted = f64::from(before) / slower;
        assert!(
            (f64::from(seen[1].0) - wanted).abs() < 0.15 * wanted + 1.0,
            "{slower}: {seen:?}"
        );
        // One batch was too long, and no other.
        assert!(
            seen[1..].iter().all(|(_, seconds)| *seconds < 0.115),
            "{slower}: {seen:?}"
        );
    }
}

#[test]
fn a_single_slow_batch_is_got_over() {
    let (mut sizer, mut table) = (Sizer::default(), Table::new(0.000_1, 0.000_05));
    let before = run(&mut sizer, &mut table, 100, 50)[49].0;
    // As if it had waited for a lock.
    sizer.measured(
        i64::from(sizer.size(LIMIT, Some(100))),
        Duration::from_secs(1),
    );
    let seen = run(&mut sizer, &mut table, 100, 30);
    assert!(seen[0].0 <= before / 9, "{seen:?}");
    assert!(f64::from(seen[20].0) > 0.85 * f64::from(before), "{seen:?}");
}

#[test]
fn noise_does_not_make_it_swing() {
    for noise in [0.1, 0.3] {
        for fixed in [0.0, 0.050] {
            let (mut sizer, mut table) = (Sizer::default(), Table::new(fixed, 0.000_05));
            table.noise = noise;
            let seen = run(&mut sizer, &mut table, 100, 300);
            let ideal = (0.100 - fixed) / 0.000_05;
            for (size, seconds) in &seen[50..] {
                assert!(
                    (0.4..1.25).contains(&(f64::from(*size) / ideal)),
                    "{noise} {fixed}: {size} of {ideal}"
                );
                assert!(*seconds < 0.160, "{noise} {fixed}: {seconds}");
            }
            let mean = seen[50..].iter().map(|(_, s)| s).sum::<f64>() / 250.0;
            assert!((0.080..0.110).contains(&mean), "{noise} {fixed}: {mean}");
        }
    }
}

#[test]
fn batches_of_few_rows_say_nothing_of_larger_ones() {
    let (mut sizer, mut table) = (Sizer::default(), Table::new(0.005, 0.000_05));
    run(&mut sizer, &mut table, 100, 50);
    let before = sizer.size(LIMIT, Some(100));
    // The ends of slices and waves, each cheap in total and expensive per row.
    for rows in [0, 1, 3, 17] {
        sizer.measured(rows, Duration::from_millis(6));
        assert_eq!(sizer.size(LIMIT, Some(100)), before);
    }
    // A batch that found few rows in a long time makes the next smaller, but a second one does not make it smaller still.
    sizer.measured(3, Duration::from_millis(200));
    let after = sizer.size(LIMIT, Some(100));
    assert!(
        (before / 3..=before / 2 + 1).contains(&after),
        "{before} {after}"
    );
    sizer.measured(3, Duration::from_millis(200));
    assert_eq!(sizer.size(LIMIT, Some(100)), after);
    let seen = run(&mut sizer, &mut table, 100, 20);
    assert!(f64::from(seen[19].0) > 0.85 * f64::from(before), "{seen:?}");
}

#[test]
fn another_target_holds_from_the_next_batch_on() {
    let (mut sizer, mut table) = (Sizer::default(), Table::new(0.0, 0.000_05));
    run(&mut sizer, &mut table, 1000, 60);
    let size = sizer.size(LIMIT, Some(100));
    assert!((1750..=2250).contains(&size), "{size}");
}

#[test]
fn is_always_within_its_bounds() {
    let mut table = Table::new(0.0, 0.0);
    let mut sizer = Sizer::default();
    for n in 0..20_000 {
        let limit = 1 + (table.random().powi(6) * 1e6) as i32;
        let target =
            (table.random() > 0.1).then(|| 1 + (table.random().powi(4) * 3_600_000.0) as i32);
        let size = sizer.size(limit, target);
        assert!((1..=limit).contains(&size), "batch {n}: {size} of {limit}");
        let rows = (f64::from(size) * table.random() * 1.2) as i64;
        let micros = (table.random().powi(8) * 1e10) as u64;
        sizer.measured(rows, Duration::from_micros(micros));
    }
    for limit in [0, -5, i32::MIN] {
        assert_eq!(sizer.size(limit, Some(100)), 1);
        assert_eq!(sizer.size(limit, None), 1);
    }
}
