//! Between which keys a job walks.

use serde::{Deserialize, Serialize};

/// A key as a call gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyText {
    /// Of one column.
    One(KeyValue),
    /// Of several.
    Many(Vec<KeyValue>),
}

/// A value of a key as a call gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyValue {
    /// A number without a fraction, which JSON holds exactly.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl KeyText {
    /// Column by column, in text form.
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

/// The keys between which a job walks, the bounds included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The first; none: from the first row on.
    pub from: Option<Vec<String>>,
    /// The last; none: to the last row.
    pub to: Option<Vec<String>>,
}

impl Bounds {
    /// Whether there are none.
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}
