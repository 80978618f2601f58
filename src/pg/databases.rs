//! Lists the databases of the server from a process that is connected to none of them.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::scan::Scan;

/// Returns the databases that accept connections and are not templates: OID and name. Within a transaction.
pub fn connectable() -> Vec<(Oid, String)> {
    let mut found = Vec::new();
    let mut scan = Scan::<pg_sys::FormData_pg_database>::begin();
    while let Some(row) = scan.next() {
        let form = row.form();
        if form.datallowconn && !form.datistemplate {
            // SAFETY: a name in a catalog's row is zero-terminated, and lives as long as the row.
            let name = unsafe { CStr::from_ptr(form.datname.data.as_ptr()) };
            // Not converted: this process has no encoding, and each name is in the encoding of its database.
            found.push((form.oid, name.to_string_lossy().into_owned()));
        }
    }
    found
}
