//! The kinds of values that bounds have, and how each is read from `options` and from a setting.

use serde_json::Value as Json;

use crate::throttle::quantity::{Bytes, Lasting, Shown, Span};
use crate::throttle::window::RunWindow;

/// The value that sets no bound, for options that are numbers and settings that are numbers.
pub const NO_BOUND: i64 = -1;
/// An upper limit for options that count something: more than any server has.
pub const MANY: i64 = 1_000_000;

/// The kind of a bound's value. Settings that are numbers take -1 for no bound; flags are off and texts are empty by
/// default.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An amount of bytes. The setting is in kB; the field is its default.
    Bytes(i32),
    /// A time. The setting is in milliseconds; the field is its default.
    Span(i32),
    /// A whole number.
    Number {
        /// Default of the setting.
        default: i32,
        /// Greatest value of the option; the least is -1.
        most: i64,
        /// Hint of the error for an option out of range: a sentence that says what the option is.
        purpose: &'static str,
    },
    /// A flag, on or off.
    Flag,
    /// A list of names. In the setting, they are separated by commas.
    Names,
    /// A text. The field says what is expected, for the error about a value that is not a string.
    Text(&'static str),
    /// Hours of the day or the week.
    Window,
}

/// The value of a bound, as it was given. -1, false, and an empty text or list set no bound.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The greatest amount of bytes.
    Bytes(Bytes),
    /// The longest time.
    Span(Span),
    /// The greatest number.
    Number(i64),
    /// Whether the job waits while the signal is on.
    Flag(bool),
    /// Names that count, or names that do not.
    Names(Vec<String>),
    /// A query.
    Text(String),
    /// The hours in which the job may run.
    Window(RunWindow),
}

impl Kind {
    /// Describes a valid value of an option of this kind, for errors.
    pub const fn expected(self) -> &'static str {
        match self {
            Kind::Bytes(_) => "an amount such as \"256MB\", a number of bytes, or -1 for no bound",
            Kind::Span(_) => "a time such as \"30s\", or -1 for no bound",
            Kind::Number { .. } => "an integer",
            Kind::Flag => "true or false",
            Kind::Names => "an array of names",
            Kind::Text(expected) => expected,
            Kind::Window => {
                "hours such as \"22:00-06:00 Europe/Berlin\" or \"Mon-Fri 22:00-06:00, Sat-Sun\", or \"\" for no bound"
            }
        }
    }

    /// Returns the default of a setting that is a number, in the setting's unit.
    pub const fn default(self) -> i32 {
        match self {
            Kind::Bytes(default) | Kind::Span(default) | Kind::Number { default, .. } => default,
            Kind::Flag | Kind::Names | Kind::Text(_) | Kind::Window => -1,
        }
    }

    /// Reads the value of an option; `None` if it is not of this kind.
    pub fn of_option(self, given: &Json) -> Option<Value> {
        let owned = |text: &Json| text.as_str().map(str::to_owned);
        Some(match self {
            Kind::Bytes(_) => Value::Bytes(serde_json::from_value(given.clone()).ok()?),
            Kind::Span(_) => Value::Span(serde_json::from_value(given.clone()).ok()?),
            Kind::Number { .. } => Value::Number(given.as_i64()?),
            Kind::Flag => Value::Flag(given.as_bool()?),
            Kind::Names => {
                let names = given.as_array()?.iter().map(owned);
                Value::Names(names.collect::<Option<_>>()?)
            }
            Kind::Text(_) => Value::Text(owned(given)?),
            Kind::Window => Value::Window(RunWindow::parse(given.as_str()?)?),
        })
    }

    /// Converts the value of a setting that is a number, given in the setting's unit.
    pub fn of_number(self, number: i32) -> Value {
        let bound = u64::try_from(number).ok();
        match self {
            Kind::Bytes(_) => Value::Bytes(Bytes(bound.map(|kilobytes| kilobytes * 1024))),
            Kind::Span(_) => Value::Span(Span(bound)),
            _ => Value::Number(number.into()),
        }
    }

    /// Reads the value of a setting that is a text; `None` if it makes no sense.
    pub fn of_text(self, text: String) -> Option<Value> {
        let trimmed = |name: &str| name.trim().to_owned();
        Some(match self {
            Kind::Names => {
                let names = text.split(',').map(trimmed);
                Value::Names(names.filter(|name| !name.is_empty()).collect())
            }
            Kind::Window => Value::Window(RunWindow::parse(&text)?),
            _ => Value::Text(text),
        })
    }

    /// Formats an amount that was found: bytes, seconds, or a number.
    pub fn shown(self, amount: f64) -> String {
        match self {
            Kind::Bytes(_) => Shown(amount as u64).to_string(),
            Kind::Span(_) => Lasting(std::time::Duration::from_secs_f64(amount)).to_string(),
            _ => format!("{amount:.0}"),
        }
    }
}

