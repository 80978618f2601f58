//! Rules for retrying a failed batch: which errors pass by themselves, how long to wait before the next try, and with how
//! many rows.

use std::time::Duration;

/// A kind of error that may pass by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The SQLSTATE, or the prefix of a class of SQLSTATEs.
    pub sqlstate: &'static str,
    /// Name of the error, for a person who sees the job wait.
    pub what: &'static str,
    /// Reason why the error passes.
    pub why: &'static str,
    /// Whether a batch with fewer rows is more likely to work.
    pub halve: bool,
    /// Number of consecutive retries of a batch; `None`: no limit.
    pub tries: Option<u32>,
    /// First pause; each further pause is twice as long.
    pub first: Duration,
    /// Longest pause between two tries.
    pub longest: Duration,
}

/// First pause after a lack of resources: for a moment, each try takes what is left of them from others.
const SLOW: Duration = Duration::from_millis(250);
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// All rules. SQLSTATEs are those of Appendix A of PostgreSQL's manual.
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

/// Returns the rule for an error; `None` if it does not pass by itself.
pub fn rule(sqlstate: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| sqlstate.starts_with(rule.sqlstate))
}

/// SQLSTATEs, or prefixes of their classes, that are never about one row: errors of the system, of the session, or of
/// the statement's text. Damaged data (XX001) is not among them: it belongs to the row it was met in.
const OF_ALL_ROWS: &[&str] = &[
    "08", "0A", "25", "28", "2D", "3D", "3F", "42", "53", "55", "57", "58", "F0",
];

/// True if the error may be about one row, so that other rows could still be updated.
pub fn may_be_of_a_row(sqlstate: &str) -> bool {
    !OF_ALL_ROWS.iter().any(|class| sqlstate.starts_with(class))
}

/// First pause of most rules.
const FIRST: Duration = Duration::from_millis(20);

impl Rule {
    /// Returns the pause after `tries` failed tries; `None`: give up. It doubles with each try up to the longest, and
    /// `jitter` (0 to 1) takes away up to half of it, so that workers that collided once do not collide again ("equal
    /// jitter" of Brooker, Exponential Backoff And Jitter, 2015).
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

/// Returns the pause before the next look at rows that others have locked, after `tries` looks in vain.
pub fn for_a_lock(tries: u32) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(tries));
    doubled.min(SHORT)
}

/// An upper bound on the rows of a batch after a failure: halved with each failure, doubled with each batch that works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound(Option<i64>);

impl Bound {
    /// Returns `rows`, or the bound if that is lower; at least 1.
    pub fn of(self, rows: i64) -> i64 {
        self.0.map_or(rows, |most| rows.min(most)).max(1)
    }

    /// True if the bound is one row, the smallest there is.
    pub fn is_one(self) -> bool {
        self.0 == Some(1)
    }

    /// Notes that a batch of `rows` rows failed: the bound becomes half of that.
    pub fn halve(&mut self, rows: i64) {
        self.0 = Some((rows / 2).max(1));
    }

    /// Notes that a batch worked: doubles the bound, and removes it once it reaches `most`, the rows wanted without a
    /// bound.
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
