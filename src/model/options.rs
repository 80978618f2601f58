//! The `options` argument: one typed struct, unknown keys refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::bounds::{Bounds, KeyText};
pub use crate::model::choice::{AtBounds, LockedRows, Strategy, Triggers, Walk};
pub use crate::model::option::is_alterable;
use crate::model::option::{self, Key};
use crate::model::row_lock::RowLock;
use crate::throttle::limits::Throttles;
use crate::throttle::quantity::Bytes;

/// The options of a job, beyond the arguments of `backfill.start`. A field that is `None` was not given; the method of
/// the same name returns the value in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Name of the unique index whose columns order the walk. Absent: the primary key, or else the first usable unique
    /// index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether only the table's own rows are walked, without those of the tables that inherit from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<bool>,
    /// Order of the walk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// Whether the rows of a region are dealt out to waves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Number of waves, where there are waves. Absent: the worker chooses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<i32>,
    /// Number of processes that may work on the job at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,
    /// Time a batch should take, in milliseconds. Absent: every batch has the batch size, however long it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ms: Option<i32>,
    /// Rows that one statement may read in search of rows that match the WHERE clause. Absent: as many as take about
    /// `target_ms`, or a quarter of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_limit: Option<i64>,
    /// Rows that may fail, and are stepped over, before the job fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed_rows: Option<i64>,
    /// Treatment of rows that other transactions have locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_rows: Option<LockedRows>,
    /// Whether the table's triggers fire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers: Option<Triggers>,
    /// Milliseconds a batch waits for a lock before it gives way; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<i32>,
    /// Milliseconds a batch may take before it is cancelled; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<i32>,
    /// The owner's settings (GUCs), in force in every batch.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Whether a VACUUM follows the last batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vacuum: Option<bool>,
    /// Whether an ANALYZE follows the last batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analyze: Option<bool>,
    /// Whether the job changes nothing and only looks at what it would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Rows that the job may update before it pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_rows: Option<i64>,
    /// First key of the walk, in text form; a list for a key of several columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_from: Option<KeyText>,
    /// Last key of the walk, in the form of `key_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_to: Option<KeyText>,
    /// The state the job takes once every row between `key_from` and `key_to` is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_bounds: Option<AtBounds>,
    /// Name of the table that gets the rows that are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_into: Option<String>,
    /// Item of FROM that an update is joined with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether rows are done strictly in the order of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    /// Bytes that the rows of a batch may take, read and written; no bound if absent, or -1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<Bytes>,
    /// Rank among the jobs of a role that wait for a worker. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Names of the owner's jobs that have to complete first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Lock that the rows of a batch get which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<RowLock>,
    /// The owner's SQL statement that runs after the end of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_end: Option<String>,
    /// Bounds of signals: the conditions under which the job waits.
    #[serde(flatten)]
    pub throttles: Throttles,
}

/// Default of `max_failed_rows` for a dry run.
const DRY_RUN_FAILURES: i64 = 1000;

/// Number of jobs that one may wait for.
const MOST_AFTER: usize = 100;

/// Settings that the worker sets itself and `options.settings` must not touch.
const PINNED: &[&str] = &[
    "client_encoding",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "role",
    "row_security",
    "session_authorization",
    "session_replication_role",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
];

impl Options {
    /// Checks and reads the options given in a call, or those in a job's row.
    pub fn parse(value: &Value) -> Result<Options> {
        let Value::Object(map) = value else {
            return Err(Error::invalid("options must be a JSON object")
                .hint("Write for example '{\"key\": \"orders_pkey\"}'."));
        };
        for name in map.keys() {
            if option::named(name).is_none() {
                return Err(option::unknown(name));
            }
        }
        for key in option::keys() {
            if let Some(found) = map.get(key.name) {
                check(&key, found)?;
            }
        }
        let options = Options::read(value.clone())?;
        options.refuse_pinned()?;
        options.refuse_endless_after()?;
        Ok(options)
    }

    /// Reads options that were each checked before: the options of two calls, merged.
    fn read(value: Value) -> Result<Options> {
        let options: Options = serde_json::from_value(value)
            .map_err(|e| Error::invalid(format!("options cannot be read: {e}")))?;
        options.refuse_disorder()?;
        Ok(options)
    }

