//! Bounds the number of rows of a batch by the bytes that they take.

/// Weight, in the expectation, of a batch whose rows took fewer bytes than expected; more are expected at once.
const WEIGHT_OF_LIGHTER: f64 = 0.3;

/// Bytes that a row takes: those that are read, and the WAL that is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    read: f64,
    /// `None` before the first batch, which is expected to write what it reads.
    written: Option<f64>,
}

impl Weight {
    /// Returns what is expected of rows that take this many bytes in the table.
    pub fn of_rows(bytes: f64) -> Weight {
        Weight {
            read: bytes.max(1.0),
            written: None,
        }
    }

    /// Returns the number of rows that take this many bytes, at least 1.
    pub fn most(&self, bytes: u64) -> i64 {
        let row = self.read + self.written.unwrap_or(self.read);
        // A float beyond the range of the integer becomes its maximum.
        ((bytes as f64 / row) as i64).max(1)
    }

    /// Records the WAL of a batch of `rows` rows, in bytes.
    pub fn measured(&mut self, rows: i64, wal: u64) {
        if rows <= 0 {
            return;
        }
        let row = wal as f64 / rows as f64;
        self.written = Some(match self.written {
            Some(before) if row < before => before + (row - before) * WEIGHT_OF_LIGHTER,
            _ => row,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_is_expected_to_write_what_it_reads() {
        let weight = Weight::of_rows(1_000_000.0);
        assert_eq!(weight.most(8_000_000), 4);
        assert_eq!(weight.most(100), 1);
        assert_eq!(Weight::of_rows(0.0).most(100), 50);
    }

    #[test]
    fn heavier_rows_count_at_once_and_lighter_ones_slowly() {
        let mut weight = Weight::of_rows(100.0);
        weight.measured(10, 9_000);
        assert_eq!(weight.most(100_000), 100);
        weight.measured(10, 99_000);
        assert_eq!(weight.most(100_000), 10);
        weight.measured(10, 9_000);
        assert_eq!(weight.most(100_000), 13);
        weight.measured(0, 9_000);
        assert_eq!(weight.most(100_000), 13);
    }
}
