//! Tests of the number of waves and of the size of regions.

use super::*;
use crate::waves::spread;

/// Returns the shape of pages with about 8,168 bytes of rows, full but for half a row, with room for `fits` of them.
fn shape(indexes: i32, rows_per_page: f64, fits: f64) -> Shape {
    Shape {
        indexes,
        rows_per_page,
        pages: 100_000,
        room: Room {
            rows: fits + SLACK,
            growth: GROWN * rows_per_page / 8192.0,
            pointers: 291.0 - rows_per_page,
        },
    }
}

/// Returns the number of passes over a page.
fn passes(shape: Shape) -> usize {
    best_passes(shape).map_or(1, |passes| passes.sizes(shape.waves()).len())
}

#[test]
fn the_number_of_passes_is_one_of_the_good_ones_that_were_measured() {
    // Five indexes, 48 rows a page: 14 to 28 were about equally good.
    let five = passes(shape(5, 48.0, 0.0));
    assert!((14..=28).contains(&five), "{five}");
    let ten = passes(shape(10, 48.0, 0.0));
    assert!((five..=40).contains(&ten), "{ten}");
    // The key's own index alone: eight took a fifth less time than one, and 16 as long as one.
    let one = passes(shape(1, 48.0, 0.0));
    assert!((4..=10).contains(&one), "{one}");
    assert_eq!(passes(shape(0, 48.0, 0.0)), 1);
}

#[test]
fn the_model_gives_the_times_that_were_measured() {
    // Microseconds per row, with full pages; the entries of the further indexes in random order.
    for (indexes, rows_per_page, waves, measured) in [
        (1, 52.0, false, 2.8),
        (1, 52.0, true, 2.2),
        (1, 81.0, true, 2.0),
        (1, 16.0, false, 3.7),
        (2, 52.0, false, 7.7),
        (5, 52.0, false, 21.7),
        (2, 52.0, true, 2.8),
        (5, 48.0, true, 5.7),
        (5, 52.0, true, 4.8),
        (5, 81.0, true, 3.9),
    ] {
        let shape = shape(indexes, rows_per_page, 0.0);
        let (waves, passes) = match waves {
            true => (shape.waves(), best_passes(shape).unwrap()),
            false => (1, Passes::Even),
        };
        let modelled = shape.cost(waves, passes) / rows_per_page;
        assert!(
            (0.75..1.25).contains(&(modelled / measured)),
            "{indexes} {rows_per_page}: {modelled} not {measured}"
        );
    }
}

#[test]
fn rows_go_elsewhere_as_they_were_seen_to() {
    // Percentage of rows that were not heap-only, on pages with 48 rows.
    let mut before = 100.0;
    for (first, seen) in [(7, 14.6), (6, 12.5), (5, 10.4)] {
        let shape = shape(5, 48.0, 0.0);
        let sizes = Passes::fitting(first, shape.room).sizes(48);
        let gone = shape.elsewhere(&sizes, 1.0) / 48.0 * 100.0;
        assert!((gone - seen).abs() < 1.0, "{first}: {gone} not {seen}");
        assert!(gone < before, "{first}");
        before = gone;
    }
}

#[test]
fn wide_rows_go_one_by_one() {
    for rows in [3, 4, 7] {
        let shape = shape(5, f64::from(rows), 0.0);
        let sizes = best_passes(shape).map(|passes| passes.sizes(rows));
        assert_eq!(sizes, Some(vec![1; rows as usize]));
        assert_eq!(shape.elsewhere(&vec![1; rows as usize], 1.0), 1.0);
    }
}

#[test]
fn narrow_rows_run_out_of_line_pointers() {
    let shape = shape(5, 226.0, 0.0);
    let gone = shape.elsewhere(&[20; 11], 1.0);
    assert!(gone >= 226.0 - 65.0 - 6.0, "{gone}");
    let sizes = best_passes(shape).map(|passes| passes.sizes(226));
    // Rows that can't stay on the page go elsewhere in one pass.
    assert!(
        sizes.is_none_or(|sizes| sizes.last() > Some(&100)),
        "in equal passes"
    );
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
    for (fits, expected) in [(45.0, 1..=1), (35.0, 2..=8), (20.0, 3..=12), (5.0, 6..=24)] {
        let found = passes(shape(5, 41.0, fits));
        assert!(expected.contains(&found), "{fits}: {found}");
    }
}

#[test]
fn waiting_is_worth_a_part_of_what_the_waves_save() {
    let shape = |indexes| shape(indexes, 48.0, 0.0);
    let wait = |indexes: i32, rows| {
        let passes = passes_for_less_bloat(shape(indexes));
        worth_waiting(shape(indexes), 48, passes, rows).as_secs_f64()
    };
    assert!((0.4..1.2).contains(&wait(5, 64_000)), "{}", wait(5, 64_000));
    assert!(wait(1, 64_000) < wait(5, 64_000) / 10.0);
    assert_eq!(wait(5, 10), 0.02);
    assert_eq!(wait(5, usize::MAX), 5.0);
}

const GIGABYTE: i64 = 1 << 30;

#[test]
fn regions_are_as_large_as_those_that_were_measured_to_be_right() {
    // 163 MB of table and 103 MB of indexes for a million rows, 2 GB of cache.
    for (passes, batch_size, workers, wanted) in [
        (16, 1000, 2, 64_000),
        (24, 2000, 2, 96_000),
        (16, 10_000, 1, 320_000),
    ] {
        assert_eq!(
            region_rows(passes, batch_size, 279.0, 2 * GIGABYTE, workers),
            wanted
        );
    }
    // Small batches: the time that other transactions need does not shrink with them.
    assert_eq!(region_rows(16, 10, 279.0, 2 * GIGABYTE, 1), 64_000);
    // The default cache of 128 MB, shared by two.
    assert_eq!(region_rows(16, 5000, 279.0, GIGABYTE / 8, 2), 60_133);
}

#[test]
fn regions_have_bounds() {
    let mut random = spread::tests::Random(3);
    for _ in 0..100_000 {
        let passes = 1 + random.below(64) as i32;
        let batch_size = 1 + random.below(1_000_000) as i32;
        let row_bytes = random.below(20_000) as f64 / 7.0;
        let cache = {
            let bits = random.below(45);
            random.below(1 << bits) as i64
        };
        let workers = 1 + random.below(64) as i32;
        let region = region_rows(passes, batch_size, row_bytes, cache, workers);
        let cached = cache as f64 / f64::from(workers) / 4.0;
        let shown = format!("{passes} {batch_size} {row_bytes} {cache} {workers}: {region}");
        assert!(region >= i64::from(passes), "{shown}");
        assert!(
            region <= i64::from(passes) || region as f64 * row_bytes <= cached,
            "{shown}"
        );
        assert!(region <= MOST_ROWS, "{shown}");
    }
    assert_eq!(region_rows(0, 0, f64::NAN, -1, 0), 1);
}

#[test]
fn the_density_is_that_of_whole_pages() {
    // The first and the last page are cut off.
    assert_eq!(density(&[1, 2, 2, 2, 3, 3, 3, 4]), 3.0);
    // No other pages than these.
    assert_eq!(density(&[5, 5, 5]), 3.0);
    assert_eq!(density(&[5, 5, 6, 6]), 2.0);
    // Neighbours in the walk are all over the table.
    assert_eq!(density(&[9, 1, 7, 3, 8, 2]), 1.0);
    assert_eq!(density(&[]), 0.0);
}
