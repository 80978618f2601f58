//! The keys of the `options` argument: which value each takes, and whether it can be altered.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::names::distance;
use crate::throttle::kind::{Kind, NO_BOUND};
use crate::throttle::signals::{Entry, SIGNALS};

/// Whether `backfill.alter` may change an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Never: the option defines what the job is.
    Defined,
    /// Any time, also while the job runs.
    Always,
}

/// A key of the `options` argument.
#[derive(Clone, Copy)]
pub struct Key {
    /// The key as it is written in JSON.
    pub name: &'static str,
    /// Description of a valid value, for people.
    expected: &'static str,
    /// For an integer: least value, greatest value, and its purpose.
    bounds: Option<(i64, i64, &'static str)>,
    when: When,
}

const fn key(name: &'static str, expected: &'static str, when: When) -> Key {
    Key {
        name,
        expected,
        bounds: None,
        when,
    }
}

const fn integer(name: &'static str, least: i64, greatest: i64, purpose: &'static str) -> Key {
    Key {
        name,
        expected: "an integer",
        bounds: Some((least, greatest, purpose)),
        when: When::Always,
    }
}

/// The keys of `Options` that do not bound a signal.
const KEYS: &[Key] = &[
    key("key", "a string", When::Defined),
    key("ordered", "true or false", When::Defined),
    key("only", "true or false", When::Defined),
    key("walk", "\"auto\", \"key\" or \"physical\"", When::Defined),
    key(
        "strategy",
        "\"auto\", \"waves\" or \"sequential\"",
        When::Always,
    ),
    integer(
        "waves",
        2,
        255,
        "It is the number of passes over a region; left out, it is chosen.",
    ),
    integer(
        "workers",
        1,
        64,
        "It is the number of processes that work on the job at the same time.",
    ),
    integer(
        "target_ms",
        1,
        3_600_000,
        "It is the time that a batch is to take in milliseconds, an hour at most.",
    ),
    key(
        "batch_bytes",
        "bytes: a number, or a text such as \"8MB\"",
        When::Always,
    ),
    integer(
        "scan_limit",
        1,
        100_000_000,
        "It bounds the rows that one statement reads.",
    ),
    integer(
        "max_failed_rows",
        0,
        1_000_000,
        "It is how many rows may fail, and are stepped over, before the job does.",
    ),
    key("locked_rows", "\"wait\" or \"skip\"", When::Always),
    key("triggers", "\"fire\" or \"skip\"", When::Defined),
    integer(
        "lock_timeout_ms",
        0,
        86_400_000,
        "It is how long a batch waits for a lock in milliseconds before it gives way; 0 is for ever.",
    ),
    integer(
        "statement_timeout_ms",
        0,
        86_400_000,
        "It is how long a batch may take in milliseconds before it is cancelled; 0 is no limit.",
    ),
    key("settings", "an object of strings", When::Always),
    key("vacuum", "true or false", When::Always),
    key("analyze", "true or false", When::Always),
    key("dry_run", "true or false", When::Defined),
    integer(
        "limit_rows",
        1,
        1_000_000_000_000,
        "It is how many rows the job may update before it pauses.",
    ),
    key("key_from", KEY, When::Always),
    key("key_to", KEY, When::Always),
    key("at_bounds", "\"pause\" or \"complete\"", When::Always),
    key(
        "archive_into",
        "a string: the name of a table",
        When::Defined,
    ),
    key("from", "a string: an item of FROM", When::Defined),
    integer(
        "priority",
        -1000,
        1000,
        "Of the jobs of a role that wait for a worker, those with a higher number come first; it is 0 if left out.",
    ),
    key("after", "an array of names of jobs", When::Defined),
    key(
        "lock",
        "\"none\", \"key share\", \"share\", \"no key update\" or \"update\"",
        When::Defined,
    ),
    key("on_end", "a string: an SQL statement", When::Always),
];

/// Description of a valid value of `key_from` and `key_to`.
const KEY: &str = "a key: a string, an integer, or an array of them for a key of several columns";

/// Returns every key of `Options`: those in `KEYS`, and one for each signal that can be bounded.
pub fn keys() -> impl Iterator<Item = Key> {
    KEYS.iter().copied().chain(SIGNALS.iter().filter_map(bound))
}

/// Returns the key of the option that bounds the signal, if there is one.
fn bound(entry: &Entry) -> Option<Key> {
    let bound = entry.bound.as_ref()?;
    Some(Key {
        name: entry.name,
        expected: bound.kind.expected(),
        bounds: match bound.kind {
            Kind::Number { most, purpose, .. } => Some((NO_BOUND, most, purpose)),
            _ => None,
        },
        when: match bound.alterable {
            true => When::Always,
            false => When::Defined,
        },
    })
}

/// Returns the key with this name, if there is one.
pub fn named(name: &str) -> Option<Key> {
    keys().find(|key| key.name == name)
}

impl Key {
    /// Refuses an integer that the option cannot have.
    pub fn check_bounds(&self, found: &Value) -> Result<()> {
        let name = self.name;
        if let (Some((least, greatest, purpose)), Some(number)) = (self.bounds, found.as_i64())
            && !(least..=greatest).contains(&number)
        {
            return Err(Error::invalid(format!(
                "option \"{name}\" must be between {least} and {greatest}, not {number}"
            ))
            .hint(purpose));
        }
        Ok(())
    }

    /// Returns the error about a value of another kind than the option takes.
    pub fn mistyped(&self, found: &Value) -> Error {
        let Key { name, expected, .. } = self;
        Error::invalid(format!("option \"{name}\" must be {expected}, not {found}"))
            .hint(format!("Give \"{name}\" as {expected}, or leave it out."))
    }
}

/// True if `backfill.alter` may change the option while a job runs.
pub fn is_alterable(name: &str) -> bool {
    named(name).is_some_and(|key| key.when == When::Always)
}

/// Arguments of `start` and similar functions that users sometimes take for options.
const ARGUMENTS: &[&str] = &[
    "batch_size",
    "sleep_ms",
    "set_clause",
    "where_clause",
    "name",
    "relation",
];

/// Returns the error for an unknown key. Its hint names the nearest key, if one is close.
pub fn unknown(key: &str) -> Error {
    if ARGUMENTS.contains(&key) {
        return Error::invalid(format!("\"{key}\" is an argument, not an option")).hint(format!(
            "Give it beside the options: {key} => ..., options => '{{...}}'."
        ));
    }
    let names: Vec<&str> = keys().map(|key| key.name).collect();
    let nearest = names.iter().min_by_key(|name| distance(name, key));
    let hint = match nearest {
        Some(name) if distance(name, key) <= name.len().max(4) / 2 => {
            format!(
                "Did you mean \"{name}\"? Known options: {}.",
                names.join(", ")
            )
        }
        _ => format!("Known options: {}.", names.join(", ")),
    };
    Error::invalid(format!("unknown option \"{key}\"")).hint(hint)
}
