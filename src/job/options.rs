//! The `options` argument: one typed struct, unknown keys refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// What a job does beyond the arguments of `backfill.start`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Name of the unique index whose columns order the walk. Absent: the primary key, else the
    /// first usable unique index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Settings (GUCs) of the owner that are in force in every batch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Rows that one batch may scan in search of rows that match the WHERE clause. Absent: ten
    /// times the batch size, at least 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan_limit: Option<i64>,
}

/// Every key of [`Options`], and the JSON type it wants.
const KEYS: &[(&str, &str)] = &[
    ("key", "a string"),
    ("settings", "an object of strings"),
    ("scan_limit", "an integer"),
];

/// The keys that `backfill.alter` may change while a job runs.
pub const ALTERABLE: &[&str] = &["settings", "scan_limit"];

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
    /// Reads the options of a call.
    pub fn parse(value: &Value) -> Result<Options> {
        let Value::Object(map) = value else {
            return Err(Error::invalid("options must be a JSON object")
                .hint("Write for example '{\"key\": \"orders_pkey\"}'."));
        };
        for key in map.keys() {
            if !KEYS.iter().any(|(known, _)| known == key) {
                return Err(unknown_key(key));
            }
        }
        for (key, expected) in KEYS {
            if let Some(found) = map.get(*key) {
                let alone =
                    Value::Object([((*key).to_owned(), found.clone())].into_iter().collect());
                if serde_json::from_value::<Options>(alone).is_err() || found.is_null() {
                    return Err(Error::invalid(format!(
                        "option \"{key}\" must be {expected}, not {found}"
                    ))
                    .hint(format!("Give \"{key}\" as {expected}, or leave it out.")));
                }
            }
        }
        let options: Options = serde_json::from_value(value.clone())
            .map_err(|e| Error::invalid(format!("options cannot be read: {e}")))?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        if let Some(limit) = self.scan_limit
            && !(1..=100_000_000).contains(&limit)
        {
            return Err(Error::invalid(format!(
                "option \"scan_limit\" must be between 1 and 100000000, not {limit}"
            ))
            .hint("It bounds the rows that one batch reads."));
        }
        for name in self.settings.keys() {
            if PINNED.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(Error::invalid(format!(
                    "setting \"{name}\" is pinned by the worker and cannot be set in options.settings"
                ))
                .hint("Leave it out; what the worker pins is listed in docs/operations.md."));
            }
        }
        Ok(())
    }

    /// Rows that one batch may scan.
    pub fn scan_limit(&self, batch_size: i32) -> i64 {
        self.scan_limit
            .unwrap_or_else(|| (i64::from(batch_size) * 10).max(10_000))
    }

    /// The options as they are stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// These options with the keys of a call to `backfill.alter` put over them.
    pub fn altered(&self, change: &Value) -> Result<Options> {
        Options::parse(change)?;
        let mut merged = serde_json::to_value(self)
            .map_err(|e| Error::internal(format!("options cannot be written: {e}")))?;
        if let (Some(merged), Some(change)) = (merged.as_object_mut(), change.as_object()) {
            for (key, value) in change {
                if !ALTERABLE.contains(&key.as_str()) {
                    return Err(
                        Error::invalid(format!("option \"{key}\" cannot be altered")).hint(
                            "It is part of what the job is. Cancel the job and start another.",
                        ),
                    );
                }
                merged.insert(key.clone(), value.clone());
            }
        }
        Options::parse(&merged)
    }
}

fn unknown_key(key: &str) -> Error {
    let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
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

/// Levenshtein's edit distance, by the usual two-row dynamic programming.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut previous = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitution = previous + usize::from(ca != *cb);
            previous = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(previous + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(value: Value) -> (String, String) {
        let error = Options::parse(&value).unwrap_err();
        (
            error.message.clone(),
            error.hint.clone().unwrap_or_default(),
        )
    }

    #[test]
    fn reads_what_it_knows() {
        let value = json!({"key": "i", "settings": {"app.user": "x"}, "scan_limit": 5});
        let options = Options::parse(&value).unwrap();
        assert_eq!(options.key.as_deref(), Some("i"));
        assert_eq!(options.settings["app.user"], "x");
        assert_eq!(options.scan_limit(1000), 5);
        assert_eq!(
            serde_json::from_str::<Value>(&options.to_json()).unwrap(),
            value
        );
    }

    #[test]
    fn names_the_unknown_key_and_the_nearest() {
        let (text, hint) = message(json!({"scan_limits": 5}));
        assert_eq!(text, "unknown option \"scan_limits\"");
        assert!(hint.starts_with("Did you mean \"scan_limit\"?"), "{hint}");
        let (_, hint) = message(json!({"zzzzzzzzzzzzzzz": 5}));
        assert!(hint.starts_with("Known options:"), "{hint}");
    }

    #[test]
    fn says_what_type_was_expected() {
        let (text, _) = message(json!({"scan_limit": "many"}));
        assert_eq!(
            text,
            "option \"scan_limit\" must be an integer, not \"many\""
        );
        let (text, _) = message(json!({"settings": {"a": 1}}));
        assert_eq!(
            text,
            "option \"settings\" must be an object of strings, not {\"a\":1}"
        );
        let (text, _) = message(json!({"key": null}));
        assert_eq!(text, "option \"key\" must be a string, not null");
        let (text, _) = message(json!([1]));
        assert_eq!(text, "options must be a JSON object");
    }

    #[test]
    fn refuses_what_the_worker_pins() {
        let (text, _) = message(json!({"settings": {"Row_Security": "on"}}));
        assert!(text.contains("\"Row_Security\" is pinned"), "{text}");
    }

    #[test]
    fn alters_the_pace_and_not_the_key() {
        let options = Options::parse(&json!({"key": "i", "scan_limit": 5})).unwrap();
        let altered = options.altered(&json!({"scan_limit": 7})).unwrap();
        assert_eq!(
            (altered.key.as_deref(), altered.scan_limit),
            (Some("i"), Some(7))
        );
        assert!(options.altered(&json!({"key": "j"})).is_err());
    }

    #[test]
    fn the_default_scan_limit_follows_the_batch_size() {
        let options = Options::default();
        assert_eq!(options.scan_limit(10), 10_000);
        assert_eq!(options.scan_limit(5000), 50_000);
    }
}
