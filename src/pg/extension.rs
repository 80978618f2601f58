//! Which version of the extension's SQL this database has, and in which schema.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::elevate::EXTENSION;
use super::scan::{CatalogRow, Scan};
use super::text;

type Extension = pg_sys::FormData_pg_extension;

/// The version that the extension has in this database; `None` where it does not exist. From the
/// catalog itself: this is asked where the views are read, also by parallel workers.
pub fn version() -> Option<String> {
    of_ours(version_of)
}

/// The schema that the extension was created in.
pub(super) fn schema() -> Option<Oid> {
    of_ours(|row| Some(row.form().extnamespace))
}

fn of_ours<T>(read: impl Fn(&CatalogRow<Extension>) -> Option<T>) -> Option<T> {
    let mut found = None;
    let mut scan = Scan::<Extension>::begin();
    while let Some(row) = scan.next() {
        let name = &row.form().extname.data;
        // SAFETY: a name is 64 bytes of which PostgreSQL keeps the last one zero.
        if unsafe { CStr::from_ptr(name.as_ptr()) } == EXTENSION {
            found = read(&row);
        }
    }
    found
}

fn version_of(row: &CatalogRow<Extension>) -> Option<String> {
    let version = row.column(pg_sys::Anum_pg_extension_extversion)?;
    // SAFETY: the column is of type text, and its row is the scan's present one. text_to_cstring gives
    // a copy that ends in zero.
    unsafe { text::lossy(pg_sys::text_to_cstring(version.cast_mut_ptr())) }
}
