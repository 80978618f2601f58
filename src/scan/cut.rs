//! Decides into how many slices a table is cut, and where.

use crate::scan::position::Key;

/// Rows per slice: enough for a region, so that waves have room, and few enough that the slice finished last doesn't keep the others
/// waiting for long.
const ROWS_PER_SLICE: f64 = 65_000.0;
/// Maximum number of slices of one table; larger tables get larger slices.
const MOST_SLICES: usize = 256;
/// Maximum number of slices of one job, over all its partitions.
const MOST_OF_ALL: usize = 2048;

/// Number of pages to read for a sample of a table: of its keys, or to estimate the number of rows.
pub const SAMPLE_PAGES: f64 = 400.0;

/// Returns the number of slices for a table with `rows` rows, in a job whose tables have `all` rows together. If there are more slices
/// than `workers`, the number is a multiple of `workers`, so that each gets the same number.
pub fn slices(rows: f64, all: f64, workers: i32) -> usize {
    let share = MOST_OF_ALL as f64 * rows / all.max(rows).max(1.0);
    let most = (share as usize).clamp(1, MOST_SLICES);
    let slices = ((rows / ROWS_PER_SLICE).round() as usize).clamp(1, most);
    match workers.max(1) as usize {
        workers if slices > workers => slices.next_multiple_of(workers),
        _ => slices,
    }
}

/// Returns the keys after which the second and each further slice begin: quantiles of a sample that is given in the order of the walk.
pub fn bounds(mut sample: Vec<Key>, slices: usize) -> Vec<Key> {
    sample.dedup();
    let n = slices.min(sample.len());
    let mut bounds: Vec<Key> = (1..n)
        .map(|i| sample[i * sample.len() / n].clone())
        .collect();
    bounds.dedup();
    bounds
}

/// Returns the first page of each slice and the page behind its last one.
pub fn pages(pages: i64, slices: usize) -> Vec<(i64, i64)> {
    let n = (slices as i64).clamp(1, pages.max(1));
    (0..n)
        .map(|i| (pages * i / n, pages * (i + 1) / n))
        .filter(|(first, end)| first < end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(range: std::ops::Range<i64>) -> Vec<Key> {
        range.map(|n| vec![n.to_string()]).collect()
    }

    #[test]
    fn small_tables_are_one_slice_and_no_job_has_too_many() {
        assert_eq!(slices(0.0, 0.0, 1), 1);
        assert_eq!(slices(50_000.0, 50_000.0, 8), 1);
        assert_eq!(slices(1_000_000.0, 1_000_000.0, 1), 15);
        assert_eq!(slices(1e12, 1e12, 1), 256);
        for tables in 1..5000 {
            let of_each = slices(1e9, 1e9 * tables as f64, 1);
            assert!(of_each * tables <= MOST_OF_ALL.max(tables));
        }
        // A large table among many small ones.
        assert_eq!(slices(1e9, 1e9 + 2000.0 * 1000.0, 1), 256);
        assert_eq!(slices(1000.0, 1e9 + 2000.0 * 1000.0, 1), 1);
    }

    #[test]
    fn each_worker_has_as_many_as_the_others() {
        for (workers, expected) in [(0, 15), (1, 15), (2, 16), (4, 16), (7, 21), (64, 15)] {
            assert_eq!(slices(1e6, 1e6, workers), expected, "{workers}");
        }
    }

    #[test]
    fn bounds_are_even_and_in_order() {
        let bounds = bounds(keys(0..1000), 4);
        assert_eq!(bounds, [["250"], ["500"], ["750"]]);
    }

    #[test]
    fn a_poor_sample_gives_fewer_slices() {
        assert!(bounds(Vec::new(), 8).is_empty());
        assert!(bounds(keys(0..1), 8).is_empty());
        assert_eq!(bounds(keys(0..3), 8).len(), 2);
        assert!(bounds(vec![vec!["a".into()]; 50], 8).is_empty());
    }

    #[test]
    fn pages_are_covered_without_gaps() {
        for (all, n) in [(0, 4), (1, 4), (7, 3), (1000, 16)] {
            let slices = pages(all, n);
            let mut next = 0;
            for (first, end) in slices {
                assert_eq!(first, next);
                assert!(end > first);
                next = end;
            }
            assert_eq!(next, all);
        }
    }
}
