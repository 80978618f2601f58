//! The kinds of values that bounds have, and how each is read: from `options`, and from a setting.

use serde_json::Value as Json;

use crate::throttle::quantity::{Bytes, Lasting, Shown, Span};
use crate::throttle::window::RunWindow;

/// No bound: of a number, and of settings that are numbers.
pub const NO_BOUND: i64 = -1;
/// More than any server has of it.
pub const MANY: i64 = 1_000_000;

/// A bound is of one of these kinds. Settings of numbers take -1 for no bound; flags are off and texts are empty by default.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// The option is an amount of bytes. The setting is in kB; this is its default.
    Bytes(i32),
    /// The option is a time. The setting is in milliseconds; this is its default.
    Span(i32),
    /// It is a whole number.
    Number {
        /// The setting's default.
        default: i32,
        /// The greatest that the option may be; the least is -1.
        most: i64,
        /// The hint of the error where the option is out of these bounds: a sentence that says what it is.
        purpose: &'static str,
    },
    /// It is on or off.
    Flag,
    /// It is a list of names. In the setting, commas separate them.
    Names,
    /// It is a text. The error where it is none says that it must be this.
    Text(&'static str),
    /// It is hours of the day or the week.
    Window,
}

/// A value bounds a signal as it was given. -1, false, or an empty text or list mean that there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An amount of bytes may be reached.
    Bytes(Bytes),
    /// A time may be reached.
    Span(Span),
    /// A number may be reached.
    Number(i64),
    /// The job waits where it is true.
    Flag(bool),
    /// These names count, or do not.
    Names(Vec<String>),
    /// This query is asked.
    Text(String),
    /// The job may run in these hours.
    Window(RunWindow),
}

impl Kind {
    /// Says what an option of this kind must be, for errors.
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

    /// Returns the default of a setting that is a number, in its unit.
    pub const fn default(self) -> i32 {
        match self {
            Kind::Bytes(default) | Kind::Span(default) | Kind::Number { default, .. } => default,
            Kind::Flag | Kind::Names | Kind::Text(_) | Kind::Window => -1,
        }
    }

    /// Reads the value of an option; `None` if it is none of this kind.
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

    /// Converts the value of a setting that is a number, which comes in its unit.
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

    /// Says an amount as it was found: in bytes, in seconds, or a number.
    pub fn shown(self, amount: f64) -> String {
        match self {
            Kind::Bytes(_) => Shown(amount as u64).to_string(),
            Kind::Span(_) => Lasting(std::time::Duration::from_secs_f64(amount)).to_string(),
            _ => format!("{amount:.0}"),
        }
    }
}

impl Value {
    /// Returns the option as it is stored.
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

    /// Returns true if it bounds anything.
    pub fn is_bound(&self) -> bool {
        match self {
            Value::Flag(flag) => *flag,
            Value::Names(names) => !names.is_empty(),
            Value::Text(text) => !text.trim().is_empty(),
            Value::Window(window) => window.0.is_some(),
            Value::Bytes(_) | Value::Span(_) | Value::Number(_) => self.amount().is_some(),
        }
    }

    /// Says a bound that is an amount.
    pub fn shown(&self) -> String {
        match self {
            Value::Bytes(Bytes(Some(bytes))) => Shown(*bytes).to_string(),
            Value::Span(span) => span
                .duration()
                .map_or(String::new(), |time| Lasting(time).to_string()),
            _ => self.amount().map_or(String::new(), |n| n.to_string()),
        }
    }

    /// Returns the bound as an amount that was found is held against it: in bytes, in seconds, or as a number. It is infinite
    /// where nothing is bounded.
    pub fn limit(&self) -> f64 {
        let amount = self.amount().map_or(f64::INFINITY, |amount| amount as f64);
        match self {
            Value::Span(_) => amount / 1000.0,
            _ => amount,
        }
    }

    /// Returns a bound that is an amount, in bytes, in milliseconds, or as a number; `None`: it is no amount, or bounds nothing.
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
