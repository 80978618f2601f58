//! When waves rest, and for how long.

/// Passes in a row that have to go wrong before waves are given up: one may be unlucky.
const PATIENCE: u32 = 2;
/// Regions to rest for after waves achieved little, at first; doubled each time.
const REST: u32 = 2;
/// The longest such rest.
const LONGEST_REST: u32 = 512;

/// Why there are no waves for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Until the horizon has passed this transaction id.
    Horizon(u32),
    /// For so many regions.
    Regions(u32),
}

/// What a worker has learned about waves, and takes from one slice of a job to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rests {
    now: Option<Rest>,
    /// How long the next one is to be, where more is not known.
    next: u32,
    /// Whether waiting was not worth it in the last region that went in waves.
    strained: bool,
    /// Passes in a row over the open region, after its first, that did little good.
    poor: u32,
}

impl Default for Rests {
    fn default() -> Rests {
        Rests {
            now: None,
            next: REST,
            strained: false,
            poor: 0,
        }
    }
}

impl Rests {
    /// Whether waves rest.
    pub fn now(&self) -> Option<Rest> {
        self.now
    }

    /// The same for the region that comes next. `is_held`: whether the horizon has still not passed
    /// that transaction.
    pub fn for_region(&mut self, is_held: impl FnOnce(u32) -> bool) -> Option<Rest> {
        self.now = match self.now {
            Some(Rest::Horizon(xid)) if is_held(xid) => self.now,
            None | Some(Rest::Horizon(_) | Rest::Regions(0)) => None,
            Some(Rest::Regions(left)) => Some(Rest::Regions(left - 1)),
        };
        self.now
    }

    /// A region is open.
    pub fn opened(&mut self) {
        self.poor = 0;
    }

    /// The region is done.
    pub fn closed(&mut self) {
        if self.now.is_none() {
            self.strained = false;
        }
    }

    /// It was not worth it to wait any longer for the horizon. `next_xid`: all that hold it back are
    /// before that. Where it comes too late again and again, though it moves, waves rest for longer.
    pub fn too_late(&mut self, next_xid: u32) {
        if self.strained {
            self.longer();
        } else {
            self.now = Some(Rest::Horizon(next_xid));
        }
        self.strained = true;
    }

    /// A pass over the region has ended: whether it did good; nothing of its first, which makes the
    /// room. Tells whether waves rest now.
    pub fn at_border(&mut self, good: Option<bool>) -> bool {
        self.poor = if good == Some(false) {
            self.poor + 1
        } else {
            0
        };
        if self.now.is_some() {
            // The horizon is not worth waiting for.
        } else if self.poor >= PATIENCE {
            self.longer();
        } else if good == Some(true) && !self.strained {
            self.next = REST;
        }
        self.now.is_some()
    }

    fn longer(&mut self) {
        self.now = Some(Rest::Regions(self.next));
        self.next = (self.next * 2).min(LONGEST_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions_of_rest(rests: &mut Rests) -> u32 {
        (0..)
            .take_while(|_| rests.for_region(|_| true).is_some())
            .count() as u32
    }

    #[test]
    fn a_held_horizon_is_waited_for_between_regions() {
        let mut rests = Rests::default();
        assert_eq!(rests.for_region(|_| true), None);
        rests.too_late(77);
        assert_eq!(rests.for_region(|xid| xid == 77), Some(Rest::Horizon(77)));
        assert_eq!(rests.for_region(|_| false), None);
    }

    #[test]
    fn one_that_always_comes_too_late_is_not_waited_for() {
        let mut rests = Rests::default();
        rests.too_late(77);
        for rest in [2, 4, 8] {
            assert_eq!(rests.for_region(|_| false), None);
            rests.too_late(78);
            assert_eq!(regions_of_rest(&mut rests), rest);
        }
        // A region without waiting for too long, and all is forgotten.
        rests.opened();
        assert!(!rests.at_border(Some(true)));
        rests.closed();
        rests.opened();
        assert!(!rests.at_border(Some(true)));
        rests.too_late(79);
        assert_eq!(rests.now(), Some(Rest::Horizon(79)));
    }

    #[test]
    fn passes_that_do_no_good_make_rests_that_get_longer() {
        let mut rests = Rests::default();
        for rest in [2, 4, 8, 16, 32, 64, 128, 256, 512, 512] {
            rests.opened();
            assert!(!rests.at_border(None));
            assert!(!rests.at_border(Some(false)));
            assert!(rests.at_border(Some(false)));
            assert_eq!(regions_of_rest(&mut rests), rest);
        }
        // One bad pass is bad luck, and good ones make the next rest short again.
        rests.opened();
        for good in [None, Some(false), Some(true), Some(false), Some(true)] {
            assert!(!rests.at_border(good));
        }
        rests.opened();
        assert!(!rests.at_border(Some(false)));
        assert!(rests.at_border(Some(false)));
        assert_eq!(regions_of_rest(&mut rests), 2);
    }
}
