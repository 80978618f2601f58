//! The bounds that make a job wait: keys of `options`, each with a server-wide default.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;

use crate::throttle::kind::Value;
use crate::throttle::signals::{SIGNALS, Signal, Waits};
use crate::throttle::window::Hours;

/// Bounds by signal, as they were given. A bound that was not given is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Throttles(BTreeMap<Signal, Value>);

impl FromIterator<(Signal, Value)> for Throttles {
    fn from_iter<I: IntoIterator<Item = (Signal, Value)>>(bounds: I) -> Throttles {
        Throttles(bounds.into_iter().collect())
    }
}

impl Throttles {
    /// Returns these bounds, with `defaults` for those that were not given.
    pub fn or(&self, defaults: Throttles) -> Throttles {
        let mut all = defaults;
        all.0.extend(self.0.clone());
        all
    }

    /// Returns the bound of a signal; `None` if it was not given or sets no bound.
    pub fn bound(&self, signal: Signal) -> Option<&Value> {
        self.0.get(&signal).filter(|value| value.is_bound())
    }

    /// True if a value was given for the signal, even one that sets no bound.
    pub fn is_given(&self, signal: Signal) -> bool {
        self.0.contains_key(&signal)
    }

    /// Returns a bound that is an amount: in bytes, in milliseconds, or a number.
    pub fn amount(&self, signal: Signal) -> Option<u64> {
        self.0.get(&signal)?.amount()
    }

    /// Returns a rate to be kept, in bytes or rows per second; `None` if it is 0 or not bounded.
    pub fn rate(&self, signal: Signal) -> Option<u64> {
        self.amount(signal).filter(|rate| *rate > 0)
    }

    /// Returns the rates that are bounded by 0, which make the job wait.
    pub fn at_rest(&self) -> impl Iterator<Item = Signal> {
        let rates = SIGNALS
            .iter()
            .filter(|entry| matches!(entry.waits, Waits::Rate(_)));
        rates
            .map(|entry| entry.signal)
            .filter(|signal| self.amount(*signal) == Some(0))
    }

    /// Returns the owner's query, if there is one.
    pub fn query(&self) -> Option<&str> {
        match self.bound(Signal::Query)? {
            Value::Text(query) => Some(query.trim()),
            _ => None,
        }
    }

    /// Returns the hours in which the job may run, if they are bounded.
    pub fn hours(&self) -> Option<&Hours> {
        match self.bound(Signal::RunWindow)? {
            Value::Window(window) => window.0.as_ref(),
            _ => None,
        }
    }

    /// Returns the names of the standbys and slots that count, and of those that do not.
    pub fn names(&self) -> (&[String], &[String]) {
        let list = |signal| match self.bound(signal) {
            Some(Value::Names(names)) => names.as_slice(),
            _ => &[],
        };
        (list(Signal::LagInclude), list(Signal::LagExclude))
    }
}

impl Serialize for Throttles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.0.iter();
        serializer.collect_map(pairs.map(|(signal, value)| (signal.name(), value.to_json())))
    }
}

impl<'de> Deserialize<'de> for Throttles {
    /// Reads the keys that are bounds; ignores others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Throttles, D::Error> {
        let given = BTreeMap::<String, Json>::deserialize(deserializer)?;
        let mut read = Throttles::default();
        for entry in SIGNALS {
            let found = given.get(entry.name).filter(|found| !found.is_null());
            let (Some(bound), Some(found)) = (&entry.bound, found) else {
                continue;
            };
            let value = bound.kind.of_option(found).ok_or_else(|| {
                let (name, expected) = (entry.name, bound.kind.expected());
                de::Error::custom(format!("{name} must be {expected}"))
            })?;
            read.0.insert(entry.signal, value);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::kind::Kind;
    use serde_json::json;

    fn read(value: Json) -> Throttles {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_given_comes_before_the_default() {
        let defaults = || read(json!({"max_lag_bytes": "256MB", "run_window": "22:00-06:00"}));
        let none = read(json!({})).or(defaults());
        assert_eq!(none.amount(Signal::LagBytes), Some(256 << 20));
        assert!(none.hours().is_some());
        let off = read(json!({"max_lag_bytes": -1, "run_window": ""})).or(defaults());
        assert_eq!(off.bound(Signal::LagBytes), None);
        assert!(off.is_given(Signal::LagBytes) && !off.is_given(Signal::Lag));
        assert!(off.hours().is_none());
        let other = read(json!({"max_lag_bytes": 1000})).or(defaults());
        assert_eq!(other.amount(Signal::LagBytes), Some(1000));
    }

    #[test]
    fn each_option_is_stored_as_it_is_read() {
        let mut given = serde_json::Map::new();
        for entry in SIGNALS {
            let Some(bound) = &entry.bound else { continue };
            let value = match bound.kind {
                Kind::Bytes(_) => json!("64MB"),
                Kind::Span(_) => json!("30s"),
                Kind::Number { .. } => json!(4),
                Kind::Flag => json!(true),
                Kind::Names => json!(["a"]),
                Kind::Text(_) => json!("SELECT true"),
                Kind::Window => json!("22:00-06:00 Europe/Berlin"),
            };
            given.insert(entry.name.to_owned(), value);
        }
        let all = read(Json::Object(given.clone()));
        for entry in SIGNALS {
            let has_bound = all.bound(entry.signal).is_some();
            assert_eq!(has_bound, entry.bound.is_some(), "{}", entry.name);
        }
        assert_eq!(serde_json::to_value(&all).unwrap(), Json::Object(given));
        assert_eq!(all.query(), Some("SELECT true"));
        assert_eq!(all.names(), (&["a".to_owned()][..], &["a".to_owned()][..]));
    }

    #[test]
    fn a_rate_of_nothing_is_rest() {
        let none = read(json!({"max_rows_per_second": 0, "max_wal_rate": "1MB"}));
        assert_eq!(none.at_rest().collect::<Vec<_>>(), [Signal::RowRate]);
        assert_eq!(none.rate(Signal::RowRate), None);
        assert_eq!(none.rate(Signal::WalRate), Some(1 << 20));
        let waiters = read(json!({"max_lock_waiters": 0}));
        assert_eq!(waiters.amount(Signal::LockWaiters), Some(0));
        assert_eq!(waiters.at_rest().count(), 0);
    }

    #[test]
    fn what_is_of_another_kind_is_refused() {
        for wrong in [json!({"max_growth": "x"}), json!({"lag_include": "a"})] {
            assert!(serde_json::from_value::<Throttles>(wrong).is_err());
        }
        assert_eq!(
            read(json!({"other": 1, "max_lag": null})),
            Throttles::default()
        );
    }
}
