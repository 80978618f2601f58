//! What is taken from the defining session, so that a batch means what its author meant.

use std::collections::BTreeMap;

use crate::error::{Result, sqlstate};
use crate::pg::settings;

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

/// The settings in force now.
pub fn take() -> BTreeMap<String, String> {
    let value = |name: &&std::ffi::CStr| {
        settings::get(name).map(|value| (name.to_string_lossy().into_owned(), value))
    };
    MEANING.iter().filter_map(value).collect()
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
