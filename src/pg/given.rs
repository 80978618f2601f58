//! Settings of the extension that a connection sets before the library is loaded.
//!
//! Until then these settings are placeholders, which anybody may set, and the connection's value replaces the one in the
//! configuration file. When the library declares a setting, PostgreSQL refuses the value if its source may not set it, and falls
//! back to the built-in default, not to the configuration file: a rule set there would be off. With `shared_preload_libraries`,
//! PostgreSQL refuses such a connection. This module does the same otherwise: the library is not loaded for such a connection.
//! Values that a session sets later hide nothing.

use std::ffi::CStr;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, elog::PgLogLevel};

/// Raises an error if someone who is no superuser has set one of the extension's settings in such a way that RESET would return to that
/// value. To be called before the settings are declared; works outside of a transaction, too.
pub fn refuse() {
    // SAFETY: the server's own array, whose pointers are not null, and stay valid until a setting is declared: none is meanwhile.
    // A name ends with a zero.
    let given = unsafe {
        let (first, count) = all();
        std::slice::from_raw_parts(first, count)
            .iter()
            .any(|setting| hides(&**setting, CStr::from_ptr((**setting).name)))
    };
    if !given {
        return;
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    ErrorReport::new(
        code,
        "permission denied: the connection has given a value of a setting backfill.*, which hides the server's",
        "backfill",
    )
    .set_hint("Connect without it (options, PGOPTIONS): these settings are the server's, for superusers and the configuration file.")
    .report(PgLogLevel::ERROR);
}

/// Returns a pointer to the first of all settings, and their number.
fn all() -> (*const *mut pg_sys::config_generic, usize) {
    // SAFETY: the functions read what each server process sets up when it begins; the number is written to a variable of this function.
    unsafe {
        #[cfg(feature = "pg15")]
        let (first, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (first, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        (
            first.cast_const(),
            usize::try_from(count).unwrap_or_default(),
        )
    }
}

/// Whether the setting is a placeholder of the extension's whose default comes from a source that may not set it.
fn hides(setting: &pg_sys::config_generic, name: &CStr) -> bool {
    const PREFIX: &[u8] = b"backfill.";
    let name = name.to_bytes();
    let ours = name.len() > PREFIX.len() && name[..PREFIX.len()].eq_ignore_ascii_case(PREFIX);
    let anybody = [
        pg_sys::GucContext::PGC_BACKEND,
        pg_sys::GucContext::PGC_USERSET,
    ];
    ours && setting.flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as i32 != 0
        && setting.reset_source > pg_sys::GucSource::PGC_S_FILE
        && anybody.contains(&setting.reset_scontext)
}
