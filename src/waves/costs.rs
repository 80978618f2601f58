//! Costs of the parts of an update, in microseconds of one worker. The choice of waves and the estimates of `plan` both use them, and
//! nothing else does.
//!
//! Measured on tables of 400,000 and 1,000,000 rows with one to five indexes, 7 to 81 rows to a page, on two cores that did nothing else
//! (PostgreSQL 15), one feature at a time: free space on the pages (heap-only in one pass), full pages, one more index, waves. The model
//! is within a fifth of most of these runs; `scripts/estimates` compares it with others.

/// Cost of a heap-only update of a row, its share of the batch included.
pub const ROW: f64 = 1.4;
/// Cost of a pass's visit to a page: pruning it, logging that, and checking all its rows.
pub const VISIT: f64 = 2.4;
/// Extra cost of a row that goes to another page, without its entries in the indexes.
pub const ELSEWHERE: f64 = 0.3;
/// Cost of an entry in an index. PostgreSQL looks for dead entries before it splits a page ("bottom-up deletion"), which is half
/// of this cost.
pub const ENTRY: f64 = 5.2;
/// Cost of an entry in an index whose order is that of the table.
pub const ENTRY_IN_ORDER: f64 = 1.1;
/// Cost of an entry in an index for which that search ends early: several workers go over the table in one pass, and each of them keeps the
/// versions of the others from being removed; or is not made: the columns of the index change.
pub const ENTRY_WITHOUT_SEARCH: f64 = 2.5;
/// Cost of an entry in a BRIN index.
pub const ENTRY_OF_BRIN: f64 = 0.3;
/// Cost of a byte of a row that goes to another page.
pub const BYTE: f64 = 0.0025;
/// Cost of a row that is deleted.
pub const REMOVED: f64 = 1.0;
/// Cost of a row that is read only.
pub const READ: f64 = 0.3;
/// Cost of a chunk that is written to the TOAST table.
pub const CHUNK_WRITTEN: f64 = 8.0;
/// Cost of a chunk that is deleted from the TOAST table.
pub const CHUNK_DELETED: f64 = 2.0;

/// Returns the cost of an entry in an index, from the correlation (-1 to 1) of the index's order with the table's, and
/// its cost in random order. Interpolates by the
/// square of the correlation, as PostgreSQL's planner does for index scans.
pub fn entry(correlation: f64, at_random: f64) -> f64 {
    let ordered = correlation.clamp(-1.0, 1.0).powi(2);
    at_random + ordered * (ENTRY_IN_ORDER - at_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_in_order_are_cheap() {
        assert_eq!(entry(0.0, ENTRY), ENTRY);
        for ordered in [1.0, -1.0, 7.0] {
            assert!((entry(ordered, ENTRY) - ENTRY_IN_ORDER).abs() < 1e-9);
        }
        assert!(entry(0.5, ENTRY) > entry(0.8, ENTRY));
        assert!(entry(0.5, ENTRY_WITHOUT_SEARCH) < entry(0.5, ENTRY));
    }
}
