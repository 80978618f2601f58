//! Amounts of bytes and time as people write them: `256MB`, `30s`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Units of bytes, as in PostgreSQL's settings; the largest first.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];

/// Units of time in milliseconds, as in PostgreSQL's settings; the largest first.
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A bound in bytes; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub Option<u64>);

/// A bound in milliseconds; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Option<u64>);

impl Span {
    /// Returns the bound as a duration.
    pub fn duration(self) -> Option<Duration> {
        self.0.map(Duration::from_millis)
    }
}

/// Parses a whole number followed by one of the units; returns it in the smallest unit.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    let value = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    i64::try_from(value).is_ok().then_some(value)
}

/// Formats the number with the largest unit that divides it.
fn exact(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .unwrap_or(&units[units.len() - 1]);
    format!("{}{name}", value / factor)
}

/// Reads -1 (no bound), or a string with a unit; if `plain`, also a number.
fn read(value: &Value, units: &[(&str, u64)], plain: bool) -> Option<Option<u64>> {
    match value {
        Value::String(text) => parse(text, units).map(Some),
        Value::Number(number) if number.as_i64() == Some(-1) => Some(None),
        Value::Number(number) if plain => u64::try_from(number.as_i64()?).ok().map(Some),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        read(&Value::deserialize(deserializer)?, BYTE_UNITS, true)
            .map(Bytes)
            .ok_or_else(|| serde::de::Error::custom("not an amount of bytes"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        read(&Value::deserialize(deserializer)?, TIME_UNITS, false)
            .map(Span)
            .ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, BYTE_UNITS, serializer)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, TIME_UNITS, serializer)
    }
}

fn write<S: Serializer>(
    value: Option<u64>,
    units: &[(&str, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_str(&exact(value, units)),
        None => serializer.serialize_i64(-1),
    }
}

/// Formats bytes for people, rounded: `512 MB`. Like `pg_size_pretty`, changes to the next unit at ten of it.
pub struct Shown(pub u64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= factor.saturating_mul(10);
        let (name, factor) = BYTE_UNITS.iter().find(fits).unwrap_or(&("bytes", 1));
        let name = if *factor == 1 { "bytes" } else { name };
        write!(f, "{} {name}", (self.0 + factor / 2) / factor)
    }
}

/// Formats a number for people, with commas between the thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a time for people, rounded down to its two largest units: `1 h 20 min`.
pub struct Lasting(pub Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (large, small) = match seconds {
            0..60 => return write!(f, "{seconds} s"),
            60..3600 => ((seconds / 60, "min"), (seconds % 60, "s")),
            3600..86_400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "min")),
            _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
        };
        write!(f, "{} {}", large.0, large.1)?;
        if small.0 > 0 {
            write!(f, " {} {}", small.0, small.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(value: Value) -> Option<Option<u64>> {
        serde_json::from_value::<Bytes>(value).ok().map(|b| b.0)
    }

    #[test]
    fn bytes_are_a_number_or_have_a_unit() {
        assert_eq!(bytes(json!(1000)), Some(Some(1000)));
        assert_eq!(bytes(json!("256MB")), Some(Some(256 << 20)));
        assert_eq!(bytes(json!(" 1 gb ")), Some(Some(1 << 30)));
        assert_eq!(bytes(json!("0B")), Some(Some(0)));
        assert_eq!(bytes(json!(-1)), Some(None));
        for wrong in [
            json!("256"),
            json!("MB"),
            json!("-1MB"),
            json!("1.5GB"),
            json!(-2),
            json!(1.5),
            json!("99999999999TB"),
            json!("1 XB"),
            json!(true),
        ] {
            assert_eq!(bytes(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        let span = |value| serde_json::from_value::<Span>(value).ok().map(|s| s.0);
        assert_eq!(span(json!("30s")), Some(Some(30_000)));
        assert_eq!(span(json!("5 min")), Some(Some(300_000)));
        assert_eq!(span(json!("250MS")), Some(Some(250)));
        assert_eq!(span(json!(-1)), Some(None));
        assert_eq!(span(json!(30)), None);
        assert_eq!(span(json!("30")), None);
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for (value, text) in [
            (Some(256 << 20), json!("256MB")),
            (Some(1025), json!("1025B")),
            (Some(0), json!("0B")),
            (None, json!(-1)),
        ] {
            let written = serde_json::to_value(Bytes(value)).unwrap();
            assert_eq!(written, text);
            assert_eq!(bytes(written), Some(value));
        }
        assert_eq!(
            serde_json::to_value(Span(Some(90_000))).unwrap(),
            json!("90s")
        );
    }

    #[test]
    fn for_people_it_is_rounded() {
        assert_eq!(Shown(0).to_string(), "0 bytes");
        assert_eq!(Shown(9_000).to_string(), "9000 bytes");
        assert_eq!(Shown(512 << 20).to_string(), "512 MB");
        assert_eq!(Shown(5 << 40).to_string(), "5120 GB");
        let lasting = |seconds| Lasting(Duration::from_secs(seconds)).to_string();
        assert_eq!(lasting(0), "0 s");
        assert_eq!(lasting(75), "1 min 15 s");
        assert_eq!(lasting(3600), "1 h");
        assert_eq!(lasting(4800), "1 h 20 min");
        assert_eq!(lasting(90_000), "1 d 1 h");
    }
}
