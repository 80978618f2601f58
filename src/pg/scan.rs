//! Reads a table of the system catalogs from beginning to end. It needs no SQL, so it also works in a process that is connected to no
//! database, and in a parallel worker.

use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, Oid};

use super::open::Open;

/// The fixed part of the rows of a catalog.
///
/// # Safety
/// Must be the C struct `FormData_...` of that catalog.
pub(super) unsafe trait Form {
    /// OID of the catalog.
    const CATALOG: Oid;
}

// SAFETY: the struct is generated from catalog/pg_database.h, for each major version.
unsafe impl Form for pg_sys::FormData_pg_database {
    const CATALOG: Oid = pg_sys::DatabaseRelationId;
}

// SAFETY: the struct is generated from catalog/pg_extension.h, for each major version.
unsafe impl Form for pg_sys::FormData_pg_extension {
    const CATALOG: Oid = pg_sys::ExtensionRelationId;
}

/// A scan of a catalog. After an error, the abort ends it.
pub(super) struct Scan<F: Form> {
    scan: pg_sys::TableScanDesc,
    table: Open,
    rows: PhantomData<F>,
}

impl<F: Form> Scan<F> {
    /// Begins a scan, under a snapshot of its own. Within a transaction.
    pub fn begin() -> Scan<F> {
        let table = Open::table(F::CATALOG);
        // SAFETY: the table is open, and stays so while the scan lives. The number of keys is 0, so the null pointer is not read.
        let scan =
            unsafe { pg_sys::table_beginscan_catalog(table.as_ptr(), 0, std::ptr::null_mut()) };
        Scan {
            scan,
            table,
            rows: PhantomData,
        }
    }

    /// Returns the next row, which can be read until the row after it is requested.
    pub fn next(&mut self) -> Option<CatalogRow<'_, F>> {
        // SAFETY: the scan was begun and not ended. Catalogs are heaps.
        let tuple =
            unsafe { pg_sys::heap_getnext(self.scan, pg_sys::ScanDirection::ForwardScanDirection) };
        (!tuple.is_null()).then_some(CatalogRow { tuple, scan: self })
    }
}

impl<F: Form> Drop for Scan<F> {
    fn drop(&mut self) {
        // As with the relation: after an error, the abort ends the scan.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: the scan was begun by `begin` and is ended nowhere else. The table is closed afterwards: fields are dropped
        // after this.
        unsafe { pg_sys::heap_endscan(self.scan) };
    }
}

/// A row of a catalog. The scan keeps its page pinned, and can't go on while this is borrowed from it.
pub(super) struct CatalogRow<'a, F: Form> {
    tuple: pg_sys::HeapTuple,
    scan: &'a Scan<F>,
}

impl<F: Form> CatalogRow<'_, F> {
    /// Returns the fixed columns.
    pub fn form(&self) -> &F {
        // SAFETY: the tuple is the scan's current one, of the catalog that `F` is the struct of, whose fixed columns are never null
        // and are at the beginning of each row, in the struct's layout.
        unsafe { &*pg_sys::GETSTRUCT(self.tuple).cast::<F>() }
    }

    /// Returns a column by its number (from 1), also one of variable length; `None` for NULL. A pointer in it leads into the row.
    pub fn column(&self, number: u32) -> Option<Datum> {
        let mut null = false;
        // SAFETY: the tuple is the scan's current one, and the descriptor that of its table, which is open. The column is one of the
        // table's.
        let value = unsafe {
            let columns = (*self.scan.table.as_ptr()).rd_att;
            assert!((1..=(*columns).natts).contains(&(number as i32)));
            pg_sys::heap_getattr(self.tuple, number as i32, columns, &mut null)
        };
        (!null).then_some(value)
    }
}
