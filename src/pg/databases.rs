//! Lists the databases of the server from a process that is connected to none of them.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

/// The databases that accept connections and are no templates, by OID, with their names. Within a transaction.
pub fn connectable() -> Vec<(Oid, String)> {
    let mut found = Vec::new();
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*form).datallowconn && !(*form).datistemplate {
                // Not converted: this process has no encoding, and names are in that of their database.
                let name = CStr::from_ptr((*form).datname.data.as_ptr()).to_string_lossy();
                found.push(((*form).oid, name.into_owned()));
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}
