//! The names of the extension and its schemas, and which version of the extension's SQL this database has.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::scan::{CatalogRow, Scan};
use super::text;

/// Name of the extension, and of the schema that holds what users call.
pub const EXTENSION: &CStr = c"backfill";

/// Schema of the extension's tables, and of the functions that its statements call.
pub const INTERNAL: &CStr = c"backfill_internal";

type Extension = pg_sys::FormData_pg_extension;

/// Returns the extension's version in this database; `None` if the extension does not exist. Reads the catalog itself, since this is
/// called when the views are read, also in parallel workers.
pub fn version() -> Option<String> {
    of_ours(version_of)
}

/// Returns the schema that the extension was created in.
pub(super) fn schema() -> Option<Oid> {
    of_ours(|row| Some(row.form().extnamespace))
}

fn of_ours<T>(read: impl Fn(&CatalogRow<Extension>) -> Option<T>) -> Option<T> {
    let mut found = None;
    let mut scan = Scan::<Extension>::begin();
    while let Some(row) = scan.next() {
        let name = &row.form().extname.data;
        // SAFETY: a name is 64 bytes, of which PostgreSQL keeps the last one zero.
        if unsafe { CStr::from_ptr(name.as_ptr()) } == EXTENSION {
            found = read(&row);
        }
    }
    found
}

fn version_of(row: &CatalogRow<Extension>) -> Option<String> {
    let version = row.column(pg_sys::Anum_pg_extension_extversion)?;
    // SAFETY: the column is of type text, and its row is the scan's current one. text_to_cstring returns a zero-terminated
    // copy.
    unsafe { text::lossy(pg_sys::text_to_cstring(version.cast_mut_ptr())) }
}
