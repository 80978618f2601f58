//! Whether going by the pages of a table pays, where both a key and its pages could order the walk.

/// Below this correlation of key and place, rows of neighbouring keys are all over the table.
const SCATTERED: f64 = 0.5;
/// A table of fewer pages is in the cache after one pass in any order.
const SMALL: i64 = 1000;
/// Fewer matching rows than this share are few.
const FEW: f64 = 0.02;
/// Rows to look at to see whether they are.
pub const LOOKED_AT: f64 = 2_000.0;

/// Whether a table is large enough for it to matter.
pub fn matters(pages: i64) -> bool {
    pages >= SMALL
}

/// Whether going by the key would read pages in no order.
pub fn scattered(correlation: Option<f64>) -> bool {
    correlation.is_some_and(|c| c.abs() < SCATTERED)
}

/// Whether so few rows match that the walk mostly reads.
pub fn few(matching: f64, rows: f64) -> bool {
    matching < rows * FEW
}

/// Whether a sample of `seen` rows says so, too.
pub fn few_seen(matching: f64, seen: f64) -> bool {
    seen >= LOOKED_AT / 4.0 && few(matching, seen)
}

/// Whether the WHERE clause may well be false of a row once it is updated: it names a column that is
/// set. That it is false is seen with each batch; here it only spares a vain attempt.
pub fn extinguishes(where_clause: Option<&str>, set_columns: &[String]) -> bool {
    let clause = where_clause.unwrap_or_default().to_lowercase();
    let named = |column: &String| clause.contains(&column.to_lowercase());
    set_columns.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_that_names_a_column_that_is_set_may_become_false() {
        let set = ["Rate_New".to_owned()];
        assert!(extinguishes(Some("rate_new IS NULL"), &set));
        assert!(!extinguishes(Some("id > 7"), &set));
        assert!(!extinguishes(None, &set));
    }

    #[test]
    fn a_small_sample_says_nothing() {
        assert!(few_seen(1.0, 2000.0));
        assert!(!few_seen(0.0, 10.0));
        assert!(!few_seen(100.0, 2000.0));
    }
}