impl Value {
    /// Returns the value as the option is stored, in JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Bytes(bytes) => serde_json::json!(bytes),
            Value::Span(span) => serde_json::json!(span),
            Value::Number(number) => Json::from(*number),
            Value::Flag(flag) => Json::from(*flag),
            Value::Names(names) => Json::from(names.clone()),
            Value::Text(text) => Json::from(text.clone()),
            Value::Window(window) => serde_json::json!(window),
        }
    }

    /// True if the value sets a bound.
    pub fn is_bound(&self) -> bool {
        match self {
            Value::Flag(flag) => *flag,
            Value::Names(names) => !names.is_empty(),
            Value::Text(text) => !text.trim().is_empty(),
            Value::Window(window) => window.0.is_some(),
            Value::Bytes(_) | Value::Span(_) | Value::Number(_) => self.amount().is_some(),
        }
    }

    /// Formats a bound that is an amount; empty for others.
    pub fn shown(&self) -> String {
        match self {
            Value::Bytes(Bytes(Some(bytes))) => Shown(*bytes).to_string(),
            Value::Span(span) => span
                .duration()
                .map_or(String::new(), |time| Lasting(time).to_string()),
            _ => self.amount().map_or(String::new(), |n| n.to_string()),
        }
    }

    /// Returns the bound in the unit in which a finding is compared with it: bytes, seconds, or a number. Infinite if
    /// there is no bound.
    pub fn limit(&self) -> f64 {
        let amount = self.amount().map_or(f64::INFINITY, |amount| amount as f64);
        match self {
            Value::Span(_) => amount / 1000.0,
            _ => amount,
        }
    }

    /// Returns a bound that is an amount, in bytes, in milliseconds, or as a number; `None` if it is no amount or sets
    /// no bound.
    pub fn amount(&self) -> Option<u64> {
        match self {
            Value::Bytes(bytes) => bytes.0,
            Value::Span(span) => span.0,
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NUMBER: Kind = Kind::Number {
        default: -1,
        most: MANY,
        purpose: "",
    };

    #[test]
    fn an_option_is_of_its_kind_or_refused() {
        for (kind, good, bad) in [
            (Kind::Bytes(-1), json!("64MB"), json!("64")),
            (Kind::Span(-1), json!("30s"), json!(30)),
            (NUMBER, json!(5), json!(1.5)),
            (NUMBER, json!(-1), json!(u64::MAX)),
            (Kind::Flag, json!(true), json!(1)),
            (Kind::Names, json!(["a", "b"]), json!(["a", 1])),
            (Kind::Text("a query"), json!("SELECT true"), json!(true)),
            (Kind::Window, json!("22:00-06:00"), json!("22-06")),
        ] {
            assert_eq!(kind.of_option(&good).unwrap().to_json(), good);
            assert_eq!(kind.of_option(&bad), None, "{bad}");
            assert_eq!(kind.of_option(&Json::Null), None);
        }
    }

    #[test]
    fn no_bound_is_none() {
        for (kind, none) in [
            (Kind::Bytes(-1), json!(-1)),
            (Kind::Span(-1), json!(-1)),
            (NUMBER, json!(-1)),
            (Kind::Flag, json!(false)),
            (Kind::Names, json!([])),
            (Kind::Text("a query"), json!(" ")),
            (Kind::Window, json!("")),
        ] {
            assert!(!kind.of_option(&none).unwrap().is_bound(), "{kind:?}");
        }
        assert_eq!(Value::Number(0).amount(), Some(0));
    }

    #[test]
    fn settings_have_units_and_lists_have_commas() {
        let kilobytes = Kind::Bytes(-1).of_number(3);
        assert_eq!(kilobytes.amount(), Some(3072));
        assert_eq!(Kind::Span(-1).of_number(3).amount(), Some(3));
        assert_eq!(Kind::Span(-1).of_number(-1).amount(), None);
        let names = Kind::Names.of_text(" a, b ,,".to_owned()).unwrap();
        assert_eq!(names.to_json(), json!(["a", "b"]));
        assert_eq!(Kind::Window.of_text("nonsense".to_owned()), None);
    }

    #[test]
    fn amounts_are_said_in_their_units() {
        assert_eq!(Kind::Bytes(-1).shown(12_582_912.0), "12 MB");
        assert_eq!(Kind::Span(-1).shown(75.9), "1 min 15 s");
        assert_eq!(NUMBER.shown(1234.6), "1235");
    }
}
