//! Reads and sets PostgreSQL settings (GUCs).

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use super::flag::Raised;
use super::text::{lossy_whole, to_server};
use super::{search_path, server, subtransaction};
use crate::error::Result;

/// Returns the value in force; `None` if there is no such setting.
pub fn get(name: &CStr) -> Option<String> {
    // SAFETY: the name ends with a zero. The result is null or a zero-terminated string that stays until the next call; it is
    // copied before.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        match value.is_null() {
            true => None,
            false => lossy_whole(value).ok(),
        }
    }
}

/// Returns the value in force, in the database's encoding.
fn shown(name: &CStr) -> Option<CString> {
    // SAFETY: as above.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Whether a setting has exactly this value.
pub fn is(name: &CStr, value: &CStr) -> bool {
    // SAFETY: as above; the value is compared at once.
    unsafe {
        let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        !current.is_null() && CStr::from_ptr(current) == value
    }
}

/// Sets a setting until the enclosing nest level of settings ends.
pub fn set_local(name: &CStr, value: &CStr) {
    set(
        name,
        value,
        pg_sys::GucContext::PGC_USERSET,
        pg_sys::GucAction::GUC_ACTION_SAVE,
    );
}

/// Like [`set_local`], but for any name and value, with the rights of the current user. In a search_path, temporary tables are put last.
pub fn set_text_local(name: &str, value: &str) -> Result<()> {
    let action = pg_sys::GucAction::GUC_ACTION_SAVE;
    let value = to_server(&in_force(name, value))?;
    set(&to_server(name)?, &value, own_context(), action);
    Ok(())
}

/// Returns the value to set where users' text is examined or run.
fn in_force<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    match name.eq_ignore_ascii_case("search_path") {
        true => Cow::Owned(search_path::with_temporary_last(value)),
        false => Cow::Borrowed(value),
    }
}

/// Returns the context for settings that the current user may set.
fn own_context() -> pg_sys::GucContext::Type {
    server::require_transaction();
    // SAFETY: within a transaction; the function may read the catalog of roles.
    if unsafe { pg_sys::superuser() } {
        pg_sys::GucContext::PGC_SUSET
    } else {
        pg_sys::GucContext::PGC_USERSET
    }
}

/// Sets a setting until the transaction ends, with the rights of any user.
pub fn set_for_transaction(name: &CStr, value: &CStr) {
    set(
        name,
        value,
        pg_sys::GucContext::PGC_USERSET,
        pg_sys::GucAction::GUC_ACTION_LOCAL,
    );
}

/// Like [`set_for_transaction`], but with a superuser's rights: for values of the extension's own.
pub fn set_trusted_for_transaction(name: &CStr, value: &CStr) {
    let (context, action) = (
        pg_sys::GucContext::PGC_SUSET,
        pg_sys::GucAction::GUC_ACTION_LOCAL,
    );
    set(name, value, context, action);
}

/// Like [`set_for_transaction`], but for any value. A value that contains a zero byte is ignored.
pub fn set_text_for_transaction(name: &CStr, value: &str) {
    if let Ok(value) = CString::new(value) {
        set_for_transaction(name, &value);
    }
}

thread_local! {
    /// Whether the extension itself sets something now.
    static SETTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether it is the extension itself that sets something now, and no statement.
pub(super) fn is_setting() -> bool {
    SETTING.get()
}

fn set(
    name: &CStr,
    value: &CStr,
    context: pg_sys::GucContext::Type,
    action: pg_sys::GucAction::Type,
) {
    let _setting = Raised::begin(&SETTING);
    // SAFETY: both strings end with a zero, and are copied. A value that it cannot have, or that the user may not
    // set, is an error, which leaves it as it was.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Returns an error unless the current user may set the setting to this value. Nothing stays changed.
pub fn try_value(name: &str, value: &str) -> Result<()> {
    let (name, value) = (to_server(name)?, to_server(value)?);
    let context = own_context();
    // The check of a value may read catalogs: what an error in it leaves behind is cleaned up with the subtransaction.
    subtransaction::undone(|| {
        set(&name, &value, context, pg_sys::GucAction::GUC_ACTION_SAVE);
        Ok(())
    })
}

/// Runs `f`, which may change settings with the `_local` functions; all of them are put back afterwards. If an error or a panic leaves
/// `f`, the abort of the (sub)transaction puts them back.
pub fn nested<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    server::require_transaction();
    // SAFETY: within a transaction. An abort puts back all levels begun since the (sub)transaction began, this one among them;
    // and whoever catches an error has to abort, see `capture`. So a guard would have nothing to do, and moreover it would run
    // the hooks of settings in a transaction that has failed.
    let nest = unsafe { pg_sys::NewGUCNestLevel() };
    let result = f();
    // SAFETY: `f` has returned: it has ended all levels and transactions that it began, and not the one around it, so the level
    // is still there.
    unsafe { pg_sys::AtEOXact_GUC(false, nest) };
    result
}

/// Runs `f` with these settings, which are put back afterwards.
pub fn with<T>(values: &[(&CStr, &CStr)], f: impl FnOnce() -> Result<T>) -> Result<T> {
    if values.iter().all(|(name, value)| is(name, value)) {
        return f();
    }
    nested(|| {
        values
            .iter()
            .for_each(|(name, value)| set_local(name, value));
        f()
    })
}

/// Settings under which the text form of a value is unambiguous and is read back as the same value.
pub const CANONICAL: &[(&CStr, &CStr)] = &[
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"array_nulls", c"on"),
];

/// Settings that a worker keeps in force across batches.
#[derive(Debug, Default)]
pub struct Pins(Vec<Pin>);

#[derive(Debug)]
struct Pin {
    name: CString,
    value: CString,
    /// The value as PostgreSQL shows it once it is set: `64MB` becomes `65536`.
    shown: Option<CString>,
    /// Whether the extension itself sets the setting, with a superuser's rights.
    trusted: bool,
}

impl Pins {
    /// Adds a setting of the owner's, to be set with the owner's rights. It replaces an earlier one of the same name.
    pub fn pin(&mut self, name: &str, value: &str) -> Result<()> {
        self.add(name, value, false)
    }

    /// Adds a setting of the extension's, to be set with a superuser's rights. It replaces an earlier one of the same name.
    pub fn pin_trusted(&mut self, name: &str, value: &str) -> Result<()> {
        self.add(name, value, true)
    }

    fn add(&mut self, name: &str, value: &str, trusted: bool) -> Result<()> {
        let (name, value) = (to_server(name)?, to_server(&in_force(name, value))?);
        self.0
            .retain(|pin| !pin.name.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        self.0.push(Pin {
            name,
            value,
            shown: None,
            trusted,
        });
        Ok(())
    }

    /// Whether all settings are in force.
    pub fn hold(&self) -> bool {
        self.0
            .iter()
            .all(|pin| pin.shown.as_ref().is_some_and(|shown| is(&pin.name, shown)))
    }

    /// Puts all settings in force for the session. Within a transaction.
    pub fn apply(&mut self) {
        for pin in &mut self.0 {
            if pin.shown.as_ref().is_some_and(|shown| is(&pin.name, shown)) {
                continue;
            }
            let context = if pin.trusted {
                pg_sys::GucContext::PGC_SUSET
            } else {
                own_context()
            };
            set(
                &pin.name,
                &pin.value,
                context,
                pg_sys::GucAction::GUC_ACTION_SET,
            );
            pin.shown = shown(&pin.name);
        }
    }
}
