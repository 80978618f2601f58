//! Settings of ours that a connection gives before the library is loaded.
//!
//! Until then they are placeholders, which anybody may set, and the connection's value takes the place of the configuration
//! file's. When the library declares the setting, PostgreSQL refuses the value of one who may not set it, and what is left is neither, but
//! the one that is built in: a house rule would be off. With `shared_preload_libraries` such a connection is refused
//! by PostgreSQL. So it is here: the library is not loaded for it. What a session sets later hides nothing.

use std::ffi::CStr;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, elog::PgLogLevel};

/// Raises an error if one who is no superuser has given one of our settings the value that a RESET would go back to. Before
/// they are declared. Also outside of a transaction.
pub fn refuse() {
    // SAFETY: the server's own array, whose pointers are not null, and stay until a setting is declared: none is meanwhile. A name
    // ends with a zero.
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

/// The first of all settings, and how many there are.
fn all() -> (*const *mut pg_sys::config_generic, usize) {
    // SAFETY: they read what each process of the server has set up when it began; the number is written to a variable of this function.
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

/// Whether it is a placeholder of ours, whose default comes from one who may not set it.
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
