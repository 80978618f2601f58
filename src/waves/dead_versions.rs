//! Tracks the dead versions that the waves of a region leave behind, and how long to wait until they can be removed.

use std::time::Duration;

/// The transactions of the batches of a region's last pass, and of the current one.
///
/// A batch of one pass puts its new versions where the previous pass has left dead ones on the same pages. These can be removed only
/// once every transaction has ended that might still see them.
#[derive(Debug, Default)]
pub struct Trail {
    last: Vec<Step>,
    present: Vec<Step>,
    /// Number of rows of the current pass, and of each of its batches.
    rows: usize,
    batch: usize,
    /// Time that may still be spent waiting for this region.
    left: Duration,
}

/// A batch: the number of rows of the pass up to the batch's end, and its transaction.
#[derive(Debug, Clone, Copy)]
struct Step {
    rows: usize,
    xid: Option<u32>,
}

impl Trail {
    /// Creates the trail of a region for which waiting is worth `left`, and whose first pass goes over `rows` rows in batches of `batch`.
    pub fn new(left: Duration, rows: usize, batch: usize) -> Trail {
        Trail {
            left,
            rows,
            batch,
            ..Trail::default()
        }
    }

    /// Adds a batch of the current pass. `xid` is `None` if it has changed nothing.
    pub fn add(&mut self, rows: usize, xid: Option<u32>) {
        let before = done(&self.present);
        self.present.push(Step {
            rows: before + rows,
            xid,
        });
    }

    /// Begins the next pass, over `rows` rows, in batches of `batch`.
    pub fn turn(&mut self, rows: usize, batch: usize) {
        self.last = std::mem::take(&mut self.present);
        (self.rows, self.batch) = (rows, batch);
    }

    /// Returns the last transaction of the last pass that has left versions on the pages of the next batch.
    pub fn awaited(&self) -> Option<u32> {
        let end = (done(&self.present) + self.batch).min(self.rows);
        // The part of the last pass's rows that is on the same pages.
        let share = (end * done(&self.last)).div_ceil(self.rows.max(1));
        let covering = self.last.partition_point(|step| step.rows < share) + 1;
        let on_them = &self.last[..covering.min(self.last.len())];
        on_them.iter().rev().find_map(|step| step.xid)
    }

    /// Counts time spent waiting. Returns true once no more waiting is worth it.
    pub fn waited(&mut self, time: Duration) -> bool {
        self.left = self.left.saturating_sub(time);
        self.left.is_zero()
    }
}

fn done(steps: &[Step]) -> usize {
    steps.last().map_or(0, |step| step.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_those_that_were_on_its_pages() {
        let mut trail = Trail::new(Duration::from_millis(5), 400, 100);
        assert_eq!(trail.awaited(), None);
        for xid in [10, 11, 12, 13] {
            trail.add(100, Some(xid));
            assert_eq!(trail.awaited(), None);
        }
        // Two batches cover the pages of four.
        trail.turn(200, 100);
        assert_eq!(trail.awaited(), Some(11));
        trail.add(100, None);
        assert_eq!(trail.awaited(), Some(13));
        trail.add(100, Some(21));
        // Three batches: each of the two covers one and a half of them. The first of the two wrote nothing.
        trail.turn(300, 100);
        assert_eq!(trail.awaited(), None);
        trail.add(100, Some(30));
        assert_eq!(trail.awaited(), Some(21));
        trail.add(100, Some(31));
        assert_eq!(trail.awaited(), Some(21));
        // A single batch covers all pages.
        trail.add(100, Some(32));
        trail.turn(10, 1000);
        assert_eq!(trail.awaited(), Some(32));
    }

    #[test]
    fn the_time_is_for_the_whole_region() {
        let mut trail = Trail::new(Duration::from_millis(5), 10, 10);
        assert!(!trail.waited(Duration::from_millis(3)));
        trail.turn(10, 10);
        assert!(!trail.waited(Duration::from_millis(1)));
        assert!(trail.waited(Duration::from_millis(1)));
    }
}
