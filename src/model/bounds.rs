//! The range of keys that a job walks.

use serde::{Deserialize, Serialize};

/// A key as the caller of a function gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyText {
    /// Key of one column.
    One(KeyValue),
    /// Key of several columns.
    Many(Vec<KeyValue>),
}

/// The value of one key column as the caller of a function gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyValue {
    /// A number without a fraction, which JSON holds exactly.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl KeyText {
    /// Returns the values column by column, in text form.
    pub fn texts(&self) -> Vec<String> {
        match self {
            KeyText::One(value) => vec![value.text()],
            KeyText::Many(values) => values.iter().map(KeyValue::text).collect(),
        }
    }
}

impl From<Vec<String>> for KeyText {
    fn from(texts: Vec<String>) -> KeyText {
        KeyText::Many(texts.into_iter().map(KeyValue::Text).collect())
    }
}

impl KeyValue {
    fn text(&self) -> String {
        match self {
            KeyValue::Number(number) => number.to_string(),
            KeyValue::Text(text) => text.clone(),
        }
    }
}

/// The range of keys that a job walks, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// First key; `None`: from the first row on.
    pub from: Option<Vec<String>>,
    /// Last key; `None`: to the last row.
    pub to: Option<Vec<String>>,
}

impl Bounds {
    /// True if the range has no end on either side.
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Returns the ends that are set, worded for a person.
    pub fn shown(&self) -> String {
        let side = |what: &str, key: &Option<Vec<String>>| {
            key.as_ref()
                .map(|key| format!("{what} ({})", key.join(", ")))
        };
        let sides = [
            side("from key_from", &self.from),
            side("to key_to", &self.to),
        ];
        sides.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bounds_that_there_are_are_shown() {
        let key = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        let mut bounds = Bounds {
            from: key(&["1", "a"]),
            to: key(&["9"]),
        };
        assert_eq!(bounds.shown(), "from key_from (1, a) to key_to (9)");
        bounds.from = None;
        assert_eq!(bounds.shown(), "to key_to (9)");
        assert_eq!(Bounds::default().shown(), "");
    }
}
