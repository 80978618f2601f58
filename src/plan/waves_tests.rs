//! Tests of the number of waves and of the size of regions.

use super::*;

fn shape(indexes: i32, rows_per_page: f64, fits: f64) -> Shape {
    Shape {
        indexes,
        rows_per_page,
        fits,
        pointers: 250.0,
    }
}

/// How many passes there are over a page.
fn passes(shape: Shape) -> usize {
    best_passes(shape).map_or(1, |passes| passes.sizes(shape.waves()).len())
}

#[test]
fn the_number_of_passes_is_one_of_the_good_ones_that_were_measured() {
    // Five indexes, 41 rows a page: 20 to 28 shrinking passes were about equally good.
    let five = passes(shape(5, 41.0, 0.0));
    assert!((18..=26).contains(&five), "{five}");
    let ten = passes(shape(10, 41.0, 0.0));
    assert!((five..=30).contains(&ten), "{ten}");
    // The key's own index alone: one pass.
    assert_eq!(passes(shape(1, 41.0, 0.0)), 1);
    assert_eq!(passes(shape(0, 41.0, 0.0)), 1);
}

#[test]
fn the_model_gives_the_times_that_were_measured() {
    // Seconds for a million rows, 41 to a page.
    for (indexes, waves, fits, seconds) in [
        (5, 1, 0.0, 35.8),
        (5, 12, 0.0, 10.8),
        (5, 16, 0.0, 10.6),
        (5, 32, 0.0, 11.8),
        (1, 1, 0.0, 5.8),
        (1, 16, 0.0, 8.2),
        (5, 1, 48.0, 3.1),
        (5, 16, 48.0, 7.6),
    ] {
        let modelled = shape(indexes, 41.0, fits).cost(waves, Passes::Even) / 41.0;
        assert!(
            (0.7..1.35).contains(&(modelled / seconds)),
            "{indexes} {waves}: {modelled} not {seconds}"
        );
    }
}

#[test]
fn rows_go_elsewhere_as_they_were_seen_to() {
    // Per cent of the rows that were not heap-only, of pages with 41.
    for (part, seen) in [(7, 14.6), (8, 12.5), (10, 10.4), (40, 10.4)] {
        let sizes = Passes::Shrinking(part).sizes(41);
        let gone = shape(5, 41.0, 0.0).elsewhere(&sizes, 1.0) / 41.0 * 100.0;
        assert!((gone - seen).abs() < 2.5, "{part}: {gone} not {seen}");
    }
}

#[test]
fn more_indexes_want_more_passes() {
    let mut before = 1;
    for indexes in 1..40 {
        let now = passes(shape(indexes, 100.0, 0.0));
        assert!(now >= before, "{indexes}: {now} after {before}");
        before = now;
    }
    assert!(before > 20);
}

#[test]
fn the_number_of_passes_has_bounds() {
    for indexes in 0..100 {
        for rows in [
            f64::NAN,
            -5.0,
            0.0,
            0.01,
            0.9,
            1.0,
            1.9,
            2.0,
            3.5,
            41.0,
            226.0,
            1e9,
            f64::INFINITY,
        ] {
            for fits in [0.0, 1.0, 40.0, 1e9] {
                let shape = shape(indexes, rows, fits);
                let (waves, number) = (shape.waves(), passes(shape));
                assert!((0..=300).contains(&waves), "{waves} of {rows}");
                assert!(number <= waves.max(1) as usize, "{number} of {rows}");
            }
        }
    }
}

#[test]
fn where_there_is_room_one_pass_is_enough() {
    for (fits, expected) in [(45.0, 1..=1), (35.0, 2..=8), (20.0, 4..=12), (5.0, 9..=20)] {
        let found = passes(shape(5, 41.0, fits));
        assert!(expected.contains(&found), "{fits}: {found}");
    }
}

#[test]
fn waiting_is_worth_a_part_of_what_the_waves_save() {
    let many = worth_waiting(shape(5, 41.0, 0.0), 64_000);
    assert!((0.3..0.6).contains(&many.as_secs_f64()), "{many:?}");
    assert!(worth_waiting(shape(1, 41.0, 0.0), 64_000) < many / 5);
}

const GIGABYTE: i64 = 1 << 30;

#[test]
fn regions_are_as_large_as_those_that_were_measured_to_be_right() {
    // 163 MB of table and 103 MB of indexes for a million rows, 2 GB of cache.
    for (waves, batch_size, workers, wanted) in [
        (16, 1000, 2, 64_000),
        (12, 2000, 2, 96_000),
        (16, 5000, 1, 320_000),
    ] {
        assert_eq!(
            region_rows(waves, batch_size, 279.0, 2 * GIGABYTE, workers),
            wanted
        );
        assert_eq!(
            rows_per_commit(wanted, waves, batch_size),
            i64::from(batch_size)
        );
    }
    // Small batches: the time that other transactions need does not shrink with them.
    assert_eq!(region_rows(16, 10, 279.0, 2 * GIGABYTE, 1), 64_000);
    assert_eq!(rows_per_commit(64_000, 16, 10), 10);
    // The default cache of 128 MB, shared by two.
    let region = region_rows(16, 5000, 279.0, GIGABYTE / 8, 2);
    assert_eq!(region, 60_133);
    assert_eq!(rows_per_commit(region, 16, 5000), 939);
}

#[test]
fn regions_and_commits_have_bounds() {
    let mut random = spread_tests::Random(3);
    for _ in 0..100_000 {
        let waves = 1 + random.below(64) as i32;
        let batch_size = 1 + random.below(1_000_000) as i32;
        let row_bytes = random.below(20_000) as f64 / 7.0;
        let cache = {
            let bits = random.below(45);
            random.below(1 << bits) as i64
        };
        let workers = 1 + random.below(64) as i32;
        let region = region_rows(waves, batch_size, row_bytes, cache, workers);
        let cached = cache as f64 / f64::from(workers) / 4.0;
        let shown = format!("{waves} {batch_size} {row_bytes} {cache} {workers}: {region}");
        assert!(region >= i64::from(waves), "{shown}");
        assert!(
            region <= i64::from(waves) || region as f64 * row_bytes <= cached,
            "{shown}"
        );
        assert!(region <= MOST_ROWS, "{shown}");
        let rows = rows_per_commit(region, waves, batch_size);
        assert!((1..=i64::from(batch_size)).contains(&rows), "{shown}");
        assert!(
            rows == 1 || rows * i64::from(waves) * 4 <= region,
            "{shown}"
        );
    }
    assert_eq!(region_rows(0, 0, f64::NAN, -1, 0), 1);
    assert_eq!(rows_per_commit(0, 0, 0), 1);
}
