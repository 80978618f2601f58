//! Lists the databases of the server from a process that is connected to none of them.

use pgrx::pg_sys::{self, Oid};

use super::scan::Scan;

/// OIDs of the databases that accept connections and are no templates. Within a transaction.
pub fn connectable() -> Vec<Oid> {
    let mut found = Vec::new();
    let mut scan = Scan::<pg_sys::FormData_pg_database>::begin();
    while let Some(row) = scan.next() {
        let form = row.form();
        if form.datallowconn && !form.datistemplate {
            found.push(form.oid);
        }
    }
    found
}
