//! What to do about a batch that failed: which errors pass by themselves, how long to wait before it
//! is tried again, and with how many rows.

use std::time::Duration;

/// An error that may pass by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The SQLSTATE, or what those of a class begin with.
    pub sqlstate: &'static str,
    /// What it is, for a person who sees the job wait.
    pub what: &'static str,
    /// Why it passes.
    pub why: &'static str,
    /// Whether fewer rows fare better.
    pub halve: bool,
    /// How often in a row a batch is tried again; `None`: until it works.
    pub tries: Option<u32>,
    /// The first pause; each of the next is twice as long.
    pub first: Duration,
    /// The longest pause between two tries.
    pub longest: Duration,
}

/// Who tries to take what there is not enough of takes what is left from others, for a moment.
const SLOW: Duration = Duration::from_millis(250);
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// All of them. SQLSTATEs are those of Appendix A of PostgreSQL's manual.
pub const RULES: &[Rule] = &[
    Rule {
        sqlstate: "40P01",
        what: "deadlock",
        why: "the other transaction goes on, and ends",
        halve: false,
        tries: Some(20),
        first: FIRST,
        longest: SHORT,
    },
    Rule {
        sqlstate: "40001",
        what: "serialization failure, or a conflict with recovery",
        why: "the transaction that it conflicts with has committed",
        halve: false,
        tries: Some(20),
        first: FIRST,
        longest: SHORT,
    },
    Rule {
        sqlstate: "55P03",
        what: "a lock that somebody else holds",
        why: "a batch gives way: the application's transaction ends some time",
        halve: true,
        tries: None,
        first: FIRST,
        longest: SHORT,
    },
    Rule {
        sqlstate: "57014",
        what: "statement timeout, or somebody cancelled the batch",
        why: "fewer rows take less time",
        halve: true,
        tries: Some(20),
        first: FIRST,
        longest: SHORT,
    },
    Rule {
        sqlstate: "53100",
        what: "disk full",
        why: "somebody makes room",
        halve: false,
        tries: Some(240),
        first: FIRST,
        longest: LONG,
    },
    Rule {
        sqlstate: "53200",
        what: "out of memory, or of room for locks (max_locks_per_transaction)",
        why: "others give theirs back, and fewer rows take less",
        halve: true,
        tries: Some(60),
        first: SLOW,
        longest: LONG,
    },
    Rule {
        sqlstate: "53300",
        what: "too many connections",
        why: "a trigger that opens one finds a free one later",
        halve: false,
        tries: Some(60),
        first: FIRST,
        longest: LONG,
    },
    Rule {
        sqlstate: "57P",
        what: "a server that shuts down or starts",
        why: "one that a trigger connects to comes back; this one's own end ends the worker",
        halve: false,
        tries: Some(60),
        first: FIRST,
        longest: LONG,
    },
    Rule {
        sqlstate: "08",
        what: "a connection that broke",
        why: "one that a trigger opens can be opened again",
        halve: false,
        tries: Some(60),
        first: FIRST,
        longest: LONG,
    },
];

/// The rule for an error, if it may pass by itself.
pub fn rule(sqlstate: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| sqlstate.starts_with(rule.sqlstate))
}

/// Errors, or classes of them, that are never about one row: of the system, of the session, of what the
/// statement says. Damage to data (XX001) is of the row that it is met in.
const OF_ALL_ROWS: &[&str] = &[
    "08", "0A", "25", "28", "2D", "3D", "3F", "42", "53", "55", "57", "58", "F0",
];

/// Whether an error may be about one row, and others could be updated.
pub fn may_be_of_a_row(sqlstate: &str) -> bool {
    !OF_ALL_ROWS.iter().any(|class| sqlstate.starts_with(class))
}

/// The first pause, as a rule.
const FIRST: Duration = Duration::from_millis(20);

