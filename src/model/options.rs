//! The `options` argument: one typed struct, unknown keys refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::bounds::{Bounds, KeyText};
pub use crate::model::choice::{AtBounds, LockedRows, Strategy, Triggers, Walk};
use crate::model::option;
pub use crate::model::option::is_alterable;
use crate::throttle::limits::Throttles;

/// What a job does beyond the arguments of `backfill.start`. A field that is `None` was not given;
/// the methods give what holds then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Name of the unique index whose columns order the walk. Absent: the primary key, else the
    /// first usable unique index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether the table's own rows are walked alone, without those of tables that inherit from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<bool>,
    /// What orders the walk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// Whether the rows of a region are dealt out to waves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Number of waves, where there are waves. Absent: chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<i32>,
    /// Processes that work on the job at the same time, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,
    /// How long a batch is to take, in milliseconds. Absent: batches of the batch size, however long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ms: Option<i32>,
    /// Rows that one statement may read in search of rows that match the WHERE clause. Absent:
    /// what takes about `target_ms`, or a quarter of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_limit: Option<i64>,
    /// Rows that may fail, and are stepped over, before the job does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed_rows: Option<i64>,
    /// What a batch does about rows that others have locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_rows: Option<LockedRows>,
    /// What becomes of the table's triggers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers: Option<Triggers>,
    /// How long a batch waits for a lock, in milliseconds, before it gives way; 0: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<i32>,
    /// How long a batch may take, in milliseconds, before it is cancelled; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<i32>,
    /// Settings (GUCs) of the owner that are in force in every batch.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Whether a VACUUM follows the last batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vacuum: Option<bool>,
    /// Whether an ANALYZE follows the last batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analyze: Option<bool>,
    /// Whether the job only sees what it would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Rows that the job may update before it pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_rows: Option<i64>,
    /// The first key of the walk, in text form; of several columns a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_from: Option<KeyText>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_to: Option<KeyText>,
    /// What the job does once all is done between these keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_bounds: Option<AtBounds>,
    /// A statement of the owner's that follows the job's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_end: Option<String>,
    /// What makes the job wait.
    #[serde(flatten)]
    pub throttles: Throttles,
}

/// Rows that may fail in a dry run, by default.
const DRY_RUN_FAILURES: i64 = 1000;

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
    /// Checks and reads the options of a call, or of a job's row.
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
                key.check(found)?;
            }
        }
        let options = Options::read(value.clone())?;
        options.refuse_pinned()?;
        Ok(options)
    }

    /// Reads options that were checked already, each by itself: what two calls have given, laid over each other.
    fn read(value: Value) -> Result<Options> {
        serde_json::from_value(value)
            .map_err(|e| Error::invalid(format!("options cannot be read: {e}")))
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

    /// What orders the walk.
    pub fn walk(&self) -> Walk {
        self.walk.unwrap_or_default()
    }

    /// Whether the rows of a region are dealt out to waves. A few rows are done one after the other.
    pub fn strategy(&self) -> Strategy {
        match self.limit_rows {
            Some(_) => Strategy::Sequential,
            None => self.strategy.unwrap_or_default(),
        }
    }

    /// Processes that work on the job at the same time, at most. One alone knows how many rows are done.
    pub fn workers(&self) -> i32 {
        match self.limit_rows {
            Some(_) => 1,
            None => self.workers.unwrap_or(1),
        }
    }

    /// Whether one worker does the rows one after the other, in the order of the key.
    pub fn keeps_key_order(&self) -> bool {
        let sequential = self.strategy() == Strategy::Sequential && self.workers() == 1;
        self.walk() == Walk::Key && sequential && !self.skips_locked_rows()
    }

    /// Rows that may fail before the job does. A dry run is to find them.
    pub fn max_failed_rows(&self) -> i64 {
        let most = if self.dry_run() { DRY_RUN_FAILURES } else { 0 };
        self.max_failed_rows.unwrap_or(most)
    }

    /// The keys between which the job walks, if there are bounds.
    pub fn bounds(&self) -> Option<Bounds> {
        let texts = |key: &Option<KeyText>| key.as_ref().map(KeyText::texts);
        let bounds = Bounds {
            from: texts(&self.key_from),
            to: texts(&self.key_to),
        };
        (!bounds.is_open()).then_some(bounds)
    }

    /// Whether the job only sees what it would do.
    pub fn dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }

    /// Whether a batch leaves rows that others have locked for later.
    pub fn skips_locked_rows(&self) -> bool {
        self.locked_rows == Some(LockedRows::Skip)
    }

    /// Whether the table's triggers are not to fire.
    pub fn skips_triggers(&self) -> bool {
        self.triggers == Some(Triggers::Skip)
    }

    /// Whether tables that inherit from the one named are left alone.
    pub fn only(&self) -> bool {
        self.only.unwrap_or(false)
    }

    /// Whether the job completes once all is done between its bounds.
    pub fn completes_at_bounds(&self) -> bool {
        self.at_bounds == Some(AtBounds::Complete)
    }

    /// How long a batch waits for a lock, in milliseconds; 0: for ever. By default less than
    /// `deadlock_timeout`: who waits for the batch is not the one to be cancelled.
    pub fn lock_timeout_ms(&self) -> i32 {
        self.lock_timeout_ms.unwrap_or(500)
    }

    /// How long a batch may take, in milliseconds; 0: no limit.
    pub fn statement_timeout_ms(&self) -> i32 {
        self.statement_timeout_ms.unwrap_or(0)
    }

    /// Whether a VACUUM follows the last batch.
    pub fn vacuum(&self) -> bool {
        self.vacuum.unwrap_or(true)
    }

    /// Whether an ANALYZE follows the last batch.
    pub fn analyze(&self) -> bool {
        self.analyze.unwrap_or(true)
    }

    /// The options as they are stored.
    pub fn to_json(&self) -> String {
        Value::Object(self.to_map()).to_string()
    }

    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // Strings, numbers and words always have a form in JSON.
            _ => Map::new(),
        }
    }

    /// These options with the keys of a call to `backfill.alter` put over them; null takes one away, so
    /// that its default is in force.
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

    /// These options, as a definition stored them, with those of the call that starts it laid over
    /// them.
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

    /// These options with others laid over them. Settings are added one by one.
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

    /// What differs in `after`: the option, what it was, and what it is.
    pub fn differences(&self, after: &Options) -> Vec<(&'static str, String, String)> {
        let (old_map, new_map) = (self.to_map(), after.to_map());
        option::keys()
            .map(|key| key.name)
            .filter(|name| old_map.get(*name) != new_map.get(*name))
            .map(|name| {
                let (old, mut new) = (shown(old_map.get(name)), shown(new_map.get(name)));
                if name == "settings" {
                    // The names may be the same as before.
                    new.push_str(" (values not shown)");
                }
                if name == "on_end" {
                    // Its literals are nobody else's business.
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

/// A change without the options that it takes away.
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

/// An option's value for the events. Of settings the names only: the values may be secrets, and the
/// events are shown to pg_monitor.
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
