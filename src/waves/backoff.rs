//! Decides when waves rest, and for how long.

/// Number of consecutive passes that must go wrong before waves are given up: one may be bad luck.
const PATIENCE: u32 = 2;
/// Number of regions to rest for at first, after waves have achieved little; doubled each time.
const REST: u32 = 2;
/// Maximum number of regions of such a rest.
const LONGEST_REST: u32 = 512;

/// Reason why there are no waves for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Waves rest until the horizon has passed this transaction ID.
    Horizon(u32),
    /// Waves rest for this many regions.
    Regions(u32),
}

/// The state of waves that a worker carries from one slice of a job to the next: whether they rest, and what it has learned about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rests {
    now: Option<Rest>,
    /// Length of the next rest in regions, unless more is known.
    next: u32,
    /// Whether the last region done in waves had a wait that was not worth it.
    strained: bool,
    /// Number of consecutive passes over the open region, after its first one, that achieved little.
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
    /// Returns the reason why waves rest; `None` if they do not.
    pub fn now(&self) -> Option<Rest> {
        self.now
    }

    /// Moves on to the next region and returns the reason why waves rest in it, if they do. `is_held`: whether the horizon has still not
    /// passed that transaction.
    pub fn for_region(&mut self, is_held: impl FnOnce(u32) -> bool) -> Option<Rest> {
        self.now = match self.now {
            Some(Rest::Horizon(xid)) if is_held(xid) => self.now,
            None | Some(Rest::Horizon(_) | Rest::Regions(0)) => None,
            Some(Rest::Regions(left)) => Some(Rest::Regions(left - 1)),
        };
        self.now
    }

    /// States that a region was opened.
    pub fn opened(&mut self) {
        self.poor = 0;
    }

    /// States that the region is done.
    pub fn closed(&mut self) {
        if self.now.is_none() {
            self.strained = false;
        }
    }

    /// States that it was not worth waiting any longer for the horizon. `next_xid`: all transactions that hold it back precede this one. If
    /// the horizon moves, but too late again and again, waves rest for longer.
    pub fn too_late(&mut self, next_xid: u32) {
        if self.strained {
            self.longer();
        } else {
            self.now = Some(Rest::Horizon(next_xid));
        }
        self.strained = true;
    }

    /// States that a pass over the region has ended. `good`: whether it achieved something; `None` for the first pass, which makes the
    /// room. Returns whether waves rest now.
    pub fn at_border(&mut self, good: Option<bool>) -> bool {
        self.poor = if good == Some(false) {
            self.poor + 1
        } else {
            0
        };
        if self.now.is_some() {
            // Waves rest already: the horizon is not worth waiting for.
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
        // After a region without too long a wait, everything is forgotten.
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
        // One bad pass is bad luck, and good passes make the next rest short again.
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
