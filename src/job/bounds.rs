//! Between which keys a job walks.

use serde::{Deserialize, Serialize};

/// A key as a call gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyText {
    /// Of one column, a number.
    Number(i64),
    /// Of one column.
    One(String),
    /// Of several.
    Many(Vec<String>),
}

impl KeyText {
    /// Column by column, in text form.
    pub fn texts(&self) -> Vec<String> {
        match self {
            KeyText::Number(number) => vec![number.to_string()],
            KeyText::One(text) => vec![text.clone()],
            KeyText::Many(texts) => texts.clone(),
        }
    }
}

/// The keys between which a job walks, the bounds included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
