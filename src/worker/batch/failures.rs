//! The failures of a slice's batches, and the limits on further batches that follow from them.

use std::time::Duration;

use crate::error::{Error, sqlstate};
use crate::model::retry::{self, Bound, Rule};
use crate::pg::patience::WAITED_IN_VAIN;
use crate::pg::server;

/// Failed tries of a batch that are not reported.
const FEW: u32 = 2;
/// Deadlocks that are not reported.
const FEW_DEADLOCKS: u32 = 3;
/// Pause from which each try gets a line in the server log.
const LONG: Duration = Duration::from_secs(10);
/// Rows stepped over in a slice that each get a line in the server log; after that, ever fewer do.
const LOGGED_ROWS: u64 = 4;
/// Name of a lock on the extension's own tables, as the view shows it.
const OWN_TABLE: &str = "a lock on a table of the extension \"backfill\", or a row in it";
const DEADLOCKS: &str =
    "batches give way in deadlocks again and again: with fewer workers there would be fewer";

/// The failures of a slice.
#[derive(Debug, Default)]
pub struct Setbacks {
    /// Tries of the present batch that have failed.
    tries: u32,
    /// Rows of the slice that were stepped over.
    stepped_over: u64,
    /// Batches that had to give way in a deadlock or because of a serialization failure.
    collisions: u32,
    /// Upper bound on the rows of the next batch.
    pub bound: Bound,
    /// Rows that the last batch was to have.
    pub size: i64,
    /// Whether a read has failed: from then on no more rows are read than updated, so that the error names few of them.
    pub careful: bool,
    /// Whether the view shows what a worker without a slice waits for.
    pub told: bool,
}

/// The result of splitting a batch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Half of the batch comes next.
    Halved,
    /// The batch was about one row.
    OneRow,
    /// A smaller batch does not help: no single row is at fault.
    Useless,
}

/// A batch that is to be tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Rule for the error that stopped it.
    pub rule: &'static Rule,
    /// Tries that have failed so far.
    pub tries: u32,
    /// Pause before the next try.
    pub pause: Duration,
    /// Whether a lock on the extension's own tables stopped it.
    pub own: bool,
}

impl Setbacks {
    /// Counts a batch that has failed. Returns when to try it again; `None` if the error does not pass by itself, or
    /// too many tries have failed.
    pub fn failed(&mut self, error: &Error) -> Option<Retry> {
        let rule = retry::rule(&error.sqlstate)?;
        self.tries += 1;
        if rule.halve {
            self.bound.halve(self.size);
        }
        let collision = [sqlstate::DEADLOCK_DETECTED, sqlstate::SERIALIZATION_FAILURE];
        self.collisions += u32::from(collision.contains(&error.sqlstate.as_str()));
        let pause = rule.pause(self.tries, jitter(self.tries))?;
        Some(Retry {
            rule,
            tries: self.tries,
            pause,
            own: error.message == WAITED_IN_VAIN,
        })
    }

    /// Makes the next batch smaller, after one that failed maybe because of one of its rows.
    pub fn split(&mut self) -> Split {
        if self.size == 1 {
            return Split::OneRow;
        }
        if self.bound.is_one() {
            // The bound was one row already, and yet the batch was larger.
            return Split::Useless;
        }
        self.bound.halve(self.size);
        Split::Halved
    }

    /// Notes that a batch has worked, which ends its tries; without a bound it would have had `most` rows. `crowded` is
    /// the number of its rows if others had to wait for it: the next batch then has half of them.
    pub fn passed(&mut self, most: i32, crowded: Option<i64>) {
        self.tries = 0;
        match crowded {
            Some(rows) => self.bound.halve(rows),
            None => self.bound.passed(i64::from(most)),
        }
    }

    /// Counts a row that was stepped over. Returns true if it should have a line in the server log, which must not get
    /// one for each of a million rows.
    pub fn stepped_over_is_logged(&mut self) -> bool {
        self.stepped_over += 1;
        self.stepped_over <= LOGGED_ROWS || self.stepped_over.is_power_of_two()
    }

    /// Returns a note for the owner, if there is one.
    pub fn note(&self) -> Option<String> {
        (self.collisions > FEW_DEADLOCKS).then(|| DEADLOCKS.to_owned())
    }
}

impl Retry {
    /// True if the failed try should have a line in the server log: the first that the view shows does, but not each of
    /// hundreds that are a few seconds apart.
    pub fn logged(&self) -> bool {
        let rarer = self.tries == FEW + 1 || self.tries.is_power_of_two();
        self.tries > FEW && (rarer || self.pause >= LONG)
    }

    /// Returns what the view shows of the wait; `None` while it hardly matters. Contains no row data.
    pub fn shown(&self) -> Option<String> {
        let Rule { what, sqlstate, .. } = self.rule;
        let what = if self.own { OWN_TABLE } else { what };
        (self.tries > FEW)
            .then(|| format!("{what} (SQLSTATE {sqlstate}), {} tries so far", self.tries))
    }
}

/// Returns a number from 0 to 1 that differs between processes and between tries, so that two processes do not collide
/// for ever.
pub fn jitter(tries: u32) -> f64 {
    let number = u64::from(server::pid().unsigned_abs()) + u64::from(tries) * 104_729;
    (number * 7919 % 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_others_waited_for_ends_the_tries_too() {
        for (crowded, next) in [(None, 1000), (Some(100), 50)] {
            let mut setbacks = Setbacks {
                tries: 3,
                ..Setbacks::default()
            };
            setbacks.passed(1000, crowded);
            assert_eq!(setbacks.tries, 0);
            assert_eq!(setbacks.bound.of(1000), next);
        }
    }
}