    /// Refuses options that contradict `ordered`.
    fn refuse_disorder(&self) -> Result<()> {
        if !self.ordered() {
            return Ok(());
        }
        let others = [
            ("walk", self.walk == Some(Walk::Physical)),
            ("strategy", self.strategy == Some(Strategy::Waves)),
            ("workers", self.workers.is_some_and(|workers| workers > 1)),
            ("locked_rows", self.skips_locked_rows()),
        ];
        match others.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!(
                "option \"{name}\" contradicts \"ordered\""
            ))
            .hint("In the order of the key, one worker does the rows one after another: leave the other out.")),
        }
    }

    /// Whether rows are done strictly in the order of the key.
    pub fn ordered(&self) -> bool {
        self.ordered == Some(true)
    }

    fn refuse_endless_after(&self) -> Result<()> {
        let wrong = |what: String| {
            Err(Error::invalid(format!("option \"after\" {what}"))
                .hint("Give the names of a few jobs: '{\"after\": [\"orders.rate\"]}'."))
        };
        if self.after.len() > MOST_AFTER {
            return wrong(format!("has {} names", self.after.len()));
        }
        match self
            .after
            .iter()
            .find(|name| name.is_empty() || name.len() > 63)
        {
            Some(name) if name.is_empty() => wrong("has an empty name".to_owned()),
            Some(name) => wrong(format!("has a name of {} bytes", name.len())),
            None => Ok(()),
        }
    }

    fn refuse_pinned(&self) -> Result<()> {
        for name in self.settings.keys() {
            let known = name.to_ascii_lowercase();
            if PINNED.contains(&known.as_str()) {
                return Err(Error::invalid(format!(
                    "setting \"{name}\" is pinned by the worker and cannot be set in options.settings"
                ))
                .hint(match known.as_str() {
                    "lock_timeout" => "There is an option for it: \"lock_timeout_ms\".",
                    "statement_timeout" => "There is an option for it: \"statement_timeout_ms\".",
                    "session_replication_role" => {
                        "To keep triggers from firing, there is an option: \"triggers\": \"skip\"."
                    }
                    _ => "Leave it out; what the worker pins is listed in docs/operations.md.",
                }));
            }
        }
        Ok(())
    }

    /// Order of the walk.
    pub fn walk(&self) -> Walk {
        match self.ordered() {
            true => Walk::Key,
            false => self.walk.unwrap_or_default(),
        }
    }

    /// Whether the rows of a region are dealt out to waves. With `limit_rows` they are not: so few rows are done in one
    /// pass.
    pub fn strategy(&self) -> Strategy {
        match self.limit_rows {
            Some(_) => Strategy::Sequential,
            None if self.ordered() => Strategy::Sequential,
            None => self.strategy.unwrap_or_default(),
        }
    }

    /// Number of processes that may work on the job at the same time. With `limit_rows` it is 1: only a single worker
    /// knows how many rows are done.
    pub fn workers(&self) -> i32 {
        match self.limit_rows {
            Some(_) => 1,
            None if self.ordered() => 1,
            None => self.workers.unwrap_or(1),
        }
    }

    /// Returns the lock that the rows of a copy get: it keeps those from being deleted that are being copied.
    pub fn lock_of_copy(&self) -> RowLock {
        self.lock.unwrap_or(RowLock::KeyShare)
    }

    /// Returns the lock that the rows get which a statement is run for.
    pub fn lock_of_execute(&self) -> RowLock {
        self.lock.unwrap_or(RowLock::NoKeyUpdate)
    }

    /// Returns the bytes that the rows of a batch may take; `None` without a bound.
    pub fn batch_bytes(&self) -> Option<u64> {
        self.batch_bytes.and_then(|bytes| bytes.0)
    }

    /// True if one worker does the rows one after another in key order.
    pub fn keeps_key_order(&self) -> bool {
        let sequential = self.strategy() == Strategy::Sequential && self.workers() == 1;
        self.walk() == Walk::Key && sequential && !self.skips_locked_rows()
    }

    /// Rows that may fail before the job fails. A dry run allows more by default, since it is there to find such rows.
    pub fn max_failed_rows(&self) -> i64 {
        let most = if self.dry_run() { DRY_RUN_FAILURES } else { 0 };
        self.max_failed_rows.unwrap_or(most)
    }

    /// The range of keys that the job walks; `None` if it has no bounds.
    pub fn bounds(&self) -> Option<Bounds> {
        let texts = |key: &Option<KeyText>| key.as_ref().map(KeyText::texts);
        let bounds = Bounds {
            from: texts(&self.key_from),
            to: texts(&self.key_to),
        };
        (!bounds.is_open()).then_some(bounds)
    }

    /// True if the job changes nothing and only looks at what it would do.
    pub fn dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }

    /// True if a batch leaves rows that others have locked for later.
    pub fn skips_locked_rows(&self) -> bool {
        self.locked_rows == Some(LockedRows::Skip)
    }

    /// True if the table's triggers do not fire.
    pub fn skips_triggers(&self) -> bool {
        self.triggers == Some(Triggers::Skip)
    }

    /// True if the tables that inherit from the named one are left alone.
    pub fn only(&self) -> bool {
        self.only.unwrap_or(false)
    }

    /// True if the job completes once every row between its bounds is done.
    pub fn completes_at_bounds(&self) -> bool {
        self.at_bounds == Some(AtBounds::Complete)
    }

    /// Milliseconds a batch waits for a lock; 0: no limit. The default is less than `deadlock_timeout`, so that the
    /// batch gives way before a transaction that waits for it is cancelled by the deadlock detector.
    pub fn lock_timeout_ms(&self) -> i32 {
        self.lock_timeout_ms.unwrap_or(500)
    }

    /// Milliseconds a batch may take; 0: no limit.
    pub fn statement_timeout_ms(&self) -> i32 {
        self.statement_timeout_ms.unwrap_or(0)
    }

    /// True if a VACUUM follows the last batch.
    pub fn vacuum(&self) -> bool {
        self.vacuum.unwrap_or(true)
    }

    /// True if an ANALYZE follows the last batch.
    pub fn analyze(&self) -> bool {
        self.analyze.unwrap_or(true)
    }

    /// Returns the options as they are stored, as JSON.
    pub fn to_json(&self) -> String {
        Value::Object(self.to_map()).to_string()
    }

    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // Strings, numbers and words can always be written as JSON.
            _ => Map::new(),
        }
    }

    /// Returns these options changed by those given to `backfill.alter`. A null removes an option, so that its default
    /// is in force again. Refuses options that are unknown or cannot be altered.
    pub fn altered(&self, change: &Value) -> Result<Options> {
        let mut merged = self.to_map();
        Options::parse(&without_nulls(change))?;
        for (name, value) in change.as_object().into_iter().flatten() {
            if option::named(name).is_none() {
                return Err(option::unknown(name));
            }
            if !is_alterable(name) {
                return Err(
                    Error::invalid(format!("option \"{name}\" cannot be altered"))
                        .hint("It is part of what the job is. Cancel the job and start another."),
                );
            }
            match value {
                Value::Null => merged.remove(name),
                value => merged.insert(name.clone(), value.clone()),
            };
        }
        Options::read(Value::Object(merged))
    }

    /// Returns these options, stored with a definition, overlaid with those of the call that starts it. Refuses an
    /// option that cannot be altered, unless its value is the stored one.
    pub fn started_with(&self, given: &Options) -> Result<Options> {
        let stored = self.to_map();
        for (name, value) in given.to_map() {
            if !is_alterable(&name) && stored.get(&name) != Some(&value) {
                return Err(Error::invalid(format!(
                    "option \"{name}\" cannot be given to start a stored definition"
                ))
                .hint("It is checked and stored by backfill.define()."));
            }
        }
        self.overlaid(given)
    }

    /// Returns these options overlaid with `given`. The entries of `settings` are merged one by one.
    pub fn overlaid(&self, given: &Options) -> Result<Options> {
        let mut merged = self.to_map();
        for (name, value) in given.to_map() {
            match (merged.get_mut(&name), value) {
                (Some(Value::Object(stored)), Value::Object(more)) => stored.extend(more),
                (_, value) => {
                    merged.insert(name, value);
                }
            }
        }
        Options::read(Value::Object(merged))
    }

    /// Lists the options that differ in `after`: name, old value, new value.
    pub fn differences(&self, after: &Options) -> Vec<(&'static str, String, String)> {
        let (old_map, new_map) = (self.to_map(), after.to_map());
        option::keys()
            .map(|key| key.name)
            .filter(|name| old_map.get(*name) != new_map.get(*name))
            .map(|name| {
                let (old, mut new) = (shown(old_map.get(name)), shown(new_map.get(name)));
                if name == "settings" {
                    // The names may be unchanged: only values differ.
                    new.push_str(" (values not shown)");
                }
                if name == "on_end" {
                    // The statement's literals may be private.
                    let kind = |map: &Map<String, Value>| match map.get(name) {
                        Some(_) => "a statement (not shown)".to_owned(),
                        None => "default".to_owned(),
                    };
                    return (name, kind(&old_map), kind(&new_map));
                }
                (name, old, new)
            })
            .collect()
    }
}

/// Refuses a value that the option cannot have.
fn check(key: &Key, found: &Value) -> Result<()> {
    key.check_bounds(found)?;
    let alone = [(key.name.to_owned(), found.clone())].into_iter().collect();
    if found.is_null() || serde_json::from_value::<Options>(Value::Object(alone)).is_err() {
        return Err(key.mistyped(found));
    }
    Ok(())
}

/// Returns the change without the options that it removes.
fn without_nulls(change: &Value) -> Value {
    match change {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Formats an option's value for an event. Of `settings` only the names are shown: the values may be secrets, and
/// pg_monitor can read events.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "default".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map)) => map.keys().cloned().collect::<Vec<_>>().join(", "),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
