//! What has gone wrong with the batches of a slice, and what they are bound to by it.

use std::time::Duration;

use crate::error::{Error, sqlstate};
use crate::model::retry::{self, Bound, Rule};
use crate::pg::patience::WAITED_IN_VAIN;
use crate::pg::server;

/// Failures that nobody has to know of.
const FEW: u32 = 2;
/// Deadlocks that nobody has to know of.
const FEW_DEADLOCKS: u32 = 3;
/// Pauses of which each has its line in the server log.
const LONG: Duration = Duration::from_secs(10);
/// Rows of a slice that are stepped over with a line each in the server log; of more, ever fewer have one.
const LOGGED_ROWS: u64 = 4;
/// What is shown of a wait for the extension's own tables.
const OWN_TABLE: &str = "a lock on a table of the extension \"backfill\", or a row in it";
const DEADLOCKS: &str =
    "batches give way in deadlocks again and again: with fewer workers there would be fewer";

/// What has gone wrong.
#[derive(Debug, Default)]
pub struct Setbacks {
    /// Tries of the present batch that have failed.
    tries: u32,
    /// Rows of the slice that were stepped over.
    stepped_over: u64,
    /// Batches that had to give way in a deadlock.
    collisions: u32,
    /// Rows that the next batch may have.
    pub bound: Bound,
    /// Rows that the last one was to have.
    pub size: i64,
    /// Set once a read has failed: from then on no more rows are read than updated, so that the
    /// error names few of them.
    pub careful: bool,
    /// Set while the view shows what a worker without a slice waits for.
    pub told: bool,
}

/// What is left of a batch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Half of it is next.
    Halved,
    /// It was about one row.
    OneRow,
    /// It does not get smaller: no row is at fault.
    Useless,
}

/// A batch that is to be tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// What is in its way.
    pub rule: &'static Rule,
    /// Tries that have failed.
    pub tries: u32,
    /// How long to wait before the next.
    pub pause: Duration,
    /// Whether it is a lock on the extension's own tables.
    pub own: bool,
}

impl Setbacks {
    /// A batch has failed. Whether and when to try it again, if the error may pass by itself.
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

    /// A batch has failed, maybe because of one of its rows.
    pub fn split(&mut self) -> Split {
        if self.size == 1 {
            return Split::OneRow;
        }
        if self.bound.is_one() {
            // It was not smaller for that.
            return Split::Useless;
        }
        self.bound.halve(self.size);
        Split::Halved
    }

    /// A batch has worked, where one of `most` rows would have been wanted: its tries are over. If others waited for
    /// it, `crowded` is the number of its rows, and the next one has half of them.
    pub fn passed(&mut self, most: i32, crowded: Option<i64>) {
        self.tries = 0;
        match crowded {
            Some(rows) => self.bound.halve(rows),
            None => self.bound.passed(i64::from(most)),
        }
    }

    /// Counts a row that was stepped over; whether it is worth a line in the server log, which is not to have
    /// one for each of a million.
    pub fn stepped_over_is_logged(&mut self) -> bool {
        self.stepped_over += 1;
        self.stepped_over <= LOGGED_ROWS || self.stepped_over.is_power_of_two()
    }

    /// What the owner should know.
    pub fn note(&self) -> Option<String> {
        (self.collisions > FEW_DEADLOCKS).then(|| DEADLOCKS.to_owned())
    }
}

impl Retry {
    /// Whether it is worth a line in the server log: as soon as the view shows it, but not each of hundreds
    /// that are a few seconds apart.
    pub fn logged(&self) -> bool {
        let rarer = self.tries == FEW + 1 || self.tries.is_power_of_two();
        self.tries > FEW && (rarer || self.pause >= LONG)
    }

    /// What the view shows of it; nothing while it hardly matters. No row data.
    pub fn shown(&self) -> Option<String> {
        let Rule { what, sqlstate, .. } = self.rule;
        let what = if self.own { OWN_TABLE } else { what };
        (self.tries > FEW)
            .then(|| format!("{what} (SQLSTATE {sqlstate}), {} tries so far", self.tries))
    }
}

/// From 0 to 1. Processes have different numbers, and each pause is another one: they won't meet for
/// ever.
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
