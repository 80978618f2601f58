//! What the waves of a region leave behind, and how long to wait until it can be removed.

use std::time::Duration;

/// The transactions of the batches of a region's last pass, and of the present one.
///
/// A batch of one wave puts its new versions where the one before it, on the same pages, has left
/// dead ones. These can be removed only once every transaction has ended that might still see them.
#[derive(Debug, Default)]
pub struct Trail {
    last: Vec<u32>,
    present: Vec<u32>,
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

    /// A batch of the present pass; nothing if it has changed nothing.
    pub fn add(&mut self, xid: Option<u32>) {
        self.present.extend(xid);
    }

    /// The present pass is over.
    pub fn turn(&mut self) {
        self.last = std::mem::take(&mut self.present);
    }

    /// The transaction on whose pages the next batch is about to be.
    pub fn awaited(&self) -> Option<u32> {
        self.last
            .get(self.present.len())
            .or(self.last.last())
            .copied()
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
        for xid in [10, 11, 12] {
            trail.add(Some(xid));
            assert_eq!(trail.awaited(), None);
        }
        trail.turn();
        assert_eq!(trail.awaited(), Some(10));
        trail.add(Some(20));
        trail.add(None);
        assert_eq!(trail.awaited(), Some(11));
        trail.add(Some(21));
        trail.add(Some(22));
        // A wave may have a batch more than the one before.
        assert_eq!(trail.awaited(), Some(12));
        trail.turn();
        assert_eq!(trail.awaited(), Some(20));
    }

    #[test]
    fn the_time_is_for_the_whole_region() {
        let mut trail = Trail::new(Duration::from_millis(5));
        assert!(!trail.waited(Duration::from_millis(3)));
        trail.turn();
        assert!(!trail.waited(Duration::from_millis(1)));
        assert!(trail.waited(Duration::from_millis(1)));
    }
}
