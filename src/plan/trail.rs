//! What the waves of a region leave behind, and how long to wait until it can be removed.

use std::time::Duration;

/// The transactions of the batches of a region's last pass, and of the present one.
///
/// A batch of one pass puts its new versions where the one before it, on the same pages, has left
/// dead ones. These can be removed only once every transaction has ended that might still see them.
#[derive(Debug, Default)]
pub struct Trail {
    last: Vec<u32>,
    present: Vec<u32>,
    /// Rows of the present pass: done, and in all.
    rows: (usize, usize),
    /// How long waiting is worth it for this region, in all.
    left: Duration,
}

impl Trail {
    /// Of a region that is worth so much waiting.
    pub fn new(left: Duration) -> Trail {
        Trail {
            left,
            ..Trail::default()
        }
    }

    /// A batch of the present pass; no transaction if it has changed nothing.
    pub fn add(&mut self, rows: usize, xid: Option<u32>) {
        self.rows.0 += rows;
        self.present.extend(xid);
    }

    /// The next pass begins, over so many rows.
    pub fn turn(&mut self, rows: usize) {
        self.last = std::mem::take(&mut self.present);
        self.rows = (0, rows);
    }

    /// The transaction that the last pass has left on the pages of the next batch.
    pub fn awaited(&self) -> Option<u32> {
        let (done, all) = self.rows;
        let index = done * self.last.len() / all.max(1);
        self.last.get(index).or(self.last.last()).copied()
    }

    /// Counts time spent waiting; true once it is more than it is worth.
    pub fn waited(&mut self, time: Duration) -> bool {
        self.left = self.left.saturating_sub(time);
        self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_the_one_that_was_on_its_pages() {
        let mut trail = Trail::new(Duration::from_millis(5));
        assert_eq!(trail.awaited(), None);
        for xid in [10, 11, 12, 13] {
            trail.add(100, Some(xid));
            assert_eq!(trail.awaited(), None);
        }
        // Two batches are where four were.
        trail.turn(200);
        assert_eq!(trail.awaited(), Some(10));
        trail.add(100, None);
        assert_eq!(trail.awaited(), Some(12));
        trail.add(50, Some(20));
        assert_eq!(trail.awaited(), Some(13));
        trail.add(50, Some(21));
        assert_eq!(trail.awaited(), Some(13));
        // Three, where two wrote.
        trail.turn(300);
        assert_eq!(trail.awaited(), Some(20));
        trail.add(100, Some(30));
        assert_eq!(trail.awaited(), Some(20));
        trail.add(100, Some(31));
        assert_eq!(trail.awaited(), Some(21));
    }

    #[test]
    fn the_time_is_for_the_whole_region() {
        let mut trail = Trail::new(Duration::from_millis(5));
        assert!(!trail.waited(Duration::from_millis(3)));
        trail.turn(10);
        assert!(!trail.waited(Duration::from_millis(1)));
        assert!(trail.waited(Duration::from_millis(1)));
    }
}
