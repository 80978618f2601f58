//! Flags of this process that are set for a while.

use std::cell::Cell;
use std::thread::LocalKey;

/// Guard: while it lives, the flag is set. Dropping it, also by an error on its way, puts back what was there before.
pub(super) struct Raised {
    flag: &'static LocalKey<Cell<bool>>,
    before: bool,
}

impl Raised {
    /// Sets the flag.
    pub(super) fn begin(flag: &'static LocalKey<Cell<bool>>) -> Raised {
        let before = flag.replace(true);
        Raised { flag, before }
    }

    /// Whether the flag was set already.
    pub(super) fn was_raised(&self) -> bool {
        self.before
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.flag.set(self.before);
    }
}
