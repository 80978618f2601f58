//! Formatting of values.

use std::time::Duration;

use serde_json::Value;

use crate::throttle::quantity::{Lasting, Shown, thousands};

/// Formats a JSON value as people write it; empty for null.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Replaces control characters, which a terminal would obey: a message may contain anybody's text.
pub fn printable(text: &str) -> String {
    let sound = |c: char| match c.is_control() && !matches!(c, '\n' | '\t') {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().map(sound).collect()
}

/// Formats a time up to the second: `2026-11-23 14:03:22+00:00`.
pub fn moment(text: &str) -> String {
    let text = text.replacen('T', " ", 1);
    match text.split_once('.') {
        None => text,
        Some((whole, rest)) => {
            let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{whole}{zone}")
        }
    }
}

/// Formats a number with commas between the thousands.
pub fn count(number: f64) -> String {
    thousands(number)
}

/// Formats a number of bytes with a unit: `12 MB`.
pub fn bytes(number: f64) -> String {
    Shown(number.max(0.0) as u64).to_string()
}

/// Formats seconds for people: `0.4 s`, `1 min 1 s`.
pub fn lasting(seconds: f64) -> String {
    match seconds < 10.0 {
        true => format!("{seconds:.1} s"),
        false => {
            let time = Duration::from_secs_f64(seconds);
            Lasting(time).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(
            moment("2026-11-23T14:00:00.123456+00:00"),
            "2026-11-23 14:00:00+00:00"
        );
        assert_eq!(plain(&serde_json::json!(["a", 1, null])), "a, 1, ");
        assert_eq!(
            printable("\u{1b}[2J\ta\n\u{9b}"),
            "\u{fffd}[2J\ta\n\u{fffd}"
        );
        assert_eq!(lasting(0.44), "0.4 s");
        assert_eq!(lasting(61.0), "1 min 1 s");
    }
}