impl Rule {
    /// How long to wait before the try after `tries` that failed; `None`: no more. Doubles with each
    /// try up to the longest, of which `jitter` (0 to 1) takes away up to a half, so that workers that
    /// met once don't meet again ("equal jitter" of Brooker, Exponential Backoff And Jitter, 2015).
    pub fn pause(&self, tries: u32, jitter: f64) -> Option<Duration> {
        if self.tries.is_some_and(|most| tries > most) {
            return None;
        }
        let doubled = self
            .first
            .saturating_mul(2u32.saturating_pow(tries.saturating_sub(1)));
        let whole = doubled.min(self.longest);
        Some(whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0))
    }
}

/// How long to wait before a look at rows that others have locked, after so many in vain.
pub fn for_a_lock(tries: u32) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(tries));
    doubled.min(SHORT)
}

/// A bound on the rows of a batch, after one that failed: it is halved with each failure, and
/// doubles with each batch that works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound(Option<i64>);

impl Bound {
    /// So many rows, or fewer.
    pub fn of(self, rows: i64) -> i64 {
        self.0.map_or(rows, |most| rows.min(most)).max(1)
    }

    /// Whether it can't be any smaller.
    pub fn is_one(self) -> bool {
        self.0 == Some(1)
    }

    /// A batch of so many rows has failed.
    pub fn halve(&mut self, rows: i64) {
        self.0 = Some((rows / 2).max(1));
    }

    /// A batch has worked, where one of `most` rows would have been wanted.
    pub fn passed(&mut self, most: i64) {
        self.0 = self
            .0
            .map(|rows| rows.saturating_mul(2))
            .filter(|rows| *rows < most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_have_a_rule_and_others_have_none() {
        for (sqlstate, what) in [
            ("40P01", "deadlock"),
            ("53100", "disk full"),
            ("57P01", "a server that shuts down or starts"),
            ("08006", "a connection that broke"),
        ] {
            assert_eq!(rule(sqlstate).map(|rule| rule.what), Some(what));
        }
        for sqlstate in [
            "22012", "23505", "42501", "XX000", "0A000", "P0001", "", "57", "4",
        ] {
            assert_eq!(rule(sqlstate), None, "{sqlstate}");
        }
    }

    #[test]
    fn errors_of_rows_are_told_from_those_of_all() {
        for sqlstate in [
            "22012", "23505", "23514", "21000", "54000", "P0001", "38000", "ABCDE", "XX001",
        ] {
            assert!(may_be_of_a_row(sqlstate), "{sqlstate}");
        }
        for sqlstate in [
            "42501", "42P01", "53100", "57014", "55P03", "0A000", "25006", "58030",
        ] {
            assert!(!may_be_of_a_row(sqlstate), "{sqlstate}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let rule = rule("40P01").unwrap();
        let pauses: Vec<_> = (1..=20)
            .map(|tries| rule.pause(tries, 0.0).unwrap())
            .collect();
        assert_eq!(pauses[0], Duration::from_millis(20));
        assert_eq!(pauses[3], Duration::from_millis(160));
        assert_eq!(pauses[19], SHORT);
        assert_eq!(rule.pause(21, 0.0), None);
        assert_eq!(rule.pause(2, 1.0), Some(Duration::from_millis(20)));
        let forever = crate::model::retry::rule("55P03").unwrap();
        assert_eq!(forever.pause(u32::MAX, 0.0), Some(SHORT));
    }

    #[test]
    fn a_bound_is_halved_down_to_one_row_and_grows_back() {
        let mut bound = Bound::default();
        assert_eq!(bound.of(1000), 1000);
        let mut sizes = Vec::new();
        while bound.of(1000) > 1 {
            bound.halve(bound.of(1000));
            sizes.push(bound.of(1000));
        }
        assert_eq!(sizes, [500, 250, 125, 62, 31, 15, 7, 3, 1]);
        let mut back = 0;
        while bound != Bound::default() {
            bound.passed(1000);
            back += 1;
        }
        assert_eq!(back, 10);
        assert_eq!(bound.of(0), 1);
    }
}
