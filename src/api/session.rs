//! Settings that are taken from the defining session, so that a batch means what its author meant.

use std::collections::BTreeMap;

use crate::error::{Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::settings;
use crate::pg::spi::{self, Arg};

/// Settings that can change what a clause means or what an expression yields.
const MEANING: &[&std::ffi::CStr] = &[
    c"search_path",
    c"TimeZone",
    c"DateStyle",
    c"IntervalStyle",
    c"timezone_abbreviations",
    c"bytea_output",
    c"extra_float_digits",
    c"xmlbinary",
    c"xmloption",
    c"lc_monetary",
    c"lc_numeric",
    c"lc_time",
    c"default_text_search_config",
    c"array_nulls",
    c"transform_null_equals",
    c"default_toast_compression",
];

/// Settings that are always written down, since servers differ in them.
const ALWAYS: &[&str] = &[
    "search_path",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "default_text_search_config",
];

/// Settings whose values another server may not have: written down only if they are not this server's own.
const INSTALLED: &[&str] = &[
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "timezone_abbreviations",
];

/// True if the meaning of the clauses may depend on this setting.
pub fn changes_meaning(name: &str) -> bool {
    let same = |known: &&std::ffi::CStr| {
        known
            .to_str()
            .is_ok_and(|known| known.eq_ignore_ascii_case(name))
    };
    MEANING.iter().any(same)
}

/// Returns the present values of these settings.
pub fn take() -> BTreeMap<String, String> {
    let value = |name: &&std::ffi::CStr| {
        settings::get(name).map(|value| (name.to_string_lossy().into_owned(), value))
    };
    MEANING.iter().filter_map(value).collect()
}

/// Returns those of the settings taken that have to be set again elsewhere for the same meaning: those in which servers
/// differ, and those without their built-in value.
pub fn worth_writing(taken: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut worth = BTreeMap::new();
    for (name, value) in taken {
        if ALWAYS.contains(&name.as_str()) || !is_built_in(name, value)? {
            worth.insert(name.clone(), value.clone());
        }
    }
    Ok(worth)
}

/// True if the setting has this value by default.
fn is_built_in(name: &str, value: &str) -> Result<bool> {
    let own = if INSTALLED.contains(&name) {
        "reset_val"
    } else {
        "boot_val"
    };
    let found = as_extension(|| {
        spi::first(
            &format!("SELECT {own} FROM pg_catalog.pg_settings WHERE name = $1"),
            &[Arg::Text(name)],
        )
    })?;
    Ok(found.is_some_and(|row| row.get(0) == Some(value)))
}

/// Tries `options.settings` with the rights of the caller; nothing stays changed.
pub fn try_settings(wanted: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in wanted {
        settings::try_value(name, value).map_err(|mut error| {
            error.message = format!("options.settings: {}", error.message);
            error.position = None;
            error.context = None;
            if error.hint.is_some() {
                return error;
            }
            let hint = match error.sqlstate.as_str() {
                sqlstate::UNDEFINED_OBJECT => {
                    "SELECT name FROM pg_settings lists them. A setting of your own has a dot in its name: \"app.user\".".to_owned()
                }
                sqlstate::INVALID_PARAMETER_VALUE => format!("SHOW {name} shows how its values are written."),
                _ => "options.settings takes what the job's owner may SET in a session.".to_owned(),
            };
            error.hint(hint)
        })?;
    }
    Ok(())
}
