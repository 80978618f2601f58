//! Which version of the extension's SQL this database has.

use pgrx::pg_sys;

use super::elevate::EXTENSION;
use super::text;

/// The version that the extension has in this database; `None` where it does not exist. From the
/// catalog itself: this is asked where the views are read, also by parallel workers.
pub fn version() -> Option<String> {
    let mut version = None;
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>();
            if pg_sys::namestrcmp(&raw mut (*form).extname, EXTENSION.as_ptr()) == 0 {
                version = version_of(tuple, (*relation).rd_att);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    version
}

unsafe fn version_of(tuple: pg_sys::HeapTuple, columns: pg_sys::TupleDesc) -> Option<String> {
    unsafe {
        let column = pg_sys::Anum_pg_extension_extversion as i32;
        let mut null = false;
        let datum = pg_sys::heap_getattr(tuple, column, columns, &mut null);
        if null {
            return None;
        }
        text::lossy(pg_sys::text_to_cstring(datum.cast_mut_ptr()))
    }
}
